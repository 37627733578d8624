//! News that this host's addresses or routes may have changed.
//!
//! rtnetlink's own subscription reads every notification to its end and queues it without a limit, and a router has
//! thousands of new routes a second. Their type is enough here. So this reads from the socket itself, as much as
//! it looks at, and has the few notifications of addresses decoded by the same library.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc::{
    RTM_DELADDR, RTM_DELROUTE, RTM_NEWADDR, RTM_NEWROUTE, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE,
    RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::AddressAttribute;

use crate::types::NetworkNews;

/// Interfaces that go up and down take their addresses with them.
const GROUPS: i32 =
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
/// Room for a notification of an address. Others matter by their type alone, so they may be cut short.
const NOTICE: usize = 512;

/// What a notification is about; what is not known for a route is taken for an address.
fn news_of(notice: &[u8]) -> NetworkNews {
    let kind = notice.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
    match kind {
        Some(RTM_NEWROUTE | RTM_DELROUTE) => NetworkNews::Routes,
        Some(RTM_NEWADDR | RTM_DELADDR) => NetworkNews::Addresses(named_in(notice)),
        _ => NetworkNews::Addresses(BTreeSet::new()),
    }
}

/// The addresses that a notification of one names. On a link of two ends that is the other end's, too.
fn named_in(notice: &[u8]) -> BTreeSet<IpAddr> {
    let message = match NetlinkMessage::deserialize(notice).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(
            RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message),
        )) => message,
        _ => return BTreeSet::new(),
    };
    let address = |attribute: AddressAttribute| match attribute {
        AddressAttribute::Address(address) | AddressAttribute::Local(address) => Some(address),
        _ => None,
    };
    message.attributes.into_iter().filter_map(address).collect()
}

/// A socket that hears of every change of addresses, routes and interfaces in this network namespace. Each notification
/// says "look again" and no more; it does not matter if some are lost.
pub struct NetworkListener(Socket);

impl NetworkListener {
    /// Subscribes. Look at the addresses after this, so that nothing falls between.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, GROUPS.cast_unsigned()))?;
        Ok(Self(socket))
    }

    /// The next news, oldest first; `None` where there are no more now.
    pub fn poll(&mut self) -> Option<NetworkNews> {
        let mut notice = [0; NOTICE];
        match self.0.recv_from(&mut notice.as_mut_slice(), 0) {
            Ok((length, _)) => Some(news_of(notice.get(..length).unwrap_or_default())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // Some were lost.
            Err(_) => Some(NetworkNews::Addresses(BTreeSet::new())),
        }
    }
}

impl AsRawFd for NetworkListener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A notification of a kind, with what follows its header.
    fn notice(kind: u16, rest: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + rest.len()).unwrap();
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], rest].concat()
    }

    #[test]
    fn routes_alone_are_told_from_the_rest() {
        for (kind, routes) in [(16, false), (20, false), (21, false), (24, true), (25, true)] {
            assert_eq!(news_of(&notice(kind, &[])) == NetworkNews::Routes, routes, "{kind}");
        }
        assert_eq!(news_of(&[]), NetworkNews::Addresses(BTreeSet::new()));
    }

    #[test]
    fn addresses_are_named() {
        // struct ifaddrmsg, then IFA_ADDRESS and IFA_LOCAL, and a label (linux/if_addr.h).
        let v4 =
            [&[2, 16, 0, 0, 2, 0, 0, 0][..], &[8, 0, 1, 0, 10, 99, 0, 200], &[8, 0, 2, 0, 10, 99, 0, 200]];
        let v6 = [&[10, 64, 0, 0, 2, 0, 0, 0][..], &[20, 0, 1, 0, 0xfd, 0x99], &[0; 13], &[7]];
        let (v4, v6) = (notice(RTM_DELADDR, &v4.concat()), notice(RTM_NEWADDR, &v6.concat()));
        let named =
            |texts: &[&str]| NetworkNews::Addresses(texts.iter().map(|it| it.parse().unwrap()).collect());
        assert_eq!(news_of(&v4), named(&["10.99.0.200"]));
        assert_eq!(
            news_of(&v4).and(NetworkNews::Routes).and(news_of(&v6)),
            named(&["10.99.0.200", "fd99::7"])
        );
        // Cut short, it names nothing.
        for length in 0..v6.len() {
            assert_eq!(news_of(&v6[..length]), named(&[]), "{length}");
        }
    }
}
