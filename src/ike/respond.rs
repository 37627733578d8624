//! The responder's way to an established session (RFC 7296 section 1.2).

use std::time::Instant;

use super::auth::{self, Signed, Unproven, Verified};
use super::basis::Basis;
use super::child::{self, Agreement, Offer};
use super::crypto::KeyPair;
use super::error::Error;
use super::established::{Established, Introduction};
use super::exchange::Window;
use super::ike_sa::IkeSa;
use super::initiate::failure;
use super::keys::{AuthKeys, Nonces, Seed, Spis, Suite, derive};
use super::limits::{HALF_OPEN_LIFE, IKE_REKEY_FACTOR};
use super::outbox::{Cx, Path, Scope};
use super::peer::Peer;
use super::pending::Held;
use super::session::Session;
use super::signature::Hashes;
use super::suite::{OwnKe, choose_ike};
use super::wire::codes::{Exchange, notify};
use super::wire::{Flags, Header, Id, Ke, Message, Parts, Payload, write_clear};
use crate::model::auth::Proof;

/// Has answered IKE_SA_INIT.
pub(super) struct AwaitAuthRequest {
    path: Path,
    begun: Instant,
    peer: Peer,
    /// Our IKE_AUTH is to say INITIAL_CONTACT.
    greet: bool,
    sa: IkeSa,
    suite: Suite,
    keys: AuthKeys,
    nonces: Nonces,
    /// The initiator's IKE_SA_INIT message, which its AUTH covers.
    request: Vec<u8>,
    /// Ours, which our AUTH covers.
    response: Vec<u8>,
}

/// Has refused IKE_AUTH.
pub(super) struct Refused {
    path: Path,
    sa: IkeSa,
    answer: Vec<u8>,
    expires: Instant,
}

/// An answer in the clear to the IKE_SA_INIT request with `header`.
pub(super) fn init_answer(header: &Header, ours: u64, payloads: &[Payload]) -> Vec<u8> {
    let header =
        Header { responder_spi: ours, flags: Flags { from_initiator: false, response: true }, ..*header };
    write_clear(header, payloads)
}

impl AwaitAuthRequest {
    /// Answers the IKE_SA_INIT request in `message`, which was `datagram` on the wire.
    pub(super) fn start(
        cx: &mut Cx<'_>,
        path: Path,
        greet: bool,
        message: &Message<'_>,
        datagram: &[u8],
    ) -> Result<Session, Error> {
        let parts = Parts(&message.payloads);
        let (answer, suite, _) = choose_ike(parts.sa()?)?;
        let ke = parts.ke().ok_or(Error::PeerMisbehaved("there is no public value"))?;
        // RFC 7296 section 1.2: asks for a public value of the group chosen.
        if ke.group != suite.group.id() {
            return Err(Error::OtherGroup(suite.group.id()));
        }
        let key = KeyPair::generate(suite.group, cx.entropy)?;
        let shared = key.agree(&ke.data)?;
        let nonces = Nonces { initiator: parts.nonce()?.to_vec(), responder: cx.nonce() };
        let spis = Spis { initiator: message.header.initiator_spi, responder: cx.ike_spi() };
        let (ike, keys) = derive(suite, &Seed::Fresh(&shared), &nonces, spis, false)?;
        let mut payloads = vec![
            Payload::Sa(vec![answer]),
            Payload::Ke(Ke { group: suite.group.id(), data: key.public().to_vec() }),
            Payload::Nonce(nonces.responder.clone()),
            cx.vendor_id.clone(),
        ];
        payloads.extend(cx.settings.credentials.knows_signatures(path.pair.remote).then(Hashes::ours));
        payloads.extend(auth::request(&cx.settings.credentials, path.pair.remote));
        let response = init_answer(&message.header, spis.responder, &payloads);
        cx.out.transmit(&path, response.clone());
        let rekey_at = cx.rekey_time(path.pair, cx.settings.rekey_after * IKE_REKEY_FACTOR);
        // IKE_SA_INIT was the peer's request 0 (RFC 7296 section 2.2).
        let sa = IkeSa::new(spis, false, ike, Window::new(0, 1), rekey_at);
        let (begun, peer) = (cx.now, Peer::read(&parts));
        let request = datagram.to_vec();
        let state = Self { path, begun, peer, greet, sa, suite, keys, nonces, request, response };
        Ok(Session::AwaitAuthRequest(Box::new(state)))
    }

    pub(super) fn handle_message(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        message: &Message<'_>,
        datagram: &[u8],
    ) -> Option<Session> {
        if datagram == self.request {
            cx.out.counters.retransmits += 1;
            cx.out.transmit(&self.path, self.response.clone());
            return Some(Session::AwaitAuthRequest(self));
        }
        let header = &message.header;
        if header.exchange == Exchange::IKE_SA_INIT {
            self.handle_repetition(cx, &Parts(&message.payloads), datagram);
            return Some(Session::AwaitAuthRequest(self));
        }
        let expected = header.exchange == Exchange::IKE_AUTH
            && !header.flags.response
            && header.message_id == 1
            && self.sa.owns(header);
        let Some(sealed) = message.sealed.filter(|_| expected) else {
            cx.out.counters.unexpected += 1;
            return Some(Session::AwaitAuthRequest(self));
        };
        let Some(payloads) = self.sa.open(&sealed) else {
            cx.out.counters.not_authentic += 1;
            return Some(Session::AwaitAuthRequest(self));
        };
        let outcome = payloads.and_then(|payloads| {
            let theirs = self.verify(cx, &Parts(&payloads))?;
            let ours = self.prove(cx, &theirs)?;
            Ok((theirs, ours, payloads))
        });
        match outcome {
            Ok((theirs, ours, payloads)) => Some(self.establish(cx, theirs, ours, &Parts(&payloads))),
            Err(error) => self.refuse(cx, &error),
        }
    }

