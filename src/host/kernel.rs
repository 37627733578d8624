//! The kernel as the core sees it: real in the agent, simulated in tests of thousands of hosts.

use std::collections::BTreeMap;

use crate::types::{KernelState, KeySource, Op, OpError, PolicyReading, SaId, SaKey, SaReading, SaTable};

/// A kernel cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's tables cannot be read: {0}")]
pub struct Unreadable(pub String);

/// What the core needs of a kernel.
pub trait Kernel {
    /// Makes the changes in order; one result each.
    fn apply(&mut self, ops: &[Op], keys: &dyn KeySource) -> Vec<Result<(), OpError>>;

    /// Reads SAs of ours and all policies.
    ///
    /// # Errors
    /// When the tables cannot be read.
    fn read(&mut self) -> Result<KernelState, Unreadable>;

    /// Reads SAs alone.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn read_all_sas(&mut self) -> Result<SaTable, Unreadable>;

    /// Reads SAs of ours alone.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn read_sas(&mut self) -> Result<BTreeMap<SaId, SaReading>, Unreadable> {
        self.read_all_sas().map(|sas| sas.ours)
    }

    /// Reads one SA of ours; `None` if there is none.
    ///
    /// # Errors
    /// When the table cannot be read.
    fn read_sa(&mut self, id: SaId) -> Result<Option<SaReading>, Unreadable>;

    /// Whether no packet has met each of `policies` since it was written; `false` where that cannot be told.
    fn unused(&mut self, policies: &[PolicyReading]) -> Vec<bool>;
}

/// Keys on their way to the kernel: each leaves as soon as the kernel has answered for its SA.
#[derive(Default)]
pub struct Vault(BTreeMap<SaId, SaKey>);

impl Vault {
    /// Takes over the key of an SA.
    pub fn put(&mut self, id: SaId, key: SaKey) {
        self.0.insert(id, key);
    }

    /// How many keys there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets the key of an SA; its memory is zeroed.
    pub fn forget(&mut self, id: SaId) {
        self.0.remove(&id);
    }
}

impl KeySource for Vault {
    fn key(&self, id: SaId) -> Option<&SaKey> {
        self.0.get(&id)
    }
}
