//! The initiator's way to an established session (RFC 7296 section 1.2).

use super::first_request::{Attempt, FirstRequest};
use super::half_open::{Asking, HalfOpen, fragmentation_supported, fragments};
use super::initiation::{Candidate, FirstMessage, Step};
use super::intermediate::{AwaitIntermediateResponse, intermediate_supported};
use super::member::AwaitMemberResponse;
use super::ppk::{MixedIn, Mixing, ppk_offer};
use super::session::Session;
use crate::identity::Proof;
use crate::ike::Event;
use crate::ike::auth::Verified;
use crate::ike::auth::basis::Basis;
use crate::ike::auth::peer::Peer;
use crate::ike::auth::signature::Hashes;
use crate::ike::control::Purpose;
use crate::ike::crypto::agreement::KeyPair;
use crate::ike::crypto::keys::{Nonces, Seed, Spis, derive};
use crate::ike::crypto::suite::{Groups, OwnKe, concluded_ike, ike_offer};
use crate::ike::limits::IKE_REKEY_FACTOR;
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::path::Path;
use crate::ike::reason::{BadPpk, Failed, Incompatible, Later, Misbehaved, Reason, Refusal};
use crate::ike::session::child;
use crate::ike::session::child::{Agreement, Offer};
use crate::ike::session::established::{Established, Introduction};
use crate::ike::session::exchange::Window;
use crate::ike::session::ike_sa::IkeSa;
use crate::ike::session::life::Greeted;
use crate::ike::session::pending::Task;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Id, Ke, Message, Parts, Payload, private};
use crate::types::{EspProposal, EspSuite, Method, NewInbound, Proposals};

/// Has sent IKE_SA_INIT.
pub struct AwaitInitResponse {
    first: FirstRequest,
    /// The request that is sent and, before it, the one whose group was refused: whoever refused it need not
    /// be the peer, and the peer may yet take it.
    requests: Vec<InitRequest>,
    /// It says that this end has PPKs.
    has_ppks: bool,
}

/// An IKE_SA_INIT request.
struct InitRequest {
    key: KeyPair,
    bytes: Vec<u8>,
}

/// Has sent IKE_AUTH.
pub struct AwaitAuthResponse {
    asking: Asking,
    /// What we proved ourselves with.
    ours: Proof,
    offer: Offer,
    ahead: Option<Ahead>,
}

/// An inbound SA that was made ahead of the answer.
#[derive(Clone, Copy)]
struct Ahead {
    /// What it was made with, and nothing else was offered.
    suite: EspSuite,
    /// It had to go again. A key lives once: nothing more is made of the keys that were offered.
    withdrawn: bool,
}

/// What the offer in IKE_AUTH is for.
fn proposals(cx: &Cx<'_>, ahead: Option<Ahead>) -> Proposals<EspProposal> {
    let suite = ahead.map(|ahead| ahead.suite);
    suite.map_or_else(|| cx.settings.esp_proposals.without_key_exchange(), Proposals::of_suite)
}

impl AwaitInitResponse {
    /// Sends the first message.
    pub fn start(cx: &mut Cx<'_>, path: Path, attempt: Attempt) -> Result<FirstMessage, Reason> {
        let group = cx.settings.ike_proposals.first_group().ok_or(Failed::Cryptography)?;
        let key = KeyPair::generate(group, cx.entropy)?;
        let first = FirstRequest::new(cx, Method::Ike.exchange(), path, attempt);
        let has_ppks = cx.settings.ppks(path.bond()).is_some();
        let mut state = Self { first, requests: Vec::new(), has_ppks };
        state.send(cx, key);
        Ok(FirstMessage::Init(state))
    }

