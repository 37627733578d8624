//! Hosts that ask for keys and are no peers of this one.

use std::time::{Duration, Instant};

use super::core::Core;

/// How often at most the log tells of them, whatever their addresses.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// What the log tells of them.
#[derive(Debug, Default)]
pub struct UnlistedLog {
    counted: u64,
    told: Option<Instant>,
}

impl UnlistedLog {
    /// So many first requests between addresses that are no pair were counted in all: how many of them the log is
    /// to tell of now, if any.
    pub fn news(&mut self, now: Instant, counted: u64) -> Option<u64> {
        let more = counted.saturating_sub(self.counted);
        let tell = more > 0 && self.told.is_none_or(|at| now >= at + TOLD_EVERY);
        if tell {
            (self.counted, self.told) = (counted, Some(now));
        }
        tell.then_some(more)
    }

    /// Tells the log what is new.
    pub fn log(&mut self, now: Instant, core: &Core) {
        let some: Vec<String> =
            core.engine().unlisted(now).take(3).map(|it| format!("{} to {}", it.remote, it.local)).collect();
        let counted = core.engine().counters().unknown_pair;
        if some.is_empty() {
            // The file lists by now whoever came: nobody is told of them later, either.
            self.counted = counted;
            return;
        }
        let Some(more) = self.news(now, counted) else { return };
        tracing::warn!(
            "{more} requests for keys between addresses that are no pair here ({}): `hostseal status` says more",
            some.join(", ")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gets_a_line_a_minute_at_most() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut knocks = UnlistedLog::default();
        assert_eq!(knocks.news(now, 0), None);
        assert_eq!(knocks.news(now, 1), Some(1));
        assert_eq!(knocks.news(now + 59 * second, 5_000), None);
        assert_eq!(knocks.news(now + 60 * second, 5_001), Some(5_000));
        assert_eq!(knocks.news(now + 200 * second, 5_001), None);
    }
}
