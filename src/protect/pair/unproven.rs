//! Inbound SAs of parties that have proven nothing: a pair that accepts clear packets may have them, a sealed one
//! never (invariant 10).

use std::collections::{BTreeMap, BTreeSet};

use super::AdoptedSa;
use crate::protect::plan::Desired;
use crate::types::{OpError, Sa, SaId, Spi};

/// The unproven inbound SAs of a pair.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    /// The inbound SA made before the peer has agreed to its child, and whether the kernel has it.
    ahead: Option<(Sa, bool)>,
    /// The ones that were found in the kernel.
    found: BTreeSet<SaId>,
    /// The ones that the kernel may hold and must not.
    withdrawn: BTreeSet<SaId>,
}

impl Unproven {
    /// These are among what was found in the kernel.
    pub(super) fn adopt(&mut self, ids: BTreeSet<SaId>) {
        self.found = ids;
    }

    /// The kernel is to hold this one ahead of its child, in place of another.
    pub(super) fn expect(&mut self, sa: Sa) {
        self.withdraw_ahead();
        self.ahead = Some((sa, false));
    }

    /// Whether the kernel may hold it, from before its child was agreed.
    pub(super) fn holds(&self, id: SaId) -> bool {
        let ahead = self.ahead.is_some_and(|(sa, installed)| installed && sa.id() == id);
        ahead || self.withdrawn.contains(&id)
    }

    /// Its party has proven itself, or there will be no child of that name.
    pub(super) fn settle(&mut self, in_spi: Spi) {
        self.ahead.take_if(|(sa, _)| sa.spi == in_spi);
    }

    /// They are a child's now.
    pub(super) fn pass_on(&mut self, ids: impl Iterator<Item = SaId>) {
        for id in ids {
            self.withdrawn.remove(&id);
        }
    }

    /// All of them are to go before anything else changes.
    pub(super) fn withdraw(&mut self) {
        self.withdraw_ahead();
        self.withdrawn.append(&mut self.found);
    }

    fn withdraw_ahead(&mut self) {
        let there = self.ahead.take().filter(|(_, installed)| *installed);
        self.withdrawn.extend(there.map(|(sa, _)| sa.id()));
    }

    /// The ones that are to go.
    pub(super) fn withdrawn(&self) -> &BTreeSet<SaId> {
        &self.withdrawn
    }

    /// What was desired has been tried.
    pub(super) fn note_applied(&mut self, refused: &BTreeMap<SaId, OpError>) {
        self.ahead.take_if(|(sa, _)| refused.contains_key(&sa.id()));
        self.ahead = self.ahead.map(|(sa, _)| (sa, true));
        self.withdrawn.clear();
    }

    /// The inbound SA ahead of its child counts from now on as found in the kernel.
    pub(super) fn leave_behind(&mut self) -> Option<(SaId, AdoptedSa)> {
        let (sa, _) = self.ahead.take()?;
        self.found.insert(sa.id());
        Some((sa.id(), AdoptedSa::of(&sa)))
    }

    /// Nothing is expected any more.
    pub(super) fn let_go(&mut self) {
        self.ahead = None;
    }

    /// As the kernel should hold them.
    pub(super) fn desired(&self, desired: &mut Desired) {
        match self.ahead {
            Some((sa, true)) => drop(desired.keep.insert(sa.id())),
            Some((sa, false)) => desired.fresh.push(sa),
            None => {}
        }
        desired.withdrawn.clone_from(&self.withdrawn);
    }
}
