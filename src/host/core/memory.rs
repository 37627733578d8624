//! Paths that forget pairs which are idle (`protect::path_memory`).

use std::time::{Duration, Instant};

use super::Core;
use crate::host::probe::{ECHO, SizeProbe};
use crate::protect::clock::Clock;
use crate::protect::path_memory::PathOrder;
use crate::types::Pair;

impl Core {
    /// The longest pause on `pair`, where something on its path forgets it and is reminded.
    pub fn reminded_after(&self, pair: Pair) -> Option<Duration> {
        self.acquaintances.get(&pair)?.memory.reminded_after()
    }

    /// Does what is due for the pairs whose paths may forget them.
    pub(super) fn go_on_remembering(&mut self, now: Instant) {
        while let Some(pair) = self.memories.pop_due(now) {
            self.remember(now, pair);
        }
    }

    /// Does what is due for one of them.
    pub(super) fn remember(&mut self, now: Instant, pair: Pair) {
        let Some(machine) = self.pairs.get(pair) else { return self.memories.set(pair, None) };
        let (way, proven) = (machine.way_to_peer(), machine.is_proven());
        let known = self.acquaintance(pair, now);
        let answers = known.about.as_ref().is_some_and(|about| about.sizes);
        let memory = &mut known.memory;
        let Some((sa, token)) = way.filter(|_| answers && memory.is_busy()) else {
            memory.give_up();
            return self.memories.set(pair, None);
        };
        let mut clock = Clock::new(now);
        let step = memory.poll(&mut clock, proven);
        self.memories.set(pair, clock.next);
        match step {
            Some(PathOrder::Echo) => {
                self.queue_size(sa, pair, SizeProbe { token, size: ECHO, answers: false }, 0);
            }
            Some(PathOrder::AskInIke) if self.prove_anew(now, pair) => {}
            Some(PathOrder::AskInIke) => {
                self.acquaintance(pair, now).memory.give_up();
                self.engine.check_liveness(now, pair);
            }
            Some(PathOrder::Reminds) => {
                self.remember(now, pair);
                self.changed.insert(pair);
                self.line(pair).warn(
                    "a firewall on the path forgets ESP when no traffic flows, and drops it then: from now on this \
                     host reminds it",
                );
            }
            None => {}
        }
    }
}
