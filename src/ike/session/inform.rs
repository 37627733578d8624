//! INFORMATIONAL: words, deletes, liveness (RFC 7296 sections 1.4, 1.4.1 and 2.4).

use std::sync::Arc;

use super::established::Established;
use super::ike_sa::Stage;
use super::pending::{Asked, HeldRequest, Task};
use crate::ike::Event;
use crate::ike::Settings;
use crate::ike::limits::{ABOUT_MAX, CHILDREN_MAX};
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::reason::Refusal;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::word;
use crate::ike::wire::{Delete, Parts, Payload};
use crate::types::Spi;
use crate::types::word::Flags;

impl Established {
    /// Says what the peer has not been told yet.
    pub(super) fn words_request(&self, cx: &Cx<'_>) -> Option<(Exchange, Vec<Payload>, Asked)> {
        if self.is_foreign() {
            return None;
        }
        let untold = || self.children.iter().filter(|child| child.has_news());
        let words: Vec<_> = untold().map(|child| (child.in_spi, child.flags)).collect();
        let payloads = untold().map(|child| word::to_payload(&child.word(), cx.now)).collect();
        let (payloads, about) = self.with_about(cx.settings, payloads);
        let asked = Asked::Inform { words, confirms: Vec::new(), about };
        untold().next().is_some().then_some((Exchange::INFORMATIONAL, payloads, asked))
    }

    /// Asks whether the peer is there.
    pub(super) fn liveness_request(&self, cx: &Cx<'_>) -> (Exchange, Vec<Payload>, Asked) {
        // An answer may overtake the one that made a child, or come without it: strongSwan drops what has the number
        // of a message that it is working on. Where another child serves meanwhile, it proves too little.
        let alone = self.unconfirmed().filter(|child| child.predecessor.is_none());
        let confirms = alone.map(|child| child.in_spi).collect();
        let (payloads, about) = self.with_about(cx.settings, Vec::new());
        let asked = Asked::Inform { words: Vec::new(), confirms, about };
        (Exchange::INFORMATIONAL, payloads, asked)
    }

    /// What the peer is still to be told of this host.
    pub fn untold(&self, settings: &Settings) -> Option<Arc<[u8]>> {
        let about = self.instead.as_ref().unwrap_or(&settings.about);
        let known = self.told.as_deref().unwrap_or_default() == &**about;
        (!known && !self.is_foreign()).then(|| about.clone())
    }

    /// Tells the peer this of this host, instead of what all are told.
    pub fn tell_instead(&mut self, about: Arc<[u8]>) {
        self.instead = Some(about);
        self.add_task(Task::Liveness);
    }

    /// `payloads`, and behind them what the peer is still to be told of this host.
    fn with_about(
        &self,
        settings: &Settings,
        mut payloads: Vec<Payload>,
    ) -> (Vec<Payload>, Option<Arc<[u8]>>) {
        let about = self.untold(settings);
        payloads.extend(about.iter().map(|about| Payload::notify(notify::HOSTSEAL_ABOUT, about.to_vec())));
        (payloads, about)
    }

    /// Deletes a child: each end names its own inbound SA (RFC 7296 section 1.4.1).
    pub(super) fn delete_child_request(&self, in_spi: Spi) -> (Exchange, Vec<Payload>, Asked) {
        let payloads = vec![Payload::Delete(Delete::Esp(vec![in_spi.0]))];
        (Exchange::INFORMATIONAL, payloads, Asked::DeleteChild(in_spi))
    }

    /// Deletes the IKE SA that carries it.
    pub(super) fn delete_ike_request() -> (Exchange, Vec<Payload>, Asked) {
        (Exchange::INFORMATIONAL, vec![Payload::Delete(Delete::Ike)], Asked::DeleteIke)
    }

