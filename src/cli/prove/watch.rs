//! Watches the interfaces of this host for what passes between the two addresses of a pair, by packet sockets (packet(7)).
//!
//! What is not ESP is looked at one by one, by a thread of this program while the proof goes on. What is ESP the kernel
//! counts: those sockets are never read.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::filter::{self, SNAP, ShownPackets};
use super::wire::{ClearOnPurpose, WireSight, WireTally};
use crate::observe::pair_proof::WireCount;
use crate::types::{Nonce, Pair};
use crate::xfrm;

/// What may wait in the socket for what is not ESP, in octets as the kernel counts them.
const ROOM: usize = 16 << 20;
/// And in those that are never read: the least that the kernel gives.
const NO_ROOM: usize = 0;
/// How often what waits is taken off.
const PAUSE: Duration = Duration::from_millis(5);
/// So many packets are taken off before it is asked whether that was all. No more than that wait in the room.
const AT_ONCE: usize = 1 << 17;
/// So long it is waited for packets that left a moment ago.
const LAST: Duration = Duration::from_millis(20);

/// Sockets on all interfaces.
pub(super) struct WireWatch {
    clear: Socket,
    esp_out: Socket,
    esp_in: Socket,
    /// Dropped when that was all.
    stop: Sender<()>,
    taker: JoinHandle<WireTally>,
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
    pub(super) fn open(ground: &Arc<ClearOnPurpose>, pair: Pair, nat_port: u16) -> io::Result<Self> {
        let open = |shown, room| open(pair, nat_port, shown, room);
        let [esp_out, esp_in] = [open(ShownPackets::EspOut, NO_ROOM)?, open(ShownPackets::EspIn, NO_ROOM)?];
        let clear = open(ShownPackets::ButEsp, ROOM)?;
        let (source, mut tally) = (clear.try_clone()?, WireTally::new(ground.clone(), pair, nat_port));
        let (stop, stopped) = mpsc::channel();
        let taker = thread::spawn(move || {
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                each(&source, |passed| tally.note(&passed));
            }
            each(&source, |passed| tally.note(&passed));
            tally
        });
        Ok(Self { clear, esp_out, esp_in, stop, taker })
    }

    /// What has passed. `clear` is what both ends have sent on purpose; so many packets came through inbound SAs.
    ///
    /// # Errors
    /// The system does not say how much that was.
    pub(super) fn finish(self, clear: &[Nonce], inbound: u64) -> io::Result<WireCount> {
        thread::sleep(LAST);
        // What waits then can be taken off whole: nothing is added.
        self.clear.attach_filter(&filter::nothing())?;
        drop(self.stop);
        let tally =
            self.taker.join().map_err(|_| io::Error::other("the thread that takes it off has failed"))?;
        let [out, came, shown] =
            [&self.esp_out, &self.esp_in, &self.clear].map(|it| xfrm::packet_statistics(it.as_fd()));
        let ((esp_out, _), (esp_in, _), (_, missed)) = (out?, came?, shown?);
        let [esp_out, esp_in, missed] = [esp_out, esp_in, missed].map(u64::from);
        Ok(tally.count(clear, WireSight { esp_out, esp_in, missed, inbound }))
    }
}

fn open(pair: Pair, nat_port: u16, shown: ShownPackets, room: usize) -> io::Result<Socket> {
    // With this protocol a socket hears from all interfaces at once, also what leaves.
    let all = Protocol::from(i32::from((libc::ETH_P_ALL as u16).to_be()));
    let socket = Socket::new(Domain::PACKET, Type::DGRAM.nonblocking(), Some(all))?;
    socket.attach_filter(&filter::of(pair, nat_port, shown))?;
    setsockopt(&socket, sockopt::RcvBufForce, &room)?;
    // What came before the filter does not count.
    xfrm::packet_statistics(socket.as_fd())?;
    Ok(socket)
}

/// Takes off what waits.
fn each(socket: &Socket, mut take: impl FnMut(Passed<'_>)) {
    let mut bytes = [0; SNAP];
    for _ in 0..AT_ONCE {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let (length, outgoing) =
            match recvmsg::<LinkAddr>(socket.as_raw_fd(), &mut parts, None, MsgFlags::empty()) {
                Ok(message) => {
                    let kind = message.address.map(|address| address.pkttype());
                    (message.bytes, kind == Some(libc::PACKET_OUTGOING))
                }
                Err(Errno::EINTR | Errno::ENETDOWN) => continue,
                Err(_) => return,
            };
        take(Passed { outgoing, bytes: bytes.get(..length).unwrap_or_default() });
    }
}
