//! A half-open IKE SA (RFC 7296 section 2.6), at either end: there are keys, and the peer has yet to prove itself.

use std::time::Instant;

use super::ppk::{MixedIn, Mixing};
use super::ticket::Resumption;
use crate::identity::{Proof, Secret};
use crate::ike::auth;
use crate::ike::auth::peer::Peer;
use crate::ike::auth::{Signed, Verified};
use crate::ike::control::Purpose;
use crate::ike::crypto::keys::{AuthKeys, Nonces};
use crate::ike::limits::TRIES_HANDSHAKE;
use crate::ike::outbox::Cx;
use crate::ike::path::Path;
use crate::ike::reason::{BadProof, Failure, Incompatible, Later, Reason, Unanswered};
use crate::ike::session::exchange::Retransmission;
use crate::ike::session::fragment::Whole;
use crate::ike::session::ike_sa::IkeSa;
use crate::ike::session::life::Greeting;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Header, Id, Message, Parts, Payload};
use crate::types::Method;

/// An IKE SA with a peer that has yet to prove itself.
pub struct HalfOpen {
    /// Between which addresses.
    pub path: Path,
    /// When the first message was sent or came.
    pub begun: Instant,
    /// What the other end says of itself.
    pub peer: Peer,
    /// When the peer's first message came.
    pub met: Instant,
    /// What our IKE_AUTH is to say of what this end remembers.
    pub greeting: Greeting,
    /// Our IKE_AUTH, if it is the request, is to be proven with the secret before the current one.
    pub fallback: bool,
    /// What it was resumed against; `None` where its keys were negotiated.
    pub(super) resumption: Option<Resumption>,
    /// The IKE SA.
    pub sa: IkeSa,
    /// What proofs are made with.
    pub keys: AuthKeys,
    /// What it has to do with PPKs.
    pub(super) mixing: Mixing,
    /// The nonces of the first exchange.
    pub nonces: Nonces,
    /// What AUTH covers of IKE_INTERMEDIATE; empty where there is none.
    pub intermediate: Vec<u8>,
    /// The number of IKE_AUTH.
    pub(super) auth_id: u32,
    /// The initiator's first message as it was on the wire, which its AUTH covers.
    pub request: Vec<u8>,
    /// The same with other cookies: what the initiator has truly sent may be one of them.
    pub copies: Vec<Vec<u8>>,
    /// The responder's.
    pub response: Vec<u8>,
    /// Others with the same keys: what the responder has truly said may be one of them.
    pub(super) variants: Vec<Variant>,
}

/// Another first message that may be the responder's, and what it says.
pub struct Variant {
    response: Vec<u8>,
    ppk_mixed_in: MixedIn,
    peer: Peer,
    path: Path,
}

/// That we put fragments together (RFC 7383 section 2.3).
pub(super) fn fragmentation_supported() -> Payload {
    Payload::notify(notify::FRAGMENTATION_SUPPORTED, Vec::new())
}

/// The most octets of a datagram to a peer whose first message says that it puts fragments together.
pub fn fragments(cx: &Cx<'_>, path: &Path, parts: &Parts<'_>) -> Option<usize> {
    parts.notify(notify::FRAGMENTATION_SUPPORTED).map(|_| path.datagram_octets(cx.packet_max))
}

/// A request of ours to a peer that has yet to prove itself, until it is answered.
pub struct Asking {
    pub(super) half_open: HalfOpen,
    exchange: Exchange,
    message_id: u32,
    sent: Retransmission,
}

impl Asking {
    /// Sends the request again when that is due. Says whether an answer may still come.
    pub(super) fn retransmit(&mut self, cx: &mut Cx<'_>) -> bool {
        cx.retransmit(&self.half_open.path, &mut self.sent)
    }

    /// The network is there again after a while without.
    pub(super) fn path_is_back(&mut self, now: Instant) {
        self.sent.restart(now, TRIES_HANDSHAKE);
    }

    /// Whether a message with this header can be the answer.
    pub(super) fn awaits(&self, header: &Header) -> bool {
        (header.exchange, header.message_id) == (self.exchange, self.message_id)
    }

    /// When the request is due again.
    pub(super) fn due(&self) -> Instant {
        self.sent.due()
    }
}

