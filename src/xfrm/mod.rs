//! The kernel's IPsec tables over netlink: writes what it is told, reads what is there, decides nothing.
//!
//! A [`Tables`] asks and gets answers; [`Events`] hears about changes on a socket of its own, because on
//! a subscribed socket one's own changes come back looking like replies. Requests are answered within
//! the system call that sends them, so nothing here ever blocks and no runtime is needed.
//!
//! What goes out is built from the types of `netlink-packet-xfrm`, except keys, which are written by hand
//! into buffers that are zeroed. Of what comes in only the fixed structures are parsed, after their
//! length was checked; keys that the kernel reports are never looked at, and their buffers are zeroed.

mod batch;
mod connection;
mod decode;
#[cfg(any(test, fuzzing))]
mod digest;
mod encode;
mod events;
#[cfg(feature = "fault-injection")]
mod fuse;
mod lifetime;
mod preflight;
mod socket_policy;
mod statistics;
mod strangers;
mod sweep;
mod sys;
mod tables;
#[cfg(test)]
mod tests;
mod wire;

use std::net::IpAddr;

#[cfg(any(test, fuzzing))]
pub use digest::digest;
pub use events::{Event, Events};
pub use preflight::{Features, PreflightError};
pub use socket_policy::{bypass, decapsulate, never_fragment, route_through};
pub use statistics::statistics;
pub use sweep::{SweepError, Swept, count_ours, sweep};
pub use sys::{DESCRIPTORS_MAX, inherited_descriptors, receive_descriptors};
pub use tables::{ReadError, Tables};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `address`.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// Its number, as the kernel's structures hold it.
    fn number(self) -> u16 {
        match self {
            Self::V4 => netlink_packet_xfrm::AF_INET,
            Self::V6 => netlink_packet_xfrm::AF_INET6,
        }
    }

    /// The family of a number, `None` for others.
    fn from_number(number: u16) -> Option<Self> {
        match number {
            netlink_packet_xfrm::AF_INET => Some(Self::V4),
            netlink_packet_xfrm::AF_INET6 => Some(Self::V6),
            _ => None,
        }
    }
}
