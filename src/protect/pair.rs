//! One pair of addresses on its way from clear to sealed and back.
//!
//! The machine is level-triggered: inputs only record facts, then [`PairMachine::advance`] derives what
//! follows from them. What it wants in the kernel is [`PairMachine::desired`]; what it wants from the key
//! exchange and the network comes out of [`PairMachine::poll_order`].
//!
//! It is made of parts. Each is a file with private fields: it alone changes what it knows, by few verbs, and knows
//! nothing of the others. The machine tells one what another has come to.
//! ```text
//! Way        off, on, on the way to the clear, and who turned it back
//! Sealing    whether clear packets pass, and whether some still come
//! Trials     when protection that is tried out ends
//! Children   the children: their reports, their succession, their end
//! Unproven   inbound SAs of parties that have proven nothing
//! Inherited  SAs of the agent before, or from before this host was disabled
//! Outbound   the SAs that packets leave through: chosen, in the kernel, common to both ends
//! Detour     whether ESP goes in UDP
//! Place      whether this host has the addresses
//! Failing    what went wrong
//! Parting    whether this host is to have nothing to do with the peer any more
//! Absence    whether the peer is there at all
//! ```

mod absence;
mod children;
mod cut;
mod detour;
mod failing;
mod inherited;
mod judge;
mod opening;
mod order;
mod outbound;
mod parting;
mod place;
mod seal;
mod succession;
mod trial;
mod unproven;
mod view;
mod way;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use self::absence::Absence;
use self::children::Children;
use self::detour::Detour;
use self::failing::Failing;
use self::inherited::Inherited;
pub use self::order::{IkeOrder, Order};
use self::outbound::Outbound;
use self::parting::Parting;
use self::place::Place;
pub use self::place::{Away, Beside};
use self::seal::Sealing;
use self::trial::Trials;
use self::unproven::Unproven;
use self::way::{Left, Phase, Way};
use super::child::Child;
use super::clock::Clock;
use super::reason::Unwritten;
use super::report::{Flags, Probe, Report};
use crate::types::{Action, Direction, OpError, Pair, ReasonCode, Reqid, RowState, Sa, SaId, Spi, Through};

/// What an agent before this one left of a pair in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adopted {
    /// Its SAs. They keep serving.
    pub sas: BTreeMap<SaId, AdoptedSa>,
    /// The inbound SAs for which the peer may not have proven itself.
    pub unproven: BTreeSet<SaId>,
    /// The SAs that the outbound policy names.
    pub outbound: Option<Through>,
    /// What the inbound policy does, where there is one.
    pub inbound: Option<Action>,
    /// When the trial ends that the policies are part of; `None` where they are there for good.
    pub until: Option<Instant>,
    /// Whether its ESP goes in UDP.
    pub encapsulated: bool,
}

/// One SA that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdoptedSa {
    /// Which way its packets flow.
    pub direction: Direction,
    /// The set that it belongs to.
    pub reqid: Reqid,
}

impl AdoptedSa {
    /// What is left of an SA when nobody knows more of it.
    pub fn of(sa: &Sa) -> Self {
        Self { direction: sa.direction, reqid: sa.reqid }
    }

