//! Names that belong to the network namespace and to no directory: abstract Unix sockets (unix(7)). No file that
//! is lost, and no second run directory, hides who has one.
//!
//! Anybody may take such a name first. What counts is what the kernel says of the process that listens there
//! (`SO_PEERCRED`), and that only root's is one of ours.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use socket2::{Domain, SockAddr, Socket, Type};

/// The name of the agent: it has it and says nothing there.
pub(super) const AGENT: &str = "hostseal-agent";
/// The name of the process that keeps sockets for the next agent.
pub(super) const KEEPER: &str = "hostseal-keeper";

/// How long whoever listens may leave others waiting for a place in its queue.
const PATIENCE: Duration = Duration::from_secs(1);

/// The owner of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Nobody listens there.
    Nobody,
    /// A process of root or of the user who asks; its number is 0 where it is in another process namespace.
    Trusted(i32),
    /// A process of this other user.
    User(u32),
    /// Somebody who answers nobody.
    Unknown,
}

/// Takes a name, and listens there.
///
/// # Errors
/// `AddrInUse`: somebody has it.
pub(super) fn take(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Its owner.
pub(super) fn owner(name: &str) -> Owner {
    match connect(name) {
        Ok((_, owner)) => owner,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Owner::Nobody,
        Err(_) => Owner::Unknown,
    }
}

/// Connects to who listens there, if it is a process of ours.
///
/// # Errors
/// `ConnectionRefused`: none of ours does.
pub(super) fn connect_to_ours(name: &str) -> io::Result<UnixStream> {
    match connect(name)? {
        (stream, Owner::Trusted(_)) => Ok(stream),
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    }
}

fn connect(name: &str) -> io::Result<(UnixStream, Owner)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue would hold us for ever.
    socket.set_write_timeout(Some(PATIENCE))?;
    let address = SockAddr::unix(format!("\0{name}"))?;
    uninterrupted(|| socket.connect(&address))?;
    let stream = UnixStream::from(socket);
    let owner = peer(&stream)?;
    Ok((stream, owner))
}

/// Makes a call again that a signal broke off. A call on a socket with a time limit also ends so
/// where the process was stopped and goes on (signal(7)).
pub(super) fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The owner of the other end of a connection.
///
/// # Errors
/// The system does not tell.
pub(super) fn peer(stream: &UnixStream) -> io::Result<Owner> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    let trusted = [0, geteuid().as_raw()].contains(&peer.uid());
    Ok(if trusted { Owner::Trusted(peer.pid()) } else { Owner::User(peer.uid()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_had_once_and_freed_with_its_socket() {
        let name = format!("hostseal-test-{}", std::process::id());
        assert_eq!(owner(&name), Owner::Nobody);
        let first = take(&name).unwrap();
        assert_eq!(take(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(owner(&name), Owner::Trusted(std::process::id().cast_signed()));
        drop(first);
        assert_eq!(owner(&name), Owner::Nobody);
        take(&name).unwrap();
    }

    #[test]
    fn a_call_that_a_signal_broke_off_is_made_again() {
        let mut calls = 0;
        let third = uninterrupted(|| {
            calls += 1;
            if calls < 3 { Err(io::ErrorKind::Interrupted.into()) } else { Ok(calls) }
        });
        assert_eq!(third.unwrap(), 3);
        let other = uninterrupted(|| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        assert_eq!(other.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
