//! Work that is done again whenever something has changed, which may be all the time: it takes a small part of it.

use std::time::{Duration, Instant};

/// When a piece of work is done again.
#[derive(Debug)]
pub struct Pace {
    /// The shortest pause after it.
    pause: Duration,
    /// The pause is at least so many times as long as the work took.
    share: u32,
    wanted: bool,
    /// It is done no earlier than that.
    earliest: Instant,
    /// When it was begun, where it has not ended.
    began: Option<Instant>,
    /// How long it took the last time.
    took: Duration,
}

impl Pace {
    /// It can be done at once, and is not wanted yet.
    pub fn new(now: Instant, pause: Duration, share: u32) -> Self {
        Self { pause, share, wanted: false, earliest: now, began: None, took: Duration::ZERO }
    }

    /// Something has changed.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// The same, and more may change soon: it is done no earlier than at `at`.
    pub fn want_at(&mut self, at: Instant) {
        if !self.wanted {
            (self.wanted, self.earliest) = (true, self.earliest.max(at));
        }
    }

    /// Nothing is to be done any more.
    pub fn rest(&mut self) {
        self.wanted = false;
    }

    /// When it is to be done; `None` where nothing has changed.
    pub fn deadline(&self) -> Option<Instant> {
        self.wanted.then_some(self.earliest)
    }

    /// Whether it is to be done now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.wanted && self.is_free(now)
    }

    /// Whether it may be done now.
    pub fn is_free(&self, now: Instant) -> bool {
        self.earliest <= now
    }

    /// It begins.
    pub fn begin(&mut self, now: Instant) {
        (self.wanted, self.began) = (false, Some(now));
    }

    /// Whatever was begun has ended.
    pub fn end(&mut self, now: Instant) {
        if let Some(began) = self.began.take() {
            self.took = Duration::ZERO;
            self.add(now, now.saturating_duration_since(began));
        }
    }

    /// What came of it has taken so much time, too, up to now.
    pub fn add(&mut self, now: Instant, took: Duration) {
        self.took += took;
        self.earliest = now + self.pause.max(self.took * self.share);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_begins_at_the_end_and_grows_with_the_work() {
        let (now, pause) = (Instant::now(), Duration::from_millis(100));
        let mut pace = Pace::new(now, pause, 20);
        assert!(pace.deadline().is_none() && !pace.is_due(now));
        pace.want();
        assert!(pace.is_due(now), "the first is not put off");
        for (took, expected) in [(Duration::from_millis(1), pause), (pause, 20 * pause)] {
            let ended = now + took;
            pace.begin(now);
            pace.end(ended);
            assert_eq!(pace.deadline(), None);
            pace.want();
            assert_eq!(pace.deadline(), Some(ended + expected));
            assert!(!pace.is_due(ended) && pace.is_due(ended + expected));
        }
        pace.rest();
        assert_eq!(pace.deadline(), None);
    }

    #[test]
    fn what_came_of_it_is_part_of_the_work() {
        let (now, millis) = (Instant::now(), Duration::from_millis);
        let mut pace = Pace::new(now, millis(100), 20);
        pace.begin(now);
        pace.end(now + millis(10));
        pace.add(now + millis(15), millis(5));
        assert!(!pace.is_free(now + millis(314)) && pace.is_free(now + millis(315)));
    }

    #[test]
    fn changes_that_go_on_do_not_put_it_off_again() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut pace = Pace::new(now, second, 20);
        pace.want_at(now + second);
        pace.want_at(now + 2 * second);
        assert_eq!(pace.deadline(), Some(now + second));
        pace.begin(now + second);
        pace.end(now + second);
        pace.want_at(now + second);
        assert_eq!(pace.deadline(), Some(now + 2 * second));
    }
}
