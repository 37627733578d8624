//! The lab: hosts on a common wire, on a real kernel with ESP.
//!
//! Outside, [`place`] says where, [`root`] builds the file system and [`session`] runs a job there.
//! Inside, a [`Lab`] is what a test gets: hosts, each a namespace, their cables on one bridge.

pub mod agent;
pub mod agreement;
pub mod annex;
pub mod aws;
pub mod capture;
pub mod connection;
pub mod etcd;
pub mod exporter;
pub mod front;
pub mod host;
pub mod inside;
pub mod libreswan;
pub mod manual;
pub mod members;
mod mirror;
pub mod net;
pub mod packet;
pub mod peer;
pub mod picture;
pub mod place;
pub mod prometheus;
pub mod revision;
pub mod root;
pub mod session;
pub mod stream;
pub mod swan;
pub mod wait;

use std::path::Path;

use anyhow::Result;

pub use agent::{Cluster, Outcome};
pub use capture::{Capture, Report};
pub use connection::{Connection, PpkOfEnd, Proof};
pub use host::{End, FAMILIES, Family, Host, Process};
pub use net::{Toward, Wire};
pub use packet::{Direction, Kind, Packet};
pub use peer::{Implementation, Listed, Order, Peer};
pub use stream::{Count, Stream};
pub use swan::{Release, Swan};
pub use wait::until;

/// Where the binary under test lies inside the place.
pub const HOSTSEAL: &str = "/mnt/hostseal";

/// Where an older revision lies, if one was brought along.
pub const PREVIOUS: &str = "/mnt/hostseal-previous";

/// What a test gets.
pub struct Lab {
    hosts: Vec<Host>,
    wire: Wire,
}

impl Lab {
    /// Makes `count` hosts, named a, b, c, …, with cables to one bridge.
    ///
    /// # Errors
    /// When the kernel refuses; the lab needs root.
    pub fn new(count: usize) -> Result<Self> {
        let wire = Wire::new()?;
        let mut hosts = Vec::new();
        for number in 1..=u16::try_from(count)? {
            let host = Host::new(&name(number), number)?;
            wire.lay(&host)?;
            host.network_up()?;
            hosts.push(host);
        }
        Ok(Self { hosts, wire })
    }

    /// All hosts in order.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The hosts as an array, for a test that knows how many it asked for.
    ///
    /// # Panics
    /// When the number is another.
    pub fn all<const N: usize>(&self) -> [Host; N] {
        match self.hosts.clone().try_into() {
            Ok(hosts) => hosts,
            Err(hosts) => panic!("{} hosts were asked for and {N} are taken", hosts.len()),
        }
    }

    /// Cuts a host's power and starts it anew: with its files, an empty kernel, no process, and an interface
    /// that is down and has no addresses ([`Host::network_up`]). The old handle is of no use any more.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn reboot(&mut self, host: &Host) -> Result<Host> {
        self.wire.remove(host)?;
        let reborn = host.reborn()?;
        self.wire.lay(&reborn)?;
        for place in &mut self.hosts {
            if place.number() == reborn.number() {
                *place = reborn.clone();
            }
        }
        Ok(reborn)
    }

    /// The bridge and its cables.
    pub fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Starts a capture of what passes `host`'s cable.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn capture(&self, host: &Host) -> Result<Capture> {
        Capture::start(&self.wire, host)
    }

    /// Captures on all cables.
    ///
    /// # Errors
    /// When tcpdump does not start.
    pub fn capture_all(&self) -> Result<Vec<Capture>> {
        self.hosts.iter().map(|host| self.capture(host)).collect()
    }

    /// Whether the binary under test was brought along.
    pub fn has_hostseal() -> bool {
        Path::new(HOSTSEAL).exists()
    }
}

/// a … z, aa, ab, …: the name of host `number`, which counts from 1.
fn name(number: u16) -> String {
    let mut rest = number;
    let mut letters = Vec::new();
    while rest > 0 {
        rest -= 1;
        letters.push(b'a' + u8::try_from(rest % 26).unwrap_or_default());
        rest /= 26;
    }
    letters.iter().rev().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn hosts_are_named_like_columns() {
        let named = [1, 2, 26, 27, 52, 53, 702, 703].map(name);
        assert_eq!(named, ["a", "b", "z", "aa", "az", "ba", "zz", "aaa"]);
    }
}
