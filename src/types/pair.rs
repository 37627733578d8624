//! A pair: one own address and one address of another host, of one family.

use std::fmt;
use std::net::IpAddr;

/// One own address and one address of another host. The unit of keying: every pair has its own IKE SA,
/// its own keys, its own policies and its own row in `status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pair {
    /// The address of this host, as its interface has it.
    pub local: IpAddr,
    /// The address of the other host, as the file lists it.
    pub remote: IpAddr,
}

impl Pair {
    /// The pair of two addresses of the same family, `None` for addresses of different families.
    pub fn new(local: IpAddr, remote: IpAddr) -> Option<Self> {
        (local.is_ipv4() == remote.is_ipv4() && local != remote).then_some(Self { local, remote })
    }

    /// The same pair as the other host sees it.
    pub fn mirrored(&self) -> Self {
        Self { local: self.remote, remote: self.local }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} <-> {}", self.local, self.remote)
    }
}
