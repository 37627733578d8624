//! Control IKE SAs of all pairs, and joiners: what their user asks for, who is let in, and which of several stays.

use std::time::Instant;

use super::Engine;
use super::keep::Keep;
use super::table::SessionKey;
use crate::identity::PublicKey;
use crate::ike::auth::peer::Peer;
use crate::ike::handshake::session::Session;
use crate::ike::limits::{JOINERS_MAX, TRIES_CONTROL, TRIES_FAREWELL};
use crate::ike::path::Bond;
use crate::ike::reason::{BadProof, Declined, Reason};
use crate::ike::session::established::Established;
use crate::ike::session::life::Life;
use crate::ike::session::pending::Task;
use crate::ike::wire::codes::Exchange;
use crate::ike::wire::{Message, Parts, private};
use crate::ike::{ControlEvent, ControlSettings, ControlSummary, Event, Posture, Purpose};
use crate::types::Pair;

fn control(pair: Pair) -> Bond {
    Bond { pair, purpose: Purpose::Control }
}

fn join(pair: Pair) -> Bond {
    Bond { pair, purpose: Purpose::Join }
}

impl Engine {
    // ------------------------------------------------------------------ what the agent wants

    /// Keeps a control IKE SA with the member of `pair` from now on, or only answers that member; whatever is done
    /// about the pair's traffic. Saying it again changes nothing.
    pub fn keep_control(&mut self, now: Instant, pair: Pair, posture: Posture) {
        self.now = Some(now);
        self.keep_bond(now, control(pair), posture);
    }

    /// Makes control IKE SAs with these settings from now on. Those that stand go on, and pairs do not notice.
    pub fn reconfigure_control(&mut self, now: Instant, settings: ControlSettings) {
        self.now = Some(now);
        self.settings.control = Some(settings);
        let bonds: Vec<Bond> =
            self.pairs.keys().filter(|bond| bond.purpose != Purpose::Data).copied().collect();
        for bond in bonds {
            self.pairs.get_mut(&bond).into_iter().for_each(Keep::start_over);
            self.reconsider(now, bond);
        }
    }

    /// Ends the control IKE SAs of `pair`, telling the peer, and takes none any more.
    pub fn end_control(&mut self, now: Instant, pair: Pair) {
        self.forget_bond(now, control(pair));
    }

    /// Joins by the member at the other end of `pair`. [`ControlSettings::key`](crate::ike::ControlSettings) is the key of
    /// the invite then.
    pub fn join(&mut self, now: Instant, pair: Pair) {
        self.now = Some(now);
        self.keep_bond(now, join(pair), Posture::Active);
    }

    /// Gives up joining, or sends a joiner away.
    pub fn end_join(&mut self, now: Instant, pair: Pair) {
        self.forget_bond(now, join(pair));
    }

    /// Takes the peer that was introduced: the session counts from now on. A joiner replaces others from the same address
    /// or with the same invite.
    pub fn admit(&mut self, now: Instant, session: SessionKey) {
        let Some(state) = self.table.get(session).and_then(Session::introduced) else { return };
        let (bond, key) = (state.path().bond(), state.key().cloned());
        if bond.purpose == Purpose::Join && !state.is_initiator() {
            let others = self.joiners_with(key.as_ref()).into_iter().chain(self.sessions_of(bond));
            for other in others.filter(|other| *other != session).collect::<Vec<_>>() {
                self.with_established(now, other, |state, _| state.close(TRIES_FAREWELL));
            }
        }
        self.work_on(now, session, |session, cx| match session {
            Session::AwaitVerdict(state) => Some(state.admit(cx)),
            other => Some(other),
        });
    }

    /// Whether the member of `pair` that was introduced still waits to be admitted.
    pub fn is_introduced(&self, pair: Pair, session: SessionKey) -> bool {
        let introduced = self.table.get(session).and_then(Session::introduced);
        introduced.is_some_and(|state| state.path().bond() == control(pair))
    }

    /// Does not take the peer that was introduced, and tells it so.
    pub fn refuse(&mut self, now: Instant, session: SessionKey) {
        self.refuse_for(now, session, &BadProof::NotAdmitted.into());
    }

    fn refuse_for(&mut self, now: Instant, session: SessionKey, reason: &Reason) {
        self.work_on(now, session, |session, cx| match session {
            Session::AwaitVerdict(state) => state.refuse(cx, reason),
            other => Some(other),
        });
    }

    /// Asks the peer on the control IKE SAs of `pair` whether it is there. One that gets no answer is gone.
    pub fn check_control(&mut self, now: Instant, pair: Pair) {
        self.with_each(now, control(pair), |session| session.add_task(Task::Liveness));
    }

    /// Tries at once what is lacking: the peer may have control IKE SAs now.
    pub fn hurry_control(&mut self, now: Instant, pair: Pair) {
        self.hurry_bond(now, control(pair), false);
    }

    /// How the control IKE SAs of `pair` stand, or those of its joiner; `None` where there are to be none.
    pub fn control(&self, pair: Pair, purpose: Purpose) -> Option<ControlSummary> {
        let bond = Bond { pair, purpose };
        let keep = self.pairs.get(&bond).filter(|_| purpose != Purpose::Data)?;
        let standing = self.standing(bond);
        let newest = standing.iter().max_by_key(|session| session.since());
        Some(ControlSummary {
            posture: keep.posture,
            sessions: standing.len(),
            key: newest.and_then(|session| session.basis().theirs.key()).cloned(),
            heard: keep.heard.filter(|_| newest.is_some()),
            last_failure: keep.last_failure.as_ref().map(|(_, failure)| failure.clone()),
        })
    }

