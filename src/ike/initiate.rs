//! The initiator's way to an established session (RFC 7296 section 1.2).

use std::time::Instant;

use super::auth::{self, Signed, Unproven, Verified};
use super::basis::Basis;
use super::child::{self, Agreement, Offer};
use super::crypto::KeyPair;
use super::error::Error;
use super::established::{Established, Introduction};
use super::exchange::{Retransmission, Retry, Window};
use super::ike_sa::IkeSa;
use super::keys::{AuthKeys, Nonces, Seed, Spis, Suite, derive};
use super::limits::{COOKIE_LENGTH, COOKIES_MAX, IKE_REKEY_FACTOR, TRIES_OPENING};
use super::outbox::{Cx, Path, Scope};
use super::peer::Peer;
use super::pending::Task;
use super::session::Session;
use super::signature::Hashes;
use super::suite::{Freedom, GROUPS, concluded_ike, ike_offer};
use super::wire::codes::{Exchange, notify};
use super::wire::{Flags, Header, Id, Ke, Message, Parts, Payload, write_clear};
use super::{Event, Failure, FailureCode};
use crate::model::auth::Proof;
use crate::model::{EspSuite, NewInbound};

/// Has sent IKE_SA_INIT.
pub(super) struct AwaitInitResponse {
    path: Path,
    begun: Instant,
    greet: bool,
    /// Sign with the secret before the current one.
    fallback: bool,
    ours: u64,
    key: KeyPair,
    nonce: Vec<u8>,
    cookies: u32,
    sent: Retransmission,
    /// What somebody who need not be the peer said.
    hint: Option<Failure>,
}

/// What IKE_SA_INIT has led to.
struct Opened {
    peer: Peer,
    sa: IkeSa,
    suite: Suite,
    keys: AuthKeys,
    nonces: Nonces,
}

/// Has sent IKE_AUTH.
pub(super) struct AwaitAuthResponse {
    path: Path,
    begun: Instant,
    opened: Opened,
    /// What we proved ourselves with.
    ours: Proof,
    /// The peer's IKE_SA_INIT message, which its AUTH covers.
    response: Vec<u8>,
    offer: Offer,
    sent: Retransmission,
}

/// What the offer in IKE_AUTH leaves to the peer. One that is not hostseal requires ESP as soon as it has
/// answered, so the inbound SA must be there before.
fn freedom(foreign: bool) -> Freedom {
    if foreign { Freedom::None } else { Freedom::Either }
}

/// The failure that an error means.
pub(super) fn failure(error: &Error) -> FailureCode {
    match error {
        Error::Unauthenticated(_) | Error::Refused(notify::AUTHENTICATION_FAILED) => FailureCode::AuthFailed,
        Error::PeerIncompatible(_) | Error::OtherGroup(_) | Error::Selectors => FailureCode::NoProposal,
        Error::Refused(notify::NO_PROPOSAL_CHOSEN | notify::INVALID_KE_PAYLOAD | notify::TS_UNACCEPTABLE) => {
            FailureCode::NoProposal
        }
        Error::Internal => FailureCode::Internal,
        _ => FailureCode::PeerRefused,
    }
}

fn init_request(
    cx: &Cx<'_>,
    path: &Path,
    ours: u64,
    key: &KeyPair,
    nonce: &[u8],
    cookie: Option<&[u8]>,
) -> Vec<u8> {
    let header = Header {
        initiator_spi: ours,
        responder_spi: 0,
        first: 0,
        exchange: Exchange::IKE_SA_INIT,
        flags: Flags { from_initiator: true, response: false },
        message_id: 0,
    };
    // RFC 7296 section 2.6: the cookie comes first and the rest stays as it was.
    let mut payloads: Vec<_> =
        cookie.map(|cookie| Payload::notify(notify::COOKIE, cookie.to_vec())).into_iter().collect();
    payloads.extend([
        Payload::Sa(vec![ike_offer(Vec::new())]),
        Payload::Ke(Ke { group: key.group().id(), data: key.public().to_vec() }),
        Payload::Nonce(nonce.to_vec()),
        cx.vendor_id.clone(),
    ]);
    payloads.extend(cx.settings.credentials.knows_signatures(path.pair.remote).then(Hashes::ours));
    write_clear(header, &payloads)
}

