//! The children of an established session: from the agreement on to the end.

use super::child::{Agreement, ChildSa, told};
use super::established::Established;
use super::pending::Task;
use crate::ike::Event;
use crate::ike::outbox::{Cx, FailureScope};
use crate::ike::reason::Failed;
use crate::ike::wire::Parts;
use crate::types::Spi;

/// The children of a session.
#[derive(Default)]
pub struct ChildSas(Vec<ChildSa>);

impl ChildSas {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, ChildSa> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, ChildSa> {
        self.0.iter_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one with that inbound SA here.
    pub(super) fn get(&self, in_spi: Spi) -> Option<&ChildSa> {
        self.iter().find(|child| child.in_spi() == in_spi)
    }

    pub(super) fn get_mut(&mut self, in_spi: Spi) -> Option<&mut ChildSa> {
        self.iter_mut().find(|child| child.in_spi() == in_spi)
    }

    /// The one with that inbound SA at the peer.
    pub(super) fn of_peer(&self, out_spi: Spi) -> Option<&ChildSa> {
        self.iter().find(|child| child.out_spi() == out_spi)
    }

    /// Those that carry traffic, or will soon.
    pub(super) fn alive(&self) -> impl Iterator<Item = &ChildSa> {
        self.iter().filter(|child| child.is_alive())
    }

    /// Those that are in our kernel and stay.
    pub(super) fn live(&self) -> impl Iterator<Item = &ChildSa> {
        self.iter().filter(|child| child.is_live())
    }

    /// One that was just agreed.
    fn add(&mut self, child: ChildSa) {
        // Most have one, and there are thousands of pairs.
        self.0.reserve_exact(1);
        self.0.push(child);
    }

    /// Says whether it was there.
    fn remove(&mut self, in_spi: Spi) -> bool {
        let before = self.0.len();
        self.0.retain(|child| child.in_spi() != in_spi);
        self.0.len() < before
    }
}

impl Established {
    /// The child with that inbound SA.
    pub fn child(&self, in_spi: Spi) -> Option<&ChildSa> {
        self.children.get(in_spi)
    }

    /// Whether a child carries traffic or is on the way to.
    pub fn has_or_makes_child(&self) -> bool {
        self.children.alive().next().is_some() || self.agenda.makes_child() || self.is_asking_for_child()
    }

    /// Whether the successor of the child can carry traffic.
    pub(super) fn is_replaced(&self, child: &ChildSa) -> bool {
        child.successor().and_then(|spi| self.child(spi)).is_some_and(ChildSa::is_alive)
    }

    /// The kernel has answered for a child.
    pub fn child_installed(&mut self, cx: &mut Cx<'_>, in_spi: Spi, ok: bool) {
        let held = self.sas.held_mut().filter_map(|held| held.child.as_mut());
        let as_responder =
            held.filter(|held| held.in_spi == in_spi).map(|held| held.installed = Some(ok)).count() > 0;
        let (pair, foreign) = (self.pair(), self.is_foreign());
        let Some(child) = self.children.get_mut(in_spi).filter(|child| child.is_announced()) else {
            return;
        };
        if child.predecessor().is_some() {
            let rekeys = &mut cx.out.counters.rekeys.child;
            *if ok { &mut rekeys.done } else { &mut rekeys.failed } += 1;
        }
        match (ok, as_responder) {
            (true, _) => {
                child.install();
                if foreign && !as_responder {
                    cx.out.events.push_back(Event::ForeignReady { pair, in_spi });
                }
            }
            // The peer learns it from the answer.
            (false, true) => drop(self.forget_child(in_spi)),
            (false, false) => {
                let predecessor = child.predecessor();
                self.delete_child(in_spi);
                cx.fail(pair, FailureScope::Child, Failed::Installation);
                if let Some(predecessor) = predecessor {
                    self.put_off(cx, Task::RekeyChild(predecessor));
                }
            }
        }
    }

    /// Begins to delete a child.
    pub fn delete_child(&mut self, in_spi: Spi) {
        if let Some(child) = self.children.get_mut(in_spi).filter(|child| child.is_alive()) {
            child.close();
            self.add_task(Task::DeleteChild(in_spi));
        }
    }

    /// Deletes a child that the agent never heard of.
    pub fn delete_unwanted(&mut self, in_spi: Spi) {
        self.add_task(Task::DeleteChild(in_spi));
    }

    /// Tells the agent that the children will go with the session.
    pub fn doom_children(&self, cx: &mut Cx<'_>) {
        let pair = self.pair();
        let doomed = self.children.iter().map(|child| Event::ChildDoomed { pair, in_spi: child.in_spi() });
        cx.out.events.extend(doomed);
    }

    /// Tells the agent that the children are gone, since the session is.
    pub fn end_children(&mut self, cx: &mut Cx<'_>, void: bool) {
        let pair = self.pair();
        for child in std::mem::take(&mut self.children).0 {
            cx.out.events.push_back(Event::ChildClosed { pair, in_spi: child.in_spi(), void });
        }
    }

    /// Remembers a child and hands it to the agent.
    pub fn announce(&mut self, cx: &mut Cx<'_>, agreement: &Agreement<'_>, parts: &Parts<'_>) {
        let current = self.sas.current();
        self.announce_on(cx, current, agreement, parts);
    }

    /// The same for a child that was agreed on the IKE SA `ours`.
    pub(super) fn announce_on(
        &mut self,
        cx: &mut Cx<'_>,
        ours: u64,
        agreement: &Agreement<'_>,
        parts: &Parts<'_>,
    ) {
        // No key of data comes out of a control IKE SA, whatever has led here.
        let Some(sa) = self.sas.get(ours).filter(|_| !self.is_childless()) else { return };
        let new_child = agreement.new_child(&sa.keys);
        let child = agreement.child(cx);
        let told = told(parts, child.out_spi()).filter(|_| !agreement.foreign);
        if let Some(replaced) = agreement.replaces.and_then(|spi| self.children.get_mut(spi)) {
            replaced.succeed(child.in_spi());
        }
        self.pass_on_crossing(agreement.replaces, child.in_spi());
        let (token, replaces) = (agreement.offer.token, agreement.replaces);
        cx.out.events.push_back(Event::ChildAgreed { child: new_child, token, told, replaces });
        self.children.add(child);
    }

    /// Drops what is remembered of a child. Says whether there was one.
    fn forget_child(&mut self, in_spi: Spi) -> bool {
        self.agenda.forget_child(in_spi);
        self.children.remove(in_spi)
    }

    /// A child no longer exists.
    pub(super) fn child_closed(&mut self, cx: &mut Cx<'_>, in_spi: Spi, void: bool) {
        let pair = self.pair();
        if self.forget_child(in_spi) {
            cx.out.events.push_back(Event::ChildClosed { pair, in_spi, void });
        }
    }

    /// A foreign peer has our answers, or it would not say more.
    pub(super) fn confirm(&mut self, cx: &mut Cx<'_>, in_spi: Spi) {
        let pair = self.pair();
        if let Some(child) = self.children.get_mut(in_spi).filter(|child| child.is_unconfirmed()) {
            child.confirm();
            cx.out.events.push_back(Event::ForeignReady { pair, in_spi });
        }
    }

    /// The children that a foreign peer has yet to confirm.
    pub(super) fn unconfirmed(&self) -> impl Iterator<Item = &ChildSa> {
        self.children.iter().filter(|child| child.is_unconfirmed())
    }
}
