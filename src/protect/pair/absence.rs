//! A peer that is not there yet: nothing is wrong with a pair that never was protected and whose peer says
//! nothing, and nothing more happens until somebody enables that peer too.

use std::time::Instant;

use super::{Order, PairMachine};
use crate::protect::clock::Clock;
use crate::protect::reason::PairReason;
use crate::protect::timing::ABSENCE_PATIENCE;
use crate::types::{ReasonCode, RowState};

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Absence {
    /// Since when the peer has proven nothing; `None` for a pair that was protected once.
    since: Option<Instant>,
    /// Whether that was long ago.
    waiting: bool,
}

impl Absence {
    /// The peer has proven who it is.
    pub(super) fn note_proof(&mut self, now: Instant) {
        self.since = self.since.map(|_| now);
    }
}

impl PairMachine {
    /// Whether this host can only wait for the other: the pair was never protected, and the other host has
    /// proven nothing for some seconds.
    pub fn is_waiting(&self) -> bool {
        self.absence.waiting
    }

    /// The operator orders protection: a peer that was not there gets as much time again, and one that was
    /// refused another chance.
    pub(super) fn await_peer(&mut self, now: Instant) {
        let new = self.way.is_off() && !self.is_sealed() && self.inherited.is_empty();
        if new || self.absence.since.is_some() {
            self.absence = Absence { since: Some(now), waiting: false };
        }
        let unprotected = self.way.is_on() && self.row_state() != RowState::Protected;
        if unprotected && self.failing.forgive() {
            self.orders.push_back(Order::Hurry);
        }
    }

    pub(super) fn note_absence(&mut self, clock: &mut Clock) {
        let (state, reason) = self.judge();
        if state == RowState::Protected {
            self.absence = Absence::default();
        }
        let Some(since) = self.absence.since else { return };
        let unheard = matches!(reason, Some(PairReason::Agreeing | PairReason::NoKeys(ReasonCode::NoAnswer)));
        self.absence.waiting = self.way.is_on() && unheard && clock.due(since + ABSENCE_PATIENCE);
    }
}
