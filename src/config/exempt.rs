//! What the file says of exemptions: `protection.exempt`.

use std::collections::BTreeSet;

use toml::de::DeValue;

use super::Node;
use super::read::node_name;
use super::values::{Placed, Problems, text};
use crate::types::{Exemption, NodeName};

/// The keys of an entry that says who serves it.
const KEYS: [&str; 2] = ["port", "served_by"];

/// `"tcp/22"`, or `{ port = "tcp/22", served_by = ["a"] }`.
pub(super) fn entry(value: &DeValue<'_>) -> Result<Exemption, String> {
    let Some(table) = value.as_table() else { return text(value)?.parse() };
    let names = || table.keys().map(|key| key.get_ref().as_ref());
    if let Some(unknown) = names().find(|name| !KEYS.contains(name)) {
        return Err(format!("unknown key \"{unknown}\"; known here: {}", KEYS.join(", ")));
    }
    let of = |key: &str| table.get(key).map(|value| value.get_ref()).ok_or(format!("{key} is missing"));
    let exemption: Exemption = text(of("port")?)?.parse()?;
    if exemption.ports.is_none() {
        return Err("ICMP has no server: write \"icmp\" without served_by".to_owned());
    }
    let nodes = of("served_by")?.as_array().ok_or("served_by must be a list of nodes")?;
    let nodes =
        nodes.iter().map(|node| node_name(node.get_ref())).collect::<Result<BTreeSet<NodeName>, _>>()?;
    match nodes.is_empty() {
        true => Err("served_by is empty, so nothing would be exempt: leave the entry out".to_owned()),
        false => Ok(Exemption { served_by: Some(nodes), ..exemption }),
    }
}

/// The exemptions, each one apart from all others and served by nodes that there are.
pub(super) fn apart(list: Vec<Placed<Exemption>>, nodes: &[Node], problems: &Problems<'_>) -> Vec<Exemption> {
    let mut apart: Vec<Exemption> = Vec::new();
    for Placed { value, key, span } in list {
        let mut named = value.served_by.iter().flatten();
        if let Some(unknown) = named.find(|name| !nodes.iter().any(|node| node.name == **name)) {
            problems.add(span, &key, format!("there is no node \"{unknown}\" in this file"));
            continue;
        }
        match apart.iter().find(|earlier| earlier.overlaps(&value)) {
            Some(earlier) => problems.add(span, &key, format!("\"{value}\" overlaps \"{earlier}\"")),
            None => apart.push(value),
        }
    }
    apart
}
