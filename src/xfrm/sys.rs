//! The one system call that has no safe wrapper: a socket option whose value is a structure of XFRM's.
#![expect(unsafe_code, reason = "neither std, socket2 nor nix set an option from bytes")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

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
