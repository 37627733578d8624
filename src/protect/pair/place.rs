//! Ends that float: a pair with such an address is possible only while the address is where the pair needs it.
//!
//! While it is not, no packet of the pair can pass on this host, so the pair keeps nothing but its seal. When the
//! address comes, the pair begins with new keys, since those before belong to another host.

use std::time::Instant;

use super::detour::Detour;
use super::{Order, PairMachine, Phase, Posture};
use crate::model::Action;
use crate::protect::plan::Desired;
use crate::protect::policies;

/// Why no packet of a pair can pass on this host now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// The pair's own address is at another host.
    Elsewhere,
    /// The pair's other address is at this host.
    Here,
}

impl PairMachine {
    /// A floating end of the pair is where `away` says; `None` where the pair is possible. With `sealed` one that
    /// becomes possible begins sealed: its peer's other pairs with this host are.
    pub fn handle_move(&mut self, now: Instant, away: Option<Away>, sealed: bool) {
        let was = std::mem::replace(&mut self.away, away);
        match (was, away) {
            (None, Some(_)) => {
                self.let_go();
                self.orders.push_back(Order::Posture(Posture::Abandon));
            }
            (Some(_), None) if self.phase == Phase::On => {
                if sealed {
                    self.close(self.trial.own.is_some());
                }
                (self.failure, self.failing_since) = (None, None);
                self.orders.push_back(Order::Posture(Posture::Arrive));
            }
            _ => {}
        }
        self.advance(now);
    }

    /// Whether no packet of the pair can pass on this host now.
    pub fn away(&self) -> Option<Away> {
        self.away
    }

    /// What the kernel should hold for the pair while it is away. An address that comes to a host must find its
    /// pairs blocked where they are sealed, or its first packets would leave in the clear; so must one whose peer's
    /// other pairs are all sealed (`beside`). Where the other address is at this host, packets to it stay inside.
    pub fn desired_while_away(&self, beside: bool) -> Desired {
        let mut desired = Desired::default();
        if self.away == Some(Away::Elsewhere) && self.phase == Phase::On && (self.is_sealed() || beside) {
            desired.policies.extend(policies::inbound(self.pair, Action::Require));
            desired.policies.push(policies::outbound(self.pair, Action::Block));
        }
        desired
    }

    /// Forgets all keys, and how they stood.
    pub(super) fn let_go(&mut self) {
        self.children.clear();
        self.adopted.clear();
        (self.ahead, self.spoken_of) = (None, None);
        (self.outbound, self.confirmed, self.settled) = (None, None, None);
        (self.failure, self.failing_since, self.kernel_error) = (None, None, None);
        self.detour = Detour::default();
        self.trial.peer = None;
        if self.left.take().is_some() && self.phase != Phase::Off {
            self.phase = Phase::On;
        }
    }
}
