//! A session with a proven peer: its IKE SAs, its children, what it is to do next.
//!
//! A rekey of the IKE SA adds one to the session; the children belong to the session and never move. What
//! the exchanges do is in `create_child`, `rekey_ike` and `inform`, what becomes of a child in `children`; here is what
//! they share.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::agenda::Agenda;
use super::children::ChildSas;
use super::exchange::{Arrival, Retransmission};
use super::ike_sa::{IkeSa, Stage};
use super::ike_sas::IkeSas;
use super::life::Greeted;
use super::nat::keepalive;
use super::pending::{Asked, HeldRequest, Task};
use super::telling::Telling;
use crate::identity::certificate::CertificateError;
use crate::ike::auth::Verified;
use crate::ike::auth::basis::Basis;
use crate::ike::control::Purpose;
use crate::ike::limits::{
    BACKOFF_FIRST, COPIES_UNANSWERED, KEEPALIVE_EVERY, RETRANSMIT_CONTROL, TRIES_CONTROL, TRIES_ESTABLISHED,
};
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::path::Path;
use crate::ike::reason::{Declined, Misbehaved, Reason};
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Message, Parts, Payload};
use crate::ike::{Settings, Topic};
use crate::types::{EncapsulationMode, Pair, Spi};

/// What is known of a peer when it has proven itself.
pub struct Introduction {
    /// Between which addresses.
    pub path: Path,
    /// When the first message of the session was sent or came.
    pub begun: Instant,
    /// The peer is not hostseal.
    pub foreign: bool,
    /// What the peer said inside its proven IKE_AUTH of what it remembers.
    pub greeted: Greeted,
    /// What both proofs were made with.
    pub basis: Basis,
}

/// A session with a proven peer.
pub struct Established {
    introduction: Introduction,
    since: Instant,
    /// One, and a few more while it is rekeyed.
    pub(super) sas: IkeSas,
    pub(super) children: ChildSas,
    pub(super) agenda: Agenda,
    /// How often a request is sent.
    tries: u32,
    /// When the session ends because the peer's proof is no longer taken.
    notice: Option<Instant>,
    /// When a NAT on this side is to be reminded of the way to the peer.
    keepalive_at: Option<Instant>,
    /// What the peer is told of this host.
    pub(super) telling: Telling,
    /// What the peer is asked beside that.
    pub(super) question: Telling,
    /// What it is answered.
    pub(super) answer: Telling,
    /// Both ends' lists have nothing in common for successors of its children: another session is to take over.
    spent: bool,
    /// The peer has said something on it, or has answered its IKE_AUTH: it knows it.
    confirmed: bool,
    /// When the peer last told something of itself.
    pub(super) told_at: Option<Instant>,
}

impl Established {
    /// A session on `sa`. `_proof`: the peer has proven itself.
    pub fn new(cx: &mut Cx<'_>, _proof: Verified, introduction: Introduction, sa: IkeSa) -> Self {
        cx.out.heard = true;
        let (here, confirmed) = (introduction.path.nat.here, introduction.basis.initiated);
        let is_control = introduction.path.purpose == Purpose::Control;
        let mut telling = Telling::default();
        if introduction.path.purpose == Purpose::Data {
            telling.tell(cx.now, cx.settings.told());
        }
        Self {
            introduction,
            since: cx.now,
            sas: IkeSas::new(sa),
            children: ChildSas::default(),
            agenda: Agenda::default(),
            tries: if is_control { TRIES_CONTROL } else { TRIES_ESTABLISHED },
            notice: None,
            keepalive_at: here.then(|| cx.now + KEEPALIVE_EVERY),
            telling,
            question: Telling::default(),
            answer: Telling::default(),
            spent: false,
            confirmed,
            told_at: None,
        }
    }

    pub fn path(&self) -> &Path {
        &self.introduction.path
    }

    pub fn pair(&self) -> Pair {
        self.introduction.path.pair
    }

    /// Whether the peer is not hostseal.
    pub fn is_foreign(&self) -> bool {
        self.introduction.foreign
    }

    /// What the peer said of what it remembers.
    pub fn greeted(&self) -> &Greeted {
        &self.introduction.greeted
    }

    /// What the proofs of both ends were made with.
    pub fn basis(&self) -> &Basis {
        &self.introduction.basis
    }

    /// When its first message was sent or came.
    pub fn begun(&self) -> Instant {
        self.introduction.begun
    }

    /// Whether the peer is known to know it.
    pub fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Whether the peer leaves a request unanswered that was sent several times.
    pub fn is_unanswered(&self) -> bool {
        self.in_use().is_some_and(|sa| sa.window.copies() >= COPIES_UNANSWERED)
    }

