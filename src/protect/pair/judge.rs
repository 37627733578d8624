//! What `status` says of a pair, and why.

use super::PairMachine;
use super::way::{Left, Phase};
use crate::protect::child::Child;
use crate::protect::reason::{DetourTried, PairReason};
use crate::types::RowState;

/// Why a pair is in its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Fine,
    Leaving,
    Sealing,
    Proving,
    Agreeing,
    NoAddress,
    PeerDisabled,
    TrialEnded,
    KernelError,
    EspBlocked,
    Encapsulating,
    Failed,
}

impl PairMachine {
    /// Why it is neither protected nor off.
    pub fn reason(&self) -> Option<PairReason> {
        let (_, why) = self.judge();
        self.explain(why)
    }

    /// How it stands and why, to be compared with another time.
    pub fn standing(&self) -> impl PartialEq + use<> {
        (self.judge(), self.failing.keys().map(PairReason::code), self.is_waiting())
    }

    /// Why the keys that protect the pair could not be renewed: it stays protected until the kernel's hard
    /// limit ends them.
    pub fn unrenewed(&self) -> Option<&PairReason> {
        self.failing.keys().filter(|_| self.row_state() == RowState::Protected)
    }

    pub(super) fn judge(&self) -> (RowState, Why) {
        match self.way.phase() {
            Phase::Off => (RowState::Off, Why::Fine),
            Phase::On if self.place.is_away() => (RowState::Off, Why::Fine),
            Phase::Opening { .. } => (RowState::Negotiating, Why::Leaving),
            Phase::Cleared { .. } => (RowState::Clear, Why::Leaving),
            // Whatever the kernel holds, no packet of this pair can leave or arrive.
            Phase::On if !self.place.is_present() => {
                (if self.is_sealed() { RowState::Blocked } else { RowState::Clear }, Why::NoAddress)
            }
            // ESP leaves, but what the kernel refused may be what keeps clear packets out.
            Phase::On if self.sends() && self.failing.policies().is_some() => {
                (RowState::Clear, Why::KernelError)
            }
            Phase::On if self.is_sealed() && self.sends() && !self.is_esp_blocked() => {
                (RowState::Protected, Why::Fine)
            }
            Phase::On => match (self.trouble(), self.is_sealed()) {
                (why, true) => (RowState::Blocked, why.unwrap_or_else(|| self.stage())),
                (Some(why @ Why::Encapsulating), false) => (RowState::Negotiating, why),
                (Some(why), false) => (RowState::Clear, why),
                (None, false) => (RowState::Negotiating, self.stage()),
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
    fn stage(&self) -> Why {
        if self.outbound.confirmed().is_some() && !self.is_sealed() {
            Why::Sealing
        } else if self.children.newest().is_some_and(Child::carries) {
            Why::Proving
        } else {
            Why::Agreeing
        }
    }

    /// What stands between the pair and its protection.
    fn trouble(&self) -> Option<Why> {
        if let Some(left) = self.way.left() {
            Some(match left {
                Left::PeerDisabled => Why::PeerDisabled,
                Left::TrialEnded => Why::TrialEnded,
            })
        } else if self.failing.policies().is_some() {
            Some(Why::KernelError)
        } else if self.is_esp_blocked() {
            Some(if self.detour.is_tried() { Why::Encapsulating } else { Why::EspBlocked })
        } else {
            let failed =
                self.failing.keys().is_some() && (self.outbound.confirmed().is_none() || self.is_sealed());
            failed.then_some(Why::Failed)
        }
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

    fn explain(&self, why: Why) -> Option<PairReason> {
        let reason = match why {
            Why::Fine => return None,
            Why::Leaving => PairReason::Leaving,
            Why::Sealing => PairReason::Sealing,
            Why::Proving => PairReason::Proving,
            Why::Agreeing => PairReason::Agreeing,
            Why::NoAddress => PairReason::NoAddress,
            Why::PeerDisabled if self.failing.is_removed() => PairReason::PeerRemoved,
            Why::PeerDisabled => PairReason::PeerDisabled,
            Why::TrialEnded => PairReason::TrialEnded,
            Why::KernelError => PairReason::Unwritten(self.failing.policies()?.clone()),
            Why::EspBlocked => self.blocked(),
            Why::Encapsulating => PairReason::Encapsulating,
            Why::Failed => self.failing.keys()?.clone(),
        };
        Some(reason)
    }
}
