//! What went wrong lately, as far as it was told.

use std::time::Instant;

use crate::protect::clock::Clock;
use crate::protect::reason::{PairReason, Unwritten};
use crate::protect::timing::KERNEL_RETRY;
use crate::types::{OpError, ReasonCode};

/// What went wrong, and since when.
#[derive(Debug, Default)]
pub(super) struct Failing {
    /// Why the last attempt at keys failed.
    keys: Option<PairReason>,
    /// Since when all attempts have failed.
    since: Option<Instant>,
    /// Why a policy is not in the kernel, and when to try again.
    policies: Option<(Unwritten, Instant)>,
    /// The peer's file does not list this host any more.
    removed: bool,
}

impl Failing {
    /// An attempt at keys failed.
    pub(super) fn note(&mut self, now: Instant, code: ReasonCode) {
        self.keys = Some(PairReason::NoKeys(code));
        self.since.get_or_insert(now);
    }

    /// The kernel did not take an SA.
    pub(super) fn note_refused(&mut self, error: &OpError) {
        self.keys = Some(PairReason::NotInstalled(error.clone()));
    }

    /// The kernel has the policies, or not for this reason.
    pub(super) fn note_policies(&mut self, now: Instant, unwritten: Option<Unwritten>) {
        self.policies = unwritten.map(|unwritten| (unwritten, now + KERNEL_RETRY));
    }

    /// The peer says that its file does not list this host any more.
    pub(super) fn note_removed(&mut self) {
        self.removed = true;
    }

    /// Keys were agreed.
    pub(super) fn note_success(&mut self) {
        self.forget_attempts();
        self.removed = false;
    }

    /// Attempts begin anew.
    pub(super) fn forget_attempts(&mut self) {
        (self.keys, self.since) = (None, None);
    }

    /// The pair is not possible here now, and nothing is tried.
    pub(super) fn let_go(&mut self) {
        self.forget_attempts();
        self.policies = None;
    }

    /// The next attempt has another chance. Says whether the last one had failed.
    pub(super) fn forgive(&mut self) -> bool {
        self.keys.take().is_some()
    }

    /// Why the last attempt at keys failed.
    pub(super) fn keys(&self) -> Option<&PairReason> {
        self.keys.as_ref()
    }

    /// Whether an attempt at keys has failed since they began.
    pub(super) fn has_tried(&self) -> bool {
        self.since.is_some()
    }

    /// Since when all attempts at keys have failed.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since.filter(|_| self.keys.is_some())
    }

    /// Why a policy is not in the kernel.
    pub(super) fn policies(&self) -> Option<&Unwritten> {
        self.policies.as_ref().map(|(unwritten, _)| unwritten)
    }

    /// Whether the peer's file does not list this host any more.
    pub(super) fn is_removed(&self) -> bool {
        self.removed
    }

    /// Notes when policies that were refused are tried again.
    pub(super) fn retry(&self, clock: &mut Clock) {
        if let Some((_, retry)) = &self.policies {
            clock.due(*retry);
        }
    }
}