    /// Sends a request with the public value of `key`.
    fn send(&mut self, cx: &mut Cx<'_>, key: KeyPair) {
        let mut payloads = vec![
            // RFC 7296 section 1.2: all that we offer, whatever group was asked for.
            Payload::Sa(ike_offer(&cx.settings.ike_proposals, &[])),
            Payload::Ke(Ke { group: key.group().id(), data: key.public().to_vec() }),
            Payload::Nonce(self.first.nonce.clone()),
            fragmentation_supported(),
        ];
        payloads.extend(self.first.claims());
        let Path { pair, purpose, .. } = self.first.path;
        // RFC 9370 section 2.2.1: an offer with an additional exchange says so. And so does one with a PPK in it.
        let intermediate = self.has_ppks || cx.settings.ike_proposals.has_additional();
        payloads.extend(intermediate.then(intermediate_supported));
        payloads.push(cx.vendor_id.clone());
        payloads.extend(cx.settings.knows_signatures(purpose, pair.remote).then(Hashes::ours));
        payloads.extend(private::of_purpose(purpose));
        payloads.extend(self.has_ppks.then(|| ppk_offer(pair.local)).into_iter().flatten());
        let bytes = self.first.send(cx, payloads);
        self.requests.push(InitRequest { key, bytes });
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
            if self.first.take_cookie(cx, &cookie.data)
                && let Some(InitRequest { key, .. }) = self.requests.pop()
            {
                self.send(cx, key);
            }
            return None;
        }
        // Nobody has proven anything yet: an error is a hint, and a better answer may still come
        // (RFC 7296 section 2.21.1).
        let outcome = match parts.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => self.conclude(cx, message, datagram),
        };
        if let Err(error) = &outcome
            && !self.change_group(cx, &parts)
        {
            self.first.take_hint(cx, error);
        }
        outcome.ok()
    }

    /// RFC 7296 section 1.2: INVALID_KE_PAYLOAD names the group to bring. It is obeyed once, if the group is
    /// one that we offer: the offer stays the same and AUTH covers it, so that the peer would find out
    /// if somebody else had said so. Says whether the group is one that we have brought or bring now.
    fn change_group(&mut self, cx: &mut Cx<'_>, parts: &Parts<'_>) -> bool {
        let group = parts.wanted_group().and_then(|id| cx.settings.ike_proposals.group(id));
        let Some(group) = group else { return false };
        if self.requests.iter().any(|request| request.key.group() == group) {
            return true;
        }
        match KeyPair::generate(group, cx.entropy) {
            Ok(key) if self.requests.len() == 1 => self.send(cx, key),
            _ => return false,
        }
        true
    }

    fn conclude(&self, cx: &mut Cx<'_>, message: &Message<'_>, datagram: &[u8]) -> Result<HalfOpen, Reason> {
        let (header, parts) = (&message.header, Parts(&message.payloads));
        let (peer, purpose) = (Peer::read(&parts), self.first.path.purpose);
        // RFC 6023 section 3: an IKE SA without a child needs a responder that says so.
        let childless = !peer.foreign && parts.notify(notify::CHILDLESS_IKEV2_SUPPORTED).is_some();
        if purpose != Purpose::Data && !childless {
            return Err(Incompatible::NoControl.into());
        }
        let rule = cx.settings.ppks(self.first.path.bond());
        let local = self.first.path.pair.local;
        let mixing = Mixing::new(rule.filter(|_| self.has_ppks), local, &parts);
        // RFC 8784 section 3: with who has no PPK nothing goes on where one is required.
        if mixing.mixed_in() == MixedIn::Nothing && rule.is_some_and(|rule| rule.required) {
            return Err(BadPpk::Missing.into());
        }
        let (suite, _) = concluded_ike(&cx.settings.ike_proposals, parts.sa()?)?;
        if suite.additional.is_some() && parts.notify(notify::INTERMEDIATE_EXCHANGE_SUPPORTED).is_none() {
            return Err(Misbehaved::AdditionalUnknown.into());
        }
        let ke = parts.ke().ok_or(Misbehaved::NoPublicValue)?;
        let group = suite.negotiated_group()?;
        let request = self.requests.iter().find(|request| request.key.group() == group);
        let request = request.filter(|_| ke.group == group.id() && header.responder_spi != 0);
        let request = request.ok_or(Misbehaved::OtherThanChosenGroup)?;
        let shared = request.key.agree(&ke.data)?;
        let FirstRequest { begun, attempt, ours, ref nonce, .. } = self.first;
        let nonces = Nonces { initiator: nonce.clone(), responder: parts.nonce()?.to_vec() };
        let spis = Spis { initiator: ours, responder: header.responder_spi };
        let (ike, keys) = derive(suite, &Seed::Fresh(&shared), &nonces, spis, true)?;
        let path = self.first.through(cx, &parts, spis)?;
        let fragments = fragments(cx, &path, &parts);
        let rekey_at = cx.rekey_time(path.pair, cx.settings.rekey_after * IKE_REKEY_FACTOR);
        match (purpose, &cx.settings.control) {
            (Purpose::Data, _) => {
                peer.ensure_takes(cx.settings.credentials.identity_for(path.pair.remote, None))?;
            }
            (_, Some(control)) => peer.ensure_takes_key(&control.key)?,
            (_, None) => return Err(Incompatible::NoControl.into()),
        }
        Ok(HalfOpen {
            path,
            begun,
            met: cx.now,
            peer,
            greeting: attempt.greeting,
            fallback: attempt.fallback,
            resumption: None,
            // IKE_SA_INIT was our request 0, IKE_AUTH is our request 1 (RFC 7296 section 2.2).
            sa: IkeSa::new(spis, true, ike, Window::new(2, 0), fragments, rekey_at),
            keys,
            mixing,
            nonces,
            intermediate: Vec::new(),
            auth_id: 1,
            request: request.bytes.clone(),
            copies: Vec::new(),
            response: datagram.to_vec(),
            variants: Vec::new(),
        })
    }

    pub fn request(&self) -> &FirstRequest {
        &self.first
    }

    pub(super) fn request_mut(&mut self) -> &mut FirstRequest {
        &mut self.first
    }
}

