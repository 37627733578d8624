//! The responder's way to an established session (RFC 7296 section 1.2).

use std::time::Instant;

use super::first_request::Attempt;
use super::half_open::{HalfOpen, fragmentation_supported, fragments};
use super::intermediate::{Answered, AwaitIntermediateRequest, intermediate_supported};
use super::ppk::{MixedIn, Mixing};
use super::session::Session;
use crate::identity::Proof;
use crate::ike::auth;
use crate::ike::auth::Verified;
use crate::ike::auth::basis::Basis;
use crate::ike::auth::peer::Peer;
use crate::ike::auth::signature::Hashes;
use crate::ike::control::Purpose;
use crate::ike::crypto::agreement::KeyPair;
use crate::ike::crypto::keys::{Nonces, Seed, Spis, derive};
use crate::ike::crypto::suite::{OwnKe, choose_ike};
use crate::ike::limits::{COPIES_MAX, HALF_OPEN_LIFE, IKE_REKEY_FACTOR};
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::path::Path;
use crate::ike::reason::{BadProof, Incompatible, Misbehaved, Reason};
use crate::ike::session::child;
use crate::ike::session::child::{Agreement, Offer};
use crate::ike::session::established::{Established, Introduction};
use crate::ike::session::exchange::{Datagrams, Window};
use crate::ike::session::ike_sa::IkeSa;
use crate::ike::session::life::Greeted;
use crate::ike::session::nat::Claims;
use crate::ike::session::pending::{HeldChild, HeldRequest};
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Header, HeaderFlags, Ke, Message, Parts, Payload, write_clear};
use crate::types::Method;

/// Has answered IKE_SA_INIT, and IKE_INTERMEDIATE if there is one.
pub struct AwaitAuthRequest {
    pub(super) half_open: HalfOpen,
    intermediate: Option<Answered>,
}

/// Has refused IKE_AUTH, or what comes before it.
pub struct Refused {
    path: Path,
    exchange: Exchange,
    message_id: u32,
    sa: IkeSa,
    answer: Datagrams,
    expires: Instant,
}

/// An answer in the clear to the first request, which has `header`.
pub fn init_answer(header: &Header, ours: u64, payloads: &[Payload]) -> Vec<u8> {
    let header = Header {
        responder_spi: ours,
        flags: HeaderFlags { from_initiator: false, response: true },
        ..*header
    };
    write_clear(header, payloads)
}

impl HalfOpen {
    /// Says why not, and remembers nothing but that.
    pub fn refuse(
        mut self,
        cx: &mut Cx<'_>,
        exchange: Exchange,
        message_id: u32,
        error: &Reason,
    ) -> Option<Session> {
        cx.out.failures.push((self.path.pair, FailureScope::Hint, error.clone().hearsay()));
        let answer = self.sa.encrypt(cx.entropy, exchange, true, message_id, &[error.to_notify()]).ok()?;
        cx.out.transmit_all(&self.path, &answer);
        let expires = cx.now + HALF_OPEN_LIFE;
        let Self { path, sa, .. } = self;
        Some(Session::Refused(Box::new(Refused { path, exchange, message_id, sa, answer, expires })))
    }

    /// When an initiator that does not go on is forgotten.
    pub fn expires(&self) -> Instant {
        self.begun + HALF_OPEN_LIFE
    }
}

