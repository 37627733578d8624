//! How late this host is. Answers that wait in it to be read are not missing: a host that asks again because of
//! them has more to do, and is later still. So one that is late waits longer for answers, and begins less at a time.

use std::time::{Duration, Instant};

use crate::ike::limits::{
    INITIATING_LEAST, INITIATING_MAX, LATE_ANSWERS_MOST, LATE_MOST, LATE_WINDOW, ON_TIME,
};

/// How long datagrams wait to be read.
#[derive(Debug, Default)]
pub struct Lateness {
    /// The last note.
    longest: Duration,
    noted: Option<Instant>,
}

impl Lateness {
    /// Something was read that had `waited`.
    pub(super) fn note(&mut self, now: Instant, waited: Duration) {
        self.longest = self.at(now).max(waited.min(LATE_MOST));
        self.noted = Some(now);
    }

    /// How late this host is: a note fades within four times its length.
    pub fn at(&self, now: Instant) -> Duration {
        let passed = self.noted.map_or(Duration::ZERO, |noted| now.saturating_duration_since(noted));
        self.longest.saturating_sub(passed / 4)
    }

    /// How many IKE SAs this end may initiate at a time.
    pub fn room(&self, now: Instant) -> usize {
        let late = self.at(now).max(ON_TIME);
        let room = INITIATING_MAX as u128 * ON_TIME.as_micros() / late.as_micros();
        usize::try_from(room).unwrap_or(INITIATING_MAX).max(INITIATING_LEAST)
    }
}

/// How many first requests that had waited for long are answered.
#[derive(Debug, Default)]
pub struct LateAnswers {
    /// Since when they are counted.
    since: Option<Instant>,
    given: u32,
}

impl LateAnswers {
    /// Whether one more is answered now.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        if self.since.is_none_or(|since| now >= since + LATE_WINDOW) {
            (self.since, self.given) = (Some(now), 0);
        }
        self.given = self.given.saturating_add(1);
        self.given <= LATE_ANSWERS_MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn who_is_late_begins_less_until_that_is_long_ago() {
        let (mut late, now) = (Lateness::default(), Instant::now());
        assert_eq!((late.at(now), late.room(now)), (Duration::ZERO, INITIATING_MAX));
        late.note(now, ON_TIME);
        assert_eq!(late.room(now), INITIATING_MAX);
        late.note(now, 4 * ON_TIME);
        late.note(now, MILLISECOND);
        assert_eq!((late.at(now), late.room(now)), (4 * ON_TIME, INITIATING_MAX / 4));
        let later = now + 8 * ON_TIME;
        assert_eq!((late.at(later), late.room(later)), (2 * ON_TIME, INITIATING_MAX / 2));
        assert_eq!(late.at(now + 16 * ON_TIME), Duration::ZERO);
    }

    /// The clock that says when a datagram came can be set.
    #[test]
    fn however_late_it_seems_it_goes_on() {
        let (mut late, now) = (Lateness::default(), Instant::now());
        late.note(now, Duration::MAX);
        assert_eq!((late.at(now), late.room(now)), (LATE_MOST, INITIATING_LEAST));
    }
}
