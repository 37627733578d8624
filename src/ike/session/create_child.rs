//! CREATE_CHILD_SA for children: new ones and successors (RFC 7296 sections 1.3.1, 1.3.3, 2.8 and 2.25), with
//! their own key exchange where one is chosen.

use std::time::Instant;

use super::child;
use super::child::{Agreement, ChildSa, Offer};
use super::established::Established;
use super::follow_up::link;
use super::pending::{
    Asked, AskedChild, Crossing, FirstExchange, FollowUp, Half, HalfChild, HeldChild, HeldRequest, Makes,
    Meanwhile, Task,
};
use crate::ike::crypto::Hidden;
use crate::ike::crypto::agreement::KeyPair;
use crate::ike::crypto::keys::Nonces;
use crate::ike::crypto::suite::{EspChoice, Groups, OwnKe};
use crate::ike::limits::CHILDREN_MAX;
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::reason::{Declined, Misbehaved, Reason, Refusal};
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Ke, Parts, Payload, about_child};
use crate::types::{EspProposal, Group, Method, Proposals, Spi};

/// What the peer's answer makes of our request.
struct Concluded {
    choice: EspChoice,
    nonces: Nonces,
    /// The secret of its key exchange.
    shared: Option<Hidden>,
    /// What the responder knows it by, where an additional exchange is to come.
    link: Vec<u8>,
}

impl AskedChild {
    /// The group of the public value that we brought.
    fn group(&self) -> Option<Group> {
        self.key.as_ref().map(KeyPair::group)
    }

    /// The group that the peer wants instead: obeyed once, if it is one that we offer (RFC 7296 section 1.3).
    fn other_group(&self, proposals: &Proposals<EspProposal>, answer: &Parts<'_>) -> Option<Group> {
        let group = proposals.group(answer.wanted_group()?)?;
        (self.wanted.is_none() && Some(group) != self.group()).then_some(group)
    }
}

impl Established {
    /// What children may be made with: on an IKE SA without Diffie-Hellman they have none either.
    fn esp_proposals(&self, cx: &Cx<'_>) -> Proposals<EspProposal> {
        match self.basis().method {
            Method::Ike => cx.settings.esp_proposals.clone(),
            Method::Derived => cx.settings.esp_proposals.without_key_exchange(),
        }
    }

    /// Asks for a child, or for a successor of `rekeys`, with a public value of `wanted`; else of the group that the
    /// child to be replaced has, which the peer took, or of the first that is listed. `None` where there is nothing to
    /// ask any more.
    pub(super) fn child_request(
        &mut self,
        cx: &mut Cx<'_>,
        rekeys: Option<Spi>,
        wanted: Option<Group>,
    ) -> Option<(Exchange, Vec<Payload>, Asked)> {
        let (mut payloads, mut known) = (Vec::new(), None);
        let proposals = self.esp_proposals(cx);
        if let Some(in_spi) = rekeys {
            let old = self.child(in_spi).filter(|old| old.is_alive() && !self.is_replaced(old))?;
            known = old.key_exchange().and_then(|it| proposals.group(it.group.id()));
            // RFC 7296 section 1.3.3: named by the SPI that the sender expects in inbound packets.
            payloads.push(about_child(notify::REKEY_SA, old.in_spi().0));
        }
        // RFC 7296 section 1.3.1: where a group is offered, there is a public value, though it need not be used.
        // Libreswan 5.2 dies where there is none.
        let group = wanted.or(known).or(proposals.first_group());
        let Ok(key) = group.map(|group| KeyPair::generate(group, cx.entropy)).transpose() else {
            self.put_off(cx, rekeys.map_or(Task::NewChild, Task::RekeyChild));
            return None;
        };
        let (offer, nonce) = (Offer::new(cx), cx.nonce());
        let mut fresh = vec![Payload::Nonce(nonce.clone())];
        fresh.extend(key.as_ref().map(public));
        payloads.extend(offer.request(&proposals, self.pair(), fresh));
        payloads.extend(offer.first(cx).filter(|_| !self.is_foreign()));
        let asked = AskedChild { offer, key, nonce, rekeys, wanted, meanwhile: Meanwhile::default() };
        Some((Exchange::CREATE_CHILD_SA, payloads, Asked::Child(asked)))
    }

