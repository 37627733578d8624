//! Peers that no packet of the agent gets to, and what is wrong with the addresses that packets leave from.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{explain, sources};
use crate::config::{Config, Node};
use crate::types::units::listed;
use crate::types::{NodeName, Problem, ProblemCode, WaysOut};

/// So many nodes, and so many addresses of each, are named in one problem.
const NAMED: usize = 3;

/// What is wrong with the ways from this host to its peers.
pub fn problems(config: &Config, node: &Node, ways: &WaysOut) -> Vec<Problem> {
    let mut problems = sources::problems(config, node, &ways.sources);
    let mut in_vrf: BTreeMap<IpAddr, &str> = BTreeMap::new();
    let mut without: BTreeMap<NodeName, BTreeSet<IpAddr>> = BTreeMap::new();
    for (name, pair) in config.pairs(node) {
        match ways.vrfs.get(&pair.local) {
            Some(vrf) => drop(in_vrf.insert(pair.local, vrf)),
            None if ways.sources.contains_key(&pair.remote) => {}
            None => drop(without.entry(name).or_default().insert(pair.remote)),
        }
    }
    problems.extend(in_vrf.into_iter().map(|(own, vrf)| {
        let message = format!("{}: pairs with it get no keys", explain::in_vrf(own, vrf));
        let fix = format!("Take its interface out of the VRF, or list another address for {}", node.name);
        Problem::warning(ProblemCode::NoRoute, None, message).mended_by(fix)
    }));
    problems.extend(no_route(&without));
    problems
}

fn no_route(without: &BTreeMap<NodeName, BTreeSet<IpAddr>>) -> Option<Problem> {
    let first = without.values().flatten().next()?;
    let named = without.iter().map(|(name, of)| format!("{name} ({})", listed(of, NAMED)));
    let message = format!("no route leads from this host to {}", listed(named, NAMED));
    let fix = format!("`ip route get {first}` says why. Add a route, or remove the one that forbids it");
    let only = without.keys().next().filter(|_| without.len() == 1).cloned();
    Some(Problem::warning(ProblemCode::NoRoute, only, message).mended_by(fix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Source;

    fn told(routed: &[&str], vrfs: &[&str]) -> Vec<String> {
        let text = "cluster = \"x\"\n[secret]\nfile = \"/s\"\n\
             [[nodes]]\nname = \"a\"\naddresses = [\"10.0.0.1\", \"fd00::1\"]\n\
             [[nodes]]\nname = \"b\"\naddresses = [\"10.0.0.2\", \"fd00::2\"]\n\
             [[nodes]]\nname = \"c\"\naddresses = [\"10.0.0.3\"]\n";
        let config = Config::parse(text, "file").unwrap();
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let source = |to: IpAddr| {
            let address = parse(if to.is_ipv4() { "10.0.0.1" } else { "fd00::1" });
            (to, Source { address, device: "eth0".to_owned() })
        };
        let ways = WaysOut {
            sources: routed.iter().map(|to| source(parse(to))).collect(),
            vrfs: vrfs.iter().map(|own| (parse(own), "red".to_owned())).collect(),
        };
        let problems = problems(&config, config.node_named("a").unwrap(), &ways);
        problems.into_iter().map(|problem| problem.message).collect()
    }

    #[test]
    fn peers_without_a_route_are_named_together() {
        let all = ["10.0.0.2", "10.0.0.3", "fd00::2"];
        assert_eq!(told(&all, &[]), [""; 0]);
        let words = told(&all[..1], &[]).concat();
        assert!(words.starts_with("no route leads from this host to b (fd00::2), c (10.0.0.3)"), "{words}");
        assert!(words.contains("`ip route get fd00::2` says why"), "{words}");
    }

    #[test]
    fn an_address_in_a_vrf_is_named_and_not_the_routes_that_it_lacks() {
        let words = told(&["fd00::2"], &["10.0.0.1"]).join("\n");
        assert_eq!(
            words,
            "10.0.0.1 is in the VRF red, where the agent neither sends nor receives: pairs with it get no keys. Take its \
             interface out of the VRF, or list another address for a"
        );
        assert_eq!(told(&["10.0.0.2", "10.0.0.3", "fd00::2"], &["192.0.2.1"]), [""; 0], "no pair has it");
    }
}
