//! The way back to the clear, wished here or by the peer: accept clear packets, tell the peer, send them, and let go
//! of the SAs when nothing can be under way any more.

use std::time::{Duration, Instant};

use super::children::Children;
use super::way::{Left, Phase};
use super::{IkeOrder, Order, PairMachine};
use crate::protect::child::Child;
use crate::protect::clock::Clock;
use crate::protect::timing::{IN_GRACE, OPEN_PATIENCE, OUT_GRACE, PART_GRACE};

impl PairMachine {
    /// Takes the pair back to the clear. Where it sends through SAs of the agent before, or is sealed without an SA,
    /// there is a new session first, to tell the peer.
    pub fn disable(&mut self, now: Instant) {
        // A peer that began it knows.
        if self.way.leave() || self.can_tell() {
            self.open(now, None);
        } else if self.way.is_on() {
            self.way.wait_to_leave(now);
        }
        self.advance(now);
    }

    /// Takes the pair back to the clear because this host is to have nothing to do with the peer any more: it does not wait
    /// for one that is dead.
    pub fn part(&mut self, now: Instant) {
        self.parting.begin();
        self.disable(now);
    }

    /// Whether the peer leaves unanswered what was sent to it several times.
    pub fn handle_silence(&mut self, now: Instant, silent: bool) {
        if self.parting.was_silent() != silent {
            self.parting.note_silent(silent);
            self.advance(now);
        }
    }

    /// Whether [`PairMachine::handle_silence`] would change anything.
    pub fn counts_as_silent(&self) -> bool {
        self.parting.was_silent()
    }

    /// Meets the peer again, for a pair that an agent before this one left in the kernel and that is to go to the
    /// clear: [`PairMachine::disable`] then tells the peer.
    pub fn meet(&mut self, now: Instant) {
        self.begin();
        self.advance(now);
    }

    /// This host is to be protected again while the pair is on its way to the clear: begins as an agent does that
    /// takes over from one that died there. The SAs serve until others have taken over; what the peer reports of them
    /// answers a wish that is over.
    pub(super) fn begin_anew(&mut self) {
        if self.place.is_away() {
            return self.begin();
        }
        self.inherited.take_in(self.children.leave_behind());
        // Its party has proven nothing yet: it goes before the pair is sealed again.
        self.inherited.take_in(self.unproven.leave_behind());
        self.outbound.unsettle();
        self.trials.forget_peer();
        self.orders.push_back(Order::BeginAnew);
        self.begin();
        self.orders.push_back(Order::Hurry);
    }

    /// The agent before this one died while the pair was open by the peer's wish: goes on to the clear, as the peer may
    /// be gone. It accepts clear packets, and waits for no answer much longer. Or it has thought better of it, and
    /// does not know that this end has forgotten that: so it is asked.
    pub(super) fn follow(&mut self, now: Instant) {
        self.way.follow(now);
        self.orders.extend([Order::Ike(IkeOrder::Active), Order::Hurry]);
    }

    /// Goes to the clear, `left` by the peer or by the wish of this host. From now on no session is begun: the peer,
    /// which may be there first and have ended its session, would take one for a change of mind.
    pub(super) fn open(&mut self, now: Instant, left: Option<Left>) {
        if self.way.open(now, left) {
            self.orders.push_back(Order::Ike(IkeOrder::Passive));
        }
        self.orders.extend(self.sealing.open(self.way.is_peers_wish()));
    }

    /// The way to the clear: this end sends clear once the peer accepts it, or does not answer.
    pub(super) fn leave(&mut self, clock: &mut Clock) {
        let hopeless = self.parting.is_on() && self.failing.has_tried();
        if let Some(since) = self.way.waits_to_leave()
            && (self.can_tell() || hopeless || clock.due(since + OPEN_PATIENCE))
        {
            self.open(clock.now, None);
        }
        if let Phase::Opening { since } = self.way.phase() {
            // With nobody to hear from, that has been waited for.
            let heard = self.way.is_peers_wish()
                || self.parting.is_from_silent()
                || self.counterpart().is_none_or(|child| child.peer().open || child.is_foreign());
            if heard || clock.due(since + self.open_patience(since)) {
                self.way.clear(clock.now);
                self.outbound.name(None);
            }
        }
        if let Phase::Cleared { since } = self.way.phase() {
            let idle = self.children.is_empty() && self.inherited.is_empty();
            if clock.due(since + OUT_GRACE) {
                self.children.iter_mut().for_each(Child::retire_outbound);
                self.inherited.take_away_outbound();
            }
            // A peer that began it and died may leave a kernel behind that goes on sending ESP.
            let awaited = self.way.is_peers_wish() && self.children.peer_may_send();
            if idle || (!awaited && clock.due(since + self.in_grace())) {
                self.arrive();
            }
        }
    }

    /// How long packets may be under way from the peer, since this end sends clear ones.
    fn in_grace(&self) -> Duration {
        let is_untold = self.children.is_empty();
        // It may send through SAs of an agent before this one, too, and says nothing of those.
        let has_stopped = self.children.peer_has_stopped() && self.inherited.is_empty();
        match self.way.is_peers_wish() {
            // One that could not be told sends ESP until it waits no more.
            true if is_untold => OPEN_PATIENCE + IN_GRACE,
            true => IN_GRACE,
            false if self.parting.is_from_silent() => Duration::ZERO,
            false if self.parting.is_on() && has_stopped => PART_GRACE,
            false => IN_GRACE,
        }
    }

    /// The pair is in the clear, and nothing is under way any more.
    fn arrive(&mut self) {
        self.children = Children::default();
        self.inherited.let_go();
        self.unproven.let_go();
        self.outbound.unsettle();
        self.trials.forget_peer();
        self.orders.extend(self.sealing.arrive());
        let left = self.way.arrive();
        self.parting.end();
        // A peer that disables deletes its sessions itself.
        if left != Some(Left::PeerDisabled) {
            self.orders.push_back(Order::Ike(IkeOrder::Forget));
        }
        if left == Some(Left::TrialEnded) {
            self.orders.push_back(Order::Ike(IkeOrder::Passive));
        }
    }

    /// Whether the peer can be told that the pair goes to the clear, or need not be.
    fn can_tell(&self) -> bool {
        if self.place.is_away() {
            return true;
        }
        // Until an attempt has failed the peer may be there, and sealed with what this host has forgotten.
        let unknown = self.way.is_on() && !self.failing.has_tried();
        let nothing = self.outbound.named().is_none() && self.inherited.is_empty() && !self.is_sealed();
        (nothing && !unknown) || self.counterpart().is_some_and(|child| !child.is_pending())
    }

    /// The child by which both ends can speak: the one in use, or else the newest.
    fn counterpart(&self) -> Option<&Child> {
        self.current().filter(|child| child.is_known()).or_else(|| self.children.newest_known())
    }
}