    /// Whether packets that go `through` some SAs of the pair can leave by this one.
    fn sends(self, id: SaId, through: Through) -> bool {
        self.direction == Direction::Out && through.names(id.spi, self.reqid)
    }
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
    rules: Rules,
    way: Way,
    sealing: Sealing,
    trials: Trials,
    children: Children,
    unproven: Unproven,
    inherited: Inherited,
    outbound: Outbound,
    detour: Detour,
    place: Place,
    failing: Failing,
    parting: Parting,
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
            rules,
            way: Way::new(),
            sealing: Sealing::new(sealed),
            trials: Trials::default(),
            children: Children::default(),
            unproven: Unproven::default(),
            inherited: Inherited::new(now),
            outbound: Outbound::default(),
            detour: Detour::default(),
            place: Place::new(),
            failing: Failing::default(),
            parting: Parting::default(),
            absence: Absence::default(),
            shown: (RowState::Off, now),
            wake: None,
            orders: VecDeque::new(),
        }
    }

    /// Takes over what an agent before this one left in the kernel.
    pub fn adopt(&mut self, found: Adopted) {
        let Adopted { sas, unproven, outbound, inbound, until, encapsulated } = found;
        self.detour.adopt(encapsulated);
        self.inherited.take_in(sas);
        self.outbound.adopt(outbound);
        self.sealing.adopt(inbound, until.is_some());
        self.trials.hear(until);
        self.unproven.adopt(unproven);
        // The agent died after it had saved that the pair is sealed, before they went. Where nothing can be sent, one may be
        // all that is left of a child: that child has no use any more.
        if self.is_sealed() {
            self.withdraw_unproven();
        }
        if self.place.is_away() {
            self.let_go();
        }
    }

    /// What was adopted ends then, or, if `None`, with its keys: what they rest on is worth nothing any more.
    pub fn end_adopted(&mut self, now: Instant, at: Option<Instant>) {
        self.inherited.end_at(at);
        self.advance(now);
    }

    /// Protects the pair, or goes on doing so. `strict` seals it at once: until it is keyed, nothing passes.
    /// `trial` is when this host goes back to the clear, unless that is confirmed.
    pub fn enable(&mut self, now: Instant, strict: bool, trial: Option<Instant>) {
        self.way.stop_waiting();
        self.parting.end();
        self.await_peer(now);
        match (self.way.phase(), self.way.left()) {
            (Phase::Off, _) if self.sealing.is_opened() => self.follow(now),
            (Phase::Off, _) => self.begin(),
            (Phase::On, None) => {}
            // The peer may want it again by now, and need not be the first to say so.
            (Phase::On, Some(_)) => self.orders.push_back(Order::Ike(IkeOrder::Active)),
            (Phase::Opening { .. } | Phase::Cleared { .. }, None) => self.begin_anew(),
            (Phase::Opening { .. } | Phase::Cleared { .. }, Some(_)) => {}
        }
        self.trials.begin(trial);
        if strict {
            self.close(trial.is_some());
        }
        self.advance(now);
    }

    /// Other rules from now on.
    pub fn go_by(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// A peer that sends no reports may soon send through this SA. `false` when the pair wants none: the peer has proven
    /// nothing yet, so a sealed one never does.
    #[must_use]
    pub fn handle_inbound_ahead(&mut self, now: Instant, sa: Sa) -> bool {
        let wanted = self.takes_clear() && !self.place.is_away();
        if wanted {
            self.unproven.expect(sa);
            self.advance(now);
        }
        wanted
    }

    /// Whether the inbound SA of a child is there ahead of it.
    pub fn is_ahead(&self, in_spi: Spi) -> bool {
        self.unproven.holds(SaId::of(self.pair, Direction::In, in_spi))
    }

    /// A child was agreed; the kernel gets them with the next [`PairMachine::desired`]. `false` when the
    /// pair holds too many already or wants none: the child must then be refused.
    #[must_use]
    pub fn handle_child(&mut self, now: Instant, child: Child) -> bool {
        // Its peer has proven itself.
        self.unproven.settle(child.in_spi());
        if self.way.is_off() || self.place.is_away() || !self.children.make_room() {
            return false;
        }
        self.unproven.pass_on(child.incoming().ids());
        if self.way.turn_back() {
            // The peer thought better of it, or its next agent begins anew: what it said before is void.
            self.trials.forget_peer();
            self.children.iter_mut().for_each(Child::forget_peer);
            self.orders.push_back(Order::Ike(IkeOrder::Active));
        }
        // The peer has begun anew, and is to be told that this end goes to the clear.
        self.way.prolong(now);
        self.failing.note_success();
        self.absence.note_proof(now);
        self.children.add(now, child);
        self.advance(now);
        true
    }

    /// The peer told what it has done for a child; that had `waited` to be read.
    pub fn handle_report(&mut self, now: Instant, in_spi: Spi, report: &Report, waited: Duration) {
        let was_sending = self.children.peer_may_send();
        if !self.children.hear(now, in_spi, report, waited) {
            return;
        }
        self.absence.note_proof(now);
        if was_sending && !self.children.peer_may_send() {
            // The last packet that came as ESP was sent just now.
            self.way.prolong(now);
        }
        if let Some(peer) = self.children.last_word(self.outbound.named()) {
            self.heed(now, peer);
        }
        self.advance(now);
    }

    /// The peer opens the pair, or does not any more.
    fn heed(&mut self, now: Instant, peer: Flags) {
        let may_open = self.rules.allow_peer_disable || self.trial_end().is_some();
        match (self.way.phase(), self.way.left()) {
            (Phase::On, _) if peer.open && may_open => self.open(now, Some(Left::PeerDisabled)),
            // The peer changed its mind, or was heard late, before anything went clear.
            (Phase::Opening { .. }, Some(left))
                if !peer.open && (left == Left::PeerDisabled || peer.trial.is_none()) =>
            {
                self.way.turn_back();
                self.orders.push_back(Order::Ike(IkeOrder::Active));
            }
            _ => {}
        }
    }

    /// A foreign peer is known to have installed a child.
    pub fn handle_foreign_ready(&mut self, now: Instant, in_spi: Spi) {
        if let Some(child) = self.children.get_mut(in_spi) {
            child.note_foreign_ready();
        }
        self.advance(now);
    }

    /// The kernel has seen the first packet on an SA. `false` where that means nothing.
    pub fn handle_first_packet(&mut self, now: Instant, id: SaId) -> bool {
        let child = self.children.iter_mut().find(|child| child.incoming().has(id));
        let Some(child) = child.filter(|child| child.reports_first_packet()) else {
            return false;
        };
        child.note_foreign_ready();
        self.advance(now);
        true
    }

    /// A probe came in, and had `waited` to be read. Returns the inbound SA that it came through, if its token
    /// is one of ours.
    pub fn handle_probe(&mut self, now: Instant, probe: &Probe, waited: Duration) -> Option<SaId> {
        let child = self.children.iter_mut().find(|child| child.is_meant_by(&probe.token))?;
        child.meet_probe(now, probe, waited);
        let id = child.incoming().lead().id();
        self.advance(now);
        Some(id)
    }

    /// A probe left through this outbound SA, which an [`Order::Probe`] asked for: not before what came in at the same
    /// time has been seen to, so the order says nothing of when.
    pub fn handle_probe_sent(&mut self, now: Instant, id: SaId) {
        if let Some(child) = self.children.iter_mut().find(|child| child.outgoing().has(id)) {
            child.note_probe_sent(now);
        }
    }

    /// A probe did not leave, as there was no room for it on this host.
    pub fn handle_probe_unsent(&mut self, id: SaId) {
        if let Some(child) = self.children.iter_mut().find(|child| child.outgoing().has(id)) {
            child.note_probe_unsent();
        }
    }

    /// What was sent lately does not seem to arrive, or nothing comes back: proves the child that both ends
    /// send through once more. `false` where that is under way or cannot be.
    pub fn prove_anew(&mut self, now: Instant) -> bool {
        let settled = self.settled_child();
        let began = settled.and_then(|in_spi| self.children.get_mut(in_spi)).is_some_and(Child::prove_anew);
        self.advance(now);
        began
    }

    /// The key exchange is deleting a child, with its IKE SA.
    pub fn handle_doomed(&mut self, now: Instant, in_spi: Spi) {
        if let Some(child) = self.children.get_mut(in_spi) {
            child.doom();
        }
        self.advance(now);
    }

    /// The key exchange does not know a child any more.
    pub fn handle_closed(&mut self, now: Instant, in_spi: Spi, void: bool) {
        self.unproven.settle(in_spi);
        if let Some(child) = self.children.get_mut(in_spi) {
            child.close(now, void);
        }
        self.advance(now);
    }

    /// An attempt at keys failed.
    pub fn handle_failure(&mut self, now: Instant, code: ReasonCode) {
        self.failing.note(now, code);
        self.advance(now);
    }

    /// The peer says that its file does not list this host any more.
    pub fn handle_removed(&mut self, now: Instant) {
        self.failing.note_removed();
        self.advance(now);
    }

    /// What was desired has been tried. `refused` holds the SAs that the kernel did not take, `policies` says why one
    /// is not there.
    pub fn handle_applied(
        &mut self,
        now: Instant,
        refused: &BTreeMap<SaId, OpError>,
        policies: Option<Unwritten>,
    ) {
        self.unproven.note_applied(refused);
        for child in self.children.iter_mut().filter(|child| child.is_pending()) {
            let error = child.note_applied(refused);
            if let Some(error) = error {
                self.failing.note_refused(error);
            }
            self.orders.push_back(Order::Installed { in_spi: child.in_spi(), ok: error.is_none() });
        }
        self.children.drop_refused();
        if policies.is_none() {
            self.outbound.note_applied();
            self.way.note_applied();
        }
        self.failing.note_policies(now, policies);
        self.advance(now);
    }

    /// The kernel was read: `present` says which SAs it holds. One that should be there and is not was
    /// taken away by a stranger or by its hard limit.
    pub fn handle_reading(&mut self, now: Instant, present: impl Fn(SaId) -> bool) {
        for child in self.children.iter_mut() {
            if child.note_missing(&present) && self.way.is_on() {
                self.orders.push_back(Order::Rekey { in_spi: child.in_spi() });
            }
        }
        self.inherited.take_away(|id| !present(id));
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
        self.speak(&mut clock);
        self.failing.retry(&mut clock);
        self.note_absence(&mut clock);
        self.wake = clock.next;
        let (state, _) = self.judge();
        if self.shown.0 != state {
            self.shown = (state, now);
        }
    }

    /// On the way to protection.
    fn begin(&mut self) {
        self.way.begin();
        self.failing.forget_attempts();
        if self.place.is_away() {
            return;
        }
        self.orders.push_back(Order::Ike(IkeOrder::Active));
        self.go_on_in_udp();
        // As after a reboot: for the peer all is well.
        if self.is_sealed() && self.inherited.is_empty() {
            self.orders.push_back(Order::Hurry);
        }
    }

    fn probe(&mut self, clock: &mut Clock) {
        if !self.way.is_on() {
            return;
        }
        for child in self.children.iter_mut() {
            if let Some(probe) = child.probe(clock) {
                self.orders.push_back(Order::Probe { sa: *child.outgoing().lead(), probe });
            }
        }
    }

    fn speak(&mut self, clock: &mut Clock) {
        let through = [self.outbound.named(), self.outbound.confirmed()];
        self.children.speak(clock, through, self.way.has_opened(), self.trials.own(), &mut self.orders);
    }
}
