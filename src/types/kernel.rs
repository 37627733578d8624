//! What a kernel holds, and what a change makes of it.

use std::collections::BTreeMap;

use super::ours::is_our_policy;
use super::stranger::Strangers;
use super::{Op, OpError, Pair, Policy, PolicyId, PolicyReading, SaId, SaReading, Spi, Through};

/// SAs of ours, and all policies: strangers' too, since one with the selector that we need is in the way, and
/// others may be asked before ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelState {
    /// SAs of ours.
    pub sas: BTreeMap<SaId, SaReading>,
    /// Policies, ours and strangers', that have a selector and nothing else: those that ours can collide with.
    pub policies: BTreeMap<PolicyId, PolicyReading>,
    /// What other software has there.
    pub strangers: Strangers,
}

impl KernelState {
    /// Whether anything of ours is there.
    pub fn holds_ours(&self) -> bool {
        !self.sas.is_empty() || self.policies.values().any(is_our_policy)
    }

    /// An SA that packets of `pair` leave by which are sent `through` some; `None` where it holds none of them.
    pub fn sends(&self, pair: Pair, through: Through) -> Option<&SaReading> {
        let to = |spi| SaId { destination: pair.remote, spi: Spi(spi) };
        let range = match through {
            Through::Sa(spi) => to(spi.0)..=to(spi.0),
            Through::Set(_) => to(0)..=to(u32::MAX),
        };
        let mut sas = self.sas.range(range).map(|(_, sa)| sa);
        sas.find(|sa| sa.source == pair.local && through.names(sa.id.spi, sa.reqid))
    }

    /// Makes a change as a kernel does: what is there cannot be added, what is not cannot be deleted, and
    /// an update writes whatever was there before (docs/kernel.md, fact 8b).
    ///
    /// # Errors
    /// The kernel would refuse; nothing has changed then.
    pub fn apply(&mut self, op: &Op) -> Result<(), OpError> {
        let exists = || OpError::Exists { op: op.to_string() };
        let missing = || OpError::Missing { op: op.to_string() };
        match op {
            Op::AddSa(sa) if self.sas.contains_key(&sa.id()) => return Err(exists()),
            Op::AddSa(sa) => drop(self.sas.insert(sa.id(), SaReading::fresh(sa))),
            Op::DeleteSa(id) => drop(self.sas.remove(id).ok_or_else(missing)?),
            Op::AddPolicy { policy, .. } if self.policies.contains_key(&policy.id()) => return Err(exists()),
            Op::AddPolicy { policy, index } | Op::UpdatePolicy { policy, index } => {
                self.policies.insert(policy.id(), reading(policy, *index));
            }
            Op::DeletePolicy { id, .. } => drop(self.policies.remove(id).ok_or_else(missing)?),
        }
        Ok(())
    }
}

fn reading(policy: &Policy, index: u32) -> PolicyReading {
    PolicyReading {
        id: policy.id(),
        index,
        priority: policy.priority,
        action: Some(policy.action),
        until: policy.until,
    }
}
