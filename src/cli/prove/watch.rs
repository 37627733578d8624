//! Watches the interfaces of this host for what passes between the two addresses of a pair, by packet sockets (packet(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::filter::{self, SNAP};
use super::wire::{ClearOnPurpose, WireTally};
use crate::observe::pair_proof::WireCount;
use crate::types::{Nonce, Pair};

/// What may wait in the socket for what is not ESP, in octets as the kernel counts them.
const ROOM: usize = 16 << 20;
/// And in the one that shows whether ESP is to be seen at all: what has no room there is of no interest.
const ROOM_OF_ESP: usize = 256 << 10;
/// So long it is waited for packets that left a moment ago.
const LAST: Duration = Duration::from_millis(20);

/// Two sockets on all interfaces.
pub(super) struct WireWatch {
    pair: Pair,
    nat_port: u16,
    /// What is not ESP.
    clear: Socket,
    /// Everything, as far as there is room.
    all: Socket,
}

/// A packet that has passed.
pub(super) struct Passed<'p> {
    /// It left this host.
    pub(super) outgoing: bool,
    /// Its first octets, from the IP header on.
    pub(super) bytes: &'p [u8],
}

impl WireWatch {
    /// Begins.
    ///
    /// # Errors
    /// The system refuses: this takes root.
    pub(super) fn open(pair: Pair, nat_port: u16) -> io::Result<Self> {
        let clear = open(&filter::but_esp(pair, nat_port), ROOM)?;
        let all = open(&filter::everything(pair), ROOM_OF_ESP)?;
        Ok(Self { pair, nat_port, clear, all })
    }

    /// What has passed. `clear` is what both ends have sent on purpose; so many packets came through inbound SAs.
    pub(super) fn finish(self, ground: &ClearOnPurpose, clear: &[Nonce], inbound: u64) -> WireCount {
        std::thread::sleep(LAST);
        let mut tally = WireTally::new(ground, self.pair, self.nat_port, clear);
        each(&self.all, |passed| tally.note_any(&passed));
        let missed = each(&self.clear, |passed| tally.note_clear(&passed));
        tally.count(missed, inbound)
    }
}

fn open(program: &[SockFilter], room: usize) -> io::Result<Socket> {
    // With this protocol a socket hears from all interfaces at once, also what leaves.
    let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), Some(all))?;
    socket.attach_filter(program)?;
    setsockopt(&socket, sockopt::RcvBufForce, &room)?;
    setsockopt(&socket, sockopt::RxqOvfl, &1)?;
    Ok(socket)
}

/// Takes all that waits; says how much had no room.
fn each(socket: &Socket, mut take: impl FnMut(Passed<'_>)) -> u64 {
    let mut missed = 0;
    let mut bytes = [0; SNAP];
    loop {
        let mut control = nix::cmsg_space!(u32);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let received =
            recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        let (length, outgoing) = match received {
            Ok(message) => {
                let counts = message.cmsgs().into_iter().flatten();
                let overflow = counts.filter_map(|it| match it {
                    ControlMessageOwned::RxqOvfl(count) => Some(u64::from(count)),
                    _ => None,
                });
                missed = overflow.max().unwrap_or(missed);
                let kind = message.address.map(|address| address.pkttype());
                (message.bytes, kind == Some(libc::PACKET_OUTGOING))
            }
            Err(Errno::EINTR | Errno::ENETDOWN) => continue,
            Err(_) => return missed,
        };
        take(Passed { outgoing, bytes: bytes.get(..length).unwrap_or_default() });
    }
}
