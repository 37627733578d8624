//! Between which addresses a session talks, and what for.

use std::net::SocketAddr;

use crate::ike::control::Purpose;
use crate::ike::session::nat::{MARKER, Nat};
use crate::types::{Pair, UdpPorts};

/// A pair, and what some of its sessions are for: those of one purpose know nothing of those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Bond {
    /// Between whom.
    pub(super) pair: Pair,
    /// What for.
    pub(super) purpose: Purpose,
}

impl From<Pair> for Bond {
    /// That of the pair's traffic.
    fn from(pair: Pair) -> Self {
        Self { pair, purpose: Purpose::Data }
    }
}

/// In whose account it is that somebody makes this end hold something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// A pair's, whatever its sessions are for.
    Pair(Pair),
    /// All joiners have one: they may come from anywhere, so whoever forges addresses has any number of them.
    Joiners,
}

impl From<Pair> for Origin {
    fn from(pair: Pair) -> Self {
        Self::Pair(pair)
    }
}

impl From<Bond> for Origin {
    fn from(Bond { pair, purpose }: Bond) -> Self {
        match purpose {
            Purpose::Data | Purpose::Control => Self::Pair(pair),
            Purpose::Join => Self::Joiners,
        }
    }
}

/// Between which addresses a session talks, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Path {
    /// Whose session it is.
    pub(super) pair: Pair,
    /// What it is for.
    pub(super) purpose: Purpose,
    /// Our socket.
    pub(super) local: SocketAddr,
    /// The peer's.
    pub(super) remote: SocketAddr,
    /// What is known of address translation on it.
    pub(super) nat: Nat,
}

impl Path {
    /// Whose session it is, and what for.
    pub(super) fn bond(&self) -> Bond {
        Bond { pair: self.pair, purpose: self.purpose }
    }

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
