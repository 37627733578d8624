//! Addresses that move between nodes, as an admin says them: what is wrong with them is said before anything is signed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context as _, bail, ensure};

use crate::control::{FloatingOrder, FloatingRow};
use crate::roster::{EntryId, FloatingPlace, RosterView, Saying};
use crate::types::NodeName;

/// What there is, by the names.
pub(super) fn rows(view: &RosterView) -> Vec<FloatingRow> {
    let name = |line: &EntryId| view.member(*line).map(|member| member.site.name.clone());
    let row = |place: &FloatingPlace| FloatingRow {
        name: place.name.clone(),
        addresses: place.addresses.clone(),
        nodes: place.nodes.iter().filter_map(name).collect(),
    };
    let mut rows: Vec<FloatingRow> = view.floating.iter().map(|newest| row(&newest.says)).collect();
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

/// These addresses may be at these nodes from then on, whatever was said of that name before.
pub(super) fn set(view: &RosterView, order: FloatingOrder) -> anyhow::Result<Saying> {
    let FloatingOrder { name, addresses, nodes } = order;
    let is_node = view.members.iter().any(|member| member.site.name == name);
    ensure!(!is_node, "{name} is a node: its addresses are its alone. Choose another name");
    let addresses: BTreeSet<IpAddr> = addresses.into_iter().collect();
    ensure!(!addresses.is_empty(), "say at least one address (--address)");
    for address in &addresses {
        ensure_free(view, &name, *address)?;
    }
    let nodes: BTreeSet<NodeName> = nodes.into_iter().collect();
    let lines: Vec<EntryId> = nodes.iter().map(|node| line(view, node)).collect::<anyhow::Result<_>>()?;
    ensure!(
        lines.len() > 1,
        "an address moves between at least two nodes: name all that may have it (--node)"
    );
    Ok(Saying::Floating(FloatingPlace { name, addresses: addresses.into_iter().collect(), nodes: lines }))
}

/// There are no such addresses any more.
pub(super) fn remove(view: &RosterView, name: NodeName) -> anyhow::Result<Saying> {
    let there: Vec<NodeName> = rows(view).into_iter().map(|row| row.name).collect();
    if there.contains(&name) {
        return Ok(Saying::Floating(FloatingPlace { name, addresses: Vec::new(), nodes: Vec::new() }));
    }
    match there.as_slice() {
        [] => bail!("there are no floating addresses"),
        there => {
            let names: Vec<&str> = there.iter().map(NodeName::as_str).collect();
            bail!("there are no floating addresses called {name}, but {}", names.join(", "))
        }
    }
}

/// That nothing but `name` has the address.
pub(super) fn ensure_free(view: &RosterView, name: &NodeName, address: IpAddr) -> anyhow::Result<()> {
    let has = |addresses: &[IpAddr]| addresses.contains(&address);
    let mut members = view.members.iter().filter(|member| member.site.name != *name);
    if let Some(member) = members.find(|member| has(&member.site.addresses)) {
        bail!("{address} is an address of the node {}", member.site.name);
    }
    let others = view.floating.iter().map(|newest| &newest.says).filter(|other| other.name != *name);
    match others.into_iter().find(|other| has(&other.addresses)) {
        Some(other) => bail!("{address} is among the floating addresses {}", other.name),
        None => Ok(()),
    }
}

fn line(view: &RosterView, name: &NodeName) -> anyhow::Result<EntryId> {
    let member = view.members.iter().find(|member| member.site.name == *name);
    member.map(|member| member.line).with_context(|| {
        let names: Vec<&str> = view.members.iter().map(|member| member.site.name.as_str()).collect();
        format!("there is no node {name}; the nodes are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PrivateKey;
    use crate::roster::{Listed, Roster, SignedEntry, Signer, Site};
    use crate::types::UnixTime;

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(&[seed; 32]).unwrap()
    }

    fn site(name: &str, at: u8) -> Site {
        let addresses = vec![[10, 0, 0, at].into()];
        Site { name: name.parse().unwrap(), addresses, inside: Default::default() }
    }

    fn say(roster: &mut Roster, says: Saying) {
        let (by, now) = (Signer::of(&key(1)).unwrap(), UnixTime(1));
        let statement = roster.draft(by, says, now).unwrap();
        let entry = SignedEntry::sign(roster.cluster(), statement, &[&key(1)]).unwrap();
        assert_eq!(roster.merge([entry.octets()]).taken, 1);
    }

    fn cluster() -> Roster {
        let mut roster = Roster::of_new_cluster("prod", site("a", 1), [&key(1), &key(2)], &key(3)).unwrap();
        say(&mut roster, Saying::Node(Listed { line: None, site: site("b", 2), foreign: true, ike: None }));
        roster
    }

    fn order(name: &str, at: &[u8], nodes: &[&str]) -> FloatingOrder {
        FloatingOrder {
            name: name.parse().unwrap(),
            addresses: at.iter().map(|at| [10, 0, 0, *at].into()).collect(),
            nodes: nodes.iter().map(|name| name.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn addresses_float_until_they_are_removed() {
        let mut roster = cluster();
        say(&mut roster, set(cluster().view(), order("vip", &[9, 8, 9], &["b", "a", "a"])).unwrap());
        let of = |roster: &Roster| rows(roster.view()).pop();
        let row = of(&roster).unwrap();
        assert_eq!(row.in_words(), "10.0.0.8, 10.0.0.9 at a, b");
        let changed = set(roster.view(), order("vip", &[9], &["b", "a"])).unwrap();
        say(&mut roster, changed);
        assert_eq!(of(&roster).unwrap().addresses.len(), 1);
        let gone = remove(roster.view(), "vip".parse().unwrap()).unwrap();
        say(&mut roster, gone);
        assert_eq!(of(&roster), None);
    }

    #[test]
    fn what_cannot_float_is_refused_with_what_is_in_the_way() {
        let mut roster = cluster();
        let vip = set(roster.view(), order("vip", &[9], &["a", "b"])).unwrap();
        say(&mut roster, vip);
        for (order, words) in [
            (order("a", &[7], &["a", "b"]), "a is a node"),
            (order("x", &[], &["a", "b"]), "at least one address"),
            (order("x", &[2], &["a", "b"]), "10.0.0.2 is an address of the node b"),
            (order("x", &[9], &["a", "b"]), "10.0.0.9 is among the floating addresses vip"),
            (order("x", &[7], &["a"]), "at least two nodes"),
            (order("x", &[7], &["a", "c"]), "there is no node c; the nodes are a, b"),
        ] {
            let error = set(roster.view(), order).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let error = remove(roster.view(), "x".parse().unwrap()).unwrap_err().to_string();
        assert_eq!(error, "there are no floating addresses called x, but vip");
    }
}
