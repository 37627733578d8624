//! Which addresses a host can have for itself alone, so that they mean the same on every host.

use std::net::IpAddr;

/// What is wrong with `address` as one of a host, in words; `None` where nothing is.
pub fn wrong(address: IpAddr) -> Option<&'static str> {
    match address {
        _ if address.is_unspecified() => Some("means no address at all"),
        _ if address.is_loopback() => Some("is a loopback address"),
        _ if address.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(v4) if v4.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => Some("is an IPv4 address: write it as one"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Some("is link-local: it means another host on each link")
        }
        _ => None,
    }
}
