//! How long ago the kernel stamped something, by the clock that can be set.

use std::time::{Duration, Instant, SystemTime};

/// How long a reading of that clock is good for.
const GOOD_FOR: Duration = Duration::from_secs(1);
/// From this age on, somebody may have set the clock since it was read.
const OLD: Duration = Duration::from_millis(100);

/// Tells the age of what the kernel has stamped. It reads the clock once a second, and not for each datagram: where
/// system calls are dear, that is a good part of the work of a receiver.
#[derive(Debug, Default)]
pub(super) struct Ages {
    /// What the clock said, and when.
    read: Option<(Instant, SystemTime)>,
}

impl Ages {
    /// How old at `now` is what the kernel stamped with `stamp`. Where the clock was set after that the answer is wrong:
    /// nothing but the length of a grace (`protect::proof`) and of waits (`ike::late`) comes of it.
    pub(super) fn age(&mut self, now: Instant, stamp: SystemTime) -> Duration {
        self.age_by(now, stamp, SystemTime::now)
    }

    fn age_by(&mut self, now: Instant, stamp: SystemTime, clock: impl FnOnce() -> SystemTime) -> Duration {
        let since = |(at, wall): (Instant, SystemTime)| {
            (wall + now.saturating_duration_since(at)).duration_since(stamp).ok()
        };
        let good = self.read.filter(|(at, _)| now.saturating_duration_since(*at) < GOOD_FOR);
        // It was read at this very moment.
        let is_fresh = good.is_some_and(|(at, _)| at == now);
        match good.and_then(since).filter(|age| is_fresh || *age < OLD) {
            Some(age) => age,
            None => since(*self.read.insert((now, clock()))).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A clock that counts how often it was read.
    struct Clock {
        began: Instant,
        wall: SystemTime,
        reads: usize,
    }

    impl Clock {
        fn new() -> Self {
            Self { began: Instant::now(), wall: SystemTime::UNIX_EPOCH + 1_000_000 * MS, reads: 0 }
        }

        fn age(&mut self, ages: &mut Ages, at: Duration, stamp: SystemTime) -> Duration {
            let wall = self.wall + at;
            let reads = &mut self.reads;
            ages.age_by(self.began + at, stamp, || {
                *reads += 1;
                wall
            })
        }
    }

    #[test]
    fn the_clock_is_read_once_a_second() {
        let (mut clock, mut ages) = (Clock::new(), Ages::default());
        for ms in 0..3_000 {
            let stamp = clock.wall + (ms * MS) - 3 * MS;
            assert_eq!(clock.age(&mut ages, ms * MS, stamp), 3 * MS);
        }
        assert_eq!(clock.reads, 3);
    }

    #[test]
    fn a_clock_that_was_set_is_read_again() {
        let (mut clock, mut ages) = (Clock::new(), Ages::default());
        let (step, began) = (3_600_000 * MS, clock.wall);
        for (at, wall) in [(10 * MS, began), (20 * MS, began + step), (30 * MS, began)] {
            clock.wall = wall;
            assert_eq!(clock.age(&mut ages, at, wall + at - 2 * MS), 2 * MS);
        }
        assert_eq!(clock.reads, 3);
    }

    #[test]
    fn what_is_old_is_as_old_as_it_is_and_costs_one_reading() {
        let (mut clock, mut ages) = (Clock::new(), Ages::default());
        let stamp = clock.wall;
        for _ in 0..64 {
            assert_eq!(clock.age(&mut ages, 900 * MS, stamp), 900 * MS);
        }
        assert_eq!(clock.reads, 1);
    }

    #[test]
    fn what_comes_of_the_future_is_new() {
        let (mut clock, mut ages) = (Clock::new(), Ages::default());
        let stamp = clock.wall + 3_600_000 * MS;
        assert_eq!(clock.age(&mut ages, MS, stamp), Duration::ZERO);
    }
}
