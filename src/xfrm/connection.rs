//! A netlink socket that asks: requests out, verdicts and reports in.
//!
//! The kernel works a request off inside the system call that sends it, and makes the next part of a dump
//! inside the one that fetches the part before. So the socket never blocks: an answer that is not there at
//! once does not come.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR};
use netlink_sys::protocols::NETLINK_XFRM;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{MsgFlags, MultiHeaders, NetlinkAddr, recvmmsg, setsockopt, sockopt};
use zeroize::{Zeroize, Zeroizing};

use super::batch::{Batch, Nothing};
use super::decode::{self, Ack};
use super::wire::{self, Malformed, Messages, NetlinkMessage};

/// The kernel makes parts of a dump of at most 32 KiB, and all else is shorter.
const INBOX: usize = 64 << 10;
/// An answer to a request that is no dump: the longest is an SA with its bitmap of replays, about 1 KiB.
const ANSWER: usize = 2 << 10;
/// Room for the answers to a whole batch, each of which takes some kilobytes in the kernel.
const RECEIVE_BUFFER: usize = 1 << 20;

/// How a dump ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dump {
    /// The kernel reached its end.
    Whole,
    /// Something was changed meanwhile, or a part was lost.
    Interrupted,
}

/// A socket, and what goes out and comes in through it.
pub(super) struct Connection {
    socket: Socket,
    port: u32,
    inbox: Inbox,
    /// What the next call of [`Connection::transact`] sends.
    pub(super) batch: Batch,
}

impl Connection {
    /// Opens a socket with its own port.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = prepare()?;
        let port = socket.bind_auto()?.port_number();
        Ok(Self { socket, port, inbox: Inbox::new(), batch: Batch::new(port, 1) })
    }

    /// The netlink port: the kernel names it in the notifications of what this socket changed.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Sends the batch, empties it and returns each message's verdict, in order; `None` is a yes.
    /// `reported` gets what the messages at these positions asked for. An error means that the verdicts
    /// are not known.
    pub(super) fn transact(
        &mut self,
        mut reported: impl FnMut(usize, NetlinkMessage<'_>),
    ) -> io::Result<Vec<Option<Ack>>> {
        let verdicts = self.exchange(&mut reported);
        self.batch.clear();
        self.inbox.zeroize();
        verdicts
    }

    fn exchange(
        &mut self,
        reported: &mut dyn FnMut(usize, NetlinkMessage<'_>),
    ) -> io::Result<Vec<Option<Ack>>> {
        let mut verdicts = vec![None; self.batch.len()];
        if verdicts.is_empty() {
            return Ok(verdicts);
        }
        self.batch.acknowledge_last();
        self.socket.send_to(self.batch.bytes(), &SocketAddr::new(0, 0), 0)?;
        loop {
            let answers = self.inbox.receive_answers(&self.socket)?;
            for message in answers.flat_map(Messages) {
                let message = message?;
                // What an earlier request left behind is nobody's any more.
                let Some(position) = self.batch.position(message.sequence) else { continue };
                if message.kind != wire::ERROR {
                    reported(position, message);
                    continue;
                }
                let verdict = decode::verdict(message)?;
                verdicts[position] = Some(verdict).filter(|verdict| verdict.errno != 0);
                if position + 1 == verdicts.len() {
                    return Ok(verdicts);
                }
            }
        }
    }

    /// Asks for all objects that requests of type `kind` report, and gives each report to `reported`.
    pub(super) fn dump(
        &mut self,
        kind: u16,
        mut reported: impl FnMut(NetlinkMessage<'_>) -> Result<(), Malformed>,
    ) -> io::Result<Dump> {
        let dump = self.fetch_dump(kind, &mut reported);
        self.batch.clear();
        self.inbox.zeroize();
        match dump {
            Ok(Dump::Whole) => Ok(Dump::Whole),
            // A dump that was not fetched to its end would keep the next one from starting.
            Ok(Dump::Interrupted) => self.reopen().map(|()| Dump::Interrupted),
            Err(error) => {
                self.reopen()?;
                match error.raw_os_error() {
                    Some(nix::libc::ENOBUFS | nix::libc::EAGAIN) => Ok(Dump::Interrupted),
                    _ => Err(error),
                }
            }
        }
    }

    fn fetch_dump(
        &mut self,
        kind: u16,
        reported: &mut dyn FnMut(NetlinkMessage<'_>) -> Result<(), Malformed>,
    ) -> io::Result<Dump> {
        self.batch.clear();
        self.batch.push(kind, NLM_F_DUMP, &Nothing, &[]);
        self.socket.send_to(self.batch.bytes(), &SocketAddr::new(0, 0), 0)?;
        loop {
            for message in Messages(self.inbox.receive(&self.socket)?) {
                let message = message?;
                if self.batch.position(message.sequence).is_none() {
                    continue;
                }
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    return Ok(Dump::Interrupted);
                }
                match message.kind {
                    wire::DONE => return Ok(Dump::Whole),
                    wire::ERROR => {
                        return Err(io::Error::from_raw_os_error(decode::verdict(message)?.errno));
                    }
                    _ => reported(message)?,
                }
            }
        }
    }

    /// A fresh socket in the place of the old one, with the same port.
    fn reopen(&mut self) -> io::Result<()> {
        // This closes the old socket: its port is free only then.
        self.socket = prepare()?;
        self.socket.bind(&SocketAddr::new(self.port, 0))
    }
}

/// A socket as it has to be, except for its port.
fn prepare() -> io::Result<Socket> {
    let socket = Socket::new(NETLINK_XFRM)?;
    // A refused request would come back whole, with its key (docs/kernel.md, fact 18).
    socket.set_cap_ack(true)?;
    socket.set_ext_ack(true)?;
    socket.set_non_blocking(true)?;
    enlarge_receive_buffer(&socket, RECEIVE_BUFFER)?;
    Ok(socket)
}

/// Asks for a receive buffer beyond the system's limit, or else up to it.
pub(super) fn enlarge_receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    setsockopt(socket, sockopt::RcvBufForce, &bytes)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &bytes))
        .map_err(io::Error::from)
}

