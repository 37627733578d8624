//! UDP sockets: per own address one for IKE, one for IKE and ESP in UDP, and one for probes.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::Bound;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::path::Path;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg,
    sendmmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use super::ages::Ages;
use super::descriptors;
use super::hearing::hear;
use super::keeper::Keeper;
use crate::host::Seldom;
use crate::host::core::{Datagram, ProbeDatagram, Unsent};
use crate::host::setup::IkePorts;
use crate::ike::{DATAGRAM_MAX, Transmit};
use crate::types::units::listed;
use crate::types::{Family, Problem, ProblemCode};
use crate::xfrm;

/// How many datagrams one system call takes or gives at most: each of them costs more than what it carries.
const AT_ONCE: usize = 16;
/// How many are handled in one go at most: timers and answers wait meanwhile.
const HANDLED_AT_ONCE: usize = 64;
/// Room for one: what is longer is cut off, and still too long for the key exchange.
const ROOM: usize = DATAGRAM_MAX + 1;
/// What may wait in a socket to be taken off, in octets as the kernel counts them: some thousand datagrams.
const RECEIVE_BUFFER: usize = 4 << 20;
/// What may wait to be sent. The kernel holds up to 208 KiB for each neighbour that does not answer ARP, and all
/// neighbours share the socket's room: those who are dead, or whose addresses somebody forges, must not fill it.
const SEND_BUFFER: usize = 32 << 20;

/// A bound port of one address.
struct Own {
    socket: AsyncFd<UdpSocket>,
    /// The kernel takes ESP out of what comes in.
    decapsulates: bool,
}

/// The sockets of this host.
pub struct UdpSockets {
    by_local: BTreeMap<SocketAddr, Own>,
    /// The socket to read first.
    turn: Option<SocketAddr>,
    /// What probes leave through, from the first one on.
    probers: BTreeMap<IpAddr, Socket>,
    /// What an agent before this one received ESP through.
    left: BTreeMap<SocketAddr, UdpSocket>,
    /// Ports of ESP in UDP that somebody else had when they were to be bound. Any local user can take one while no
    /// agent runs, which must not keep this host from new keys.
    missing: BTreeSet<SocketAddr>,
    keeper: Keeper,
    /// Whether what decapsulates is to outlive this process: from the first message on by which a pair moves to
    /// UDP. Most hosts never have one.
    keeps: bool,
    /// Where datagrams are received into, [`AT_ONCE`] times [`ROOM`]. The kernel gives the memory as it is written to.
    room: Vec<u8>,
    ages: Ages,
    /// What fails, for the log: who has proven nothing can cause it.
    failures: Seldom<&'static str>,
}

/// What an error of sending means where it is this host that refuses; `None` for what passes by itself, such as a
/// queue that is full.
fn refusal(error: &io::Error) -> Option<String> {
    let what = match Errno::from_raw(error.raw_os_error()?) {
        Errno::ENETUNREACH => "there is no route to it (`ip route get` shows what routing finds)",
        Errno::EHOSTUNREACH => {
            "a route says that it is unreachable (`ip route get`), or no host there has that address (`ip neigh`)"
        }
        Errno::EACCES => "a route prohibits it (`ip route get` shows which)",
        Errno::EINVAL => "a route of type blackhole drops it (`ip route get`)",
        Errno::ENETDOWN => "the interface that leads there is down",
        Errno::EPERM => "a firewall of this host drops it on its way out",
        Errno::EADDRNOTAVAIL => "the address is not there",
        _ => return None,
    };
    Some(format!("{error}: {what}"))
}

/// Whether a datagram did not leave because this host is busy.
pub(super) fn has_no_room(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM))
}

/// A datagram, and what the clock that can be set said when the kernel got it.
struct Stamped {
    local: SocketAddr,
    remote: SocketAddr,
    stamp: Option<Duration>,
    bytes: Vec<u8>,
}

