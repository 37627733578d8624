//! Addresses of this host that no pair has: what goes between them and sealed hosts is dropped.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::config::{Config, Mode, Node};
use crate::types::units::listed;
use crate::types::{Problem, ProblemCode};

/// So many addresses are named.
const NAMED: usize = 4;

/// A warning for users of an address of this host that is in no pair. `present` are the unicast addresses of this host.
/// Addresses of a family without pairs concern nobody: nothing of that family is dropped.
pub fn problem(config: &Config, node: &Node, present: &BTreeSet<IpAddr>) -> Option<Problem> {
    if config.protection.mode != Mode::Require {
        return None;
    }
    let paired: BTreeSet<IpAddr> = config.pairs(node).into_iter().map(|(_, pair)| pair.local).collect();
    let has_family = |own: &IpAddr| paired.iter().any(|local| local.is_ipv4() == own.is_ipv4());
    let unpaired: Vec<&IpAddr> = present.difference(&paired).filter(|own| has_family(own)).collect();
    if unpaired.is_empty() {
        return None;
    }
    let (noun, verb, it, is) = match unpaired.len() {
        1 => ("address", "has", "it", "it moves"),
        _ => ("addresses", "have", "them", "they move"),
    };
    let message = format!(
        "{noun} of this host that {verb} no pair: {}. Packets between {it} and sealed hosts are dropped",
        listed(&unpaired, NAMED),
    );
    let fix = format!(
        "If other hosts use {it}, add {it} to the addresses of {}, or to [[floating]] if {is} between hosts",
        node.name
    );
    Some(Problem::info(ProblemCode::UnpairedAddress, None, message).mended_by(fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(protection: &str, present: &[&str]) -> Option<String> {
        let text = format!(
            "cluster = \"x\"\n[secret]\nfile = \"/s\"\n{protection}\n\
             [[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\", \"10.9.0.1\"]\n\
             [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\"]\n\
             [[floating]]\nname = \"vip\"\naddresses = [\"10.0.0.9\"]\nnodes = [\"a\", \"b\"]\n"
        );
        let config = Config::parse(&text, "file").unwrap();
        let present = present.iter().map(|own| own.parse().unwrap()).collect();
        problem(&config, config.node_named("a").unwrap(), &present).map(|problem| problem.message)
    }

    #[test]
    fn addresses_in_a_pair_and_of_another_family_are_no_news() {
        assert_eq!(told("", &["10.0.0.1", "10.0.0.9", "10.9.0.1", "fd00::1"]), None);
        assert_eq!(told("[protection]\nmode = \"prefer\"", &["172.17.0.1"]), None, "nothing is dropped");
    }

    #[test]
    fn the_others_are_named() {
        let one = told("", &["10.0.0.1", "172.17.0.1"]).unwrap();
        assert!(
            one.starts_with("address of this host that has no pair: 172.17.0.1. Packets between it"),
            "{one}"
        );
        let two = told("", &["172.18.0.1", "172.17.0.1"]).unwrap();
        assert!(
            two.starts_with("addresses of this host that have no pair: 172.17.0.1, 172.18.0.1."),
            "{two}"
        );
        let outside = told("[protection]\nnetworks = [\"10.0.0.0/24\"]", &["10.0.0.1", "10.9.0.1"]).unwrap();
        assert!(outside.contains("10.9.0.1"), "listed, and outside of protection.networks: {outside}");
    }
}
