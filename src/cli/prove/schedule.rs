//! Which pairs of a cluster are proven, by which end, and which of them at the same time.
//!
//! Each pair is proven once, by one of its ends, which the other end tells what it has measured itself: by this node where
//! it is one of both, as its interfaces are watched, too, else by the one whose name comes first of those that can be asked.
//! A host makes one proof at a time, as its kernel counts what it refuses for all of them together. So those that are made
//! at the same time have no host in common.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::config::{Config, Node};
use crate::observe::cluster::ClusterStatus;
use crate::observe::pair_proof::{Doubt, PairProof, ProofCode};
use crate::observe::proof_report::UnaskedNode;
use crate::types::{NodeName, Pair};

/// A pair that `by` is to prove with `node`, as `by` sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProofTask {
    pub(super) by: NodeName,
    pub(super) node: NodeName,
    pub(super) pair: Pair,
}

/// What can be asked of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Ability {
    /// To prove its pairs.
    Proves,
    /// Nothing, but others can prove pairs with it.
    Passive,
    /// Nothing; why it is not there.
    Away(String),
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct ProofPlan {
    pub(super) tasks: Vec<ProofTask>,
    /// Pairs of which nothing can be found out now.
    pub(super) open: Vec<PairProof>,
    /// The nodes that cannot be asked.
    pub(super) unasked: Vec<UnaskedNode>,
}

/// What the nodes are good for.
pub(super) struct Abilities {
    all: BTreeMap<NodeName, Ability>,
    foreign: BTreeSet<NodeName>,
    unasked: Vec<UnaskedNode>,
}

impl Abilities {
    /// As `status` says, where those of `can` have said that they prove pairs.
    pub(super) fn of(own: &NodeName, status: &ClusterStatus, can: &[NodeName]) -> Self {
        let (mut all, mut foreign, mut unasked) = (BTreeMap::new(), BTreeSet::new(), Vec::new());
        for row in &status.nodes {
            let name = row.name.clone();
            let ability = if row.name == *own || can.contains(&row.name) {
                Ability::Proves
            } else if row.foreign {
                foreign.insert(name.clone());
                Ability::Passive
            } else if row.answers {
                let version = row.version.as_deref().unwrap_or("an unknown version");
                let reason = format!(
                    "it runs hostseal {version} and did not say that it proves pairs for others: update it, or run \
                     `hostseal prove` there"
                );
                unasked.push(UnaskedNode { node: name.clone(), reason });
                Ability::Passive
            } else {
                let reason = row.reason.clone().unwrap_or_else(|| "it does not answer".to_owned());
                unasked.push(UnaskedNode { node: name.clone(), reason: reason.clone() });
                Ability::Away(reason)
            };
            all.insert(name, ability);
        }
        Self { all, foreign, unasked }
    }

    fn proves(&self, node: &NodeName) -> bool {
        self.all.get(node) == Some(&Ability::Proves)
    }

    /// Why nothing can be found out of the pairs of `node` now.
    fn away(&self, node: &NodeName) -> Option<&str> {
        match self.all.get(node) {
            Some(Ability::Away(why)) => Some(why),
            _ => None,
        }
    }
}

impl ProofPlan {
    /// Of all pairs of the cluster, or those with one of the nodes that are called `names`. This node has the pairs `here`.
    pub(super) fn of(
        (config, own): (&Config, &Node),
        here: Vec<(NodeName, Pair)>,
        abilities: Abilities,
        names: &[String],
    ) -> Self {
        let wanted = |name: &NodeName| names.is_empty() || names.iter().any(|it| it == name.as_str());
        let mut plan = Self::default();
        for (node, pair) in here.iter().cloned() {
            plan.add(&abilities, ProofTask { by: own.name.clone(), node, pair });
        }
        let others: Vec<&Node> = config.nodes.iter().filter(|node| node.name != own.name).collect();
        for (at, one) in others.iter().enumerate() {
            for other in &others[at + 1..] {
                let both_foreign = [one, other].iter().all(|it| abilities.foreign.contains(&it.name));
                if both_foreign || !(wanted(&one.name) || wanted(&other.name)) {
                    continue;
                }
                let mut ends = [*one, *other];
                ends.sort_by_key(|end| (!abilities.proves(&end.name), end.name.clone()));
                let [by, node] = ends;
                // Addresses that move are at one of several hosts.
                let fixed = |pair: &Pair| by.own_addresses().any(|address| address == pair.local);
                let pairs = config.pairs(by).into_iter();
                for (_, pair) in pairs.filter(|(name, pair)| *name == node.name && fixed(pair)) {
                    plan.add(&abilities, ProofTask { by: by.name.clone(), node: node.name.clone(), pair });
                }
            }
        }
        plan.unasked = abilities.unasked.into_iter().filter(|it| wanted(&it.node)).collect();
        plan.unasked.extend(elsewhere((config, own), &others, &here, wanted));
        for node in names.iter().filter_map(|name| name.parse().ok()).filter(|name| *name != own.name) {
            if !plan.has(config, &node) {
                let reason = "it has no pair that can be proven now".to_owned();
                plan.unasked.push(UnaskedNode { node, reason });
            }
        }
        plan
    }

