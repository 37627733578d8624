//! What an agent has counted of its work since it started: plain numbers, each of a closed set and there from the start.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often something was tried, by how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Outcomes {
    /// It was done.
    pub done: u64,
    /// It came to nothing.
    pub failed: u64,
}

/// Replacements of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Rekeys {
    /// Of children: the SAs that carry traffic.
    pub child: Outcomes,
    /// Of IKE SAs.
    pub ike: Outcomes,
}

/// Why keys could not be agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct IkeFailures {
    /// The peer did not answer.
    pub no_answer: u64,
    /// One end did not take the other's proof.
    pub auth_failed: u64,
    /// The ends had nothing in common.
    pub no_proposal: u64,
    /// The peer refused for another reason.
    pub peer_refused: u64,
    /// Something failed on this host.
    pub internal: u64,
}

/// What IKE dropped or refused to take in. Each bound has its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DroppedDatagrams {
    /// Datagrams that are no IKE messages.
    pub malformed: u64,
    /// Datagrams for an IKE SA that does not exist.
    pub unknown_spi: u64,
    /// Datagrams whose integrity check failed.
    pub not_authentic: u64,
    /// Datagrams that do not fit the state of their IKE SA: replays, strays.
    pub unexpected: u64,
    /// Fragments that fit no message, or made one too large.
    pub fragments: u64,
    /// First requests that had waited for too long in a flood.
    pub first_requests: u64,
    /// Sessions whose initiator had not proven itself, given up because there were too many.
    pub half_open: u64,
    /// Sessions with a proven peer, given up because it had too many.
    pub sessions: u64,
    /// Answers to our first messages, beyond those that are followed up.
    pub answers: u64,
    /// Successors of IKE SAs, beyond those that a session may have.
    pub ike_sas: u64,
    /// Children, beyond those that a session may have.
    pub children: u64,
    /// Joiners, beyond those that are let in at a time.
    pub joiners: u64,
    /// Datagrams to be sent, beyond those that may wait.
    pub transmits: u64,
}

/// What somebody else changed in the kernel, and the agent put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Repairs {
    /// SAs.
    pub sas: u64,
    /// Policies.
    pub policies: u64,
}

/// How long things took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Durations {
    /// How many took no longer than each of [`Durations::BOUNDS`], and longer than the one before.
    within: [u64; Durations::BOUNDS.len()],
    /// All of them.
    count: u64,
    /// How long all of them took together.
    total: Duration,
}

impl Durations {
    /// Up to which lengths they are told apart, in milliseconds.
    pub const BOUNDS: [u64; 12] = [5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000];

    /// One took so long.
    pub fn note(&mut self, took: Duration) {
        let within = Self::BOUNDS.iter().position(|bound| took <= Duration::from_millis(*bound));
        within.into_iter().for_each(|at| self.within[at] += 1);
        self.count += 1;
        self.total = self.total.saturating_add(took);
    }

    /// How many took no longer than each bound, in milliseconds: those of the bounds before are among them.
    pub fn up_to(&self) -> impl Iterator<Item = (u64, u64)> {
        let sum = |sum: &mut u64, more: &u64| {
            *sum += more;
            Some(*sum)
        };
        Self::BOUNDS.into_iter().zip(self.within.iter().scan(0, sum).collect::<Vec<_>>())
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How long all of them took together.
    pub fn total(&self) -> Duration {
        self.total
    }
}

/// All of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentTally {
    /// Replacements of keys.
    pub rekeys: Rekeys,
    /// Handshakes, begun by either end.
    pub handshakes: Outcomes,
    /// How long those took that were done, from the first message to the proof of the peer.
    pub handshake_durations: Durations,
    /// Why keys could not be agreed.
    pub ike_failures: IkeFailures,
    /// First messages between addresses that are no pair.
    pub unknown_initiators: u64,
    /// Sessions whose initiator has not proven itself, now.
    pub half_open: u64,
    /// Initiators that had to show that they receive at their address.
    pub cookies: u64,
    /// What was dropped.
    pub dropped: DroppedDatagrams,
    /// What was repaired.
    pub repairs: Repairs,
    /// How often the kernel had more to tell than fitted.
    pub overruns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_has_all_that_are_shorter() {
        let mut durations = Durations::default();
        for millis in [1, 5, 6, 700, 60_000] {
            durations.note(Duration::from_millis(millis));
        }
        let up_to: Vec<(u64, u64)> = durations.up_to().collect();
        assert_eq!(up_to[..3], [(5, 2), (10, 3), (25, 3)]);
        assert_eq!(up_to[6..], [(500, 3), (1000, 4), (2500, 4), (5000, 4), (10_000, 4), (20_000, 4)]);
        assert_eq!((durations.count(), durations.total()), (5, Duration::from_millis(60_712)));
    }
}
