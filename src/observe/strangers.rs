//! IPsec of other software on this host: what the kernel holds of it, and whether it or we decide about the traffic of
//! a pair.
//!
//! The kernel asks the policy with the smallest priority, whoever wrote it. A stranger's policy in front of
//! ours therefore decides what happens to the packets that it matches, and nothing that we write changes
//! that. One behind ours has no say. Three kinds are no trouble and are not named: those that match nothing
//! of a pair, those of XFRM interfaces (`if_id`), which are never asked about packets that ours are asked
//! about, and those that let pass what we let pass too.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::Exemptions;
use crate::types::exempt::{ClearFlow, neighbour_discovery};
use crate::types::ours::priority;
use crate::types::stranger::{SWARM, StrangerPolicy, StrangerSa, Strangers, Verdict, software};
use crate::types::units::listed;
use crate::types::{NodeName, Pair, PolicyDirection, PolicyId, Problem, ProblemCode, Selector};

/// As many policies are named one by one; of more there is a count.
const NAMED: usize = 8;
/// As many nodes are named in one sentence.
const NODES_NAMED: usize = 4;

/// Whole pairs that other software decides about, by direction, and what it does with their packets.
pub type Overruled = BTreeMap<(PolicyDirection, Pair), Verdict>;

/// A host's pairs with a node each, and what stays in the clear on them.
#[derive(Debug, Clone, Copy)]
pub struct Ground<'a> {
    /// The pairs.
    pub pairs: &'a [(NodeName, Pair)],
    /// What stays in the clear.
    pub exempt: &'a Exemptions,
}

/// Other software's IPsec that concerns these pairs: critical where it decides about their traffic, else for
/// information. The same for the same kernel, in the same words.
pub fn problems(strangers: &Strangers, ground: Ground<'_>) -> Vec<Problem> {
    if strangers.policies.is_empty() && strangers.sas.is_empty() {
        return Vec::new();
    }
    let peers = Peers::of(ground.pairs);
    let (mut first, mut behind, mut aside) = (OfKind::default(), OfKind::default(), OfKind::default());
    let mut known = BTreeSet::new();
    for policy in &strangers.policies {
        let pairs = || peers.matched_by(policy.id);
        if pairs().next().is_none() {
            continue;
        }
        if let Verdict::Transform { reqid } = policy.verdict {
            known.insert(reqid);
        }
        // What lets pass what we let pass, or stands behind ours without SAs, changes nothing.
        let is_ipsec = matches!(policy.verdict, Verdict::Transform { .. });
        match policy.is_left_aside(pairs(), ground.exempt) {
            true if is_ipsec => aside.add(policy, &peers),
            false if policy.precedes_ours(pairs()) => first.add(policy, &peers),
            false if is_ipsec => behind.add(policy, &peers),
            _ => {}
        }
    }
    let mut problems: Vec<Problem> =
        first.named.iter().map(|policy| policy.in_front(&peers.names(policy.id))).collect();
    problems.extend((first.count > NAMED).then(|| {
        let words = format!(
            "{} more policies of other IPsec software come before hostseal's: `ip xfrm policy` lists them",
            first.count - NAMED
        );
        Problem::critical(ProblemCode::OtherIpsec, None, words)
    }));
    problems.extend(behind.without_effect(
        "after hostseal's: packets to and from {nodes} go through hostseal's SAs, and not that software's",
    ));
    problems.extend(aside.without_effect(
        "before hostseal's, for exempted ports alone: their packets to and from {nodes} are left to it",
    ));
    problems.extend(loose_sas(strangers, &peers, &known));
    problems
}

