//! News that this host's addresses or routes may have changed.

use std::io;

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::libc::{RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE, RTMGRP_LINK};
use tokio::io::unix::AsyncFd;

use super::hearing::hear;

/// Interfaces that go up and down take their addresses with them.
const GROUPS: i32 =
    RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE;
/// What a notification holds does not matter, so it may be cut short.
const NOTICE: usize = 64;

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
    pub async fn next(&mut self) {
        let Ok(mut guard) = self.0.readable_mut().await else {
            return std::future::pending().await;
        };
        let mut notice = [0; NOTICE];
        while !matches!(
            guard.get_inner_mut().recv_from(&mut notice.as_mut_slice(), 0),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock
        ) {}
        guard.clear_ready();
    }
}
