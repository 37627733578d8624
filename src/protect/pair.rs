//! One pair of addresses on its way from clear to sealed and back.
//!
//! The machine is level-triggered: inputs only record facts, then [`PairMachine::advance`] derives what
//! follows from them. What it wants in the kernel is [`PairMachine::desired`]; what it wants from the key
//! exchange and the network comes out of [`PairMachine::poll_order`].

mod judge;
mod order;
mod seal;
mod trial;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

pub use self::order::{Order, Posture};
use self::seal::Use;
use self::trial::Trial;
use super::child::Child;
use super::clock::Clock;
use super::plan::Desired;
use super::policies;
use super::timing::{
    DELETE_PATIENCE, IN_GRACE, KERNEL_RETRY, OPEN_PATIENCE, OUT_GRACE, TRIAL_IN, TRIAL_OUT,
    UNSETTLED_PATIENCE,
};
use crate::model::status::{ReasonCode, RowState};
use crate::model::word::Flags;
use crate::model::{Action, Direction, Limits, OpError, Pair, Sa, SaId, Spi, Word};

/// Children of one pair at a time: what a peer can make us hold.
const MAX_CHILDREN: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is wanted.
    Off,
    /// Protected, or on the way to it.
    On,
    /// On the way to the clear: this end accepts clear packets and still sends ESP.
    Opening { since: Instant },
    /// This end sends clear packets again; SAs are still there for what is under way.
    Cleared { since: Instant },
}

/// Whether clear packets are neither sent nor accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seal {
    /// They are, as long as there is nothing better.
    Open,
    /// They are again: the peer wished it of a pair that was sealed for good. It is persisted as sealed until it
    /// has arrived in the clear, so that an agent that dies on the way is followed by one that goes on.
    Opened,
    /// They are not, until the trial ends.
    OnTrial,
    /// They are not, for good. It is persisted.
    Final,
}

/// Why this end took the pair to the clear without having been told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The peer wished it.
    PeerDisabled,
    /// The peer's trial ended, and it did not say that it was confirmed.
    TrialEnded,
}

/// Why a pair is not protected: a code of the contract, and words.
pub type Reason = (ReasonCode, String);

/// What an agent before this one left of a pair in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adopted {
    /// Its SAs. They keep serving.
    pub sas: BTreeMap<SaId, Direction>,
    /// The SA that the outbound policy names.
    pub outbound: Option<Spi>,
    /// What the inbound policy does, where there is one.
    pub inbound: Option<Action>,
    /// When the trial ends that the policies are part of; `None` where they are there for good.
    pub until: Option<Instant>,
}

/// The machine of one pair.
pub struct PairMachine {
    pair: Pair,
    phase: Phase,
    seal: Seal,
    trial: Trial,
    /// Why the pair is in the clear, or on its way there, while this host is protected.
    left: Option<Left>,
    /// May an authenticated peer take the pair to the clear.
    allow_peer_disable: bool,
    /// Since when the pair is to go to the clear, while there is no child to tell the peer by.
    leaving: Option<Instant>,
    /// Oldest first.
    children: Vec<Child>,
    /// An inbound SA that is there before the peer has agreed to its child, and whether the kernel has it.
    ahead: Option<(Sa, bool)>,
    /// Our name of the child that the peer spoke of last.
    spoken_of: Option<Spi>,
    /// SAs found in the kernel, of an agent before this one: they serve until a child has taken over.
    adopted: BTreeMap<SaId, Direction>,
    /// The outbound SA that the policy should name.
    outbound: Option<Spi>,
    /// The outbound SA that the policy in the kernel names.
    confirmed: Option<Spi>,
    /// The kernel has an inbound policy that accepts clear packets, on the way to the clear.
    opened: bool,
    /// When `outbound` changed last.
    switched: Instant,
    /// The outbound SA of the child that both ends send through, and since when.
    settled: Option<(Spi, Instant)>,
    /// When the inbound policies were written last; `None` where an agent before this one did it.
    written: Option<Instant>,
    /// Whether a packet has met them, as far as was asked since the ends settled.
    used: Use,
    /// When the peer is asked whether its sessions are alive, should the ends not settle on a child.
    unsettled_until: Option<Instant>,
    /// What the kernel refused last, and when to try again.
    kernel_error: Option<(String, Instant)>,
    /// This host has its address of the pair.
    present: bool,
    /// Why the last attempt at keys failed.
    failure: Option<Reason>,
    /// What `status` shows, and since when.
    shown: (RowState, Instant),
    wake: Option<Instant>,
    orders: VecDeque<Order>,
}