/// The pairs that policies in front of ours match whole, each with the one of them that is asked.
pub fn overruled(strangers: &Strangers, pairs: &[(NodeName, Pair)]) -> Overruled {
    if strangers.policies.is_empty() {
        return Overruled::new();
    }
    let peers = Peers::of(pairs);
    let mut found: BTreeMap<(PolicyDirection, Pair), (u32, Verdict)> = BTreeMap::new();
    for policy in strangers.policies.iter().filter(|policy| policy.matches_everything()) {
        let matched = peers.matched_by(policy.id);
        for (_, pair) in matched.filter(|matched| policy.precedes_ours([*matched].into_iter())) {
            let first = found.entry((policy.id.direction, pair));
            let first = first.or_insert((policy.priority, policy.verdict));
            if policy.priority < first.0 {
                *first = (policy.priority, policy.verdict);
            }
        }
    }
    found.into_iter().map(|(pair, (_, verdict))| (pair, verdict)).collect()
}

/// SAs from a peer that no policy here knows. Packets out of them are dropped once the pair is sealed: they have not
/// come through an SA of ours.
fn loose_sas(strangers: &Strangers, peers: &Peers<'_>, known: &BTreeSet<u32>) -> Option<Problem> {
    let from_peer = |sa: &&StrangerSa| peers.node(sa.id.destination, sa.source).is_some();
    let loose: Vec<_> =
        strangers.sas.iter().filter(|sa| !known.contains(&sa.reqid)).filter(from_peer).collect();
    let first = loose.first()?;
    let node = peers.node(first.id.destination, first.source)?;
    let more = more(loose.len() - 1);
    let words = format!(
        "{} of {} (reqid {}) from {node}{more}: what comes through it is dropped once hostseal requires its \
         own ESP, unless it is exempt",
        first.id,
        software(first.reqid),
        first.reqid
    );
    Some(Problem::info(ProblemCode::OtherIpsec, None, words))
}

impl StrangerPolicy {
    /// Whether every packet between the addresses that it matches meets it.
    fn matches_everything(&self) -> bool {
        let bare = self.mark == (0, 0) && self.interface == 0;
        bare && self.id.selector == Selector::between(self.id.selector.source, self.id.selector.destination)
    }

    /// Whether the kernel asks it before ours. If both have the same priority, it asks the older one, and does not
    /// say which that is: that counts as before.
    fn precedes_ours<'n>(&self, mut pairs: impl Iterator<Item = (&'n NodeName, Pair)>) -> bool {
        // Selector and direction identify a policy: where it has ours, there is no place for ours.
        let bare = self.mark == (0, 0) && self.interface == 0;
        self.priority <= priority::PAIR
            || (bare && pairs.any(|(_, pair)| self.id == PolicyId::of(pair, self.id.direction)))
    }

    /// Whether all that it matches stays in the clear for us too, or, where it is ESP of that software, goes
    /// from or to an exempted port: then it is the operator's wish that hostseal does not care for it.
    fn is_left_aside<'n>(
        &self,
        mut pairs: impl Iterator<Item = (&'n NodeName, Pair)>,
        exempt: &Exemptions,
    ) -> bool {
        // Forwarded packets are those that a DNAT rule sends elsewhere, which came in.
        let direction = match self.id.direction {
            PolicyDirection::Forward => PolicyDirection::In,
            direction => direction,
        };
        let lets_pass = |flow: &ClearFlow| match self.verdict {
            Verdict::Allow => flow.covers(&self.id.selector),
            Verdict::Transform { .. } => flow.covers_server(&self.id.selector),
            Verdict::Block => false,
        };
        let discovery = self.verdict == Verdict::Allow && neighbour_discovery().iter().any(lets_pass);
        let is_exempt = |(_, pair): (&NodeName, Pair)| {
            let clear_flows = exempt.clear_flows(pair.remote).into_iter();
            clear_flows.filter(|flow| flow.direction == direction).any(|flow| lets_pass(&flow))
        };
        // One that matches every protocol is never covered: no need to ask for each of a thousand pairs.
        self.id.selector.protocol != 0 && (discovery || pairs.all(is_exempt))
    }

    /// The problem that it is in front of ours.
    fn in_front(&self, nodes: &BTreeSet<&NodeName>) -> Problem {
        let does = match (self.verdict, self.id.direction) {
            (Verdict::Allow, PolicyDirection::Out) => "leaves in the clear",
            (Verdict::Allow, _) => "is accepted in the clear",
            (Verdict::Block, _) => "is dropped",
            (Verdict::Transform { .. }, _) => "uses the SAs of that software",
        };
        let words = format!(
            "{self} comes before hostseal's: what it matches of the traffic with {} {does}",
            listed(nodes, NODES_NAMED),
        );
        let node = nodes.first().filter(|_| nodes.len() == 1).map(|node| (*node).clone());
        Problem::critical(ProblemCode::OtherIpsec, node, words).mended_by(self.remedy())
    }

    fn remedy(&self) -> String {
        match self.verdict {
            Verdict::Transform { reqid: SWARM } => format!(
                "Create that overlay network without `--opt encrypted`, as hostseal encrypts it, or leave it to \
                 Docker with protection.exempt = [\"udp/{}\"]",
                self.id.selector.destination_ports.port
            ),
            _ => {
                let mark = match self.mark {
                    (0, 0) => String::new(),
                    (value, mask) => format!(" mark {value:#x} mask {mask:#x}"),
                };
                let direction = self.id.direction;
                format!("Remove it: `ip xfrm policy delete dir {direction} index {}{mark}`", self.index)
            }
        }
    }
}

