//! What `top` shows: the rows of the last look, their rates, and what whoever watches has asked for. It knows neither a
//! terminal nor a clock.

use std::cmp::Ordering;
use std::net::IpAddr;
use std::time::Instant;

use super::rates::{Rate, Rates};
use crate::cli::keyboard::Key;
use crate::cli::table::rank;
use crate::observe::status::{PeerRow, Status};
use crate::types::Pair;

/// What the rows are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SortedBy {
    /// What somebody has to look at first, then the rate.
    State,
    Node,
    Tx,
    Rx,
    Packets,
    Total,
    Heard,
    Rekey,
}

impl SortedBy {
    const ALL: [Self; 8] =
        [Self::State, Self::Node, Self::Tx, Self::Rx, Self::Packets, Self::Total, Self::Heard, Self::Rekey];

    /// Its name.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Node => "node",
            Self::Tx => "tx",
            Self::Rx => "rx",
            Self::Packets => "packets",
            Self::Total => "total",
            Self::Heard => "heard",
            Self::Rekey => "rekey",
        }
    }

    /// The one that comes so many after it.
    fn later(self, by: usize) -> Self {
        let at = Self::ALL.iter().position(|one| *one == self).unwrap_or(0);
        Self::ALL[(at + by) % Self::ALL.len()]
    }
}

/// Whether it goes on after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Onward {
    Yes,
    No,
}

/// All that is shown.
pub(super) struct Model {
    status: Status,
    rates: Rates,
    sorted_by: SortedBy,
    reversed: bool,
    /// Only rows with this in their names or addresses are shown.
    filter: String,
    /// Whether what is typed goes into the filter.
    typing: bool,
    /// The pair that somebody has moved to; else it is the first row, whichever that is.
    chosen: Option<Pair>,
    /// The row that it was in.
    row: usize,
    /// The first row in view, and how many have room.
    first: usize,
    room: usize,
}

impl Model {
    /// What a first look at `at` has found.
    pub(super) fn new(status: Status, at: Instant) -> Self {
        let mut rates = Rates::default();
        rates.note(&status, at);
        Self {
            status,
            rates,
            sorted_by: SortedBy::State,
            reversed: false,
            filter: String::new(),
            typing: false,
            chosen: None,
            row: 0,
            first: 0,
            room: 1,
        }
    }

    /// Takes what a later look has found.
    pub(super) fn note(&mut self, status: Status, at: Instant) {
        self.rates.note(&status, at);
        self.status = status;
    }

    pub(super) fn status(&self) -> &Status {
        &self.status
    }

    pub(super) fn rates(&self) -> &Rates {
        &self.rates
    }

    pub(super) fn sorted_by(&self) -> SortedBy {
        self.sorted_by
    }

    pub(super) fn is_reversed(&self) -> bool {
        self.reversed
    }

    /// The filter, and whether it is being typed.
    pub(super) fn filter(&self) -> (&str, bool) {
        (&self.filter, self.typing)
    }

    /// What flows over a row.
    pub(super) fn rate(&self, row: &PeerRow) -> Option<Rate> {
        self.rates.of(row.pair())
    }

    /// The rows that the filter lets through, in order.
    pub(super) fn rows(&self) -> Vec<&PeerRow> {
        let mut rows: Vec<&PeerRow> = self.status.peers.iter().filter(|row| self.lets_through(row)).collect();
        rows.sort_by(|a, b| {
            let order = self.compare(a, b);
            if self.reversed { order.reverse() } else { order }
        });
        rows
    }

    fn lets_through(&self, row: &PeerRow) -> bool {
        let wanted = self.filter.to_lowercase();
        let has = |address: IpAddr| address.to_string().contains(&wanted);
        row.node.as_str().to_lowercase().contains(&wanted) || has(row.remote) || has(row.local)
    }