impl UdpSockets {
    /// None yet but what the agent before this one of the same `run_dir` left.
    pub fn new(run_dir: &Path) -> Self {
        let keeper = Keeper::new(run_dir);
        let left = keeper.take_back().into_iter().map(UdpSocket::from);
        let left: BTreeMap<_, _> =
            left.filter_map(|socket| Some((socket.local_addr().ok()?, socket))).collect();
        let keeps = !left.is_empty();
        Self {
            by_local: BTreeMap::new(),
            turn: None,
            probers: BTreeMap::new(),
            left,
            missing: BTreeSet::new(),
            keeper,
            keeps,
            room: vec![0; AT_ONCE * ROOM],
            ages: Ages::default(),
            failures: Seldom::default(),
        }
    }

    /// Binds the ports of each address that are not bound yet; an address need not be there yet.
    ///
    /// # Errors
    /// IKE's port is taken, there are too few descriptors, or the kernel does not let us bypass its policies: all is as before then.
    pub fn bind(
        &mut self,
        addresses: impl IntoIterator<Item = IpAddr>,
        ports: IkePorts,
    ) -> anyhow::Result<()> {
        let addresses: BTreeSet<IpAddr> = addresses.into_iter().collect();
        let before = self.by_local.keys().map(SocketAddr::ip);
        descriptors::ensure_enough(before.chain(addresses.iter().copied()).collect::<BTreeSet<_>>().len())?;
        let (mut bound, mut missing) = (BTreeMap::new(), BTreeSet::new());
        for address in addresses {
            let (opened, taken) = self.open(address, ports)?;
            bound.extend(opened);
            missing.extend(taken);
        }
        if self.missing != missing {
            self.missing = missing;
            self.problem().iter().for_each(|problem| tracing::warn!("{}", problem.message));
        }
        let news = bound.values().any(|own| own.decapsulates) || !self.left.is_empty();
        self.by_local.extend(bound);
        self.left.clear();
        if news {
            self.keep();
        }
        Ok(())
    }

    /// The same for addresses that no pair has, each for itself: where that fails, only the members of a cluster that are
    /// called from there miss something.
    pub fn bind_besides(&mut self, addresses: &BTreeSet<IpAddr>, ports: IkePorts) {
        for address in addresses {
            let bound: BTreeSet<IpAddr> =
                self.by_local.keys().map(SocketAddr::ip).chain([*address]).collect();
            let opened = descriptors::ensure_enough(bound.len()).and_then(|()| self.open(*address, ports));
            match opened {
                Ok((opened, _)) => self.by_local.extend(opened),
                Err(error) => {
                    if let Some(others) = self.failures.note(Instant::now(), "binding besides") {
                        tracing::warn!(
                            "nodes of the cluster that miss a move cannot be talked to from {address}: {error} \
                             ({others} more like it since the last)"
                        );
                    }
                }
            }
        }
        self.keep();
    }

    /// Opens what is lacking at an address, and says which ports of ESP in UDP somebody else has.
    fn open(
        &self,
        address: IpAddr,
        ports: IkePorts,
    ) -> anyhow::Result<(BTreeMap<SocketAddr, Own>, BTreeSet<SocketAddr>)> {
        let (mut opened, mut taken) = (BTreeMap::new(), BTreeSet::new());
        // Earlier SAs may still receive through what is there.
        let left = self.left.keys().filter(|local| local.ip() == address).map(|local| (*local, true));
        let nat = ports.nat.map(|port| (SocketAddr::new(address, port), true));
        let wanted = [(SocketAddr::new(address, ports.ike), false)].into_iter().chain(nat).chain(left);
        for (local, decapsulates) in wanted.filter(|(local, _)| !self.by_local.contains_key(local)) {
            match self.bind_one(local, decapsulates) {
                Ok(own) => drop(opened.insert(local, own)),
                Err(error) if decapsulates && is_taken(&error) => {
                    taken.insert(local);
                }
                Err(error) => return Err(explain(local, &error)),
            }
        }
        Ok((opened, taken))
    }

    fn bind_one(&self, local: SocketAddr, decapsulates: bool) -> io::Result<Own> {
        let there = self.left.get(&local).map(UdpSocket::try_clone);
        let socket = there.unwrap_or_else(|| bind_udp(local).map(UdpSocket::from))?;
        Ok(Own { socket: prepare(socket, local, decapsulates)?, decapsulates })
    }

