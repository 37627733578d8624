//! Between which addresses a session talks.

use std::net::SocketAddr;

use crate::ike::session::nat::{MARKER, Nat};
use crate::types::{Pair, UdpPorts};

/// Between which addresses a session talks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    /// Whose session it is.
    pub(super) pair: Pair,
    /// Our socket.
    pub(super) local: SocketAddr,
    /// The peer's.
    pub(super) remote: SocketAddr,
    /// What is known of address translation on it.
    pub(super) nat: Nat,
}

impl Path {
    /// The same, once it is known what is between the ends: where there is a NAT, on `port` (RFC 7296
    /// section 2.23).
    pub(super) fn through(mut self, nat: Nat, port: u16) -> Self {
        self.nat = nat;
        if nat.is_found() {
            self.local.set_port(port);
            self.remote.set_port(port);
        }
        self
    }

    /// The ports that ESP goes between, where it goes in UDP.
    pub(super) fn encapsulation(&self) -> Option<UdpPorts> {
        self.nat.is_found().then(|| UdpPorts { local: self.local.port(), remote: self.remote.port() })
    }

    /// The most octets that a datagram on it is to have, if a packet is to have `packet` octets.
    pub(super) fn datagram_octets(&self, packet: usize) -> usize {
        /// Octets of the headers of IPv4 and UDP, and of IPv6 and UDP.
        const HEADERS: [usize; 2] = [20 + 8, 40 + 8];
        let marker = if self.nat.is_found() { MARKER.len() } else { 0 };
        packet.saturating_sub(HEADERS[usize::from(self.remote.is_ipv6())] + marker)
    }
}
