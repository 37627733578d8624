//! Hosts that do not answer: one line in the log for all of them, when they change, and not more often than once a
//! minute.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::types::units::listed;
use crate::types::{NodeName, Pair, RowState};

/// How long changes are gathered: hosts seldom go alone.
const GATHER: Duration = Duration::from_secs(5);
/// How far apart two lines are at least.
const PAUSE: Duration = Duration::from_secs(60);
/// So many hosts are named.
const NAMED: usize = 10;

/// The pairs whose peers do not answer, and what the log says of them.
#[derive(Debug, Default)]
pub struct Absent {
    pairs: BTreeSet<Pair>,
    /// What they were when the log last spoke of them.
    told: BTreeSet<Pair>,
    changed: Option<Instant>,
    last: Option<Instant>,
}

impl Absent {
    /// The peer of `pair` does not answer, or does again.
    pub fn note(&mut self, now: Instant, pair: Pair, absent: bool) {
        let changed = if absent { self.pairs.insert(pair) } else { self.pairs.remove(&pair) };
        if changed && self.pairs == self.told {
            self.changed = None;
        } else if changed {
            self.changed.get_or_insert(now);
        }
    }

    /// Nobody expects the peer of `pair` to answer any more.
    pub fn forget(&mut self, pair: Pair) {
        self.pairs.remove(&pair);
        self.told.remove(&pair);
    }

    /// When [`Absent::take_news`] has something.
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.changed? + GATHER;
        Some(self.last.map_or(due, |last| due.max(last + PAUSE)))
    }

    /// The pairs whose peers do not answer, if the log is to be told.
    pub fn take_news(&mut self, now: Instant) -> Option<&BTreeSet<Pair>> {
        if self.deadline()? > now {
            return None;
        }
        (self.changed, self.last) = (None, Some(now));
        self.told.clone_from(&self.pairs);
        Some(&self.told)
    }
}

/// Says in the log, in one line, which hosts do not answer: those of `named` whose pairs are in `absent`, with their
/// states.
pub fn log(named: Vec<(NodeName, Pair)>, absent: &BTreeMap<Pair, RowState>) {
    let rows = named.into_iter().filter_map(|(node, pair)| Some((node, *absent.get(&pair)?)));
    tracing::warn!("{}", line(&rows.collect::<Vec<_>>()));
}

/// The line for the log: the hosts of these rows do not answer.
fn line(rows: &[(NodeName, RowState)]) -> String {
    let names: BTreeSet<&str> = rows.iter().map(|(node, _)| node.as_str()).collect();
    let (hosts, verb) = match names.len() {
        0 => return "all hosts answer again".to_owned(),
        1 => ("host", "does"),
        _ => ("hosts", "do"),
    };
    let pairs = |state| rows.iter().filter(|(_, row)| *row == state).count();
    let (blocked, clear) = (pairs(RowState::Blocked), pairs(RowState::Clear));
    let count = names.len();
    let list = listed(names, NAMED);
    format!("{count} {hosts} {verb} not answer: {list} (pairs blocked: {blocked}, in the clear: {clear})")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pair(host: u8) -> Pair {
        Pair::new([10, 0, 0, 1].into(), [10, 0, 0, host].into()).unwrap()
    }

    fn name(name: &str) -> NodeName {
        serde_json::from_value(name.into()).unwrap()
    }

    fn told(absent: &mut Absent, now: Instant) -> Option<usize> {
        absent.take_news(now).map(BTreeSet::len)
    }

    #[test]
    fn a_crowd_is_told_of_once_and_its_changes_once_a_minute() {
        let (mut absent, now) = (Absent::default(), Instant::now());
        (2..200).for_each(|host| absent.note(now, pair(host), true));
        assert_eq!(told(&mut absent, now + 4 * SECOND), None, "more may come");
        assert_eq!(absent.deadline(), Some(now + 5 * SECOND));
        assert_eq!(told(&mut absent, now + 5 * SECOND), Some(198));
        // Each attempt fails again: that is no news.
        (2..200).for_each(|host| absent.note(now + 9 * SECOND, pair(host), true));
        assert_eq!(absent.deadline(), None);
        absent.note(now + 10 * SECOND, pair(2), false);
        assert_eq!(absent.deadline(), Some(now + 65 * SECOND));
        assert_eq!(told(&mut absent, now + 65 * SECOND), Some(197));
        // One that was away for a moment is not told of.
        absent.note(now + 130 * SECOND, pair(3), false);
        absent.note(now + 131 * SECOND, pair(3), true);
        assert_eq!(absent.deadline(), None);
    }

    #[test]
    fn the_line_names_some_and_counts_the_rest() {
        let row = |node: &str, state| (name(node), state);
        assert_eq!(
            line(&[row("b", RowState::Blocked), row("b", RowState::Clear)]),
            "1 host does not answer: b (pairs blocked: 1, in the clear: 1)"
        );
        let many: Vec<_> = (10..33).map(|at| row(&format!("n{at}"), RowState::Clear)).collect();
        assert_eq!(
            line(&many),
            "23 hosts do not answer: n10, n11, n12, n13, n14, n15, n16, n17, n18, n19 and 13 more \
             (pairs blocked: 0, in the clear: 23)"
        );
        assert_eq!(line(&[]), "all hosts answer again");
    }
}
