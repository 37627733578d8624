//! Protection that is tried out: at a time that both ends know the pair goes back to the clear, unless the
//! operator of the host on trial confirms before.
//!
//! A pair that was sealed before is not part of it: nobody's trial opens it.

use std::time::{Duration, Instant};

use super::{Left, PairMachine, Phase, Seal};
use crate::protect::clock::Clock;
use crate::protect::timing::{OPEN_PATIENCE, TRIAL_PATIENCE};

/// When the trials of both ends end; `None` for an end that is not on trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Trials {
    /// This host's.
    pub(super) own: Option<Instant>,
    /// The peer's, as it said last.
    pub(super) peer: Option<Instant>,
}

impl Trials {
    /// The earlier one counts for the pair.
    pub(super) fn end(&self) -> Option<Instant> {
        [self.own, self.peer].into_iter().flatten().min()
    }
}

impl PairMachine {
    /// The operator of this host wants its protection to stay.
    pub fn confirm(&mut self, now: Instant) {
        self.trial.own = None;
        // What an agent before this one left was this trial.
        if self.current().is_none() {
            self.trial.peer = None;
        }
        self.advance(now);
    }

    /// When the pair goes back to the clear unless that is confirmed; `None` for one that stays.
    pub fn trial_end(&self) -> Option<Instant> {
        self.trial.end().filter(|_| self.phase == Phase::On && self.seal != Seal::Final)
    }

    /// From when on the kernel may take away by itself what locks out. On the way to the clear, too, it has
    /// to do so should the agent die there.
    pub(super) fn ends(&self) -> Option<Instant> {
        match self.phase {
            Phase::On => self.trial_end(),
            Phase::Opening { since } => self.trial.end().map(|_| since + self.open_patience(since)),
            Phase::Off | Phase::Cleared { .. } => None,
        }
    }

    /// How long a pair that opens since `since` waits for the peer to say that it does.
    pub(super) fn open_patience(&self, since: Instant) -> Duration {
        let ended = self.trial.end().is_some_and(|end| end <= since);
        if ended { TRIAL_PATIENCE } else { OPEN_PATIENCE }
    }

    /// Follows the trial of the peer; that of this host ends for all its pairs at once.
    pub(super) fn try_out(&mut self, clock: &mut Clock) {
        if self.phase != Phase::On {
            return;
        }
        if let Some(child) = self.current() {
            self.trial.peer = child.peer.trial;
        }
        match (self.seal, self.trial.peer) {
            (Seal::OnTrial, None) if self.trial.own.is_none() => self.close(false),
            (Seal::OnTrial | Seal::Open, Some(end)) if clock.due(end) => {
                self.left = Some(Left::TrialEnded);
                self.open(clock.now);
            }
            _ => {}
        }
    }
}
