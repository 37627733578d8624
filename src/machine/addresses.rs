//! The addresses that this host has, of those that a configuration can name.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use super::Network;

impl Network {
    /// The addresses that this host has now, without those that no configuration can name, loopback and IPv6 link-local
    /// ones. Says of each whether packets can leave from it: the kernel forgets the routes to an address while its
    /// interface is down.
    ///
    /// # Errors
    /// The kernel does not list them.
    pub fn own_addresses(&mut self) -> io::Result<BTreeMap<IpAddr, bool>> {
        // The addresses last: an interface that is not in the list above them has just come, and is as good as up.
        let links = self.links()?;
        let mut own = BTreeMap::new();
        for it in self.addresses()?.into_iter().filter(|it| can_be_named(it.address)) {
            let is_up = links.get(&it.link).is_none_or(|link| link.is_up);
            *own.entry(it.address).or_default() |= is_up;
        }
        Ok(own)
    }
}

fn can_be_named(address: IpAddr) -> bool {
    !address.is_loopback() && !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The addresses of this host, each once ([`Network::own_addresses`]).
///
/// # Errors
/// The kernel does not list them.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    Ok(Network::open()?.own_addresses()?.into_keys().collect())
}

/// The addresses that packets can leave from now.
///
/// # Errors
/// The kernel does not list them.
pub fn present_addresses() -> io::Result<BTreeSet<IpAddr>> {
    let own = Network::open()?.own_addresses()?;
    Ok(own.into_iter().filter(|(_, is_up)| *is_up).map(|(address, _)| address).collect())
}
