//! The holders of a UDP port of this host, from `/proc`.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A UDP socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listener {
    /// The address that it is bound to; unspecified for all.
    pub(super) address: IpAddr,
    /// Its port.
    pub(super) port: u16,
    /// What names it in `/proc/PID/fd`.
    inode: u64,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    /// Its name.
    pub(super) name: String,
    /// Its id.
    pub(super) pid: u32,
}

/// The UDP sockets of this thread's network namespace.
pub(super) fn udp_listeners() -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for table in ["udp", "udp6"] {
        match fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
            Ok(text) => listeners.extend(parse(&text)),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

impl Listener {
    /// Whether somebody else cannot bind the same port of one of `addresses`.
    pub(super) fn is_in_the_way(&self, port: u16, addresses: &[IpAddr]) -> bool {
        let same_family = addresses.iter().any(|address| address.is_ipv4() == self.address.is_ipv4());
        self.port == port
            && (addresses.contains(&self.address) || (self.address.is_unspecified() && same_family))
    }

    /// The process that holds it, where it can be seen.
    pub(super) fn holder(&self) -> Option<Holder> {
        let wanted = format!("socket:[{}]", self.inode);
        fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
            let pid: u32 = process.file_name().to_str()?.parse().ok()?;
            let holds = fs::read_dir(process.path().join("fd"))
                .ok()?
                .flatten()
                .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link.as_os_str() == wanted.as_str()));
            let name = || fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            holds.then(|| Holder { name: name().trim().to_owned(), pid })
        })
    }
}

/// The sockets of `/proc/net/udp` or `/proc/net/udp6`; lines that are none are left out.
fn parse(text: &str) -> Vec<Listener> {
    text.lines().skip(1).filter_map(parse_line).collect()
}

/// The second field is the local address and port, the tenth the inode (proc_pid_net(5)).
fn parse_line(line: &str) -> Option<Listener> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let inode = fields.nth(7)?.parse().ok()?;
    Some(Listener { address: parse_address(address)?, port: u16::from_str_radix(port, 16).ok()?, inode })
}

/// An address in groups of 32 bits, each in the byte order of the machine.
fn parse_address(text: &str) -> Option<IpAddr> {
    let group = |at: usize| {
        let digits = text.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(group(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&group(at)?);
            }
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
        \x20 262: 0100007F:01F4 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 17404 2 0 0\n\
        \x20 nonsense\n\
        \x20 263: 00000000:1194 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 17405 2 0 0\n";
    const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
        \x20 262: 000099FD000000000000000001000000:01F4 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0 0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn tables_are_read() {
        let found = parse(UDP);
        assert_eq!(
            found,
            [
                Listener { address: [127, 0, 0, 1].into(), port: 500, inode: 17404 },
                Listener { address: [0, 0, 0, 0].into(), port: 4500, inode: 17405 }
            ]
        );
        let found = parse(UDP6);
        assert_eq!(found, [Listener { address: "fd99::1".parse().unwrap(), port: 500, inode: 9 }]);
    }

    #[test]
    fn only_what_is_in_the_way() {
        let own: Vec<IpAddr> = vec!["10.0.0.1".parse().unwrap()];
        let listener = |address: &str, port| Listener { address: address.parse().unwrap(), port, inode: 0 };
        assert!(listener("10.0.0.1", 500).is_in_the_way(500, &own));
        assert!(listener("0.0.0.0", 500).is_in_the_way(500, &own));
        assert!(!listener("0.0.0.0", 501).is_in_the_way(500, &own));
        assert!(!listener("127.0.0.1", 500).is_in_the_way(500, &own));
        assert!(!listener("::", 500).is_in_the_way(500, &own));
    }

    #[test]
    fn a_socket_of_this_process_is_found() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let listeners = udp_listeners().unwrap();
        let found = listeners.iter().find(|one| (one.address, one.port) == (address.ip(), address.port()));
        assert_eq!(found.and_then(Listener::holder).map(|holder| holder.pid), Some(std::process::id()));
    }
}
