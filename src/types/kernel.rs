//! What a kernel holds, and what a change makes of it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use super::ours::is_our_policy;
use super::stranger::{StrangerSa, Strangers};
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

/// The SAs that a kernel holds.
#[derive(Debug, Clone, Default)]
pub struct SaTable {
    /// Ours.
    pub ours: BTreeMap<SaId, SaReading>,
    /// Those of other software.
    pub strangers: Vec<StrangerSa>,
}

/// Policies that a kernel holds, wherever that is kept.
pub trait PolicyTable {
    /// A policy.
    fn policy(&self, id: &PolicyId) -> Option<&PolicyReading>;

    /// All of them.
    fn policies(&self) -> Box<dyn Iterator<Item = &PolicyReading> + '_>;
}

/// What a kernel holds, to look at.
#[derive(Clone, Copy)]
pub struct KernelSight<'a> {
    /// SAs of ours.
    pub sas: &'a BTreeMap<SaId, SaReading>,
    /// Policies, as in [`KernelState`].
    pub policies: &'a dyn PolicyTable,
    /// What other software has there.
    pub strangers: &'a Strangers,
}

impl PolicyTable for BTreeMap<PolicyId, PolicyReading> {
    fn policy(&self, id: &PolicyId) -> Option<&PolicyReading> {
        self.get(id)
    }

    fn policies(&self) -> Box<dyn Iterator<Item = &PolicyReading> + '_> {
        Box::new(self.values())
    }
}

impl<'a> KernelSight<'a> {
    /// A policy.
    pub fn policy(&self, id: &PolicyId) -> Option<&'a PolicyReading> {
        self.policies.policy(id)
    }

    /// As [`KernelState::sends`].
    pub fn sends(&self, pair: Pair, through: Through) -> Option<&'a SaReading> {
        sends(self.sas, pair, through)
    }
}

impl fmt::Debug for KernelSight<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelSight").field("sas", &self.sas.len()).finish_non_exhaustive()
    }
}

/// An SA that packets of `pair` leave by which are sent `through` some; `None` where `sas` has none of them.
fn sends(sas: &BTreeMap<SaId, SaReading>, pair: Pair, through: Through) -> Option<&SaReading> {
    let to = |spi| SaId { destination: pair.remote, spi: Spi(spi) };
    let range = match through {
        Through::Sa(spi) => to(spi.0)..=to(spi.0),
        Through::Set(_) => to(0)..=to(u32::MAX),
    };
    let mut sas = sas.range(range).map(|(_, sa)| sa);
    sas.find(|sa| sa.source == pair.local && through.names(sa.id.spi, sa.reqid))
}

/// SAs by the two addresses that they are between: with many peers, none is looked for among those of the others.
#[derive(Debug, Default)]
pub struct SasByEnds<'a>(Vec<&'a SaReading>);

impl<'a> SasByEnds<'a> {
    /// Those of `sas`.
    pub fn new(sas: impl IntoIterator<Item = &'a SaReading>) -> Self {
        let mut sorted: Vec<&SaReading> = sas.into_iter().collect();
        // Those between two addresses stay in their order.
        sorted.sort_by_key(|sa| ends(sa));
        Self(sorted)
    }

    /// Those between the addresses of `pair`, outbound first.
    pub fn of(&self, pair: Pair) -> impl Iterator<Item = &'a SaReading> {
        self.outbound(pair).chain(self.inbound(pair)).copied()
    }

    /// Whether one takes packets from the other end of `pair`.
    pub fn takes(&self, pair: Pair) -> bool {
        self.inbound(pair).next().is_some()
    }

    fn outbound(&self, pair: Pair) -> std::slice::Iter<'_, &'a SaReading> {
        self.between(pair.local, pair.remote)
    }

    fn inbound(&self, pair: Pair) -> std::slice::Iter<'_, &'a SaReading> {
        self.between(pair.remote, pair.local)
    }

    fn between(&self, source: IpAddr, destination: IpAddr) -> std::slice::Iter<'_, &'a SaReading> {
        let begin = self.0.partition_point(|sa| ends(sa) < (source, destination));
        let (_, rest) = self.0.split_at(begin);
        let count = rest.iter().take_while(|sa| ends(sa) == (source, destination)).count();
        rest.split_at(count).0.iter()
    }
}

/// Where its packets come from, and where they go.
fn ends(sa: &SaReading) -> (IpAddr, IpAddr) {
    (sa.source, sa.id.destination)
}

impl KernelState {
    /// Whether anything of ours is there.
    pub fn holds_ours(&self) -> bool {
        !self.sas.is_empty() || self.policies.values().any(is_our_policy)
    }

    /// The same to look at.
    pub fn sight(&self) -> KernelSight<'_> {
        KernelSight { sas: &self.sas, policies: &self.policies, strangers: &self.strangers }
    }

    /// An SA that packets of `pair` leave by which are sent `through` some; `None` where it holds none of them.
    pub fn sends(&self, pair: Pair, through: Through) -> Option<&SaReading> {
        sends(&self.sas, pair, through)
    }

    /// The SAs of ours between the addresses of `pair`.
    pub fn sas_of(&self, pair: Pair) -> impl Iterator<Item = &SaReading> {
        let to = |destination| {
            let first = SaId { destination, spi: Spi(0) };
            let last = SaId { destination, spi: Spi(u32::MAX) };
            self.sas.range(first..=last).map(|(_, sa)| sa)
        };
        let outbound = to(pair.remote).filter(move |sa| sa.source == pair.local);
        let inbound = to(pair.local).filter(move |sa| sa.source == pair.remote);
        outbound.chain(inbound)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Direction, EspSuite, Limits, Reqid, Sa};

    #[test]
    fn the_sas_of_a_pair_are_found_among_those_of_others() {
        let pair = |host: u8| Pair::new([10, 0, 0, 1].into(), [10, 0, 0, host].into()).unwrap();
        let sa = |host, direction, spi| {
            SaReading::fresh(&Sa {
                pair: pair(host),
                direction,
                spi: Spi(spi),
                reqid: Reqid::COMMON,
                suite: EspSuite { key_bits: 256, esn: true },
                encapsulation: None,
                replay_window: 64,
                limits: Limits::default(),
            })
        };
        let all = [sa(2, Direction::In, 1), sa(3, Direction::In, 2), sa(2, Direction::Out, 3)];
        let by_ends = SasByEnds::new(&all);
        let of = |host| by_ends.of(pair(host)).map(|sa| sa.id.spi.0).collect::<Vec<_>>();
        assert_eq!((of(2), of(3), of(4)), (vec![3, 1], vec![2], vec![]));
        assert!(by_ends.takes(pair(3)) && !by_ends.takes(pair(4)));
    }
}
