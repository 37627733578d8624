//! IKE_SESSION_RESUME (RFC 5723 section 4.3), both roles: keys out of a ticket that both ends can compute, and
//! two nonces.
//!
//! The one difference from a ticket that a responder hands out: nothing in it is secret, since what it stands
//! for has to be derived from the secret of the cluster (`ticket`). IKE_AUTH proves who knows it.

use super::first_request::{Attempt, FirstRequest};
use super::half_open::{HalfOpen, fragmentation_supported, fragments};
use super::initiation::FirstMessage;
use super::ppk::Mixing;
use super::respond::{AwaitAuthRequest, init_answer};
use super::session::Session;
use super::ticket::{Resumption, SUITE, Ticket};
use crate::ike::auth::peer::Peer;
use crate::ike::crypto::Hidden;
use crate::ike::crypto::keys::{Nonces, Seed, Spis, derive};
use crate::ike::limits::IKE_REKEY_FACTOR;
use crate::ike::outbox::Cx;
use crate::ike::path::Path;
use crate::ike::reason::{BadTicket, Failed, Misbehaved, Reason, Refusal};
use crate::ike::session::exchange::Window;
use crate::ike::session::ike_sa::IkeSa;
use crate::ike::session::nat::Claims;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Message, Parts, Payload};
use crate::types::{Method, Pair};

impl Method {
    /// The exchange that an IKE SA begins with whose keys are made so.
    pub(in crate::ike) fn exchange(self) -> Exchange {
        match self {
            Method::Ike => Exchange::IKE_SA_INIT,
            Method::Derived => Exchange::IKE_SESSION_RESUME,
        }
    }
}

/// Has sent IKE_SESSION_RESUME.
pub struct AwaitResumeResponse {
    first: FirstRequest,
    resumption: Resumption,
    /// What its ticket stands for.
    sk_d: Hidden,
    /// As it was on the wire.
    request: Vec<u8>,
}

/// What both ends know after the exchange.
struct Resumed<'a> {
    resumption: Resumption,
    sk_d: &'a Hidden,
    nonces: Nonces,
    spis: Spis,
    initiator: bool,
    attempt: Attempt,
}

impl Resumed<'_> {
    /// The IKE SA that it makes, with a peer whose message had these `parts`.
    fn half_open(
        self,
        cx: &mut Cx<'_>,
        path: Path,
        parts: &Parts<'_>,
        (request, response): (Vec<u8>, Vec<u8>),
    ) -> Result<HalfOpen, Reason> {
        let Self { resumption, sk_d, nonces, spis, initiator, attempt } = self;
        let (ike, keys) = derive(SUITE, &Seed::Resumed(sk_d), &nonces, spis, initiator)?;
        // IKE_SESSION_RESUME was the initiator's request 0, IKE_AUTH is its request 1.
        let window = if initiator { Window::new(2, 0) } else { Window::new(0, 1) };
        let rekey_at = cx.rekey_time(path.pair, cx.settings.rekey_after * IKE_REKEY_FACTOR);
        let fragments = fragments(cx, &path, parts);
        Ok(HalfOpen {
            path,
            begun: cx.now,
            met: cx.now,
            peer: Peer::read(parts),
            greeting: attempt.greeting,
            fallback: attempt.fallback,
            resumption: Some(resumption),
            sa: IkeSa::new(spis, initiator, ike, window, fragments, rekey_at),
            keys,
            mixing: Mixing::default(),
            nonces,
            intermediate: Vec::new(),
            auth_id: 1,
            request,
            copies: Vec::new(),
            response,
            variants: Vec::new(),
        })
    }
}

impl AwaitResumeResponse {
    /// Sends the first message.
    pub fn start(cx: &mut Cx<'_>, path: Path, attempt: Attempt) -> Result<FirstMessage, Reason> {
        let secret = cx.settings.signing(attempt.fallback).ok_or(Failed::Cryptography)?;
        let listed = cx.settings.inside.listed(path.pair.local);
        let ticket = Ticket::to_present(secret, &cx.settings.cluster, Pair { local: listed, ..path.pair });
        let sk_d = ticket.sk_d(secret, &cx.settings.cluster);
        let first = FirstRequest::new(cx, Method::Derived.exchange(), path, attempt);
        let resumption = Resumption { ticket, secret: secret.id() };
        let mut state = Self { first, resumption, sk_d, request: Vec::new() };
        state.send(cx);
        Ok(FirstMessage::Resume(state))
    }

