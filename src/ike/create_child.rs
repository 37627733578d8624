//! CREATE_CHILD_SA for children: new ones and successors (RFC 7296 sections 1.3.1, 1.3.3, 2.8 and 2.25).

use std::time::Instant;

use super::agreement::KeyPair;
use super::child::{self, Agreement, Child, Offer};
use super::error::Error;
use super::established::Established;
use super::initiate::failure;
use super::keys::Nonces;
use super::limits::CHILDREN_MAX;
use super::outbox::{Cx, Scope};
use super::pending::{Asked, AskedChild, Crossing, Held, Task};
use super::suite::OwnKe;
use super::wire::codes::{Exchange, notify};
use super::wire::{Ke, Parts, Payload, about_child};
use crate::model::Spi;
use crate::model::config::Method;

impl Established {
    /// Asks for a child, or for a successor of `rekeys`. `None` where there is nothing to ask any more.
    pub(super) fn child_request(
        &mut self,
        cx: &mut Cx<'_>,
        rekeys: Option<Spi>,
    ) -> Option<(Exchange, Vec<Payload>, Asked)> {
        let mut payloads = Vec::new();
        if let Some(in_spi) = rekeys {
            let old = self.child(in_spi).filter(|old| old.is_alive() && !self.is_replaced(old))?;
            // RFC 7296 section 1.3.3: named by the SPI that the sender expects in inbound packets.
            payloads.push(about_child(notify::REKEY_SA, old.in_spi.0));
        }
        let offer = Offer::new(cx);
        let nonce = cx.nonce();
        payloads.extend(offer.request(&cx.settings.esp_proposals, self.pair(), Some(&nonce)));
        payloads.extend((!self.is_foreign()).then(|| offer.word(cx.now)));
        let asked = AskedChild { offer, nonce, rekeys, crossing: None, deleted: Vec::new() };
        Some((Exchange::CREATE_CHILD_SA, payloads, Asked::Child(asked)))
    }

    /// The peer asks for a child on the IKE SA `ours`.
    pub(super) fn answer_child(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        request: &Parts<'_>,
    ) -> Result<Held, Error> {
        let replaces = self.may_make_child(cx.now, request)?;
        let ke = request.ke();
        let own_ke = match self.basis().method {
            Method::Ike => OwnKe::Brought(ke.map(|ke| ke.group), &cx.settings.ike_proposals),
            Method::Derived => OwnKe::Refused,
        };
        let (choice, selectors) = child::accept(self.path(), &cx.settings.esp_proposals, request, own_ke)?;
        let nonces = Nonces { initiator: request.nonce()?.to_vec(), responder: cx.nonce() };
        let (shared, ke) = match choice.group.zip(ke) {
            Some((group, theirs)) => {
                let key = KeyPair::generate(group, cx.entropy)?;
                let ours = Payload::Ke(Ke { group: group.id(), data: key.public().to_vec() });
                (Some(key.agree(&theirs.data)?), Some(ours))
            }
            None => (None, None),
        };
        let agreement = Agreement {
            path: *self.path(),
            offer: Offer::new(cx),
            choice,
            nonces: &nonces,
            shared: shared.as_ref(),
            initiator: false,
            foreign: self.is_foreign(),
            replaces,
        };
        let mut held = Held::new(Exchange::CREATE_CHILD_SA, cx.now, Vec::new());
        held.child = Some(agreement.held(Some(Payload::Nonce(nonces.responder.clone())), ke, selectors));
        self.note_crossing(replaces, &agreement);
        self.announce_on(cx, ours, &agreement, request);
        Ok(held)
    }

    /// Whether the peer may have the child that it asks for, and which one that replaces.
    fn may_make_child(&self, now: Instant, request: &Parts<'_>) -> Result<Option<Spi>, Error> {
        // RFC 7296 section 2.25.2: not while the IKE SA is being rekeyed or closed.
        if self.is_rekeying_ike() || self.is_closing() {
            return Err(Error::Busy);
        }
        let replaces = match request.about_child(notify::REKEY_SA) {
            None => None,
            Some(spi) => {
                let old = self.children.iter().find(|child| child.out_spi.0 == spi);
                // The answer that makes that child may have been overtaken by this request.
                let asking = self.sas.iter().any(|sa| matches!(sa.window.asking(), Some(Asked::Child(_))));
                let old = old.ok_or(if asking { Error::Busy } else { Error::NoSuchChild(spi) })?;
                // RFC 7296 section 2.25.1. One that has its successor already is as good as closing.
                if !old.is_alive() || self.is_replaced(old) {
                    return Err(Error::Busy);
                }
                Some(old.in_spi)
            }
        };
        // A hostseal peer wants one child: soon after the first, a second is its request for the first,
        // overtaken by ours.
        let young = |child: &Child| child.is_alive() && now < child.since + Self::LINGER;
        if !self.is_foreign() && replaces.is_none() && self.children.iter().any(young) {
            return Err(Error::Busy);
        }
        if self.children.len() >= CHILDREN_MAX {
            return Err(Error::TooMany);
        }
        Ok(replaces)
    }

