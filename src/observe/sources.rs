//! From which address of this host packets to others leave, where no pair has it.
//!
//! A program that names no source gets the one that routing chooses. Where the file does not list that one for this
//! host, what the program sends is no pair's: it is dropped once the peer is sealed. So it is said before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::config::{Config, Mode, Node};
use crate::types::units::listed;
use crate::types::{NodeName, Problem, ProblemCode, Source, Sources};

/// So many nodes, and so many addresses of each, are named in one problem.
const NAMED: usize = 3;

/// The addresses of others that `node` has pairs with.
pub fn remotes(config: &Config, node: &Node) -> Vec<IpAddr> {
    let remotes: BTreeSet<IpAddr> = config.pairs(node).into_iter().map(|(_, pair)| pair.remote).collect();
    remotes.into_iter().collect()
}

/// One problem for each source that has no pair with an address that it would be used towards.
pub fn problems(config: &Config, node: &Node, sources: &Sources) -> Vec<Problem> {
    let pairs = config.pairs(node);
    let paired: BTreeSet<(IpAddr, IpAddr)> =
        pairs.iter().map(|(_, pair)| (pair.local, pair.remote)).collect();
    let mut towards: BTreeMap<&Source, BTreeMap<&NodeName, BTreeSet<IpAddr>>> = BTreeMap::new();
    for (name, pair) in &pairs {
        // A floating address that is here is reached from itself.
        let chosen = sources.get(&pair.remote).filter(|source| source.address != pair.remote);
        if let Some(source) = chosen.filter(|source| !paired.contains(&(source.address, pair.remote))) {
            towards.entry(source).or_default().entry(name).or_default().insert(pair.remote);
        }
    }
    towards.into_iter().map(|(source, nodes)| problem(config, node, source, &nodes)).collect()
}

fn problem(
    config: &Config,
    node: &Node,
    source: &Source,
    nodes: &BTreeMap<&NodeName, BTreeSet<IpAddr>>,
) -> Problem {
    let named = nodes.iter().map(|(name, of)| format!("{name} ({})", listed(of.iter(), NAMED)));
    let Source { address, device } = source;
    let fate = match config.protection.mode {
        Mode::Require => "dropped once they are sealed",
        Mode::Prefer => "in the clear",
    };
    let remedy = match node.own_addresses().any(|own| own == *address) {
        true => format!("Add the network of {address} to protection.networks"),
        false => format!("Add {address} to the addresses of {}", node.name),
    };
    let message = format!(
        "programs that choose no source send to {} from {address} ({device}), which has no pair with them: these \
         packets are {fate}",
        listed(named, NAMED),
    );
    let fix =
        format!("{remedy}, or have routing choose an address with a pair (`ip route change … src ADDRESS`)");
    let only = nodes.keys().next().filter(|_| nodes.len() == 1).map(|name| (*name).clone());
    Problem::critical(ProblemCode::UnlistedSource, only, message).mended_by(fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "cluster = \"x\"\n[secret]\nfile = \"/s\"\n\
        [[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\n[[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n\
        [[nodes]]\nname = \"c\"\naddresses = [\"10.0.0.3\"]\n";

    fn told(sources: &[(&str, &str)]) -> Vec<Problem> {
        told_by(FILE, sources)
    }

    fn told_by(file: &str, sources: &[(&str, &str)]) -> Vec<Problem> {
        let config = Config::parse(file, "file").unwrap();
        let source = |from: &str| Source { address: from.parse().unwrap(), device: "eth0".to_owned() };
        let sources = sources.iter().map(|(to, from)| (to.parse().unwrap(), source(from))).collect();
        problems(&config, config.node_named("a").unwrap(), &sources)
    }

    #[test]
    fn a_listed_source_and_an_unreachable_peer_are_no_problem() {
        assert!(told(&[("10.0.0.2", "10.0.0.1")]).is_empty());
        assert!(told(&[]).is_empty());
    }

    #[test]
    fn an_unlisted_source_is_told_once_with_its_peers() {
        let one = told(&[("10.0.0.2", "10.0.7.7"), ("10.0.0.3", "10.0.0.1")]);
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].node.as_ref().map(NodeName::as_str), Some("b"));
        assert!(one[0].message.contains("b (10.0.0.2) from 10.0.7.7 (eth0)"), "{}", one[0].message);
        let both = told(&[("10.0.0.2", "10.0.7.7"), ("10.0.0.3", "10.0.7.7")]);
        assert_eq!((both.len(), &both[0].node), (1, &None));
        assert!(both[0].message.contains("Add 10.0.7.7 to the addresses of a"), "{}", both[0].message);
    }

    #[test]
    fn a_listed_address_outside_of_the_networks_is_not_to_be_listed_again() {
        let networks = FILE.replace("[\"10.0.0.1\"]", "[\"10.0.0.1\", \"10.7.0.1\"]")
            + "[protection]\nnetworks = [\"10.0.0.0/24\"]\n";
        let told = told_by(&networks, &[("10.0.0.2", "10.7.0.1")]);
        assert!(
            told[0].message.contains("Add the network of 10.7.0.1 to protection.networks"),
            "{}",
            told[0].message
        );
    }
}
