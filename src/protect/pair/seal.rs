//! When a pair ceases to accept clear packets: after a grace for those that are queued or under way.
//!
//! The kernel remembers of each policy whether a packet has met it. Where none has come in since the inbound
//! policy was written, a good while before both ends sent ESP, no queue holds many, and a grace that follows
//! the measured round trip does. Any doubt (a packet came, an agent before this one wrote the policy, it was
//! written again, no round trip is known) leaves the full grace.

use std::time::{Duration, Instant};

use super::{Order, PairMachine, Phase, Seal};
use crate::protect::clock::Clock;
use crate::protect::timing::{SEAL_GRACE, quiet_grace};

/// Whether a packet of the peer has met the inbound policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It was not asked yet.
    Unasked,
    /// One has, or the answer is not there yet.
    Assumed,
    /// None has.
    None,
}

impl PairMachine {
    /// The inbound policies were written just now: from here on the kernel remembers whether they are met.
    pub fn handle_written(&mut self, now: Instant) {
        self.written = Some(now);
    }

    /// The answer to [`Order::ReadUse`]: whether a packet has met an inbound policy since it was written.
    pub fn handle_use(&mut self, now: Instant, used: bool) {
        if self.used == Use::Assumed && !used {
            self.used = Use::None;
        }
        self.advance(now);
    }

    pub(super) fn seal(&mut self, clock: &mut Clock) {
        let Some((_, since)) = self.settled.filter(|_| self.phase == Phase::On && !self.is_sealed()) else {
            return;
        };
        if self.used == Use::Unasked
            && let Some(grace) = self.quiet_grace(since)
            && clock.due(since + grace)
        {
            self.used = Use::Assumed;
            self.orders.push_back(Order::ReadUse);
        }
        if self.used == Use::None || clock.due(since + SEAL_GRACE) {
            self.close(self.trial.end().is_some());
        }
    }

    pub(super) fn withdraw_ahead(&mut self) {
        self.withdrawn.extend(self.ahead.take().filter(|(_, installed)| *installed).map(|(sa, _)| sa.id()));
    }

    /// Inbound SAs of parties that have proven nothing go before anything else changes.
    pub(super) fn withdraw_unproven(&mut self) {
        self.withdraw_ahead();
        self.withdrawn.append(&mut self.unproven);
        self.adopted.retain(|id, _| !self.withdrawn.contains(id));
    }

    /// How long clear packets are accepted where none has come, if that can be told: then the inbound
    /// policies have stood for a round trip before both ends sent ESP.
    fn quiet_grace(&self, settled: Instant) -> Option<Duration> {
        let round_trip = self.current()?.round_trip()?;
        let written = self.written?;
        (written + round_trip <= settled).then(|| quiet_grace(round_trip))
    }

    /// Seals the pair, for good unless it is `on_trial`. Nothing of a party that has proven nothing stays.
    pub(super) fn close(&mut self, on_trial: bool) {
        if !self.is_sealed() {
            self.withdraw_unproven();
        }
        match self.seal {
            Seal::Open | Seal::Opened if on_trial => self.seal = Seal::OnTrial,
            Seal::Open | Seal::Opened | Seal::OnTrial if !on_trial => {
                self.seal = Seal::Final;
                self.orders.push_back(Order::Persist);
            }
            _ => {}
        }
    }
}