/// Inputs.
impl PairMachine {
    /// A pair in the clear. `sealed` is what was persisted: such a pair starts blocked.
    pub fn new(pair: Pair, sealed: bool, allow_peer_disable: bool, now: Instant) -> Self {
        Self {
            pair,
            phase: Phase::Off,
            seal: if sealed { Seal::Final } else { Seal::Open },
            trial: Trial::default(),
            left: None,
            allow_peer_disable,
            leaving: None,
            children: Vec::new(),
            ahead: None,
            spoken_of: None,
            adopted: BTreeMap::new(),
            outbound: None,
            confirmed: None,
            opened: false,
            switched: now,
            settled: None,
            written: None,
            used: Use::Unasked,
            unsettled_until: None,
            kernel_error: None,
            present: true,
            failure: None,
            shown: (RowState::Off, now),
            wake: None,
            orders: VecDeque::new(),
        }
    }

    /// Takes over what an agent before this one left in the kernel. Its inbound policy is written before
    /// anything is persisted, so where there is one it knows better than the file.
    pub fn adopt(&mut self, found: Adopted) {
        let Adopted { sas, outbound, inbound, until } = found;
        self.adopted = sas;
        self.outbound = outbound;
        self.confirmed = outbound;
        match inbound {
            Some(Action::Require) if self.seal == Seal::Open => {
                self.seal = if until.is_some() { Seal::OnTrial } else { Seal::Final };
            }
            Some(Action::Accept) if self.seal == Seal::Final => self.seal = Seal::Opened,
            Some(Action::Accept) => self.seal = Seal::Open,
            _ => {}
        }
        self.trial.peer = until;
    }

    /// Protects the pair, or goes on doing so. `strict` seals it at once: until it is keyed, nothing passes.
    /// `trial` is when this host goes back to the clear, unless that is confirmed.
    pub fn enable(&mut self, now: Instant, strict: bool, trial: Option<Instant>) {
        self.leaving = None;
        match self.phase {
            Phase::Off if self.seal == Seal::Opened => self.follow(now),
            Phase::On => {}
            _ => self.begin(),
        }
        self.trial.own = trial;
        if strict {
            self.close(trial.is_some());
        }
        self.advance(now);
    }

    /// Meets the peer again, for a pair that an agent before this one left in the kernel and that is to go to the
    /// clear: [`PairMachine::disable`] then tells the peer.
    pub fn meet(&mut self, now: Instant) {
        self.begin();
        self.advance(now);
    }

    /// From now on, may an authenticated peer take the pair to the clear.
    pub fn allow_peer_disable(&mut self, allow: bool) {
        self.allow_peer_disable = allow;
    }

    /// Takes the pair back to the clear. Where it sends through what an agent before this one left, the peer
    /// is first met again, to be told.
    pub fn disable(&mut self, now: Instant) {
        self.left = None;
        if self.can_tell() {
            self.open(now);
        } else if self.phase == Phase::On {
            self.leaving.get_or_insert(now);
        }
        self.advance(now);
    }

    /// A peer that says no words may soon send through this SA. `false` when the pair wants none.
    #[must_use]
    pub fn handle_inbound_ahead(&mut self, now: Instant, sa: Sa) -> bool {
        let wanted = self.phase == Phase::On;
        if wanted {
            self.ahead = Some((sa, false));
            self.advance(now);
        }
        wanted
    }

