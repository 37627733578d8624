//! Whose turn it is among those that have this host make proofs: the peers that ask it to prove a pair with them, and the
//! members that have it prove its pairs.
//!
//! Whoever was served rests for as long as that took, with all its addresses. Of those that ask again and again, the one
//! has the next turn that was served the longest ago. So a member gone bad, or several, leave room for the others. What
//! this host sends past all policies because others ask is paced, whoever they are.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::types::NodeName;

/// The shortest rest of who was served.
pub(super) const REST_LEAST: Duration = Duration::from_millis(500);
/// Who was told to wait asks again within this time.
const ASKS_AGAIN: Duration = Duration::from_secs(2);
/// For so long nobody is served after each packet that was sent past all policies: at most 500 of them a second.
const PER_CLEAR: Duration = Duration::from_millis(2);
/// For so long it is known who was served.
const REMEMBERED: Duration = Duration::from_secs(600);

/// When each was served, and how long it rests.
pub(super) struct Turns<K> {
    served: BTreeMap<K, Served>,
}

struct Served {
    at: Instant,
    rests: Instant,
}

impl<K: Ord + Clone> Turns<K> {
    /// Its turn begins.
    pub(super) fn begin(&mut self, now: Instant, who: &K) {
        self.served.retain(|_, served| now < served.rests + REMEMBERED);
        self.served.insert(who.clone(), Served { at: now, rests: now });
    }

    /// Its turn is over, which `began` then.
    pub(super) fn end(&mut self, now: Instant, who: &K, began: Instant) {
        if let Some(served) = self.served.get_mut(who) {
            served.rests = now + REST_LEAST.max(now.saturating_duration_since(began));
        }
    }

    /// When its last turn began, as far as that is known.
    pub(super) fn served(&self, who: &K) -> Option<Instant> {
        self.served.get(who).map(|served| served.at)
    }

    /// Until when it rests.
    pub(super) fn rest(&self, who: &K) -> Option<Instant> {
        self.served.get(who).map(|served| served.rests)
    }

    pub(super) fn rests(&self, now: Instant, who: &K) -> bool {
        self.rest(who).is_some_and(|until| now < until)
    }
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Self { served: BTreeMap::new() }
    }
}

/// The turns of peers. Who has none is told so, and asks again.
#[derive(Default)]
pub(super) struct PeerTurns {
    turns: Turns<NodeName>,
    /// Those that were told to wait, and when last.
    waiting: BTreeMap<NodeName, Instant>,
}

impl PeerTurns {
    /// A node asks. Says whether it has its turn now, where this host is `free`.
    pub(super) fn ask(&mut self, now: Instant, node: &NodeName, free: bool) -> bool {
        self.waiting.retain(|_, asked| now < *asked + ASKS_AGAIN);
        let Self { turns, waiting } = self;
        let is_first = |other: &NodeName| {
            other != node && !turns.rests(now, other) && turns.served(other) < turns.served(node)
        };
        let has_turn = free && !turns.rests(now, node) && !waiting.keys().any(is_first);
        if has_turn {
            waiting.remove(node);
            turns.begin(now, node);
        } else {
            waiting.insert(node.clone(), now);
        }
        has_turn
    }

    /// The turn of a node is over, which `began` then.
    pub(super) fn end(&mut self, now: Instant, node: &NodeName, began: Instant) {
        self.turns.end(now, node, began);
    }
}

/// When this host makes proofs for others again.
#[derive(Default)]
pub(super) struct ProofPace {
    quiet: Option<Instant>,
}

impl ProofPace {
    /// So many packets were sent past all policies because others ask.
    pub(super) fn note(&mut self, now: Instant, clear: u32) {
        self.hush(now + PER_CLEAR * clear);
    }

    /// None is made for others until then.
    pub(super) fn hush(&mut self, until: Instant) {
        self.quiet = self.quiet.max(Some(until));
    }

    /// Until when none is.
    pub(super) fn quiet(&self) -> Option<Instant> {
        self.quiet
    }

    pub(super) fn is_quiet(&self, now: Instant) -> bool {
        self.quiet.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// How long another one waits when `bad` ones ask all the time, whose turns take so long, and all of them had one.
    fn run(bad: &[(&str, Duration)], patient: Duration) -> Option<Duration> {
        let name = |text: &str| text.parse::<NodeName>().unwrap();
        let (mut turns, start) = (PeerTurns::default(), Instant::now());
        let (mut now, mut busy) = (start, None::<(NodeName, Instant, Instant)>);
        let (good, from) =
            (name("good"), start + bad.iter().map(|(_, takes)| *takes).sum::<Duration>() + STEP);
        while now < from + patient {
            if let Some((node, began, _)) = busy.take_if(|(.., end)| *end <= now) {
                turns.end(now, &node, began);
            }
            for (node, takes) in bad {
                if turns.ask(now, &name(node), busy.is_none()) {
                    busy = Some((name(node), now, now + *takes));
                }
            }
            // It asks as a host does that was told to wait.
            let asks = now >= from && (now - from).as_millis().is_multiple_of(500);
            if asks && turns.ask(now, &good, busy.is_none()) {
                return Some(now - from);
            }
            now += STEP;
        }
        None
    }

    #[test]
    fn one_that_asks_all_the_time_leaves_room() {
        let ten = Duration::from_secs(10);
        assert!(run(&[("bad", ten)], 2 * ten).unwrap() <= ten + Duration::from_secs(1));
        assert!(run(&[("bad", STEP)], ten).unwrap() <= Duration::from_secs(1));
    }

    #[test]
    fn several_that_work_together_keep_nobody_out() {
        let ten = Duration::from_secs(10);
        let bad = [("bad", ten), ("worse", ten), ("worst", ten)];
        assert!(run(&bad, 2 * ten).unwrap() <= ten + Duration::from_secs(1), "it has the next turn");
    }

    #[test]
    fn what_is_sent_because_others_ask_is_paced() {
        let (mut pace, now) = (ProofPace::default(), Instant::now());
        pace.note(now, 100);
        pace.hush(now);
        assert!(pace.is_quiet(now + Duration::from_millis(199)));
        assert!(!pace.is_quiet(now + Duration::from_millis(200)));
    }

    #[test]
    fn who_was_served_rests_for_as_long_as_that_took() {
        let (mut turns, now) = (PeerTurns::default(), Instant::now());
        let [a, b] = ["a", "b"].map(|text| text.parse::<NodeName>().unwrap());
        assert!(turns.ask(now, &a, true));
        let end = now + Duration::from_secs(5);
        turns.end(end, &a, now);
        assert!(!turns.ask(end + Duration::from_millis(4999), &a, true), "it rests");
        assert!(turns.ask(end + Duration::from_millis(4999), &b, true), "others do not");
        assert!(turns.ask(end + Duration::from_secs(5), &a, true));
    }
}
