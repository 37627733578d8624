//! What becomes of pairs, for the log: one line for each node and kind of news, however many addresses it has, and
//! how many more there were a few seconds later.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::Pair;
use crate::model::status::{ReasonCode, RowState};
use crate::protect::PairMachine;

/// What became of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum News {
    /// It is protected, as far as was told for the first time.
    Protected,
    /// It is protected after it was in the clear.
    NoMoreClear,
    /// It is protected after it was blocked.
    NoMoreBlocked,
    /// It is in the clear.
    Clear,
    /// It is blocked.
    Blocked,
}

impl News {
    /// No pair goes to the clear or stops working, or comes back from there, in silence. What it is, and why.
    pub(super) fn of(was: RowState, machine: &PairMachine) -> Option<(Self, String)> {
        let state = machine.row_state();
        let trouble = machine.reason().filter(|(code, _)| *code != ReasonCode::InProgress);
        // Of hosts that do not answer there is one line for all (`absent`).
        let silent = machine.reason().is_some_and(|(code, _)| code == ReasonCode::NoAnswer);
        match (was, state) {
            _ if was == state => None,
            (_, RowState::Clear | RowState::Blocked) if silent => None,
            (RowState::Clear, RowState::Protected) => Some((News::NoMoreClear, String::new())),
            (RowState::Blocked, RowState::Protected) => Some((News::NoMoreBlocked, String::new())),
            (RowState::Negotiating, RowState::Protected) => Some((News::Protected, String::new())),
            (_, RowState::Clear) => {
                let why = machine.reason().map(|(_, words)| format!(": {words}"));
                Some((News::Clear, why.unwrap_or_default()))
            }
            (_, RowState::Blocked) => trouble.map(|(_, words)| (News::Blocked, format!(": {words}"))),
            _ => None,
        }
    }

    fn log(self, line: &str) {
        match self {
            News::Protected | News::NoMoreBlocked => tracing::info!("{line}"),
            News::NoMoreClear | News::Clear | News::Blocked => tracing::warn!("{line}"),
        }
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            News::Protected => "protected",
            News::NoMoreClear | News::NoMoreBlocked => "protected again",
            News::Clear => "in the clear",
            News::Blocked => "blocked",
        })
    }
}

/// What was told since it was last taken stock of, by node and kind, and how often that would have been told again.
#[derive(Debug, Default)]
pub(super) struct Journal(BTreeMap<(String, News), u64>);

impl Journal {
    /// There is news of a pair with `node`. The first of its kind is told at once.
    pub(super) fn note(&mut self, node: String, pair: Pair, news: News, why: &str) {
        if let Some(line) = self.line(node, pair, news, why) {
            news.log(&line);
        }
    }

    /// Tells how many more there were, and begins anew.
    pub(super) fn take_stock(&mut self) {
        self.sums().into_iter().for_each(|(news, line)| news.log(&line));
    }

    fn line(&mut self, node: String, pair: Pair, news: News, why: &str) -> Option<String> {
        match self.0.entry((node, news)) {
            std::collections::btree_map::Entry::Occupied(told) => {
                *told.into_mut() += 1;
                None
            }
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(0);
                Some(format!("{pair}: {news}{why}"))
            }
        }
    }

    fn sums(&mut self) -> Vec<(News, String)> {
        let more = std::mem::take(&mut self.0).into_iter().filter(|(_, more)| *more > 0);
        let line = |((node, news), more): ((String, News), u64)| {
            let pairs = if more == 1 { "pair" } else { "pairs" };
            (news, format!("{node}: {more} more {pairs} {news}"))
        };
        more.map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_many_addresses_gets_two_lines() {
        let mut journal = Journal::default();
        let pair = |host| Pair::new([10, 0, 0, 1].into(), [10, 0, 1, host].into()).unwrap();
        let mut lines = Vec::new();
        for host in 0..=255 {
            lines.extend(journal.line("b".to_owned(), pair(host), News::NoMoreBlocked, ""));
        }
        lines.extend(journal.line("c".to_owned(), pair(0), News::Clear, ": no answer"));
        assert_eq!(
            lines,
            [format!("{}: protected again", pair(0)), format!("{}: in the clear: no answer", pair(0))]
        );
        let sums: Vec<String> = journal.sums().into_iter().map(|(_, line)| line).collect();
        assert_eq!(sums, ["b: 255 more pairs protected again"]);
        assert!(journal.sums().is_empty());
        assert!(journal.line("b".to_owned(), pair(0), News::NoMoreBlocked, "").is_some(), "news again");
    }
}
