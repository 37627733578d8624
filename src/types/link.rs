//! The interfaces and addresses of a system, as it tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::Traffic;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The number that the system gave it.
    pub index: u32,
    /// What it is called now.
    pub name: String,
    /// The largest packet that it takes, in bytes.
    pub mtu: u32,
    /// It is switched on. Whether there is a cable is another matter.
    pub is_up: bool,
    /// It leads back to this host.
    pub is_loopback: bool,
    /// It is a VRF: what is part of it has routes apart from all others.
    pub is_vrf: bool,
    /// The interface that it is part of, such as a bridge.
    pub part_of: Option<u32>,
    /// What came in by it.
    pub received: LinkCounters,
    /// What went out by it.
    pub sent: LinkCounters,
}

/// What an interface counts one way, since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounters {
    /// Packets and their bytes, with the headers of the link.
    pub traffic: Traffic,
    /// Packets that were broken.
    pub errors: u64,
    /// Packets for which there was no room.
    pub dropped: u64,
}

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkAddress {
    /// The address.
    pub address: IpAddr,
    /// The number of its interface.
    pub link: u32,
    /// The system still looks whether somebody else has it (RFC 4862 section 5.4): nothing can use it yet.
    pub is_tentative: bool,
    /// Somebody else has it: nothing can use it.
    pub is_duplicate: bool,
    /// It serves privacy and is replaced after a while (RFC 8981).
    pub is_temporary: bool,
    /// It is about to go: no new connection is to start from it.
    pub is_deprecated: bool,
}

/// What routing chooses for packets to somebody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The address that they leave from.
    pub address: IpAddr,
    /// The interface that they leave by.
    pub device: String,
}

/// The source that routing chooses, by the address of the other host. Hosts without a route are not in it.
pub type Sources = BTreeMap<IpAddr, Source>;

/// The VRFs that addresses of this host are in, by address.
pub type Vrfs = BTreeMap<IpAddr, String>;

/// How packets of this host get to others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WaysOut {
    /// What routing chooses.
    pub sources: Sources,
    /// Addresses of this host that routing does not choose from, as it asks about a VRF by name alone.
    pub vrfs: Vrfs,
}

/// What may have changed of a host's addresses and routes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkNews {
    /// Routes alone: a router may have some all the time.
    Routes,
    /// Addresses or interfaces, and routes with them. These addresses were named; an interface that goes does not name
    /// the addresses that go with it.
    Addresses(BTreeSet<IpAddr>),
}

impl NetworkNews {
    /// Both.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Routes, news) | (news, Self::Routes) => news,
            (Self::Addresses(some), Self::Addresses(others)) => Self::Addresses(&some | &others),
        }
    }
}
