//! What stays in the clear between one host and each of its peers.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Config, Node};
use crate::types::exempt::ClearFlow;
use crate::types::{Exemption, NodeName, PolicyDirection, Selector};

/// What stays in the clear between one host and each peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exemptions {
    entries: Vec<Entry>,
    /// The addresses with which nothing stays in the clear.
    blocked: BTreeSet<IpAddr>,
}

/// One exemption, and which ends of a pair its server can be at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    exemption: Exemption,
    /// Whether this host serves it.
    here: bool,
    /// The peers' addresses that serve it; `None` for all.
    there: Option<BTreeSet<IpAddr>>,
}

impl Exemptions {
    /// What `config` says for the host that is `node`; where that is not known, for whichever it is.
    pub fn of(config: &Config, node: Option<&Node>) -> Self {
        let entry = |exemption: &Exemption| Entry {
            exemption: exemption.clone(),
            here: node.is_none_or(|node| exemption.is_served_by(&node.name)),
            there: exemption.served_by.as_ref().map(|names| addresses_of(config, names)),
        };
        let blocked = config.protection.blocked.iter().copied().collect();
        Self { entries: config.protection.exempt.iter().map(entry).collect(), blocked }
    }

    /// What `list` says where everybody serves everything.
    #[cfg(test)]
    pub(crate) fn of_all(list: impl IntoIterator<Item = Exemption>) -> Self {
        let entry = |exemption| Entry { exemption, here: true, there: None };
        Self { entries: list.into_iter().map(entry).collect(), blocked: BTreeSet::new() }
    }

    /// What passes between this host and a peer in the clear, with this host as server and as client. An exemption for
    /// incoming packets has no outbound half.
    pub fn clear_flows(&self, remote: IpAddr) -> Vec<ClearFlow> {
        self.with(remote).flat_map(|entry| entry.clear_flows(remote)).collect()
    }

    /// The exemption by which `packet` passes in the clear between this host and a peer; `None` where none lets it.
    pub fn which(&self, remote: IpAddr, direction: PolicyDirection, packet: &Selector) -> Option<&Exemption> {
        let passes = |flow: ClearFlow| flow.direction == direction && flow.covers(packet);
        let mut entries = self.with(remote);
        entries.find(|entry| entry.clear_flows(remote).into_iter().any(passes)).map(|entry| &entry.exemption)
    }

    /// Those with a peer.
    fn with(&self, remote: IpAddr) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |_| !self.blocked.contains(&remote))
    }
}

impl Entry {
    fn clear_flows(&self, remote: IpAddr) -> Vec<ClearFlow> {
        let Self { exemption, here, there } = self;
        let there = there.as_ref().is_none_or(|addresses| addresses.contains(&remote));
        let mut clear_flows = exemption.both_ways(remote, *here, there);
        clear_flows.retain(|flow| !exemption.incoming || flow.direction == PolicyDirection::In);
        clear_flows
    }
}

