//! The kernel gets what the pairs want, and the pairs hear what it has done.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use super::Core;
use crate::host::holdings::{Holdings, Part, Scope};
use crate::host::kernel::Kernel;
use crate::protect::policies;
use crate::protect::reason::Unwritten;
use crate::types::{Action, KernelState, Op, OpError, Pair, Policy, PolicyReading, PolicyTable as _, SaId};

impl Core {
    /// Takes a reading of the kernel for what it holds; every part is looked at afterwards.
    pub fn learn(&mut self, mut actual: KernelState) {
        self.strangers = std::mem::take(&mut actual.strangers);
        (self.strangers_read, self.was_read) = (true, true);
        self.known = Holdings::of(actual, &self.pairs.own());
        self.dirty.extend(self.known.scopes());
        self.dirty.insert(Scope::Common);
        // Peers whose parts are empty now lack more than single pairs.
        self.shared.clear();
    }

    /// The parts that may have to change. Where nothing changes that concerns several pairs with a peer, they are only
    /// as large as the pairs that move: a host with many addresses has many pairs with each peer's.
    fn take_dirty(&mut self) -> Vec<Part> {
        let mut whole = std::mem::take(&mut self.dirty);
        let mut alone: BTreeMap<IpAddr, Vec<Pair>> = BTreeMap::new();
        for pair in std::mem::take(&mut self.moved) {
            alone.entry(pair.remote).or_default().push(pair);
        }
        let together = |remote: &&IpAddr| self.shared.get(*remote) != Some(&self.pairs.shared(**remote));
        whole.extend(alone.keys().filter(together).map(|remote| Scope::Peer(*remote)));
        alone.retain(|remote, _| !whole.contains(&Scope::Peer(*remote)));
        let alone = alone.into_iter().map(|(remote, pairs)| Part::Pairs(remote, pairs));
        whole.into_iter().map(Part::Whole).chain(alone).collect()
    }

    /// Brings the parts of the kernel that may have to change to what the pairs want, in one go.
    pub fn apply(&mut self, now: Instant, kernel: &mut dyn Kernel) {
        let mut ops = Vec::new();
        let mut parts = Vec::new();
        for part in self.take_dirty() {
            let desired = self.pairs.desired(&part);
            let plan = self.known.plan(&part, &desired);
            ops.extend(plan.ops.iter().copied());
            if let Part::Whole(Scope::Peer(remote)) = part {
                self.shared.insert(remote, self.pairs.shared(remote));
            }
            parts.push((part, desired, plan));
        }
        ops.iter_mut().for_each(|op| self.bound_op(now, op));
        let mut results =
            if ops.is_empty() { Vec::new() } else { kernel.apply(&ops, &self.vault) }.into_iter();
        for (part, desired, plan) in parts {
            let results: Vec<_> = plan.ops.iter().zip(results.by_ref()).collect();
            let outcome = self.digest(now, part.scope(), &plan.conflicts, results);
            self.report_applied(now, &part, &outcome);
            if self.pairs.desired(&part) != desired {
                match part {
                    Part::Whole(scope) => drop(self.dirty.insert(scope)),
                    Part::Pairs(_, pairs) => self.moved.extend(pairs),
                }
            }
        }
    }

    /// Records what the kernel has done of a part.
    fn digest(
        &mut self,
        now: Instant,
        scope: Scope,
        conflicts: &[PolicyReading],
        results: Vec<(&Op, Result<(), OpError>)>,
    ) -> NotDone {
        let mut outcome = NotDone::default();
        if let Some(stranger) = conflicts.first() {
            outcome.policies = Some(Unwritten::InTheWay(*stranger));
        }
        for (op, result) in results {
            if let Op::AddSa(sa) = op {
                self.vault.forget(sa.id());
            }
            match result {
                Ok(()) => self.record(now, scope, op),
                // It is gone already.
                Err(OpError::Missing { .. }) if matches!(op, Op::DeleteSa(_) | Op::DeletePolicy { .. }) => {
                    self.record(now, scope, op);
                }
                Err(error) => {
                    tracing::error!("{error}");
                    self.look_again |= matches!(error, OpError::Exists { .. } | OpError::Missing { .. });
                    match op {
                        Op::AddSa(sa) => drop(outcome.refused.insert(sa.id(), error)),
                        _ => outcome.policies = Some(Unwritten::Refused(error)),
                    }
                    self.known.refused(op);
                }
            }
        }
        outcome
    }

    /// Notes a change that the kernel has made.
    fn record(&mut self, now: Instant, scope: Scope, op: &Op) {
        tracing::debug!("{op}");
        self.known.record(scope, op);
        match op {
            Op::AddSa(sa) => self.accounts.begin(sa.id(), sa.pair, sa.direction, now),
            Op::AddPolicy { policy, .. } | Op::UpdatePolicy { policy, .. } => {
                let machine = policies::inbound_pair(policy).and_then(|pair| self.pairs.get_mut(pair));
                machine.into_iter().for_each(|machine| machine.handle_written(now));
            }
            Op::DeleteSa(_) | Op::DeletePolicy { .. } => {}
        }
    }

    /// Tells pairs that are about to be sealed whether a packet has met their inbound policies.
    pub fn read_use(&mut self, now: Instant, kernel: &mut dyn Kernel) {
        let known = |policy: Policy| self.known.policy(&policy.id()).copied();
        let (pairs, inbound): (Vec<Pair>, Vec<[PolicyReading; 2]>) = std::mem::take(&mut self.asking)
            .into_iter()
            .filter_map(|pair| {
                let [inbound, forward] = policies::inbound(pair, Action::Accept).map(known);
                Some((pair, [inbound?, forward?]))
            })
            .unzip();
        let unused = kernel.unused(inbound.as_flattened());
        for (pair, unused) in pairs.into_iter().zip(unused.chunks(2)) {
            self.with_pair(pair, |machine| machine.handle_use(now, unused.contains(&false)));
        }
    }

    fn report_applied(&mut self, now: Instant, part: &Part, outcome: &NotDone) {
        let pairs = match part {
            Part::Whole(Scope::Common) => return,
            Part::Whole(Scope::Peer(remote)) => self.pairs.with(*remote).to_vec(),
            Part::Pairs(_, pairs) => pairs.clone(),
        };
        if outcome.policies.is_some() {
            // To be tried again as a whole.
            self.shared.retain(|remote, _| pairs.first().is_none_or(|pair| pair.remote != *remote));
        }
        for pair in pairs {
            self.with_machine(pair, |machine| {
                machine.handle_applied(now, &outcome.refused, outcome.policies.clone());
            });
        }
    }
}

/// What the kernel did not do of a part.
#[derive(Debug, Default)]
struct NotDone {
    refused: BTreeMap<SaId, OpError>,
    policies: Option<Unwritten>,
}
