//! What the key exchange has to say reaches the pairs, and what the pairs order is carried out, until nothing moves
//! any more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::{Cause, Core, Persist, ProbeDatagram};
use crate::host::kernel::{Kernel, Vault};
use crate::host::probe;
use crate::ike::{self, Event, Topic};
use crate::observe::explain;
use crate::protect::report::Report;
use crate::protect::{Child, IkeOrder, Order, PairMachine};
use crate::types::{Direction, NewChild, NewInbound, Pair, ReasonCode, Reqid, RowState, Sa, SaId, Spi};

impl Core {
    /// Drains the deciders and the kernel until nothing moves any more.
    pub(super) fn settle(&mut self, now: Instant, kernel: &mut dyn Kernel) {
        self.note_silent(now);
        loop {
            self.drain_events(now);
            if !self.dirty.is_empty() || !self.moved.is_empty() {
                self.apply(now, kernel);
            } else if !self.touched.is_empty() {
                self.carry_out_orders(now);
            } else if !self.asking.is_empty() {
                self.read_use(now, kernel);
            } else if !self.let_go(now) {
                // The kernel has had its say: no key is waited for any more, whatever became of its SA.
                self.vault = Vault::default();
                self.tell_news();
                return;
            }
        }
    }

    pub(super) fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            self.handle_event(now, event);
        }
    }

    fn handle_event(&mut self, now: Instant, event: Event) {
        match event {
            Event::ChildAgreed { child, token, told, .. } => self.handle_child(now, *child, token, told),
            Event::InboundAhead(inbound) => self.handle_inbound_ahead(now, *inbound),
            Event::Told { pair, topic: Topic::Child(in_spi), octets } => {
                self.handle_report(now, pair, in_spi, &octets);
            }
            Event::Told { pair, topic: Topic::Session, octets } => self.handle_told(now, pair, &octets),
            Event::Told { pair, topic: Topic::Question | Topic::Answer, octets } => {
                self.note_inquiry(pair, octets)
            }
            Event::Told { pair, topic: Topic::Control, octets } => {
                self.with_membership(|members, engine| members.handle_told(now, engine, pair, &octets));
            }
            Event::Control { pair, purpose: ike::Purpose::Control, event } => {
                self.with_membership(|members, engine| members.handle_control(now, engine, pair, event));
            }
            Event::Told { pair, topic: Topic::Join, octets } => {
                self.with_membership(|members, engine| members.handle_join_told(now, engine, pair, &octets));
            }
            Event::Control { pair, event, .. } => {
                self.with_membership(|members, engine| members.handle_join(now, engine, pair, event));
            }
            Event::ForeignReady { pair, in_spi } => {
                self.with_pair(pair, |machine| machine.handle_foreign_ready(now, in_spi));
            }
            Event::ChildDoomed { pair, in_spi } => {
                self.with_pair(pair, |machine| machine.handle_doomed(now, in_spi));
            }
            Event::ChildClosed { pair, in_spi, void } => {
                self.with_pair(pair, |machine| machine.handle_closed(now, in_spi, void));
                if void {
                    self.explain_farewell(now, pair);
                }
            }
            Event::Failed { pair, failure, hint } => self.handle_failed(now, pair, failure, hint),
        }
    }

    /// What anybody can say changes nothing of a pair that is protected. Nobody fills the log.
    fn handle_failed(&mut self, now: Instant, pair: Pair, failure: ike::Failure, hint: bool) {
        let silent = failure.code() == ike::FailureCode::NoAnswer;
        let unsent = self.take_unsent(pair).filter(|_| silent);
        let (kind, hearsay) = (explain::kind(failure.code()), failure.hearsay);
        let cause = unsent.map(Cause::Unsent).or_else(|| self.cause_of_farewell(pair).filter(|_| silent));
        let cause = cause.unwrap_or(Cause::Exchange(failure.reason));
        let (code, words) = (cause.code(), self.words(pair, &cause));
        let heeded = |machine: &PairMachine| !hint || machine.row_state() != RowState::Protected;
        let heeded = self.pairs.get(pair).is_some_and(heeded);
        let is_news = !heeded || self.fail(now, pair, cause);
        if !hearsay && code == ReasonCode::NoAnswer {
            // Hosts that do not answer have one line together.
            self.absent.note(now, pair, true);
            return;
        }
        // A member that has proven who it is can fail as often as it likes, too.
        let said = match hearsay {
            true => self.hearsay.note(now, kind),
            false => self.failures.note(now, (pair, kind)),
        };
        match said {
            Some(0) if is_news => self.line(pair).warn(&words),
            Some(0) | None => {}
            Some(others) => {
                self.line(pair).warn(&format!("{words} (and {others} more like it since the last)"));
            }
        }
    }

    /// Keys of a pair could not be agreed. `true` where that is news which the log does not have yet: it tells what
    /// becomes of a pair, and why.
    pub(super) fn fail(&mut self, now: Instant, pair: Pair, cause: Cause) -> bool {
        let Some(machine) = self.pairs.get(pair) else { return true };
        let (was, code) = (machine.row_state(), cause.code());
        let known = machine.has_failed_for(code) && self.causes.get(&pair) == Some(&cause);
        self.causes.insert(pair, cause);
        self.with_pair(pair, |machine| machine.handle_failure(now, code));
        !known && self.pairs.get(pair).is_some_and(|machine| machine.row_state() == was)
    }

    /// Says how many failures were left out that nothing was said of since.
    pub(super) fn tell_left_out(&mut self, now: Instant) {
        for (kind, others) in self.hearsay.due(now) {
            tracing::warn!("{others} more failures of kind {kind} by peers that have proven nothing");
        }
        for ((pair, kind), others) in self.failures.due(now) {
            self.line(pair).warn(&format!("{others} more failures of kind {kind}"));
        }
        self.tell_left_out_refusals(now);
    }

    /// The peer has told something of a child. What cannot be read says nothing.
    fn handle_report(&mut self, now: Instant, pair: Pair, in_spi: Spi, octets: &[u8]) {
        let waited = self.waited;
        if let Some(report) = Report::from_octets(octets, now) {
            self.with_pair(pair, |machine| machine.handle_report(now, in_spi, &report, waited));
        }
    }

    fn handle_child(&mut self, now: Instant, new: NewChild, token: [u8; 16], told: Option<Vec<u8>>) {
        let (pair, in_spi) = (new.pair, new.in_spi);
        let report = told.and_then(|octets| Report::from_octets(&octets, now));
        self.absent.note(now, pair, false);
        let child =
            Child::new(&new, token, report.as_ref(), self.scheme.replay_window, self.scheme.limits_of(pair));
        // A key lives once: the key of an SA that is there already is not used again.
        let ahead = self.pairs.get(pair).is_some_and(|machine| machine.is_ahead(in_spi));
        let inbound = (!ahead).then(|| (SaId::of(pair, Direction::In, in_spi), new.in_key));
        let outbound = (SaId::of(pair, Direction::Out, new.out_spi), new.out_key);
        if self.with_pair(pair, |machine| machine.handle_child(now, child)) == Some(true) {
            inbound.into_iter().chain([outbound]).for_each(|(id, key)| self.vault.put(id, key));
        } else {
            self.engine.child_installed(now, pair, in_spi, false);
        }
    }

    fn handle_inbound_ahead(&mut self, now: Instant, new: NewInbound) {
        let NewInbound { pair, spi, suite, encapsulation, key } = new;
        let (replay_window, limits) = (self.scheme.replay_window, self.scheme.limits_of(pair));
        let direction = Direction::In;
        let reqid = Reqid::COMMON;
        let sa = Sa { pair, direction, spi, reqid, suite, encapsulation, replay_window, limits };
        if self.with_pair(pair, |machine| machine.handle_inbound_ahead(now, sa)) == Some(true) {
            self.vault.put(sa.id(), key);
        }
    }

    fn carry_out_orders(&mut self, now: Instant) {
        while let Some(pair) = self.touched.pop_first() {
            let Some(machine) = self.pairs.get_mut(pair) else {
                continue;
            };
            let orders: Vec<Order> = std::iter::from_fn(|| machine.poll_order()).collect();
            self.timers.set(pair, machine.poll_timeout());
            for order in orders {
                self.carry_out(now, pair, order);
            }
        }
    }

    fn carry_out(&mut self, now: Instant, pair: Pair, order: Order) {
        let withheld = self.withheld(pair).is_some();
        let engine = &mut self.engine;
        let missed = || self.pairs.get(pair).is_some_and(PairMachine::is_sealed);
        match order {
            // The pairs kept by then get it again when the secret is back.
            Order::Ike(IkeOrder::Active | IkeOrder::Passive | IkeOrder::Arrive) if withheld => {}
            Order::Ike(IkeOrder::Active) => engine.keep(now, pair, ike::Posture::Active),
            Order::Ike(IkeOrder::Passive) => engine.keep(now, pair, ike::Posture::Passive),
            Order::Ike(IkeOrder::Forget) => engine.forget(now, pair),
            Order::BeginAnew => engine.begin_anew(now, pair),
            Order::Ike(IkeOrder::Abandon) => engine.abandon(now, pair),
            Order::Ike(IkeOrder::Arrive) => engine.arrive(now, pair, missed()),
            Order::Hurry => engine.hurry(now, pair, missed()),
            Order::Installed { in_spi, ok } => engine.child_installed(now, pair, in_spi, ok),
            Order::Tell { in_spi, report, waits } => {
                engine.hold(now, pair, in_spi, waits);
                engine.tell(now, pair, Topic::Child(in_spi), Arc::new(move |at| report.to_octets(at)));
            }
            Order::Rekey { in_spi } => engine.rekey_child(now, pair, in_spi),
            Order::Delete { in_spi } => engine.delete_child(now, pair, in_spi),
            Order::CheckLiveness => engine.check_liveness(now, pair),
            Order::Encapsulate => {
                if engine.encapsulate(now, pair) {
                    self.with_pair(pair, |machine| machine.handle_detour(now));
                }
            }
            Order::Settled { in_spi } => {
                engine.settled(now, pair, in_spi);
                let proven = engine.proven(now, pair, in_spi);
                let is_news = proven.is_some() && proven.as_ref() != self.proven.get(&pair);
                self.proven.extend(proven.map(|proven| (pair, proven)));
                self.persist(if is_news { Persist::Seals } else { Persist::Figures });
                self.line(pair).debug("both ends use new keys");
            }
            Order::Probe { sa, probe } => {
                // The port of reports, too: they and probes are read in the order in which they came, which proves
                // something. IKE moves to the other port with ESP.
                let port = if sa.encapsulation.is_some() { self.scheme.nat_port } else { self.scheme.port };
                let remote = SocketAddr::new(pair.remote, port);
                self.probes.push_back(ProbeDatagram {
                    sa,
                    local: pair.local,
                    remote,
                    bytes: probe::encode(probe).to_vec(),
                    size: None,
                });
            }
            Order::ReadUse => drop(self.asking.insert(pair)),
            Order::Persist => self.persist(Persist::Seals),
        }
    }
}
