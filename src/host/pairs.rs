//! All pairs of a host, and what they want in the kernel together.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::holdings::{Holdings, Part, Scope};
use crate::config::Exemptions;
use crate::protect::timing::TRIAL_OUT;
use crate::protect::{Adopted, AdoptedSa, Beside, Desired, Guard, GuardRules, PairMachine, Plan, policies};
use crate::types::ours::is_our_policy;
use crate::types::{Action, Direction, KernelState, Pair, Policy, SaId};

/// What the pairs with a peer have in common that the kernel is to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shared {
    off: bool,
    beside: Option<Beside>,
}

/// The machines of a host's pairs, or views of them, and what concerns several of them.
pub struct Pairs<M = PairMachine> {
    machines: BTreeMap<Pair, M>,
    by_remote: BTreeMap<IpAddr, Vec<Pair>>,
    exemptions: Exemptions,
    guard: Guard,
}

impl<M: Borrow<PairMachine>> Pairs<M> {
    /// These pairs; `exemptions` are in force with a peer as long as a pair with it is not off, `guard` as long as
    /// all are sealed.
    pub fn new(machines: impl Iterator<Item = M>, exemptions: Exemptions, guard: Guard) -> Self {
        let machines: BTreeMap<Pair, M> =
            machines.map(|machine| (machine.borrow().pair(), machine)).collect();
        let mut by_remote: BTreeMap<IpAddr, Vec<Pair>> = BTreeMap::new();
        machines.keys().for_each(|pair| by_remote.entry(pair.remote).or_default().push(*pair));
        Self { machines, by_remote, exemptions, guard }
    }
}

impl Pairs {
    /// Gives every pair what an agent before this one left in the kernel. Returns the SAs that were taken
    /// over.
    pub fn adopt(&mut self, actual: &KernelState) -> Vec<(Pair, SaId, Direction)> {
        let mut taken = Vec::new();
        let there = |policy: &Policy| actual.policies.get(&policy.id()).filter(|there| is_our_policy(there));
        let mut found: BTreeMap<Pair, BTreeMap<SaId, AdoptedSa>> = BTreeMap::new();
        for reading in actual.sas.values() {
            let pair = Pair { local: reading.id.destination, remote: reading.source };
            for pair in [pair, pair.mirrored()].into_iter().filter(|pair| self.machines.contains_key(pair)) {
                let sa = AdoptedSa { direction: reading.direction(pair), reqid: reading.reqid };
                found.entry(pair).or_default().insert(reading.id, sa);
            }
        }
        for (pair, machine) in &mut self.machines {
            let sas = found.remove(pair).unwrap_or_default();
            let encapsulated = sas.keys().any(|id| actual.sas[id].encapsulated);
            taken.extend(sas.iter().map(|(id, sa)| (*pair, *id, sa.direction)));
            let [inbound, _] = policies::inbound(*pair, Action::Require).map(|policy| there(&policy));
            let outbound = there(&policies::outbound(*pair, Action::Block));
            let inbound = inbound.and_then(|policy| policy.action);
            machine.adopt(Adopted {
                unproven: unproven(&sas, actual, inbound),
                sas,
                outbound: match outbound.and_then(|policy| policy.action) {
                    Some(Action::Seal { through }) => Some(through),
                    _ => None,
                },
                inbound,
                until: outbound.and_then(|policy| policy.until?.checked_sub(TRIAL_OUT)),
                encapsulated,
            });
        }
        taken
    }

    /// Other exemptions, and other rules of the guard, from now on.
    pub fn go_by(&mut self, exemptions: Exemptions, rules: GuardRules) {
        self.exemptions = exemptions;
        self.guard = self.guard.by(rules);
    }

    /// This host has these unicast addresses now. Says whether that is news.
    pub fn know(&mut self, own: BTreeSet<IpAddr>) -> bool {
        self.guard.know(own)
    }

    /// The guard.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// The addresses of this host without a pair that the guard does not name.
    pub fn beyond_guard(&self) -> Vec<IpAddr> {
        let paired = self.own();
        self.guard.beyond(self.by_remote.len(), |own| paired.contains(&own))
    }