    /// Remembers that the peer's exchange crosses ours for the same child.
    fn note_crossing(&mut self, replaces: Option<Spi>, theirs: &Agreement<'_>) {
        let asking = self.sas.iter_mut().filter_map(|sa| sa.window.asking_mut());
        for asked in asking {
            if let Asked::Child(asked) = asked
                && asked.rekeys == replaces
            {
                asked.crossing = Some(Crossing { made: theirs.offer.in_spi, lowest: theirs.nonces.lowest() });
            }
        }
    }

    /// A child that crosses what we ask for is replaced before our answer comes: its successor stands for it.
    pub(super) fn pass_on_crossing(&mut self, replaced: Option<Spi>, successor: Spi) {
        for asked in self.sas.iter_mut().filter_map(|sa| sa.window.asking_mut()) {
            if let Asked::Child(AskedChild { crossing: Some(theirs), .. }) = asked
                && replaced == Some(theirs.made)
            {
                theirs.made = successor;
            }
        }
    }

    /// The peer has answered our request.
    pub(super) fn child_answered(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        asked: &AskedChild,
        payloads: Result<Vec<Payload>, Error>,
    ) {
        let concluded = payloads.and_then(|payloads| {
            let parts = Parts(&payloads);
            if let Some(refusal) = parts.refusal() {
                return Err(Error::Refused(refusal));
            }
            let choice = child::conclude(self.path(), &cx.settings.esp_proposals, &parts)?;
            let nonces = Nonces { initiator: asked.nonce.clone(), responder: parts.nonce()?.to_vec() };
            Ok((choice, nonces, payloads))
        });
        let (choice, nonces, payloads) = match concluded {
            Ok(concluded) => concluded,
            Err(error) => return self.child_refused(cx, asked, &error),
        };
        if asked.deleted.contains(&choice.out_spi.0) {
            return self.child_overtaken(cx, asked);
        }
        if self.is_redundant(asked, &nonces) || self.is_closing() {
            return self.delete_unwanted(asked.offer.in_spi);
        }
        let agreement = Agreement {
            path: *self.path(),
            offer: asked.offer,
            choice,
            nonces: &nonces,
            shared: None,
            initiator: true,
            foreign: self.is_foreign(),
            replaces: asked.rekeys,
        };
        self.succeeded();
        self.announce_on(cx, ours, &agreement, &Parts(&payloads));
    }

    /// The peer has deleted the child before its answer came.
    fn child_overtaken(&mut self, cx: &mut Cx<'_>, asked: &AskedChild) {
        if let Some(in_spi) = asked.rekeys {
            self.put_off(cx, Task::RekeyChild(in_spi));
        }
    }

    /// RFC 7296 section 2.8.1: of two children that crossed, the one made with the lowest of the four
    /// nonces is redundant, and whoever asked for it deletes it.
    fn is_redundant(&self, asked: &AskedChild, nonces: &Nonces) -> bool {
        asked.crossing.as_ref().is_some_and(|theirs| {
            let theirs_lives = self.child(theirs.made).is_some_and(|child| child.is_alive());
            theirs_lives && nonces.lowest() < theirs.lowest
        })
    }

    fn child_refused(&mut self, cx: &mut Cx<'_>, asked: &AskedChild, error: &Error) {
        let pair = self.pair();
        let task = asked.rekeys.map_or(Task::NewChild, Task::RekeyChild);
        match (error, asked.rekeys) {
            // RFC 7296 section 2.25: it is for now only.
            (Error::Refused(notify::TEMPORARY_FAILURE), Some(_)) => self.put_off(cx, task),
            // The peer's own request for a child has overtaken ours.
            (Error::Refused(notify::TEMPORARY_FAILURE), None)
                if self.children.iter().any(Child::is_alive) => {}
            // RFC 7296 section 2.25.1: the peer no longer has what we wanted to replace.
            (Error::Refused(notify::CHILD_SA_NOT_FOUND), Some(in_spi)) => self.child_closed(cx, in_spi, true),
            (Error::Refused(_), _) => {
                cx.fail(pair, Scope::Child, failure(error), error.to_string());
                if asked.rekeys.is_some() {
                    self.put_off(cx, task);
                }
            }
            // The peer has made a child that we do not want.
            _ => {
                self.delete_unwanted(asked.offer.in_spi);
                cx.fail(pair, Scope::Child, failure(error), error.to_string());
                if asked.rekeys.is_some() {
                    self.put_off(cx, task);
                }
            }
        }
    }
}