    /// The peer asks for a child on the IKE SA `ours`.
    pub(super) fn answer_child(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        request: &Parts<'_>,
    ) -> Result<HeldRequest, Reason> {
        let replaces = self.may_make_child(cx.now, request)?;
        let ke = request.ke();
        let brought = OwnKe::Brought(ke.map(|ke| ke.group));
        let (choice, selectors) = child::accept(self.path(), &self.esp_proposals(cx), request, brought)?;
        let nonces = Nonces { initiator: request.nonce()?.to_vec(), responder: cx.nonce() };
        let mut fresh = vec![Payload::Nonce(nonces.responder.clone())];
        let shared = match choice.key_exchange.zip(ke) {
            Some((exchange, theirs)) => {
                let key = KeyPair::generate(exchange.group, cx.entropy)?;
                fresh.push(public(&key));
                Some(key.agree(&theirs.data)?)
            }
            None => None,
        };
        let half = HalfChild { offer: Offer::new(cx), choice, replaces };
        let mut payloads = child::answer(&half.offer, &half.choice, fresh, selectors);
        self.note_crossing(&half, &nonces);
        let additional = half.choice.key_exchange.and_then(|it| it.additional);
        let mut held = HeldRequest::new(Exchange::CREATE_CHILD_SA, cx.now, Vec::new());
        match shared {
            Some(shared) if additional.is_some() => {
                let first = FirstExchange { on: ours, nonces, shared, link: cx.random::<8>().to_vec() };
                payloads.push(self.leave_half_made(cx, first, Half::Child(half)));
                held.payloads = payloads;
            }
            shared => {
                held.child = Some(HeldChild::new(half.offer.in_spi, payloads));
                let agreement = self.agreement(half, &nonces, shared.as_ref(), None, false);
                self.announce_on(cx, ours, &agreement, request);
            }
        }
        Ok(held)
    }

    /// The peer has gone on with the child that was half made. The answer brings `ke`.
    pub(super) fn child_made_by_peer(
        &mut self,
        cx: &mut Cx<'_>,
        first: &FirstExchange,
        half: HalfChild,
        additional: &Hidden,
        ke: Vec<Payload>,
        request: &Parts<'_>,
    ) -> HeldRequest {
        let mut held = HeldRequest::new(Exchange::IKE_FOLLOWUP_KE, cx.now, Vec::new());
        held.child = Some(HeldChild::new(half.offer.in_spi, ke));
        let agreement = self.agreement(half, &first.nonces, Some(&first.shared), Some(additional), false);
        self.announce_on(cx, first.on, &agreement, request);
        held
    }

