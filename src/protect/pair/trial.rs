//! Protection that is tried out: at a time that both ends know the pair goes back to the clear, unless the
//! operator of the host on trial confirms before.
//!
//! A pair that was sealed before is not part of it: nobody's trial opens it.

use std::time::{Duration, Instant};

use super::PairMachine;
use super::way::{Left, Phase};
use crate::protect::clock::Clock;
use crate::protect::timing::{OPEN_PATIENCE, TRIAL_PATIENCE};

/// When the trials of both ends end; `None` for an end that is not on trial.
#[derive(Debug, Default)]
pub(super) struct Trials {
    own: Option<Instant>,
    /// As the peer said last.
    peer: Option<Instant>,
}

impl Trials {
    /// When this host's ends.
    pub(super) fn own(&self) -> Option<Instant> {
        self.own
    }

    /// The earlier one counts for the pair.
    pub(super) fn end(&self) -> Option<Instant> {
        [self.own, self.peer].into_iter().flatten().min()
    }

    /// This host protects itself, until `end` or for good.
    pub(super) fn begin(&mut self, end: Option<Instant>) {
        self.own = end;
    }

    /// What the peer says, or what an agent before this one knew of either.
    pub(super) fn hear(&mut self, end: Option<Instant>) {
        self.peer = end;
    }

    /// What the peer said is void.
    pub(super) fn forget_peer(&mut self) {
        self.peer = None;
    }
}

impl PairMachine {
    /// The operator of this host wants its protection to stay.
    pub fn confirm(&mut self, now: Instant) {
        self.trials.begin(None);
        // What an agent before this one left was this trial.
        if self.current().is_none() {
            self.trials.forget_peer();
        }
        self.advance(now);
    }

    /// When the pair goes back to the clear unless that is confirmed; `None` for one that stays.
    pub fn trial_end(&self) -> Option<Instant> {
        self.trials.end().filter(|_| self.way.is_on() && !self.sealing.is_final())
    }

    /// From when on the kernel may take away by itself what locks out. On the way to the clear, too, it has
    /// to do so should the agent die there.
    pub(super) fn ends(&self) -> Option<Instant> {
        match self.way.phase() {
            Phase::On => self.trial_end(),
            Phase::Opening { since } => self.trials.end().map(|_| since + self.open_patience(since)),
            Phase::Off | Phase::Cleared { .. } => None,
        }
    }

    /// How long a pair that opens since `since` waits for the peer to say that it does.
    pub(super) fn open_patience(&self, since: Instant) -> Duration {
        let ended = self.trials.end().is_some_and(|end| end <= since);
        if ended { TRIAL_PATIENCE } else { OPEN_PATIENCE }
    }

    /// Follows the trial of the peer; the trial of this host ends for all its pairs at once.
    pub(super) fn try_out(&mut self, clock: &mut Clock) {
        if !self.way.is_on() {
            return;
        }
        if let Some(child) = self.current() {
            let end = child.peer().trial;
            self.trials.hear(end);
        }
        match self.trials.peer {
            // It was confirmed.
            None if self.trials.own.is_none() && self.sealing.is_on_trial() => self.close(false),
            Some(end) if self.sealing.is_opened_by_trials() && clock.due(end) => {
                self.open(clock.now, Some(Left::TrialEnded));
            }
            _ => {}
        }
    }
}
