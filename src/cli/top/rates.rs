//! How much flows: rates between two looks at the counters, and those of the last minute. Times are arguments.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::observe::status::{PeerRow, Status};
use crate::types::{Pair, Traffic, UnixTime};

/// How long a rate is remembered.
const MINUTE: Duration = Duration::from_secs(60);

/// What flows in a second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Rate {
    /// Bits that this host sends.
    pub(super) tx: f64,
    /// Bits that it receives.
    pub(super) rx: f64,
    /// Packets, both ways.
    pub(super) packets: f64,
}

impl Rate {
    /// Bits, both ways.
    pub(super) fn bits(self) -> f64 {
        self.tx + self.rx
    }

    fn plus(self, other: Self) -> Self {
        Self { tx: self.tx + other.tx, rx: self.rx + other.rx, packets: self.packets + other.packets }
    }
}

/// A rate, and the time between the two looks that it was found by.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    from: Instant,
    to: Instant,
    bits: f64,
}

/// The rates of the last minute, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct History(VecDeque<Stretch>);

impl History {
    fn note(&mut self, stretch: Stretch) {
        self.0.push_back(stretch);
        while self.0.front().is_some_and(|oldest| stretch.to.duration_since(oldest.to) > MINUTE) {
            self.0.pop_front();
        }
    }

    /// The bits a second in each of so many equal parts of the minute before `now`, the oldest first. `None` where
    /// nobody looked.
    pub(super) fn parts(&self, now: Instant, count: usize) -> Vec<Option<f64>> {
        let part = |back: usize| -> Option<f64> {
            // A part is some milliseconds long at least: nobody has thousands of columns.
            let ago = |parts: usize| MINUTE.mul_f64(parts as f64 / count as f64);
            let (from, to) = (now.checked_sub(ago(back + 1))?, now.checked_sub(ago(back))?);
            let inside = self.0.iter().filter(|stretch| stretch.from < to && stretch.to > from);
            let (sum, seen) = inside.fold((0.0, 0u32), |(sum, seen), stretch| (sum + stretch.bits, seen + 1));
            (seen > 0).then(|| sum / f64::from(seen))
        };
        (0..count).rev().map(part).collect()
    }
}

/// The counters of a pair as they were at a look.
#[derive(Debug, Clone, Copy)]
struct Reading {
    tx: Traffic,
    rx: Traffic,
    since: Option<UnixTime>,
}

impl Reading {
    fn of(row: &PeerRow) -> Self {
        Self { tx: row.tx, rx: row.rx, since: row.totals_since }
    }

    /// What was counted since `before`; `None` where counting began anew in between.
    fn beyond(&self, before: &Self) -> Option<(Traffic, Traffic)> {
        let more = |now: Traffic, then: Traffic| {
            let bytes = now.bytes.checked_sub(then.bytes)?;
            Some(Traffic { bytes, packets: now.packets.checked_sub(then.packets)? })
        };
        (self.since == before.since).then_some(())?;
        Some((more(self.tx, before.tx)?, more(self.rx, before.rx)?))
    }
}

/// What is known of a pair's traffic.
#[derive(Debug)]
struct Track {
    last: Reading,
    rate: Option<Rate>,
    history: History,
}

/// The rates of all pairs.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// When the counters were looked at last, and whether an agent told them.
    last: Option<(Instant, bool)>,
    pairs: BTreeMap<Pair, Track>,
    sum: Option<Rate>,
    whole: History,
}

impl Rates {
    /// Takes what a look at `at` has found. Pairs that are not there any more are forgotten.
    pub(super) fn note(&mut self, status: &Status, at: Instant) {
        let told = status.agent.answering;
        // The agent knows of more than the kernel: between two looks of which it told one there is no rate.
        let from = self.last.replace((at, told)).filter(|(from, by)| *by == told && *from < at);
        let from = from.map(|(from, _)| from);
        let mut before = std::mem::take(&mut self.pairs);
        self.sum = None;
        for row in &status.peers {
            let now = Reading::of(row);
            let (last, mut history) = match before.remove(&row.pair()) {
                Some(track) => (Some(track.last), track.history),
                None => (None, History::default()),
            };
            let stretch = from.zip(last.and_then(|last| now.beyond(&last)));
            let rate = stretch.map(|(from, (tx, rx))| per_second(tx, rx, at.duration_since(from)));
            if let (Some(from), Some(rate)) = (from, rate) {
                history.note(Stretch { from, to: at, bits: rate.bits() });
                self.sum = Some(self.sum.unwrap_or_default().plus(rate));
            }
            self.pairs.insert(row.pair(), Track { last: now, rate, history });
        }
        if let (Some(from), Some(sum)) = (from, self.sum) {
            self.whole.note(Stretch { from, to: at, bits: sum.bits() });
        }
    }

    /// What flows over a pair; `None` where that is not known yet, or not any more.
    pub(super) fn of(&self, pair: Pair) -> Option<Rate> {
        self.pairs.get(&pair)?.rate
    }

    /// What flows over all pairs.
    pub(super) fn sum(&self) -> Option<Rate> {
        self.sum
    }

    /// What flowed over a pair, in parts of the last minute.
    pub(super) fn minute_of(&self, pair: Pair, count: usize) -> Vec<Option<f64>> {
        self.parts(self.pairs.get(&pair).map(|track| &track.history), count)
    }

    /// What flowed over all pairs.
    pub(super) fn minute(&self, count: usize) -> Vec<Option<f64>> {
        self.parts(Some(&self.whole), count)
    }

    fn parts(&self, history: Option<&History>, count: usize) -> Vec<Option<f64>> {
        let parts = history.zip(self.last).map(|(history, (last, _))| history.parts(last, count));
        parts.unwrap_or_else(|| vec![None; count])
    }
}

fn per_second(tx: Traffic, rx: Traffic, time: Duration) -> Rate {
    let of = |count: u64| count as f64 / time.as_secs_f64();
    Rate {
        tx: of(tx.bytes) * 8.0,
        rx: of(rx.bytes) * 8.0,
        packets: of(tx.packets.saturating_add(rx.packets)),
    }
}
