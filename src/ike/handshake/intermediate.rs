//! IKE_INTERMEDIATE between IKE_SA_INIT and IKE_AUTH (RFC 9242). There is one at most, for the additional key exchange
//! (RFC 9370 section 2.2.2), for a PPK (`early_ppk`), or for both: then the PPK goes in last (RFC 9867 section 3.1).

use std::sync::Arc;

use super::early_ppk::ppk_choice;
use super::half_open::{Asking, HalfOpen};
use super::initiation::{Candidate, Step};
use super::respond::AwaitAuthRequest;
use super::session::Session;
use crate::identity::Ppk;
use crate::ike::crypto::Hidden;
use crate::ike::crypto::kem::{KemKey, encapsulate, public_value};
use crate::ike::crypto::keys::{AuthKeys, IkeKeys, Seed, derive};
use crate::ike::outbox::Cx;
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
    /// Of the additional exchange, if there is one.
    key: Option<KemKey>,
    /// What AUTH covers of the request.
    covered: Vec<u8>,
}

/// Has answered IKE_SA_INIT, and IKE_INTERMEDIATE is to come.
pub struct AwaitIntermediateRequest {
    pub(super) half_open: HalfOpen,
}

/// IKE_INTERMEDIATE as it was answered, for when its request comes again.
pub struct Answered {
    /// The IKE SA with its earlier keys, where they are others now.
    former: Option<IkeSa>,
    answer: Datagrams,
}

/// What goes into the keys.
struct Ingredients {
    /// The secret of the additional exchange.
    secret: Option<Hidden>,
    ppk: Option<Arc<Ppk>>,
}

/// That we know the exchange (RFC 9242 section 3.1).
pub(super) fn intermediate_supported() -> Payload {
    Payload::notify(notify::INTERMEDIATE_EXCHANGE_SUPPORTED, Vec::new())
}

/// The public value of the additional exchange.
fn of_additional(additional: AdditionalKe, data: Vec<u8>) -> Payload {
    Payload::Ke(Ke { group: additional.id(), data })
}

/// Whether a message has the public value of this additional exchange and no other or, where there is none, has none.
fn is_of_additional(additional: Option<AdditionalKe>, parts: &Parts<'_>) -> bool {
    parts.ke().map(|ke| ke.group) == additional.map(AdditionalKe::id)
}

impl HalfOpen {
    /// After the exchange: other keys, and more that AUTH covers (RFC 9242 section 3.3.2). Gives back the IKE SA with its
    /// earlier keys, if they are others now.
    fn advance(
        &mut self,
        ingredients: &Ingredients,
        request: &[u8],
        response: &[u8],
    ) -> Result<Option<IkeSa>, Reason> {
        let (prf, initiator) = (self.sa.keys.suite.prf, self.sa.is_initiator());
        self.auth_id = MESSAGE_ID + 1;
        let (i, r) =
            if initiator { (&self.keys.mine, &self.keys.peer) } else { (&self.keys.peer, &self.keys.mine) };
        let [i, r] = [(i, request), (r, response)].map(|(key, all)| prf.compute(key.expose(), &[all]));
        self.intermediate = [i.expose(), r.expose(), &self.auth_id.to_be_bytes()].concat();
        let mut former = None;
        if let Some(secret) = &ingredients.secret {
            let keys = self.derived(&self.sa.keys.rekey_seed(secret, None))?;
            former = Some(self.renew(keys));
        }
        if let Some(ppk) = &ingredients.ppk {
            let keys = self.derived(&self.sa.keys.ppk_seed(ppk))?;
            let before = self.renew(keys);
            former = former.or(Some(before));
            self.mixing.took(ppk);
        }
        self.sa.window =
            if initiator { Window::new(self.auth_id + 1, 0) } else { Window::new(0, self.auth_id) };
        Ok(former)
    }

    fn derived(&self, seed: &Seed<'_>) -> Result<(IkeKeys, AuthKeys), Reason> {
        derive(self.sa.keys.suite, seed, &self.nonces, self.sa.spis(), self.sa.is_initiator())
    }

    /// Takes other keys. Gives back the IKE SA with its earlier ones.
    fn renew(&mut self, (keys, proofs): (IkeKeys, AuthKeys)) -> IkeSa {
        self.keys = proofs;
        let renewed = self.sa.renewed(keys, Window::new(0, 0));
        std::mem::replace(&mut self.sa, renewed)
    }
}

