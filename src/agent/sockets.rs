//! UDP sockets: one per own address for IKE, and a short-lived one per probe.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::rc::Rc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::core::Probe;
use crate::ike::Transmit;
use crate::xfrm;

/// The largest UDP datagram.
const LARGEST: usize = 65_535;
/// Datagrams on their way to the core: more wait in the sockets, or are lost there.
const QUEUE: usize = 1024;

/// A datagram that came in.
pub struct Datagram {
    /// Our end.
    pub local: SocketAddr,
    /// The sender.
    pub remote: SocketAddr,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The IKE sockets of this host.
pub struct Sockets {
    by_local: BTreeMap<IpAddr, (Rc<tokio::net::UdpSocket>, JoinHandle<()>)>,
    incoming: mpsc::Receiver<Datagram>,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.by_local.values().for_each(|(_, reader)| reader.abort());
    }
}

impl Sockets {
    /// Opens UDP `port` on each address; an address need not be there yet.
    ///
    /// # Errors
    /// The port is taken, or the kernel does not let us bypass its policies.
    pub fn open(
        addresses: impl IntoIterator<Item = IpAddr>,
        port: u16,
    ) -> Result<Self, (SocketAddr, io::Error)> {
        let (sender, incoming) = mpsc::channel(QUEUE);
        let mut by_local = BTreeMap::new();
        for address in addresses {
            let local = SocketAddr::new(address, port);
            let socket = open_ike(local).map_err(|error| (local, error))?;
            let socket = Rc::new(socket);
            let reader = tokio::task::spawn_local(read(socket.clone(), local, sender.clone()));
            by_local.insert(address, (socket, reader));
        }
        Ok(Self { by_local, incoming })
    }

    /// The next datagram that came in.
    pub async fn receive(&mut self) -> Option<Datagram> {
        self.incoming.recv().await
    }

    /// Sends a datagram. One that cannot be sent is lost as if on the way: IKE retransmits.
    pub fn send(&self, transmit: &Transmit) {
        let Some((socket, _)) = self.by_local.get(&transmit.local.ip()) else {
            return;
        };
        if let Err(error) = socket.try_send_to(&transmit.bytes, transmit.remote) {
            tracing::debug!("{} to {}: {error}", transmit.local, transmit.remote);
        }
    }
}

async fn read(socket: Rc<tokio::net::UdpSocket>, local: SocketAddr, sender: mpsc::Sender<Datagram>) {
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        match receive_one(&socket, local) {
            Ok(datagram) => {
                if sender.send(datagram).await.is_err() {
                    return;
                }
            }
            // Also what ICMP reported of an earlier datagram of ours; nothing authenticates it.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => tracing::debug!("{local}: {error}"),
            Err(_) => {}
        }
    }
}

/// Not `async`, so that the buffer lives on the stack for a moment rather than in every reader for good.
fn receive_one(socket: &tokio::net::UdpSocket, local: SocketAddr) -> io::Result<Datagram> {
    let mut buffer = [0; LARGEST];
    let (length, remote) = socket.try_recv_from(&mut buffer)?;
    Ok(Datagram { local, remote, bytes: buffer[..length].to_vec() })
}

fn open_ike(local: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
    let socket = open_udp(local)?;
    xfrm::bypass(&socket, xfrm::Family::of(local.ip()))?;
    tokio::net::UdpSocket::from_std(UdpSocket::from(socket))
}

/// Sends a probe through its SA and nothing else.
///
/// # Errors
/// The SA is gone, or the network does not take the datagram now.
pub fn send_probe(probe: &Probe) -> io::Result<()> {
    let socket = open_udp(SocketAddr::new(probe.local, 0))?;
    xfrm::route_through(&socket, &probe.sa)?;
    socket.send_to(&probe.bytes, &probe.remote.into()).map(drop)
}

fn open_udp(local: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP))?;
    // At boot the agent may be there before the address.
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&local.into())?;
    Ok(socket)
}
