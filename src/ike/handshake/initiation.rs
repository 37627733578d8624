//! An attempt of ours, from its first message to a peer that has proven itself.
//!
//! Nobody has proven anything when the first message is answered, and whoever sees it can answer, too, and sooner. So
//! each answer is followed up by itself, within bounds, and the attempt is over only when all of them have come to
//! nothing. Once that is told it goes on listening for a while, beside the next attempt.
//! ```text
//! a  --- IKE_SA_INIT --->  b
//! a  <-- IKE_SA_INIT ----       of somebody on the path
//! a  --- IKE_AUTH ------>       nobody answers, or says no
//! a  <-- IKE_SA_INIT ----  b
//! a  --- IKE_AUTH ------>  b
//! a  <-- IKE_AUTH -------  b    proven
//! ```

use std::time::Instant;

use subtle::ConstantTimeEq;

use super::first_request::FirstRequest;
use super::half_open::{Asking, HalfOpen};
use super::initiate::{AwaitAuthResponse, AwaitInitResponse};
use super::intermediate::AwaitIntermediateResponse;
use super::member::AwaitMemberResponse;
use super::resume::AwaitResumeResponse;
use super::session::Session;
use crate::ike::crypto::Hidden;
use crate::ike::limits::{ANSWERS_MAX, CANDIDATES_MAX, LISTEN_LIFE, TRIES_HANDSHAKE};
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::wire::{Message, Parts};
use crate::ike::{Failure, FailureCode};
use crate::types::AdditionalKe;

/// Our first message, and what its answers are read with.
pub enum FirstMessage {
    /// IKE_SA_INIT.
    Init(AwaitInitResponse),
    /// IKE_SESSION_RESUME.
    Resume(AwaitResumeResponse),
}

/// How far an answer has been followed up.
pub enum Candidate {
    /// IKE_INTERMEDIATE is sent.
    Intermediate(Box<AwaitIntermediateResponse>),
    /// IKE_AUTH is sent.
    Auth(Box<AwaitAuthResponse>),
    /// IKE_AUTH of a control IKE SA is sent.
    Member(Box<AwaitMemberResponse>),
}

/// What a message or time has made of a candidate.
pub enum Step {
    /// It is waited for.
    On(Candidate),
    /// It was the peer's.
    Proven(Session),
    /// It leads nowhere.
    Over(Failure),
}

/// What an answer leads to. Several that lead to the same are followed up once.
struct Tried {
    /// What the other end proves itself with (SK_p).
    theirs: Hidden,
    /// The additional key exchange in IKE_INTERMEDIATE. Copies of one answer may differ in that, as in the next one: the
    /// peer waits for one request alone, and is silent when another one comes.
    additional: Option<AdditionalKe>,
    /// IKE_INTERMEDIATE follows, not IKE_AUTH.
    intermediate: bool,
}

/// An attempt of ours.
pub struct Initiation {
    first: FirstMessage,
    /// Those who have answered, each with its place in `tried`.
    candidates: Vec<(usize, Candidate)>,
    /// What the answers so far lead to.
    tried: Vec<Tried>,
    /// Answers that keys were made of.
    answers: usize,
    /// Why the candidates came to nothing, as far as one of them tells most.
    failure: Option<Failure>,
    /// The request is not sent any more.
    silent: bool,
    /// It has failed, as far as was told.
    told: bool,
}

impl FirstMessage {
    fn request(&self) -> &FirstRequest {
        match self {
            FirstMessage::Init(state) => state.request(),
            FirstMessage::Resume(state) => state.request(),
        }
    }

    fn request_mut(&mut self) -> &mut FirstRequest {
        match self {
            FirstMessage::Init(state) => state.request_mut(),
            FirstMessage::Resume(state) => state.request_mut(),
        }
    }

    fn take_answer(&mut self, cx: &mut Cx<'_>, message: &Message<'_>, datagram: &[u8]) -> Option<HalfOpen> {
        match self {
            FirstMessage::Init(state) => state.take_answer(cx, message, datagram),
            FirstMessage::Resume(state) => state.take_answer(cx, message, datagram),
        }
    }
}

impl Candidate {
    fn asking(&self) -> &Asking {
        match self {
            Candidate::Intermediate(state) => state.asking(),
            Candidate::Auth(state) => state.asking(),
            Candidate::Member(state) => &state.asking,
        }
    }

    fn asking_mut(&mut self) -> &mut Asking {
        match self {
            Candidate::Intermediate(state) => state.asking_mut(),
            Candidate::Auth(state) => state.asking_mut(),
            Candidate::Member(state) => &mut state.asking,
        }
    }