    /// Whether something is said of a node, or of an address that moves.
    fn has(&self, config: &Config, name: &NodeName) -> bool {
        let floats = config.floating.iter().find(|floating| floating.name == *name);
        let is_end = |address| floats.is_some_and(|floating| floating.addresses.contains(&address));
        let tried = self.tasks.iter().any(|it| [&it.by, &it.node].contains(&name) || is_end(it.pair.local));
        let open = self.open.iter().any(|it| it.node == *name || it.by.as_ref() == Some(name));
        tried || open || self.unasked.iter().any(|it| it.node == *name)
    }

    fn add(&mut self, abilities: &Abilities, task: ProofTask) {
        let away = [&task.node, &task.by].into_iter().find_map(|node| Some((node, abilities.away(node)?)));
        let doubt = match away {
            Some((node, why)) => format!("nothing was tried, as {node} was not reached: {why}"),
            None if abilities.proves(&task.by) => return self.tasks.push(task),
            None => {
                format!("nothing was tried, as neither {} nor {} proves pairs for others", task.by, task.node)
            }
        };
        self.open.push(task.without_proof(Doubt::inconclusive(ProofCode::NoAnswer, doubt)));
    }
}

/// Addresses that move and are not at this node, which has the pairs `here`: those of the pairs of other nodes with them
/// that are `wanted` are at one of several hosts, so nobody is asked.
fn elsewhere(
    (config, own): (&Config, &Node),
    others: &[&Node],
    here: &[(NodeName, Pair)],
    wanted: impl Fn(&NodeName) -> bool,
) -> Vec<UnaskedNode> {
    let mut unasked = Vec::new();
    for floating in &config.floating {
        let is_open = |(name, pair): (NodeName, Pair)| {
            name == floating.name && !here.iter().any(|(_, own)| own.local == pair.remote)
        };
        // A node has a pair with it only while it is at another one.
        let is_met = |node: &Node| floating.nodes.iter().any(|at| *at != own.name && *at != node.name);
        let is_wanted = |node: &Node| wanted(&node.name) || wanted(&floating.name);
        let mut ends = others.iter().filter(|node| is_wanted(node) && is_met(node));
        if ends.any(|node| config.pairs(node).into_iter().any(is_open)) {
            let reason = "its address moves between nodes, so its pairs with other nodes are proven only from those: run \
                          `hostseal prove` on the node that has it";
            unasked.push(UnaskedNode { node: floating.name.clone(), reason: reason.to_owned() });
        }
    }
    unasked
}

impl ProofTask {
    /// What is to be said of it where nothing was measured.
    pub(super) fn without_proof(&self, doubt: Doubt) -> PairProof {
        let proof = PairProof::without_figures(self.node.clone(), self.pair, doubt);
        PairProof { by: Some(self.by.clone()), ..proof }
    }
}

