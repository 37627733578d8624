//! A peer that is not hostseal: an IKE daemon on a host, whichever it is.

use std::fmt;

use anyhow::Result;

use super::connection::Connection;
use super::host::{Host, Process};
use super::libreswan::Libreswan;
use super::swan::{Release, Swan};

/// strongSwan by itself asks again after four seconds only.
const IMPATIENT: &[&str] = &["retransmit_timeout = 0.3", "retransmit_base = 1", "retransmit_tries = 60"];

/// Which daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// strongSwan of a release.
    Strongswan(Release),
    /// Libreswan.
    Libreswan,
}

/// What it is told to do with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// To bring it up, and to wait until it is.
    Initiate,
    /// To replace the SAs of the data.
    RekeyChild,
    /// To replace the IKE SA.
    RekeyIke,
    /// To delete the SAs of the data.
    DeleteChild,
    /// To delete the IKE SA, and all that it made.
    DeleteIke,
}

/// An IKE SA with its children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The connection's name.
    pub name: String,
    /// Its number: the first is 1, and every attempt has one.
    pub number: u32,
    /// Such as ESTABLISHED, in strongSwan's words.
    pub state: String,
    /// The states of its children, such as INSTALLED.
    pub children: Vec<String>,
}

/// A daemon. It ends when this goes.
pub trait Peer: Send + Sync {
    /// The host that it runs on.
    fn host(&self) -> &Host;

    /// The daemon's process.
    fn daemon(&mut self) -> &mut Process;

    /// Its name and version.
    ///
    /// # Errors
    /// When it does not say.
    fn version(&self) -> Result<String>;

    /// Replaces all connections and what they are proven with by these.
    ///
    /// # Errors
    /// When it refuses them.
    fn load(&self, connections: &[Connection]) -> Result<()>;

    /// Has it do something with the connection of this name. When this returns, a rekey may be under way still.
    ///
    /// # Errors
    /// When it refuses, or does not get it done, with what it says.
    fn order(&self, order: Order, name: &str) -> Result<()>;

    /// The IKE SAs that it has.
    ///
    /// # Errors
    /// When it does not say.
    fn list(&self) -> Result<Vec<Listed>>;

    /// Its log, or why it cannot be read.
    fn log(&self) -> String;
}

impl fmt::Display for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Strongswan(Release::Stable) => "strongSwan of Debian stable",
            Self::Strongswan(Release::Testing) => "strongSwan of Debian testing",
            Self::Libreswan => "Libreswan",
        })
    }
}

impl Implementation {
    /// Starts the daemon on a host.
    ///
    /// # Errors
    /// When it does not answer, with its log.
    pub fn start(self, host: &Host) -> Result<Box<dyn Peer>> {
        Ok(match self {
            Self::Strongswan(release) => Box::new(Swan::start_release(release, host, IMPATIENT)?),
            Self::Libreswan => Box::new(Libreswan::start(host)?),
        })
    }
}
