//! INFORMATIONAL: what the ends tell each other, deletes, liveness (RFC 7296 sections 1.4, 1.4.1 and 2.4).

use std::time::Instant;

use super::established::Established;
use super::ike_sa::Stage;
use super::pending::{Asked, HeldRequest};
use crate::ike::limits::CHILDREN_MAX;
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::reason::Refusal;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Delete, Parts, Payload};
use crate::types::Spi;

impl Established {
    /// Asks whether the peer is there.
    pub(super) fn liveness_request(&self, cx: &Cx<'_>) -> (Exchange, Vec<Payload>, Asked) {
        // An answer may overtake the one that made a child, or come without it: strongSwan drops a message with the
        // number of one that it is working on. If another child serves meanwhile, the answer proves too little.
        let alone = self.unconfirmed().filter(|child| child.predecessor().is_none());
        let confirms = alone.map(|child| child.in_spi()).collect();
        let (payloads, says) = self.say(cx.now, self.untold(cx.now));
        (Exchange::INFORMATIONAL, payloads, Asked::Inform { says, confirms })
    }

    /// Deletes a child: each end names its own inbound SA (RFC 7296 section 1.4.1).
    pub(super) fn delete_child_request(&self, in_spi: Spi) -> (Exchange, Vec<Payload>, Asked) {
        let payloads = vec![Payload::Delete(Delete::Esp(vec![in_spi.0]))];
        (Exchange::INFORMATIONAL, payloads, Asked::DeleteChild(in_spi))
    }

    /// Deletes the IKE SA `ours`, which carries it. Where the session ends with it, it also says what there is left to
    /// say: there is no other message for that.
    pub(super) fn delete_ike_request(&self, now: Instant, ours: u64) -> (Exchange, Vec<Payload>, Asked) {
        let is_last = self.is_closing() && ours == self.sas.current() && !self.is_childless();
        let (mut payloads, _) = self.say(now, self.untold(now).filter(|_| is_last));
        payloads.push(Payload::Delete(Delete::Ike));
        (Exchange::INFORMATIONAL, payloads, Asked::DeleteIke)
    }

    /// The peer says something on the IKE SA `ours`.
    pub(super) fn answer_informational(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        request: &Parts<'_>,
    ) -> HeldRequest {
        let mut held = HeldRequest::new(Exchange::INFORMATIONAL, cx.now, Vec::new());
        held.children = self.hear(cx, request);
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
            let Some(child) = self.children.of_peer(Spi(*spi)) else {
                self.note_deleted(*spi);
                continue;
            };
            let (in_spi, alive) = (child.in_spi(), child.is_alive());
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
        let Some(sa) = self.sas.get_mut(ours) else { return };
        sa.stage = Stage::Ended(cx.now + Self::LINGER);
        let asked = sa.window.abandon();
        self.ask_again(asked);
        if ours == self.sas.current() && !self.move_on() {
            self.close(0);
            self.end_children(cx, true);
        }
    }
}
