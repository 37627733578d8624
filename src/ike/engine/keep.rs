//! One pair that is to be kept keyed: when this host initiates, and how long it waits after failures.

use std::time::{Duration, Instant};

use super::knock::{Knocks, Standing};
use super::table::SessionKey;
use crate::ike::handshake::first_request::Attempt;
use crate::ike::limits::{PROOF_PATIENCE, SECOND_INITIATOR_WAIT, SPARSE_AFTER};
use crate::ike::outbox::{FailureScope, backoff, up_to};
use crate::ike::reason::Incompatible;
use crate::ike::session::life::{Greeting, Life};
use crate::ike::{Entropy, Failure, FailureCode, Posture, Purpose, Settings};

/// What a pair lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// An IKE SA.
    Ike,
    /// A child on an IKE SA that is there.
    Child,
    /// An IKE SA with the proofs that are wanted now, besides one with others.
    Proof,
    /// An IKE SA whose ESP goes in UDP, or does not, as it should, besides one that serves.
    Encapsulation,
}

/// How many peers do not answer: whether their turns are given out faster than they pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crowd {
    Few,
    Many,
}

/// What is remembered of a pair.
pub struct Keep {
    /// What this host does about it.
    pub posture: Posture,
    /// Its sessions, oldest first.
    pub sessions: Vec<SessionKey>,
    /// The life that it is in at this end.
    pub life: Life,
    /// INITIAL_CONTACT has been said.
    greeted: bool,
    /// The pair's address came to this host while it ran: of this pair there was nothing here before.
    pub arrived: bool,
    /// The peer did not take the current secret: the next attempt is with the one before.
    pub fallback: bool,
    /// ESP by itself does not get through, as far as was found out.
    pub(super) esp_blocked: bool,
    /// When an unproven offer with nothing that could be taken was last told.
    pub(super) hinted: Option<Instant>,
    /// When this host begins to make up for what is lacking.
    pub(super) next_try: Option<(Instant, Lack)>,
    /// It waits in [`Knocks`] until there is room for one more attempt.
    pub waits: bool,
    /// Who the peer is to this host.
    pub(super) standing: Standing,
    /// Its turn among those that do not answer is given, and whether there were others before it.
    turn: Option<Crowd>,
    /// Why the last attempt failed, and at what.
    pub last_failure: Option<(FailureScope, Failure)>,
    ike_failures: u32,
    child_failures: u32,
    proof_failures: u32,
    /// Why the last attempt beside an IKE SA which serves failed.
    pub unproven: Option<Failure>,
    /// When something authentic of the peer came last.
    pub heard: Option<Instant>,
    /// A session without children was admitted, and stands.
    pub stands: bool,
}

impl Keep {
    pub fn new(posture: Posture, life: Life) -> Self {
        Self {
            posture,
            sessions: Vec::new(),
            life,
            greeted: false,
            arrived: false,
            fallback: false,
            esp_blocked: false,
            hinted: None,
            next_try: None,
            waits: false,
            standing: Standing::Unknown,
            turn: None,
            last_failure: None,
            ike_failures: 0,
            child_failures: 0,
            proof_failures: 0,
            unproven: None,
            heard: None,
            stands: false,
        }
    }

    /// What an attempt at an IKE SA for that purpose is to be like now.
    pub fn attempt(&self, settings: &Settings, purpose: Purpose) -> Attempt {
        let knows_none = (settings.initial_contact || self.arrived) && !self.greeted;
        // RFC 7296 section 2.4: it would be about all IKE SAs of the two hosts.
        let initial_contact = knows_none && purpose == Purpose::Data;
        let greeting = Greeting { initial_contact, life: self.life };
        Attempt { greeting, fallback: self.fallback, blocked: self.esp_blocked, sparse: false }
    }

    /// The settings have changed: what failed may succeed now. Waits begin again.
    pub(super) fn start_over(&mut self) {
        (self.ike_failures, self.child_failures, self.proof_failures) = (0, 0, 0);
        (self.fallback, self.unproven) = (false, None);
    }

    /// The peer does not take the secret that was tried. Whether the one before is still to be tried.
    pub(super) fn fall_back(&mut self) -> bool {
        self.fallback = !self.fallback;
        self.fallback
    }

    /// An attempt failed that was made beside an IKE SA which serves.
    pub(super) fn proof_failed(&mut self, failure: Failure) {
        self.note_refused(&failure);
        self.proof_failures = self.proof_failures.saturating_add(1);
        self.unproven = Some(failure);
    }