/// Policies of one kind: there can be any number, and a few are named.
#[derive(Default)]
struct OfKind<'a> {
    count: usize,
    /// The first of them, [`NAMED`] at most.
    named: Vec<&'a StrangerPolicy>,
    /// The nodes whose packets those named match.
    nodes: BTreeSet<&'a NodeName>,
}

impl<'a> OfKind<'a> {
    fn add(&mut self, policy: &'a StrangerPolicy, peers: &Peers<'a>) {
        self.count += 1;
        if self.named.len() < NAMED {
            self.named.push(policy);
            self.nodes.extend(peers.names(policy.id));
        }
    }

    /// One problem for all of them, as they cut nothing of ours: `place` says where they stand.
    fn without_effect(&self, place: &str) -> Option<Problem> {
        let policy = self.named.first()?;
        let place = place.replace("{nodes}", &listed(&self.nodes, NODES_NAMED));
        let come = if self.count == 1 { "comes" } else { "come" };
        let words = format!("{policy}{} {come} {place}", more(self.count - 1));
        Some(Problem::info(ProblemCode::OtherIpsec, None, words))
    }
}

/// " and 3 more".
fn more(count: usize) -> String {
    if count == 0 { String::new() } else { format!(" and {count} more") }
}

/// The pairs by the peer's address, so that a policy for one address or one network finds its own at once:
/// there can be tens of thousands of policies, and thousands of pairs.
struct Peers<'a>(BTreeMap<IpAddr, Vec<(&'a NodeName, Pair)>>);

impl<'a> Peers<'a> {
    fn of(pairs: &'a [(NodeName, Pair)]) -> Self {
        let mut by_remote: BTreeMap<IpAddr, Vec<(&NodeName, Pair)>> = BTreeMap::new();
        for (node, pair) in pairs {
            by_remote.entry(pair.remote).or_default().push((node, *pair));
        }
        Self(by_remote)
    }

    /// The pairs of whose packets `id` matches some.
    fn matched_by(&self, id: PolicyId) -> impl Iterator<Item = (&'a NodeName, Pair)> {
        let (own, other) = match id.direction {
            PolicyDirection::Out => (id.selector.source, id.selector.destination),
            PolicyDirection::In | PolicyDirection::Forward => (id.selector.destination, id.selector.source),
        };
        let in_range = self.0.range(other.address..=other.last()).flat_map(|(_, pairs)| pairs);
        in_range.filter(move |(_, pair)| own.contains(pair.local)).copied()
    }

    /// The nodes of those pairs.
    fn names(&self, id: PolicyId) -> BTreeSet<&'a NodeName> {
        self.matched_by(id).map(|(node, _)| node).collect()
    }

    fn node(&self, local: IpAddr, remote: IpAddr) -> Option<&'a NodeName> {
        let pairs = self.0.get(&remote)?;
        pairs.iter().find(|(_, pair)| pair.local == local).map(|(node, _)| *node)
    }
}

#[cfg(test)]
mod tests;
