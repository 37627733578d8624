//! The responder's way to an established session (RFC 7296 section 1.2).

use std::time::Instant;

use super::agreement::KeyPair;
use super::auth::{self, Unproven, Verified};
use super::basis::Basis;
use super::child::{self, Agreement, Offer};
use super::error::Error;
use super::established::{Established, Introduction};
use super::exchange::{Datagrams, Window};
use super::ike_sa::IkeSa;
use super::initiate::failure;
use super::keys::{Nonces, Seed, Spis, derive};
use super::limits::{HALF_OPEN_LIFE, IKE_REKEY_FACTOR};
use super::opened::{Opened, fragmentation_supported, fragments};
use super::outbox::{Cx, Path, Scope};
use super::peer::Peer;
use super::pending::Held;
use super::session::Session;
use super::signature::Hashes;
use super::suite::{OwnKe, choose_ike};
use super::wire::codes::{Exchange, notify};
use super::wire::{Flags, Header, Ke, Message, Parts, Payload, write_clear};
use crate::model::auth::Proof;

/// Has answered IKE_SA_INIT.
pub(super) struct AwaitAuthRequest(Opened);

/// Has refused IKE_AUTH.
pub(super) struct Refused {
    path: Path,
    sa: IkeSa,
    answer: Datagrams,
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
        let (answer, suite, _) = choose_ike(&cx.settings.ike_proposals, parts.sa()?)?;
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
        let fragments = fragments(cx, &path, &parts);
        let mut payloads = vec![
            Payload::Sa(vec![answer]),
            Payload::Ke(Ke { group: suite.group.id(), data: key.public().to_vec() }),
            Payload::Nonce(nonces.responder.clone()),
        ];
        payloads.extend(fragments.map(|_| fragmentation_supported()));
        payloads.push(cx.vendor_id.clone());
        payloads.extend(cx.settings.credentials.knows_signatures(path.pair.remote).then(Hashes::ours));
        payloads.extend(auth::request(&cx.settings.credentials, path.pair.remote));
        let response = init_answer(&message.header, spis.responder, &payloads);
        cx.out.transmit(&path, response.clone());
        let rekey_at = cx.rekey_time(path.pair, cx.settings.rekey_after * IKE_REKEY_FACTOR);
        let opened = Opened {
            path,
            begun: cx.now,
            peer: Peer::read(&parts),
            greet,
            // IKE_SA_INIT was the peer's request 0 (RFC 7296 section 2.2).
            sa: IkeSa::new(spis, false, ike, Window::new(0, 1), fragments, rekey_at),
            keys,
            nonces,
            request: datagram.to_vec(),
            response,
        };
        Ok(Session::AwaitAuthRequest(Box::new(Self(opened))))
    }

    pub(super) fn handle_message(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        message: &Message<'_>,
        datagram: &[u8],
    ) -> Option<Session> {
        if datagram == self.0.request {
            cx.out.counters.retransmits += 1;
            cx.out.transmit(&self.0.path, self.0.response.clone());
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
            && self.0.sa.owns(header);
        let Some(sealed) = message.sealed.filter(|_| expected) else {
            cx.out.counters.unexpected += 1;
            return Some(Session::AwaitAuthRequest(self));
        };
        let Some(text) = self.0.sa.open(&sealed) else {
            cx.out.counters.not_authentic += 1;
            return Some(Session::AwaitAuthRequest(self));
        };
        let Some(payloads) = self.0.sa.collect(cx, header, &sealed, text) else {
            return Some(Session::AwaitAuthRequest(self));
        };
        let outcome = payloads.and_then(|payloads| {
            let theirs = self.verify(cx, &Parts(&payloads))?;
            // A peer that knows another secret besides has shown with this one what it takes for certain.
            let ours = self.0.prove(cx, cx.settings.answering(theirs.proof()))?;
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
        let same = parts.nonce().is_ok_and(|nonce| nonce == self.0.nonces.initiator);
        if same && parts.notify(notify::COOKIE).is_some() {
            self.0.request = datagram.to_vec();
            cx.out.counters.retransmits += 1;
            cx.out.transmit(&self.0.path, self.0.response.clone());
        } else {
            cx.out.counters.unexpected += 1;
        }
    }

    /// Who it wants to talk to, if it says so, must be us.
    fn verify(&self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Verified, Error> {
        if parts.id_r().is_some_and(|id| *id != self.0.id()) {
            return Err(Unproven::Identity.into());
        }
        self.0.verify(cx, parts)
    }

    fn refuse(mut self: Box<Self>, cx: &mut Cx<'_>, error: &Error) -> Option<Session> {
        cx.fail(self.0.path.pair, Scope::Answer, failure(error), error.to_string());
        let answer = self.0.sa.seal(Exchange::IKE_AUTH, true, 1, &[error.to_notify()]).ok()?;
        cx.out.transmit_all(&self.0.path, &answer);
        let expires = cx.now + HALF_OPEN_LIFE;
        Some(Session::Refused(Box::new(Refused { path: self.0.path, sa: self.0.sa, answer, expires })))
    }

    fn establish(
        self: Box<Self>,
        cx: &mut Cx<'_>,
        theirs: Verified,
        (proof, ours): (Vec<Payload>, Proof),
        parts: &Parts<'_>,
    ) -> Session {
        let pair = self.0.path.pair;
        let mut payloads = vec![Payload::IdR(self.0.id())];
        payloads.extend(proof);
        payloads.extend(self.0.greet.then(|| Payload::notify(notify::INITIAL_CONTACT, Vec::new())));
        let introduction = Introduction {
            path: self.0.path,
            begun: self.0.begun,
            foreign: self.0.peer.foreign,
            greeted: parts.notify(notify::INITIAL_CONTACT).is_some(),
            basis: Basis { ours, theirs: theirs.proof().clone() },
        };
        let ours = self.0.sa.ours();
        let mut session = Established::new(cx, theirs, introduction, self.0.sa);
        let mut held = Held::new(Exchange::IKE_AUTH, cx.now, payloads);
        // RFC 7296 section 1.2: the child can fail where the IKE SA does not.
        match child::accept(pair, &cx.settings.esp_proposals, parts, OwnKe::Never) {
            Ok(choice) => {
                let agreement = Agreement {
                    pair,
                    offer: Offer::new(cx),
                    choice,
                    nonces: &self.0.nonces,
                    shared: None,
                    initiator: false,
                    foreign: self.0.peer.foreign,
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
        self.0.begun
    }

    pub(super) fn expires(&self) -> Instant {
        self.0.begun + HALF_OPEN_LIFE
    }

    pub(super) fn ours(&self) -> u64 {
        self.0.sa.ours()
    }

    pub(super) fn path(&self) -> &Path {
        &self.0.path
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
            && message.sealed.is_some_and(|sealed| sealed.is_first() && self.sa.open(&sealed).is_some());
        if repeated {
            cx.out.counters.retransmits += 1;
            cx.out.transmit_all(&self.path, &self.answer);
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