impl AwaitInitResponse {
    /// Sends the first message. `greet`: IKE_AUTH is to say INITIAL_CONTACT. `fallback`: it is to be signed
    /// with the secret before the current one.
    pub(super) fn start(cx: &mut Cx<'_>, path: Path, greet: bool, fallback: bool) -> Result<Session, Error> {
        let ours = cx.ike_spi();
        let key = KeyPair::generate(GROUPS[0], cx.entropy)?;
        let nonce = cx.nonce();
        let request = init_request(cx, &path, ours, &key, &nonce, None);
        cx.out.transmit(&path, request.clone());
        let sent = Retransmission::knocking(cx.now, request);
        let state =
            Self { path, begun: cx.now, greet, fallback, ours, key, nonce, cookies: 0, sent, hint: None };
        Ok(Session::AwaitInitResponse(Box::new(state)))
    }

    pub(super) fn handle_message(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        message: &Message<'_>,
        datagram: &[u8],
    ) -> Option<Session> {
        let header = &message.header;
        let expected = header.exchange == Exchange::IKE_SA_INIT
            && header.flags == Flags { from_initiator: false, response: true }
            && header.message_id == 0;
        if !expected {
            cx.out.counters.unexpected += 1;
            return Some(Session::AwaitInitResponse(self));
        }
        let parts = Parts(&message.payloads);
        if let Some(cookie) = parts.notify(notify::COOKIE) {
            self.return_cookie(cx, &cookie.data);
            return Some(Session::AwaitInitResponse(self));
        }
        // Nobody has proven anything yet: an error is a hint, and a better answer may still come
        // (RFC 7296 section 2.21.1).
        let outcome = match parts.refusal() {
            Some(refusal) => Err(Error::Refused(refusal)),
            None => self.conclude(cx, header, &parts).and_then(|opened| {
                let proof = self.prove(cx, &opened)?;
                Ok((opened, proof))
            }),
        };
        match outcome {
            Ok((opened, (payloads, ours))) => self.authenticate(cx, opened, payloads, ours, datagram),
            Err(error) => {
                let hint = Failure { code: failure(&error), words: error.to_string() };
                if self.hint.is_none() {
                    cx.fail(self.path.pair, Scope::Hint, hint.code, hint.words.clone());
                }
                self.hint = Some(hint);
                Some(Session::AwaitInitResponse(self))
            }
        }
    }

    /// RFC 7296 section 2.6.
    fn return_cookie(&mut self, cx: &mut Cx<'_>, cookie: &[u8]) {
        if self.cookies >= COOKIES_MAX || !COOKIE_LENGTH.contains(&cookie.len()) {
            cx.out.counters.unexpected += 1;
            return;
        }
        self.cookies += 1;
        let request = init_request(cx, &self.path, self.ours, &self.key, &self.nonce, Some(cookie));
        cx.out.transmit(&self.path, request.clone());
        self.sent = Retransmission::knocking(cx.now, request);
    }

    fn conclude(&self, cx: &mut Cx<'_>, header: &Header, parts: &Parts<'_>) -> Result<Opened, Error> {
        let (suite, _) = concluded_ike(parts.sa()?)?;
        let ke = parts.ke().ok_or(Error::PeerMisbehaved("there is no public value"))?;
        if ke.group != suite.group.id() || suite.group != self.key.group() || header.responder_spi == 0 {
            return Err(Error::PeerMisbehaved("its public value is of another group than it chose"));
        }
        let shared = self.key.agree(&ke.data)?;
        let nonces = Nonces { initiator: self.nonce.clone(), responder: parts.nonce()?.to_vec() };
        let spis = Spis { initiator: self.ours, responder: header.responder_spi };
        let (ike, keys) = derive(suite, &Seed::Fresh(&shared), &nonces, spis, true)?;
        let rekey_at = cx.rekey_time(self.path.pair, cx.settings.rekey_after * IKE_REKEY_FACTOR);
        // IKE_SA_INIT was our request 0, IKE_AUTH is our request 1 (RFC 7296 section 2.2).
        let sa = IkeSa::new(spis, true, ike, Window::new(2, 0), rekey_at);
        Ok(Opened { peer: Peer::read(parts), sa, suite, keys, nonces })
    }

