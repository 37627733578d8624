//! Whose turn it is to be knocked at. Any number of peers may be gone, and none of them may delay one that is there:
//! known peers go before others, and all that did not answer last time share one pace.

use std::collections::VecDeque;
use std::time::Instant;

use crate::ike::limits::{PACE_KNOWN, PACE_UNKNOWN};
use crate::ike::path::Bond;

/// Who a peer is to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is missed: the agent says so, or it has proven itself to this engine.
    Known,
    /// It may never have been there.
    Unknown,
}

/// The pairs that wait for room, and the next turns of those whose peers do not answer.
#[derive(Debug, Default)]
pub struct Knocks {
    known: VecDeque<Bond>,
    unknown: VecDeque<Bond>,
    next_known: Option<Instant>,
    next_unknown: Option<Instant>,
}

impl Knocks {
    /// Takes a turn among those that did not answer last time, and says when it is: `now`, or later.
    pub(super) fn take_turn(&mut self, now: Instant, standing: Standing) -> Instant {
        let (next, pace) = match standing {
            Standing::Known => (&mut self.next_known, PACE_KNOWN),
            Standing::Unknown => (&mut self.next_unknown, PACE_UNKNOWN),
        };
        let turn = next.map_or(now, |next| next.max(now));
        *next = Some(turn + pace);
        turn
    }

    /// A pair waits until there is room to begin its IKE SA.
    pub fn wait(&mut self, bond: Bond, standing: Standing) {
        match standing {
            Standing::Known => self.known.push_back(bond),
            Standing::Unknown => self.unknown.push_back(bond),
        }
    }

    /// The pair that is next when there is room.
    pub fn next(&mut self) -> Option<Bond> {
        self.known.pop_front().or_else(|| self.unknown.pop_front())
    }

    /// Whether no pair waits for room.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty() && self.unknown.is_empty()
    }
}
