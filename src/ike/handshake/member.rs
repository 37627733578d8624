//! IKE_AUTH of control IKE SAs, both roles: without a child (RFC 6023), with a mark of each end, and with the consent of
//! whoever uses the engine before the session counts.
//!
//! ```text
//! initiator                               responder
//!   AwaitMemberResponse                     AwaitAuthRequest
//!     --- IKE_AUTH: IDi, IDr, AUTH, mark --->  AwaitVerdict
//!     <-- IKE_AUTH: IDr, AUTH, mark ---------    admitted: Established | refused: Refused
//!   AwaitVerdict
//!     admitted: Established | refused: gone, and the responder is told
//! ```

use std::time::Instant;

use super::half_open::{Asking, HalfOpen};
use super::initiation::{Candidate, Step};
use super::session::Session;
use crate::identity::{Proof, PublicKey};
use crate::ike::auth::Verified;
use crate::ike::auth::basis::Basis;
use crate::ike::limits::VERDICT_LIFE;
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::path::Path;
use crate::ike::reason::{BadProof, Declined, Later, Reason};
use crate::ike::session::established::{Established, Introduction};
use crate::ike::session::life::Greeted;
use crate::ike::session::pending::HeldRequest;
use crate::ike::wire::codes::Exchange;
use crate::ike::wire::{Id, Message, Parts, Payload, private};
use crate::types::Method;

/// Has sent IKE_AUTH.
pub struct AwaitMemberResponse {
    pub(super) asking: Asking,
    /// What we proved ourselves with.
    ours: Proof,
}

/// The peer has proven itself, and nothing is said or heard until it is admitted.
pub struct AwaitVerdict {
    half_open: HalfOpen,
    theirs: Verified,
    /// What we proved ourselves with.
    ours: Proof,
    greeted: Greeted,
    /// What the answer to the peer's IKE_AUTH says; `None` where this end has begun.
    answer: Option<Vec<Payload>>,
    mark: Vec<u8>,
    until: Instant,
}

impl HalfOpen {
    /// What this end says of itself in IKE_AUTH besides.
    fn mark(&self, cx: &Cx<'_>) -> Payload {
        let control = cx.settings.control.as_ref();
        private::of_mark(control.map(|control| control.mark(self.path.purpose)).unwrap_or_default())
    }

    /// The peer has proven itself with `theirs` in a message with these `parts`, and this end with `ours`.
    fn introduce(
        self,
        cx: &Cx<'_>,
        theirs: Verified,
        ours: Proof,
        answer: Option<Vec<Payload>>,
        parts: &Parts<'_>,
    ) -> Session {
        let (greeted, mark) = (Greeted::read(parts, self.met), private::mark(parts));
        let until = cx.now + VERDICT_LIFE;
        let state = AwaitVerdict { half_open: self, theirs, ours, greeted, answer, mark, until };
        Session::AwaitVerdict(Box::new(state))
    }

    /// The initiator has proven itself in a request with these `parts`; the answer is to have `proof`.
    pub(super) fn answer_member(
        self,
        cx: &Cx<'_>,
        theirs: Verified,
        (proof, ours): (Vec<Payload>, Proof),
        parts: &Parts<'_>,
    ) -> Session {
        let mut answer = vec![Payload::IdR(self.id(cx))];
        answer.extend(proof);
        answer.extend(self.greeting.payloads());
        answer.push(self.mark(cx));
        // RFC 6023 section 4 has no child in it. Whoever asks for one all the same gets none.
        answer.extend(parts.sa().is_ok().then(|| Reason::from(Declined::Childless).to_notify()));
        self.introduce(cx, theirs, ours, Some(answer), parts)
    }
}

impl AwaitMemberResponse {
    /// Sends IKE_AUTH.
    pub(super) fn start(cx: &mut Cx<'_>, half_open: HalfOpen) -> Step {
        let (proof, ours) = match half_open.prove(cx, None, None) {
            Ok(proven) => proven,
            Err(error) => return Step::Over(error.failure()),
        };
        let mut payloads = vec![Payload::IdI(half_open.id(cx))];
        payloads.extend(half_open.greeting.payloads());
        payloads.push(Payload::IdR(Id::of(half_open.path.pair.remote)));
        payloads.extend(proof);
        payloads.push(half_open.mark(cx));
        let id = half_open.auth_id;
        match half_open.ask(cx, Exchange::IKE_AUTH, id, &payloads) {
            Ok(asking) => Step::On(Candidate::Member(Box::new(Self { asking, ours }))),
            Err(error) => Step::Over(error.failure()),
        }
    }

