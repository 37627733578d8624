//! Takes connections off a listening socket, also where descriptors run out.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use tokio::net::{UnixListener, UnixStream};

use super::alarm::Alarm;
use crate::host::Seldom;

/// How long one that could not be taken waits for the next attempt: many may wait, and each takes the only place for a
/// moment.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket.
pub(super) struct Acceptor {
    listener: UnixListener,
    /// Given up for a connection when there are no other descriptors, so that `status` is answered even then.
    reserve: Option<OwnedFd>,
    pause: Alarm,
    failures: Seldom<()>,
}

impl Acceptor {
    /// For connections to `listener`.
    ///
    /// # Errors
    /// The system has no descriptors.
    pub(super) fn new(listener: net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let reserve = Some(listener.as_fd().try_clone_to_owned()?);
        Ok(Self { listener, reserve, pause: Alarm::new()?, failures: Seldom::default() })
    }

    /// The next connection.
    pub(super) async fn next(&mut self) -> UnixStream {
        self.refill();
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return stream,
                // What is given up is for the connection: taken again at once, it would be missing for ever.
                Err(error) if ran_out(&error) && self.reserve.take().is_some() => {}
                Err(error) => {
                    self.rest(&error).await;
                    self.refill();
                }
            }
        }
    }

    fn refill(&mut self) {
        if self.reserve.is_none() {
            self.reserve = self.listener.as_fd().try_clone_to_owned().ok();
        }
    }

    async fn rest(&mut self, error: &io::Error) {
        let now = Instant::now();
        if let Some(others) = self.failures.note(now, ()) {
            tracing::warn!(
                "cannot accept connections on the control socket: {error}; trying again ({others} more like it since the \
                 last)"
            );
        }
        if self.pause.set(now, Some(now + PAUSE)).is_ok() {
            self.pause.ring().await;
        }
    }
}

/// Whether there are no more descriptors for this process.
fn ran_out(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EMFILE as i32)
}
