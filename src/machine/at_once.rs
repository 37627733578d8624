//! A socket for rtnetlink that never waits.
//!
//! The kernel answers a question about its network inside the system call that sends it, and makes the next part of a
//! list inside the one that fetches the part before. So an answer is there at once or never, and nobody has to wait:
//! rtnetlink needs no runtime, neither in a command nor in the agent.

use std::io::{self, ErrorKind};
use std::task::{Context, Poll};

use bytes::BufMut;
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr};

/// The socket.
pub(super) struct AtOnce(Socket);

/// The result if it is there now, else `Pending`.
fn now<T>(result: io::Result<T>) -> Poll<io::Result<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl AsyncSocket for AtOnce {
    fn socket_ref(&self) -> &Socket {
        &self.0
    }

    fn socket_mut(&mut self) -> &mut Socket {
        &mut self.0
    }

    fn new(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.set_non_blocking(true)?;
        socket.bind_auto()?;
        Ok(Self(socket))
    }

    fn poll_send(&self, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        now(self.0.send(bytes, 0))
    }

    fn poll_send_to(&self, _: &mut Context<'_>, bytes: &[u8], to: &SocketAddr) -> Poll<io::Result<usize>> {
        now(self.0.send_to(bytes, to, 0))
    }

    fn poll_recv<B: BufMut>(&self, _: &mut Context<'_>, buffer: &mut B) -> Poll<io::Result<()>> {
        now(self.0.recv(buffer, 0)).map_ok(drop)
    }

    fn poll_recv_from<B: BufMut>(&self, _: &mut Context<'_>, buffer: &mut B) -> Poll<io::Result<SocketAddr>> {
        now(self.0.recv_from(buffer, 0)).map_ok(|(_, from)| from)
    }

    fn poll_recv_from_full(&self, _: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        now(self.0.recv_from_full())
    }
}
