//! Where the exporter listens.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;

use socket2::{Domain, Socket};

use crate::cli::exit::CommandError;
use crate::config::ScrapeAddress;
use crate::xfrm;

/// A socket that listens.
pub(super) enum ScrapeSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// One at the place that somebody has `given`; else the sockets that the service manager has handed over; else one where
/// the configuration says, which is read in no other case.
pub(super) fn sockets(
    given: Option<ScrapeAddress>,
    configured: impl FnOnce() -> Result<ScrapeAddress, CommandError>,
) -> Result<Vec<ScrapeSocket>, CommandError> {
    let inherited = if given.is_none() { xfrm::inherited_descriptors() } else { Vec::new() };
    if !inherited.is_empty() {
        let sockets = inherited.into_iter().map(of_manager).collect::<io::Result<_>>();
        return sockets
            .map_err(|error| CommandError::io("taking the sockets of the service manager", &error));
    }
    let address = given.map_or_else(configured, Ok)?;
    let socket = bind(&address);
    Ok(vec![socket.map_err(|error| CommandError::io(format!("listening at {address}"), &error))?])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::Exit;

    #[test]
    fn a_broken_configuration_stops_only_whoever_needs_it() {
        let directory = tempfile::tempdir().unwrap();
        let broken = || Err(CommandError::new(Exit::Usage, "line 1"));
        let given = ScrapeAddress::Unix(directory.path().join("socket"));
        assert_eq!(sockets(Some(given), broken).unwrap().len(), 1);
        assert_eq!(sockets(None, broken).err().unwrap().exit, Exit::Usage);
    }
}
