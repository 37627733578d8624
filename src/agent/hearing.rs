//! Descriptors that the loop waits for.

use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Makes the runtime wait for `source` to become readable.
///
/// # Errors
/// The kernel cannot watch it.
#[expect(
    deprecated,
    reason = "its successor is unsafe: it asks for a descriptor that lives as long, and `T` owns it"
)]
pub(super) fn hear<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(source, Interest::READABLE)
}