    /// When the peer had proven itself.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether it ends.
    pub fn is_closing(&self) -> bool {
        self.agenda.is_closed()
    }

    /// Our indexes.
    pub fn spis(&self) -> impl Iterator<Item = u64> {
        self.sas.iter().map(IkeSa::ours)
    }

    /// The IKE SA that new requests go out on, while it is there.
    pub fn in_use(&self) -> Option<&IkeSa> {
        self.sas.in_use()
    }

    /// Octets of messages that have not come as a whole yet.
    pub fn held_octets(&self) -> usize {
        self.sas.iter().map(IkeSa::held_octets).sum()
    }

    /// How many children it has.
    pub fn children(&self) -> usize {
        self.children.len()
    }

    /// When the session ends because its peer does not prove itself as it should now.
    pub fn notice(&self) -> Option<Instant> {
        self.notice.filter(|_| !self.is_closing())
    }

    /// Looks anew at what the peer has proven itself with: where that is not taken any more, the session ends in time.
    pub fn review(&mut self, cx: &Cx<'_>) -> Result<(), CertificateError> {
        let remote = self.pair().remote;
        let review = self.introduction.basis.review(cx.settings, remote, cx.wall);
        // Nothing is lost with what has no children.
        let grace = if self.is_childless() { Duration::ZERO } else { cx.settings.rekey_after };
        let (notice, taken) = (cx.now + grace, self.is_taken(cx.settings));
        self.notice = (!taken).then(|| self.notice.map_or(notice, |at| at.min(notice)));
        review
    }

    /// Successors of its children find nothing in common on both ends' lists. Says whether that is news.
    pub(super) fn spend(&mut self) -> bool {
        !std::mem::replace(&mut self.spent, true)
    }

    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    /// When a NAT is reminded next.
    pub(super) fn keepalive_at(&self) -> Option<Instant> {
        self.keepalive_at
    }

    /// RFC 3948 section 4.
    pub(super) fn keep_alive(&mut self, cx: &mut Cx<'_>) {
        if self.keepalive_at.is_some_and(|at| at <= cx.now) {
            cx.out.transmit(self.path(), keepalive());
            self.keepalive_at = Some(cx.now + KEEPALIVE_EVERY);
        }
    }

    /// Begins to delete the session; its Delete is sent `tries` times at most. An exchange on its way gets
    /// no more either.
    pub fn close(&mut self, tries: u32) {
        self.tries = tries;
        self.agenda.close();
        self.sas.doom();
        self.sas.hurry(tries);
    }

    /// Whether its ESP goes in UDP, or does not, as `settings` would have it. `blocked`: ESP by itself does not get
    /// through.
    pub fn is_encapsulated_as_wanted(&self, settings: &Settings, blocked: bool) -> bool {
        let encapsulated = self.path().nat.is_found();
        match settings.encapsulation {
            _ if self.is_childless() => true,
            EncapsulationMode::Auto => encapsulated || !blocked,
            EncapsulationMode::Always => encapsulated,
            EncapsulationMode::Never => !encapsulated,
        }
    }

    // ------------------------------------------------------------------ what the engine asks for

    /// Adds a task, once.
    pub fn add_task(&mut self, task: Task) {
        self.agenda.add(task);
    }

    // ------------------------------------------------------------------ what the exchanges share

    /// The peer refused: does `task` later, and later still each time.
    pub(super) fn put_off(&mut self, cx: &mut Cx<'_>, task: Task) {
        // The end that initiates by rule comes first, or both would be in each other's way again.
        let first = cx.settings.inside.initiates(self.pair());
        let turn = if first { Duration::ZERO } else { BACKOFF_FIRST };
        self.agenda.put_off(cx.now, turn, task, cx.entropy);
    }

    /// The request that came in on the IKE SA `ours` is to be answered so.
    pub fn hold(&mut self, ours: u64, held: HeldRequest) {
        if let Some(sa) = self.sas.get_mut(ours) {
            sa.window.hold(held);
        }
    }

    // ------------------------------------------------------------------ messages