/// Takes the next one of which neither end is `busy`.
pub(super) fn take_next(waiting: &mut VecDeque<ProofTask>, busy: &BTreeSet<NodeName>) -> Option<ProofTask> {
    let is_free = |task: &ProofTask| !busy.contains(&task.by) && !busy.contains(&task.node);
    let next = waiting.iter().position(is_free)?;
    waiting.remove(next)
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::cli::prove::wanted::WantedPairs;
    use crate::observe::pair_proof::ProofResult;

    /// Nodes called a, b, c and so on, each with two addresses of each family.
    fn config(nodes: u8) -> Config {
        let mut text = "cluster = \"demo\"\n[secret]\nfile = \"/s\"\n".to_owned();
        for at in 1..=nodes {
            let name = char::from(b'a' + at - 1);
            text += &format!("[[nodes]]\nname = \"{name}\"\naddresses = [\"10.0.0.{at}\", \"fd00::{at}\"]\n");
        }
        Config::parse(&text, "hostseal.toml").unwrap()
    }

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn abilities(of: &[(&str, Ability)], foreign: &[&str]) -> Abilities {
        let all = of.iter().map(|(node, ability)| (name(node), ability.clone())).collect();
        Abilities { all, foreign: foreign.iter().map(|node| name(node)).collect(), unasked: Vec::new() }
    }

    fn plan(config: &Config, abilities: Abilities, only: &str) -> ProofPlan {
        let own = &config.nodes[0];
        let names: Vec<String> = only.split_terminator(' ').map(str::to_owned).collect();
        let here = WantedPairs::of((config, own), &names, |_| true).pairs;
        ProofPlan::of((config, own), here, abilities, &names)
    }

    fn ends(tasks: &[ProofTask]) -> Vec<(&str, &str)> {
        tasks.iter().map(|task| (task.by.as_str(), task.node.as_str())).collect()
    }

    #[test]
    fn each_pair_is_proven_once_by_an_end_that_can() {
        let config = config(4);
        let of =
            [("a", Ability::Proves), ("b", Ability::Passive), ("c", Ability::Proves), ("d", Ability::Proves)];
        let all = plan(&config, abilities(&of, &[]), "");
        assert_eq!(all.tasks.len(), 12, "each in both families");
        let v4 = |task: &&ProofTask| task.pair.local.is_ipv4();
        let mut v4: Vec<_> =
            all.tasks.iter().filter(v4).map(|it| (it.by.as_str(), it.node.as_str())).collect();
        v4.sort_unstable();
        assert_eq!(v4, [("a", "b"), ("a", "c"), ("a", "d"), ("c", "b"), ("c", "d"), ("d", "b")]);
        assert!(all.open.is_empty());
        let one = plan(&config, abilities(&of, &[]), "d");
        assert!(ends(&one.tasks).iter().all(|(by, node)| *by == "d" || *node == "d"), "{one:?}");
        assert_eq!(one.tasks.len(), 6);
        let own = plan(&config, abilities(&of, &[]), "a");
        assert!(own.tasks.len() == 6 && own.tasks.iter().all(|task| task.by.as_str() == "a"), "{own:?}");
    }

    /// Whoever is named and has no pair, and what moves between others, is not left out in silence.
    #[test]
    fn what_is_wanted_and_not_tried_is_named() {
        let text = config(3).text().to_owned()
            + "[[nodes]]\nname = \"e\"\naddresses = [\"192.0.2.1\"]\n\
               [[floating]]\nname = \"db\"\naddresses = [\"10.0.0.99\"]\nnodes = [\"b\", \"c\"]\n";
        let text = text.replacen("[secret]", "[protection]\nnetworks = [\"10.0.0.0/8\"]\n[secret]", 1);
        let config = Config::parse(&text, "hostseal.toml").unwrap();
        let all = ["a", "b", "c", "e"];
        let unasked = |only: &str| -> Vec<String> {
            let of = all.map(|name| (name, Ability::Proves));
            let plan = plan(&config, abilities(&of, &[]), only);
            plan.unasked.iter().map(|it| it.node.to_string()).collect()
        };
        assert_eq!(unasked(""), ["db"], "its pairs with b and c");
        assert_eq!(unasked("b"), ["db"]);
        assert_eq!(unasked("a"), [""; 0], "this node's pair with it is proven from here");
        assert_eq!(unasked("b e"), ["db", "e"], "e has no pair");
        let text = config.text().replace("nodes = [\"b\", \"c\"]", "nodes = [\"a\", \"b\"]");
        let config = Config::parse(&text, "hostseal.toml").unwrap();
        let of = all.map(|name| (name, Ability::Proves));
        let plan = plan(&config, abilities(&of, &[]), "b");
        assert!(plan.unasked.is_empty(), "if it is not here it is at b, which has no pair with it");
    }

    #[test]
    fn of_who_is_not_there_nothing_is_found_out() {
        let config = config(4);
        let away = Ability::Away("it does not answer".to_owned());
        let of = [("a", Ability::Proves), ("b", away), ("c", Ability::Passive), ("d", Ability::Passive)];
        let plan = plan(&config, abilities(&of, &["d"]), "");
        let mut tried = ends(&plan.tasks);
        tried.sort_unstable();
        assert_eq!(tried, [("a", "c"), ("a", "c"), ("a", "d"), ("a", "d")]);
        assert_eq!(plan.open.len(), 8);
        for proof in &plan.open {
            assert_eq!(
                (proof.result, proof.reason_code),
                (ProofResult::Inconclusive, Some(ProofCode::NoAnswer))
            );
            println!("{}", proof.reason.as_ref().unwrap());
        }
    }

    #[test]
    fn no_host_has_two_proofs_at_a_time_and_many_are_made_at_once() {
        let config = config(16);
        let names: Vec<String> = config.nodes.iter().map(|node| node.name.to_string()).collect();
        let of: Vec<_> = names.iter().map(|name| (name.as_str(), Ability::Proves)).collect();
        let mut waiting = VecDeque::from(plan(&config, abilities(&of, &[]), "").tasks);
        assert_eq!(waiting.len(), 240);
        let mut rounds = 0;
        while !waiting.is_empty() {
            let mut busy = BTreeSet::new();
            while let Some(task) = take_next(&mut waiting, &busy) {
                assert!(busy.insert(task.by) && busy.insert(task.node));
            }
            assert!(!busy.is_empty());
            rounds += 1;
        }
        assert!(rounds <= 60, "{rounds}");
    }
}