    /// Whether the inbound SA of a child is there ahead of it.
    pub fn is_ahead(&self, in_spi: Spi) -> bool {
        self.ahead.is_some_and(|(sa, installed)| installed && sa.spi == in_spi)
    }

    /// Two SAs were agreed; the kernel gets them with the next [`PairMachine::desired`]. `false` when the
    /// pair holds too many already or wants none: the child must then be refused.
    #[must_use]
    pub fn handle_child(&mut self, now: Instant, child: Child) -> bool {
        self.ahead.take_if(|(sa, _)| sa.spi == child.in_spi());
        let wanted = self.phase == Phase::On || self.is_peers_wish();
        if !wanted || self.children.len() >= MAX_CHILDREN {
            return false;
        }
        if self.left.take().is_some() {
            // The peer thought better of it, or its next agent begins anew: what it said before is void.
            self.phase = Phase::On;
            self.children.iter_mut().for_each(Child::forget_peer);
            self.orders.push_back(Order::Posture(Posture::Active));
        }
        self.failure = None;
        self.children.push(child);
        self.advance(now);
        true
    }

    /// The peer told what it has done for a child; that had `waited` to be read.
    pub fn handle_word(&mut self, now: Instant, in_spi: Spi, word: &Word, waited: Duration) {
        let was_sending = self.peer_may_send();
        if let Some(child) = self.child_mut(in_spi) {
            child.hear(now, word, waited);
            self.spoken_of = Some(in_spi);
        }
        if was_sending
            && !self.peer_may_send()
            && let Phase::Cleared { since } = &mut self.phase
        {
            // The last packet that came as ESP was sent just now.
            *since = now;
        }
        if let Some(peer) = self.last_word() {
            match (self.phase, self.left) {
                (Phase::On, _) if peer.open && (self.allow_peer_disable || self.trial_end().is_some()) => {
                    self.left = Some(Left::PeerDisabled);
                    self.open(now);
                }
                // The peer changed its mind, or was heard late, before anything went clear.
                (Phase::Opening { .. }, Some(left))
                    if !peer.open && (left == Left::PeerDisabled || peer.trial.is_none()) =>
                {
                    self.left = None;
                    self.phase = Phase::On;
                }
                _ => {}
            }
        }
        self.advance(now);
    }

    /// A foreign peer is known to have installed a child.
    pub fn handle_foreign_ready(&mut self, now: Instant, in_spi: Spi) {
        if let Some(child) = self.child_mut(in_spi) {
            child.foreign_ready = true;
        }
        self.advance(now);
    }

    /// The kernel has seen the first packet on an SA. `false` where that means nothing.
    pub fn handle_first_packet(&mut self, now: Instant, id: SaId) -> bool {
        let child = self.children.iter_mut().find(|child| child.incoming.id() == id);
        let Some(child) = child.filter(|child| child.reports_first_packet()) else {
            return false;
        };
        child.foreign_ready = true;
        self.advance(now);
        true
    }

    /// A probe came in, and had `waited` to be read. Returns the inbound SA that it came through, if its token
    /// is one of ours.
    pub fn handle_probe(&mut self, now: Instant, token: &[u8; 16], waited: Duration) -> Option<SaId> {
        let child = self.children.iter_mut().find(|child| child.my_token == *token)?;
        child.proof.note_probe(waited);
        let id = child.incoming.id();
        self.advance(now);
        Some(id)
    }

    /// What was sent of late does not seem to arrive, or nothing comes back: proves the child that both ends
    /// send through once more. `false` where that is under way or cannot be.
    pub fn prove_anew(&mut self, now: Instant) -> bool {
        let settled = self.settled_child();
        let began = settled.and_then(|in_spi| self.child_mut(in_spi)).is_some_and(Child::prove_anew);
        self.advance(now);
        began
    }