    /// One more pair.
    pub fn insert(&mut self, machine: PairMachine) {
        self.by_remote.entry(machine.pair().remote).or_default().push(machine.pair());
        self.machines.insert(machine.pair(), machine);
    }

    /// A pair that is no more.
    pub fn remove(&mut self, pair: Pair) {
        self.machines.remove(&pair);
        if let Some(pairs) = self.by_remote.get_mut(&pair.remote) {
            pairs.retain(|other| *other != pair);
            if pairs.is_empty() {
                self.by_remote.remove(&pair.remote);
            }
        }
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

    /// Whether nothing is left of any pair.
    pub fn are_off(&self) -> bool {
        self.machines.values().all(PairMachine::is_off)
    }
}

/// What the kernel should hold.
impl<M: Borrow<PairMachine>> Pairs<M> {
    /// The pairs with a peer's address.
    pub fn with(&self, remote: IpAddr) -> &[Pair] {
        self.by_remote.get(&remote).map(Vec::as_slice).unwrap_or_default()
    }

    /// The parts of the kernel that these pairs concern.
    pub fn scopes(&self) -> impl Iterator<Item = Scope> {
        self.by_remote.keys().map(|remote| Scope::Peer(*remote)).chain([Scope::Common])
    }

    /// The addresses of this host. One that floats is among them only while it is here: otherwise it is a peer's.
    pub fn own(&self) -> BTreeSet<IpAddr> {
        let possible = self.machines.iter().filter(|(_, machine)| (*machine).borrow().away().is_none());
        possible.map(|(pair, _)| pair.local).collect()
    }

    /// What the kernel should hold of one part.
    pub fn desired(&self, part: &Part) -> Desired {
        match part {
            Part::Whole(Scope::Common) => self.desired_for_all(),
            Part::Whole(Scope::Peer(remote)) => self.desired_with(*remote),
            Part::Pairs(remote, pairs) => self.desired_alone(pairs, self.shared(*remote).beside),
        }
    }

    /// What [`Pairs::desired`] of a peer makes of all pairs with it together. As long as that stays the same, changes
    /// of a pair concern that pair alone.
    pub fn shared(&self, remote: IpAddr) -> Shared {
        Shared {
            off: self.machines_with(remote).all(PairMachine::is_off),
            beside: Beside::of(self.possible_with(remote)),
        }
    }

    fn machines_with(&self, remote: IpAddr) -> impl Iterator<Item = &PairMachine> {
        self.with(remote).iter().filter_map(|pair| self.machines.get(pair)).map(M::borrow)
    }

    /// The pairs with `remote` that are possible now.
    pub fn possible_with(&self, remote: IpAddr) -> impl Iterator<Item = &PairMachine> {
        self.machines_with(remote).filter(|machine| machine.away().is_none())
    }

    /// What these pairs want by themselves. `beside`: how those with their peer stand that are possible.
    fn desired_alone(&self, pairs: &[Pair], beside: Option<Beside>) -> Desired {
        let mut desired = Desired::default();
        for machine in pairs.iter().filter_map(|pair| self.machines.get(pair)).map(M::borrow) {
            desired.extend(match machine.away() {
                Some(_) => machine.desired_while_away(beside),
                None => machine.desired(),
            });
        }
        desired
    }

    fn desired_for_all(&self) -> Desired {
        let ipv6 =
            self.machines.iter().any(|(pair, machine)| pair.local.is_ipv6() && !machine.borrow().is_off());
        let policies = ipv6.then(policies::neighbour_discovery).into_iter().flatten().collect();
        Desired { policies, ..Desired::default() }
    }

    fn desired_with(&self, remote: IpAddr) -> Desired {
        let shared = self.shared(remote);
        if shared.off {
            return Desired::default();
        }
        let mut desired = self.desired_alone(self.with(remote), shared.beside);
        desired.policies.extend(policies::exempt(remote, &self.exemptions));
        if let Some(beside) = shared.beside {
            let has_pair = |local| self.machines.contains_key(&Pair { local, remote });
            let guard = self.guard.policies(remote, self.by_remote.len(), has_pair).into_iter();
            desired.policies.extend(guard.map(|policy| policy.lasting(beside.guard_until())));
        }
        desired
    }

