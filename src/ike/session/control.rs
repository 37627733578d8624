//! Sessions without children: what they rest on, and how long a joiner may stay.

use std::time::Instant;

use super::established::Established;
use crate::identity::Proof;
use crate::ike::control::Purpose;
use crate::ike::limits::{JOINER_LIFE, JOINER_SILENCE, TRIES_FAREWELL};
use crate::ike::outbox::Cx;
use crate::ike::reason::Lapsed;
use crate::ike::{Settings, Topic};
use crate::types::UnixTime;

impl Established {
    /// What it is for.
    pub fn purpose(&self) -> Purpose {
        self.path().purpose
    }

    /// Whether it has no children and never gets one.
    pub fn is_childless(&self) -> bool {
        self.purpose() != Purpose::Data
    }

    /// Whether it does what it is for, or will soon.
    pub fn serves(&self) -> bool {
        self.is_childless() || self.has_or_makes_child()
    }

    /// Whether the peer is let in by an invite, by this end.
    pub fn is_joiner(&self) -> bool {
        self.purpose() == Purpose::Join && !self.basis().initiated
    }

    /// Whether both ends would prove themselves so today.
    pub fn is_current(&self, settings: &Settings, wall: Option<UnixTime>) -> bool {
        if !self.is_childless() {
            return self.basis().is_current(settings, self.pair().remote, wall);
        }
        // One that joins has done so with its invite.
        let ours = || settings.control.as_ref().map(|control| Proof::Key(control.key.public().clone()));
        let proven = self.purpose() == Purpose::Join || ours().as_ref() == Some(&self.basis().ours);
        proven && self.is_taken(settings)
    }

    /// Whether the peer's proof would be taken today.
    pub(super) fn is_taken(&self, settings: &Settings) -> bool {
        let (basis, remote) = (self.basis(), self.pair().remote);
        if !self.is_childless() {
            return basis.is_taken(settings, remote);
        }
        let Some((control, key)) = settings.control.as_ref().zip(basis.theirs.key()) else { return false };
        match self.purpose() {
            Purpose::Join if self.is_joiner() => control.takes_invite(key),
            // The user has admitted it.
            Purpose::Join => true,
            Purpose::Control | Purpose::Data => control.takes_member(remote, key),
        }
    }

    /// Why it ends, where it is not taken.
    pub(super) fn lapsed(&self, settings: &Settings) -> Lapsed {
        let has_taken_ppk = self.is_childless() || self.basis().ppk_is_taken(settings, self.pair().remote);
        if has_taken_ppk { Lapsed::NotAccepted } else { Lapsed::Ppk }
    }

    /// What its user calls what is told on it.
    pub(super) fn topic(&self) -> Topic {
        match self.purpose() {
            Purpose::Data => Topic::Session,
            Purpose::Control => Topic::Control,
            Purpose::Join => Topic::Join,
        }
    }

    /// When a joiner has stayed too long, or has been silent for too long.
    pub(super) fn joiner_end(&self) -> Option<Instant> {
        let silent = self.told_at.unwrap_or(self.since()) + JOINER_SILENCE;
        (self.is_joiner() && !self.is_closing()).then(|| silent.min(self.since() + JOINER_LIFE))
    }

    /// A joiner whose time is over has to begin anew.
    pub(super) fn end_joiner(&mut self, cx: &Cx<'_>) {
        if self.joiner_end().is_some_and(|at| at <= cx.now) {
            self.close(TRIES_FAREWELL);
        }
    }
}
