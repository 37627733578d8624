//! IKE_INTERMEDIATE: the additional key exchange between IKE_SA_INIT and IKE_AUTH (RFC 9242, RFC 9370
//! section 2.2.2). There is one at most.

use super::half_open::{Asking, HalfOpen};
use super::initiation::{Candidate, Step};
use super::respond::AwaitAuthRequest;
use super::session::Session;
use crate::ike::crypto::Hidden;
use crate::ike::crypto::kem::{KemKey, encapsulate, public_value};
use crate::ike::crypto::keys::derive;
use crate::ike::outbox::Cx;
use crate::ike::path::Path;
use crate::ike::reason::{Later, Reason};
use crate::ike::session::exchange::{Datagrams, Window};
use crate::ike::session::fragment::Whole;
use crate::ike::session::ike_sa::IkeSa;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Header, Ke, Message, Parts, Payload};
use crate::types::AdditionalKe;

/// The first exchange after IKE_SA_INIT.
const MESSAGE_ID: u32 = 1;

/// Has sent IKE_INTERMEDIATE.
pub struct AwaitIntermediateResponse {
    asking: Asking,
    key: KemKey,
    /// What AUTH covers of the request.
    covered: Vec<u8>,
}

/// Has answered IKE_SA_INIT with a suite that needs IKE_INTERMEDIATE.
pub struct AwaitIntermediateRequest {
    pub(super) half_open: HalfOpen,
    additional: AdditionalKe,
}

/// IKE_INTERMEDIATE as it was answered, for when its request comes again.
pub struct Answered {
    /// The IKE SA with its earlier keys.
    sa: IkeSa,
    answer: Datagrams,
}

/// That we know the exchange (RFC 9242 section 3.1).
pub(super) fn intermediate_supported() -> Payload {
    Payload::notify(notify::INTERMEDIATE_EXCHANGE_SUPPORTED, Vec::new())
}

impl HalfOpen {
    /// After the exchange: other keys, and more that AUTH covers (RFC 9242 section 3.3.2, RFC 9370
    /// section 2.2.2). Gives back the IKE SA with its earlier keys.
    fn advance(&mut self, secret: &Hidden, request: &[u8], response: &[u8]) -> Result<IkeSa, Reason> {
        let (suite, initiator) = (self.sa.keys.suite, self.sa.is_initiator());
        let auth_id = MESSAGE_ID + 1;
        let (i, r) =
            if initiator { (&self.keys.mine, &self.keys.peer) } else { (&self.keys.peer, &self.keys.mine) };
        let [i, r] = [(i, request), (r, response)].map(|(key, all)| suite.prf.compute(key.expose(), &[all]));
        let covered = [i.expose(), r.expose(), &auth_id.to_be_bytes()].concat();
        let seed = self.sa.keys.rekey_seed(secret, None);
        let (keys, proofs) = derive(suite, &seed, &self.nonces, self.sa.spis(), initiator)?;
        let window = if initiator { Window::new(auth_id + 1, 0) } else { Window::new(0, auth_id) };
        let renewed = self.sa.renewed(keys, window);
        (self.keys, self.intermediate, self.auth_id) = (proofs, covered, auth_id);
        Ok(std::mem::replace(&mut self.sa, renewed))
    }
}

impl AwaitIntermediateResponse {
    /// Sends the request.
    pub fn start(cx: &mut Cx<'_>, half_open: HalfOpen, additional: AdditionalKe) -> Step {
        let started = KemKey::generate(additional).and_then(|key| {
            let ke = [Payload::Ke(Ke { group: additional.id(), data: key.public().to_vec() })];
            let covered = half_open.sa.covered(Exchange::IKE_INTERMEDIATE, false, MESSAGE_ID, &ke);
            let asking = half_open.ask(cx, Exchange::IKE_INTERMEDIATE, MESSAGE_ID, &ke)?;
            Ok(Self { asking, key, covered })
        });
        match started {
            Ok(state) => Step::On(Candidate::Intermediate(Box::new(state))),
            Err(error) => Step::Over(error.failure()),
        }
    }