    /// Our side of RFC 7296 section 2.15.
    fn prove(&self, cx: &Cx<'_>, opened: &Opened) -> Result<(Vec<Payload>, Proof), Error> {
        let signed = Signed {
            prf: opened.suite.prf,
            message: self.sent.bytes(),
            nonce: &opened.nonces.responder,
            key: &opened.keys.mine,
            id: &Id::of(self.path.pair.local),
        };
        let secret = cx.settings.signing(self.fallback);
        signed.prove(&cx.settings.credentials.identity, secret, &opened.peer)
    }

    fn authenticate(
        self: Box<Self>,
        cx: &mut Cx<'_>,
        mut opened: Opened,
        proof: Vec<Payload>,
        ours: Proof,
        response: &[u8],
    ) -> Option<Session> {
        let pair = self.path.pair;
        let offer = Offer::new(cx);
        let mut payloads = vec![Payload::IdI(Id::of(pair.local))];
        payloads.extend(self.greet.then(|| Payload::notify(notify::INITIAL_CONTACT, Vec::new())));
        payloads.extend(auth::request(&cx.settings.credentials, pair.remote));
        payloads.push(Payload::IdR(Id::of(pair.remote)));
        payloads.extend(proof);
        let foreign = opened.peer.foreign;
        payloads.extend(offer.request(cx.settings.key_bits, freedom(foreign), pair, None));
        payloads.extend((!foreign).then(|| offer.word(cx.now)));
        let request = match opened.sa.seal(Exchange::IKE_AUTH, false, 1, &payloads) {
            Ok(request) => request,
            Err(error) => {
                cx.fail(pair, Scope::Ike, FailureCode::Internal, error.to_string());
                return None;
            }
        };
        if foreign {
            // Before the request goes out: the peer may send ESP before its answer has come.
            let suite = EspSuite { key_bits: cx.settings.key_bits, esn: true };
            let (key, _) = opened.sa.keys.child(None, &opened.nonces, suite.key_bits, true);
            let inbound = NewInbound { pair, spi: offer.in_spi, suite, key };
            cx.out.events.push_back(Event::InboundAhead(Box::new(inbound)));
        }
        cx.out.transmit(&self.path, request.clone());
        Some(Session::AwaitAuthResponse(Box::new(AwaitAuthResponse {
            path: self.path,
            begun: self.begun,
            opened,
            ours,
            response: response.to_vec(),
            offer,
            sent: Retransmission::new(cx.now, request, TRIES_OPENING),
        })))
    }