impl AwaitAuthRequest {
    /// Answers the IKE_SA_INIT request in `message`, which was `datagram` on the wire. `attempt` says
    /// what ours is to be like.
    pub fn start(
        cx: &mut Cx<'_>,
        mut path: Path,
        attempt: Attempt,
        message: &Message<'_>,
        datagram: &[u8],
    ) -> Result<Session, Reason> {
        if path.purpose == Purpose::Data && !cx.settings.accepts(Method::Ike) {
            return Err(Incompatible::Method(Method::Ike).into());
        }
        let parts = Parts(&message.payloads);
        // RFC 9370 section 2.2.1: additional exchanges need IKE_INTERMEDIATE.
        let additional = parts.notify(notify::INTERMEDIATE_EXCHANGE_SUPPORTED).is_some();
        let (answer, suite, _) = choose_ike(&cx.settings.ike_proposals, parts.sa()?, additional)?;
        let ke = parts.ke().ok_or(Misbehaved::NoPublicValue)?;
        let group = suite.negotiated_group()?;
        // RFC 7296 section 1.2: asks for a public value of the group chosen.
        if ke.group != group.id() {
            return Err(Incompatible::Group(group.id()).into());
        }
        let key = KeyPair::generate(group, cx.entropy)?;
        let shared = key.agree(&ke.data)?;
        let nonces = Nonces { initiator: parts.nonce()?.to_vec(), responder: cx.nonce() };
        let spis = Spis { initiator: message.header.initiator_spi, responder: cx.ike_spi() };
        let (ike, keys) = derive(suite, &Seed::Fresh(&shared), &nonces, spis, false)?;
        let claims = Claims::ours(cx, &path, spis, attempt.blocked);
        if let Some(claims) = &claims {
            let asked = Spis { responder: 0, ..spis };
            path.nat = claims.compare(&parts, asked, &path)?;
        }
        let fragments = fragments(cx, &path, &parts);
        let peer = Peer::read(&parts);
        // RFC 8784 section 3: whether one is required shows with IKE_AUTH, where it is known who asks.
        let mixing = Mixing::new(cx.settings.ppks(path.bond()), path.pair.local, &parts);
        let intermediate = suite.additional.is_some() || mixing.mixed_in() == MixedIn::Intermediate;
        let mut payloads = vec![
            Payload::Sa(vec![answer]),
            Payload::Ke(Ke { group: group.id(), data: key.public().to_vec() }),
            Payload::Nonce(nonces.responder.clone()),
        ];
        payloads.extend(fragments.map(|_| fragmentation_supported()));
        payloads.extend(claims.iter().flat_map(Claims::payloads));
        payloads.extend(intermediate.then(intermediate_supported));
        payloads.push(cx.vendor_id.clone());
        payloads.extend(cx.settings.knows_signatures(path.purpose, path.pair.remote).then(Hashes::ours));
        payloads.extend(match path.purpose {
            Purpose::Data => auth::request(&cx.settings.credentials, path.pair.remote),
            // RFC 6023 section 3.
            Purpose::Control | Purpose::Join => {
                Some(Payload::notify(notify::CHILDLESS_IKEV2_SUPPORTED, Vec::new()))
            }
        });
        payloads.extend(mixing.payload());
        let response = init_answer(&message.header, spis.responder, &payloads);
        cx.out.transmit(&path, response.clone());
        let rekey_at = cx.rekey_time(path.pair, cx.settings.rekey_after * IKE_REKEY_FACTOR);
        let half_open = HalfOpen {
            path,
            begun: cx.now,
            peer,
            met: cx.now,
            greeting: attempt.greeting,
            fallback: attempt.fallback,
            resumption: None,
            // IKE_SA_INIT was the peer's request 0 (RFC 7296 section 2.2).
            sa: IkeSa::new(spis, false, ike, Window::new(0, 1), fragments, rekey_at),
            keys,
            mixing,
            nonces,
            intermediate: Vec::new(),
            auth_id: 1,
            request: datagram.to_vec(),
            copies: Vec::new(),
            response,
            variants: Vec::new(),
        };
        Ok(match half_open.needs_intermediate() {
            true => Session::AwaitIntermediateRequest(Box::new(AwaitIntermediateRequest { half_open })),
            false => Session::AwaitAuthRequest(Box::new(Self::new(half_open, None))),
        })
    }

    /// Waits for IKE_AUTH, which follows `intermediate`.
    pub fn new(half_open: HalfOpen, intermediate: Option<Answered>) -> Self {
        Self { half_open, intermediate }
    }

    pub fn handle_message(mut self: Box<Self>, cx: &mut Cx<'_>, message: &Message<'_>) -> Option<Session> {
        if self.intermediate.as_ref().is_some_and(|it| it.answers_again(cx, &self.half_open, message)) {
            return Some(Session::AwaitAuthRequest(self));
        }
        let whole = match self.half_open.receive(cx, message, Exchange::IKE_AUTH, self.half_open.auth_id) {
            None => return Some(Session::AwaitAuthRequest(self)),
            Some(whole) => whole,
        };
        let outcome = whole.and_then(|whole| {
            let mut payloads = whole.payloads()?;
            self.half_open.take_ppk(cx, &mut payloads)?;
            let theirs =
                self.verify(cx, &Parts(&payloads)).map_err(|error| self.half_open.blame_ppk(error))?;
            self.half_open.ensure_ppk(cx)?;
            // A peer that knows another secret besides has shown with this one what it takes for certain.
            let proof = theirs.proof();
            let ours = self.half_open.prove(cx, cx.settings.answering(proof), Some(proof))?;
            Ok((theirs, ours, payloads))
        });
        match outcome {
            Ok((theirs, ours, payloads)) => Some(self.establish(cx, theirs, ours, &Parts(&payloads))),
            Err(error) => {
                let auth_id = self.half_open.auth_id;
                self.half_open.refuse(cx, Exchange::IKE_AUTH, auth_id, &error)
            }
        }
    }

