//! Whether an initiator is let in: for which pair, within which bounds, and after which proof of its address; and which
//! session has to go for it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Engine;
use super::table::{RequestKey, SessionKey};
use crate::ike::handshake::first_request::Attempt;
use crate::ike::handshake::respond::{AwaitAuthRequest, init_answer};
use crate::ike::handshake::resume;
use crate::ike::handshake::session::Session;
use crate::ike::limits::{
    COOKIE_THRESHOLD, COOKIE_THRESHOLD_PAIR, FIRST_REQUEST_PATIENCE, HALF_OPEN_MAX, HALF_OPEN_MAX_PAIR,
    HINT_PAUSE, LISTENING_MAX_PAIR,
};
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::path::{Bond, Origin, Path};
use crate::ike::reason::{Incompatible, Reason};
use crate::ike::session::life::Life;
use crate::ike::session::nat::Nat;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Message, Parts, Payload};
use crate::types::Pair;

impl Engine {
    /// The first request of an initiator, which had `waited` to be read.
    pub(super) fn handle_first_request(
        &mut self,
        now: Instant,
        (local, remote): (SocketAddr, SocketAddr),
        waited: Duration,
        message: &Message<'_>,
        bytes: &[u8],
    ) {
        let purpose = self.purpose_of(message);
        let pair = match Pair::new(local.ip(), remote.ip()) {
            Some(pair) if self.lets_in(Bond { pair, purpose }) => pair,
            Some(pair) if self.listed.contains(&pair) || self.pairs.contains_key(&pair.into()) => {
                self.out.counters.unexpected += 1;
                return;
            }
            _ => {
                self.out.counters.unknown_pair += 1;
                self.unlisted.note(now, local.ip(), remote.ip());
                return;
            }
        };
        let header = &message.header;
        let is_first = header.flags.from_initiator && header.responder_spi == 0 && header.initiator_spi != 0;
        if !is_first || header.message_id != 0 || message.encrypted.is_some() {
            self.out.counters.unexpected += 1;
            return;
        }
        // The same request gets the same answer. One that differs may be another's: what the peer has truly sent must
        // lead to a proof, whatever copies somebody on the path has changed.
        let request = RequestKey::new(remote, message, bytes);
        if let Some(key) = self.table.by_request(request) {
            self.work_on(now, key, |mut session, cx| {
                session.answer_again(cx, bytes);
                Some(session)
            });
            return;
        }
        let path = Path { pair, purpose, local, remote, nat: Nat::default() };
        if self.may_begin(now, &path, waited, message) {
            self.make_room(now, path.bond().into());
            self.answer_first(now, path, message, bytes, request);
        }
    }

    /// Whether the initiator may be remembered. Above a threshold it must show first that its address is its own
    /// (RFC 7296 section 2.6).
    fn may_begin(&mut self, now: Instant, path: &Path, waited: Duration, message: &Message<'_>) -> bool {
        let (of_origin, all) = self.table.budget().unproven(path.bond());
        let (vain_of_origin, vain) = self.vain.count(now, path.bond().into());
        let parts = Parts(&message.payloads);
        if all + vain >= COOKIE_THRESHOLD || of_origin + vain_of_origin >= COOKIE_THRESHOLD_PAIR {
            let Ok(nonce) = parts.nonce() else {
                self.out.counters.unexpected += 1;
                return false;
            };
            let (address, spi) = (path.remote.ip(), message.header.initiator_spi);
            let presented = parts.notify(notify::COOKIE).map(|cookie| cookie.data.as_slice());
            if !presented.is_some_and(|cookie| self.cookies.accepts(now, cookie, address, spi, nonce)) {
                if waited >= FIRST_REQUEST_PATIENCE && !self.late_answers.spend(now) {
                    self.out.counters.first_requests_late += 1;
                    return false;
                }
                let cookie = self.cookies.bake(now, &mut self.entropy, address, spi, nonce);
                let answer = init_answer(&message.header, 0, &[Payload::notify(notify::COOKIE, cookie)]);
                self.out.counters.cookies += 1;
                self.out.transmit(path, answer);
                return false;
            }
        }
        true
    }

