//! What the kernel holds as far as was read and done, in parts that are planned by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::protect::{Desired, Indexes, Plan, plan, policies};
use crate::types::{
    Block, KernelState, Op, Pair, PolicyDirection, PolicyId, PolicyReading, PolicyTable, SaId, Selector,
};

/// A part of the kernel's tables: what concerns one peer, or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// What concerns all peers.
    Common,
    /// What concerns the peer with this address.
    Peer(IpAddr),
}

/// What is planned together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// All of a scope.
    Whole(Scope),
    /// Of the peer with this address, only the objects of these pairs alone.
    Pairs(IpAddr, Vec<Pair>),
}

impl Part {
    /// What it is a part of.
    pub fn scope(&self) -> Scope {
        match self {
            Part::Whole(scope) => *scope,
            Part::Pairs(remote, _) => Scope::Peer(*remote),
        }
    }
}

/// The parts, and the indexes that our policies in them take.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    parts: BTreeMap<Scope, KernelState>,
    indexes: Indexes,
}

impl Holdings {
    /// A reading in parts. `own` are the addresses of this host: they tell which end of an SA is the peer.
    pub fn of(actual: KernelState, own: &BTreeSet<IpAddr>) -> Self {
        let indexes = Indexes::of(&actual);
        let mut parts: BTreeMap<Scope, KernelState> = BTreeMap::new();
        for (id, reading) in actual.sas {
            let remote = if own.contains(&id.destination) { reading.source } else { id.destination };
            parts.entry(Scope::Peer(remote)).or_default().sas.insert(id, reading);
        }
        for (id, reading) in actual.policies {
            parts.entry(scope_of(&id)).or_default().policies.insert(id, reading);
        }
        Self { parts, indexes }
    }

    /// The parts that hold something.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.parts.keys().copied()
    }

    /// The SAs of all parts.
    pub fn sas(&self) -> impl Iterator<Item = &SaId> {
        self.parts.values().flat_map(|state| state.sas.keys())
    }

    /// The changes that lead a part to what is desired. Indexes that they take stay taken.
    pub fn plan(&mut self, part: &Part, desired: &Desired) -> Plan {
        let state = self.parts.entry(part.scope()).or_default();
        match part {
            Part::Whole(_) => plan(desired, state, &mut self.indexes),
            Part::Pairs(_, pairs) => plan(desired, &of_pairs(state, pairs), &mut self.indexes),
        }
    }

    /// The kernel has made a change.
    pub fn record(&mut self, scope: Scope, op: &Op) {
        // What the kernel took cannot be wrong here; a difference shows at the next reading.
        let _ = self.parts.entry(scope).or_default().apply(op);
        if let Op::DeletePolicy { index, .. } = op {
            self.indexes.free(*index);
        }
    }

    /// The kernel has refused a change.
    pub fn refused(&mut self, op: &Op) {
        if let Op::AddPolicy { index, .. } = op {
            self.indexes.free(*index);
        }
    }
}

impl PolicyTable for Holdings {
    fn policy(&self, id: &PolicyId) -> Option<&PolicyReading> {
        self.parts.get(&scope_of(id))?.policies.get(id)
    }

    fn policies(&self) -> Box<dyn Iterator<Item = &PolicyReading> + '_> {
        Box::new(self.parts.values().flat_map(|state| state.policies.values()))
    }
}

/// What `state` holds of these pairs alone.
fn of_pairs(state: &KernelState, pairs: &[Pair]) -> KernelState {
    let mut part = KernelState::default();
    for pair in pairs {
        part.sas.extend(state.sas_of(*pair).map(|sa| (sa.id, *sa)));
        let policies = policies::ids(*pair).into_iter().filter_map(|id| state.policies.get_key_value(&id));
        part.policies.extend(policies.map(|(id, policy)| (*id, *policy)));
    }
    part
}

/// A policy between this host and one address belongs to that peer, and so does one for packets forwarded to or from it.
fn scope_of(id: &PolicyId) -> Scope {
    let Selector { source, destination, .. } = id.selector;
    let is_host = |block: &Block| *block == Block::host(block.address);
    let block = match id.direction {
        PolicyDirection::In => source,
        PolicyDirection::Out => destination,
        PolicyDirection::Forward => Some(source).filter(is_host).unwrap_or(destination),
    };
    if is_host(&block) { Scope::Peer(block.address) } else { Scope::Common }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Exemptions;
    use crate::protect::policies;
    use crate::types::{Action, Pair};

    #[test]
    fn all_policies_of_a_peer_are_found_where_they_were_planned() {
        for [local, remote] in [["10.0.0.1", "10.0.0.2"], ["fd00::1", "fd00::2"]] {
            let pair = Pair::new(local.parse().unwrap(), remote.parse().unwrap()).unwrap();
            let exemptions = Exemptions::of_all(["tcp/22".parse().unwrap()]);
            let of_peer = policies::inbound(pair, Action::Require)
                .into_iter()
                .chain([policies::outbound(pair, Action::Block)])
                .chain(policies::block(Block::host(pair.local), pair.remote))
                .chain(policies::block(policies::link_local(), pair.remote))
                .chain(policies::block_all(pair.remote))
                .chain(policies::block_forwarded(pair.remote))
                .chain(policies::exempt(pair.remote, &exemptions));
            for policy in of_peer {
                assert_eq!(scope_of(&policy.id()), Scope::Peer(pair.remote), "{}", policy.id());
            }
        }
        assert!(policies::neighbour_discovery().all(|policy| scope_of(&policy.id()) == Scope::Common));
    }
}