impl HalfOpen {
    /// What comes after the first exchange.
    pub fn go_on(self, cx: &mut Cx<'_>) -> Step {
        match self.needs_intermediate() {
            true => AwaitIntermediateResponse::start(cx, self),
            false => self.authenticate(cx),
        }
    }

    /// Sends IKE_AUTH.
    pub(super) fn authenticate(self, cx: &mut Cx<'_>) -> Step {
        match self.path.purpose {
            Purpose::Data => self.authenticate_data(cx),
            Purpose::Control | Purpose::Join => AwaitMemberResponse::start(cx, self),
        }
    }

    fn authenticate_data(mut self, cx: &mut Cx<'_>) -> Step {
        let pair = self.path.pair;
        let proven = self.offer_ppk(cx).and_then(|ppk| {
            let proven = self.prove(cx, cx.settings.signing(self.fallback), None);
            proven.map(|(proof, ours)| (ppk, proof, ours))
        });
        let (ppk, proof, ours) = match proven {
            Ok(proven) => proven,
            Err(error) => return Step::Over(error.failure()),
        };
        let offer = Offer::new(cx);
        // A peer that is not hostseal requires ESP as soon as it has answered, so the inbound SA must be there
        // before. Our best suite alone is offered: a peer that does not take it refuses, and is offered the rest
        // afterwards. Nobody has proven anything yet, so that is only where clear packets are accepted anyway.
        let suite =
            cx.settings.esp_proposals.best().filter(|_| self.peer.foreign && cx.ahead.contains(&pair));
        let ahead = suite.map(|suite| Ahead { suite, withdrawn: false });
        let mut payloads = vec![Payload::IdI(self.id(cx))];
        payloads.extend(self.greeting.payloads());
        payloads.extend(self.request(cx));
        payloads.push(Payload::IdR(Id::of(pair.remote)));
        payloads.extend(proof);
        payloads.extend(offer.request(&proposals(cx, ahead), pair, Vec::new()));
        payloads.extend(offer.first(cx).filter(|_| !self.peer.foreign));
        payloads.extend(ppk);
        let id = self.auth_id;
        let asking = match self.ask(cx, Exchange::IKE_AUTH, id, &payloads) {
            Ok(asking) => asking,
            Err(error) => return Step::Over(error.failure()),
        };
        if let Some(suite) = suite {
            // Events come before datagrams: the peer may send ESP before its answer has come.
            let HalfOpen { path, sa, nonces, .. } = &asking.half_open;
            let (key, _) = sa.keys.child(None, None, nonces, suite.key_bits, true);
            let encapsulation = path.encapsulation();
            let inbound = NewInbound { pair, spi: offer.in_spi, suite, encapsulation, key };
            cx.out.events.push_back(Event::InboundAhead(Box::new(inbound)));
        }
        Step::On(Candidate::Auth(Box::new(AwaitAuthResponse { asking, ours, offer, ahead })))
    }
}

impl HalfOpen {
    /// Reads the answer to IKE_AUTH.
    pub(super) fn read_auth(&mut self, cx: &Cx<'_>, parts: &Parts<'_>) -> Result<Verified, Reason> {
        match (parts.auth(), parts.refusal()) {
            (None, Some(refusal)) => Err(refusal.into()),
            _ => self.verify_responder(cx, parts),
        }
    }

    /// Tells a responder that took our proof that we do not take its own (RFC 7296 section 2.21.2). It is
    /// said once: a responder that does not hear it finds out by itself.
    pub(super) fn withdraw(&mut self, cx: &mut Cx<'_>, error: &Reason) {
        if matches!(error, Reason::Refused(_) | Reason::BadPpk(BadPpk::Refused(_))) {
            return;
        }
        let id = self.sa.window.next_request();
        let payloads = [error.to_notify()];
        if let Ok(message) = self.sa.encrypt(cx.entropy, Exchange::INFORMATIONAL, false, id, &payloads) {
            cx.out.transmit_all(&self.path, &message);
        }
    }
}