    /// The peer has answered words or a question.
    pub(super) fn informed(&mut self, cx: &mut Cx<'_>, words: Vec<(Spi, Flags)>, confirms: Vec<Spi>) {
        for (in_spi, flags) in words {
            if let Some(child) = self.child_mut(in_spi) {
                child.note_told(cx.now, flags);
            }
        }
        for in_spi in confirms {
            self.confirm(cx, in_spi);
        }
    }

    /// The words in a message, with the children that they are about.
    pub fn hear(&mut self, cx: &mut Cx<'_>, parts: &Parts<'_>) -> Vec<Spi> {
        if self.is_foreign() {
            return Vec::new();
        }
        let pair = self.pair();
        let told = parts.notify(notify::HOSTSEAL_ABOUT).filter(|told| told.data.len() <= ABOUT_MAX);
        cx.out.events.extend(told.map(|told| Event::Told { pair, bytes: told.data.clone() }));
        let mut heard = Vec::new();
        for word in parts.notifies().filter_map(|notify| word::from_notify(notify, cx.now)) {
            let Some(child) = self.children.iter_mut().find(|child| child.out_spi == word.spi) else {
                continue;
            };
            heard.push(child.in_spi);
            if child.hear(cx.now, &word) {
                cx.out.events.push_back(Event::PeerWord { pair, in_spi: child.in_spi, word });
            }
        }
        heard
    }

    /// The peer says something on the IKE SA `ours`.
    pub(super) fn answer_informational(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        request: &Parts<'_>,
    ) -> HeldRequest {
        let mut held = HeldRequest::new(Exchange::INFORMATIONAL, cx.now, Vec::new());
        held.words = self.hear(cx, request);
        held.tells = request.deletes().next().is_none();
        let mut closed = Vec::new();
        for delete in request.deletes() {
            match delete {
                Delete::Esp(spis) => closed.extend(self.delete_by_peer(cx, spis)),
                Delete::Ike => self.ike_deleted_by_peer(cx, ours),
                Delete::Other => {}
            }
        }
        if !closed.is_empty() {
            held.payloads.push(Payload::Delete(Delete::Esp(closed)));
        }
        // RFC 7296 section 2.21.2: the initiator does not take our proof, so there is no IKE SA.
        if request.notify(notify::AUTHENTICATION_FAILED).is_some() {
            cx.fail(self.pair(), FailureScope::Ike, Refusal::Authentication);
            self.ike_deleted_by_peer(cx, ours);
        }
        held
    }

    /// The peer deletes its inbound SAs `spis`. Our inbound SAs of those children are the answer, except
    /// where our own Delete is on its way already (RFC 7296 section 1.4.1).
    fn delete_by_peer(&mut self, cx: &mut Cx<'_>, spis: &[u32]) -> Vec<u32> {
        let mut closed = Vec::new();
        for spi in spis {
            let Some(child) = self.children.iter().find(|child| child.out_spi.0 == *spi) else {
                self.note_deleted(*spi);
                continue;
            };
            let (in_spi, alive) = (child.in_spi, child.is_alive());
            closed.extend(alive.then_some(in_spi.0));
            self.child_closed(cx, in_spi, true);
        }
        closed
    }

    /// The peer deletes what may be the child that we are asking for.
    fn note_deleted(&mut self, spi: u32) {
        for (_, meanwhile) in self.asked_children() {
            if meanwhile.deleted.len() < CHILDREN_MAX {
                meanwhile.deleted.push(spi);
            }
        }
    }

    /// The peer deletes an IKE SA. It is kept for a while to answer with, should the answer get lost.
    fn ike_deleted_by_peer(&mut self, cx: &mut Cx<'_>, ours: u64) {
        let Some(sa) = self.sa_mut(ours) else { return };
        sa.stage = Stage::Ended(cx.now + Self::LINGER);
        let asked = sa.window.abandon();
        self.ask_again(asked);
        if ours == self.current && !self.move_on() {
            self.close(0);
            self.end_children(cx, true);
        }
    }
}
