//! Whose turn it is among the peers that ask this host to prove a pair with them.
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

/// Who was served, and who waits.
#[derive(Default)]
pub(super) struct Turns {
    served: BTreeMap<NodeName, Served>,
    /// Those that were told to wait, and when last.
    waiting: BTreeMap<NodeName, Instant>,
    /// Until then nobody is served.
    quiet: Option<Instant>,
}

struct Served {
    at: Instant,
    rests: Instant,
}

impl Turns {
    /// A node asks. Says whether it has its turn now, where this host is `free`.
    pub(super) fn ask(&mut self, now: Instant, node: &NodeName, free: bool) -> bool {
        self.waiting.retain(|_, asked| now < *asked + ASKS_AGAIN);
        self.served.retain(|_, served| now < served.rests + REMEMBERED);
        let served = |node: &NodeName| self.served.get(node).map(|served| served.at);
        let rests = |node: &NodeName| self.served.get(node).is_some_and(|served| now < served.rests);
        let is_first = |other: &NodeName| other != node && !rests(other) && served(other) < served(node);
        let is_quiet = self.quiet.is_some_and(|until| now < until);
        let has_turn = free && !is_quiet && !rests(node) && !self.waiting.keys().any(is_first);
        if has_turn {
            self.waiting.remove(node);
            self.served.insert(node.clone(), Served { at: now, rests: now });
        } else {
            self.waiting.insert(node.clone(), now);
        }
        has_turn
    }

    /// The turn of a node is over, which `began` then and in which so many packets were sent past all policies.
    pub(super) fn end(&mut self, now: Instant, node: &NodeName, began: Instant, clear: u32) {
        if let Some(served) = self.served.get_mut(node) {
            served.rests = now + REST_LEAST.max(now.saturating_duration_since(began));
        }
        self.hush(now + PER_CLEAR * clear);
    }

    /// Nobody is served until then.
    pub(super) fn hush(&mut self, until: Instant) {
        self.quiet = self.quiet.max(Some(until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    /// How long another one waits when `bad` ones ask all the time, whose turns take so long, and all of them had one.
    fn run(bad: &[(&str, Duration)], patient: Duration) -> Option<Duration> {
        let name = |text: &str| text.parse::<NodeName>().unwrap();
        let (mut turns, start) = (Turns::default(), Instant::now());
        let (mut now, mut busy) = (start, None::<(NodeName, Instant, Instant)>);
        let (good, from) =
            (name("good"), start + bad.iter().map(|(_, takes)| *takes).sum::<Duration>() + STEP);
        while now < from + patient {
            if let Some((node, began, _)) = busy.take_if(|(.., end)| *end <= now) {
                turns.end(now, &node, began, 0);
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
        let (mut turns, now) = (Turns::default(), Instant::now());
        let [a, b] = ["a", "b"].map(|text| text.parse::<NodeName>().unwrap());
        assert!(turns.ask(now, &a, true));
        turns.end(now, &a, now, 100);
        assert!(!turns.ask(now + Duration::from_millis(199), &b, true));
        assert!(turns.ask(now + Duration::from_millis(200), &b, true));
        assert!(!turns.ask(now + REST_LEAST / 2, &a, true), "it rests");
    }
}
