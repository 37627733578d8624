//! Whether this host forwards packets of others, and between which interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use super::{ip_of, is_set};
use crate::types::Forwarding;

/// What this network namespace forwards, and between which interfaces: none where they cannot be listed.
pub fn forwarding() -> Forwarding {
    let sysctls = Path::new("/proc/sys/net");
    Forwarding {
        ipv4: is_set(&sysctls.join("ipv4/ip_forward")),
        ipv6: is_set(&sysctls.join("ipv6/conf/all/forwarding")),
        interfaces: interfaces().unwrap_or_default(),
    }
}

fn interfaces() -> io::Result<BTreeMap<String, BTreeSet<IpAddr>>> {
    let (mut up, mut addresses) = (BTreeSet::new(), BTreeMap::<String, BTreeSet<IpAddr>>::new());
    for interface in getifaddrs()? {
        let of_it = addresses.entry(interface.interface_name.clone()).or_default();
        of_it.extend(ip_of(&interface));
        let flags = interface.flags;
        if flags.contains(InterfaceFlags::IFF_UP) && !flags.contains(InterfaceFlags::IFF_LOOPBACK) {
            up.insert(interface.interface_name);
        }
    }
    let is_part = |name: &str| Path::new("/sys/class/net").join(name).join("master").exists();
    addresses.retain(|name, _| up.contains(name) && !is_part(name));
    Ok(addresses)
}
