//! Protection that is tried out: when it goes back by itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Boot;

/// The longest trial.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// A trial as it is remembered. It counts from the start of the system, which no change of the clock moves;
/// another start is its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The start of the system under which it began.
    boot: String,
    /// When it ends, in milliseconds since then.
    ends_ms: u64,
}

impl Trial {
    /// A trial of `length` that begins now, that is at `boot`.
    pub fn begin(boot: &Boot, length: Duration) -> Self {
        let end = boot.uptime + length;
        Self { boot: boot.id.clone(), ends_ms: u64::try_from(end.as_millis()).unwrap_or(u64::MAX) }
    }

    /// How much of it is left; `None` when it is over.
    pub fn left(&self, boot: &Boot) -> Option<Duration> {
        let end = Duration::from_millis(self.ends_ms);
        end.checked_sub(boot.uptime).filter(|left| self.boot == boot.id && !left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_over_in_time_and_at_the_next_start_of_the_system() {
        let at = |id: &str, seconds| Boot { id: id.to_owned(), uptime: Duration::from_secs(seconds) };
        let trial = Trial::begin(&at("first", 100), Duration::from_secs(60));
        assert_eq!(trial.left(&at("first", 100)), Some(Duration::from_secs(60)));
        assert_eq!(trial.left(&at("first", 159)), Some(Duration::from_secs(1)));
        assert_eq!(trial.left(&at("first", 160)), None);
        assert_eq!(trial.left(&at("first", 1000)), None);
        assert_eq!(trial.left(&at("second", 5)), None);
    }
}
