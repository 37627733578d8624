//! SAs that were found in the kernel, of an agent before this one or of a life before: they serve until a child has
//! taken over, and nobody can say anything of them any more.

use std::collections::BTreeMap;
use std::time::Instant;

use super::AdoptedSa;
use crate::protect::clock::Clock;
use crate::protect::timing::{IN_GRACE, OUT_GRACE};
use crate::types::{Direction, SaId, Through};

/// The inherited SAs, and how they end.
#[derive(Debug)]
pub(super) struct Inherited {
    sas: BTreeMap<SaId, AdoptedSa>,
    /// When they end, whatever has taken over by then.
    until: Option<Instant>,
    /// When the outbound policy last moved away from one of these, or from nothing.
    left: Instant,
    /// When both ends first sent through a child, since these were taken in.
    taken_over: Option<Instant>,
}

impl Inherited {
    pub(super) fn new(now: Instant) -> Self {
        Self { sas: BTreeMap::new(), until: None, left: now, taken_over: None }
    }

    /// Takes these in beside those that are there.
    pub(super) fn take_in(&mut self, sas: impl IntoIterator<Item = (SaId, AdoptedSa)>) {
        self.sas.extend(sas);
        self.taken_over = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sas.is_empty()
    }

    /// Whether packets can leave through one of them.
    pub(super) fn send(&self, through: Through) -> bool {
        self.sas.iter().any(|(id, found)| found.sends(*id, through))
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SaId> {
        self.sas.keys().copied()
    }

    /// They end then, or, if `None`, with their keys.
    pub(super) fn end_at(&mut self, at: Option<Instant>) {
        self.until = at;
    }

    /// The outbound policy moves away from one of these, or from nothing.
    pub(super) fn note_left(&mut self, now: Instant) {
        self.left = now;
    }

    /// Both ends send through a child.
    pub(super) fn note_taken_over(&mut self, now: Instant) {
        if !self.is_empty() {
            self.taken_over.get_or_insert(now);
        }
    }

    /// The SAs that are `gone` are not wanted any more, or not there.
    pub(super) fn take_away(&mut self, gone: impl Fn(SaId) -> bool) {
        self.sas.retain(|id, _| !gone(*id));
    }

    /// This end sends clear packets.
    pub(super) fn take_away_outbound(&mut self) {
        self.sas.retain(|_, found| found.direction == Direction::In);
    }

    pub(super) fn let_go(&mut self) {
        self.sas.clear();
    }

    /// Their way out. `named` is what the outbound policy should name, `by_child` whether that is a child's.
    pub(super) fn retire(&mut self, clock: &mut Clock, named: Option<Through>, by_child: bool) {
        if self.is_empty() {
            return;
        }
        if self.until.is_some_and(|at| clock.due(at)) {
            return self.let_go();
        }
        let moved = clock.due(self.left + OUT_GRACE);
        let taken_over = self.taken_over.is_some_and(|at| clock.due(at + IN_GRACE));
        self.sas.retain(|id, found| match found.direction {
            Direction::Out => named.is_some_and(|named| found.sends(*id, named)) || !moved || !by_child,
            Direction::In => !taken_over,
        });
    }
}