    pub fn handle_message(mut self: Box<Self>, cx: &mut Cx<'_>, message: &Message<'_>) -> Step {
        let whole = match self.asking.half_open.receive(cx, message, Exchange::IKE_INTERMEDIATE, MESSAGE_ID) {
            None => return Step::On(Candidate::Intermediate(self)),
            Some(whole) => whole,
        };
        match whole.and_then(|whole| self.conclude(&message.header, &whole)) {
            Ok(()) => self.asking.half_open.authenticate(cx),
            Err(error) => Step::Over(error.hearsay()),
        }
    }

    fn conclude(&mut self, header: &Header, whole: &Whole) -> Result<(), Reason> {
        let payloads = whole.payloads()?;
        let parts = Parts(&payloads);
        if let Some(refusal) = parts.refusal() {
            return Err(refusal.into());
        }
        let secret = self.key.agree(public_value(self.key.additional(), &parts)?)?;
        self.asking.half_open.advance(&secret, &self.covered, &whole.covered(header)).map(drop)
    }

    pub fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>) -> Step {
        if !self.asking.retransmit(cx) {
            return Step::Over(self.asking.half_open.unanswered(Later::Intermediate));
        }
        Step::On(Candidate::Intermediate(self))
    }

    pub(super) fn asking(&self) -> &Asking {
        &self.asking
    }

    pub(super) fn asking_mut(&mut self) -> &mut Asking {
        &mut self.asking
    }
}

impl AwaitIntermediateRequest {
    /// The next state of a responder whose IKE SA needs the exchange.
    pub fn new(half_open: HalfOpen, additional: AdditionalKe) -> Self {
        Self { half_open, additional }
    }

    pub fn handle_message(mut self: Box<Self>, cx: &mut Cx<'_>, message: &Message<'_>) -> Option<Session> {
        let whole = match self.half_open.receive(cx, message, Exchange::IKE_INTERMEDIATE, MESSAGE_ID) {
            None => return Some(Session::AwaitIntermediateRequest(self)),
            Some(whole) => whole,
        };
        match whole.and_then(|whole| self.answer(cx, &message.header, &whole)) {
            Ok(answered) => {
                cx.out.transmit_all(&self.half_open.path, &answered.answer);
                Some(Session::AwaitAuthRequest(Box::new(AwaitAuthRequest::new(
                    self.half_open,
                    Some(answered),
                ))))
            }
            Err(error) => self.half_open.refuse(cx, Exchange::IKE_INTERMEDIATE, MESSAGE_ID, &error),
        }
    }

    fn answer(&mut self, cx: &mut Cx<'_>, header: &Header, whole: &Whole) -> Result<Answered, Reason> {
        let payloads = whole.payloads()?;
        let (ours, secret) = encapsulate(self.additional, public_value(self.additional, &Parts(&payloads))?)?;
        let ke = [Payload::Ke(Ke { group: self.additional.id(), data: ours })];
        let covered = self.half_open.sa.covered(Exchange::IKE_INTERMEDIATE, true, MESSAGE_ID, &ke);
        let answer =
            self.half_open.sa.encrypt(cx.entropy, Exchange::IKE_INTERMEDIATE, true, MESSAGE_ID, &ke)?;
        let sa = self.half_open.advance(&secret, &whole.covered(header), &covered)?;
        Ok(Answered { sa, answer })
    }
}

impl Answered {
    /// The same request gets the same answer.
    pub(super) fn answers_again(&self, cx: &mut Cx<'_>, path: &Path, message: &Message<'_>) -> bool {
        let header = &message.header;
        let repeated = header.exchange == Exchange::IKE_INTERMEDIATE
            && !header.flags.response
            && header.message_id == MESSAGE_ID
            && self.sa.owns(header)
            && message
                .encrypted
                .is_some_and(|encrypted| encrypted.is_first() && self.sa.decrypt(&encrypted).is_some());
        if repeated {
            cx.out.counters.retransmits += 1;
            cx.out.transmit_all(path, &self.answer);
        }
        repeated
    }
}