    /// The key exchange does not know a child any more.
    pub fn handle_closed(&mut self, now: Instant, in_spi: Spi, void: bool) {
        self.ahead.take_if(|(sa, _)| sa.spi == in_spi);
        if let Some(child) = self.child_mut(in_spi) {
            child.close(now, void);
        }
        self.advance(now);
    }

    /// This host's address of the pair is there, or is not. `true` when it has come back.
    pub fn handle_address(&mut self, now: Instant, present: bool) -> bool {
        let returned = present && !self.present;
        self.present = present;
        self.advance(now);
        returned
    }

    /// An attempt at keys failed.
    pub fn handle_failure(&mut self, now: Instant, code: ReasonCode, words: String) {
        self.failure = Some((code, words));
        self.advance(now);
    }

    /// What was desired has been tried. `refused` holds the SAs that the kernel did not take, `policies`
    /// what it said of a policy that it did not take.
    pub fn handle_applied(
        &mut self,
        now: Instant,
        refused: &BTreeMap<SaId, OpError>,
        policies: Option<String>,
    ) {
        self.ahead.take_if(|(sa, _)| refused.contains_key(&sa.id()));
        self.ahead = self.ahead.map(|(sa, _)| (sa, true));
        for child in self.children.iter_mut().filter(|child| child.is_pending()) {
            let ids = [child.incoming.id(), child.outgoing.id()];
            let error = ids.iter().find_map(|id| refused.get(id));
            if let Some(error) = error {
                self.failure = Some((ReasonCode::KernelError, error.to_string()));
            }
            child.installed(error.is_none());
            self.orders.push_back(Order::Installed { in_spi: child.in_spi(), ok: error.is_none() });
        }
        self.children.retain(|child| !child.was_refused());
        match policies {
            Some(error) => self.kernel_error = Some((error, now + KERNEL_RETRY)),
            None => {
                self.kernel_error = None;
                self.confirmed = self.outbound;
                self.opened = matches!(self.phase, Phase::Opening { .. } | Phase::Cleared { .. });
            }
        }
        self.advance(now);
    }

    /// The kernel was read: `present` says which SAs it holds. One that should be there and is not was
    /// taken away by a stranger or by its hard limit.
    pub fn handle_reading(&mut self, now: Instant, present: impl Fn(SaId) -> bool) {
        for child in &mut self.children {
            if child.note_missing(&present) && self.phase == Phase::On {
                self.orders.push_back(Order::Rekey { in_spi: child.in_spi() });
            }
        }
        self.adopted.retain(|id, _| present(*id));
        self.advance(now);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }
}

/// Outputs.
impl PairMachine {
    /// What the pair wants done, oldest first.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When [`PairMachine::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }

    /// What the kernel should hold for this pair alone.
    pub fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        if self.phase == Phase::Off {
            return desired;
        }
        for child in &self.children {
            child.desired(&mut desired.fresh, &mut desired.keep);
        }
        match self.ahead {
            Some((sa, true)) => drop(desired.keep.insert(sa.id())),
            Some((sa, false)) => desired.fresh.push(sa),
            None => {}
        }
        desired.keep.extend(self.adopted.keys());
        let until = |after| self.ends().map(|end| end + after);
        let (action, lasts) = match self.is_sealed() {
            true => (Action::Require, until(TRIAL_IN)),
            false => (Action::Accept, None),
        };
        // Before the first SA what comes in is clear anyway.
        let keyless = desired.fresh.is_empty() && desired.keep.is_empty();
        let untouched = self.phase == Phase::On && self.left.is_none() && keyless;
        if self.is_sealed() || !untouched {
            desired.policies.extend(policies::inbound(self.pair, action).map(|policy| policy.lasting(lasts)));
        }
        let block = self.is_sealed().then_some(Action::Block);
        let outbound = self.outbound.map(|spi| Action::Seal { spi }).or(block);
        let outbound = outbound.map(|action| policies::outbound(self.pair, action));
        desired.policies.extend(outbound.map(|policy| policy.lasting(until(TRIAL_OUT))));
        desired
    }

    /// Which pair it is.
    pub fn pair(&self) -> Pair {
        self.pair
    }

    /// Whether nothing is left of the pair.
    pub fn is_off(&self) -> bool {
        self.phase == Phase::Off
    }

    /// Whether clear packets are neither sent nor accepted.
    pub fn is_sealed(&self) -> bool {
        matches!(self.seal, Seal::OnTrial | Seal::Final)
    }

    /// Whether it is to be persisted as sealed: for good, and until it has arrived in the clear.
    pub fn is_saved_as_sealed(&self) -> bool {
        matches!(self.seal, Seal::Opened | Seal::Final)
    }

    /// The outbound SA that packets leave through, if they do.
    pub fn sends_through(&self) -> Option<Spi> {
        let carries = |spi| self.child_by_outbound(spi).is_some_and(Child::carries);
        self.confirmed.filter(|spi| self.has_adopted(*spi) || carries(*spi))
    }

    /// Our name of the child that both ends send through.
    pub fn settled_child(&self) -> Option<Spi> {
        self.settled.and_then(|(out_spi, _)| self.child_by_outbound(out_spi)).map(Child::in_spi)
    }

    /// The children whose SAs have another replay window or other limits than these, by our names.
    pub fn outdated(&self, replay_window: u32, limits: Limits) -> Vec<Spi> {
        let fits = |sa: &Sa| (sa.replay_window, sa.limits) == (replay_window, limits);
        let outdated = self.children.iter().filter(|child| child.is_known() && !fits(&child.incoming));
        outdated.map(Child::in_spi).collect()
    }

    /// The child that an SA belongs to, by our name.
    pub fn child_of(&self, id: SaId) -> Option<Spi> {
        let owns = |child: &&Child| [child.incoming.id(), child.outgoing.id()].contains(&id);
        self.children.iter().find(owns).map(Child::in_spi)
    }

    /// Inbound SAs whose soft limits the kernel does not watch, as it reports their first packet instead.
    pub fn unwatched(&self) -> impl Iterator<Item = SaId> {
        self.children.iter().filter(|child| child.reports_first_packet()).map(|child| child.incoming.id())
    }

    /// How the pair stands.
    pub fn row_state(&self) -> RowState {
        self.shown.0
    }

    /// Since when it stands so.
    pub fn since(&self) -> Instant {
        self.shown.1
    }
}

/// Decisions.
impl PairMachine {
    /// Derives everything that follows from the facts.
    fn advance(&mut self, now: Instant) {
        let mut clock = Clock::new(now);
        self.try_out(&mut clock);
        self.leave(&mut clock);
        self.choose_outbound(now);
        self.note_settled(now);
        self.doubt(&mut clock);
        self.seal(&mut clock);
        self.retire(&mut clock);
        self.probe(&mut clock);
        self.speak();
        if let Some((_, retry)) = &self.kernel_error {
            clock.due(*retry);
        }
        self.wake = clock.next;
        let (state, _) = self.judge();
        if self.shown.0 != state {
            self.shown = (state, now);
        }
    }

    /// On the way to protection.
    fn begin(&mut self) {
        self.phase = Phase::On;
        self.left = None;
        self.failure = None;
        self.orders.push_back(Order::Posture(Posture::Active));
        // As after a reboot: for the peer all is well.
        if self.is_sealed() && self.adopted.is_empty() {
            self.orders.push_back(Order::Hurry);
        }
    }

    /// The agent before this one died on the way to the clear that the peer had wished: goes on there. The peer,
    /// which takes no child now, cannot be told; it accepts clear packets, and waits for no answer much longer.
    fn follow(&mut self, now: Instant) {
        self.left = Some(Left::PeerDisabled);
        self.phase = Phase::Opening { since: now };
        self.orders.push_back(Order::Posture(Posture::Passive));
    }

