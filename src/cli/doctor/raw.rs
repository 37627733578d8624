//! A raw socket of IP protocol 50.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::observe::doctor::knock::{self, KnockNonce};

/// `IPPROTO_ESP`.
const ESP: i32 = 50;
/// So much of other ESP is passed over at a time.
const AT_ONCE: usize = 256;

/// Sends and takes what stands in for ESP.
pub(super) struct EspSocket {
    /// What a raw socket is asked is what one of UDP is.
    socket: UdpSocket,
    is_ipv4: bool,
}

impl EspSocket {
    /// One of this host's address `local`. It never waits.
    pub(super) fn bind(local: IpAddr) -> io::Result<Self> {
        let local = SocketAddr::new(local, 0);
        let socket = Socket::new(Domain::for_address(local), Type::RAW, Some(Protocol::from(ESP)))?;
        socket.bind(&local.into())?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UdpSocket::from(OwnedFd::from(socket)), is_ipv4: local.is_ipv4() })
    }

    pub(super) fn send(&self, to: IpAddr, nonce: &KnockNonce) -> io::Result<()> {
        self.socket.send_to(&knock::esp(nonce), (to, 0)).map(drop)
    }

    /// The next that has come, and from whom; `None` where none waits. Other ESP is passed over.
    pub(super) fn receive(&self) -> Option<(IpAddr, KnockNonce)> {
        let mut room = [0; 128];
        for _ in 0..AT_ONCE {
            let (length, from) = self.socket.recv_from(&mut room).ok()?;
            if let Some(nonce) = knock::esp_nonce(room.get(..length)?, self.is_ipv4) {
                return Some((from.ip(), nonce));
            }
        }
        None
    }
}