impl HalfOpen {
    /// Sends the request that goes on with it.
    pub(super) fn ask(
        mut self,
        cx: &mut Cx<'_>,
        exchange: Exchange,
        message_id: u32,
        payloads: &[Payload],
    ) -> Result<Asking, Reason> {
        let request = self.sa.encrypt(cx.entropy, exchange, false, message_id, payloads)?;
        cx.out.transmit_all(&self.path, &request);
        let sent = Retransmission::new(cx.now, request, TRIES_HANDSHAKE).by(cx.late);
        Ok(Asking { half_open: self, exchange, message_id, sent })
    }

    /// Takes in a message of the exchange that is waited for. `None`: it is something else, is not authentic,
    /// or has not come as a whole yet.
    pub fn receive(
        &mut self,
        cx: &mut Cx<'_>,
        message: &Message<'_>,
        exchange: Exchange,
        message_id: u32,
    ) -> Option<Result<Whole, Reason>> {
        let header = &message.header;
        let expected = header.exchange == exchange
            && header.flags.response == self.sa.is_initiator()
            && header.message_id == message_id
            && self.sa.owns(header);
        let Some(encrypted) = message.encrypted.filter(|_| expected) else {
            cx.out.counters.unexpected += 1;
            return None;
        };
        let Some(text) = self.sa.decrypt(&encrypted) else {
            cx.out.counters.not_authentic += 1;
            return None;
        };
        // RFC 7296 section 2.23: the initiator may go on from another port, and is answered there.
        if let Some((local, remote)) = cx.came.filter(|_| !self.sa.is_initiator()) {
            (self.path.local, self.path.remote) = (local, remote);
        }
        self.sa.collect(cx, header, &encrypted, text)
    }

    /// Whether it was made of this answer.
    pub(super) fn is_from(&self, datagram: &[u8]) -> bool {
        self.response == datagram || self.variants.iter().any(|variant| variant.response == datagram)
    }

    /// Another answer leads to the same keys: one of the two is not what the responder said.
    pub(super) fn may_be(&mut self, other: HalfOpen) {
        let HalfOpen { response, peer, path, mixing, .. } = other;
        self.variants.push(Variant { response, ppk_mixed_in: mixing.mixed_in(), peer, path });
    }

    /// Goes by an answer which says that a PPK comes in there. Whether there is one.
    pub(super) fn go_by(&mut self, mixed_in: MixedIn) -> bool {
        if self.mixing.mixed_in() == mixed_in {
            return true;
        }
        let Some(other) = self.variants.iter_mut().find(|it| it.ppk_mixed_in == mixed_in) else {
            return false;
        };
        std::mem::swap(&mut self.response, &mut other.response);
        std::mem::swap(&mut self.peer, &mut other.peer);
        std::mem::swap(&mut self.path, &mut other.path);
        other.ppk_mixed_in = self.mixing.replace_mixed_in(mixed_in);
        true
    }

