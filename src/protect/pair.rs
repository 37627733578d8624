//! One pair of addresses on its way from clear to sealed and back.
//!
//! The machine is level-triggered: inputs only record facts, then [`PairMachine::advance`] derives what
//! follows from them. What it wants in the kernel is [`PairMachine::desired`]; what it wants from the key
//! exchange and the network comes out of [`PairMachine::poll_order`].

mod absence;
mod detour;
mod judge;
mod opening;
mod order;
mod pace;
mod place;
mod seal;
mod succession;
mod trial;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use self::absence::Absence;
use self::detour::Detour;
pub use self::order::{IkeOrder, Order};
pub use self::place::{Away, Beside};
use self::seal::Use;
use self::trial::Trials;
use super::child::Child;
use super::clock::Clock;
use super::timing::KERNEL_RETRY;
use crate::types::word::Probe;
use crate::types::{Action, Direction, OpError, Pair, ReasonCode, RowState, Sa, SaId, Spi, Word};

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
    /// Those inbound ones for which the peer may not have proven itself.
    pub unproven: BTreeSet<SaId>,
    /// The SA that the outbound policy names.
    pub outbound: Option<Spi>,
    /// What the inbound policy does, where there is one.
    pub inbound: Option<Action>,
    /// When the trial ends that the policies are part of; `None` where they are there for good.
    pub until: Option<Instant>,
    /// Whether its ESP goes in UDP.
    pub encapsulated: bool,
}

/// What a machine goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// This end initiates by rule. It leads: the other follows it to the child that it sends through.
    pub leads: bool,
    /// May an authenticated peer take the pair to the clear.
    pub allow_peer_disable: bool,
}

/// The machine of one pair.
pub struct PairMachine {
    pair: Pair,
    phase: Phase,
    seal: Seal,
    trial: Trials,
    /// Why the pair is in the clear, or on its way there, while this host is protected.
    left: Option<Left>,
    rules: Rules,
    /// Since when the pair is to go to the clear, while there is no child to tell the peer by.
    leaving: Option<Instant>,
    /// Oldest first.
    children: Vec<Child>,
    /// An inbound SA that is there before the peer has agreed to its child, and whether the kernel has it.
    ahead: Option<(Sa, bool)>,
    /// Adopted inbound SAs for which the peer may not have proven itself.
    unproven: BTreeSet<SaId>,
    /// Inbound SAs of parties that have proven nothing, which the kernel may hold and must not.
    withdrawn: BTreeSet<SaId>,
    /// Our name of the child that the peer spoke of last.
    spoken_of: Option<Spi>,
    /// SAs found in the kernel, of an agent before this one: they serve until a child has taken over.
    adopted: BTreeMap<SaId, Direction>,
    /// When they end, whatever has taken over by then.
    adopted_until: Option<Instant>,
    /// The way around a network that drops ESP by itself.
    detour: Detour,
    /// The outbound SA that the policy should name.
    outbound: Option<Spi>,
    /// The outbound SA that the policy in the kernel names.
    confirmed: Option<Spi>,
    /// The kernel has an inbound policy that accepts clear packets, on the way to the clear.
    opened: bool,
    /// When `outbound` last left what is no child: an SA of `adopted`, or nothing.
    left_adopted: Instant,
    /// When both ends first sent through a child, since SAs were adopted.
    taken_over: Option<Instant>,
    /// The outbound SA of the child that both ends send through, and since when.
    settled: Option<(Spi, Instant)>,
    /// The child whose SAs have carried as much as they should, to be replaced when the pace allows.
    worn: Option<Spi>,
    /// When the newest child was agreed.
    agreed: Option<Instant>,
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
    /// Why the pair is impossible, where an end of it floats.
    away: Option<Away>,
    /// Why the last attempt at keys failed.
    failure: Option<Reason>,
    /// Since when all attempts have failed.
    failing_since: Option<Instant>,
    /// The peer's file does not list this host any more.
    removed: bool,
    /// Whether the peer is there at all.
    absence: Absence,
    /// What `status` shows, and since when.
    shown: (RowState, Instant),
    wake: Option<Instant>,
    orders: VecDeque<Order>,
}