    /// What `half` becomes.
    fn agreement<'a>(
        &self,
        half: HalfChild,
        nonces: &'a Nonces,
        shared: Option<&'a Hidden>,
        additional: Option<&'a Hidden>,
        initiator: bool,
    ) -> Agreement<'a> {
        let HalfChild { offer, choice, replaces } = half;
        let (path, foreign) = (*self.path(), self.is_foreign());
        Agreement { path, offer, choice, nonces, shared, additional, initiator, foreign, replaces }
    }

    /// Whether the peer may have the child that it asks for, and which one that replaces.
    fn may_make_child(&self, now: Instant, request: &Parts<'_>) -> Result<Option<Spi>, Reason> {
        let replaces = match request.about_child(notify::REKEY_SA) {
            None => None,
            Some(spi) => {
                let old = self.children.of_peer(Spi(spi));
                // The answer that makes that child may have been overtaken by this request.
                let busy = self.is_asking_for_child() || self.may_not_make_children();
                let old =
                    old.ok_or(if busy { Declined::Crossed } else { Declined::NoSuchChild(Spi(spi)) })?;
                Some(old.in_spi())
            }
        };
        self.may_replace(replaces)?;
        // A hostseal peer wants one child: soon after the first, a second is its request for the first,
        // overtaken by ours.
        let young = |child: &ChildSa| child.is_alive() && child.age(now) < Self::LINGER;
        if !self.is_foreign() && replaces.is_none() && self.children.iter().any(young) {
            return Err(Declined::Crossed.into());
        }
        Ok(replaces)
    }

    /// Whether the peer may have one more child, which may replace one.
    pub(super) fn may_replace(&self, replaces: Option<Spi>) -> Result<(), Reason> {
        // RFC 7296 section 2.25.1. One that has its successor already is as good as closing.
        let may_go = |in_spi| self.child(in_spi).is_some_and(|old| old.is_alive() && !self.is_replaced(old));
        if self.may_not_make_children() || !replaces.is_none_or(may_go) {
            return Err(Declined::Crossed.into());
        }
        if self.children.len() < CHILDREN_MAX { Ok(()) } else { Err(Declined::ChildrenMost.into()) }
    }

    /// RFC 7296 section 2.25.2: not while the IKE SA is being rekeyed or closed.
    fn may_not_make_children(&self) -> bool {
        self.is_rekeying_ike() || self.is_closing()
    }

    /// Whether an exchange of ours for a child is on its way.
    pub(super) fn is_asking_for_child(&self) -> bool {
        self.agenda.follow_up().is_some_and(FollowUp::makes_child) || self.sas.asked().any(Asked::makes_child)
    }

    /// The children that we ask for: what each is to replace, and what the peer does meanwhile.
    pub(super) fn asked_children(&mut self) -> impl Iterator<Item = (Option<Spi>, &mut Meanwhile)> {
        let asked = self.sas.asked_mut();
        let next = self.agenda.follow_up_mut().and_then(FollowUp::child_mut);
        asked.filter_map(Asked::child_mut).chain(next)
    }

    /// Remembers that the peer's exchange crosses ours for the same child.
    fn note_crossing(&mut self, theirs: &HalfChild, nonces: &Nonces) {
        for (_, meanwhile) in self.asked_children().filter(|(rekeys, _)| *rekeys == theirs.replaces) {
            meanwhile.crossing = Some(Crossing { made: theirs.offer.in_spi, lowest: nonces.lowest() });
        }
    }

    /// A child that crosses our request is replaced before our answer comes: its successor takes its place.
    pub(super) fn pass_on_crossing(&mut self, replaced: Option<Spi>, successor: Spi) {
        for theirs in self.asked_children().filter_map(|(_, meanwhile)| meanwhile.crossing.as_mut()) {
            if replaced == Some(theirs.made) {
                theirs.made = successor;
            }
        }
    }

    /// The peer has answered our request.
    pub(super) fn child_answered(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        asked: AskedChild,
        payloads: Result<Vec<Payload>, Reason>,
    ) {
        let proposals = self.esp_proposals(cx);
        let wanted = payloads.as_ref().ok().and_then(|it| asked.other_group(&proposals, &Parts(it)));
        if let Some(group) = wanted {
            return self.add_task(Task::ChildOf(group, asked.rekeys));
        }
        let concluded = payloads
            .and_then(|payloads| Ok((self.conclude_child(&proposals, &asked, &Parts(&payloads))?, payloads)));
        let AskedChild { offer, rekeys, meanwhile, .. } = asked;
        let (concluded, payloads) = match concluded {
            Ok(concluded) => concluded,
            Err(error) => return self.child_refused(cx, offer.in_spi, rekeys, &error),
        };
        let Concluded { choice, nonces, shared, link } = concluded;
        let additional = choice.key_exchange.and_then(|it| it.additional);
        let half = HalfChild { offer, choice, replaces: rekeys };
        match (shared, additional) {
            (Some(shared), Some(additional)) => {
                // The peer goes on with its own, and forgets ours.
                if self.is_redundant(&meanwhile, &nonces) || self.is_closing() {
                    return;
                }
                let first = FirstExchange { on: ours, nonces, shared, link };
                if let Err(error) = self.go_on(first, additional, Makes::Child(half, meanwhile)) {
                    self.child_refused(cx, offer.in_spi, rekeys, &error);
                }
            }
            (shared, _) => {
                let agreement = self.agreement(half, &nonces, shared.as_ref(), None, true);
                self.child_made_by_us(cx, ours, &agreement, &meanwhile, &Parts(&payloads));
            }
        }
    }

    /// Reads the answer.
    fn conclude_child(
        &self,
        proposals: &Proposals<EspProposal>,
        asked: &AskedChild,
        answer: &Parts<'_>,
    ) -> Result<Concluded, Reason> {
        if let Some(refusal) = answer.refusal() {
            return Err(refusal.into());
        }
        let brought = OwnKe::Brought(asked.group().map(Group::id));
        let choice = child::conclude(self.path(), proposals, answer, brought)?;
        let nonces = Nonces { initiator: asked.nonce.clone(), responder: answer.nonce()?.to_vec() };
        let shared = match choice.key_exchange.zip(asked.key.as_ref()) {
            Some((exchange, key)) => {
                let ke = answer.ke().filter(|ke| ke.group == exchange.group.id());
                let ke = ke.ok_or(Misbehaved::NoneOfChosenGroup)?;
                Some(key.agree(&ke.data)?)
            }
            None => None,
        };
        let link = link(answer, choice.key_exchange.and_then(|it| it.additional))?;
        Ok(Concluded { choice, nonces, shared, link })
    }

    /// The additional exchange for `half` is over; `agreed` is its secret, with the answer.
    pub(super) fn child_concluded(
        &mut self,
        cx: &mut Cx<'_>,
        first: &FirstExchange,
        half: HalfChild,
        meanwhile: Meanwhile,
        agreed: Result<(Hidden, Vec<Payload>), Reason>,
    ) {
        match agreed {
            Ok((secret, payloads)) => {
                let agreement = self.agreement(half, &first.nonces, Some(&first.shared), Some(&secret), true);
                self.child_made_by_us(cx, first.on, &agreement, &meanwhile, &Parts(&payloads));
            }
            Err(error) => self.child_refused(cx, half.offer.in_spi, half.replaces, &error),
        }
    }

    /// The peer has made the child that we asked for on the IKE SA `ours`.
    fn child_made_by_us(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        agreement: &Agreement<'_>,
        meanwhile: &Meanwhile,
        answer: &Parts<'_>,
    ) {
        // The peer has deleted the child before its answer came.
        if meanwhile.deleted.contains(&agreement.choice.out_spi.0) {
            return agreement
                .replaces
                .into_iter()
                .for_each(|in_spi| self.put_off(cx, Task::RekeyChild(in_spi)));
        }
        if self.is_redundant(meanwhile, agreement.nonces) || self.is_closing() {
            return self.delete_unwanted(agreement.offer.in_spi);
        }
        // The peer's own, which crosses it, is not to be made any more.
        self.agenda.take_half_made(|made| {
            matches!((&made.half, &meanwhile.crossing), (Half::Child(half), Some(theirs)) if half.offer.in_spi == theirs.made)
        });
        self.agenda.succeeded();
        self.announce_on(cx, ours, agreement, answer);
    }

    /// RFC 7296 section 2.8.1: of two children that crossed, the one made with the lowest of the four
    /// nonces is redundant, and whoever asked for it deletes it.
    fn is_redundant(&self, meanwhile: &Meanwhile, nonces: &Nonces) -> bool {
        meanwhile.crossing.as_ref().is_some_and(|theirs| {
            let made = self.child(theirs.made).is_some_and(ChildSa::is_alive);
            (made || self.is_half_made(theirs.made)) && nonces.lowest() < theirs.lowest
        })
    }

    /// Whether the peer has begun the child whose inbound SA here is to be that.
    fn is_half_made(&self, in_spi: Spi) -> bool {
        let half = self.agenda.half();
        matches!(half, Some(Half::Child(half)) if half.offer.in_spi == in_spi)
    }

    /// The child `in_spi`, which was to replace `rekeys`, is not made.
    fn child_refused(&mut self, cx: &mut Cx<'_>, in_spi: Spi, rekeys: Option<Spi>, error: &Reason) {
        let pair = self.pair();
        let task = rekeys.map_or(Task::NewChild, Task::RekeyChild);
        match (error, rekeys) {
            // RFC 7296 section 2.25: it is for now only. RFC 9370 section 2.2.4: it is begun anew.
            (Reason::Refused(Refusal::Temporary | Refusal::NoExchange), Some(_)) => {
                self.put_off(cx, task);
            }
            // The peer's own request for a child has overtaken ours.
            (Reason::Refused(Refusal::Temporary | Refusal::NoExchange), None)
                if self.children.alive().next().is_some() => {}
            // RFC 7296 section 2.25.1: the peer no longer has what we wanted to replace.
            (Reason::Refused(Refusal::NoSuchChild), Some(in_spi)) => self.child_closed(cx, in_spi, true),
            // RFC 7296 section 1.3.1: both lists say which key exchange a successor has, and these have none in common.
            // The first child of an IKE SA needs none (section 1.2), and its keys are as fresh.
            (Reason::Refused(Refusal::Proposals), Some(rekeyed)) if self.spend() => {
                let patience = cx.now + cx.settings.rekey_after / 4;
                self.children.get_mut(rekeyed).into_iter().for_each(|child| child.rekey_again(patience));
            }
            _ => {
                // The peer has made a child that we do not want.
                if !matches!(error, Reason::Refused(_)) {
                    self.delete_unwanted(in_spi);
                }
                cx.fail(pair, FailureScope::Child, error.clone());
                if rekeys.is_some() {
                    cx.out.counters.rekeys.child.failed += 1;
                    self.put_off(cx, task);
                }
            }
        }
    }
}

/// The public value of `key`.
fn public(key: &KeyPair) -> Payload {
    Payload::Ke(Ke { group: key.group().id(), data: key.public().to_vec() })
}
