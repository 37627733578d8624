//! A session: one run of IKE with one peer, from the first message to the last.
//!
//! Its states are structs named for what they await; a transition consumes one and makes the next.
//! ```text
//!   Initiation, where each answer goes through ------------------\
//!     [AwaitIntermediateResponse ->] AwaitAuthResponse            >-> Established -> gone
//!   [AwaitIntermediateRequest ->] AwaitAuthRequest -------------/
//!              \-----------------------\-> Refused -> gone
//! ```
//! Before Established, control IKE SAs of either end are in AwaitVerdict, from which Refused may follow, too.

use std::time::Instant;

use super::half_open::HalfOpen;
use super::initiation::Initiation;
use super::intermediate::AwaitIntermediateRequest;
use super::member::AwaitVerdict;
use super::respond::{AwaitAuthRequest, Refused};
use crate::identity::PublicKey;
use crate::ike::control::Purpose;
use crate::ike::outbox::Cx;
use crate::ike::path::Path;
use crate::ike::session::established::Established;
use crate::ike::session::pending::Task;
use crate::ike::wire::Message;

/// A session in one of its states.
pub enum Session {
    /// We have begun.
    Initiation(Box<Initiation>),
    /// IKE_SA_INIT is answered, and IKE_INTERMEDIATE is to follow.
    AwaitIntermediateRequest(Box<AwaitIntermediateRequest>),
    /// What comes before IKE_AUTH is answered.
    AwaitAuthRequest(Box<AwaitAuthRequest>),
    /// IKE_AUTH, or what comes before it, was refused; only the answer is kept, should it not have arrived.
    Refused(Box<Refused>),
    /// The peer of a control IKE SA is proven, and is to be admitted.
    AwaitVerdict(Box<AwaitVerdict>),
    /// The peer is proven.
    Established(Box<Established>),
}

impl Session {
    /// Takes in a message for one of [`Session::spis`]. `datagram` is the message as it was on the wire.
    /// `None`: the session is gone.
    pub fn handle_message(self, cx: &mut Cx<'_>, message: &Message<'_>, datagram: &[u8]) -> Option<Self> {
        match self {
            Session::Initiation(state) => state.handle_message(cx, message, datagram),
            Session::AwaitIntermediateRequest(state) => state.handle_message(cx, message),
            Session::AwaitAuthRequest(state) => state.handle_message(cx, message),
            Session::Refused(state) => Some(state.handle_message(cx, message)),
            // It says it again.
            Session::AwaitVerdict(state) => {
                cx.out.counters.unexpected += 1;
                Some(Session::AwaitVerdict(state))
            }
            Session::Established(state) => state.handle_message(cx, message).map(Session::Established),
        }
    }

    /// The first request of the peer came once more. Whoever has gone on has the answer already.
    pub fn answer_again(&mut self, cx: &mut Cx<'_>, datagram: &[u8]) {
        match self.half_open_mut() {
            Some(half_open) => half_open.answer_again(cx, datagram),
            None => cx.out.counters.unexpected += 1,
        }
    }

    /// Does what is due. `None`: the session is gone.
    pub fn handle_timeout(self, cx: &mut Cx<'_>) -> Option<Self> {
        match self {
            Session::Initiation(state) => state.handle_timeout(cx),
            Session::AwaitIntermediateRequest(_) | Session::AwaitAuthRequest(_) => {
                self.half_open().is_some_and(|half_open| cx.now < half_open.expires()).then_some(self)
            }
            Session::Refused(state) => state.handle_timeout(cx),
            Session::AwaitVerdict(state) => state.handle_timeout(cx),
            Session::Established(state) => state.handle_timeout(cx).map(Session::Established),
        }
    }

    /// Puts answers and requests together that are ready to be sent.
    pub fn flush(&mut self, cx: &mut Cx<'_>) {
        if let Session::Established(state) = self {
            state.flush(cx);
        }
    }

    /// An inbound SA that is there before the peer has proven itself is not to be there any more.
    pub fn withdraw_ahead(&mut self, cx: &mut Cx<'_>) {
        if let Session::Initiation(state) = self {
            state.withdraw_ahead(cx);
        }
    }

    /// The network is there again after a while without.
    pub fn path_is_back(&mut self, now: Instant) {
        match self {
            Session::Initiation(state) => state.path_is_back(now),
            Session::Established(state) => state.add_task(Task::Liveness),
            Session::AwaitIntermediateRequest(_)
            | Session::AwaitAuthRequest(_)
            | Session::Refused(_)
            | Session::AwaitVerdict(_) => {}
        }
    }