/// Inputs.
impl PairMachine {
    /// A pair in the clear. `sealed` is what was persisted: such a pair starts blocked.
    pub fn new(pair: Pair, rules: Rules, sealed: bool, now: Instant) -> Self {
        Self {
            pair,
            phase: Phase::Off,
            seal: if sealed { Seal::Final } else { Seal::Open },
            trial: Trials::default(),
            left: None,
            rules,
            leaving: None,
            children: Vec::new(),
            ahead: None,
            unproven: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
            spoken_of: None,
            adopted: BTreeMap::new(),
            adopted_until: None,
            detour: Detour::default(),
            outbound: None,
            confirmed: None,
            opened: false,
            left_adopted: now,
            taken_over: None,
            worn: None,
            agreed: None,
            settled: None,
            written: None,
            used: Use::Unasked,
            unsettled_until: None,
            kernel_error: None,
            present: true,
            away: None,
            failure: None,
            failing_since: None,
            removed: false,
            absence: Absence::default(),
            shown: (RowState::Off, now),
            wake: None,
            orders: VecDeque::new(),
        }
    }

    /// Takes over what an agent before this one left in the kernel. Its inbound policy is written before
    /// anything is persisted, so where there is one it knows better than the file.
    pub fn adopt(&mut self, found: Adopted) {
        let Adopted { sas, unproven, outbound, inbound, until, encapsulated } = found;
        self.detour.found = encapsulated;
        self.adopted = sas;
        self.taken_over = None;
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
        self.unproven = unproven;
        // The agent died after it had saved that the pair is sealed, before they went. Where nothing can be sent, one may be
        // all that is left of a child: that child has no use any more.
        if self.is_sealed() {
            self.withdraw_unproven();
        }
        if self.away.is_some() {
            self.let_go();
        }
    }

    /// What was adopted ends then, or, if `None`, with its keys: what they rest on is worth nothing any more.
    pub fn end_adopted(&mut self, now: Instant, at: Option<Instant>) {
        self.adopted_until = at;
        self.advance(now);
    }

    /// Protects the pair, or goes on doing so. `strict` seals it at once: until it is keyed, nothing passes.
    /// `trial` is when this host goes back to the clear, unless that is confirmed.
    pub fn enable(&mut self, now: Instant, strict: bool, trial: Option<Instant>) {
        self.leaving = None;
        self.await_peer(now);
        match (self.phase, self.left) {
            (Phase::Off, _) if self.seal == Seal::Opened => self.follow(now),
            (Phase::Off, _) => self.begin(),
            (Phase::On, None) => {}
            // The peer may want it again by now, and need not be the first to say so.
            (Phase::On, Some(_)) => self.orders.push_back(Order::Ike(IkeOrder::Active)),
            (Phase::Opening { .. } | Phase::Cleared { .. }, None) => self.begin_anew(),
            (Phase::Opening { .. } | Phase::Cleared { .. }, Some(_)) => {}
        }
        self.trial.own = trial;
        if strict {
            self.close(trial.is_some());
        }
        self.advance(now);
    }

