//! Where a pair is on its way between the clear and protection, and who turned it back.

use std::time::Instant;

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing is wanted.
    Off,
    /// Protected, or on the way to it.
    On,
    /// On the way to the clear: this end accepts clear packets and still sends ESP.
    Opening { since: Instant },
    /// This end sends clear packets again; SAs are still there for packets under way.
    Cleared { since: Instant },
}

/// Why this end took the pair to the clear though no operator told it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// The peer wished it.
    PeerDisabled,
    /// The peer's trial ended, and it did not say that it was confirmed.
    TrialEnded,
}

/// The way, and how far the pair has come on it.
#[derive(Debug)]
pub(super) struct Way {
    phase: Phase,
    /// Why the pair is in the clear, or on its way there, while this host is protected.
    left: Option<Left>,
    /// Since when the pair is to go to the clear, while there is no child to tell the peer by.
    leaving: Option<Instant>,
    /// The kernel has an inbound policy that accepts clear packets, on the way to the clear.
    opened: bool,
}

impl Way {
    /// Nothing is wanted yet.
    pub(super) fn new() -> Self {
        Self { phase: Phase::Off, left: None, leaving: None, opened: false }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) fn is_on(&self) -> bool {
        self.phase == Phase::On
    }

    pub(super) fn is_off(&self) -> bool {
        self.phase == Phase::Off
    }

    pub(super) fn left(&self) -> Option<Left> {
        self.left
    }

    /// Whether the pair is in the clear, or on its way there, because the peer disabled it.
    pub(super) fn is_peers_wish(&self) -> bool {
        self.left == Some(Left::PeerDisabled)
    }

    /// Since when the pair waits for somebody to tell that it goes to the clear.
    pub(super) fn waits_to_leave(&self) -> Option<Instant> {
        self.leaving
    }

    /// Whether the kernel accepts clear packets on the way to the clear.
    pub(super) fn has_opened(&self) -> bool {
        self.opened
    }

    /// Starts on the way to protection.
    pub(super) fn begin(&mut self) {
        (self.phase, self.left) = (Phase::On, None);
    }

    /// Goes on to the clear, where an agent before this one was taking the pair by the peer's wish.
    pub(super) fn follow(&mut self, now: Instant) {
        (self.phase, self.left) = (Phase::Opening { since: now }, Some(Left::PeerDisabled));
    }

    /// The wait to leave is over, or void.
    pub(super) fn stop_waiting(&mut self) {
        self.leaving = None;
    }

    /// This host wishes the pair in the clear. Says whether it got there by the peer's wish, so that the peer knows.
    pub(super) fn leave(&mut self) -> bool {
        self.left.take().is_some() && self.is_on()
    }

    /// There is nobody to tell yet that the pair goes to the clear.
    pub(super) fn wait_to_leave(&mut self, now: Instant) {
        self.leaving.get_or_insert(now);
    }

    /// Goes to the clear, `left` by the peer or by the wish of this host, which counts where it waited to leave. Says
    /// whether that begins just now.
    pub(super) fn open(&mut self, now: Instant, left: Option<Left>) -> bool {
        if self.leaving.take().is_none() {
            self.left = left.or(self.left);
        }
        let begins = self.is_on();
        if begins {
            self.phase = Phase::Opening { since: now };
        }
        begins
    }

    /// The peer thought better of it. Says whether the pair was left by it.
    pub(super) fn turn_back(&mut self) -> bool {
        let was_left = self.left.take().is_some();
        if was_left {
            self.phase = Phase::On;
        }
        was_left
    }

    /// From now on this end sends clear packets.
    pub(super) fn clear(&mut self, now: Instant) {
        self.phase = Phase::Cleared { since: now };
    }

    /// The peer may have sent ESP until now: its clear packets have just begun.
    pub(super) fn prolong(&mut self, now: Instant) {
        if let Phase::Cleared { since } = &mut self.phase {
            *since = now;
        }
    }

    /// Nothing is under way any more. A pair that was left is wanted as before; says why it was.
    pub(super) fn arrive(&mut self) -> Option<Left> {
        self.opened = false;
        self.phase = if self.left.is_some() { Phase::On } else { Phase::Off };
        self.left
    }

    /// The kernel took the policies of this phase.
    pub(super) fn note_applied(&mut self) {
        self.opened = matches!(self.phase, Phase::Opening { .. } | Phase::Cleared { .. });
    }
}
