//! First requests that were refused at once. Nothing is kept of them, but each has cost something, a key exchange at
//! worst, and whoever forges addresses can send any number: so they count as half-open sessions do.

use std::collections::HashMap;
use std::time::Instant;

use crate::ike::limits::HALF_OPEN_LIFE;
use crate::ike::path::Origin;

/// How many there were since a moment that is [`HALF_OPEN_LIFE`] ago at most: of each origin, and in all.
#[derive(Debug, Default)]
pub struct Vain {
    since: Option<Instant>,
    origins: HashMap<Origin, usize>,
    all: usize,
}

impl Vain {
    /// One of `origin` was refused.
    pub(super) fn note(&mut self, now: Instant, origin: Origin) {
        if !self.is_recent(now) {
            *self = Self { since: Some(now), ..Self::default() };
        }
        *self.origins.entry(origin).or_default() += 1;
        self.all += 1;
    }

    /// How many there were of `origin` lately, and in all.
    pub fn count(&self, now: Instant, origin: Origin) -> (usize, usize) {
        let of_origin = || self.origins.get(&origin).copied().unwrap_or_default();
        if self.is_recent(now) { (of_origin(), self.all) } else { (0, 0) }
    }

    fn is_recent(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now < since + HALF_OPEN_LIFE)
    }
}
