//! Which of several children carries the traffic, and how those that it has replaced leave.

use std::time::Instant;

use super::seal::Use;
use super::{MAX_CHILDREN, Order, PairMachine, Phase};
use crate::protect::child::Child;
use crate::protect::clock::Clock;
use crate::protect::timing::{DELETE_PATIENCE, IN_GRACE, OUT_GRACE, UNSETTLED_PATIENCE};
use crate::types::Direction;

impl PairMachine {
    /// The newest child that may be used; one that the key exchange has forgotten only if there is no other.
    /// The end that initiates by rule leads: the other follows it to the child that it sends through, so
    /// both settle on the same one however messages crossed.
    pub(super) fn choose_outbound(&mut self, now: Instant) {
        if self.phase != Phase::On {
            return;
        }
        let newest = |wanted: &dyn Fn(&Child) -> bool| {
            self.children.iter().rev().find(|child| child.is_usable() && wanted(child)).map(Child::out_spi)
        };
        let led =
            if self.rules.leads { None } else { newest(&|child| child.peer.sending && child.is_known()) };
        let choice = led.or_else(|| newest(&Child::is_known)).or_else(|| newest(&|_| true));
        let adopted = self.outbound.filter(|spi| self.has_adopted(*spi));
        // A sealed pair keeps naming an SA that is gone: that blocks. Adopted SAs serve until replaced.
        let choice = choice.or(adopted).or(self.outbound.filter(|_| self.is_sealed()));
        if choice != self.outbound {
            if self.current().is_none() {
                self.left_adopted = now;
            }
            self.outbound = choice;
            let chosen = self.children.iter_mut().find(|child| Some(child.out_spi()) == choice);
            chosen.into_iter().for_each(Child::take_up);
        }
    }

    pub(super) fn note_settled(&mut self, now: Instant) {
        let sending = self.outbound.is_some() && self.outbound == self.confirmed;
        let child = self.current().filter(|child| sending && child.carries() && child.peer_sends());
        let spi = child.map(Child::out_spi);
        if self.settled.map(|(spi, _)| spi) != spi {
            self.settled = spi.map(|spi| (spi, now));
            self.used = Use::Unasked;
        }
        let Some(at) = self.children.iter().position(|child| Some(child.out_spi()) == spi) else { return };
        self.taken_over.get_or_insert(now);
        for (other, child) in self.children.iter_mut().enumerate() {
            child.note_settled(now, other == at, other < at);
        }
        let child = &mut self.children[at];
        if !std::mem::replace(&mut child.announced, true) {
            self.orders.push_back(Order::Settled { in_spi: child.in_spi() });
        }
    }

    /// Ends that do not settle, or that settled on a child whose IKE SA is gone, may remember different
    /// children, as when a live session was taken for dead: asking shows which sessions the peer still has,
    /// and the others go.
    pub(super) fn doubt(&mut self, clock: &mut Clock) {
        let settled = self.settled.is_some() && self.current().is_some_and(Child::is_known);
        let askable = self.children.iter().any(Child::is_known);
        if settled || !askable || self.phase != Phase::On {
            self.unsettled_until = None;
            return;
        }
        let until = *self.unsettled_until.get_or_insert(clock.now + UNSETTLED_PATIENCE);
        if clock.due(until) {
            let next = clock.now + UNSETTLED_PATIENCE;
            self.unsettled_until = Some(next);
            clock.due(next);
            self.orders.push_back(Order::CheckLiveness);
        }
    }

    /// Whether there is room for another child. What is dead takes none: of the children that an end has deleted the
    /// oldest go at once, whatever may still be under way.
    pub(super) fn has_room(&mut self) -> bool {
        while self.children.len() >= MAX_CHILDREN
            && let Some(dead) = self.children.iter().position(Child::is_deleted)
        {
            self.children.remove(dead);
        }
        self.children.len() < MAX_CHILDREN
    }

    /// A child whose SAs somebody has taken out of the kernel is of no use once another has been agreed: the peer is
    /// not to count it.
    fn bury(&mut self) {
        let newest = self.children.iter().rposition(Child::is_known);
        for child in self.children.iter_mut().take(newest.unwrap_or(0)) {
            if child.is_lost() && child.ask_deletion() {
                self.orders.push_back(Order::Delete { in_spi: child.in_spi() });
            }
        }
    }

    /// The way out of children and adopted SAs that another child has replaced. Each has its own time, from when
    /// the ends first settled on another: under steady rekeys they settle anew all the time.
    pub(super) fn retire(&mut self, clock: &mut Clock) {
        self.bury();
        let current = self.outbound.and_then(|spi| self.children.iter().position(|c| c.out_spi() == spi));
        let settled = self.settled.is_some();
        let initiator = current.is_some_and(|at| self.children[at].initiator);
        for (at, child) in self.children.iter_mut().enumerate() {
            // Until both ends have settled, an older child may be the one to go back to.
            let replaced =
                child.replaced().filter(|_| settled && current.is_some_and(|current| at != current));
            child.retire_closed(clock, replaced);
            let older = current.is_some_and(|current| at < current);
            let Some(replaced) = replaced.filter(|replaced| older && clock.due(*replaced + OUT_GRACE)) else {
                continue;
            };
            child.retire_outbound();
            if (initiator || clock.due(replaced + DELETE_PATIENCE)) && child.ask_deletion() {
                self.orders.push_back(Order::Delete { in_spi: child.in_spi() });
            }
        }
        self.children.retain(|child| !child.is_over());

        let over = self.adopted_until.filter(|_| !self.adopted.is_empty());
        if over.is_some_and(|at| clock.due(at)) {
            self.adopted.clear();
        }
        let outbound = self.outbound;
        let moved = clock.due(self.left_adopted + OUT_GRACE);
        let taken_over = self.taken_over.is_some_and(|at| clock.due(at + IN_GRACE));
        self.adopted.retain(|id, direction| match direction {
            Direction::Out => outbound == Some(id.spi) || !moved || current.is_none(),
            Direction::In => !taken_over,
        });
    }
}