    /// Other rules from now on.
    pub fn go_by(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// A peer that says no words may soon send through this SA. `false` when the pair wants none: the peer has proven
    /// nothing yet, so a sealed one never does.
    #[must_use]
    pub fn handle_inbound_ahead(&mut self, now: Instant, sa: Sa) -> bool {
        let wanted = self.takes_clear() && self.away.is_none();
        if wanted {
            self.withdraw_ahead();
            self.ahead = Some((sa, false));
            self.advance(now);
        }
        wanted
    }

    /// Whether the inbound SA of a child is there ahead of it.
    pub fn is_ahead(&self, in_spi: Spi) -> bool {
        let ahead = self.ahead.is_some_and(|(sa, installed)| installed && sa.spi == in_spi);
        ahead || self.withdrawn.contains(&SaId::of(self.pair, Direction::In, in_spi))
    }

    /// Two SAs were agreed; the kernel gets them with the next [`PairMachine::desired`]. `false` when the
    /// pair holds too many already or wants none: the child must then be refused.
    #[must_use]
    pub fn handle_child(&mut self, now: Instant, child: Child) -> bool {
        // Whose it is has proven itself.
        self.ahead.take_if(|(sa, _)| sa.spi == child.in_spi());
        if self.phase == Phase::Off || self.away.is_some() || !self.has_room() {
            return false;
        }
        self.withdrawn.remove(&child.incoming.id());
        if self.left.take().is_some() {
            // The peer thought better of it, or its next agent begins anew: what it said before is void.
            self.phase = Phase::On;
            self.trial.peer = None;
            self.children.iter_mut().for_each(Child::forget_peer);
            self.orders.push_back(Order::Ike(IkeOrder::Active));
        }
        if let Phase::Cleared { since } = &mut self.phase {
            // The peer has begun anew, and is to be told that this end goes to the clear.
            *since = now;
        }
        (self.failure, self.failing_since, self.removed) = (None, None, false);
        self.absence.note_proof(now);
        // Most have one, and there are thousands of pairs.
        self.children.reserve_exact(1);
        self.children.push(child);
        self.agreed = Some(now);
        self.advance(now);
        true
    }

    /// The peer told what it has done for a child; that had `waited` to be read.
    pub fn handle_word(&mut self, now: Instant, in_spi: Spi, word: &Word, waited: Duration) {
        let was_sending = self.peer_may_send();
        if let Some(child) = self.child_mut(in_spi) {
            child.hear(now, word, waited);
            self.spoken_of = Some(in_spi);
            self.absence.note_proof(now);
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
                (Phase::On, _)
                    if peer.open && (self.rules.allow_peer_disable || self.trial_end().is_some()) =>
                {
                    self.left = Some(Left::PeerDisabled);
                    self.open(now);
                }
                // The peer changed its mind, or was heard late, before anything went clear.
                (Phase::Opening { .. }, Some(left))
                    if !peer.open && (left == Left::PeerDisabled || peer.trial.is_none()) =>
                {
                    self.left = None;
                    self.phase = Phase::On;
                    self.orders.push_back(Order::Ike(IkeOrder::Active));
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
    pub fn handle_probe(&mut self, now: Instant, probe: &Probe, waited: Duration) -> Option<SaId> {
        // Only the peer knows it: nobody learns from how long this takes how much of a guess was right.
        let mut children = self.children.iter_mut();
        let child = children.find(|child| bool::from(child.my_token.ct_eq(&probe.token)))?;
        child.meet_probe(now, probe, waited);
        let id = child.incoming.id();
        self.advance(now);
        Some(id)
    }

    /// A probe left through this outbound SA, which an [`Order::Probe`] asked for: not before what came in at the same
    /// time has been seen to, so the order says nothing of when.
    pub fn handle_probe_sent(&mut self, now: Instant, id: SaId) {
        if let Some(child) = self.children.iter_mut().find(|child| child.outgoing.id() == id) {
            child.proof.note_sent(now);
        }
    }

    /// A probe did not leave, as there was no room for it on this host.
    pub fn handle_probe_unsent(&mut self, id: SaId) {
        if let Some(child) = self.children.iter_mut().find(|child| child.outgoing.id() == id) {
            child.proof.note_unsent();
        }
    }

    /// What was sent of late does not seem to arrive, or nothing comes back: proves the child that both ends
    /// send through once more. `false` where that is under way or cannot be.
    pub fn prove_anew(&mut self, now: Instant) -> bool {
        let settled = self.settled_child();
        let began = settled.and_then(|in_spi| self.child_mut(in_spi)).is_some_and(Child::prove_anew);
        self.advance(now);
        began
    }

    /// The key exchange is deleting a child, with its IKE SA.
    pub fn handle_doomed(&mut self, now: Instant, in_spi: Spi) {
        if let Some(child) = self.child_mut(in_spi) {
            child.doom();
        }
        self.advance(now);
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
        self.failing_since.get_or_insert(now);
        self.advance(now);
    }

    /// The peer says that its file does not list this host any more.
    pub fn handle_removed(&mut self, now: Instant) {
        self.removed = true;
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
        self.withdrawn.clear();
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
        self.replace_worn(&mut clock);
        self.probe(&mut clock);
        self.evade(&mut clock);
        self.speak();
        if let Some((_, retry)) = &self.kernel_error {
            clock.due(*retry);
        }
        self.note_absence(&mut clock);
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
        (self.failure, self.failing_since) = (None, None);
        if self.away.is_some() {
            return;
        }
        self.orders.push_back(Order::Ike(IkeOrder::Active));
        self.go_on_in_udp();
        // As after a reboot: for the peer all is well.
        if self.is_sealed() && self.adopted.is_empty() {
            self.orders.push_back(Order::Hurry);
        }
    }

    fn probe(&mut self, clock: &mut Clock) {
        if self.phase != Phase::On {
            return;
        }
        for child in &mut self.children {
            if let Some(probe) = child.probe(clock) {
                self.orders.push_back(Order::Probe { sa: child.outgoing, probe });
            }
        }
    }

    /// Tells the peer what it does not know yet. Of children that are on their way out nothing is said but that this
    /// end no longer sends through them: the one that it sends through may be of a session that does not get through.
    fn speak(&mut self) {
        let from = self.outbound.and_then(|spi| self.children.iter().position(|c| c.out_spi() == spi));
        for (at, child) in self.children.iter_mut().enumerate() {
            let sending = self.confirmed == Some(child.out_spi());
            let leaves = from.is_some_and(|from| at < from);
            if !child.is_pending()
                && (!leaves || child.is_said_to_send())
                && let Some(flags) = child.news(sending, self.opened, self.trial.own)
            {
                self.orders.push_back(Order::Say { in_spi: child.in_spi(), flags });
            }
        }
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
