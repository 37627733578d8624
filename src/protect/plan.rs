//! The difference between what a kernel should hold and what it holds, as ordered changes.
//!
//! After every prefix of the list a sealed pair is protected or dropped: what lets pass and what blocks
//! goes in first, then SAs, then the policies that use them, inbound before outbound; what goes, goes in
//! the opposite order. SAs of a party that has proven nothing go before all else.

use std::collections::{BTreeMap, BTreeSet};

use super::timing::LIFETIME_TOLERANCE;
use crate::types::ours::{INDEX_SLOTS, is_our_policy, policy_index, policy_slot};
use crate::types::{
    Action, Direction, KernelState, Op, Policy, PolicyDirection, PolicyId, PolicyReading, Sa, SaId,
};

/// What a kernel should hold, all of it or the part that concerns one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Desired {
    /// SAs whose keys are at hand: added where absent.
    pub fresh: Vec<Sa>,
    /// SAs that are in the kernel and stay. Absent ones are not added again: a key lives once.
    pub keep: BTreeSet<SaId>,
    /// SAs that must be gone before anything else changes.
    pub withdrawn: BTreeSet<SaId>,
    /// Policies.
    pub policies: Vec<Policy>,
}

impl Desired {
    /// Adds what `other` wants.
    pub fn extend(&mut self, other: Desired) {
        self.fresh.extend(other.fresh);
        self.keep.extend(other.keep);
        self.withdrawn.extend(other.withdrawn);
        self.policies.extend(other.policies);
    }
}

/// The changes, and what cannot be had.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be carried out in this order.
    pub ops: Vec<Op>,
    /// Policies that we need and whose place a stranger's policy takes.
    pub conflicts: Vec<PolicyReading>,
}

/// Which indexes of ours are taken in a kernel.
#[derive(Debug, Clone, Default)]
pub struct Indexes {
    taken: BTreeSet<u32>,
    next: u32,
}

impl Indexes {
    /// The indexes that a kernel holds.
    pub fn of(actual: &KernelState) -> Self {
        let taken = actual.policies.values().filter(|policy| is_our_policy(policy));
        Self { taken: taken.map(|policy| policy_slot(policy.index)).collect(), next: 0 }
    }

    /// A free index in `direction`; `None` when all sixteen million are taken.
    fn take(&mut self, direction: PolicyDirection) -> Option<u32> {
        for _ in 0..=self.taken.len() {
            let slot = self.next;
            self.next = (self.next + 1) % INDEX_SLOTS;
            if self.taken.insert(slot) {
                return Some(policy_index(direction, slot));
            }
        }
        None
    }

    /// Gives an index back, once the policy is gone.
    pub fn free(&mut self, index: u32) {
        self.taken.remove(&policy_slot(index));
    }
}

/// The changes that lead from `actual` to `desired`. Running it again on the result yields nothing.
pub fn plan(desired: &Desired, actual: &KernelState, indexes: &mut Indexes) -> Plan {
    let mut plan = Plan::default();
    let wanted: BTreeMap<PolicyId, &Policy> = desired.policies.iter().map(|p| (p.id(), p)).collect();

    let mut writes: Vec<(u8, Op)> = Vec::new();
    for policy in wanted.values() {
        let op = match actual.policies.get(&policy.id()) {
            None => indexes.take(policy.direction).map(|index| Op::AddPolicy { policy: **policy, index }),
            Some(there) if !is_our_policy(there) => {
                plan.conflicts.push(*there);
                None
            }
            Some(there) if is_as_wanted(there, policy) => None,
            Some(there) => Some(Op::UpdatePolicy { policy: **policy, index: there.index }),
        };
        writes.extend(op.map(|op| (write_order(policy), op)));
    }
    for sa in desired.fresh.iter().filter(|sa| !actual.sas.contains_key(&sa.id())) {
        let order = if sa.direction == Direction::In { 2 } else { 3 };
        writes.push((order, Op::AddSa(*sa)));
    }
    writes.sort_by_key(|(order, _)| *order);

    let mut deletes: Vec<(u8, Op)> = Vec::new();
    for there in actual.policies.values().filter(|p| is_our_policy(p) && !wanted.contains_key(&p.id)) {
        deletes.push((delete_order(there), Op::DeletePolicy { id: there.id, index: there.index }));
    }
    let fresh: BTreeSet<SaId> = desired.fresh.iter().map(Sa::id).collect();
    let unwanted = actual.sas.keys().filter(|id| !desired.keep.contains(id) && !fresh.contains(id));
    let (first, last): (Vec<&SaId>, Vec<&SaId>) = unwanted.partition(|id| desired.withdrawn.contains(id));
    deletes.extend(last.into_iter().map(|id| (4, Op::DeleteSa(*id))));
    deletes.sort_by_key(|(order, _)| *order);

    plan.ops = first.into_iter().map(|id| Op::DeleteSa(*id)).collect();
    plan.ops.extend(writes.into_iter().chain(deletes).map(|(_, op)| op));
    plan.ops.extend(reroute(&plan.ops, &wanted, actual));
    plan
}

fn is_as_wanted(there: &PolicyReading, policy: &Policy) -> bool {
    let lasts = match (there.until, policy.until) {
        (Some(there), Some(wanted)) => there.max(wanted) - there.min(wanted) <= LIFETIME_TOLERANCE,
        (there, wanted) => there == wanted,
    };
    there.action == Some(policy.action) && there.priority == policy.priority && lasts
}

/// What makes sockets look for their way again. One that holds a route which an exemption let pass keeps to
/// it after the exemption is gone (measured on Linux 7.2): only a policy that is written invalidates routes.
/// So one that stays is written once more.
fn reroute(ops: &[Op], wanted: &BTreeMap<PolicyId, &Policy>, actual: &KernelState) -> Option<Op> {
    let lets_pass = |id: &PolicyId| {
        let gone = actual.policies.get(id).is_some_and(|there| there.action == Some(Action::Allow));
        gone && id.direction == PolicyDirection::Out
    };
    let ipv4 = ops.iter().find_map(|op| match op {
        Op::DeletePolicy { id, .. } if lets_pass(id) => Some(id.selector.destination.address.is_ipv4()),
        _ => None,
    })?;
    let stays = |policy: &&&Policy| {
        policy.direction == PolicyDirection::Out && policy.selector.destination.address.is_ipv4() == ipv4
    };
    let (policy, there) = wanted
        .values()
        .filter(stays)
        .find_map(|policy| Some((**policy, actual.policies.get(&policy.id())?)))?;
    is_our_policy(there).then_some(Op::UpdatePolicy { policy, index: there.index })
}

/// SAs are 2 and 3: after what lets pass and what blocks, before what sends through them.
fn write_order(policy: &Policy) -> u8 {
    match (policy.action, policy.direction) {
        (Action::Allow, _) => 0,
        (Action::Block, _) => 1,
        (_, PolicyDirection::In | PolicyDirection::Forward) => 4,
        (_, PolicyDirection::Out) => 5,
    }
}

/// A block goes before the policies that stood in front of it, or it would drop what they let pass.
fn delete_order(policy: &PolicyReading) -> u8 {
    match (policy.action, policy.id.direction) {
        (Some(Action::Block), _) => 0,
        (Some(Action::Allow), _) => 3,
        (_, PolicyDirection::Out) => 1,
        (_, PolicyDirection::In | PolicyDirection::Forward) => 2,
    }
}
