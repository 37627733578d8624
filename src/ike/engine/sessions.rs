//! The sessions of a pair: how each is handed what comes in, what follows from it, and which of several goes.

use std::time::Instant;

use super::Engine;
use super::table::SessionKey;
use crate::ike::handshake::session::Session;
use crate::ike::limits::SESSIONS_MAX_PAIR;
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::path::Bond;
use crate::ike::session::established::Established;
use crate::ike::{ControlEvent, Event, Purpose};
use crate::types::{Pair, Spi};

impl Engine {
    /// Lets a session take something in, and draws the conclusions.
    pub(super) fn work_on(
        &mut self,
        now: Instant,
        key: SessionKey,
        input: impl FnOnce(Session, &mut Cx<'_>) -> Option<Session>,
    ) {
        self.now = Some(now);
        let Some(session) = self.table.take(key) else { return };
        let (bond, was_established) = (session.path().bond(), session.established().is_some());
        let was_introduced = session.introduced().is_some();
        let fragment_room = self.table.budget().fragment_room(bond);
        let session = input(session, &mut Cx { fragment_room, ..cx!(self, now) });
        if std::mem::take(&mut self.out.heard)
            && let Some(keep) = self.pairs.get_mut(&bond)
        {
            keep.heard = Some(now);
        }
        self.note_failures(bond.purpose);
        match session {
            Some(session) => {
                let establishes = !was_established && session.established().is_some();
                let introduces = !was_introduced && session.introduced().is_some();
                self.table.put_back(key, session);
                if establishes {
                    self.note_established(now, bond, key);
                }
                if introduces {
                    self.note_introduced(now, bond, key);
                }
            }
            None => self.forget_session(bond, key),
        }
        self.reconsider(now, bond);
    }

    /// Lets a session put together what it has to send.
    pub(super) fn flush(&mut self, now: Instant, key: SessionKey) {
        let Some(mut session) = self.table.take(key) else { return };
        let bond = session.path().bond();
        session.flush(&mut cx!(self, now));
        self.table.put_back_flushed(key, session);
        self.note_failures(bond.purpose);
        self.reconsider(now, bond);
    }

    /// What has failed of sessions of that purpose.
    pub(super) fn note_failures(&mut self, purpose: Purpose) {
        for (pair, scope, failure) in std::mem::take(&mut self.out.failures) {
            let bond = Bond { pair, purpose };
            // A session that was superseded, and whose peer no longer knows it, is missed by nobody.
            let hint = scope == FailureScope::Hint;
            let missed = !(hint || scope == FailureScope::Ike) || !self.has_live_session(bond);
            if !hint {
                self.out.counters.note_failure(scope, &failure);
            }
            let refused = scope == FailureScope::Ike && failure.asks_for_other_proof();
            let rotating = self.settings.can_fall_back(bond.pair.remote) && purpose == Purpose::Data;
            let Some(keep) = self.pairs.get_mut(&bond) else { continue };
            if !missed {
                // An attempt beside a session that serves counts by its end; hints do not.
                self.out.counters.hearsay += u64::from(hint);
                if scope == FailureScope::Ike {
                    keep.proof_failed(failure);
                }
            } else if !(refused && rotating && keep.fall_back()) {
                keep.failed(scope, failure.clone());
                self.out.events.push_back(match purpose {
                    Purpose::Data => Event::Failed { pair, failure, hint },
                    Purpose::Control | Purpose::Join => {
                        Event::Control { pair, purpose, event: ControlEvent::Failed { failure, hint } }
                    }
                });
            }
        }
    }

    /// A peer has proven itself. One that does so again and again does not fill our tables: a
    /// session without a child goes, or else the oldest.
    fn note_established(&mut self, now: Instant, bond: Bond, key: SessionKey) {
        let wall = self.wall(now);
        let basis = self.established(key).map(Established::basis);
        let may_do_better = basis.is_some_and(|basis| basis.may_do_better(&self.settings, wall));
        let took = self.established(key).map(|session| session.since() - session.begun());
        self.out.counters.handshakes.done += 1;
        took.into_iter().for_each(|took| self.out.counters.handshake_durations.note(took));
        let Some(keep) = self.pairs.get_mut(&bond) else { return };
        keep.ike_established(may_do_better);
        self.drop_former(now, bond, key);
        self.have_confirmed(now, bond);
        let mut proven = self.sessions_of(bond);
        proven.retain(|key| self.established(*key).is_some());
        let serves = |key: &&SessionKey| self.established(**key).is_some_and(Established::serves);
        let useless = proven.iter().find(|key| !serves(key));
        if proven.len() > SESSIONS_MAX_PAIR
            && let Some(dropped) = useless.or(proven.first()).copied()
        {
            self.out.counters.sessions_dropped += 1;
            self.drop_session(now, dropped);
        }
    }

    /// Another session is established: where it shows that the peer has begun anew, earlier ones are void. So is
    /// itself, if it comes late.
    fn drop_former(&mut self, now: Instant, bond: Bond, new: SessionKey) {
        let Some(greeted) = self.established(new).map(|session| *session.greeted()) else { return };
        for key in self.sessions_of(bond) {
            let Some(other) = self.established(key).map(|session| *session.greeted()) else { continue };
            if other.is_former_to(&greeted) {
                self.drop_session(now, key);
            } else if greeted.is_former_to(&other) {
                self.drop_session(now, new);
                return;
            }
        }
    }

    /// Silently forgets a session. The peer may go on using its children, until others have taken over.
    pub(super) fn drop_session(&mut self, now: Instant, key: SessionKey) {
        self.work_on(now, key, |session, cx| {
            if let Session::Established(mut state) = session {
                state.end_children(cx, false);
            }
            None
        });
    }

    /// Whether a session of `bond`, other than one being worked on, is established and not ending.
    fn has_live_session(&self, bond: Bond) -> bool {
        let sessions = self.pairs.get(&bond).into_iter().flat_map(|keep| &keep.sessions);
        sessions.filter_map(|key| self.established(*key)).any(|session| !session.is_closing())
    }

    pub(super) fn add_session(&mut self, bond: Bond, key: SessionKey) {
        if let Some(keep) = self.pairs.get_mut(&bond) {
            keep.sessions.push(key);
        }
    }

    pub(in crate::ike) fn sessions_of(&self, bond: impl Into<Bond>) -> Vec<SessionKey> {
        self.pairs.get(&bond.into()).map(|keep| keep.sessions.clone()).unwrap_or_default()
    }

    pub(super) fn established(&self, key: SessionKey) -> Option<&Established> {
        self.table.get(key)?.established()
    }

    /// The session of `pair` that has the child.
    pub(super) fn session_of(&self, pair: Pair, in_spi: Spi) -> Option<SessionKey> {
        self.found(pair, in_spi).map(|(key, _)| key)
    }

    /// The same, to look at.
    pub(super) fn established_of(&self, pair: Pair, in_spi: Spi) -> Option<&Established> {
        self.found(pair, in_spi).map(|(_, session)| session)
    }

    fn found(&self, pair: Pair, in_spi: Spi) -> Option<(SessionKey, &Established)> {
        let sessions = self.pairs.get(&pair.into())?.sessions.iter();
        let mut established = sessions.filter_map(|key| Some((*key, self.established(*key)?)));
        established.find(|(_, session)| session.child(in_spi).is_some())
    }

    pub(in crate::ike) fn with_established(
        &mut self,
        now: Instant,
        key: SessionKey,
        input: impl FnOnce(&mut Established, &mut Cx<'_>),
    ) {
        self.work_on(now, key, |mut session, cx| {
            if let Session::Established(state) = &mut session {
                input(state, cx);
            }
            Some(session)
        });
    }

    pub(in crate::ike) fn with_child(
        &mut self,
        now: Instant,
        pair: Pair,
        in_spi: Spi,
        input: impl FnOnce(&mut Established, &mut Cx<'_>),
    ) {
        if let Some(key) = self.session_of(pair, in_spi) {
            self.with_established(now, key, input);
        }
    }

    pub(super) fn with_each(
        &mut self,
        now: Instant,
        bond: impl Into<Bond>,
        input: impl Fn(&mut Established),
    ) {
        for key in self.sessions_of(bond) {
            self.with_established(now, key, |session, _| input(session));
        }
    }
}
