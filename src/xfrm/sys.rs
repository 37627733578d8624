//! What has no safe wrapper: socket options that no crate knows, such as one whose value is a structure of XFRM's,
//! and descriptors that come from outside.
#![expect(
    unsafe_code,
    reason = "neither std, socket2 nor nix set an option from bytes, get one of packet sockets, or own descriptors that \
              they are given"
)]

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// Sets a socket option to `value`.
pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: `socket` is open for as long as it is borrowed; `value` points to `length` bytes that can be
    // read, and the kernel copies them before the call returns.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How many packets have passed the filter of a packet socket since this was asked last, and how many of them had no room
/// in it (packet(7), PACKET_STATISTICS).
///
/// # Errors
/// What the system says.
pub fn packet_statistics(socket: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    let mut counted = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&counted) as libc::socklen_t;
    let value = (&raw mut counted).cast();
    // SAFETY: `socket` is open for as long as it is borrowed; `value` points to `length` octets that are this function's,
    // in which any octets are a value, and the kernel writes no more than that.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            value,
            &raw mut length,
        )
    };
    if result == 0 { Ok((counted.tp_packets, counted.tp_drops)) } else { Err(io::Error::last_os_error()) }
}

/// The most descriptors that one message carries (`SCM_MAX_FD`).
pub const DESCRIPTORS_MAX: usize = 253;

/// Takes a message off a Unix socket: how many octets it has, and the descriptors that came with it.
///
/// # Errors
/// What the system says; `InvalidData` for a message that was cut off.
pub fn receive_descriptors(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let mut descriptors = Vec::new();
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made these for this process, and nobody else in it knows of them.
            descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    if received.flags.intersects(MsgFlags::MSG_CTRUNC | MsgFlags::MSG_TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok((received.bytes, descriptors))
}

/// The descriptors that the service manager kept for this process and has handed over (sd_listen_fds(3)); none
/// after the first call.
pub fn inherited_descriptors() -> Vec<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let inherited = sd_notify::listen_fds().map(Vec::from_iter).unwrap_or_default();
    // SAFETY: they were open when this process began, as the environment says, and are claimed here, once.
    inherited.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).collect()
}