    fn half_open(&self) -> &HalfOpen {
        &self.asking().half_open
    }

    fn half_open_mut(&mut self) -> &mut HalfOpen {
        &mut self.asking_mut().half_open
    }

    /// Whether it waits for such a message, and the message is authentic with its keys.
    fn fits(&self, message: &Message<'_>) -> bool {
        self.asking().awaits(&message.header)
            && message.encrypted.is_some_and(|encrypted| self.half_open().sa.decrypt(&encrypted).is_some())
    }

    fn handle_message(self, cx: &mut Cx<'_>, message: &Message<'_>) -> Step {
        match self {
            Candidate::Intermediate(state) => state.handle_message(cx, message),
            Candidate::Auth(state) => state.handle_message(cx, message),
            Candidate::Member(state) => state.handle_message(cx, message),
        }
    }

    fn handle_timeout(self, cx: &mut Cx<'_>) -> Step {
        match self {
            Candidate::Intermediate(state) => state.handle_timeout(cx),
            Candidate::Auth(state) => state.handle_timeout(cx),
            Candidate::Member(state) => state.handle_timeout(cx),
        }
    }

    fn withdraw_ahead(&mut self, cx: &mut Cx<'_>) {
        if let Candidate::Auth(state) = self {
            state.withdraw_ahead(cx);
        }
    }

    fn path_is_back(&mut self, now: Instant) {
        self.asking_mut().path_is_back(now);
    }

    fn due(&self) -> (Instant, &'static str) {
        let what = match self {
            Candidate::Intermediate(_) => "IKE_INTERMEDIATE again",
            Candidate::Auth(_) | Candidate::Member(_) => "IKE_AUTH again",
        };
        (self.asking().due(), what)
    }
}

impl Initiation {
    /// One whose first message has just been sent.
    pub fn new(first: FirstMessage) -> Self {
        Self {
            first,
            candidates: Vec::new(),
            tried: Vec::new(),
            answers: 0,
            failure: None,
            silent: false,
            told: false,
        }
    }

    /// Takes in a message with our index.
    pub fn handle_message(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        message: &Message<'_>,
        datagram: &[u8],
    ) -> Option<Session> {
        let outcome = match message.header.exchange.is_first() {
            true => self.handle_answer(cx, message, datagram),
            false => self.handle_encrypted(cx, message),
        };
        self.conclude(cx, outcome)
    }

    /// An answer to the first message.
    fn handle_answer(&mut self, cx: &mut Cx<'_>, message: &Message<'_>, datagram: &[u8]) -> Option<Session> {
        if !self.request().is_answer(cx, message) {
            return None;
        }
        let parts = Parts(&message.payloads);
        // While a candidate may be about to prove itself, whoever does not try to cannot change our mind.
        let distracts = !self.candidates.is_empty() && parts.nonce().is_err();
        let known = self.candidates.iter().any(|(_, it)| it.half_open().is_from(datagram));
        if distracts || known || self.is_over(cx.now) {
            cx.out.counters.unexpected += 1;
            return None;
        }
        if self.answers >= ANSWERS_MAX || self.candidates.len() >= CANDIDATES_MAX {
            cx.out.counters.answers_refused += 1;
            return None;
        }
        // It costs as much if nothing comes of it.
        self.answers += usize::from(parts.nonce().is_ok());
        let half_open = self.first.take_answer(cx, message, datagram)?;
        self.consider(cx, half_open)
    }

    /// Follows an answer up.
    fn consider(&mut self, cx: &mut Cx<'_>, mut half_open: HalfOpen) -> Option<Session> {
        let theirs = Hidden::new(half_open.keys.peer.expose().to_vec());
        let (additional, intermediate) = (half_open.sa.keys.suite.additional, half_open.needs_intermediate());
        let has_keys = |it: &Tried| bool::from(it.theirs.expose().ct_eq(theirs.expose()));
        let leads_there =
            |it: &Tried| (it.additional, it.intermediate) == (additional, intermediate) && has_keys(it);
        if let Some(at) = self.tried.iter().position(leads_there) {
            // One copy of the peer's answer was changed on the way, in what no key depends on.
            if let Some((_, same)) = self.candidates.iter_mut().find(|(tried, _)| *tried == at) {
                same.half_open_mut().may_be(half_open);
            }
            return None;
        }
        half_open.sa.stand_apart(self.tried.iter().filter(|it| has_keys(it)).count());
        self.tried.push(Tried { theirs, additional, intermediate });
        self.first.request_mut().pause(cx.now);
        let step = half_open.go_on(cx);
        self.take(self.tried.len() - 1, step)
    }

