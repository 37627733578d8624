//! The first message of an initiator, until it is answered: cookies, refusals that nobody has proven, and
//! retransmission, whatever exchange it belongs to.

use std::time::Instant;

use crate::ike::crypto::keys::Spis;
use crate::ike::limits::{ANSWER_PATIENCE, COOKIE_LENGTH, COOKIES_MAX};
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::path::Path;
use crate::ike::reason::{Failure, Reason, Unanswered};
use crate::ike::session::exchange::Retransmission;
use crate::ike::session::life::{Greeting, Life};
use crate::ike::session::nat::Claims;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Header, HeaderFlags, Message, Parts, Payload, write_clear};

/// What one attempt is to be like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// What IKE_AUTH is to say of what this end remembers.
    pub greeting: Greeting,
    /// It is to be signed with the secret before the current one.
    pub fallback: bool,
    /// ESP by itself does not get through.
    pub blocked: bool,
    /// The peer is probably not there.
    pub sparse: bool,
}

impl Attempt {
    /// What an answer to a joiner is like, which knows nothing of this end.
    pub fn towards_joiner(life: Life) -> Self {
        let greeting = Greeting { initial_contact: false, life };
        Self { greeting, fallback: false, blocked: false, sparse: false }
    }
}

/// The first request of an attempt of ours.
pub struct FirstRequest {
    /// Between which addresses.
    pub path: Path,
    /// When it was begun.
    pub begun: Instant,
    /// What it is to be like.
    pub attempt: Attempt,
    claims: Option<Claims>,
    /// Our index.
    pub ours: u64,
    /// Our nonce.
    pub nonce: Vec<u8>,
    exchange: Exchange,
    cookie: Option<Vec<u8>>,
    cookies: u32,
    sent: Retransmission,
    /// Why not, as somebody said who need not be the peer.
    hint: Option<Failure>,
}

impl FirstRequest {
    /// One that is to begin with `exchange`.
    pub fn new(cx: &mut Cx<'_>, exchange: Exchange, path: Path, attempt: Attempt) -> Self {
        let ours = cx.ike_spi();
        Self {
            path,
            begun: cx.now,
            attempt,
            claims: Claims::ours(cx, &path, Spis { initiator: ours, responder: 0 }, attempt.blocked),
            ours,
            nonce: cx.nonce(),
            exchange,
            cookie: None,
            cookies: 0,
            sent: Retransmission::knocking(cx.now, Vec::new()),
            hint: None,
        }
    }

    /// Sends a request with `payloads`, from now on again and again. Gives back how it is on the wire.
    pub fn send(&mut self, cx: &mut Cx<'_>, payloads: Vec<Payload>) -> Vec<u8> {
        let header = Header {
            initiator_spi: self.ours,
            responder_spi: 0,
            first: 0,
            exchange: self.exchange,
            flags: HeaderFlags { from_initiator: true, response: false },
            message_id: 0,
        };
        // RFC 7296 section 2.6: the cookie comes first and the rest stays as it was; section 2.6.1: it stays
        // with all further requests.
        let cookie = self.cookie.as_ref().map(|cookie| Payload::notify(notify::COOKIE, cookie.clone()));
        let payloads: Vec<_> = cookie.into_iter().chain(payloads).collect();
        let bytes = write_clear(header, &payloads);
        cx.out.transmit(&self.path, bytes.clone());
        let message = vec![bytes.clone()];
        self.sent = match self.attempt.sparse {
            true => Retransmission::sparse(cx.now, message),
            false => Retransmission::knocking(cx.now, message),
        }
        .by(cx.late);
        bytes
    }

    /// What the request says of the addresses of both ends.
    pub fn claims(&self) -> impl Iterator<Item = Payload> {
        self.claims.iter().flat_map(Claims::payloads)
    }

    /// The path to go on by after an answer with these `parts` and indexes.
    pub fn through(&self, cx: &Cx<'_>, parts: &Parts<'_>, spis: Spis) -> Result<Path, Reason> {
        let nat = self.claims.as_ref().map(|claims| claims.compare(parts, spis, &self.path));
        Ok(self.path.through(nat.transpose()?.unwrap_or_default(), cx.settings.nat_port))
    }

    /// Whether a message can be the answer.
    pub fn is_answer(&self, cx: &mut Cx<'_>, message: &Message<'_>) -> bool {
        let header = &message.header;
        let expected = header.exchange == self.exchange
            && header.flags == HeaderFlags { from_initiator: false, response: true }
            && header.message_id == 0;
        cx.out.counters.unexpected += u64::from(!expected);
        expected
    }

    /// RFC 7296 section 2.6: the request is to be sent with this cookie. Says whether it is taken.
    pub(super) fn take_cookie(&mut self, cx: &mut Cx<'_>, cookie: &[u8]) -> bool {
        if self.cookies >= COOKIES_MAX || !COOKIE_LENGTH.contains(&cookie.len()) {
            cx.out.counters.unexpected += 1;
            return false;
        }
        self.cookies += 1;
        self.cookie = Some(cookie.to_vec());
        true
    }

    /// Somebody says why not, and need not be the peer. It is told once.
    pub(super) fn take_hint(&mut self, cx: &mut Cx<'_>, error: &Reason) {
        let hint = error.clone().hearsay();
        if self.hint.is_none() {
            cx.out.failures.push((self.path.pair, FailureScope::Hint, hint.clone()));
        }
        self.hint = Some(hint);
    }

    /// Sends the request again when that is due. Says whether an answer may still come.
    pub fn retransmit(&mut self, cx: &mut Cx<'_>) -> bool {
        cx.retransmit(&self.path, &mut self.sent)
    }

    /// Somebody has answered, and is to show first whether it was the peer.
    pub fn pause(&mut self, now: Instant) {
        self.sent.pause(now + ANSWER_PATIENCE);
    }

    /// Why nothing has come of it.
    pub fn failure(&mut self) -> Failure {
        let silence = || Reason::from(Unanswered::First(self.path.remote)).failure();
        self.hint.take().unwrap_or_else(silence)
    }

    /// Begins anew, with `tries` from `now` on.
    pub fn restart(&mut self, now: Instant, tries: u32) {
        self.sent.restart(now, tries);
    }

    /// Whether the peer may be about to answer: one that has not by the time that it is asked again is no longer
    /// waited for by others.
    pub(super) fn is_fresh(&self) -> bool {
        !self.sent.is_repeated()
    }

    pub fn due(&self) -> Instant {
        self.sent.due()
    }
}