    /// Takes in a message on one of the session's IKE SAs.
    pub fn handle_message(mut self: Box<Self>, cx: &mut Cx<'_>, message: &Message<'_>) -> Option<Box<Self>> {
        let header = &message.header;
        let Some((sa, encrypted)) = self.sas.owner_mut(header).zip(message.encrypted) else {
            cx.out.counters.unexpected += 1;
            return Some(self);
        };
        let ours = sa.ours();
        let Some(text) = sa.decrypt(&encrypted) else {
            cx.out.counters.not_authentic += 1;
            return Some(self);
        };
        if header.flags.response {
            if !sa.window.awaits(header.message_id) {
                cx.out.counters.unexpected += 1;
            } else if let Some(whole) = sa.collect(cx, header, &encrypted, text)
                && let Some(asked) = sa.window.answered(header.message_id)
            {
                (cx.out.heard, self.confirmed) = (true, true);
                self.follow(cx);
                self.handle_answer(cx, ours, asked, whole.and_then(|whole| whole.payloads()));
            }
        } else {
            match sa.window.arrival(header.message_id) {
                Arrival::New => {
                    if let Some(whole) = sa.collect(cx, header, &encrypted, text) {
                        let payloads = whole.and_then(|whole| whole.payloads());
                        (cx.out.heard, self.confirmed) = (true, true);
                        self.follow(cx);
                        self.handle_request(cx, ours, header.exchange, payloads);
                    }
                }
                // RFC 7383 section 2.6.1: once for all fragments of the request.
                Arrival::Repeated(answer) if encrypted.is_first() => {
                    cx.out.counters.retransmits += 1;
                    cx.out.transmit_all(&self.introduction.path, &answer);
                }
                Arrival::Repeated(_) => {}
                Arrival::Ignored => cx.out.counters.unexpected += 1,
            }
        }
        self.unless_over(cx, false)
    }

    /// An authentic message of the peer tells where it is.
    fn follow(&mut self, cx: &Cx<'_>) {
        if let Some((local, remote)) = cx.came
            && self.path().local == local
        {
            self.follow_to(remote);
        }
    }

    /// RFC 7296 section 2.23: the peer's NAT may have forgotten it and let it in on another port. Children with the
    /// new port take over.
    pub fn follow_to(&mut self, remote: SocketAddr) {
        let path = &mut self.introduction.path;
        if !path.nat.there || path.remote == remote {
            return;
        }
        path.remote = remote;
        for child in self.children.alive() {
            self.agenda.add(Task::RekeyChild(child.in_spi()));
        }
    }

    fn handle_request(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        exchange: Exchange,
        payloads: Result<Vec<Payload>, Reason>,
    ) {
        for in_spi in self.unconfirmed().map(|child| child.in_spi()).collect::<Vec<_>>() {
            self.confirm(cx, in_spi);
        }
        let held = payloads.and_then(|payloads| {
            let parts = Parts(&payloads);
            match exchange {
                Exchange::CREATE_CHILD_SA if parts.is_ike_rekey() => self.answer_rekey_ike(cx, ours, &parts),
                Exchange::CREATE_CHILD_SA if self.is_childless() => Err(Declined::Childless.into()),
                Exchange::CREATE_CHILD_SA => self.answer_child(cx, ours, &parts),
                Exchange::IKE_FOLLOWUP_KE => self.answer_follow_up(cx, ours, &parts),
                Exchange::INFORMATIONAL => Ok(self.answer_informational(cx, ours, &parts)),
                _ => Err(Misbehaved::Exchange.into()),
            }
        });
        let held = held.unwrap_or_else(|error| {
            let most = [Declined::ChildrenMost, Declined::Childless].map(Reason::from);
            cx.out.counters.children_refused += u64::from(most.contains(&error));
            HeldRequest::new(exchange, cx.now, vec![error.to_notify()])
        });
        self.hold(ours, held);
    }

    fn handle_answer(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        asked: Asked,
        payloads: Result<Vec<Payload>, Reason>,
    ) {
        match asked {
            Asked::Child(asked) => self.child_answered(cx, ours, asked, payloads),
            Asked::RekeyIke(asked) => self.rekey_ike_answered(cx, ours, asked, payloads),
            Asked::FollowUp(asked) => self.follow_up_answered(cx, *asked, payloads),
            Asked::DeleteChild(in_spi) => self.child_closed(cx, in_spi, false),
            // RFC 7296 section 1.4.1: the answer ends it.
            Asked::DeleteIke => self.sas.remove(ours),
            Asked::Inform { says, confirms } => {
                if let Ok(payloads) = &payloads {
                    self.hear(cx, &Parts(payloads));
                }
                self.note_known(cx, says);
                confirms.into_iter().for_each(|in_spi| self.confirm(cx, in_spi));
            }
        }
    }

    /// A session without an IKE SA is over.
    pub(super) fn unless_over(mut self: Box<Self>, cx: &mut Cx<'_>, void: bool) -> Option<Box<Self>> {
        if !self.sas.is_empty() {
            return Some(self);
        }
        self.end_children(cx, void);
        None
    }

    // ------------------------------------------------------------------ output

    /// Sends the answers that wait for nothing, and the next request where the window is free.
    pub fn flush(&mut self, cx: &mut Cx<'_>) {
        for ours in self.spis().collect::<Vec<_>>() {
            self.send_answer(cx, ours);
        }
        for ours in self.spis().collect::<Vec<_>>() {
            self.send_request(cx, ours);
        }
    }