    /// Forgets the oldest unproven session where there are too many: an honest initiator is done within a round trip,
    /// and those who begin and do not go on cannot keep it out.
    fn make_room(&mut self, now: Instant, origin: Origin) {
        let budget = self.table.budget();
        let (of_origin, all) = budget.unproven(origin);
        let oldest = match (of_origin >= HALF_OPEN_MAX_PAIR, all >= HALF_OPEN_MAX) {
            (true, _) => budget.least_wanted_of(origin),
            (false, true) => budget.least_wanted(),
            (false, false) => None,
        };
        if let Some(key) = oldest {
            self.out.counters.half_open_dropped += 1;
            self.forget_unproven(now, key);
        }
    }

    /// Attempts that have failed listen on beside the next ones, but not any number of them: the oldest go.
    pub(super) fn stop_listening(&mut self, now: Instant, bond: Bond) {
        let mut listening = self.sessions_of(bond);
        listening.retain(|key| self.table.get(*key).is_some_and(Session::is_listening));
        let surplus = listening.len().saturating_sub(LISTENING_MAX_PAIR);
        for key in listening.into_iter().take(surplus) {
            self.work_on(now, key, |mut session, cx| {
                session.withdraw_ahead(cx);
                None
            });
        }
    }

    /// Forgets a session that is in nobody's hands and has nothing to say.
    fn forget_unproven(&mut self, now: Instant, key: SessionKey) {
        if let Some(session) = self.table.take(key) {
            let bond = session.path().bond();
            self.forget_session(bond, key);
            self.review_control(now, bond);
        }
    }

    /// Forgets a session that is gone.
    pub(super) fn forget_session(&mut self, bond: Bond, key: SessionKey) {
        self.table.remove(key);
        if let Some(keep) = self.pairs.get_mut(&bond) {
            keep.sessions.retain(|other| *other != key);
        }
    }

    /// Nothing in an offer could be taken, and whoever made it need not be the peer: the operator hears of it, but not
    /// more often than [`HINT_PAUSE`] allows.
    fn note_offer(&mut self, now: Instant, bond: Bond, error: &Reason) {
        let Some(keep) = self
            .pairs
            .get_mut(&bond)
            .filter(|_| matches!(error, Reason::Incompatible(Incompatible::Algorithms(_))))
        else {
            return;
        };
        if keep.hinted.is_none_or(|at| now >= at + HINT_PAUSE) {
            keep.hinted = Some(now);
            self.out.failures.push((bond.pair, FailureScope::Hint, error.clone().hearsay()));
            self.note_failures(bond.purpose);
        }
    }

    /// Answers the first request of an initiator and remembers it, or says why not and does not.
    fn answer_first(
        &mut self,
        now: Instant,
        path: Path,
        message: &Message<'_>,
        bytes: &[u8],
        request: RequestKey,
    ) {
        let bond = path.bond();
        let attempt = match self.pairs.get(&bond) {
            Some(keep) => Attempt { fallback: false, ..keep.attempt(&self.settings, bond.purpose) },
            // A joiner is remembered once it has proven itself.
            None => Attempt::towards_joiner(Life::begin(&mut self.entropy)),
        };
        let mut cx = cx!(self, now);
        let started = match message.header.exchange {
            Exchange::IKE_SESSION_RESUME => resume::answer(&mut cx, path, attempt, message, bytes),
            _ => AwaitAuthRequest::start(&mut cx, path, attempt, message, bytes),
        };
        match started {
            Ok(session) => {
                let key = self.table.insert(session, Some(request));
                self.add_session(bond, key);
                self.reconsider(now, bond);
            }
            Err(error) => {
                self.vain.note(now, bond.into());
                let answer = init_answer(&message.header, 0, &[error.to_notify()]);
                self.out.transmit(&path, answer);
                self.note_offer(now, bond, &error);
            }
        }
    }
}