    /// Which of two rows stands above the other: what is large, or late, first.
    fn compare(&self, a: &PeerRow, b: &PeerRow) -> Ordering {
        let flows = |row: &PeerRow, part: fn(Rate) -> f64| self.rate(row).map_or(-1.0, part);
        let by = |part: fn(Rate) -> f64| flows(b, part).total_cmp(&flows(a, part));
        let order = match self.sorted_by {
            SortedBy::State => rank(a).cmp(&rank(b)).then_with(|| by(Rate::bits)),
            SortedBy::Node => Ordering::Equal,
            SortedBy::Tx => by(|rate| rate.tx),
            SortedBy::Rx => by(|rate| rate.rx),
            SortedBy::Packets => by(|rate| rate.packets),
            SortedBy::Total => total(b).cmp(&total(a)),
            // Who was not heard at all comes before who was heard long ago.
            SortedBy::Heard => a.last_heard.cmp(&b.last_heard),
            SortedBy::Rekey => rekey_in(a).unwrap_or(u64::MAX).cmp(&rekey_in(b).unwrap_or(u64::MAX)),
        };
        order.then_with(|| a.node.as_str().cmp(b.node.as_str())).then_with(|| a.pair().cmp(&b.pair()))
    }

    /// Moves so that the chosen row is in view where `room` rows have room. Returns the rows in view, which of them is
    /// the chosen one, and how many there are above and below.
    pub(super) fn in_view(&mut self, room: usize) -> (Vec<PeerRow>, usize, [usize; 2]) {
        self.room = room.max(1);
        let rows = self.rows();
        let last = rows.len().saturating_sub(1);
        let found = |pair: &Pair| rows.iter().position(|row| row.pair() == *pair);
        // A pair that is gone leaves its place to the next one.
        let at = self.chosen.as_ref().map_or(0, |pair| found(pair).unwrap_or(self.row.min(last)));
        let lowest = rows.len().saturating_sub(self.room);
        let first = self.first.min(at).max((at + 1).saturating_sub(self.room)).min(lowest);
        let view: Vec<PeerRow> = rows.iter().skip(first).take(room).map(|row| (*row).clone()).collect();
        let below = rows.len() - first - view.len();
        let chosen = self.chosen.and(rows.get(at).map(|row| row.pair()));
        (self.row, self.first, self.chosen) = (at, first, chosen);
        (view, at - first, [first, below])
    }

    /// The row that is chosen.
    pub(super) fn chosen(&self) -> Option<&PeerRow> {
        self.rows().get(self.row).copied()
    }

    /// Does what a key is for.
    pub(super) fn press(&mut self, key: Key) -> Onward {
        if self.typing {
            self.type_filter(key);
            return Onward::Yes;
        }
        let page = isize::try_from(self.room).unwrap_or(isize::MAX);
        match key {
            Key::Character('q') => return Onward::No,
            Key::Character('/') => self.typing = true,
            Key::Character('s' | '>') => self.sort_by(self.sorted_by.later(1)),
            Key::Character('S' | '<') => self.sort_by(self.sorted_by.later(SortedBy::ALL.len() - 1)),
            Key::Character('r') => self.reversed = !self.reversed,
            Key::Escape => self.filter.clear(),
            Key::Up | Key::Character('k') => self.go(-1),
            Key::Down | Key::Character('j') => self.go(1),
            Key::PageUp => self.go(-page),
            Key::PageDown | Key::Character(' ') => self.go(page),
            Key::Home | Key::Character('g') => self.go(isize::MIN),
            Key::End | Key::Character('G') => self.go(isize::MAX),
            _ => {}
        }
        Onward::Yes
    }

    /// Each order begins with what is on top of it.
    fn sort_by(&mut self, order: SortedBy) {
        (self.sorted_by, self.reversed, self.chosen) = (order, false, None);
    }

    fn type_filter(&mut self, key: Key) {
        /// Longer than any name.
        const LONGEST: usize = 64;
        match key {
            Key::Character(character) if self.filter.len() < LONGEST => self.filter.push(character),
            Key::Backspace => drop(self.filter.pop()),
            Key::Enter => self.typing = false,
            Key::Escape => {
                self.typing = false;
                self.filter.clear();
            }
            _ => {}
        }
    }

    /// Chooses the row that is so many below. On the first row the view follows whatever comes there.
    fn go(&mut self, by: isize) {
        let rows = self.rows();
        let at = self.row.saturating_add_signed(by).min(rows.len().saturating_sub(1));
        let chosen = rows.get(at).filter(|_| at > 0).map(|row| row.pair());
        (self.row, self.chosen) = (at, chosen);
    }
}

/// Bytes that a row has carried, both ways.
pub(super) fn total(row: &PeerRow) -> u64 {
    row.tx.bytes.saturating_add(row.rx.bytes)
}

/// Seconds until a row gets new keys.
pub(super) fn rekey_in(row: &PeerRow) -> Option<u64> {
    row.sas.iter().filter_map(|sa| sa.rekey_in_s).min()
}
