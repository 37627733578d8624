//! What becomes of pairs, for the log: one line for each node and kind of news, however many addresses it has, and
//! how many more there were a few seconds later.

use std::collections::BTreeMap;
use std::fmt;

use super::line::Line;
use super::{Core, ToldReason};
use crate::protect::PairMachine;
use crate::types::{ReasonCode, RowState};

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
    /// Its ESP goes in UDP, and did not, or cannot go by itself.
    ToUdp,
    /// Its ESP goes by itself, and was in UDP.
    FromUdp,
}

impl News {
    /// No pair goes to the clear or stops working, or comes back from there, in silence. What it is, and why.
    pub(super) fn of(was: RowState, state: RowState, why: Option<ToldReason>) -> Option<(Self, String)> {
        let trouble = why.clone().filter(|(code, _)| *code != ReasonCode::InProgress);
        // Hosts that do not answer have one line together (`absent`).
        let silent = why.as_ref().is_some_and(|(code, _)| *code == ReasonCode::NoAnswer);
        match (was, state) {
            _ if was == state => None,
            (_, RowState::Clear | RowState::Blocked) if silent => None,
            (RowState::Clear, RowState::Protected) => Some((News::NoMoreClear, String::new())),
            (RowState::Blocked, RowState::Protected) => Some((News::NoMoreBlocked, String::new())),
            (RowState::Negotiating, RowState::Protected) => Some((News::Protected, String::new())),
            (_, RowState::Clear) => {
                let why = why.map(|(_, words)| format!(": {words}"));
                Some((News::Clear, why.unwrap_or_default()))
            }
            (_, RowState::Blocked) => trouble.map(|(_, words)| (News::Blocked, format!(": {words}"))),
            _ => None,
        }
    }

    /// No pair moves to UDP in silence, nor back. Before, its ESP was in UDP, if it had any.
    pub(super) fn carried(in_udp: Option<bool>, machine: &PairMachine) -> Option<(Self, String)> {
        let why = if machine.has_evaded() { ": ESP (IP protocol 50) does not get through" } else { "" };
        match (in_udp, machine.is_in_udp()) {
            (Some(true), Some(false)) => Some((News::FromUdp, String::new())),
            (Some(false), Some(true)) => Some((News::ToUdp, why.to_owned())),
            (None, Some(true)) if machine.goes_by_itself() => Some((News::ToUdp, why.to_owned())),
            _ => None,
        }
    }

    /// Whether somebody may have to look.
    fn is_grave(self) -> bool {
        matches!(self, News::NoMoreClear | News::Clear | News::Blocked)
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            News::Protected => "protected",
            News::NoMoreClear => "protected, no longer in the clear",
            News::NoMoreBlocked => "protected again",
            News::Clear => "in the clear",
            News::Blocked => "blocked",
            News::ToUdp => "moved to ESP in UDP",
            News::FromUdp => "moved back from ESP in UDP",
        })
    }
}

impl Core {
    /// Tells how pairs stand now. States that they only passed through are no news.
    pub(super) fn tell_news(&mut self) {
        for (pair, (was, in_udp)) in std::mem::take(&mut self.stood) {
            let Some(machine) = self.pairs.get(pair) else { continue };
            let news = News::of(was, machine.row_state(), self.why(machine));
            for (news, why) in [news, News::carried(in_udp, machine)].into_iter().flatten() {
                self.journal.note(&Line::of(&self.scheme, machine), news, &why);
            }
        }
    }
}

/// The news told since the last sum, by node and kind, and how often it would have been told again.
#[derive(Debug, Default)]
pub(super) struct Journal(BTreeMap<(String, News), u64>);

impl Journal {
    /// There is news of the pair of `line`. The first of its kind is told at once.
    pub(super) fn note(&mut self, line: &Line, news: News, why: &str) {
        if self.is_first(line.node(), news) {
            let words = format!("{news}{why}");
            if news.is_grave() { line.warn(&words) } else { line.info(&words) }
        }
    }

    /// Tells how many more there were, and begins anew.
    pub(super) fn take_stock(&mut self) {
        for (node, news, words) in self.sums() {
            if news.is_grave() { tracing::warn!(node, "{words}") } else { tracing::info!(node, "{words}") }
        }
    }

    /// Whether nothing of that kind was told of the node since stock was taken. If not, it is counted.
    fn is_first(&mut self, node: &str, news: News) -> bool {
        let more = self.0.entry((node.to_owned(), news)).and_modify(|more| *more += 1).or_insert(0);
        *more == 0
    }

    fn sums(&mut self) -> Vec<(String, News, String)> {
        let more = std::mem::take(&mut self.0).into_iter().filter(|(_, more)| *more > 0);
        let line = |((node, news), more): ((String, News), u64)| {
            let pairs = if more == 1 { "pair" } else { "pairs" };
            let words = format!("{node}: {more} more {pairs} {news}");
            (node, news, words)
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
        let mut told = 0;
        for _ in 0..=255 {
            told += usize::from(journal.is_first("b", News::NoMoreBlocked));
        }
        assert!(journal.is_first("c", News::NoMoreBlocked) && journal.is_first("b", News::Clear));
        assert_eq!(told, 1);
        let sums: Vec<String> = journal.sums().into_iter().map(|(_, _, words)| words).collect();
        assert_eq!(sums, ["b: 255 more pairs protected again"]);
        assert!(journal.sums().is_empty());
        assert!(journal.is_first("b", News::NoMoreBlocked), "news again");
    }
}