/// The addresses of these nodes, and those that float to one of them.
fn addresses_of(config: &Config, names: &BTreeSet<NodeName>) -> BTreeSet<IpAddr> {
    let nodes = config.nodes.iter().filter(|node| names.contains(&node.name));
    let floating =
        config.floating.iter().filter(|floating| names.iter().any(|name| floating.may_be_at(name)));
    let floating = floating.flat_map(|floating| &floating.addresses);
    nodes.flat_map(|node| &node.addresses).chain(floating).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Block, Ports};

    const TCP: u8 = 6;

    fn config(exempt: &str) -> Config {
        let node = |name: &str, last: u8| {
            format!("[[nodes]]\nname = \"{name}\"\naddresses = [\"10.99.0.{last}\", \"fd99::{last}\"]\n")
        };
        let nodes: String = [("a", 1), ("b", 2), ("c", 3)].map(|(name, last)| node(name, last)).concat();
        Config::parse(&format!("cluster = \"c\"\n[protection]\nexempt = [{exempt}]\n{nodes}"), "f").unwrap()
    }

    /// Whether a packet passes from one node's port to another's, by what both ends say.
    fn passes(config: &Config, [from, to]: [(usize, u16); 2]) -> bool {
        let ends = [(from.0, to.0, PolicyDirection::Out), (to.0, from.0, PolicyDirection::In)];
        ends.into_iter().all(|(here, there, direction)| {
            let exemptions = Exemptions::of(config, Some(&config.nodes[here]));
            let packet = Selector {
                protocol: TCP,
                source_ports: Ports::one(from.1),
                destination_ports: Ports::one(to.1),
                ..Selector::between(Block::host([0; 4].into()), Block::host([0; 4].into()))
            };
            let clear_flows = exemptions.clear_flows(config.nodes[there].addresses[0]);
            clear_flows.iter().any(|flow| flow.direction == direction && flow.covers(&packet))
        })
    }

    #[test]
    fn only_the_ports_of_those_who_serve_are_open() {
        let (a, b, c) = (0, 1, 2);
        let all = config("\"tcp/22\"");
        let of_a = config("{ port = \"tcp/22\", served_by = [\"a\"] }");
        for (client, server) in [(b, a), (c, a)] {
            for config in [&all, &of_a] {
                assert!(passes(config, [(client, 40_000), (server, 22)]), "to the server");
                assert!(passes(config, [(server, 22), (client, 40_000)]), "and back");
                assert!(!passes(config, [(client, 20_000), (server, 22)]), "a low far port");
            }
        }
        // From port 22 of who does not serve it nothing passes.
        for (from, to) in [(b, a), (b, c), (c, b)] {
            assert!(passes(&all, [(from, 22), (to, 40_000)]));
            assert!(!passes(&of_a, [(from, 22), (to, 40_000)]), "{from} to {to}");
            assert!(!passes(&of_a, [(to, 40_000), (from, 22)]), "{to} to {from}");
        }
        // Which node this host is may not be known: then it may be the server, and the others are as the file says.
        let unknown = Exemptions::of(&of_a, None);
        assert_eq!(unknown.clear_flows("10.99.0.2".parse().unwrap()).len(), 2);
        assert_eq!(unknown.clear_flows("10.99.0.1".parse().unwrap()).len(), 4);
    }

    #[test]
    fn an_address_that_floats_serves_where_one_of_its_nodes_does() {
        let floating = "10.99.0.9";
        let file = |server: &str| {
            let nodes: String = [("a", 1), ("b", 2), ("c", 3)]
                .map(|(name, last)| {
                    format!("[[nodes]]\nname = \"{name}\"\naddresses = [\"10.99.0.{last}\"]\n")
                })
                .concat();
            let text = format!(
                "cluster = \"c\"\n[protection]\nexempt = [{{ port = \"tcp/22\", served_by = [\"{server}\"] }}]\n{nodes}\
                 [[floating]]\nname = \"f\"\naddresses = [\"{floating}\"]\nnodes = [\"a\", \"c\"]\n"
            );
            Config::parse(&text, "f").unwrap()
        };
        for (server, opens) in [("a", true), ("b", false), ("c", true)] {
            let config = file(server);
            let exemptions = Exemptions::of(&config, Some(&config.nodes[1]));
            let as_client = |flow: &ClearFlow| {
                flow.direction == PolicyDirection::Out && flow.selector.destination_ports == Ports::one(22)
            };
            let clear_flows = exemptions.clear_flows(floating.parse().unwrap());
            assert_eq!(clear_flows.iter().any(as_client), opens, "{server}");
        }
    }

    #[test]
    fn servers_can_be_changed_in_stages() {
        let apart = |one: &str, two: &str| {
            let config = config(&format!("{{ port = \"{one}\", served_by = [\"a\"] }}, {two}"));
            assert_eq!(config.protection.exempt.len(), 2);
        };
        apart("tcp/22", "\"in:tcp/22\"");
        apart("tcp/22", "{ port = \"tcp/22\", served_by = [\"b\"] }");
        apart("in:tcp/22", "{ port = \"tcp/22\", served_by = [\"a\", \"b\"] }");
    }
}