    /// Counts a failure.
    pub fn failed(&mut self, scope: FailureScope, failure: Failure) {
        match scope {
            FailureScope::Ike => {
                self.ike_failures = self.ike_failures.saturating_add(1);
                self.fallback = false;
                self.note_refused(&failure);
            }
            FailureScope::Child => self.child_failures = self.child_failures.saturating_add(1),
            // What the peer tries does not slow down what we try, and a hint may be forged.
            FailureScope::Answer | FailureScope::Hint => {}
        }
        self.last_failure = Some((scope, failure));
    }

    /// How many times longer this host waits after failures: a peer without control IKE SAs will not have any before
    /// its software or its settings change, and whoever knows of that calls [`Keep::hurry`].
    fn patience(&self) -> u32 {
        let reason = self.last_failure.as_ref().map(|(_, failure)| &failure.reason);
        let unknown = reason.is_some_and(|it| *it == Incompatible::NoControl.into());
        if unknown { PROOF_PATIENCE } else { 1 }
    }

    /// A peer that takes no ESP in UDP is not asked for it for ever: ESP by itself may get through again.
    fn note_refused(&mut self, failure: &Failure) {
        self.esp_blocked &= failure.code() != FailureCode::NoProposal;
    }

    /// The peer has proven itself. `may_do_better`: it is asked again, and more seldom each time.
    pub(super) fn ike_established(&mut self, may_do_better: bool) {
        self.greeted = true;
        self.standing = Standing::Known;
        (self.ike_failures, self.unproven) = (0, None);
        let fallback = std::mem::take(&mut self.fallback);
        let failures = self.proof_failures.saturating_add(1);
        self.proof_failures = if may_do_better { failures } else { fallback.into() };
        self.last_failure.take_if(|(scope, _)| *scope != FailureScope::Child);
    }

    /// A child is in the kernel.
    pub(super) fn child_established(&mut self) {
        self.child_failures = 0;
        self.last_failure = None;
    }

    /// An attempt is due. If nobody answered the last one, this one takes its turn: when that is, if it is not now.
    pub(super) fn wait_for_turn(&mut self, now: Instant, knocks: &mut Knocks) -> Option<Instant> {
        if self.ike_failures == 0 || self.turn.is_some() {
            return None;
        }
        let turn = Some(knocks.take_turn(now, self.standing)).filter(|turn| *turn > now);
        self.turn = Some(if turn.is_some() { Crowd::Many } else { Crowd::Few });
        turn
    }

    /// The planned attempt is begun. Says whether the peer is probably not there, as many are not.
    pub fn begin(&mut self) -> bool {
        self.next_try = None;
        self.turn.take() == Some(Crowd::Many) || self.ike_failures >= SPARSE_AFTER
    }

    /// Forgets the failures, which had a reason that is gone, and tries soon what is lacking.
    pub fn hurry(&mut self, now: Instant, jitter: Duration, entropy: &mut dyn Entropy) {
        (self.ike_failures, self.child_failures) = (0, 0);
        self.next_try = self.next_try.map(|(at, lack)| (at.min(now + up_to(entropy, jitter)), lack));
    }

    /// Plans when to try to make up for a lack. `first`: this end initiates by rule. `busy_until`: the peer may be
    /// about to make up for it.
    pub(super) fn plan(
        &mut self,
        now: Instant,
        first: bool,
        lack: Option<Lack>,
        busy_until: Option<Instant>,
        jitter: Duration,
        entropy: &mut dyn Entropy,
    ) {
        let Some(lack) = lack.filter(|_| self.posture == Posture::Active) else {
            self.next_try = None;
            return;
        };
        let planned = self.next_try.filter(|(_, planned)| *planned == lack).map(|(at, _)| at);
        let at = planned.unwrap_or_else(|| {
            let turn = if first || self.fallback { Duration::ZERO } else { SECOND_INITIATOR_WAIT };
            // An IKE SA whose child fails is of no help either.
            let failures = self.proof_failures.max(self.child_failures);
            let spread = match lack {
                Lack::Ike if self.ike_failures == 0 => up_to(entropy, jitter),
                Lack::Ike => backoff(self.ike_failures, entropy) * self.patience(),
                Lack::Child if self.child_failures == 0 => Duration::ZERO,
                Lack::Child => backoff(self.child_failures, entropy),
                Lack::Proof if failures == 0 => up_to(entropy, jitter),
                Lack::Encapsulation if self.proof_failures == 0 => Duration::ZERO,
                Lack::Encapsulation => backoff(self.proof_failures, entropy),
                // A peer that does not know it yet comes to us as soon as it does.
                Lack::Proof => backoff(failures, entropy) * PROOF_PATIENCE,
            };
            now + turn + spread
        });
        self.next_try = Some((busy_until.map_or(at, |until| at.max(until)), lack));
    }
}