    fn send_answer(&mut self, cx: &mut Cx<'_>, ours: u64) {
        let path = self.introduction.path;
        let Some(held) = self.sas.get(ours).and_then(|sa| sa.window.held()) else { return };
        let holds = |in_spi: &Spi| self.child(*in_spi).is_some_and(|child| child.holds_answers(cx.now));
        if held.waits() || held.children.iter().any(holds) {
            return;
        }
        let Some(sa) = self.sas.get_mut(ours) else { return };
        let Some((message_id, mut held)) = sa.window.release() else { return };
        if let Some(child) = held.child.take() {
            if child.installed == Some(true) {
                held.payloads.extend(child.payloads);
                held.children.push(child.in_spi);
                self.answered_child(child.in_spi);
            } else {
                held.payloads.push(Payload::notify(notify::TEMPORARY_FAILURE, Vec::new()));
            }
        }
        // On a control IKE SA requests alone tell, whose answers say that the peer has it.
        let of_children = held.children.iter().map(|in_spi| Topic::Child(*in_spi));
        let (payloads, says) = self.say(
            cx.now,
            of_children.chain(self.untold(cx.now).filter(|_| held.tells && !self.is_childless())),
        );
        held.payloads.extend(payloads);
        // The peer has it for certain, or asks again.
        self.note_known(cx, says);
        let Some(sa) = self.sas.get_mut(ours) else { return };
        match sa.encrypt(cx.entropy, held.exchange, true, message_id, &held.payloads) {
            Ok(answer) => {
                cx.out.transmit_all(&path, &answer);
                sa.window.keep_answer(answer);
            }
            Err(error) => cx.fail(path.pair, FailureScope::Ike, error),
        }
    }

    /// The answer that makes a child is about to be sent.
    fn answered_child(&mut self, in_spi: Spi) {
        if !self.is_foreign() {
            return;
        }
        // A foreign peer shows with its next request that it has our answer. Whoever rekeys sends one, which
        // deletes the old child (RFC 7296 section 2.8), and that one serves until then.
        let Some(child) = self.children.get_mut(in_spi) else { return };
        child.await_confirmation();
        if child.predecessor().is_none() {
            self.add_task(Task::Liveness);
        }
    }

    fn send_request(&mut self, cx: &mut Cx<'_>, ours: u64) {
        let path = self.introduction.path;
        let Some(sa) = self.sas.get(ours) else { return };
        // RFC 7296 section 1.2: nothing else before IKE_AUTH is answered.
        let in_auth = sa.window.held().is_some_and(|held| held.exchange == Exchange::IKE_AUTH);
        if !sa.window.is_free() || in_auth {
            return;
        }
        let request = match sa.stage {
            Stage::Doomed => Some(self.delete_ike_request(cx.now, ours)),
            Stage::Live if ours == self.sas.current() && !self.is_closing() => self.next_request(cx),
            _ => None,
        };
        let Some((exchange, payloads, asked)) = request else { return };
        let tries = self.tries;
        let Some(sa) = self.sas.get_mut(ours) else { return };
        let message_id = sa.window.next_request();
        match sa.encrypt(cx.entropy, exchange, false, message_id, &payloads) {
            Ok(message) => {
                cx.out.transmit_all(&path, &message);
                let sent = Retransmission::new(cx.now, message, tries).by(cx.late);
                let is_control = path.purpose == Purpose::Control;
                sa.window.asked(if is_control { sent.each(RETRANSMIT_CONTROL) } else { sent }, asked);
            }
            Err(error) => cx.fail(path.pair, FailureScope::Ike, error),
        }
    }

    /// What to ask next, if anything: what the peer is to be told first, since traffic waits for it.
    fn next_request(&mut self, cx: &mut Cx<'_>) -> Option<(Exchange, Vec<Payload>, Asked)> {
        if let Some(request) = self.telling_request(cx.now).or_else(|| self.follow_up_request(cx)) {
            return Some(request);
        }
        let making_child = self.agenda.is_child_half_made() || self.sas.held().any(HeldRequest::waits);
        while let Some(task) = self.agenda.next(making_child) {
            let request = match task {
                Task::RekeyIke(group) => self.rekey_ike_request(cx, group),
                Task::NewChild => self.child_request(cx, None, None),
                Task::RekeyChild(in_spi) => self.child_request(cx, Some(in_spi), None),
                Task::ChildOf(group, rekeys) => self.child_request(cx, rekeys, Some(group)),
                Task::DeleteChild(in_spi) => Some(self.delete_child_request(in_spi)),
                Task::Liveness => Some(self.liveness_request(cx)),
            };
            if request.is_some() {
                return request;
            }
        }
        None
    }
}