    fn send(&mut self, cx: &mut Cx<'_>) {
        let mut payloads = vec![
            Payload::Nonce(self.first.nonce.clone()),
            Payload::notify(notify::TICKET_OPAQUE, self.resumption.ticket.to_bytes()),
            fragmentation_supported(),
        ];
        payloads.extend(self.first.claims());
        payloads.push(cx.vendor_id.clone());
        self.request = self.first.send(cx, payloads);
    }

    /// Takes in an answer. Gives back what it leads to, if somebody may prove to be the peer by it.
    pub(super) fn take_answer(
        &mut self,
        cx: &mut Cx<'_>,
        message: &Message<'_>,
        datagram: &[u8],
    ) -> Option<HalfOpen> {
        let parts = Parts(&message.payloads);
        if let Some(cookie) = parts.notify(notify::COOKIE) {
            // RFC 5723 section 4.3.2: as before IKE_SA_INIT.
            if self.first.take_cookie(cx, &cookie.data) {
                self.send(cx);
            }
            return None;
        }
        // TICKET_NACK is no more proven than any other answer in the clear: it is a hint, and a better answer
        // may still come.
        let nack = parts.notify(notify::TICKET_NACK).map(|_| Refusal::Ticket);
        let outcome = match nack.or(parts.refusal()) {
            Some(refusal) => Err(refusal.into()),
            None => self.conclude(cx, message, datagram),
        };
        outcome.inspect_err(|error| self.first.take_hint(cx, error)).ok()
    }

    fn conclude(&self, cx: &mut Cx<'_>, message: &Message<'_>, datagram: &[u8]) -> Result<HalfOpen, Reason> {
        let (header, parts) = (&message.header, Parts(&message.payloads));
        let FirstRequest { begun, attempt, ours, ref nonce, .. } = self.first;
        if header.responder_spi == 0 {
            return Err(Misbehaved::NoSpi.into());
        }
        let resumed = Resumed {
            resumption: self.resumption.clone(),
            sk_d: &self.sk_d,
            nonces: Nonces { initiator: nonce.clone(), responder: parts.nonce()?.to_vec() },
            spis: Spis { initiator: ours, responder: header.responder_spi },
            initiator: true,
            attempt,
        };
        let path = self.first.through(cx, &parts, resumed.spis)?;
        let half_open = resumed.half_open(cx, path, &parts, (self.request.clone(), datagram.to_vec()))?;
        Ok(HalfOpen { begun, ..half_open })
    }

    pub fn request(&self) -> &FirstRequest {
        &self.first
    }

    pub(super) fn request_mut(&mut self) -> &mut FirstRequest {
        &mut self.first
    }
}

/// Answers the IKE_SESSION_RESUME request in `message`, which was `datagram` on the wire. `attempt` says what
/// ours is to be like.
///
/// # Errors
/// Its ticket is not taken: nothing is remembered.
pub fn answer(
    cx: &mut Cx<'_>,
    mut path: Path,
    attempt: Attempt,
    message: &Message<'_>,
    datagram: &[u8],
) -> Result<Session, Reason> {
    let settings = cx.settings;
    if !settings.accepts(Method::Derived) {
        return Err(BadTicket::NotAccepted.into());
    }
    let parts = Parts(&message.payloads);
    let presented = parts.notify(notify::TICKET_OPAQUE).ok_or(BadTicket::Missing)?;
    let ticket = Ticket::parse(&presented.data)?;
    let secret = ticket.accept(settings, path.pair)?;
    let sk_d = ticket.sk_d(secret, &settings.cluster);
    let resumption = Resumption { ticket, secret: secret.id() };
    let nonces = Nonces { initiator: parts.nonce()?.to_vec(), responder: cx.nonce() };
    let spis = Spis { initiator: message.header.initiator_spi, responder: cx.ike_spi() };
    // RFC 5723 section 4.3.2: the addresses are looked at as in IKE_SA_INIT.
    let claims = Claims::ours(cx, &path, spis, attempt.blocked);
    if let Some(claims) = &claims {
        path.nat = claims.compare(&parts, Spis { responder: 0, ..spis }, &path)?;
    }
    let mut payloads = vec![Payload::Nonce(nonces.responder.clone())];
    payloads.extend(fragments(cx, &path, &parts).map(|_| fragmentation_supported()));
    payloads.extend(claims.iter().flat_map(Claims::payloads));
    payloads.push(cx.vendor_id.clone());
    let response = init_answer(&message.header, spis.responder, &payloads);
    let resumed = Resumed { resumption, sk_d: &sk_d, nonces, spis, initiator: false, attempt };
    let half_open = resumed.half_open(cx, path, &parts, (datagram.to_vec(), response.clone()))?;
    cx.out.transmit(&path, response);
    Ok(Session::AwaitAuthRequest(Box::new(AwaitAuthRequest::new(half_open, None))))
}