    /// Checks AUTH of a responder, which covers what it has truly said.
    pub(super) fn verify_responder(&mut self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Verified, Reason> {
        let first = self.verify(cx, parts);
        if first.is_ok() {
            return first;
        }
        for Variant { response, ppk_mixed_in, peer, path } in std::mem::take(&mut self.variants) {
            // What was said of PPKs has been gone by: RFC 8784 has AUTH find out where that was changed on the way.
            if ppk_mixed_in != self.mixing.mixed_in() {
                continue;
            }
            (self.response, self.peer, self.path) = (response, peer, path);
            if let Ok(verified) = self.verify(cx, parts) {
                return Ok(verified);
            }
        }
        first
    }

    /// Checks AUTH of an initiator, which covers what it has truly sent.
    pub(super) fn verify_initiator(&mut self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Verified, Reason> {
        let first = self.verify(cx, parts);
        if first.is_ok() {
            return first;
        }
        for copy in std::mem::take(&mut self.copies) {
            self.request = copy;
            if let Ok(verified) = self.verify(cx, parts) {
                return Ok(verified);
            }
        }
        first
    }

    /// How its keys were made.
    pub fn method(&self) -> Method {
        if self.resumption.is_some() { Method::Derived } else { Method::Ike }
    }

    /// What the peer is asked for, where it may prove itself with a certificate.
    pub fn request(&self, cx: &Cx<'_>) -> Option<Payload> {
        let negotiated = self.resumption.is_none() && self.path.purpose == Purpose::Data;
        negotiated.then(|| auth::request(&cx.settings.credentials, self.path.pair.remote)).flatten()
    }

    /// The peer has answered the first message, and not `what`.
    pub(super) fn unanswered(&self, what: Later) -> Failure {
        Reason::from(Unanswered::Later(what, self.path.remote)).failure()
    }

    /// Who this end is: the address that the peer knows it by or, where it joins, its invite.
    pub fn id(&self, cx: &Cx<'_>) -> Id {
        let joins = self.path.purpose == Purpose::Join && self.sa.is_initiator();
        let invite =
            cx.settings.control.as_ref().filter(|_| joins).map(|control| Id::of_key(control.key.public()));
        invite.unwrap_or_else(|| Id::of(cx.settings.inside.listed(self.path.pair.local)))
    }

    /// The payloads by which this end proves itself, and what with (RFC 7296 section 2.15). `secret` is the one
    /// to use where that is a secret; `theirs` is what the peer has proven itself with, where it began.
    pub fn prove(
        &self,
        cx: &Cx<'_>,
        secret: Option<&Secret>,
        theirs: Option<&Proof>,
    ) -> Result<(Vec<Payload>, Proof), Reason> {
        let id = self.id(cx);
        let signed = self.signed(self.sa.is_initiator(), &id);
        if let Some(resumption) = &self.resumption {
            return Ok((vec![signed.prove_resumed()], Proof::Secret(resumption.secret)));
        }
        if self.path.purpose != Purpose::Data {
            let control = cx.settings.control.as_ref().ok_or(Incompatible::NoControl)?;
            let shows = self.path.purpose == Purpose::Join && !self.sa.is_initiator();
            return signed.prove_by_key(&control.key, &self.peer, shows);
        }
        let identity = cx.settings.credentials.identity_for(self.path.pair.remote, theirs);
        signed.prove(identity, secret, &self.peer)
    }

    /// Checks AUTH of the peer, whose identity must be the address that we talk to.
    pub fn verify(&self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Verified, Reason> {
        let id = if self.sa.is_initiator() { parts.id_r() } else { parts.id_i() };
        let signed = self.signed(!self.sa.is_initiator(), id.ok_or(BadProof::Identity)?);
        if let Some(resumption) = &self.resumption {
            return self.verify_resumed(cx, &signed, resumption, parts);
        }
        if self.path.purpose != Purpose::Data {
            let control = cx.settings.control.as_ref().ok_or(Incompatible::NoControl)?;
            let joins = self.path.purpose == Purpose::Join && !self.sa.is_initiator();
            return Ok(signed.verify_by_key(control, self.path.bond(), joins, parts)?);
        }
        Ok(signed.verify(cx.settings, self.path.pair.remote, parts, cx.wall)?)
    }

    /// Checks AUTH of a peer that claims to know the ticket's secret: it must be about the two ends that
    /// the ticket names, and the secret must be a proof that is accepted from this peer.
    fn verify_resumed(
        &self,
        cx: &Cx<'_>,
        signed: &Signed<'_>,
        Resumption { ticket, secret }: &Resumption,
        parts: &Parts<'_>,
    ) -> Result<Verified, Reason> {
        let (initiator, responder) = (parts.id_i(), parts.id_r());
        let named = if self.sa.is_initiator() {
            responder == Some(&ticket.responder)
        } else {
            // RFC 5723 section 4.3.3: what the ticket says of the initiator holds.
            (initiator, responder) == (Some(&ticket.initiator), Some(&ticket.responder))
        };
        if !named {
            return Err(BadProof::Identity.into());
        }
        Ok(signed.verify_resumed(cx.settings, self.path.pair.remote, *secret, parts)?)
    }

    /// What the initiator or the responder signs, with its identity.
    fn signed<'a>(&'a self, initiator: bool, id: &'a Id) -> Signed<'a> {
        let (message, nonce) = match initiator {
            true => (&self.request, &self.nonces.responder),
            false => (&self.response, &self.nonces.initiator),
        };
        let key = if initiator == self.sa.is_initiator() { &self.keys.mine } else { &self.keys.peer };
        Signed { prf: self.sa.keys.suite.prf, message, nonce, key, id, intermediate: &self.intermediate }
    }
}
