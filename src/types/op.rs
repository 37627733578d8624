//! Changes of a kernel's state, as values: they can be tested, ordered and printed before they are made.

use std::collections::BTreeMap;
use std::fmt;

use super::{Policy, PolicyId, Sa, SaId, SaKey};

/// One change. Keys are not part of it: whoever carries it out has them (see `NewChild`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Adds an SA; refused where one with its identity exists.
    AddSa(Sa),
    /// Deletes an SA of ours.
    DeleteSa(SaId),
    /// Adds a policy at an index of ours; refused where one with its identity exists.
    AddPolicy {
        /// What to add.
        policy: Policy,
        /// Where.
        index: u32,
    },
    /// Replaces a policy proven ours, atomically.
    UpdatePolicy {
        /// What to write.
        policy: Policy,
        /// The index that it has.
        index: u32,
    },
    /// Deletes a policy of ours by its index.
    DeletePolicy {
        /// What identifies it.
        id: PolicyId,
        /// The index that it has.
        index: u32,
    },
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::AddSa(sa) => write!(f, "add {} ({:?}, {} bits)", sa.id(), sa.direction, sa.suite.key_bits),
            Op::DeleteSa(id) => write!(f, "delete {id}"),
            Op::AddPolicy { policy, .. } => write!(f, "add {}: {:?}", policy.id(), policy.action),
            Op::UpdatePolicy { policy, .. } => write!(f, "update {}: {:?}", policy.id(), policy.action),
            Op::DeletePolicy { id, .. } => write!(f, "delete {id}"),
        }
    }
}

/// Where whoever carries out an [`Op::AddSa`] finds its key.
pub trait KeySource {
    /// The key of an SA that is about to be added.
    fn key(&self, id: SaId) -> Option<&SaKey>;
}

impl KeySource for BTreeMap<SaId, SaKey> {
    fn key(&self, id: SaId) -> Option<&SaKey> {
        self.get(&id)
    }
}

/// Why the kernel refused an [`Op`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// An object with the same identity is there already.
    #[error("{op}: the kernel holds one already")]
    Exists {
        /// What was asked, in words.
        op: String,
    },
    /// There is nothing with that identity.
    #[error("{op}: the kernel holds none")]
    Missing {
        /// What was asked, in words.
        op: String,
    },
    /// Anything else.
    #[error("{op}: {reason}")]
    Refused {
        /// What was asked, in words.
        op: String,
        /// The system error and the kernel's own words.
        reason: String,
    },
}
