//! When a pair ceases to accept clear packets: after a grace for those that are queued or under way.
//!
//! The kernel remembers of each policy whether a packet has met it. Where none has come in since the inbound
//! policy was written, a good while before both ends sent ESP, no queue holds many, and a grace that follows
//! the measured round trip does. Any doubt (a packet came, an agent before this one wrote the policy, it was
//! written again, no round trip is known) leaves the full grace.

use std::time::{Duration, Instant};

use super::{Order, PairMachine};
use crate::protect::child::Child;
use crate::protect::clock::Clock;
use crate::protect::timing::{SEAL_GRACE, quiet_grace};
use crate::types::Action;

/// Whether clear packets are neither sent nor accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seal {
    /// They are, as long as there is nothing better.
    Open,
    /// They are again: the peer wished it of a pair that was sealed for good. It is persisted as sealed until it
    /// has arrived in the clear, so that an agent that dies on the way is followed by one that goes on.
    Opened,
    /// They are not, until the trial ends.
    OnTrial,
    /// They are not, for good. It is persisted.
    Final,
}

/// Whether a packet of the peer has met the inbound policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// It was not asked yet.
    Unasked,
    /// One has, or the answer is not there yet.
    Assumed,
    /// None has.
    None,
}

/// The seal of a pair, and whether clear packets still come.
#[derive(Debug)]
pub(super) struct Sealing {
    seal: Seal,
    /// When the inbound policies were written last; `None` where an agent before this one did it.
    written: Option<Instant>,
    /// Whether a packet has met them, as far as was asked since the ends settled.
    used: Use,
}

impl Sealing {
    /// As it was persisted.
    pub(super) fn new(sealed: bool) -> Self {
        let seal = if sealed { Seal::Final } else { Seal::Open };
        Self { seal, written: None, used: Use::Unasked }
    }

    /// Takes over an inbound policy, which is `on_trial` or there for good. It is written before anything is persisted,
    /// so where there is one it knows better than the file.
    pub(super) fn adopt(&mut self, inbound: Option<Action>, on_trial: bool) {
        self.seal = match (inbound, self.seal) {
            (Some(Action::Require), Seal::Open) if on_trial => Seal::OnTrial,
            (Some(Action::Require), Seal::Open) => Seal::Final,
            (Some(Action::Accept), Seal::Final) => Seal::Opened,
            (Some(Action::Accept), _) => Seal::Open,
            (_, seal) => seal,
        };
    }

    /// Whether clear packets are neither sent nor accepted.
    pub(super) fn is_sealed(&self) -> bool {
        matches!(self.seal, Seal::OnTrial | Seal::Final)
    }

    /// Whether that is for good.
    pub(super) fn is_final(&self) -> bool {
        self.seal == Seal::Final
    }

    /// Whether it lasts as long as the trials.
    pub(super) fn is_on_trial(&self) -> bool {
        self.seal == Seal::OnTrial
    }

    /// Whether the end of a trial opens the pair.
    pub(super) fn is_opened_by_trials(&self) -> bool {
        matches!(self.seal, Seal::OnTrial | Seal::Open)
    }

    /// Whether the peer has opened a pair that was sealed for good.
    pub(super) fn is_opened(&self) -> bool {
        self.seal == Seal::Opened
    }

    /// Seals, for good unless it is `on_trial`. Returns what is to be done for it.
    #[must_use]
    fn close(&mut self, on_trial: bool) -> Option<Order> {
        match self.seal {
            Seal::Final => None,
            Seal::OnTrial if on_trial => None,
            Seal::Open | Seal::Opened if on_trial => {
                self.seal = Seal::OnTrial;
                None
            }
            Seal::Open | Seal::Opened | Seal::OnTrial => {
                self.seal = Seal::Final;
                Some(Order::Persist)
            }
        }
    }

    /// The pair goes to the clear. Returns what is to be done for it.
    #[must_use]
    pub(super) fn open(&mut self, by_peer: bool) -> Option<Order> {
        let was_final = matches!(self.seal, Seal::Final | Seal::Opened);
        self.seal = if was_final && by_peer { Seal::Opened } else { Seal::Open };
        (was_final && !by_peer).then_some(Order::Persist)
    }

    /// The pair has arrived in the clear. Returns what is to be done for it.
    #[must_use]
    pub(super) fn arrive(&mut self) -> Option<Order> {
        self.is_opened().then(|| self.open(false)).flatten()
    }

    /// A seal that rests on a trial ends with it.
    pub(super) fn let_go(&mut self) {
        if self.is_on_trial() {
            self.seal = Seal::Open;
        }
    }

    /// Both ends send ESP, through another child than before: the grace begins.
    pub(super) fn begin_grace(&mut self) {
        self.used = Use::Unasked;
    }

    /// Whether it is time to ask whether a packet has met the inbound policies. `settled` is since when both ends send
    /// ESP, `round_trip` how long a packet takes to the peer and back: the policies must have stood for that long.
    fn asks_use(&mut self, clock: &mut Clock, settled: Instant, round_trip: Option<Duration>) -> bool {
        let Some((round_trip, written)) = round_trip.zip(self.written) else { return false };
        let asks = self.used == Use::Unasked
            && written + round_trip <= settled
            && clock.due(settled + quiet_grace(round_trip));
        if asks {
            self.used = Use::Assumed;
        }
        asks
    }
}

impl PairMachine {
    /// The inbound policies were written just now: from here on the kernel remembers whether they are met.
    pub fn handle_written(&mut self, now: Instant) {
        self.sealing.written = Some(now);
    }

    /// The answer to [`Order::ReadUse`]: whether a packet has met an inbound policy since it was written.
    pub fn handle_use(&mut self, now: Instant, used: bool) {
        if self.sealing.used == Use::Assumed && !used {
            self.sealing.used = Use::None;
        }
        self.advance(now);
    }

    /// Whether clear packets are neither sent nor accepted.
    pub fn is_sealed(&self) -> bool {
        self.sealing.is_sealed()
    }

    /// Whether it is to be persisted as sealed: for good, and until it has arrived in the clear.
    pub fn is_saved_as_sealed(&self) -> bool {
        matches!(self.sealing.seal, Seal::Opened | Seal::Final)
    }

    pub(super) fn seal(&mut self, clock: &mut Clock) {
        let Some(since) = self.outbound.settled_since().filter(|_| self.takes_clear()) else { return };
        let round_trip = self.current().and_then(Child::round_trip);
        if self.sealing.asks_use(clock, since, round_trip) {
            self.orders.push_back(Order::ReadUse);
        }
        if self.sealing.used == Use::None || clock.due(since + SEAL_GRACE) {
            self.close(self.trials.end().is_some());
        }
    }

    /// Seals the pair, for good unless it is `on_trial`. Nothing of a party that has proven nothing stays.
    pub(super) fn close(&mut self, on_trial: bool) {
        if !self.is_sealed() {
            self.withdraw_unproven();
        }
        self.orders.extend(self.sealing.close(on_trial));
    }

    /// Inbound SAs of parties that have proven nothing go before anything else changes.
    pub(super) fn withdraw_unproven(&mut self) {
        self.unproven.withdraw();
        let withdrawn = self.unproven.withdrawn();
        self.inherited.take_away(|id| withdrawn.contains(&id));
    }
}
