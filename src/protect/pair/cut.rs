//! This host is not to agree keys any more, and its keys are void: its secret was withdrawn. Sealed pairs stay sealed,
//! and a pair that has begun to send ESP never goes back to clear packets by itself.

use std::time::Instant;

use super::{IkeOrder, Order, PairMachine, Phase};
use crate::types::ReasonCode;

impl PairMachine {
    /// All keys go at once, without a grace. `why` is shown until [`PairMachine::resume`].
    pub fn cut(&mut self, now: Instant, why: ReasonCode) {
        if self.way.phase() == Phase::On && self.outbound.confirmed().is_some() {
            self.close(self.trials.end().is_some());
        }
        self.drop_keys();
        self.failing.note(now, why);
        self.advance(now);
    }

    /// Keys can be agreed again, and the peer does not know that any are lacking.
    pub fn resume(&mut self, now: Instant) {
        self.failing.forget_attempts();
        match self.way.phase() {
            Phase::Off => {}
            Phase::On if self.place.is_away() => {}
            Phase::On if self.way.left().is_none() => {
                self.orders.extend([Order::Ike(IkeOrder::Active), Order::Hurry]);
            }
            Phase::On | Phase::Opening { .. } | Phase::Cleared { .. } => {
                self.orders.push_back(Order::Ike(IkeOrder::Passive));
            }
        }
        self.advance(now);
    }
}
