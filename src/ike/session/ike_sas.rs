//! The IKE SAs of a session: one, and a few more while it is rekeyed.

use super::ike_sa::{IkeSa, Stage};
use super::pending::{Asked, HeldRequest};
use crate::ike::limits::IKE_SAS_MAX;
use crate::ike::wire::Header;

/// The IKE SAs of a session, oldest first.
pub struct IkeSas {
    all: Vec<IkeSa>,
    /// The one that new requests go out on, by our index.
    current: u64,
}

impl IkeSas {
    pub(super) fn new(sa: IkeSa) -> Self {
        Self { current: sa.ours(), all: vec![sa] }
    }

    pub fn iter(&self) -> std::slice::Iter<'_, IkeSa> {
        self.all.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, IkeSa> {
        self.all.iter_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The one with our index `ours`.
    pub(super) fn get(&self, ours: u64) -> Option<&IkeSa> {
        self.all.iter().find(|sa| sa.ours() == ours)
    }

    pub(super) fn get_mut(&mut self, ours: u64) -> Option<&mut IkeSa> {
        self.all.iter_mut().find(|sa| sa.ours() == ours)
    }

    /// The one that a message with `header` can be on.
    pub(super) fn owner_mut(&mut self, header: &Header) -> Option<&mut IkeSa> {
        self.all.iter_mut().find(|sa| sa.owns(header))
    }

    /// The one that new requests go out on, by our index.
    pub(super) fn current(&self) -> u64 {
        self.current
    }

    /// The one that new requests go out on, while it is there.
    pub fn in_use(&self) -> Option<&IkeSa> {
        self.get(self.current)
    }

    pub(super) fn in_use_mut(&mut self) -> Option<&mut IkeSa> {
        self.get_mut(self.current)
    }

    /// One that was just made.
    pub(super) fn add(&mut self, sa: IkeSa) {
        self.all.push(sa);
    }

    /// New requests go out on that one from now on.
    pub(super) fn go_on_with(&mut self, ours: u64) {
        self.current = ours;
    }

    /// The current one is gone: new requests go out on another one, if there is one.
    pub(super) fn move_on(&mut self) -> bool {
        let next = self.all.iter().rev().find(|sa| sa.stage == Stage::Live).map(IkeSa::ours);
        self.current = next.unwrap_or(self.current);
        next.is_some()
    }

    pub(super) fn remove(&mut self, ours: u64) {
        self.all.retain(|sa| sa.ours() != ours);
    }

    pub(super) fn clear(&mut self) {
        self.all.clear();
    }

    /// How one stands from now on, unless the peer has deleted it.
    pub(super) fn mark(&mut self, ours: u64, stage: Stage) {
        if let Some(sa) = self.get_mut(ours).filter(|sa| !matches!(sa.stage, Stage::Ended(_))) {
            sa.stage = stage;
        }
    }

    /// All are to be deleted, also one that was asked for before the session began to end.
    pub(super) fn doom(&mut self) {
        for sa in self.all.iter_mut().filter(|sa| !matches!(sa.stage, Stage::Ended(_))) {
            sa.stage = Stage::Doomed;
        }
    }

    /// Requests that are on their way are sent so many times more at most.
    pub(super) fn hurry(&mut self, tries: u32) {
        self.all.iter_mut().filter_map(|sa| sa.window.retransmission()).for_each(|sent| sent.hurry(tries));
    }

    /// Makes room for one more, if there is any: what the peer has deleted, and is kept for its answer alone, goes.
    pub(super) fn make_room(&mut self) -> bool {
        if self.all.len() >= IKE_SAS_MAX
            && let Some(ended) = self.all.iter().position(|sa| matches!(sa.stage, Stage::Ended(_)))
        {
            self.all.remove(ended);
        }
        self.all.len() < IKE_SAS_MAX
    }

    /// What is asked on them.
    pub(super) fn asked(&self) -> impl Iterator<Item = &Asked> {
        self.all.iter().filter_map(|sa| sa.window.asking())
    }

    pub(super) fn asked_mut(&mut self) -> impl Iterator<Item = &mut Asked> {
        self.all.iter_mut().filter_map(|sa| sa.window.asking_mut())
    }

    /// What the peer asks on them.
    pub(super) fn held(&self) -> impl Iterator<Item = &HeldRequest> {
        self.all.iter().filter_map(|sa| sa.window.held())
    }

    pub(super) fn held_mut(&mut self) -> impl Iterator<Item = &mut HeldRequest> {
        self.all.iter_mut().filter_map(|sa| sa.window.held_mut())
    }
}