    /// An encrypted message. Several candidates may have the same indexes: it is for those that wait for it and have its
    /// keys. Where these are several, what is in it tells whose it is.
    fn handle_encrypted(&mut self, cx: &mut Cx<'_>, message: &Message<'_>) -> Option<Session> {
        let owns = |(_, it): &(usize, Candidate)| it.half_open().sa.owns(&message.header);
        let place = |(tried, _): &(usize, Candidate)| *tried;
        let fitting = self.candidates.iter().filter(|it| owns(it) && it.1.fits(message));
        let mut all: Vec<usize> = fitting.map(place).collect();
        if all.is_empty() {
            all.extend(self.candidates.iter().find(|it| owns(it)).map(place));
        }
        if all.is_empty() {
            cx.out.counters.unexpected += 1;
        }
        all.into_iter().find_map(|tried| {
            let at = self.candidates.iter().position(|it| place(it) == tried)?;
            let (_, candidate) = self.candidates.remove(at);
            let step = candidate.handle_message(cx, message);
            self.take(tried, step)
        })
    }

    fn take(&mut self, tried: usize, step: Step) -> Option<Session> {
        match step {
            Step::On(candidate) => self.candidates.push((tried, candidate)),
            Step::Over(failure) => self.note_failure(failure),
            Step::Proven(session) => return Some(session),
        }
        None
    }

    /// A candidate came to nothing. Whoever forges an answer, and does not go on, does not hide what the peer says.
    fn note_failure(&mut self, failure: Failure) {
        let tells = |it: &Failure| (it.asks_for_other_proof(), it.code() != FailureCode::NoAnswer);
        if self.failure.as_ref().is_none_or(|known| tells(known) <= tells(&failure)) {
            self.failure = Some(failure);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>) -> Option<Session> {
        for (tried, candidate) in std::mem::take(&mut self.candidates) {
            let step = candidate.handle_timeout(cx);
            self.take(tried, step);
        }
        if !self.silent && !self.told {
            self.silent = !self.first.request_mut().retransmit(cx);
        }
        self.conclude(cx, None)
    }

    /// What comes next. `None`: the session is gone.
    fn conclude(mut self: Box<Self>, cx: &mut Cx<'_>, proven: Option<Session>) -> Option<Session> {
        if let Some(session) = proven {
            self.withdraw_ahead(cx);
            return Some(session);
        }
        if self.candidates.is_empty() && !self.told && (self.silent || self.failure.is_some()) {
            let failure = self.failure.take().unwrap_or_else(|| self.first.request_mut().failure());
            self.told = true;
            cx.out.failures.push((self.request().path.pair, FailureScope::Ike, failure));
        }
        let over = self.candidates.is_empty() && self.is_over(cx.now);
        (!over).then_some(Session::Initiation(self))
    }

    /// Whether no further answer is listened for.
    fn is_over(&self, now: Instant) -> bool {
        self.told && (self.silent || now >= self.request().begun + LISTEN_LIFE)
    }

    /// An inbound SA that is there before the peer has proven itself is not to be there any more.
    pub fn withdraw_ahead(&mut self, cx: &mut Cx<'_>) {
        self.candidates.iter_mut().for_each(|(_, candidate)| candidate.withdraw_ahead(cx));
    }

    /// The network is there again after a while without.
    pub fn path_is_back(&mut self, now: Instant) {
        self.first.request_mut().restart(now, TRIES_HANDSHAKE);
        self.silent = false;
        self.candidates.iter_mut().for_each(|(_, candidate)| candidate.path_is_back(now));
    }

    /// When the next thing is due, and what.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        let request = (!self.silent && !self.told).then(|| (self.request().due(), "first message again"));
        let listens =
            self.told.then(|| (self.request().begun + LISTEN_LIFE, "attempt that has failed is forgotten"));
        let candidates = self.candidates.iter().map(|(_, candidate)| candidate.due());
        candidates.chain(request).chain(listens.filter(|_| self.candidates.is_empty())).min()
    }

    /// The first message.
    pub fn request(&self) -> &FirstRequest {
        self.first.request()
    }

    /// Octets of messages that have not come as a whole yet.
    pub fn held_octets(&self) -> usize {
        self.candidates.iter().map(|(_, candidate)| candidate.half_open().sa.held_octets()).sum()
    }

    /// Whether it may still succeed, as far as the engine knows.
    pub fn is_hopeful(&self) -> bool {
        !self.told
    }

    /// Whether somebody answers, or the peer has had little time yet to do so.
    pub fn takes_room(&self) -> bool {
        self.is_hopeful() && (!self.candidates.is_empty() || self.request().is_fresh())
    }
}
