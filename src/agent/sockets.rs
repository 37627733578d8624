//! UDP sockets: per own address one for IKE, one for IKE and ESP in UDP, and one for probes.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::core::{Datagram, Probe};
use super::keeper::Keeper;
use crate::ike::Transmit;
use crate::xfrm;

/// The largest UDP datagram.
const LARGEST: usize = 65_535;
/// Datagrams on their way to the core: more wait in the sockets, or are lost there.
const QUEUE: usize = 1024;
/// How many of them the core takes together at most: the network is served before the rest.
const TOGETHER: usize = 64;

/// The UDP ports that an agent opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// IKE's own.
    pub ike: u16,
    /// That of IKE and of ESP in UDP, where there is to be any.
    pub nat: Option<u16>,
}

/// An open port of one address.
struct Own {
    socket: Rc<tokio::net::UdpSocket>,
    reader: JoinHandle<()>,
    /// The kernel takes ESP out of what comes in.
    decapsulates: bool,
}

/// The sockets of this host.
pub struct Sockets {
    by_local: BTreeMap<SocketAddr, Own>,
    /// What probes leave through, from the first one on.
    probers: BTreeMap<IpAddr, Socket>,
    /// What an agent before this one received ESP through.
    left: BTreeMap<SocketAddr, UdpSocket>,
    keeper: Keeper,
    /// Whether what decapsulates is to outlive this process: from the first message on by which a pair moves to
    /// UDP. Most hosts never have one, and need no keeper.
    keeps: bool,
    /// For the readers.
    sender: mpsc::Sender<Stamped>,
    incoming: mpsc::Receiver<Stamped>,
}

/// A datagram, and what the clock that can be set said when the kernel got it.
struct Stamped {
    local: SocketAddr,
    remote: SocketAddr,
    stamp: Option<Duration>,
    bytes: Vec<u8>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Sockets {
    /// None yet but what the agent before this one of the same `run_dir` left.
    pub fn new(run_dir: &Path) -> Self {
        let (sender, incoming) = mpsc::channel(QUEUE);
        let keeper = Keeper::new(run_dir);
        let left = keeper.take_back().into_iter().map(UdpSocket::from);
        let left: BTreeMap<_, _> =
            left.filter_map(|socket| Some((socket.local_addr().ok()?, socket))).collect();
        let keeps = !left.is_empty();
        let (by_local, probers) = (BTreeMap::new(), BTreeMap::new());
        Self { by_local, probers, left, keeper, keeps, sender, incoming }
    }

    /// Opens the ports of each address that are not open yet; an address need not be there yet.
    ///
    /// # Errors
    /// A port is taken, or the kernel does not let us bypass its policies: all is as before then.
    pub fn open(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        ports: Ports,
    ) -> Result<(), (SocketAddr, io::Error)> {
        let mut opened = BTreeMap::new();
        for address in addresses {
            // SAs of before may still receive through what is there.
            let left = self.left.keys().filter(|local| local.ip() == address).map(|local| (*local, true));
            let nat = ports.nat.map(|port| (SocketAddr::new(address, port), true));
            let wanted = [(SocketAddr::new(address, ports.ike), false)].into_iter().chain(nat).chain(left);
            for (local, decapsulates) in wanted.filter(|(local, _)| !self.by_local.contains_key(local)) {
                let there = self.left.get(&local).map(UdpSocket::try_clone);
                let socket = there.unwrap_or_else(|| open_udp(local).map(UdpSocket::from));
                let socket = socket.and_then(|socket| prepare(socket, local, decapsulates));
                opened.insert(local, (Rc::new(socket.map_err(|error| (local, error))?), decapsulates));
            }
        }
        let news = opened.values().any(|(_, decapsulates)| *decapsulates) || !self.left.is_empty();
        for (local, (socket, decapsulates)) in opened {
            let reader = tokio::task::spawn_local(read(socket.clone(), local, self.sender.clone()));
            self.by_local.insert(local, Own { socket, reader, decapsulates });
        }
        self.left.clear();
        if news {
            self.keep();
        }
        Ok(())
    }

    /// Has what decapsulates outlive this process, once that matters.
    fn keep(&mut self) {
        if !self.keeps {
            return;
        }
        let kept = self.by_local.values().filter(|own| own.decapsulates);
        let kept: Vec<BorrowedFd<'_>> = kept.map(|own| own.socket.as_fd()).collect();
        self.keeper.keep(&kept);
    }

    /// What the error of [`Sockets::open`] means.
    pub fn explain((local, error): (SocketAddr, io::Error)) -> anyhow::Error {
        anyhow::anyhow!("UDP {local} cannot be opened: {error}: is another IKE daemon running?")
    }

    /// Closes the sockets of addresses that are not `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(IpAddr) -> bool) {
        let before = self.by_local.len();
        self.by_local.retain(|local, _| wanted(local.ip()));
        self.probers.retain(|address, _| wanted(*address));
        if self.by_local.len() != before {
            self.keep();
        }
    }

