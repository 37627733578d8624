//! News that this host's addresses or routes may have changed.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc::{
    RTM_DELROUTE, RTM_NEWROUTE, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE,
    RTMGRP_LINK,
};
use tokio::io::unix::AsyncFd;

use super::hearing::hear;

/// Interfaces that go up and down take their addresses with them.
const GROUPS: i32 =
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
/// Of a notification its type alone matters, so it may be cut short.
const NOTICE: usize = 64;

/// What may have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// Routes alone: a router may have some all the time.
    Routes,
    /// Addresses or interfaces, and routes with them.
    Addresses,
}

impl News {
    /// What a notification is about; what is not known for a route is taken for an address.
    fn of(notice: &[u8]) -> Self {
        let kind = notice.get(4..6).and_then(|kind| kind.try_into().ok()).map(u16::from_ne_bytes);
        match kind {
            Some(RTM_NEWROUTE | RTM_DELROUTE) => News::Routes,
            _ => News::Addresses,
        }
    }
}

/// A socket that hears of every change of addresses, routes and interfaces in this network namespace. What it hears
/// says "look again" and no more; that some of it is lost makes no difference.
pub struct AddressNews(AsyncFd<Socket>);

impl AddressNews {
    /// Subscribes. Look at the addresses after this, so that nothing falls between.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        socket.bind(&SocketAddr::new(0, GROUPS.cast_unsigned()))?;
        hear(socket).map(Self)
    }

    /// Waits for news, and takes all that there are.
    pub async fn next(&mut self) -> News {
        let Ok(mut guard) = self.0.readable_mut().await else {
            return std::future::pending().await;
        };
        let mut notice = [0; NOTICE];
        let mut news = News::Routes;
        loop {
            match guard.get_inner_mut().recv_from(&mut notice.as_mut_slice(), 0) {
                Ok((length, _)) => news = news.max(News::of(notice.get(..length).unwrap_or_default())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Some were lost.
                Err(_) => news = News::Addresses,
            }
        }
        guard.clear_ready();
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_alone_are_told_from_the_rest() {
        let notice = |kind: u16| [&40u32.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        for (kind, news) in [
            (16, News::Addresses),
            (20, News::Addresses),
            (21, News::Addresses),
            (24, News::Routes),
            (25, News::Routes),
        ] {
            assert_eq!(News::of(&notice(kind)), news, "{kind}");
        }
        assert_eq!(News::of(&[]), News::Addresses);
    }
}
