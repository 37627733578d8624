//! What changes in the kernel's tables, as it happens.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_packet_xfrm::{
    XFRM_MSG_ACQUIRE, XFRM_MSG_DELSA, XFRM_MSG_EXPIRE, XFRM_MSG_FLUSHPOLICY, XFRM_MSG_FLUSHSA,
    XFRM_MSG_MAPPING, XFRM_MSG_NEWSA, XFRM_MSG_UPDSA, XFRM_USER_SA_ID_LEN, XFRM_USER_SA_INFO_LEN, XFRMA_SA,
};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_XFRM;
use socket2::{SockFilter, SockRef};

use super::connection::{Inbox, enlarge_receive_buffer};
use super::decode::{self, acquire};
use super::wire::{Malformed, Messages, NetlinkMessage};
use crate::types::{Pair, SaId, SaReading, ours};

/// The groups EXPIRE, SA, POLICY and MAPPING (bit `XFRMNLGRP_* - 1`).
const GROUPS: u32 = 2 | 4 | 8 | 0x80;
/// `XFRMNLGRP_ACQUIRE`.
const ACQUIRES: u32 = 1;
/// Some thousands of notifications: a flush of 10,000 SAs sends one, but a stranger may delete as many.
const RECEIVE_BUFFER: usize = 8 << 20;
/// `struct xfrm_user_expire`: the SA, and whether it is gone.
const EXPIRE: usize = XFRM_USER_SA_INFO_LEN + 8;

/// Something happened. Strangers' SAs are left out; their policies are not, as one may be in our way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notification {
    /// An SA of ours was deleted.
    SaDeleted {
        /// Its final counters.
        reading: SaReading,
        /// The netlink port of whoever deleted it, 0 for one who did not say.
        port: u32,
    },
    /// An SA of ours reached a limit.
    SaExpired {
        /// Its counters, final if `hard`. The kernel does not tell the size of the key: `key_bits` is 0.
        reading: SaReading,
        /// Whether the kernel deleted it. If not, it asks for another.
        hard: bool,
    },
    /// Authentic ESP came in UDP from elsewhere than its inbound SA of ours says.
    SaMapped {
        /// The SA.
        id: SaId,
        /// From where it came.
        remote: SocketAddr,
    },
    /// A packet has met a policy of ours, and there is no SA for it to leave through. The kernel asks once for each
    /// pair in `xfrm_acq_expires` seconds (30), however many packets there are.
    SaWanted {
        /// Between which addresses.
        pair: Pair,
    },
    /// Anything else that concerns our SAs, or any policy: look again.
    Changed {
        /// The netlink port of whoever did it, 0 for the kernel itself and for one who did not say (as
        /// `ip` does not).
        port: u32,
    },
    /// All SAs or all policies were removed at once: their final counters are lost.
    Flushed {
        /// The netlink port of whoever did it, 0 for one who did not say.
        port: u32,
    },
    /// Notifications were lost: look again.
    Overrun,
}

/// A socket that hears of every change in the network namespace in which it was opened. Open it before
/// the first look at the tables, so that nothing falls between (docs/kernel.md, fact 15).
pub struct Monitor {
    socket: Socket,
    inbox: Inbox,
    pending: VecDeque<Notification>,
}

