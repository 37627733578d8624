//! Which SAs packets leave through: those chosen, those that the kernel's policy names, those that both ends use.

use std::time::Instant;

use crate::protect::clock::Clock;
use crate::protect::timing::UNSETTLED_PATIENCE;
use crate::types::Through;

/// The outbound SAs of a pair.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// The SAs that the policy should name.
    named: Option<Through>,
    /// The SAs that the policy in the kernel names.
    confirmed: Option<Through>,
    /// The SAs of the child that both ends send through, and since when.
    settled: Option<(Through, Instant)>,
    /// When the peer is asked whether its sessions are alive, should the ends not settle on a child.
    unsettled_until: Option<Instant>,
}

impl Outbound {
    /// Goes on with what an agent before this one left in the policy.
    pub(super) fn adopt(&mut self, through: Option<Through>) {
        (self.named, self.confirmed) = (through, through);
    }

    /// The SAs that the policy should name.
    pub(super) fn named(&self) -> Option<Through> {
        self.named
    }

    /// The SAs that the policy in the kernel names.
    pub(super) fn confirmed(&self) -> Option<Through> {
        self.confirmed
    }

    /// The SAs that packets leave through, and will go on to.
    pub(super) fn stays(&self) -> Option<Through> {
        self.named.filter(|_| self.named == self.confirmed)
    }

    /// The SAs of the child that both ends send through.
    pub(super) fn settled(&self) -> Option<Through> {
        self.settled.map(|(through, _)| through)
    }

    /// Since when they do.
    pub(super) fn settled_since(&self) -> Option<Instant> {
        self.settled.map(|(_, since)| since)
    }

    /// The policy is to name these. Says whether it named others before.
    pub(super) fn name(&mut self, through: Option<Through>) -> bool {
        std::mem::replace(&mut self.named, through) != through
    }

    /// The kernel has taken the policy.
    pub(super) fn note_applied(&mut self) {
        self.confirmed = self.named;
    }

    /// Both ends send through these, or through no child in common. Says whether that is new.
    pub(super) fn settle(&mut self, now: Instant, through: Option<Through>) -> bool {
        let new = self.settled() != through;
        if new {
            self.settled = through.map(|through| (through, now));
        }
        new
    }

    /// What the ends had come to counts no more.
    pub(super) fn unsettle(&mut self) {
        self.settled = None;
    }

    /// Whether the ends have remained `unsettled` for so long that the peer is to be asked now.
    pub(super) fn doubt(&mut self, clock: &mut Clock, unsettled: bool) -> bool {
        if !unsettled {
            self.unsettled_until = None;
            return false;
        }
        let next = clock.now + UNSETTLED_PATIENCE;
        let asks = clock.due(*self.unsettled_until.get_or_insert(next));
        if asks {
            self.unsettled_until = Some(next);
            clock.due(next);
        }
        asks
    }
}
