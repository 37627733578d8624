//! All pairs of a host, and what they want in the kernel together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::known::{Known, Scope};
use crate::model::ours::is_our_policy;
use crate::model::{Action, Direction, Exemption, KernelState, Pair, Policy, SaId};
use crate::protect::timing::TRIAL_OUT;
use crate::protect::{Adopted, Desired, PairMachine, Plan, policies};

/// The machines of a host's pairs, and what concerns several of them.
pub struct Pairs {
    machines: BTreeMap<Pair, PairMachine>,
    by_remote: BTreeMap<IpAddr, Vec<Pair>>,
    exemptions: Vec<Exemption>,
    guarded: bool,
}

impl Pairs {
    /// These pairs; `exemptions` are in force with a peer as long as a pair with it is not off. `guarded`
    /// tells whether what is beside the pairs with a sealed peer is blocked.
    pub fn new(
        machines: impl Iterator<Item = PairMachine>,
        exemptions: Vec<Exemption>,
        guarded: bool,
    ) -> Self {
        let machines: BTreeMap<Pair, PairMachine> =
            machines.map(|machine| (machine.pair(), machine)).collect();
        let mut by_remote: BTreeMap<IpAddr, Vec<Pair>> = BTreeMap::new();
        machines.keys().for_each(|pair| by_remote.entry(pair.remote).or_default().push(*pair));
        Self { machines, by_remote, exemptions, guarded }
    }

    /// Gives every pair what an agent before this one left in the kernel. Returns the SAs that were taken
    /// over.
    pub fn adopt(&mut self, actual: &KernelState) -> Vec<(Pair, SaId, Direction)> {
        let mut taken = Vec::new();
        let there = |policy: &Policy| actual.policies.get(&policy.id()).filter(|there| is_our_policy(there));
        for (pair, machine) in &mut self.machines {
            let sas: BTreeMap<SaId, Direction> = actual
                .sas
                .values()
                .filter(|reading| reading.is_between(*pair))
                .map(|reading| (reading.id, reading.direction(*pair)))
                .collect();
            taken.extend(sas.iter().map(|(id, direction)| (*pair, *id, *direction)));
            let [inbound, _] = policies::inbound(*pair, Action::Require).map(|policy| there(&policy));
            let outbound = there(&policies::outbound(*pair, Action::Block));
            machine.adopt(Adopted {
                sas,
                outbound: match outbound.and_then(|policy| policy.action) {
                    Some(Action::Seal { spi }) => Some(spi),
                    _ => None,
                },
                required: inbound.is_some_and(|policy| policy.action == Some(Action::Require)),
                until: outbound.and_then(|policy| policy.until?.checked_sub(TRIAL_OUT)),
            });
        }
        taken
    }

    /// All machines.
    pub fn machines(&self) -> &BTreeMap<Pair, PairMachine> {
        &self.machines
    }

    /// All machines, to give them an input.
    pub fn machines_mut(&mut self) -> impl Iterator<Item = &mut PairMachine> {
        self.machines.values_mut()
    }

    /// The machine of a pair.
    pub fn get(&self, pair: Pair) -> Option<&PairMachine> {
        self.machines.get(&pair)
    }

    /// The machine of a pair.
    pub fn get_mut(&mut self, pair: Pair) -> Option<&mut PairMachine> {
        self.machines.get_mut(&pair)
    }

    /// The pairs with a peer's address.
    pub fn with(&self, remote: IpAddr) -> &[Pair] {
        self.by_remote.get(&remote).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether nothing is left of any pair.
    pub fn are_off(&self) -> bool {
        self.machines.values().all(PairMachine::is_off)
    }

    /// The addresses of this host.
    pub fn own(&self) -> BTreeSet<IpAddr> {
        self.machines.keys().map(|pair| pair.local).collect()
    }

    /// What the kernel should hold of one part.
    pub fn desired(&self, scope: Scope) -> Desired {
        match scope {
            Scope::Common => self.desired_for_all(),
            Scope::Peer(remote) => self.desired_with(remote),
        }
    }

    fn desired_for_all(&self) -> Desired {
        let ipv6 = self.machines.iter().any(|(pair, machine)| pair.local.is_ipv6() && !machine.is_off());
        let policies = ipv6.then(policies::neighbour_discovery).into_iter().flatten().collect();
        Desired { policies, ..Desired::default() }
    }

    fn desired_with(&self, remote: IpAddr) -> Desired {
        let mut desired = Desired::default();
        let machines: Vec<&PairMachine> =
            self.with(remote).iter().filter_map(|pair| self.machines.get(pair)).collect();
        if machines.iter().all(|machine| machine.is_off()) {
            return desired;
        }
        machines.iter().for_each(|machine| desired.extend(machine.desired()));
        let exempt = self.exemptions.iter();
        desired.policies.extend(exempt.flat_map(|entry| policies::exemption(remote, entry)));
        if self.guarded && machines.iter().all(|machine| machine.is_sealed()) {
            let until = machines.iter().filter_map(|machine| machine.guard_until()).min();
            desired.policies.extend(policies::guard(remote).map(|policy| policy.lasting(until)));
        }
        desired
    }

    /// All changes that lead from `known` to what is wanted.
    pub fn outstanding(&self, mut known: Known) -> Plan {
        let wanted = self.by_remote.keys().map(|remote| Scope::Peer(*remote)).chain([Scope::Common]);
        let scopes: BTreeSet<Scope> = known.scopes().chain(wanted).collect();
        let parts = scopes.into_iter().map(|scope| known.plan(scope, &self.desired(scope)));
        parts.fold(Plan::default(), |mut whole, part| {
            whole.ops.extend(part.ops);
            whole.conflicts.extend(part.conflicts);
            whole
        })
    }
}