impl AwaitIntermediateResponse {
    /// Sends the request.
    pub fn start(cx: &mut Cx<'_>, mut half_open: HalfOpen) -> Step {
        let key = half_open.sa.keys.suite.additional.map(KemKey::generate).transpose();
        let started = key.and_then(|key| {
            let mut payloads = Vec::new();
            payloads.extend(key.as_ref().map(|key| of_additional(key.additional(), key.public().to_vec())));
            payloads.extend(half_open.name_ppks(cx)?);
            let covered = half_open.sa.covered(Exchange::IKE_INTERMEDIATE, false, MESSAGE_ID, &payloads);
            let asking = half_open.ask(cx, Exchange::IKE_INTERMEDIATE, MESSAGE_ID, &payloads)?;
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
        match whole.and_then(|whole| self.conclude(cx, &message.header, &whole)) {
            Ok(Some(())) => self.asking.half_open.authenticate(cx),
            Ok(None) => {
                cx.out.counters.unexpected += 1;
                Step::On(Candidate::Intermediate(self))
            }
            Err(error) => Step::Over(error.hearsay()),
        }
    }

    /// `None`: it answers what another candidate with the same keys has asked.
    fn conclude(&mut self, cx: &Cx<'_>, header: &Header, whole: &Whole) -> Result<Option<()>, Reason> {
        let payloads = whole.payloads()?;
        let parts = Parts(&payloads);
        let half_open = &mut self.asking.half_open;
        if let Some(refusal) = parts.refusal() {
            return Err(half_open.refused_ppks(refusal));
        }
        if !is_of_additional(self.key.as_ref().map(KemKey::additional), &parts) {
            return Ok(None);
        }
        let secret = match &self.key {
            Some(key) => Some(key.agree(public_value(key.additional(), &parts)?)?),
            None => None,
        };
        let ppk = half_open.chosen_ppk(cx, &parts)?;
        half_open.advance(&Ingredients { secret, ppk }, &self.covered, &whole.covered(header))?;
        Ok(Some(()))
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
    pub fn handle_message(mut self: Box<Self>, cx: &mut Cx<'_>, message: &Message<'_>) -> Option<Session> {
        let whole = match self.half_open.receive(cx, message, Exchange::IKE_INTERMEDIATE, MESSAGE_ID) {
            None => return Some(Session::AwaitIntermediateRequest(self)),
            Some(whole) => whole,
        };
        match whole.and_then(|whole| self.answer(cx, &message.header, &whole)) {
            // A copy of our answer to the first message came to the initiator, and the true one may still come there.
            Ok(None) => {
                cx.out.counters.unexpected += 1;
                Some(Session::AwaitIntermediateRequest(self))
            }
            Ok(Some(answered)) => {
                cx.out.transmit_all(&self.half_open.path, &answered.answer);
                Some(Session::AwaitAuthRequest(Box::new(AwaitAuthRequest::new(
                    self.half_open,
                    Some(answered),
                ))))
            }
            Err(error) => self.half_open.refuse(cx, Exchange::IKE_INTERMEDIATE, MESSAGE_ID, &error),
        }
    }

    /// `None`: the initiator goes by another additional exchange than the one that was chosen here.
    fn answer(
        &mut self,
        cx: &mut Cx<'_>,
        header: &Header,
        whole: &Whole,
    ) -> Result<Option<Answered>, Reason> {
        let payloads = whole.payloads()?;
        let parts = Parts(&payloads);
        let half_open = &mut self.half_open;
        if !is_of_additional(half_open.sa.keys.suite.additional, &parts) {
            return Ok(None);
        }
        let ppk = half_open.choose_ppk(cx, &parts)?;
        let mut ours = Vec::new();
        let secret = match half_open.sa.keys.suite.additional {
            Some(additional) => {
                let (value, secret) = encapsulate(additional, public_value(additional, &parts)?)?;
                ours.push(of_additional(additional, value));
                Some(secret)
            }
            None => None,
        };
        ours.extend(ppk.as_deref().map(ppk_choice));
        let covered = half_open.sa.covered(Exchange::IKE_INTERMEDIATE, true, MESSAGE_ID, &ours);
        let answer = half_open.sa.encrypt(cx.entropy, Exchange::IKE_INTERMEDIATE, true, MESSAGE_ID, &ours)?;
        let former = half_open.advance(&Ingredients { secret, ppk }, &whole.covered(header), &covered)?;
        Ok(Some(Answered { former, answer }))
    }
}

impl Answered {
    /// The same request gets the same answer.
    pub(super) fn answers_again(&self, cx: &mut Cx<'_>, half_open: &HalfOpen, message: &Message<'_>) -> bool {
        let (header, sa) = (&message.header, self.former.as_ref().unwrap_or(&half_open.sa));
        let repeated = header.exchange == Exchange::IKE_INTERMEDIATE
            && !header.flags.response
            && header.message_id == MESSAGE_ID
            && sa.owns(header)
            && message
                .encrypted
                .is_some_and(|encrypted| encrypted.is_first() && sa.decrypt(&encrypted).is_some());
        if repeated {
            cx.out.counters.retransmits += 1;
            cx.out.transmit_all(&half_open.path, &self.answer);
        }
        repeated
    }
}
