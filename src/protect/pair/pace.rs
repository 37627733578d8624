//! How fast children succeed each other: not faster than the SAs of the ones before can leave, or they would pile up
//! until the peer takes no more of them.

use std::time::Instant;

use super::{Order, PairMachine};
use crate::protect::clock::Clock;
use crate::protect::timing::{PACE_LEADER, PACE_OTHER};
use crate::types::Spi;

impl PairMachine {
    /// The SAs of a child have carried as much as they should. Says whether a successor is asked for at once: one
    /// that comes too soon after the last has to wait.
    pub fn handle_worn(&mut self, now: Instant, in_spi: Spi) -> bool {
        self.worn = Some(in_spi);
        self.advance(now);
        self.worn.is_none()
    }

    /// Asks for the successor of a worn child when it is time.
    pub(super) fn replace_worn(&mut self, clock: &mut Clock) {
        let Some(in_spi) = self.worn else { return };
        // One that has been replaced meanwhile is on its way out.
        if self.children.last().is_none_or(|newest| newest.in_spi() != in_spi || !newest.is_known()) {
            self.worn = None;
            return;
        }
        let pace = if self.rules.leads { PACE_LEADER } else { PACE_OTHER };
        if self.agreed.is_none_or(|agreed| clock.due(agreed + pace)) {
            self.worn = None;
            self.orders.push_back(Order::Rekey { in_spi });
        }
    }
}
