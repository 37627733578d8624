//! What the agent tells the service manager that started it: that it is there, that it lives, that it ends
//! (sd_notify(3), sd_watchdog_enabled(3)). Without one nothing is told.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The way to the service manager.
pub(super) struct Notifier {
    /// How often it wants to hear that the agent lives.
    every: Option<Duration>,
    next: Option<Instant>,
}

impl Notifier {
    /// From what the environment says.
    pub(super) fn new(now: Instant) -> Self {
        // Twice as often as it is waited for, as sd_watchdog_enabled(3) recommends.
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        Self { every, next: every.map(|_| now) }
    }

    /// The agent is there: what it goes on with is in the kernel.
    pub(super) fn ready(&self) {
        tell(NotifyState::Ready);
    }

    /// The agent ends; protection stays.
    pub(super) fn stopping(&self) {
        tell(NotifyState::Stopping);
    }

    /// Says that the agent lives, when that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if let (Some(every), Some(next)) = (self.every, self.next)
            && next <= now
        {
            tell(NotifyState::Watchdog);
            self.next = Some(now + every);
        }
    }

    /// When [`Notifier::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("cannot notify the service manager: {error}");
    }
}