impl Monitor {
    /// Subscribes. Needs `CAP_NET_ADMIN`.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_XFRM)?;
        enlarge_receive_buffer(&socket, RECEIVE_BUFFER)?;
        socket.set_non_blocking(true)?;
        socket.bind(&netlink_sys::SocketAddr::new(0, GROUPS))?;
        Ok(Self { socket, inbox: Inbox::new(), pending: VecDeque::new() })
    }

    /// The same, but silent about what the netlink port `own` changes, except for the ends of SAs, which
    /// bring their last counters: whoever makes changes knows of them, and need not be woken up by each.
    pub fn open_beside(own: u32) -> io::Result<Self> {
        let monitor = Self::open()?;
        SockRef::from(&monitor).attach_filter(&all_but_changes_of(own))?;
        Ok(monitor)
    }

    /// Hears of packets that find no SA, too ([`Notification::SaWanted`]).
    ///
    /// For agreeing keys on demand, which this version does not, so its agent does not ask for it: as soon as anybody
    /// listens, the kernel makes a larval SA for a packet that finds none, by whosever policy. Where that policy names an
    /// SPI, the larval SA has it, and whoever adds the SA itself gets EEXIST for half a minute (docs/kernel.md, fact 31).
    ///
    /// # Errors
    /// The kernel refused.
    pub fn hear_acquires(&mut self) -> io::Result<()> {
        self.socket.add_membership(ACQUIRES)
    }

    /// The next notification, `None` when there is none yet: then wait until the socket is readable.
    #[expect(clippy::should_implement_trait, reason = "an iterator would be taken to have an end")]
    pub fn next(&mut self) -> Option<Notification> {
        loop {
            if let Some(notification) = self.pending.pop_front() {
                return Some(notification);
            }
            match self.inbox.receive(&self.socket) {
                Ok(datagram) => self.pending.extend(Messages(datagram).filter_map(notification)),
                Err(error) => {
                    // Notifications of SAs carry their keys (docs/kernel.md, fact 16).
                    self.inbox.zeroize();
                    return match error.kind() {
                        io::ErrorKind::WouldBlock => None,
                        // ENOBUFS is how the kernel tells that it had to drop some (fact 17).
                        _ => Some(Notification::Overrun),
                    };
                }
            }
        }
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Drops notifications about what `own` did, except for DELSA, and ACQUIREs of strangers' policies: anybody who can
/// send packets may cause any number of those. A filter loads fields in network byte order, and netlink has them in
/// the machine's.
fn all_but_changes_of(own: u32) -> [SockFilter; 11] {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const PORT_AT: u32 = 12;
    const KIND_AT: u32 = 4;
    const INDEX_AT: u32 = (16 + acquire::INDEX) as u32;
    let (mask, mark) = ours::INDEX_MARK;
    [
        SockFilter::new(LOAD_HALF, 0, 0, KIND_AT),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, XFRM_MSG_ACQUIRE.to_be().into()),
        SockFilter::new(LOAD_WORD, 0, 0, INDEX_AT),
        SockFilter::new(AND, 0, 0, mask.to_be()),
        SockFilter::new(JUMP_IF_EQUAL, 5, 4, mark.to_be()),
        SockFilter::new(LOAD_WORD, 0, 0, PORT_AT),
        SockFilter::new(JUMP_IF_EQUAL, 0, 3, own.to_be()),
        SockFilter::new(LOAD_HALF, 0, 0, KIND_AT),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, XFRM_MSG_DELSA.to_be().into()),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}

/// What a message tells; `None` for what concerns strangers' SAs alone.
pub(super) fn notification(message: Result<NetlinkMessage<'_>, Malformed>) -> Option<Notification> {
    // What cannot be read may have been about anything.
    message.and_then(read).unwrap_or(Some(Notification::Overrun))
}

fn read(message: NetlinkMessage<'_>) -> Result<Option<Notification>, Malformed> {
    let port = message.port;
    Ok(match message.kind {
        XFRM_MSG_NEWSA | XFRM_MSG_UPDSA => decode::sa(message)?.map(|_| Notification::Changed { port }),
        XFRM_MSG_DELSA => {
            let (_, attributes) = message.split(XFRM_USER_SA_ID_LEN)?;
            let info = attributes.get(XFRMA_SA).ok_or(message.malformed())?;
            let reading = decode::sa_of(info, attributes).ok_or(message.malformed())?;
            // A larval SA has no cipher, and never had a packet.
            reading.filter(|sa| sa.key_bits != 0).map(|reading| Notification::SaDeleted { reading, port })
        }
        XFRM_MSG_EXPIRE => {
            let (expire, attributes) = message.split(EXPIRE)?;
            let hard = expire[XFRM_USER_SA_INFO_LEN] != 0;
            // It stood for one that the kernel wished for, and has nothing to say of the SA whose SPI it may have.
            if decode::is_larval(expire).ok_or(message.malformed())? {
                return Ok(None);
            }
            let reading = decode::sa_of(expire, attributes).ok_or(message.malformed())?;
            reading.map(|reading| Notification::SaExpired { reading, hard })
        }
        XFRM_MSG_MAPPING => {
            decode::mapping(message)?.map(|(id, remote)| Notification::SaMapped { id, remote })
        }
        XFRM_MSG_FLUSHSA | XFRM_MSG_FLUSHPOLICY => Some(Notification::Flushed { port }),
        XFRM_MSG_ACQUIRE => decode::acquire(message)?.map(|pair| Notification::SaWanted { pair }),
        _ => Some(Notification::Changed { port }),
    })
}