    /// A copy of the request without a cookie was answered with one asked for, another made this session:
    /// what the initiator signs is the copy that it sent last, with the cookie (RFC 7296 section 2.6).
    fn handle_repetition(&mut self, cx: &mut Cx<'_>, parts: &Parts<'_>, datagram: &[u8]) {
        let same = parts.nonce().is_ok_and(|nonce| nonce == self.nonces.initiator);
        if same && parts.notify(notify::COOKIE).is_some() {
            self.request = datagram.to_vec();
            cx.out.counters.retransmits += 1;
            cx.out.transmit(&self.path, self.response.clone());
        } else {
            cx.out.counters.unexpected += 1;
        }
    }

    /// The peer's side of RFC 7296 section 2.15; and whom it wants to talk to must be us.
    fn verify(&self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Verified, Error> {
        let pair = self.path.pair;
        let wanted = parts.id_r().is_none_or(|id| *id == Id::of(pair.local));
        let signed = Signed {
            prf: self.suite.prf,
            message: &self.request,
            nonce: &self.nonces.responder,
            key: &self.keys.peer,
            id: parts.id_i().filter(|_| wanted).ok_or(Unproven::Identity)?,
        };
        Ok(signed.verify(cx.settings, pair.remote, parts, cx.wall)?)
    }

    /// Our side of it, towards a peer that has proven itself with `theirs`.
    fn prove(&self, cx: &Cx<'_>, theirs: &Verified) -> Result<(Vec<Payload>, Proof), Error> {
        let signed = Signed {
            prf: self.suite.prf,
            message: &self.response,
            nonce: &self.nonces.initiator,
            key: &self.keys.mine,
            id: &Id::of(self.path.pair.local),
        };
        // A peer that knows another secret besides has shown with this one what it takes for certain.
        let secret = cx.settings.answering(theirs.proof());
        signed.prove(&cx.settings.credentials.identity, secret, &self.peer)
    }

    fn refuse(mut self: Box<Self>, cx: &mut Cx<'_>, error: &Error) -> Option<Session> {
        cx.fail(self.path.pair, Scope::Answer, failure(error), error.to_string());
        let answer = self.sa.seal(Exchange::IKE_AUTH, true, 1, &[error.to_notify()]).ok()?;
        cx.out.transmit(&self.path, answer.clone());
        let expires = cx.now + HALF_OPEN_LIFE;
        Some(Session::Refused(Box::new(Refused { path: self.path, sa: self.sa, answer, expires })))
    }

    fn establish(
        self: Box<Self>,
        cx: &mut Cx<'_>,
        theirs: Verified,
        (proof, ours): (Vec<Payload>, Proof),
        parts: &Parts<'_>,
    ) -> Session {
        let pair = self.path.pair;
        let mut payloads = vec![Payload::IdR(Id::of(pair.local))];
        payloads.extend(proof);
        payloads.extend(self.greet.then(|| Payload::notify(notify::INITIAL_CONTACT, Vec::new())));
        let introduction = Introduction {
            path: self.path,
            begun: self.begun,
            foreign: self.peer.foreign,
            greeted: parts.notify(notify::INITIAL_CONTACT).is_some(),
            basis: Basis { ours, theirs: theirs.proof().clone() },
        };
        let ours = self.sa.ours();
        let mut session = Established::new(cx, theirs, introduction, self.sa);
        let mut held = Held::new(Exchange::IKE_AUTH, cx.now, payloads);
        // RFC 7296 section 1.2: the child can fail where the IKE SA does not.
        match child::accept(pair, cx.settings.key_bits, parts, OwnKe::Never) {
            Ok(choice) => {
                let agreement = Agreement {
                    pair,
                    offer: Offer::new(cx),
                    choice,
                    nonces: &self.nonces,
                    shared: None,
                    initiator: false,
                    foreign: self.peer.foreign,
                    replaces: None,
                };
                held.child = Some(agreement.held(None, None));
                session.announce(cx, &agreement, parts);
            }
            Err(error) => {
                cx.fail(pair, Scope::Answer, failure(&error), error.to_string());
                held.payloads.push(error.to_notify());
            }
        }
        session.hold(ours, held);
        Session::Established(Box::new(session))
    }

    pub(super) fn handle_timeout(self: Box<Self>, cx: &mut Cx<'_>) -> Option<Session> {
        (cx.now < self.expires()).then_some(Session::AwaitAuthRequest(self))
    }

    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    pub(super) fn expires(&self) -> Instant {
        self.begun + HALF_OPEN_LIFE
    }

    pub(super) fn ours(&self) -> u64 {
        self.sa.ours()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Refused {
    /// The same request gets the same answer.
    pub(super) fn handle_message(self: Box<Self>, cx: &mut Cx<'_>, message: &Message<'_>) -> Session {
        let header = &message.header;
        let repeated = header.exchange == Exchange::IKE_AUTH
            && !header.flags.response
            && header.message_id == 1
            && self.sa.owns(header)
            && message.sealed.is_some_and(|sealed| self.sa.open(&sealed).is_some());
        if repeated {
            cx.out.counters.retransmits += 1;
            cx.out.transmit(&self.path, self.answer.clone());
        } else {
            cx.out.counters.unexpected += 1;
        }
        Session::Refused(self)
    }

    pub(super) fn handle_timeout(self: Box<Self>, cx: &mut Cx<'_>) -> Option<Session> {
        (cx.now < self.expires).then_some(Session::Refused(self))
    }

    pub(super) fn expires(&self) -> Instant {
        self.expires
    }

    pub(super) fn ours(&self) -> u64 {
        self.sa.ours()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}