/// A buffer for what the kernel sends: it may hold keys.
pub(super) struct Inbox {
    bytes: Zeroizing<Vec<u8>>,
    /// How much of it has been written to since it was zeroed.
    used: usize,
}

impl Inbox {
    /// An empty buffer.
    pub(super) fn new() -> Self {
        Self { bytes: Zeroizing::new(vec![0; INBOX]), used: 0 }
    }

    /// The next datagram from the kernel.
    pub(super) fn receive(&mut self, socket: &Socket) -> io::Result<&[u8]> {
        let length = loop {
            let mut space = self.bytes.as_mut_slice();
            match socket.recv_from(&mut space, nix::libc::MSG_TRUNC) {
                // Whoever else has the capability could write to this socket too.
                Ok((length, sender)) if sender.port_number() == 0 => break length,
                Ok((length, _)) => self.used = self.used.max(length.min(INBOX)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        };
        self.used = self.used.max(length.min(INBOX));
        self.bytes.get(..length).ok_or_else(|| Malformed { kind: 0 }.into())
    }

    /// The next datagrams from the kernel that are no part of a dump: a batch has an answer for each of its
    /// messages, and to fetch them one by one takes longer than to make them.
    fn receive_answers(&mut self, socket: &Socket) -> io::Result<impl Iterator<Item = &[u8]>> {
        let mut slots: Vec<_> =
            self.bytes.chunks_exact_mut(ANSWER).map(|slot| [IoSliceMut::new(slot)]).collect();
        let mut headers = MultiHeaders::<NetlinkAddr>::preallocate(slots.len(), None);
        let received = recvmmsg(socket.as_raw_fd(), &mut headers, &mut slots, MsgFlags::empty(), None)?;
        let mut whole = true;
        let mut lengths = Vec::new();
        for answer in received {
            whole &= !answer.flags.contains(MsgFlags::MSG_TRUNC);
            // Whoever else has the capability could write to this socket too.
            let from_kernel = answer.address.is_some_and(|sender| sender.pid() == 0);
            lengths.push(if from_kernel { answer.bytes } else { 0 });
        }
        self.used = self.used.max(lengths.len() * ANSWER);
        if !whole {
            return Err(Malformed { kind: 0 }.into());
        }
        Ok(self.bytes.chunks_exact(ANSWER).zip(lengths).filter_map(|(slot, length)| slot.get(..length)))
    }

    /// Zeroes what was received.
    pub(super) fn zeroize(&mut self) {
        self.bytes[..self.used].zeroize();
        self.used = 0;
    }
}
