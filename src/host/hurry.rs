//! When a host asks its KMS out of turn, as its cluster says something else of the key or the secret: whoever says that
//! may have gone bad, and goes on and on.

use std::time::Duration;

/// There is so much time between two such asks, at least.
const PAUSE: Duration = Duration::from_secs(20);

/// Asks out of turn. Times are those since the start of the system.
#[derive(Debug, Default)]
pub(super) struct Hurry {
    /// When the last one is due, or was.
    last: Option<Duration>,
}

impl Hurry {
    /// When to ask, where something has changed `now`, and it would be asked at `soonest` if nothing had changed for long.
    /// What is still to come will do.
    pub(super) fn next(&mut self, now: Duration, soonest: Duration) -> Duration {
        let at = match self.last {
            Some(last) if last > now => last,
            Some(last) => soonest.max(last + PAUSE),
            None => soonest,
        };
        *self.last.insert(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_all_the_time_is_asked_for_every_20_seconds() {
        let mut hurry = Hurry::default();
        let tenth = |tenth: u64| Duration::from_millis(100 * tenth);
        let mut due: Vec<Duration> = (0..590).map(|now| hurry.next(tenth(now), tenth(now))).collect();
        due.dedup();
        assert_eq!(due, [0, 20, 40, 60].map(Duration::from_secs));
        // What was put off as all hosts hear of it at once stays so.
        let later = Duration::from_secs(300);
        assert_eq!(hurry.next(later, later + 2 * PAUSE), later + 2 * PAUSE);
        assert_eq!(hurry.next(later + PAUSE, later + PAUSE), later + 2 * PAUSE);
    }
}