    /// When the next thing is due, and what.
    pub fn deadline(&self) -> Option<(Instant, &'static str)> {
        match self {
            Session::Initiation(state) => state.deadline(),
            Session::AwaitIntermediateRequest(_) | Session::AwaitAuthRequest(_) => {
                self.half_open().map(|half_open| (half_open.expires(), "half-open session expires"))
            }
            Session::Refused(state) => Some((state.expires(), "refused session expires")),
            Session::AwaitVerdict(state) => Some((state.until(), "nobody has admitted the peer")),
            Session::Established(state) => state.deadline(),
        }
    }

    /// Our indexes, by which the peer's messages find this session.
    pub fn spis(&self) -> Vec<u64> {
        match self {
            Session::Initiation(state) => vec![state.request().ours],
            Session::Refused(state) => vec![state.ours()],
            Session::AwaitVerdict(state) => vec![state.ours()],
            Session::Established(state) => state.spis().collect(),
            _ => self.half_open().map(|half_open| half_open.sa.ours()).into_iter().collect(),
        }
    }

    /// Between whom.
    pub fn path(&self) -> &Path {
        match self {
            Session::Initiation(state) => &state.request().path,
            Session::AwaitIntermediateRequest(state) => &state.half_open.path,
            Session::AwaitAuthRequest(state) => &state.half_open.path,
            Session::Refused(state) => state.path(),
            Session::AwaitVerdict(state) => state.path(),
            Session::Established(state) => state.path(),
        }
    }

    /// The IKE SA, while its initiator, who is not us, has yet to prove itself.
    fn half_open(&self) -> Option<&HalfOpen> {
        match self {
            Session::AwaitIntermediateRequest(state) => Some(&state.half_open),
            Session::AwaitAuthRequest(state) => Some(&state.half_open),
            _ => None,
        }
    }

    fn half_open_mut(&mut self) -> Option<&mut HalfOpen> {
        match self {
            Session::AwaitIntermediateRequest(state) => Some(&mut state.half_open),
            Session::AwaitAuthRequest(state) => Some(&mut state.half_open),
            _ => None,
        }
    }

    /// The session, if its peer is proven.
    pub fn established(&self) -> Option<&Established> {
        match self {
            Session::Established(state) => Some(state),
            _ => None,
        }
    }

    /// What is known of a peer that is to be admitted.
    pub fn introduced(&self) -> Option<&AwaitVerdict> {
        match self {
            Session::AwaitVerdict(state) => Some(state),
            _ => None,
        }
    }

    /// The key that its peer has proven itself with.
    pub fn key(&self) -> Option<&PublicKey> {
        let established = self.established().and_then(|it| it.basis().theirs.key());
        established.or(self.introduced().and_then(AwaitVerdict::key))
    }

    /// Whether its peer has proven itself to this end by an invite.
    pub fn is_joiner(&self) -> bool {
        let established = self.established().is_some_and(|it| it.is_joiner() && !it.is_closing());
        let introduced = self.introduced().filter(|state| !state.is_initiator());
        established || introduced.is_some_and(|state| state.path().purpose == Purpose::Join)
    }

    /// Whether we are on the way to an established session that we initiated.
    pub fn is_initiating(&self) -> bool {
        match self {
            Session::Initiation(state) => state.is_hopeful(),
            Session::AwaitVerdict(state) => state.is_initiator(),
            _ => false,
        }
    }

    /// Whether it is an attempt of ours that has failed, and listens on.
    pub fn is_listening(&self) -> bool {
        matches!(self, Session::Initiation(state) if !state.is_hopeful())
    }

    /// Whether that takes room: the peer answers, or has had little time yet to do so.
    pub fn takes_room(&self) -> bool {
        match self {
            Session::Initiation(state) => state.takes_room(),
            _ => self.is_initiating(),
        }
    }

    /// Since when the peer is on the way to one that it initiated.
    pub fn half_open_since(&self) -> Option<Instant> {
        let introduced = self.introduced().filter(|state| !state.is_initiator()).map(AwaitVerdict::begun);
        self.half_open().map(|half_open| half_open.begun).or(introduced)
    }

    /// Whether its initiator, who is not us, has made us remember it without a proof, or waits to join. A member that waits
    /// to be admitted has proven itself: nobody else takes its place, and few wait for the place of one.
    pub fn is_unproven(&self) -> bool {
        let is_member = self.introduced().is_some() && !self.is_joiner();
        (self.half_open_since().is_some() && !is_member) || matches!(self, Session::Refused(_))
    }

    /// Octets of messages that have not come as a whole yet.
    pub fn held_octets(&self) -> usize {
        match self {
            Session::Initiation(state) => state.held_octets(),
            Session::Established(state) => state.held_octets(),
            _ => self.half_open().map_or(0, |half_open| half_open.sa.held_octets()),
        }
    }
}