    pub(super) fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>) -> Option<Session> {
        match self.sent.handle_timeout(cx.now) {
            Retry::Wait => {}
            Retry::Send(bytes) => {
                cx.out.counters.retransmits += 1;
                cx.out.transmit(&self.path, bytes);
            }
            Retry::GiveUp => {
                let no_answer = || Failure {
                    code: FailureCode::NoAnswer,
                    words: format!("no answer from {}", self.path.remote),
                };
                let failure = self.hint.unwrap_or_else(no_answer);
                cx.fail(self.path.pair, Scope::Ike, failure.code, failure.words);
                return None;
            }
        }
        Some(Session::AwaitInitResponse(self))
    }

    pub(super) fn path_is_back(&mut self, now: Instant) {
        self.sent.restart(now, TRIES_OPENING);
    }

    pub(super) fn due(&self) -> Instant {
        self.sent.due()
    }

    pub(super) fn ours(&self) -> u64 {
        self.ours
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl AwaitAuthResponse {
    pub(super) fn handle_message(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        message: &Message<'_>,
    ) -> Option<Session> {
        let header = &message.header;
        let expected = header.exchange == Exchange::IKE_AUTH
            && header.flags.response
            && header.message_id == 1
            && self.opened.sa.owns(header);
        let Some(sealed) = message.sealed.filter(|_| expected) else {
            cx.out.counters.unexpected += 1;
            return Some(Session::AwaitAuthResponse(self));
        };
        let Some(payloads) = self.opened.sa.open(&sealed) else {
            cx.out.counters.not_authentic += 1;
            return Some(Session::AwaitAuthResponse(self));
        };
        let outcome = payloads.and_then(|payloads| {
            let proof = self.verify(cx, &Parts(&payloads))?;
            Ok((proof, payloads))
        });
        match outcome {
            Ok((proof, payloads)) => Some(self.establish(cx, proof, &Parts(&payloads))),
            Err(error) => {
                self.withdraw(cx, &error);
                self.forget_inbound(cx);
                cx.fail(self.path.pair, Scope::Ike, failure(&error), error.to_string());
                None
            }
        }
    }

    /// The peer's side of RFC 7296 section 2.15.
    fn verify(&self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Verified, Error> {
        if let (None, Some(refusal)) = (parts.auth(), parts.refusal()) {
            return Err(Error::Refused(refusal));
        }
        let signed = Signed {
            prf: self.opened.suite.prf,
            message: &self.response,
            nonce: &self.opened.nonces.initiator,
            key: &self.opened.keys.peer,
            id: parts.id_r().ok_or(Unproven::Identity)?,
        };
        Ok(signed.verify(cx.settings, self.path.pair.remote, parts, cx.wall)?)
    }

    /// Tells a responder that took our proof that we do not take its own (RFC 7296 section 2.21.2). It is
    /// said once: a responder that does not hear it finds out by itself.
    fn withdraw(&mut self, cx: &mut Cx<'_>, error: &Error) {
        if matches!(error, Error::Refused(_)) {
            return;
        }
        let id = self.opened.sa.window.next_request();
        if let Ok(bytes) = self.opened.sa.seal(Exchange::INFORMATIONAL, false, id, &[error.to_notify()]) {
            cx.out.transmit(&self.path, bytes);
        }
    }

    /// What was made ahead of the answer is not to be used.
    fn forget_inbound(&self, cx: &mut Cx<'_>) {
        if self.opened.peer.foreign {
            let closed = Event::ChildClosed { pair: self.path.pair, in_spi: self.offer.in_spi, void: false };
            cx.out.events.push_back(closed);
        }
    }

    fn establish(self: Box<Self>, cx: &mut Cx<'_>, proof: Verified, parts: &Parts<'_>) -> Session {
        let pair = self.path.pair;
        // RFC 7296 section 1.2: the child can fail where the IKE SA does not.
        let conclusion = match parts.refusal() {
            Some(refusal) => Err(Error::Refused(refusal)),
            None => child::conclude(pair, cx.settings.key_bits, freedom(self.opened.peer.foreign), parts),
        };
        if conclusion.is_err() {
            self.forget_inbound(cx);
        }
        let introduction = Introduction {
            path: self.path,
            begun: self.begun,
            foreign: self.opened.peer.foreign,
            greeted: parts.notify(notify::INITIAL_CONTACT).is_some(),
            basis: Basis { ours: self.ours, theirs: proof.proof().clone() },
        };
        let mut session = Established::new(cx, proof, introduction, self.opened.sa);
        match conclusion {
            Ok(choice) => {
                let agreement = Agreement {
                    pair,
                    offer: self.offer,
                    choice,
                    nonces: &self.opened.nonces,
                    shared: None,
                    initiator: true,
                    foreign: self.opened.peer.foreign,
                    replaces: None,
                };
                session.announce(cx, &agreement, parts);
            }
            // It may take what was not offered for the sake of the inbound SA: now everything is, with new keys.
            Err(Error::Refused(notify::NO_PROPOSAL_CHOSEN)) if self.opened.peer.foreign => {
                session.add_task(Task::NewChild);
            }
            Err(error) => {
                cx.fail(pair, Scope::Child, failure(&error), error.to_string());
                if !matches!(error, Error::Refused(_)) {
                    session.delete_unwanted(self.offer.in_spi);
                }
            }
        }
        Session::Established(Box::new(session))
    }

    pub(super) fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>) -> Option<Session> {
        match self.sent.handle_timeout(cx.now) {
            Retry::Wait => {}
            Retry::Send(bytes) => {
                cx.out.counters.retransmits += 1;
                cx.out.transmit(&self.path, bytes);
            }
            Retry::GiveUp => {
                self.forget_inbound(cx);
                let words = format!("no answer to IKE_AUTH from {}", self.path.remote);
                cx.fail(self.path.pair, Scope::Ike, FailureCode::NoAnswer, words);
                return None;
            }
        }
        Some(Session::AwaitAuthResponse(self))
    }

    pub(super) fn path_is_back(&mut self, now: Instant) {
        self.sent.restart(now, TRIES_OPENING);
    }

    pub(super) fn due(&self) -> Instant {
        self.sent.due()
    }

    pub(super) fn ours(&self) -> u64 {
        self.opened.sa.ours()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
