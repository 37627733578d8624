//! Which of several children carries the traffic, and how those that it has replaced leave.

use std::time::Instant;

use super::{Order, PairMachine};
use crate::protect::child::Child;
use crate::protect::clock::Clock;
use crate::protect::timing::{PACE_LEADER, PACE_OTHER};
use crate::types::Spi;

impl PairMachine {
    /// The SAs of a child have carried as much as they should. Says whether a successor is asked for at once: one
    /// that comes too soon after the last has to wait.
    pub fn handle_worn(&mut self, now: Instant, in_spi: Spi) -> bool {
        self.children.wear(in_spi);
        self.advance(now);
        !self.children.has_worn()
    }

    /// Asks for the successor of a worn child when it is time.
    pub(super) fn replace_worn(&mut self, clock: &mut Clock) {
        let pace = if self.rules.leads { PACE_LEADER } else { PACE_OTHER };
        let worn = self.children.replace_worn(clock, pace);
        self.orders.extend(worn.map(|in_spi| Order::Rekey { in_spi }));
    }

    /// A child where one may be used. A sealed pair keeps naming an SA that is gone: that blocks. Inherited SAs serve
    /// until replaced.
    pub(super) fn choose_outbound(&mut self, now: Instant) {
        if !self.way.is_on() {
            return;
        }
        let inherited = self.outbound.named().filter(|named| self.inherited.send(*named));
        let blocks = self.outbound.named().filter(|_| self.is_sealed());
        let choice = self.children.choose(self.rules.leads).or(inherited).or(blocks);
        let was_childs = self.current().is_some();
        if self.outbound.name(choice) {
            if !was_childs {
                self.inherited.note_left(now);
            }
            self.children.take_up(choice);
        }
    }

    /// Whether both ends send through the same child by now.
    pub(super) fn note_settled(&mut self, now: Instant) {
        let child = self.outbound.stays().and_then(|stays| self.children.sending(stays));
        let through = child.filter(|child| child.carries() && child.peer_sends()).map(Child::through);
        if self.outbound.settle(now, through) {
            self.sealing.begin_grace();
        }
        if let Some(through) = through {
            self.inherited.note_taken_over(now);
            let new = self.children.settle(now, through);
            self.orders.extend(new.map(|in_spi| Order::Settled { in_spi }));
        }
    }

    /// Ends that do not settle, or that settled on a child whose IKE SA is gone, may remember different
    /// children, as when a live session was taken for dead: asking shows which sessions the peer still has,
    /// and the others go.
    pub(super) fn doubt(&mut self, clock: &mut Clock) {
        let settled = self.outbound.settled().is_some() && self.current().is_some_and(Child::is_known);
        let askable = self.children.newest_known().is_some();
        if self.outbound.doubt(clock, self.way.is_on() && askable && !settled) {
            self.orders.push_back(Order::CheckLiveness);
        }
    }

    /// The way out of children and inherited SAs that another child has replaced.
    pub(super) fn retire(&mut self, clock: &mut Clock) {
        let named = self.outbound.named();
        let by_child = self.current().is_some();
        let settled = self.outbound.settled().is_some();
        self.children.retire(clock, named, settled, &mut self.orders);
        self.inherited.retire(clock, named, by_child);
    }

    /// The child that the outbound policy should name.
    pub(super) fn current(&self) -> Option<&Child> {
        self.outbound.named().and_then(|named| self.children.sending(named))
    }

    /// The child that both ends send through.
    pub(super) fn settled(&self) -> Option<&Child> {
        self.outbound.settled().and_then(|settled| self.children.sending(settled))
    }
}