    /// All changes that lead from `known` to what is wanted.
    pub fn outstanding(&self, mut known: Holdings) -> Plan {
        let scopes: BTreeSet<Scope> = known.scopes().chain(self.scopes()).collect();
        let parts = scopes.into_iter().map(Part::Whole).map(|part| known.plan(&part, &self.desired(&part)));
        parts.fold(Plan::default(), |mut whole, part| {
            whole.ops.extend(part.ops);
            whole.conflicts.extend(part.conflicts);
            whole
        })
    }
}

/// The inbound SAs that an agent which died may have made ahead of a proof: both SAs of a child are made together, so
/// those of one that was agreed are not newer than all outbound ones. `inbound` is what the inbound policy does.
fn unproven(
    sas: &BTreeMap<SaId, AdoptedSa>,
    actual: &KernelState,
    inbound: Option<Action>,
) -> BTreeSet<SaId> {
    let added = |id: &SaId| actual.sas.get(id).map(|reading| reading.added);
    let of = |wanted| sas.iter().filter(move |(_, sa)| sa.direction == wanted).map(|(id, _)| *id);
    let newest = of(Direction::Out).filter_map(|id| added(&id)).max();
    // The kernel counts seconds. Where clear packets are refused, none was made ahead, and the outbound SA of a child goes
    // before its inbound one.
    let count = |direction| of(direction).filter(|id| added(id) == newest).count();
    let may_tie = inbound != Some(Action::Require) && count(Direction::In) > count(Direction::Out);
    of(Direction::In).filter(|id| added(id) > newest || may_tie && added(id) == newest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{EspSuite, Limits, Reqid, Sa, SaReading, Spi};

    fn reading(direction: Direction, spi: u32, added: u64) -> (AdoptedSa, SaReading) {
        let sa = Sa {
            pair: Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap(),
            direction,
            spi: Spi(spi),
            reqid: Reqid::COMMON,
            suite: EspSuite { key_bits: 256, esn: true },
            encapsulation: None,
            replay_window: 4096,
            limits: Limits::default(),
        };
        (AdoptedSa::of(&sa), SaReading { added, ..SaReading::fresh(&sa) })
    }

    /// Which of these inbound SAs may be of an unproven party, by their number, where these outbound ones are beside
    /// them. They are given by when they were made.
    fn found(inbound: &[u64], outbound: &[u64], policy: Action) -> Vec<u32> {
        let numbered = |direction, added: &[u64]| -> Vec<_> {
            (0..).zip(added).map(|(spi, added)| reading(direction, spi, *added)).collect()
        };
        let all = [numbered(Direction::In, inbound), numbered(Direction::Out, outbound)].concat();
        let sas = all.iter().map(|(found, reading)| (reading.id, *found)).collect();
        let readings = all.iter().map(|(_, reading)| (reading.id, *reading)).collect();
        let actual = KernelState { sas: readings, ..KernelState::default() };
        unproven(&sas, &actual, Some(policy)).into_iter().map(|id| id.spi.0).collect()
    }

    #[test]
    fn an_inbound_sa_with_no_outbound_one_of_its_time_is_of_nobody_proven() {
        for policy in [Action::Accept, Action::Require] {
            assert_eq!(found(&[1, 2], &[1, 2], policy), [0; 0]);
            assert_eq!(found(&[1], &[2], policy), [0; 0], "the outbound one is made second");
            assert_eq!(found(&[1, 2], &[1], policy), [1]);
            assert_eq!(found(&[1, 2], &[], policy), [0, 1]);
            assert_eq!(found(&[1, 2, 2], &[1, 2, 2], policy), [0; 0]);
        }
    }

    /// The kernel counts seconds.
    #[test]
    fn where_more_inbound_sas_than_outbound_ones_are_of_a_second_each_may_be_of_nobody_proven() {
        assert_eq!(found(&[1, 5, 5], &[1, 5], Action::Accept), [1, 2]);
        assert_eq!(found(&[1, 5, 6], &[1, 5], Action::Accept), [2]);
        assert_eq!(found(&[5, 5], &[5], Action::Require), [0; 0], "the outbound one of a child goes first");
    }
}
