//! Wakes the loop when something is due.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

use super::hearing::hear;

/// A timer of the kernel's. The runtime's own would read the clock twice at each turn and wake up once more for each
/// deadline that comes earlier, with every datagram that is handled.
pub struct Alarm {
    timer: AsyncFd<Timer>,
    /// When it goes off, if it is set.
    at: Option<Instant>,
}

impl Alarm {
    /// One that is not set.
    ///
    /// # Errors
    /// The kernel gives no timer.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = Timer(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?);
        Ok(Self { timer: hear(timer)?, at: None })
    }

    /// Has it go off at `deadline` or before, seen from `now`. Deadlines mostly move away, and to go off early now
    /// and then costs less than to be set each time.
    ///
    /// # Errors
    /// The kernel does not take it.
    pub fn set(&mut self, now: Instant, deadline: Option<Instant>) -> io::Result<()> {
        let Some(deadline) = deadline.filter(|deadline| self.at.is_none_or(|at| *deadline < at)) else {
            return Ok(());
        };
        // Zero would mean never.
        let left = deadline.saturating_duration_since(now).max(Duration::from_nanos(1));
        let expiration = Expiration::OneShot(TimeSpec::from_duration(left));
        self.timer.get_ref().0.set(expiration, TimerSetTimeFlags::empty())?;
        self.at = Some(deadline);
        Ok(())
    }

    /// Waits until it has gone off; for ever where it cannot be waited for.
    pub async fn ring(&mut self) {
        match self.timer.readable().await {
            Ok(mut rung) => rung.clear_ready(),
            Err(_) => pending().await,
        }
        self.at = None;
    }
}

/// What the runtime can wait for.
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rings_no_later_than_the_earliest_deadline() {
        let mut alarm = Alarm::new().unwrap();
        let start = Instant::now();
        let after = |milliseconds| Some(start + Duration::from_millis(milliseconds));
        alarm.set(start, after(3_600_000)).unwrap();
        alarm.set(start, after(20)).unwrap();
        alarm.set(start, None).unwrap();
        alarm.set(start, after(3_600_000)).unwrap();
        alarm.ring().await;
        assert!(Instant::now() >= start + Duration::from_millis(20));
        // What is due already is not forgotten, and one that has gone off can be set later again.
        alarm.set(Instant::now(), Some(start)).unwrap();
        alarm.ring().await;
        alarm.set(Instant::now(), after(60)).unwrap();
        alarm.ring().await;
        assert!(Instant::now() >= start + Duration::from_millis(60));
    }
}