    fn open(&mut self, now: Instant) {
        if self.phase == Phase::On {
            self.phase = Phase::Opening { since: now };
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

    /// Seals the pair, for good unless it is `on_trial`.
    fn close(&mut self, on_trial: bool) {
        match self.seal {
            Seal::Open | Seal::Opened if on_trial => self.seal = Seal::OnTrial,
            Seal::Open | Seal::Opened | Seal::OnTrial if !on_trial => {
                self.seal = Seal::Final;
                self.orders.push_back(Order::Persist);
            }
            _ => {}
        }
    }

    /// The way to the clear: this end sends clear once the peer accepts it, or does not answer.
    fn leave(&mut self, clock: &mut Clock) {
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
                self.trial = Trial { own: self.trial.own, peer: None };
                self.phase = if self.left.is_some() { Phase::On } else { Phase::Off };
                // A peer that disables deletes its sessions itself.
                if self.left != Some(Left::PeerDisabled) {
                    self.orders.push_back(Order::Posture(Posture::Forget));
                }
                if self.left.is_some() {
                    self.orders.push_back(Order::Posture(Posture::Passive));
                }
            }
        }
    }

    /// The newest child that may be used; one that the key exchange has forgotten only if there is no other.
    /// The end with the smaller address leads: the other follows it to the child that it sends through, so
    /// both settle on the same one however messages crossed.
    fn choose_outbound(&mut self, now: Instant) {
        if self.phase != Phase::On {
            return;
        }
        let newest = |wanted: &dyn Fn(&Child) -> bool| {
            self.children.iter().rev().find(|child| child.is_usable() && wanted(child)).map(Child::out_spi)
        };
        let led = if self.pair.initiates() {
            None
        } else {
            newest(&|child| child.peer.sending && child.is_known())
        };
        let choice = led.or_else(|| newest(&Child::is_known)).or_else(|| newest(&|_| true));
        let adopted = self.outbound.filter(|spi| self.has_adopted(*spi));
        // A sealed pair keeps naming an SA that is gone: that blocks. Adopted SAs serve until replaced.
        let choice = choice.or(adopted).or(self.outbound.filter(|_| self.is_sealed()));
        if choice != self.outbound {
            self.outbound = choice;
            self.switched = now;
        }
    }

    fn note_settled(&mut self, now: Instant) {
        let sending = self.outbound.is_some() && self.outbound == self.confirmed;
        let child = self.current().filter(|child| sending && child.carries() && child.peer_sends());
        let spi = child.map(Child::out_spi);
        if self.settled.map(|(spi, _)| spi) != spi {
            self.settled = spi.map(|spi| (spi, now));
            self.used = Use::Unasked;
        }
        if let Some(child) = self.children.iter_mut().find(|child| Some(child.out_spi()) == spi)
            && !child.announced
        {
            child.announced = true;
            self.orders.push_back(Order::Settled { in_spi: child.in_spi() });
        }
    }

    /// Ends that do not settle, or that settled on a child whose IKE SA is gone, may remember different
    /// children, as when a live session was taken for dead: asking shows which sessions the peer still has,
    /// and the others go.
    fn doubt(&mut self, clock: &mut Clock) {
        let settled = self.settled.is_some() && self.current().is_some_and(Child::is_known);
        let askable = self.children.iter().any(Child::is_known);
        if settled || !askable || self.phase != Phase::On {
            self.unsettled_until = None;
            return;
        }
        let until = *self.unsettled_until.get_or_insert(clock.now + UNSETTLED_PATIENCE);
        if clock.due(until) {
            let next = clock.now + UNSETTLED_PATIENCE;
            self.unsettled_until = Some(next);
            clock.due(next);
            self.orders.push_back(Order::CheckLiveness);
        }
    }

