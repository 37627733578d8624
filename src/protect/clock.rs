//! Deadlines as a by-product of the decisions that wait for them.

use std::time::Instant;

/// The present moment, and the nearest later one at which a decision would turn out differently.
pub struct Clock {
    /// The present moment.
    pub now: Instant,
    /// The nearest deadline that is not due yet.
    pub next: Option<Instant>,
}

impl Clock {
    /// No deadline asked about yet.
    pub fn new(now: Instant) -> Self {
        Self { now, next: None }
    }

    /// Whether `at` has come. If not, it is noted as a time to look again.
    pub fn due(&mut self, at: Instant) -> bool {
        let due = self.now >= at;
        if !due {
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
        due
    }
}
