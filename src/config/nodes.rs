//! What the file says of each host: `[[nodes]]`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use toml::de::DeValue;

use super::read::{address, auth_method, node_name};
use super::values::{Placed, Problems, Section, text};
use super::{AuthRules, Esp, Floating, Keying, Node, floating};
use crate::identity::{AuthMethod, PublicKey};
use crate::types::{EncapsulationMode, Inside, Method, NodeName};

/// What holds for all nodes.
#[derive(Clone, Copy)]
pub(super) struct NodeRules<'r> {
    pub(super) auth: &'r AuthRules,
    pub(super) keying: &'r Keying,
    pub(super) esp: &'r Esp,
}

/// What belongs to the nodes before, with its places.
#[derive(Default)]
pub(super) struct Taken {
    names: BTreeMap<NodeName, Range<usize>>,
    addresses: BTreeMap<IpAddr, Range<usize>>,
    keys: BTreeMap<String, Range<usize>>,
    /// Addresses on interfaces, which others may have too, but which no node is listed by.
    inside: Vec<Placed<IpAddr>>,
}

impl Taken {
    /// Notes a name, which nothing before may have.
    pub(super) fn name(&mut self, name: &Placed<NodeName>, problems: &Problems<'_>) {
        if !name.value.as_str().is_empty()
            && let Some(first) = self.names.insert(name.value.clone(), name.span.clone())
        {
            let line = problems.line(&first);
            let message = format!("there is another node \"{}\", in line {line}", name.value);
            problems.add(name.span.clone(), &name.key, message);
        }
    }

    /// Notes an address, which nothing before may have.
    pub(super) fn address(&mut self, address: &Placed<IpAddr>, problems: &Problems<'_>) {
        if let Some(first) = self.addresses.insert(address.value, address.span.clone()) {
            let line = problems.line(&first);
            let message = format!("{} is already an address of a node, in line {line}", address.value);
            problems.add(address.span.clone(), &address.key, message);
        }
    }

    /// Notes a key, which nothing before may have.
    fn key(&mut self, key: &Placed<PublicKey>, problems: &Problems<'_>) {
        if let Some(first) = self.keys.insert(key.value.to_string(), key.span.clone()) {
            let message = format!("is already the key of a node, in line {}", problems.line(&first));
            problems.add(key.span.clone(), &key.key, message);
        }
    }
}

/// A line that `hostseal key show` prints.
fn key_line(value: &DeValue<'_>) -> Result<PublicKey, String> {
    text(value)?.parse::<PublicKey>().map_err(|error| error.to_string())
}

/// The hosts of the file and its floating addresses, in its order.
pub(super) fn read(
    root: &mut Section<'_>,
    rules: NodeRules<'_>,
    problems: &Problems<'_>,
) -> (Vec<Node>, Vec<Floating>) {
    let sections = root.sections("nodes");
    if sections.is_empty() {
        problems.add(
            0..0,
            "nodes",
            "is missing: every host is a [[nodes]] with name and addresses".to_owned(),
        );
    }
    let mut taken = Taken::default();
    let nodes: Vec<Node> =
        sections.into_iter().map(|section| node(section, rules, &mut taken, problems)).collect();
    let floating = floating::read(root, &nodes, &mut taken, problems);
    for Placed { value, key, span } in taken.inside {
        if let Some(listed) = taken.addresses.get(&value) {
            let line = problems.line(listed);
            let message = format!(
                "{value} is an address that others send to, in line {line}: each is one or the other"
            );
            problems.add(span, &key, message);
        }
    }
    (nodes, floating)
}

fn node(mut section: Section<'_>, rules: NodeRules<'_>, taken: &mut Taken, problems: &Problems<'_>) -> Node {
    let name = section.required("name", node_name);
    let list = section.required_list("addresses", |value| address(text(value)?));
    let translated = section.entries("inside", address, |value: &DeValue<'_>| address(text(value)?));
    let auth = section.optional("auth", auth_method);
    if let Some(other) = auth.as_ref().filter(|auth| auth.value != AuthMethod::Secret)
        && rules.keying.method == Method::Derived
    {
        let message = "keys derived from the shared secret (keying.method) can be proven with it alone";
        problems.add(other.span.clone(), &other.key, message.to_owned());
    }
    let auth = auth.map(|placed| placed.value);
    let expects_secret = section.value("expects", false, expects_secret);
    let method = auth.unwrap_or(rules.auth.method);
    if method == AuthMethod::PublicKey {
        section.require("public_key", "is missing: `hostseal key show` on that host prints it");
    }
    let [public_key, previous_public_key] =
        ["public_key", "previous_public_key"].map(|name| section.optional(name, key_line));
    if let (None, Some(previous)) = (&public_key, &previous_public_key) {
        let message = "is beside `public_key`, which is the key that this node changes over to";
        problems.add(previous.span.clone(), &previous.key, message.to_owned());
    }
    section.finish();

    taken.name(&name, problems);
    list.iter().for_each(|placed| taken.address(placed, problems));
    for placed in [&public_key, &previous_public_key].into_iter().flatten() {
        taken.key(placed, problems);
    }
    let addresses: Vec<IpAddr> = list.into_iter().map(|placed| placed.value).collect();
    Node {
        name: name.value,
        inside: inside(&addresses, translated, rules.esp, taken, problems),
        addresses,
        public_key: public_key.map(|placed| placed.value),
        previous_public_key: previous_public_key.map(|placed| placed.value),
        auth,
        expects_secret,
    }
}

/// Each host has one way to prove itself, and may know the secret beside it.
fn expects_secret(value: &DeValue<'_>) -> Result<bool, String> {
    match text(value)? {
        known if known == AuthMethod::Secret.as_str() => Ok(true),
        other => Err(format!(
            "must be \"{}\" or left out, not \"{other}\": what else a host proves itself with, auth.method says",
            AuthMethod::Secret
        )),
    }
}

/// Which of `addresses` a NAT turns into other addresses of the host.
fn inside(
    addresses: &[IpAddr],
    translated: Vec<(Placed<IpAddr>, Placed<IpAddr>)>,
    esp: &Esp,
    taken: &mut Taken,
    problems: &Problems<'_>,
) -> Inside {
    let mut own_by_listed = BTreeMap::new();
    for (listed, own) in translated {
        let twice = own_by_listed.values().any(|value| *value == own.value);
        let wrong = if !addresses.contains(&listed.value) {
            Some(format!("{} is not among the addresses of this node", listed.value))
        } else if esp.encapsulation == EncapsulationMode::Never {
            Some("is behind a NAT, through which ESP gets in UDP alone: esp.encapsulation must not be \"never\"".to_owned())
        } else {
            None
        };
        if let Some(message) = wrong {
            problems.add(listed.span, &listed.key, message);
            continue;
        }
        let wrong = if own.value == listed.value {
            Some(format!("{} is the listed address itself: leave it out", own.value))
        } else if own.value.is_ipv4() != listed.value.is_ipv4() {
            Some(format!("{} and {} are of different families", own.value, listed.value))
        } else if twice {
            Some(format!("{} is already the inside address of another listed address", own.value))
        } else {
            None
        };
        match wrong {
            Some(message) => problems.add(own.span, &own.key, message),
            None => {
                own_by_listed.insert(listed.value, own.value);
                taken.inside.push(own);
            }
        }
    }
    Inside::new(own_by_listed)
}
