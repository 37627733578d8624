//! This host: what its system says about it.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// The node that the environment says this host is.
pub fn named_node() -> Option<String> {
    std::env::var("HOSTSEAL_NODE").ok().filter(|name| !name.is_empty())
}

/// The addresses that this host has now (in this network namespace), each once: without those that no
/// configuration can name, loopback and IPv6 link-local ones.
///
/// # Errors
/// The system refused to list them.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let addresses: BTreeSet<IpAddr> = getifaddrs()?
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .filter(|address| !address.is_loopback() && !is_link_local(address))
        .collect();
    Ok(addresses.into_iter().collect())
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}
