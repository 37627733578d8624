//! What `status` says of a pair, and why.

use std::mem::discriminant;

use super::PairMachine;
use super::way::{Left, Phase};
use crate::protect::child::Child;
use crate::protect::reason::{DetourTried, PairReason};
use crate::types::RowState;

impl PairMachine {
    /// Why it is neither protected nor off.
    pub fn reason(&self) -> Option<PairReason> {
        self.judge().1
    }

    /// How it stands and why, to be compared with another time.
    pub fn standing(&self) -> impl PartialEq + use<> {
        let (state, reason) = self.judge();
        let kind = reason.as_ref().map(discriminant);
        (state, kind, self.failing.keys().map(PairReason::code), self.is_waiting())
    }

    /// Why the keys that protect the pair could not be renewed: it stays protected until the kernel's hard
    /// limit ends them.
    pub fn unrenewed(&self) -> Option<&PairReason> {
        self.failing.keys().filter(|_| self.row_state() == RowState::Protected)
    }

    /// How it stands, and why it is neither protected nor off.
    pub(super) fn judge(&self) -> (RowState, Option<PairReason>) {
        match self.way.phase() {
            Phase::Off => (RowState::Off, None),
            Phase::On if self.place.is_away() => (RowState::Off, None),
            Phase::Opening { .. } => (RowState::Negotiating, Some(PairReason::Leaving)),
            Phase::Cleared { .. } => (RowState::Clear, Some(PairReason::Leaving)),
            // Whatever the kernel holds, no packet of this pair can leave or arrive.
            Phase::On if !self.place.is_present() => {
                let state = if self.is_sealed() { RowState::Blocked } else { RowState::Clear };
                (state, Some(PairReason::NoAddress))
            }
            // ESP leaves, but what the kernel refused may be what keeps clear packets out.
            Phase::On if self.sends() && self.failing.policies().is_some() => {
                (RowState::Clear, self.unwritten())
            }
            Phase::On if self.is_sealed() && self.sends() && !self.is_esp_blocked() => {
                (RowState::Protected, None)
            }
            Phase::On => match (self.trouble(), self.is_sealed()) {
                (reason, true) => (RowState::Blocked, reason.or_else(|| Some(self.stage()))),
                (Some(reason @ PairReason::Encapsulating), false) => (RowState::Negotiating, Some(reason)),
                (Some(reason), false) => (RowState::Clear, Some(reason)),
                (None, false) => (RowState::Negotiating, Some(self.stage())),
            },
        }
    }

    /// Whether packets leave through SAs that are there.
    fn sends(&self) -> bool {
        self.outbound.confirmed().is_some_and(|through| {
            self.inherited.send(through) || self.children.sending(through).is_some_and(Child::carries)
        })
    }

    /// How far a pair without trouble has come.
    fn stage(&self) -> PairReason {
        if self.outbound.confirmed().is_some() && !self.is_sealed() {
            PairReason::Sealing
        } else if self.children.newest().is_some_and(Child::carries) {
            PairReason::Proving
        } else {
            PairReason::Agreeing
        }
    }

    /// What stands between the pair and its protection.
    fn trouble(&self) -> Option<PairReason> {
        match self.way.left() {
            Some(Left::PeerDisabled) if self.failing.is_removed() => Some(PairReason::PeerRemoved),
            Some(Left::PeerDisabled) => Some(PairReason::PeerDisabled),
            Some(Left::TrialEnded) => Some(PairReason::TrialEnded),
            None if self.failing.policies().is_some() => self.unwritten(),
            None if self.is_esp_blocked() && self.detour.is_tried() => Some(PairReason::Encapsulating),
            None if self.is_esp_blocked() => Some(self.blocked()),
            None if self.outbound.confirmed().is_none() || self.is_sealed() => self.failing.keys().cloned(),
            None => None,
        }
    }

    /// The policy that is not in the kernel as it should be.
    fn unwritten(&self) -> Option<PairReason> {
        self.failing.policies().cloned().map(PairReason::Unwritten)
    }

    /// Whether ESP does not get through: by proof, or, where no traffic depends on it yet, by all appearances.
    pub(super) fn is_esp_blocked(&self) -> bool {
        let newest = self.children.newest();
        let proven = [self.current(), newest].into_iter().flatten().any(Child::is_blocked);
        proven || (self.outbound.settled().is_none() && newest.is_some_and(Child::seems_blocked))
    }

    /// What does not get through, which way, and what was tried.
    fn blocked(&self) -> PairReason {
        let newest = self.children.newest();
        let blocked = [self.current(), newest].into_iter().flatten().find(|child| child.seems_blocked());
        let detour = match newest.and_then(Child::encapsulation) {
            Some(ports) => DetourTried::Port(ports.remote),
            None if self.detour.was_tried() => DetourTried::Failed,
            None => DetourTried::Nothing,
        };
        PairReason::EspBlocked { way: blocked.map(Child::blocked_way).unwrap_or_default(), detour }
    }
}
