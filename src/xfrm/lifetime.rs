//! Lifetimes of policies. The kernel counts whole seconds of the wall clock, from when a policy was written
//! last (docs/kernel.md, facts 8c and 12); everybody else here counts in [`Instant`]s.

use std::time::{Duration, Instant, SystemTime};

use crate::types::UnixTime;

/// The lifetime in seconds of a policy that is written now and is to go at `end`, or up to a second later.
/// One whose time is over lasts a second: none at all would be forever.
pub(super) fn seconds_until(end: Instant) -> u64 {
    let left = end.saturating_duration_since(Instant::now());
    (left.as_secs() + u64::from(left.subsec_nanos() > 0)).max(1)
}

/// When a policy goes that was written at `added`, in seconds since 1970, with a lifetime of `seconds`.
/// `None` for a time that no clock comes to.
pub(super) fn end_of(added: u64, seconds: u64) -> Option<Instant> {
    let end = added.checked_add(seconds)?;
    let left = end.saturating_sub(UnixTime::from(SystemTime::now()).0);
    Instant::now().checked_add(Duration::from_secs(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_to_the_second() {
        let (now, wall) = (Instant::now(), UnixTime::from(SystemTime::now()).0);
        let end = now + Duration::from_millis(59_500);
        let seconds = seconds_until(end);
        assert_eq!(seconds, 60);
        let read = end_of(wall, seconds).unwrap();
        assert!(read + Duration::from_secs(2) > end && read < end + Duration::from_secs(2));
        assert_eq!(seconds_until(now), 1, "a lifetime of 0 would be none");
        assert_eq!(end_of(u64::MAX, 1), None);
    }
}
