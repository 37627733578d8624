//! Which pairs of this node are proven, and which of those that somebody wants cannot be: they are named.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::{Config, Floating, Node};
use crate::observe::proof_report::UnaskedNode;
use crate::types::{NodeName, Pair};

/// The pairs of this node that are to be proven.
pub(super) struct WantedPairs {
    pub(super) pairs: Vec<(NodeName, Pair)>,
    /// With whom there are none, or not all.
    pub(super) missing: Vec<UnaskedNode>,
}

impl WantedPairs {
    /// Those with the nodes called `names`, or all. The agent has those that are `listed`.
    pub(super) fn of(
        (config, own): (&Config, &Node),
        names: &[String],
        listed: impl Fn(&Pair) -> bool,
    ) -> Self {
        let is_named = |name: &NodeName| names.is_empty() || names.iter().any(|it| it == name.as_str());
        // Each end counts: this node, and what has moved here, too.
        let is_wanted = |(name, pair): &(NodeName, Pair)| {
            let here = floating_at(config, pair.local).map_or(&own.name, |floating| &floating.name);
            is_named(name) || is_named(here) || is_named(&own.name)
        };
        let all = config.pairs(own).into_iter().filter(is_wanted);
        let (pairs, unlisted): (Vec<_>, Vec<_>) = all.partition(|(_, pair)| listed(pair));
        let mut missing = BTreeMap::new();
        // Of those with an address that moves only some are possible at a time.
        let moves =
            |pair: &Pair| [pair.local, pair.remote].into_iter().any(|end| floating_at(config, end).is_some());
        for (node, pair) in unlisted.into_iter().filter(|(_, pair)| !moves(pair)) {
            let reason = format!(
                "the agent of this host does not have the pair of {} and {}: `hostseal reload`",
                pair.local, pair.remote
            );
            missing.entry(node).or_insert(reason);
        }
        let missing = missing.into_iter().map(|(node, reason)| UnaskedNode { node, reason }).collect();
        Self { pairs, missing }
    }

    /// The same; whoever is named and has no pair with this node is missing, too.
    pub(super) fn of_this_node(
        (config, own): (&Config, &Node),
        names: &[String],
        listed: impl Fn(&Pair) -> bool,
    ) -> Self {
        let Self { pairs, mut missing } = Self::of((config, own), names, listed);
        let name_at = |address| floating_at(config, address).map(|floating| &floating.name);
        let named = names.iter().filter_map(|name| name.parse::<NodeName>().ok());
        for node in named.filter(|node| *node != own.name) {
            let is_there =
                pairs.iter().any(|(name, pair)| *name == node || name_at(pair.local) == Some(&node))
                    || missing.iter().any(|unasked| unasked.node == node);
            if !is_there {
                let reason = "this host has no pair with it now: see `hostseal status`".to_owned();
                missing.push(UnaskedNode { node, reason });
            }
        }
        Self { pairs, missing }
    }
}

fn floating_at(config: &Config, address: IpAddr) -> Option<&Floating> {
    config.floating.iter().find(|floating| floating.addresses.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nodes a to d, of which d has an address of another family; db may be at a or c.
    fn config() -> Config {
        let node = |name: &str, address: &str| {
            format!("[[nodes]]\nname = \"{name}\"\naddresses = [\"{address}\"]\n")
        };
        let nodes = [("a", "10.0.0.1"), ("b", "10.0.0.2"), ("c", "10.0.0.3"), ("d", "fd00::4")];
        let nodes = nodes.map(|(name, address)| node(name, address)).concat();
        let floating = "[[floating]]\nname = \"db\"\naddresses = [\"10.0.0.9\"]\nnodes = [\"a\", \"c\"]\n";
        Config::parse(&format!("cluster = \"x\"\n[secret]\nfile = \"/s\"\n{nodes}{floating}"), "f").unwrap()
    }

    /// Of a, whose agent has pairs between addresses that end like these.
    fn wanted(names: &[&str], listed: &[(u8, u8)]) -> (Vec<String>, Vec<String>) {
        let config = config();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let pair = |(local, remote): &(u8, u8)| {
            Pair::new([10, 0, 0, *local].into(), [10, 0, 0, *remote].into()).unwrap()
        };
        let listed = |it: &Pair| listed.iter().any(|ends| pair(ends) == *it);
        let own = &config.nodes[0];
        let of = WantedPairs::of_this_node((&config, own), &names, listed);
        let with = of.pairs.iter().map(|(name, pair)| format!("{} {name}", pair.local)).collect();
        (with, of.missing.iter().map(|it| format!("{}: {}", it.node, it.reason)).collect())
    }

    #[test]
    fn what_is_wanted_and_cannot_be_is_named() {
        let all = [(1, 2), (1, 3), (1, 9)];
        assert_eq!(
            wanted(&[], &all),
            (vec!["10.0.0.1 b".into(), "10.0.0.1 c".into(), "10.0.0.1 db".into()], vec![])
        );
        let none = "d: this host has no pair with it now: see `hostseal status`".to_owned();
        assert_eq!(wanted(&["b", "d"], &all), (vec!["10.0.0.1 b".into()], vec![none]));
        let stale =
            "c: the agent of this host does not have the pair of 10.0.0.1 and 10.0.0.3: `hostseal reload`";
        let without = [(1, 2), (1, 9)];
        for names in [&[][..], &["c", "b"]] {
            assert_eq!(wanted(names, &without).1, [stale.to_owned()]);
        }
        assert!(wanted(&["b"], &without).1.is_empty(), "nobody wants c");
        assert_eq!(wanted(&["a"], &all).0.len(), 3, "all that this node has");
    }

    #[test]
    fn an_address_that_moves_is_at_one_place() {
        let here = [(1, 2), (1, 3), (9, 2), (9, 3)];
        let (pairs, missing) = wanted(&[], &here);
        assert_eq!((pairs.len(), missing.len()), (4, 0));
        let (pairs, missing) = wanted(&["db"], &here);
        assert_eq!(pairs, ["10.0.0.9 b", "10.0.0.9 c"]);
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(wanted(&["db"], &[(1, 2), (1, 3)]).1.len(), 1, "it is nowhere");
    }
}
