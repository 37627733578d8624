//! Whether a host forwards packets of others, and between which interfaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What a system says about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forwarding {
    /// It forwards IPv4.
    pub ipv4: bool,
    /// It forwards IPv6.
    pub ipv6: bool,
    /// The interfaces that are up, with their addresses: without loopback, and without those that are part of
    /// another one, such as a bridge's.
    pub interfaces: BTreeMap<String, BTreeSet<IpAddr>>,
}
