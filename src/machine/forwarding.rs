//! Whether this host forwards packets of others, and between which interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::{Network, is_set};
use crate::types::Forwarding;

/// What this network namespace forwards, and between which interfaces: none where they cannot be listed.
pub fn forwarding(network: &mut Network) -> Forwarding {
    let sysctls = Path::new("/proc/sys/net");
    Forwarding {
        ipv4: is_set(&sysctls.join("ipv4/ip_forward")),
        ipv6: is_set(&sysctls.join("ipv6/conf/all/forwarding")),
        interfaces: interfaces(network).unwrap_or_default(),
    }
}

fn interfaces(network: &mut Network) -> io::Result<BTreeMap<String, BTreeSet<IpAddr>>> {
    let mut of_link: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
    for it in network.addresses()? {
        of_link.entry(it.link).or_default().insert(it.address);
    }
    let links = network.links()?.into_values();
    let whole = links.filter(|link| link.is_up && !link.is_loopback && link.part_of.is_none());
    Ok(whole.map(|link| (link.name, of_link.remove(&link.index).unwrap_or_default())).collect())
}