    /// Takes what somebody else had, and has no more.
    pub fn bind_missing(&mut self) {
        for local in std::mem::take(&mut self.missing) {
            match self.bind_one(local, true) {
                Ok(own) => {
                    tracing::info!("UDP {local} is free again");
                    self.by_local.insert(local, own);
                    self.keep();
                }
                Err(_) => drop(self.missing.insert(local)),
            }
        }
    }

    /// Ports that somebody else has.
    pub fn problem(&self) -> Option<Problem> {
        let port = self.missing.first()?.port();
        let words = format!(
            "another program has UDP {}: pairs cannot use ESP in UDP meanwhile. Find it (`ss -ulpn 'sport = :{port}'`) \
             and end it; the agent then takes the port by itself",
            listed(&self.missing, 3)
        );
        Some(Problem::warning(ProblemCode::PortTaken, None, words))
    }

    /// Has what decapsulates outlive this process, once that matters.
    fn keep(&mut self) {
        if !self.keeps {
            return;
        }
        let kept = self.by_local.values().filter(|own| own.decapsulates);
        let kept: Vec<BorrowedFd<'_>> = kept.map(|own| own.socket.get_ref().as_fd()).collect();
        self.keeper.keep(&kept);
    }

    /// Closes the sockets of addresses that are not `wanted`.
    pub fn retain(&mut self, wanted: impl Fn(IpAddr) -> bool) {
        let before = self.by_local.len();
        self.by_local.retain(|local, _| wanted(local.ip()));
        self.probers.retain(|address, _| wanted(*address));
        self.missing.retain(|local| wanted(local.ip()));
        if self.by_local.len() != before {
            self.keep();
        }
    }

    /// Closes what probes leave through, which has policies of ours.
    pub fn rest(&mut self) {
        self.probers.clear();
    }

    /// Closes all for good: nothing is to be received any more.
    pub fn close(mut self) {
        self.keeper.release();
    }

    /// Waits for datagrams; returns those that are there, of each socket in the order in which they came, and when
    /// that was. More wait in the sockets, or are lost there.
    pub async fn receive(&mut self) -> (Instant, Vec<Datagram>) {
        let came = poll_fn(|context| self.poll_receive(context)).await;
        self.at_last(came)
    }

    /// The same without waiting: what has come by now.
    pub fn receive_now(&mut self) -> Option<(Instant, Vec<Datagram>)> {
        match self.poll_receive(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(came) => Some(self.at_last(came)),
            Poll::Pending => None,
        }
    }

    /// Datagrams that have just been taken off their sockets, and when that is.
    fn at_last(&mut self, stamped: Vec<Stamped>) -> (Instant, Vec<Datagram>) {
        let now = Instant::now();
        (now, stamped.into_iter().map(|datagram| datagram.at(now, &mut self.ages)).collect())
    }

    /// Takes as much off each socket as one system call does, so that none of them keeps the others waiting. Where that
    /// is much, those that are left are the first next time.
    fn poll_receive(&mut self, context: &mut Context<'_>) -> Poll<Vec<Stamped>> {
        let mut came = Vec::new();
        let start = self.turn.take().map_or(Bound::Unbounded, Bound::Included);
        let from = self.by_local.range((start, Bound::Unbounded));
        for (local, own) in from.chain(&self.by_local).take(self.by_local.len()) {
            if came.len() >= HANDLED_AT_ONCE {
                self.turn = Some(*local);
                break;
            }
            while let Poll::Ready(Ok(mut ready)) = own.socket.poll_read_ready(context) {
                match receive_at_once(&mut ready, *local, &mut self.room) {
                    // Asked once more, the socket is to wake us.
                    Ok(datagrams) if datagrams.is_empty() => continue,
                    Ok(datagrams) => came.extend(datagrams),
                    // Also what ICMP reported of an earlier datagram of ours; nothing authenticates it.
                    Err(error) => {
                        if let Some(others) = self.failures.note(Instant::now(), "receiving") {
                            tracing::debug!("{local}: {error} ({others} more like it since the last)");
                        }
                        context.waker().wake_by_ref();
                    }
                }
                break;
            }
        }
        if came.is_empty() { Poll::Pending } else { Poll::Ready(came) }
    }

