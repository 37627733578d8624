//! UDP sockets: per own address one for IKE, and one for probes.

use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::core::{Datagram, Probe};
use crate::ike::Transmit;
use crate::xfrm;

/// The largest UDP datagram.
const LARGEST: usize = 65_535;
/// Datagrams on their way to the core: more wait in the sockets, or are lost there.
const QUEUE: usize = 1024;
/// How many of them the core takes together at most: the network is served before the rest.
const TOGETHER: usize = 64;

/// The sockets of one address.
struct Own {
    ike: Rc<tokio::net::UdpSocket>,
    reader: JoinHandle<()>,
    /// What probes leave through, from the first one on.
    prober: Option<Socket>,
}

/// The sockets of this host.
pub struct Sockets {
    by_local: BTreeMap<IpAddr, Own>,
    /// For the readers.
    sender: mpsc::Sender<Datagram>,
    incoming: mpsc::Receiver<Datagram>,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        self.by_local.values().for_each(|own| own.reader.abort());
    }
}

impl Sockets {
    /// None yet.
    pub fn new() -> Self {
        let (sender, incoming) = mpsc::channel(QUEUE);
        Self { by_local: BTreeMap::new(), sender, incoming }
    }

    /// Opens UDP `port` on each address that has no socket yet; an address need not be there yet.
    ///
    /// # Errors
    /// The port is taken, or the kernel does not let us bypass its policies: all is as before then.
    pub fn open(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        port: u16,
    ) -> Result<(), (SocketAddr, io::Error)> {
        let mut opened = BTreeMap::new();
        for address in addresses.into_iter().filter(|address| !self.by_local.contains_key(address)) {
            let local = SocketAddr::new(address, port);
            opened.insert(local, Rc::new(open_ike(local).map_err(|error| (local, error))?));
        }
        for (local, ike) in opened {
            let reader = tokio::task::spawn_local(read(ike.clone(), local, self.sender.clone()));
            self.by_local.insert(local.ip(), Own { ike, reader, prober: None });
        }
        Ok(())
    }

    /// What the error of [`Sockets::open`] means.
    pub fn explain((local, error): (SocketAddr, io::Error)) -> anyhow::Error {
        anyhow::anyhow!("UDP {local} cannot be opened: {error}: is another IKE daemon running?")
    }

    /// Closes the sockets of addresses that are not `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(IpAddr) -> bool) {
        self.by_local.retain(|address, own| {
            let keep = wanted(*address);
            if !keep {
                own.reader.abort();
            }
            keep
        });
    }

    /// Waits for datagrams; returns those that are there, in the order in which they came.
    pub async fn receive(&mut self) -> Option<Vec<Datagram>> {
        let mut datagrams = Vec::new();
        let count = self.incoming.recv_many(&mut datagrams, TOGETHER).await;
        (count > 0).then_some(datagrams)
    }

    /// Sends a datagram. One that cannot be sent is lost as if on the way: IKE retransmits.
    pub fn send(&self, transmit: &Transmit) {
        let Some(own) = self.by_local.get(&transmit.local.ip()) else {
            return;
        };
        if let Err(error) = own.ike.try_send_to(&transmit.bytes, transmit.remote) {
            tracing::debug!("{} to {}: {error}", transmit.local, transmit.remote);
        }
    }

    /// Sends a probe through its SA and nothing else.
    ///
    /// # Errors
    /// The SA is gone, or the network does not take the datagram now.
    pub fn probe(&mut self, probe: &Probe) -> io::Result<()> {
        let own = self.by_local.get_mut(&probe.local).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let prober = match own.prober.take() {
            Some(prober) => prober,
            None => open_prober(probe.local)?,
        };
        let prober = own.prober.insert(prober);
        xfrm::route_through(&*prober, &probe.sa)?;
        prober.send_to(&probe.bytes, &probe.remote.into()).map(drop)
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
    let (length, remote, arrived) =
        socket.try_io(Interest::READABLE, || receive_into(socket, &mut buffer))?;
    Ok(Datagram { local, remote, arrived, bytes: buffer[..length].to_vec() })
}

/// The length of a datagram, where it is from, and when the kernel got it.
fn receive_into(
    socket: &tokio::net::UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Instant)> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let stamp = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    let from = received.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
    Ok((received.bytes, from, stamp.map_or_else(Instant::now, instant_of)))
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// What the clock that can be set said some moments ago, on the one that cannot. Where it was set since, the
/// answer is wrong: nothing but the length of a grace comes of it (`protect::proof`).
fn instant_of(stamp: Duration) -> Instant {
    let now = Instant::now();
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + stamp).unwrap_or_default();
    now.checked_sub(age).unwrap_or(now)
}

fn open_ike(local: SocketAddr) -> io::Result<tokio::net::UdpSocket> {
    let socket = open_udp(local)?;
    xfrm::bypass(&socket, xfrm::Family::of(local.ip()))?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    tokio::net::UdpSocket::from_std(UdpSocket::from(socket))
}

/// Nobody answers to where probes come from, and what comes all the same finds no room.
fn open_prober(local: IpAddr) -> io::Result<Socket> {
    let socket = open_udp(SocketAddr::new(local, 0))?;
    socket.set_recv_buffer_size(0)?;
    Ok(socket)
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

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[tokio::test]
    async fn a_datagram_has_arrived_when_the_kernel_got_it() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let inbox = UdpSocket::from(open_udp(local).unwrap());
        setsockopt(&inbox, sockopt::ReceiveTimestampns, &true).unwrap();
        let inbox = tokio::net::UdpSocket::from_std(inbox).unwrap();
        let outbox = UdpSocket::bind(local).unwrap();
        // The kernel begins to stamp what arrives a moment after the first socket asks for it.
        for _ in 0..200 {
            outbox.send_to(b"early", inbox.local_addr().unwrap()).unwrap();
            sleep(Duration::from_millis(30));
            let read = Instant::now();
            inbox.readable().await.unwrap();
            let datagram = receive_one(&inbox, inbox.local_addr().unwrap()).unwrap();
            let from = outbox.local_addr().unwrap();
            assert_eq!((datagram.bytes.as_slice(), datagram.remote), (&b"early"[..], from));
            if datagram.arrived < read {
                return;
            }
        }
        panic!("no datagram came before it was read");
    }
}