    /// If the initiator names whom it wants to talk to, that must be us.
    fn verify(&mut self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Verified, Reason> {
        let path = &self.half_open.path;
        // RFC 7296 section 2.23.
        if path.nat.is_found() && path.local.port() != cx.settings.nat_port {
            return Err(Misbehaved::StaysOnPort.into());
        }
        if parts.id_r().is_some_and(|id| *id != self.half_open.id(cx)) {
            return Err(BadProof::Identity.into());
        }
        self.half_open.verify_initiator(cx, parts)
    }

    fn establish(
        self: Box<Self>,
        cx: &mut Cx<'_>,
        theirs: Verified,
        (proof, ours): (Vec<Payload>, Proof),
        parts: &Parts<'_>,
    ) -> Session {
        if self.half_open.path.purpose != Purpose::Data {
            return self.half_open.answer_member(cx, theirs, (proof, ours), parts);
        }
        let pair = self.half_open.path.pair;
        let mut payloads = vec![Payload::IdR(self.half_open.id(cx))];
        payloads.extend(proof);
        payloads.extend(self.half_open.greeting.payloads());
        payloads.extend(self.half_open.ppk_used());
        let introduction = Introduction {
            path: self.half_open.path,
            begun: self.half_open.begun,
            foreign: self.half_open.peer.foreign,
            greeted: Greeted::read(parts, self.half_open.met),
            basis: Basis {
                ours,
                theirs: theirs.proof().clone(),
                method: self.half_open.method(),
                initiated: false,
                ppk: self.half_open.mixing.used().cloned(),
                wished_ppk: self.half_open.mixing.wished().cloned(),
            },
        };
        let ours = self.half_open.sa.ours();
        let mut session = Established::new(cx, theirs, introduction, self.half_open.sa);
        let mut held = HeldRequest::new(Exchange::IKE_AUTH, cx.now, payloads);
        // RFC 7296 section 1.2: the child can fail where the IKE SA does not.
        let path = self.half_open.path;
        let proposals = cx.settings.esp_proposals.without_key_exchange();
        match child::accept(&path, &proposals, parts, OwnKe::Never) {
            Ok((choice, selectors)) => {
                let agreement = Agreement {
                    path,
                    offer: Offer::new(cx),
                    choice,
                    nonces: &self.half_open.nonces,
                    shared: None,
                    additional: None,
                    initiator: false,
                    foreign: self.half_open.peer.foreign,
                    replaces: None,
                };
                let payloads = child::answer(&agreement.offer, &agreement.choice, Vec::new(), selectors);
                held.child = Some(HeldChild::new(agreement.offer.in_spi, payloads));
                session.announce(cx, &agreement, parts);
            }
            Err(error) => {
                cx.fail(pair, FailureScope::Answer, error.clone());
                held.payloads.push(error.to_notify());
            }
        }
        session.hold(ours, held);
        Session::Established(Box::new(session))
    }
}

impl HalfOpen {
    /// The initiator's first request came once more, maybe with another cookie: it gets the same answer.
    pub fn answer_again(&mut self, cx: &mut Cx<'_>, datagram: &[u8]) {
        if datagram != self.request && !self.copies.iter().any(|copy| copy == datagram) {
            // A copy without a cookie was answered with one asked for, another made this session: what the initiator
            // signs is the copy that it sent last (RFC 7296 section 2.6). Which that is shows with its AUTH.
            if self.copies.len() >= COPIES_MAX {
                cx.out.counters.unexpected += 1;
                return;
            }
            self.copies.push(datagram.to_vec());
        }
        cx.out.counters.retransmits += 1;
        cx.out.transmit(&self.path, self.response.clone());
    }
}

impl Refused {
    /// The same request gets the same answer.
    pub fn handle_message(self: Box<Self>, cx: &mut Cx<'_>, message: &Message<'_>) -> Session {
        let header = &message.header;
        let repeated = header.exchange == self.exchange
            && !header.flags.response
            && header.message_id == self.message_id
            && self.sa.owns(header)
            && message
                .encrypted
                .is_some_and(|encrypted| encrypted.is_first() && self.sa.decrypt(&encrypted).is_some());
        if repeated {
            cx.out.counters.retransmits += 1;
            cx.out.transmit_all(&self.path, &self.answer);
        } else {
            cx.out.counters.unexpected += 1;
        }
        Session::Refused(self)
    }

    pub fn handle_timeout(self: Box<Self>, cx: &mut Cx<'_>) -> Option<Session> {
        (cx.now < self.expires).then_some(Session::Refused(self))
    }

    pub fn expires(&self) -> Instant {
        self.expires
    }

    pub fn ours(&self) -> u64 {
        self.sa.ours()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}