    /// Closes all for good: nothing is to be received any more.
    pub fn close(mut self) {
        self.keeper.release();
    }

    /// Waits for datagrams; returns those that are there, in the order in which they came.
    pub async fn receive(&mut self) -> Option<Vec<Datagram>> {
        let mut stamped = Vec::new();
        let count = self.incoming.recv_many(&mut stamped, TOGETHER).await;
        let (now, wall) = (Instant::now(), SystemTime::now());
        (count > 0).then(|| stamped.into_iter().map(|datagram| datagram.at(now, wall)).collect())
    }

    /// Sends a datagram. One that cannot be sent is lost as if on the way: IKE retransmits.
    pub fn send(&mut self, transmit: &Transmit) {
        let Some(own) = self.by_local.get(&transmit.local) else {
            return;
        };
        if let Err(error) = own.socket.try_send_to(&transmit.bytes, transmit.remote) {
            tracing::debug!("{} to {}: {error}", transmit.local, transmit.remote);
        }
        // Whoever moves to UDP moves its IKE first.
        if own.decapsulates && !self.keeps {
            self.keeps = true;
            self.keep();
        }
    }

    /// Sends a probe through its SA and nothing else.
    ///
    /// # Errors
    /// The SA is gone, or the network does not take the datagram now.
    pub fn probe(&mut self, probe: &Probe) -> io::Result<()> {
        let prober = match self.probers.entry(probe.local) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(open_prober(probe.local)?),
        };
        xfrm::route_through(&*prober, &probe.sa)?;
        prober.send_to(&probe.bytes, &probe.remote.into()).map(drop)
    }
}

impl Stamped {
    /// The datagram, for whom the two clocks say `now` and `wall`. Where the one that can be set was set since
    /// it came, the answer is wrong: nothing but the length of a grace comes of it (`protect::proof`).
    fn at(self, now: Instant, wall: SystemTime) -> Datagram {
        let Self { local, remote, stamp, bytes } = self;
        let age = stamp.and_then(|stamp| wall.duration_since(SystemTime::UNIX_EPOCH + stamp).ok());
        let arrived = now.checked_sub(age.unwrap_or_default()).unwrap_or(now);
        Datagram { local, remote, arrived, bytes }
    }
}

async fn read(socket: Rc<tokio::net::UdpSocket>, local: SocketAddr, sender: mpsc::Sender<Stamped>) {
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
fn receive_one(socket: &tokio::net::UdpSocket, local: SocketAddr) -> io::Result<Stamped> {
    let mut buffer = [0; LARGEST];
    let (length, remote, stamp) = socket.try_io(Interest::READABLE, || receive_into(socket, &mut buffer))?;
    Ok(Stamped { local, remote, stamp, bytes: buffer[..length].to_vec() })
}

/// The length of a datagram, where it is from, and when the kernel got it.
fn receive_into(
    socket: &tokio::net::UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<Duration>)> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
    let stamp = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    let from = received.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
    Ok((received.bytes, from, stamp))
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// Makes a socket one of IKE's.
fn prepare(socket: UdpSocket, local: SocketAddr, decapsulates: bool) -> io::Result<tokio::net::UdpSocket> {
    xfrm::bypass(&socket, xfrm::Family::of(local.ip()))?;
    if decapsulates {
        xfrm::decapsulate(&socket)?;
    }
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    tokio::net::UdpSocket::from_std(socket)
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
            let datagram = datagram.at(Instant::now(), SystemTime::now());
            let from = outbox.local_addr().unwrap();
            assert_eq!((datagram.bytes.as_slice(), datagram.remote), (&b"early"[..], from));
            if datagram.arrived < read {
                return;
            }
        }
        panic!("no datagram came before it was read");
    }
}
