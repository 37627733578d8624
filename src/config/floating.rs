//! Addresses that move between nodes: `[[floating]]`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::nodes::Taken;
use super::read::{address, node_name};
use super::values::{Placed, Problems, Section, text};
use super::{Config, Node};
use crate::types::{NodeName, Pair};

/// Addresses that move together between nodes, such as the address of a database that fails over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floating {
    /// What people call it; no node has the same name.
    pub name: NodeName,
    /// The addresses, at least one; nothing else in the file has any of them.
    pub addresses: Vec<IpAddr>,
    /// The nodes that may have them, at least two.
    pub nodes: Vec<NodeName>,
}

impl Floating {
    /// Whether `node` may have the addresses.
    pub fn may_be_at(&self, node: &NodeName) -> bool {
        self.nodes.contains(node)
    }

    /// What of it all hosts must agree on, for [`Config::config_id`].
    pub(super) fn canonical(&self) -> String {
        format!("{} {}", self.name, self.in_words())
    }

    /// The addresses and the nodes for people, whatever their order in the file.
    pub fn in_words(&self) -> String {
        let addresses: BTreeSet<IpAddr> = self.addresses.iter().copied().collect();
        let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let nodes: BTreeSet<&str> = self.nodes.iter().map(NodeName::as_str).collect();
        format!("{} at {}", addresses.join(", "), nodes.into_iter().collect::<Vec<_>>().join(", "))
    }
}

impl Config {
    /// The addresses that may be at `node`.
    pub fn floating_at(&self, node: &Node) -> impl Iterator<Item = IpAddr> {
        let here = self.floating.iter().filter(|floating| floating.may_be_at(&node.name));
        here.flat_map(|floating| floating.addresses.iter().copied())
    }

    /// All floating addresses.
    pub fn floating_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.floating.iter().flat_map(|floating| floating.addresses.iter().copied())
    }

    /// Whether no packet of `pair` can pass on a host that has the addresses `present` now: its own end floats and is
    /// at another host, or the other end floats and is here.
    pub fn is_away(&self, pair: Pair, present: &BTreeSet<IpAddr>) -> bool {
        let floats = |end: IpAddr| self.floating_addresses().any(|address| address == end);
        (!present.contains(&pair.local) && floats(pair.local))
            || (present.contains(&pair.remote) && floats(pair.remote))
    }
}

/// The floating addresses of the file, in its order. `taken` holds what the nodes have.
pub(super) fn read(
    root: &mut Section<'_>,
    nodes: &[Node],
    taken: &mut Taken,
    problems: &Problems<'_>,
) -> Vec<Floating> {
    let sections = root.sections("floating");
    sections.into_iter().map(|section| floating(section, nodes, taken, problems)).collect()
}

fn floating(
    mut section: Section<'_>,
    nodes: &[Node],
    taken: &mut Taken,
    problems: &Problems<'_>,
) -> Floating {
    let name = section.required("name", node_name);
    let addresses = section.required_list("addresses", |value| address(text(value)?));
    let holders = section.required_list("nodes", node_name);
    section.finish();
    taken.name(&name, problems);
    addresses.iter().for_each(|placed| taken.address(placed, problems));
    let mut known: Vec<NodeName> = Vec::new();
    for Placed { value, key, span } in &holders {
        if !nodes.iter().any(|node| node.name == *value) {
            problems.add(span.clone(), key, format!("there is no node \"{value}\" in this file"));
        } else if known.contains(value) {
            problems.add(span.clone(), key, format!("\"{value}\" is listed twice"));
        } else {
            known.push(value.clone());
        }
    }
    if let [only] = holders.as_slice() {
        let message = format!("one node alone: list the addresses at [[nodes]] {}", only.value);
        problems.add(only.span.clone(), &only.key, message);
    }
    Floating {
        name: name.value,
        addresses: addresses.into_iter().map(|placed| placed.value).collect(),
        nodes: known,
    }
}
