//! First requests that were refused at once. Nothing is kept of them, but each has cost something, a key exchange at
//! worst, and whoever forges addresses can send any number: so they count as half-open sessions do.

use std::collections::HashMap;
use std::time::Instant;

use crate::ike::limits::HALF_OPEN_LIFE;
use crate::types::Pair;

/// How many there were since a moment that is [`HALF_OPEN_LIFE`] ago at most: of each pair, and in all.
#[derive(Debug, Default)]
pub struct Vain {
    since: Option<Instant>,
    pairs: HashMap<Pair, usize>,
    all: usize,
}

impl Vain {
    /// One of `pair` was refused.
    pub(super) fn note(&mut self, now: Instant, pair: Pair) {
        if !self.is_recent(now) {
            *self = Self { since: Some(now), ..Self::default() };
        }
        *self.pairs.entry(pair).or_default() += 1;
        self.all += 1;
    }

    /// How many there were of `pair` lately, and in all.
    pub fn count(&self, now: Instant, pair: Pair) -> (usize, usize) {
        let of_pair = || self.pairs.get(&pair).copied().unwrap_or_default();
        if self.is_recent(now) { (of_pair(), self.all) } else { (0, 0) }
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now < since + HALF_OPEN_LIFE)
    }
}
