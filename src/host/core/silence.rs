//! Listens for signs of life of the peers: in the counters of SAs, and in what the key exchange took in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::sizing::Measured;
use super::{Core, TICK};
use crate::observe::About;
use crate::protect::PairMachine;
use crate::protect::path_memory::PathMemory;
use crate::protect::silence::{LISTEN_EVERY, Silence, idle_patience};
use crate::types::{Pair, RowState, SaId, SaReading, Spi, UnixTime};

/// So many peers that fall silent at once, or are heard again, get a line each in the log.
const LINES_AT_ONCE: usize = 8;

/// What is known of the peer of a pair.
pub(super) struct Acquaintance {
    silence: Silence,
    /// It counted as silent when that was last looked at.
    silent: bool,
    /// Whether its path forgets.
    pub(super) memory: PathMemory,
    pub(super) about: Option<Arc<About>>,
    /// What was found out of its path last.
    pub(super) measured: Option<Measured>,
}

impl Acquaintance {
    fn new(now: Instant) -> Self {
        Self {
            silence: Silence::new(now),
            silent: false,
            memory: PathMemory::new(now),
            about: None,
            measured: None,
        }
    }
}

impl Core {
    /// When [`Core::handle_tick`] is due, `now` being the time of the last one: counters are read often only where
    /// they tell something.
    pub fn next_tick(&self, now: Instant) -> Instant {
        now + if self.pairs().values().any(listens) { LISTEN_EVERY } else { TICK }
    }

    /// The peer of `pair` as far as it was heard.
    pub fn silence(&self, pair: Pair) -> Option<&Silence> {
        self.acquaintances.get(&pair).map(|known| &known.silence)
    }

    /// What the peer of `pair` told of itself last.
    pub fn about(&self, pair: Pair) -> Option<&About> {
        self.acquaintances.get(&pair)?.about.as_deref()
    }

    /// The peer told this of itself. What cannot be read says nothing.
    pub(in crate::host) fn handle_told(&mut self, now: Instant, pair: Pair, bytes: &[u8]) {
        let Some(mut about) = About::from_bytes(bytes).filter(|_| self.pairs.get(pair).is_some()) else {
            return;
        };
        let exam = about.exam.take();
        if about.removes {
            self.with_pair(pair, |machine| machine.handle_removed(now));
        }
        self.farewell_heard |= about.cut_off;
        // Most tell the same, and there are thousands of them.
        let same = self.told.as_ref().filter(|told| ***told == about).cloned();
        let about = same.unwrap_or_else(|| Arc::new(about));
        self.told = Some(about.clone());
        self.acquaintance(pair, now).about = Some(about);
        if let Some(word) = exam {
            self.handle_exam_word(now, pair, word);
        }
    }

    /// What the counters of all SAs say, and what the key exchange has heard.
    pub fn listen(&mut self, now: Instant, sas: &BTreeMap<SaId, SaReading>) {
        self.accounts.note_all(sas);
        let before = self.listened.replace(now).unwrap_or(now);
        for pair in self.pairs().keys().copied().collect::<Vec<_>>() {
            if let Some(at) = self.engine.heard(pair) {
                self.acquaintance(pair, now).silence.note_ike(at);
            }
        }
        for (pair, moved) in self.accounts.moved(sas) {
            let at = moved.last_used.map_or(now, |used| self.instant_of(used, now).clamp(before, now));
            let known = self.acquaintance(pair, now);
            match (moved.received, moved.sent) {
                (true, _) => {
                    known.silence.note_esp(at);
                    known.memory.note_heard(at);
                }
                (false, true) => {
                    known.silence.note_sent(now);
                    known.memory.note_sent(now);
                }
                (false, false) => {}
            }
        }
    }

    /// Asks those for a sign of life that are due, and notes who has fallen silent.
    pub(super) fn ask_the_quiet(&mut self, now: Instant) {
        let leading = self.pairs().keys().filter(|pair| self.scheme.inside.initiates(**pair)).count();
        let (mut silent, mut heard) = (Vec::new(), Vec::new());
        for pair in self.pairs().keys().copied().collect::<Vec<_>>() {
            let Some(machine) = self.pairs.get(pair) else { continue };
            let (listens, child) = (listens(machine), machine.settled_child());
            let patience = idle_patience(self.scheme.inside.initiates(pair), leading, share(child));
            let known = self.acquaintance(pair, now);
            if !listens {
                known.silence.rest(now);
                known.memory.rest(now);
            }
            let ask = listens && known.silence.ask(now, patience);
            let is_silent = known.silence.is_silent(now);
            if std::mem::replace(&mut known.silent, is_silent) != is_silent {
                self.changed.insert(pair);
                if is_silent {
                    silent.push(pair)
                } else if listens {
                    heard.push(pair)
                }
            }
            if ask {
                self.ask(now, pair);
            }
            self.remember(now, pair);
        }
        let Self { acquaintances, pairs, .. } = self;
        acquaintances.retain(|pair, _| pairs.get(*pair).is_some_and(|machine| !machine.is_off()));
        log_all(
            &silent,
            |pair| self.line(pair).warn("silent: no answer, and nothing comes from it"),
            |count| {
                tracing::warn!("{count} peers are silent: they do not answer, and nothing comes from them");
            },
        );
        log_all(
            &heard,
            |pair| self.line(pair).info("heard again"),
            |count| {
                tracing::info!("{count} peers are heard again");
            },
        );
    }

    /// Where packets leave and nothing comes back, it is proven once more that ESP gets through: the report that begins
    /// that is a question, too.
    fn ask(&mut self, now: Instant, pair: Pair) {
        let known = self.acquaintances.get(&pair);
        let sends = known.is_some_and(|known| known.silence.has_sent() && !known.memory.is_asking());
        if !sends || !self.prove_anew(now, pair) {
            self.engine.check_liveness(now, pair);
        }
    }

    /// Begins to prove once more that ESP gets through. `false` where that is under way or cannot be.
    pub(super) fn prove_anew(&mut self, now: Instant, pair: Pair) -> bool {
        self.with_pair(pair, |machine| machine.prove_anew(now)) == Some(true)
    }

    pub(super) fn acquaintance(&mut self, pair: Pair, now: Instant) -> &mut Acquaintance {
        self.acquaintances.entry(pair).or_insert_with(|| Acquaintance::new(now))
    }

    /// When a second of the clock that can be set was, as it is set now.
    pub(super) fn instant_of(&self, second: u64, now: Instant) -> Instant {
        let Some(wall) = self.wall(now) else { return now };
        now.checked_sub(wall.since(UnixTime(second))).unwrap_or(now)
    }
}

/// Whether the peer of a pair can be heard, and is to be.
pub(super) fn listens(machine: &PairMachine) -> bool {
    machine.row_state() == RowState::Protected
}

/// A number from 0 to 1 that differs from pair to pair: SPIs are random.
fn share(child: Option<Spi>) -> f64 {
    child.map_or(0.0, |spi| f64::from(spi.0 as u16) / f64::from(u16::MAX))
}

/// A line for each, or one for all where there are many.
fn log_all(pairs: &[Pair], line: impl Fn(Pair), sum: impl Fn(usize)) {
    match pairs.len() {
        few if few <= LINES_AT_ONCE => pairs.iter().for_each(|pair| line(*pair)),
        many => sum(many),
    }
}
