//! Where the exporter listens.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;

use socket2::{Domain, Socket};

use crate::config::ScrapeAddress;
use crate::xfrm;

/// A socket that listens.
pub(super) enum ScrapeSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The sockets that the service manager has handed over, unless somebody has `given` another place; else one at `address`.
pub(super) fn sockets(
    given: Option<&ScrapeAddress>,
    address: &ScrapeAddress,
) -> io::Result<Vec<ScrapeSocket>> {
    let inherited = if given.is_none() { xfrm::inherited_descriptors() } else { Vec::new() };
    let sockets: Vec<ScrapeSocket> = inherited.into_iter().map(of_manager).collect::<io::Result<_>>()?;
    if sockets.is_empty() { Ok(vec![bind(address)?]) } else { Ok(sockets) }
}

fn of_manager(descriptor: OwnedFd) -> io::Result<ScrapeSocket> {
    let socket = Socket::from(descriptor);
    socket.set_nonblocking(true)?;
    Ok(match socket.local_addr()?.domain() {
        Domain::UNIX => ScrapeSocket::Unix(OwnedFd::from(socket).into()),
        _ => ScrapeSocket::Tcp(socket.into()),
    })
}

fn bind(address: &ScrapeAddress) -> io::Result<ScrapeSocket> {
    match address {
        ScrapeAddress::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(ScrapeSocket::Tcp(listener))
        }
        ScrapeAddress::Unix(path) => {
            // One that an exporter before this one left, and nothing else.
            if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
                fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
            listener.set_nonblocking(true)?;
            Ok(ScrapeSocket::Unix(listener))
        }
    }
}