    pub(super) fn handle_message(mut self: Box<Self>, cx: &mut Cx<'_>, message: &Message<'_>) -> Step {
        let half_open = &mut self.asking.half_open;
        let auth_id = half_open.auth_id;
        let Some(whole) = half_open.receive(cx, message, Exchange::IKE_AUTH, auth_id) else {
            return Step::On(Candidate::Member(self));
        };
        let outcome = whole.and_then(|whole| {
            let payloads = whole.payloads()?;
            Ok((half_open.read_auth(cx, &Parts(&payloads))?, payloads))
        });
        match outcome {
            Ok((theirs, payloads)) => {
                let Self { asking, ours } = *self;
                Step::Proven(asking.half_open.introduce(cx, theirs, ours, None, &Parts(&payloads)))
            }
            Err(error) => {
                half_open.withdraw(cx, &error);
                Step::Over(error.hearsay())
            }
        }
    }

    pub(super) fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>) -> Step {
        match self.asking.retransmit(cx) {
            true => Step::On(Candidate::Member(self)),
            false => Step::Over(self.asking.half_open.unanswered(Later::Auth)),
        }
    }
}

impl AwaitVerdict {
    /// What the peer has proven itself with.
    pub fn key(&self) -> Option<&PublicKey> {
        self.theirs.proof().key()
    }

    /// What the peer says of itself.
    pub fn mark(&self) -> &[u8] {
        &self.mark
    }

    /// Whether this end has begun.
    pub fn is_initiator(&self) -> bool {
        self.half_open.sa.is_initiator()
    }

    /// When the first message of the session was sent or came.
    pub(super) fn begun(&self) -> Instant {
        self.half_open.begun
    }

    pub fn path(&self) -> &Path {
        &self.half_open.path
    }

    /// Our index.
    pub(super) fn ours(&self) -> u64 {
        self.half_open.sa.ours()
    }

    /// When the peer is refused for want of a word.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// The session counts from now on.
    pub fn admit(self: Box<Self>, cx: &mut Cx<'_>) -> Session {
        let Self { half_open, theirs, ours, greeted, answer, .. } = *self;
        let basis = Basis {
            ours,
            theirs: theirs.proof().clone(),
            method: Method::Ike,
            initiated: half_open.sa.is_initiator(),
            ppk: None,
            wished_ppk: None,
        };
        let HalfOpen { path, begun, sa, .. } = half_open;
        let introduction = Introduction { path, begun, foreign: false, greeted, basis };
        let name = sa.ours();
        let mut session = Established::new(cx, theirs, introduction, sa);
        if let Some(payloads) = answer {
            session.hold(name, HeldRequest::new(Exchange::IKE_AUTH, cx.now, payloads));
        }
        // What it has proven itself with may have been withdrawn meanwhile.
        session.review(cx).ok();
        Session::Established(Box::new(session))
    }

    /// The peer is told that its proof is not taken, and not why.
    pub fn refuse(self: Box<Self>, cx: &mut Cx<'_>, reason: &Reason) -> Option<Session> {
        let Self { mut half_open, answer, .. } = *self;
        if answer.is_some() {
            let id = half_open.auth_id;
            return half_open.refuse(cx, Exchange::IKE_AUTH, id, reason);
        }
        half_open.withdraw(cx, reason);
        cx.fail(half_open.path.pair, FailureScope::Ike, reason.clone());
        None
    }

    /// A peer that nobody admits in time is refused.
    pub(super) fn handle_timeout(self: Box<Self>, cx: &mut Cx<'_>) -> Option<Session> {
        match cx.now < self.until {
            true => Some(Session::AwaitVerdict(self)),
            false => self.refuse(cx, &BadProof::NotAdmitted.into()),
        }
    }
}
