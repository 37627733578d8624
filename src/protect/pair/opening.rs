//! The way back to the clear, wished here or by the peer: accept clear packets, tell the peer, send them, and let go
//! of the SAs when nothing can be under way any more.

use std::time::Instant;

use super::trial::Trials;
use super::{IkeOrder, Left, Order, PairMachine, Phase, Seal};
use crate::protect::child::Child;
use crate::protect::clock::Clock;
use crate::protect::timing::{IN_GRACE, OPEN_PATIENCE, OUT_GRACE};
use crate::types::Direction;
use crate::types::word::Flags;

impl PairMachine {
    /// Takes the pair back to the clear. Where it sends through what an agent before this one left, or is sealed
    /// without an SA, the peer is first met again, to be told.
    pub fn disable(&mut self, now: Instant) {
        // A peer that began it knows.
        let knows = self.left.take().is_some() && self.phase == Phase::On;
        if knows || self.can_tell() {
            self.open(now);
        } else if self.phase == Phase::On {
            self.leaving.get_or_insert(now);
        }
        self.advance(now);
    }

    /// Meets the peer again, for a pair that an agent before this one left in the kernel and that is to go to the
    /// clear: [`PairMachine::disable`] then tells the peer.
    pub fn meet(&mut self, now: Instant) {
        self.begin();
        self.advance(now);
    }

    /// This host is to be protected again while the pair is on its way to the clear: begins as an agent does that
    /// takes over from one that died there. The SAs serve until others have taken over, and what the peer says of them
    /// is an answer to what is not wanted any more.
    pub(super) fn begin_anew(&mut self) {
        if self.away.is_some() {
            return self.begin();
        }
        self.adopted.extend(self.children.drain(..).flat_map(|child| child.left_behind()));
        if let Some((sa, _)) = self.ahead.take() {
            // Its party has proven nothing yet, and goes before the pair is sealed again.
            self.unproven.insert(sa.id());
            self.adopted.insert(sa.id(), sa.direction);
        }
        (self.spoken_of, self.settled, self.taken_over, self.trial.peer) = (None, None, None, None);
        self.orders.push_back(Order::BeginAnew);
        self.begin();
        self.orders.push_back(Order::Hurry);
    }

    /// The agent before this one died while the pair was open by the peer's wish: goes on to the clear, as the peer may
    /// be gone. It accepts clear packets, and waits for no answer much longer. Or it has thought better of it, and
    /// does not know that this end has forgotten that: so it is asked.
    pub(super) fn follow(&mut self, now: Instant) {
        self.left = Some(Left::PeerDisabled);
        self.phase = Phase::Opening { since: now };
        self.orders.extend([Order::Ike(IkeOrder::Active), Order::Hurry]);
    }

    /// Goes to the clear. From now on no session is begun: the peer, which may be there first and lets go of its own,
    /// would take one for a change of mind.
    pub(super) fn open(&mut self, now: Instant) {
        if self.phase == Phase::On {
            self.phase = Phase::Opening { since: now };
            self.orders.push_back(Order::Ike(IkeOrder::Passive));
        }
        match self.seal {
            Seal::Final | Seal::Opened if self.is_peers_wish() => self.seal = Seal::Opened,
            Seal::Final | Seal::Opened => self.unseal(),
            Seal::Open | Seal::OnTrial => self.seal = Seal::Open,
        }
    }

    fn unseal(&mut self) {
        self.seal = Seal::Open;
        self.orders.push_back(Order::Persist);
    }

    /// The way to the clear: this end sends clear once the peer accepts it, or does not answer.
    pub(super) fn leave(&mut self, clock: &mut Clock) {
        if let Some(since) = self.leaving
            && (self.can_tell() || clock.due(since + OPEN_PATIENCE))
        {
            self.leaving = None;
            self.open(clock.now);
        }
        if let Phase::Opening { since } = self.phase {
            // With nobody to hear from, that has been waited for.
            let heard = self.is_peers_wish()
                || self.counterpart().is_none_or(|child| child.peer.open || child.foreign);
            if heard || clock.due(since + self.open_patience(since)) {
                self.phase = Phase::Cleared { since: clock.now };
                self.outbound = None;
            }
        }
        if let Phase::Cleared { since } = self.phase {
            let idle = self.children.is_empty() && self.adopted.is_empty();
            if clock.due(since + OUT_GRACE) {
                self.children.iter_mut().for_each(Child::retire_outbound);
                self.adopted.retain(|_, direction| *direction == Direction::In);
            }
            // A peer that began it and died may leave a kernel behind that goes on sending ESP.
            let awaited = self.is_peers_wish() && self.peer_may_send();
            // One that could not be told does so until it waits no more.
            let untold = self.is_peers_wish() && self.children.is_empty();
            let grace = if untold { OPEN_PATIENCE + IN_GRACE } else { IN_GRACE };
            if idle || (!awaited && clock.due(since + grace)) {
                self.children.clear();
                self.ahead = None;
                self.adopted.clear();
                self.settled = None;
                self.opened = false;
                if self.seal == Seal::Opened {
                    self.unseal();
                }
                self.trial = Trials { own: self.trial.own, peer: None };
                self.phase = if self.left.is_some() { Phase::On } else { Phase::Off };
                // A peer that disables deletes its sessions itself.
                if self.left != Some(Left::PeerDisabled) {
                    self.orders.push_back(Order::Ike(IkeOrder::Forget));
                }
                if self.left == Some(Left::TrialEnded) {
                    self.orders.push_back(Order::Ike(IkeOrder::Passive));
                }
            }
        }
    }

    /// Whether the peer can be told that the pair goes to the clear, or need not be.
    fn can_tell(&self) -> bool {
        if self.away.is_some() {
            return true;
        }
        // Until an attempt has failed the peer may be there, and sealed with what this host has forgotten.
        let unknown = self.phase == Phase::On && self.failing_since.is_none();
        let nothing = self.outbound.is_none() && self.adopted.is_empty() && !self.is_sealed();
        (nothing && !unknown) || self.counterpart().is_some_and(|child| !child.is_pending())
    }

    /// The child by which both ends can speak: the one in use, or else the newest.
    fn counterpart(&self) -> Option<&Child> {
        let newest = || self.children.iter().rev().find(|child| child.is_known());
        self.current().filter(|child| child.is_known()).or_else(newest)
    }

    /// What the peer said last: of the child in use, or of one that its next agent made since.
    pub(super) fn last_word(&self) -> Option<Flags> {
        let used = self.outbound.and_then(|spi| self.children.iter().position(|c| c.out_spi() == spi));
        let spoken = self.children.iter().position(|child| Some(child.in_spi()) == self.spoken_of);
        used.max(spoken).map(|at| self.children[at].peer)
    }

    /// Whether the pair is in the clear, or on its way there, because the peer disabled it.
    pub(super) fn is_peers_wish(&self) -> bool {
        self.left == Some(Left::PeerDisabled)
    }

    /// Whether the peer's kernel may go on sending ESP: it did when the peer spoke last.
    pub(super) fn peer_may_send(&self) -> bool {
        let child = self.children.iter().find(|child| Some(child.in_spi()) == self.spoken_of);
        child.is_some_and(Child::peer_may_send)
    }
}
