//! A node gets other addresses, as an admin says: what is wrong with them is said before anything is signed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{bail, ensure};

use super::moving::ensure_free;
use crate::control::MoveOrder;
use crate::roster::{EntryId, Listed, Member, RosterView, Saying, Site};
use crate::store::shared;
use crate::types::{Inside, host_address};

/// The node `line` has the addresses of `order` from then on, and no others. It stays who it is, with its keys and rights.
/// `own` is the node that this is ordered on.
pub(super) fn moved(
    view: &RosterView,
    (line, own): (EntryId, EntryId),
    order: MoveOrder,
) -> anyhow::Result<Saying> {
    let MoveOrder { node, addresses } = order;
    let Some(member) = view.member(line) else {
        bail!("{node} is held out (`hostseal status --cluster` says why): settle that first")
    };
    let addresses = without_doubles(addresses);
    ensure!(!addresses.is_empty(), "a node has at least one address");
    for address in &addresses {
        if let Some(wrong) = host_address::wrong(*address) {
            bail!("{address} {wrong}: it cannot be the address of a node");
        }
        ensure_free(view, &node, *address)?;
    }
    let set = |list: &[IpAddr]| list.iter().copied().collect::<BTreeSet<IpAddr>>();
    ensure!(set(&addresses) != set(&member.site.addresses), "{node} has these addresses already");
    ensure_reached(view, member, &addresses)?;
    let site = Site { name: node, inside: inside(&member.site, &addresses), addresses };
    let mut with = shared(view, own, None);
    for node in with.nodes.iter_mut().filter(|node| node.name == site.name) {
        (node.addresses, node.inside) = (site.addresses.clone(), Inside::new(site.inside.clone()));
    }
    let settings = with.settings.clone();
    with.check_settings(&settings, "")?;
    let Member { foreign, listed_key, .. } = member;
    Ok(Saying::Node(Listed { line: Some(line), site, foreign: *foreign, ike: listed_key.clone() }))
}

/// What follows from it where this node is the one that moves, and has the addresses `here`.
pub(super) fn notes(says: &Saying, own: EntryId, here: Option<&BTreeSet<IpAddr>>) -> Vec<String> {
    let (Saying::Node(Listed { line: Some(line), site, .. }), Some(here)) = (says, here) else {
        return Vec::new();
    };
    let own_addresses = site.addresses.iter().map(|address| site.inside.get(address).unwrap_or(address));
    let missing = own_addresses.filter(|address| *line == own && !here.contains(*address));
    let note = |address| format!("this node does not have {address} yet: its pairs wait until it has");
    missing.map(note).collect()
}

/// That each node which has an address of the same family as this one still has.
fn ensure_reached(view: &RosterView, member: &Member, addresses: &[IpAddr]) -> anyhow::Result<()> {
    let families = |list: &[IpAddr]| list.iter().map(IpAddr::is_ipv4).collect::<BTreeSet<bool>>();
    let (before, after) = (families(&member.site.addresses), families(addresses));
    for other in view.members.iter().filter(|other| other.line != member.line) {
        let theirs = families(&other.site.addresses);
        let cut_off = !before.is_disjoint(&theirs) && after.is_disjoint(&theirs);
        let family = if theirs.contains(&true) { "IPv4" } else { "IPv6" };
        let (name, node) = (&member.site.name, &other.site.name);
        ensure!(
            !cut_off,
            "{node} has {family} addresses alone, so {name} and {node} would have no pair: give {name} an {family} \
             address too"
        );
    }
    Ok(())
}

/// What stands for another address on the node itself goes on doing so.
fn inside(site: &Site, addresses: &[IpAddr]) -> BTreeMap<IpAddr, IpAddr> {
    let stays = |(listed, _): &(&IpAddr, &IpAddr)| addresses.contains(listed);
    site.inside.iter().filter(stays).map(|(listed, own)| (*listed, *own)).collect()
}

fn without_doubles(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut seen = BTreeSet::new();
    addresses.into_iter().filter(|address| seen.insert(*address)).collect()
}

#[cfg(test)]
mod tests;
