//! Ends that float: a pair with such an address is possible only while the address is where the pair needs it.
//!
//! While it is not, no packet of the pair can pass on this host, so the pair keeps nothing but its seal. When the
//! address comes, the pair begins with new keys, since those before belong to another host.

use std::iter;
use std::time::Instant;

use super::children::Children;
use super::outbound::Outbound;
use super::{IkeOrder, Order, PairMachine};
use crate::protect::plan::Desired;
use crate::protect::policies;
use crate::protect::timing::TRIAL_GUARD;
use crate::types::Action;

/// Why no packet of a pair can pass on this host now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// The pair's own address is at another host.
    Elsewhere,
    /// The pair's other address is at this host.
    Here,
}

/// This host's other pairs with the same peer are all sealed: whoever it is takes ESP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// When the first of them goes back to the clear, unless that is confirmed; `None` where all of them stay.
    until: Option<Instant>,
}

impl Beside {
    /// How these pairs stand together; `None` where one is not sealed, or there are none.
    pub fn of<'m>(machines: impl Iterator<Item = &'m PairMachine>) -> Option<Self> {
        let mut beside = None;
        for machine in machines {
            if !machine.is_sealed() {
                return None;
            }
            let Self { until } = beside.unwrap_or(Self { until: None });
            let until = until.into_iter().chain(machine.trial_end()).min();
            beside = Some(Self { until });
        }
        beside
    }

    /// When what blocks beside these pairs goes by itself; `None` for never.
    pub fn guard_until(self) -> Option<Instant> {
        self.until.map(|end| end + TRIAL_GUARD)
    }
}

/// Whether this host has the addresses that the pair needs.
#[derive(Debug)]
pub(super) struct Place {
    /// This host has its address of the pair.
    present: bool,
    /// Why the pair is impossible, where an end of it floats.
    away: Option<Away>,
}

impl Place {
    /// Until somebody says otherwise, all is where it should be.
    pub(super) fn new() -> Self {
        Self { present: true, away: None }
    }

    pub(super) fn is_present(&self) -> bool {
        self.present
    }

    pub(super) fn is_away(&self) -> bool {
        self.away.is_some()
    }
}

impl PairMachine {
    /// This host's address of the pair is there, or is not. `true` when it has come back.
    pub fn handle_address(&mut self, now: Instant, present: bool) -> bool {
        let was = std::mem::replace(&mut self.place.present, present);
        self.advance(now);
        present && !was
    }

    /// A floating end of the pair is where `away` says; `None` where the pair is possible. One that becomes possible
    /// begins sealed if those `beside` it are, and for as long.
    pub fn handle_move(&mut self, now: Instant, away: Option<Away>, beside: Option<Beside>) {
        let was = std::mem::replace(&mut self.place.away, away);
        match (was, away) {
            (None, Some(_)) => {
                self.let_go();
                self.orders.push_back(Order::Ike(IkeOrder::Abandon));
            }
            (Some(_), None) if self.way.is_on() => {
                if let Some(Beside { until }) = beside {
                    // The trial of this host counts by itself.
                    let until = until.filter(|_| self.trials.own().is_none());
                    self.trials.hear(until);
                    self.close(self.trials.end().is_some());
                }
                self.failing.forget_attempts();
                self.orders.push_back(Order::Ike(IkeOrder::Arrive));
            }
            _ => {}
        }
        self.advance(now);
    }

    /// Whether no packet of the pair can pass on this host now.
    pub fn away(&self) -> Option<Away> {
        self.place.away
    }

    /// What the kernel should hold for the pair while it is away. An address that comes to a host must find its
    /// pairs blocked where they are sealed, or its first packets would leave in the clear; so must one whose peer's
    /// other pairs are all sealed (`beside`). Where the other address is at this host, packets to it stay inside.
    pub fn desired_while_away(&self, beside: Option<Beside>) -> Desired {
        let mut desired = Desired::default();
        if self.away() == Some(Away::Elsewhere)
            && self.way.is_on()
            && let Some(beside) = Beside::of(iter::once(self)).or(beside)
        {
            let inbound = policies::inbound(self.pair, Action::Require);
            let blocking = inbound.into_iter().chain([policies::outbound(self.pair, Action::Block)]);
            desired.policies.extend(blocking.map(|policy| policy.lasting(beside.guard_until())));
        }
        desired
    }

    /// Forgets all keys: the kernel is to hold none of them.
    pub(super) fn drop_keys(&mut self) {
        (self.children, self.outbound) = (Children::default(), Outbound::default());
        self.inherited.let_go();
        self.unproven.let_go();
    }

    /// Forgets all keys, and how they stood. A seal that the peer's trial alone has made goes with them: whether the
    /// peer confirms is not heard any more.
    pub(super) fn let_go(&mut self) {
        self.drop_keys();
        self.failing.let_go();
        self.detour.let_go();
        self.trials.forget_peer();
        if self.trials.own().is_none() {
            self.sealing.let_go();
        }
        self.way.turn_back();
    }
}