    /// Sends datagrams in their order. One that cannot be sent is lost as if on the way: IKE retransmits. Returns those
    /// that this host itself does not let out, between which addresses and why.
    pub fn send(&mut self, transmits: &[Transmit]) -> Vec<Unsent> {
        let mut unsent = Vec::new();
        for transmits in transmits.chunk_by(|one, next| one.local == next.local) {
            self.send_from(transmits[0].local, transmits, &mut unsent);
        }
        unsent
    }

    fn send_from(&mut self, local: SocketAddr, transmits: &[Transmit], unsent: &mut Vec<Unsent>) {
        let Some(own) = self.by_local.get(&local) else {
            return;
        };
        let mut left = transmits;
        while let Some(first) = left.first() {
            let sent = send_at_once(own.socket.get_ref(), left).unwrap_or_else(|error| {
                if let Some(others) = self.failures.note(Instant::now(), "sending") {
                    let remote = first.remote;
                    tracing::debug!("{local} to {remote}: {error} ({others} more like it since the last)");
                }
                unsent.extend(refusal(&error).map(|why| Unsent { local, remote: first.remote, why }));
                1
            });
            left = left.get(sent..).unwrap_or_default();
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
    pub fn probe(&mut self, probe: &ProbeDatagram) -> io::Result<()> {
        let prober = match self.probers.entry(probe.local) {
            Entry::Occupied(there) => there.into_mut(),
            Entry::Vacant(place) => place.insert(bind_prober(probe.local)?),
        };
        xfrm::route_through(&*prober, &probe.sa)?;
        prober.send_to(&probe.bytes, &probe.remote.into()).map(drop)
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// What it means that a socket cannot be had.
fn explain(local: SocketAddr, error: &io::Error) -> anyhow::Error {
    let what = format!("UDP {local} cannot be opened: {error}");
    match descriptors::explain(error) {
        Some(why) => anyhow::anyhow!("{what}: {why}"),
        None if is_taken(error) => anyhow::anyhow!("{what}: is another IKE daemon running?"),
        None => anyhow::anyhow!(what),
    }
}

impl Stamped {
    /// The datagram, read at `now`.
    fn at(self, now: Instant, ages: &mut Ages) -> Datagram {
        let Self { local, remote, stamp, bytes } = self;
        let age = stamp.map(|stamp| ages.age(now, SystemTime::UNIX_EPOCH + stamp)).unwrap_or_default();
        Datagram { local, remote, arrived: now.checked_sub(age).unwrap_or(now), bytes }
    }
}

/// Takes off a socket what has come, or as much as there is room for.
fn receive_at_once(
    ready: &mut AsyncFdReadyGuard<'_, UdpSocket>,
    local: SocketAddr,
    room: &mut [u8],
) -> io::Result<Vec<Stamped>> {
    let came = match receive_into(ready.get_inner(), local, room) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Vec::new(),
        came => came?,
    };
    // Where there was room left, nothing is left in the socket: it wakes us instead of being asked once more.
    if came.len() < AT_ONCE {
        ready.clear_ready();
    }
    // One without a sender is nobody's.
    Ok(came.into_iter().flatten().collect())
}

fn receive_into(socket: &UdpSocket, local: SocketAddr, room: &mut [u8]) -> io::Result<Vec<Option<Stamped>>> {
    let mut parts: Vec<_> = room.chunks_exact_mut(ROOM).map(|room| [IoSliceMut::new(room)]).collect();
    let mut headers = MultiHeaders::preallocate(parts.len(), Some(nix::cmsg_space!(TimeSpec)));
    let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut parts, MsgFlags::empty(), None)?;
    Ok(received.map(|message| stamped(local, &message)).collect())
}

fn stamped(local: SocketAddr, message: &RecvMsg<'_, '_, SockaddrStorage>) -> Option<Stamped> {
    let remote = message.address.as_ref().and_then(address)?;
    let stamp = message.cmsgs().ok()?.find_map(|message| match message {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
        _ => None,
    });
    Some(Stamped { local, remote, stamp, bytes: message.iovs().flatten().copied().collect() })
}

/// Sends the first of `transmits`, and says how many those were; an error is that of the very first one.
fn send_at_once(socket: &UdpSocket, transmits: &[Transmit]) -> io::Result<usize> {
    let parts: Vec<_> = transmits.iter().map(|transmit| [IoSlice::new(&transmit.bytes)]).collect();
    let to: Vec<_> = transmits.iter().map(|transmit| Some(SockaddrStorage::from(transmit.remote))).collect();
    let mut headers = MultiHeaders::preallocate(AT_ONCE, None);
    let none: [ControlMessage<'_>; 0] = [];
    Ok(sendmmsg(socket.as_raw_fd(), &mut headers, &parts, &to, none, MsgFlags::empty())?.count())
}

fn address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// Makes a socket one of IKE's. It wakes the loop for what comes, and not each time that something has left it.
fn prepare(socket: UdpSocket, local: SocketAddr, decapsulates: bool) -> io::Result<AsyncFd<UdpSocket>> {
    xfrm::bypass(&socket, Family::of(local.ip()))?;
    if decapsulates {
        xfrm::decapsulate(&socket)?;
    }
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER)?;
    hear(socket)
}

/// Nobody answers to where probes come from, and what comes all the same finds no room.
fn bind_prober(local: IpAddr) -> io::Result<Socket> {
    let socket = bind_udp(SocketAddr::new(local, 0))?;
    xfrm::bypass(&socket, Family::of(local))?;
    // One that is too large is to be refused at once: whether it arrives in parts says nothing.
    xfrm::never_fragment(&socket, Family::of(local))?;
    socket.set_recv_buffer_size(0)?;
    Ok(socket)
}

/// A UDP socket at `local`, which may be there before its address is.
pub(super) fn bind_udp(local: SocketAddr) -> io::Result<Socket> {
    let kind = Type::DGRAM.nonblocking();
    let socket = Socket::new(Domain::for_address(local), kind, Some(Protocol::UDP))?;
    if local.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    } else {
        socket.set_freebind_v4(true)?;
    }
    socket.bind(&local.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;

    use super::*;

    #[test]
    fn only_what_this_host_refuses_is_told() {
        let told = |errno: Errno| refusal(&io::Error::from_raw_os_error(errno as i32));
        for errno in [Errno::ENETUNREACH, Errno::EHOSTUNREACH, Errno::EACCES] {
            assert!(told(errno).is_some_and(|why| why.contains("ip route get")), "{errno}");
        }
        assert!(told(Errno::EPERM).is_some_and(|why| why.contains("firewall of this host")));
        for errno in [Errno::EAGAIN, Errno::ENOBUFS, Errno::ECONNREFUSED] {
            assert_eq!(told(errno), None, "{errno}");
        }
    }

    #[tokio::test]
    async fn a_datagram_has_arrived_when_the_kernel_got_it() {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let inbox = UdpSocket::from(bind_udp(local).unwrap());
        setsockopt(&inbox, sockopt::ReceiveTimestampns, &true).unwrap();
        let inbox = hear(inbox).unwrap();
        let outbox = UdpSocket::bind(local).unwrap();
        let mut room = vec![0; AT_ONCE * ROOM];
        // The kernel begins to stamp what arrives a moment after the first socket asks for it.
        for _ in 0..200 {
            outbox.send_to(b"early", inbox.get_ref().local_addr().unwrap()).unwrap();
            sleep(Duration::from_millis(30));
            let read = Instant::now();
            let mut ready = inbox.readable().await.unwrap();
            let datagram = receive_at_once(&mut ready, inbox.get_ref().local_addr().unwrap(), &mut room)
                .unwrap()
                .remove(0);
            let datagram = datagram.at(Instant::now(), &mut Ages::default());
            let from = outbox.local_addr().unwrap();
            assert_eq!((datagram.bytes.as_slice(), datagram.remote), (&b"early"[..], from));
            if datagram.arrived < read {
                return;
            }
        }
        panic!("no datagram came before it was read");
    }
}