    /// Makes a successor of the control IKE SAs of `pair` now, whatever their age.
    #[cfg(any(test, fuzzing))]
    pub fn rekey_control(&mut self, now: Instant, pair: Pair) {
        for key in self.sessions_of(control(pair)) {
            self.with_established(now, key, |session, cx| session.succeed_ike(cx));
        }
    }

    // ------------------------------------------------------------------ who is let in

    /// What a first request is for. A foreign peer never means a control IKE SA, whatever it says, and a host without
    /// any takes none.
    pub(super) fn purpose_of(&self, message: &Message<'_>) -> Purpose {
        let parts = Parts(&message.payloads);
        let negotiates = message.header.exchange == Exchange::IKE_SA_INIT;
        match self.settings.control.is_some() && negotiates && !Peer::read(&parts).foreign {
            true => private::purpose(&parts),
            false => Purpose::Data,
        }
    }

    /// Whether somebody between these addresses may begin an IKE SA for that purpose.
    pub(super) fn lets_in(&self, bond: Bond) -> bool {
        match bond.purpose {
            Purpose::Data | Purpose::Control => self.pairs.contains_key(&bond),
            Purpose::Join => {
                self.settings.control.as_ref().is_some_and(|control| !control.invites.is_empty())
            }
        }
    }

    /// A peer has proven itself and waits to be admitted. The number of joiners has a limit.
    pub(super) fn note_introduced(&mut self, now: Instant, bond: Bond, session: SessionKey) {
        let Some(state) = self.table.get(session).and_then(Session::introduced) else { return };
        let Some(key) = state.key().cloned() else { return };
        let mark = state.mark().to_vec();
        if bond.purpose == Purpose::Join && !state.is_initiator() {
            // Whoever begins anew does so in its own place.
            let others = self.joiners_with(Some(&key));
            let others = others.into_iter().filter(|other| *other != session).collect::<Vec<_>>();
            if self.table.joiners().saturating_sub(others.len()) > JOINERS_MAX {
                self.out.counters.joiners_refused += 1;
                return self.refuse_for(now, session, &Declined::JoinersMost.into());
            }
            // An older one that still waits has lost its place.
            others.into_iter().for_each(|other| self.refuse(now, other));
            let Self { pairs, entropy, .. } = self;
            let keep = || Keep::new(Posture::Passive, Life::begin(entropy));
            let sessions = &mut pairs.entry(bond).or_insert_with(keep).sessions;
            if !sessions.contains(&session) {
                sessions.push(session);
            }
        }
        let Bond { pair, purpose } = bond;
        let event = ControlEvent::Introduced { session, key, mark };
        self.out.events.push_back(Event::Control { pair, purpose, event });
    }

    /// The joiners with the invite of that key.
    fn joiners_with(&self, invite: Option<&PublicKey>) -> Vec<SessionKey> {
        let joined = self.pairs.iter().filter(|(bond, _)| bond.purpose == Purpose::Join);
        let sessions = joined.flat_map(|(_, keep)| keep.sessions.iter().copied());
        let has_it = |it: &Session| it.is_joiner() && it.key() == invite;
        let mut joined: Vec<_> = sessions.filter(|key| self.table.get(*key).is_some_and(has_it)).collect();
        joined.sort();
        joined
    }

    // ------------------------------------------------------------------ which of several stays

    /// The sessions that were admitted and do not end.
    fn standing(&self, bond: Bond) -> Vec<&Established> {
        let sessions = self.pairs.get(&bond).into_iter().flat_map(|keep| &keep.sessions);
        sessions.filter_map(|key| self.established(*key)).filter(|session| !session.is_closing()).collect()
    }

    /// A session was admitted. If there are others, the peer shows which of them it knows.
    pub(super) fn have_confirmed(&mut self, now: Instant, bond: Bond) {
        if bond.purpose == Purpose::Control && self.standing(bond).len() > 1 {
            self.with_each(now, bond, |session| session.add_task(Task::Liveness));
        }
    }

    /// Ends the control IKE SAs of `bond` that are older than the newest one that the peer knows. One end decides, or each
    /// would end the one that the other prefers.
    fn supersede(&mut self, now: Instant, bond: Bond) {
        if bond.purpose == Purpose::Join || !self.settings.inside.initiates(bond.pair) {
            return;
        }
        let age = |key: SessionKey| {
            let session = self.established(key).filter(|session| !session.is_closing())?;
            Some((session.since(), key, session.is_confirmed()))
        };
        let ages: Vec<_> = self.sessions_of(bond).into_iter().filter_map(age).collect();
        let known = ages.iter().filter(|(.., confirmed)| *confirmed).map(|(since, key, _)| (*since, *key));
        let Some(newest) = known.max() else { return };
        for (_, key, _) in ages.iter().filter(|(since, key, _)| (*since, *key) < newest) {
            let key = *key;
            self.with_established(now, key, |session, _| session.close(TRIES_CONTROL));
        }
    }

    /// Looks at the sessions without children again, and tells of their end.
    pub(super) fn review_control(&mut self, now: Instant, bond: Bond) {
        if bond.purpose == Purpose::Data {
            return;
        }
        self.supersede(now, bond);
        let stands = !self.standing(bond).is_empty();
        let Some(keep) = self.pairs.get_mut(&bond) else { return };
        if std::mem::replace(&mut keep.stands, stands) && !stands {
            let Bond { pair, purpose } = bond;
            self.out.events.push_back(Event::Control { pair, purpose, event: ControlEvent::Ended });
        }
        // Nothing is left of a joiner that is gone.
        let gone = keep.posture == Posture::Passive && keep.sessions.is_empty();
        if bond.purpose == Purpose::Join && gone {
            self.pairs.remove(&bond);
        }
    }
}