    /// The way out of children and adopted SAs that another child has replaced.
    fn retire(&mut self, clock: &mut Clock) {
        let current = self.outbound.and_then(|spi| self.children.iter().position(|c| c.out_spi() == spi));
        let settled = self.settled.map(|(_, at)| at);
        let initiator = current.is_some_and(|at| self.children[at].initiator);
        let moved = clock.due(self.switched + OUT_GRACE);
        for (at, child) in self.children.iter_mut().enumerate() {
            let Some(current) = current else {
                child.retire_closed(clock, None);
                continue;
            };
            child.retire_closed(clock, settled.filter(|_| at != current));
            // Until both ends have settled, an older child may be the one to go back to.
            let Some(settled) = settled.filter(|_| at < current && moved) else {
                continue;
            };
            child.retire_outbound();
            if (initiator || clock.due(settled + DELETE_PATIENCE)) && child.ask_deletion() {
                self.orders.push_back(Order::Delete { in_spi: child.in_spi() });
            }
        }
        self.children.retain(|child| !child.is_over());

        let outbound = self.outbound;
        let settled_out = settled.is_some_and(|at| clock.due(at + IN_GRACE));
        self.adopted.retain(|id, direction| match direction {
            Direction::Out => outbound == Some(id.spi) || !moved || current.is_none(),
            Direction::In => !settled_out,
        });
    }

    fn probe(&mut self, clock: &mut Clock) {
        if self.phase != Phase::On {
            return;
        }
        for child in &mut self.children {
            if let Some(token) = child.probe(clock) {
                self.orders.push_back(Order::Probe { sa: child.outgoing, token });
            }
        }
    }

    /// Tells the peer what it does not know yet. Of children that are on their way out nothing is said.
    fn speak(&mut self) {
        let from = self.outbound.and_then(|spi| self.children.iter().position(|c| c.out_spi() == spi));
        for child in self.children.iter_mut().skip(from.unwrap_or(0)) {
            let sending = self.confirmed == Some(child.out_spi());
            if !child.is_pending()
                && let Some(flags) = child.news(sending, self.opened, self.trial.own)
            {
                self.orders.push_back(Order::Say { in_spi: child.in_spi(), flags });
            }
        }
    }

    /// Whether the peer can be told that the pair goes to the clear, or need not be.
    fn can_tell(&self) -> bool {
        let nothing = self.outbound.is_none() && self.adopted.is_empty();
        nothing || self.counterpart().is_some_and(|child| !child.is_pending())
    }

    /// The child by which both ends can speak: the one in use, or else the newest.
    fn counterpart(&self) -> Option<&Child> {
        let newest = || self.children.iter().rev().find(|child| child.is_known());
        self.current().filter(|child| child.is_known()).or_else(newest)
    }

    /// What the peer said last: of the child in use, or of one that its next agent made since.
    fn last_word(&self) -> Option<Flags> {
        let used = self.outbound.and_then(|spi| self.children.iter().position(|c| c.out_spi() == spi));
        let spoken = self.children.iter().position(|child| Some(child.in_spi()) == self.spoken_of);
        used.max(spoken).map(|at| self.children[at].peer)
    }

    /// Whether the pair is in the clear, or on its way there, because the peer disabled it.
    fn is_peers_wish(&self) -> bool {
        self.left == Some(Left::PeerDisabled)
    }

    /// Whether the peer's kernel may go on sending ESP: it did when the peer spoke last.
    fn peer_may_send(&self) -> bool {
        let child = self.children.iter().find(|child| Some(child.in_spi()) == self.spoken_of);
        child.is_some_and(Child::peer_may_send)
    }

    fn has_adopted(&self, out_spi: Spi) -> bool {
        self.adopted.contains_key(&SaId::of(self.pair, Direction::Out, out_spi))
    }

    fn current(&self) -> Option<&Child> {
        self.outbound.and_then(|spi| self.child_by_outbound(spi))
    }

    fn child_by_outbound(&self, spi: Spi) -> Option<&Child> {
        self.children.iter().find(|child| child.out_spi() == spi)
    }

    fn child_mut(&mut self, in_spi: Spi) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.in_spi() == in_spi)
    }
}