impl AwaitAuthResponse {
    pub fn handle_message(mut self: Box<Self>, cx: &mut Cx<'_>, message: &Message<'_>) -> Step {
        let whole = match self.asking.half_open.receive(
            cx,
            message,
            Exchange::IKE_AUTH,
            self.asking.half_open.auth_id,
        ) {
            None => return Step::On(Candidate::Auth(self)),
            Some(whole) => whole,
        };
        let outcome = whole.and_then(|whole| {
            let payloads = whole.payloads()?;
            let parts = Parts(&payloads);
            let half_open = &mut self.asking.half_open;
            half_open.read_ppk_answer(&parts)?;
            let proof = half_open.read_auth(cx, &parts).map_err(|error| half_open.blame_ppk(error))?;
            half_open.ensure_ppk(cx)?;
            Ok((proof, payloads))
        });
        match outcome {
            Ok((proof, payloads)) => {
                Step::Proven(Session::Established(self.establish(cx, proof, &Parts(&payloads))))
            }
            Err(error) => {
                self.asking.half_open.withdraw(cx, &error);
                self.forget_inbound(cx);
                Step::Over(error.hearsay())
            }
        }
    }

    /// An inbound SA made ahead of the answer is to go.
    pub fn withdraw_ahead(&mut self, cx: &mut Cx<'_>) {
        self.forget_inbound(cx);
        self.ahead.iter_mut().for_each(|ahead| ahead.withdrawn = true);
    }

    /// An inbound SA made ahead of the answer is not to be used.
    fn forget_inbound(&self, cx: &mut Cx<'_>) {
        if self.ahead.is_some_and(|ahead| !ahead.withdrawn) {
            let (pair, in_spi) = (self.asking.half_open.path.pair, self.offer.in_spi);
            cx.out.events.push_back(Event::ChildClosed { pair, in_spi, void: false });
        }
    }

    fn establish(
        mut self: Box<Self>,
        cx: &mut Cx<'_>,
        proof: Verified,
        parts: &Parts<'_>,
    ) -> Box<Established> {
        let pair = self.asking.half_open.path.pair;
        // The key of an inbound SA ahead of the answer has the PPK in it, and the peer goes on without.
        if self.asking.half_open.mixing.was_left_out() {
            self.withdraw_ahead(cx);
        }
        // RFC 7296 section 1.2: the child can fail where the IKE SA does not.
        let conclusion = match parts.refusal() {
            Some(refusal) => Err(refusal.into()),
            None => {
                child::conclude(&self.asking.half_open.path, &proposals(cx, self.ahead), parts, OwnKe::Never)
            }
        };
        if conclusion.is_err() {
            self.forget_inbound(cx);
        }
        let introduction = Introduction {
            path: self.asking.half_open.path,
            begun: self.asking.half_open.begun,
            foreign: self.asking.half_open.peer.foreign,
            greeted: Greeted::read(parts, self.asking.half_open.met),
            basis: Basis {
                ours: self.ours,
                theirs: proof.proof().clone(),
                method: self.asking.half_open.method(),
                initiated: true,
                ppk: self.asking.half_open.mixing.used().cloned(),
                wished_ppk: self.asking.half_open.mixing.wished().cloned(),
            },
        };
        let mut session = Established::new(cx, proof, introduction, self.asking.half_open.sa);
        match conclusion {
            Ok(_) if self.ahead.is_some_and(|ahead| ahead.withdrawn) => {
                session.delete_unwanted(self.offer.in_spi);
                session.add_task(Task::NewChild);
            }
            Ok(choice) => {
                let agreement = Agreement {
                    path: self.asking.half_open.path,
                    offer: self.offer,
                    choice,
                    nonces: &self.asking.half_open.nonces,
                    shared: None,
                    additional: None,
                    initiator: true,
                    foreign: self.asking.half_open.peer.foreign,
                    replaces: None,
                };
                session.announce(cx, &agreement, parts);
            }
            // One suite alone was offered for the sake of the inbound SA: now all are, with new keys.
            Err(Reason::Refused(Refusal::Proposals)) if self.ahead.is_some() => {
                session.add_task(Task::NewChild);
            }
            Err(error) => {
                cx.fail(pair, FailureScope::Child, error.clone());
                if !matches!(error, Reason::Refused(_)) {
                    session.delete_unwanted(self.offer.in_spi);
                }
            }
        }
        Box::new(session)
    }

    pub fn handle_timeout(mut self: Box<Self>, cx: &mut Cx<'_>) -> Step {
        if !self.asking.retransmit(cx) {
            self.forget_inbound(cx);
            return Step::Over(self.asking.half_open.unanswered(Later::Auth));
        }
        Step::On(Candidate::Auth(self))
    }

    pub(super) fn asking(&self) -> &Asking {
        &self.asking
    }

    pub(super) fn asking_mut(&mut self) -> &mut Asking {
        &mut self.asking
    }
}
