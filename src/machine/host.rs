//! This host: what its system says about it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::InterfaceFlags;
use nix::time::{ClockId, clock_gettime};

use crate::types::Boot;

/// The start of the system, as it is now.
///
/// # Errors
/// `/proc` does not tell its name.
pub fn boot() -> io::Result<Boot> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    Ok(Boot { id, uptime: uptime() })
}

/// The time since the system was started, its sleep included.
pub fn uptime() -> Duration {
    // This clock is always there (clock_gettime(2), since Linux 2.6.39).
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// The node that the environment says this host is.
pub fn named_node() -> Option<String> {
    std::env::var("HOSTSEAL_NODE").ok().filter(|name| !name.is_empty())
}

/// The addresses that this host has now (in this network namespace), without those that no configuration can name,
/// loopback and IPv6 link-local ones. Says of each whether packets can leave from it: the kernel forgets the routes to
/// an address while its interface is down.
///
/// # Errors
/// The system refused to list them.
pub fn addresses() -> io::Result<BTreeMap<IpAddr, bool>> {
    let mut addresses = BTreeMap::new();
    for interface in getifaddrs()? {
        let is_up = interface.flags.contains(InterfaceFlags::IFF_UP);
        let named = ip_of(&interface).filter(|address| !address.is_loopback() && !is_link_local(address));
        named.into_iter().for_each(|address| *addresses.entry(address).or_default() |= is_up);
    }
    Ok(addresses)
}

/// Those of [`addresses`], each once.
///
/// # Errors
/// The system refused to list them.
pub fn own_addresses() -> io::Result<Vec<IpAddr>> {
    Ok(addresses()?.into_keys().collect())
}

/// Those of [`addresses`] that packets can leave from now.
///
/// # Errors
/// The system refused to list them.
pub fn present_addresses() -> io::Result<BTreeSet<IpAddr>> {
    Ok(addresses()?.into_iter().filter(|(_, is_up)| *is_up).map(|(address, _)| address).collect())
}

/// The IP address that an entry of an interface tells; the others tell of its link.
pub fn ip_of(interface: &InterfaceAddress) -> Option<IpAddr> {
    let address = interface.address.as_ref()?;
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// Whether the sysctl in `file` is on: there, and not 0.
pub fn is_set(file: &Path) -> bool {
    // One call reads it: whoever reads to the end asks for the size before, and once more after it.
    let mut text = [0; 16];
    let read = File::open(file).and_then(|mut file| file.read(&mut text));
    read.is_ok_and(|length| !matches!(text[..length].trim_ascii(), b"0"))
}

fn is_link_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_of_the_system_has_one_name_and_gets_older() {
        let (one, two) = (boot().unwrap(), boot().unwrap());
        assert!(one.id == two.id && one.uptime <= two.uptime && !one.id.is_empty());
        assert!(!one.uptime.is_zero());
    }
}
