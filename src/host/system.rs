//! What a host asks of its system, as values: real in the agent, simulated in tests.
//!
//! These answer at once, because what comes next depends on the answer: an SA goes in only when the one before it is
//! there, and `enable` fails where a socket cannot be bound. What takes time comes back as an input.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::kernel::Kernel;
use super::ports::{ProofPort, Sockets};
use super::setup::Setup;
use crate::types::{Family, Pair, Problem, SaId, SaReading, UnixTime, Unready};

/// A moment, by the three clocks that count.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the clock that nobody sets.
    pub now: Instant,
    /// The time of day.
    pub wall: UnixTime,
    /// Since the system was started, its sleep included.
    pub uptime: Duration,
}

impl Moment {
    /// The time of day at `now`, some time after this moment.
    pub(super) fn wall_at(&self, now: Instant) -> UnixTime {
        self.wall.after(now.saturating_duration_since(self.now))
    }

    /// How long the system had been up at `now`, some time after this moment.
    pub(super) fn uptime_at(&self, now: Instant) -> Duration {
        self.uptime + now.saturating_duration_since(self.now)
    }
}

/// The addresses of this host, and those that packets can leave from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    /// All unicast addresses that it has, up or not.
    pub own: BTreeSet<IpAddr>,
    /// The addresses whose interface is up.
    pub present: BTreeSet<IpAddr>,
}

/// What happened in the kernel's tables.
#[derive(Debug, Clone, Copy)]
pub enum KernelEvent {
    /// An SA of ours is gone; these are its last figures.
    SaEnded {
        /// What it had counted.
        reading: SaReading,
        /// Whether this agent removed it.
        by_us: bool,
    },
    /// An SA of ours has reached a soft limit: the kernel asks for another.
    SaDying(SaReading),
    /// Authentic ESP came in UDP from elsewhere than its inbound SA of ours says.
    SaMapped {
        /// The SA.
        id: SaId,
        /// From where it came.
        remote: SocketAddr,
    },
    /// A packet has met a policy of ours, and there is no SA for it to leave through.
    SaWanted(Pair),
    /// More happened than the kernel could tell.
    Overrun,
    /// Something else changed: this agent did it, or another.
    Changed {
        /// Whether this agent did it.
        by_us: bool,
    },
}

/// What `status` says of the system beside the kernel's tables.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The agent's process.
    pub pid: u32,
    /// The kernel's counters of what it dropped.
    pub statistics: BTreeMap<String, u64>,
    /// What is wrong with this system, for a host that is protected.
    pub problems: Vec<Problem>,
}

/// What a host needs of its system.
pub trait System: Kernel + Sockets + ProofPort {
    /// What happened in the kernel's tables, oldest first.
    fn poll_event(&mut self) -> Option<KernelEvent>;

    /// Removes all of ours from the kernel's tables.
    ///
    /// # Errors
    /// In words; some of it may be left.
    fn sweep(&mut self) -> Result<(), String>;

    /// Whether the kernel can encrypt what has addresses of `family` as hostseal does it. Nothing comes of the question.
    ///
    /// # Errors
    /// Why not.
    fn try_esp(&mut self, family: Family) -> Result<(), Unready>;

    /// The addresses of this host now.
    ///
    /// # Errors
    /// The system does not list them.
    fn here(&mut self) -> io::Result<Here>;

    /// What lets packets of these pairs past the kernel's policies.
    fn holes(&mut self, pairs: &[Pair]) -> Vec<Problem>;

    /// What `status` says beside that.
    ///
    /// # Errors
    /// The system does not tell.
    fn facts(&mut self, setup: &Setup) -> io::Result<Facts>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A trial's end is counted from it, after a write that may take seconds.
    #[test]
    fn what_is_told_of_a_moment_goes_on() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let moment = Moment { now, wall: UnixTime(1_000), uptime: 60 * second };
        let later = now + 20 * second;
        assert_eq!((moment.wall_at(later), moment.uptime_at(later)), (UnixTime(1_020), 80 * second));
    }
}
