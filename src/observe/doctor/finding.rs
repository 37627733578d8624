//! What was found out of a pair by asking: a plain value. `doctor` makes checks of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::Pair;

/// Whether something came through, each way; `None` where that was not found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BothWays {
    /// From this host to the other.
    pub out: Option<bool>,
    /// From the other host to this one.
    #[serde(rename = "in")]
    pub inward: Option<bool>,
}

impl BothWays {
    /// What is known to be closed, in words.
    pub fn closed(self) -> Option<&'static str> {
        match (self.out, self.inward) {
            (Some(false), Some(false)) => Some("in either direction"),
            (Some(false), _) => Some("from this host to the other"),
            (_, Some(false)) => Some("from the other host to this one"),
            _ => None,
        }
    }

    /// Whether it is known to be open each way.
    pub fn are_open(self) -> bool {
        (self.out, self.inward) == (Some(true), Some(true))
    }
}

/// What was found out of one pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairFinding {
    /// The address of this host.
    pub local: IpAddr,
    /// The address of the other.
    pub remote: IpAddr,
    /// How many microseconds an answer inside IKE took; `None` where there was none.
    #[serde(default)]
    pub round_trip_us: Option<u64>,
    /// The other host can be asked, and was: it has told before that it answers such questions.
    #[serde(default)]
    pub asked: bool,
    /// By how many seconds its clock is ahead of this host's.
    #[serde(default)]
    pub ahead_s: Option<i64>,
    /// What came through.
    #[serde(default)]
    pub ways: PathWays,
    /// Octets of the largest packet that gets through the SA, and whether it is the largest that this host lets out.
    #[serde(default)]
    pub size: Option<(u16, bool)>,
    /// No agent was asked: somebody listens there, and has said what came.
    #[serde(default)]
    pub listens: bool,
    /// The other host says that nobody has the port of IKE.
    #[serde(default)]
    pub refused: bool,
    /// Something that it has proven came inside IKE meanwhile.
    #[serde(default)]
    pub hears: bool,
    /// Datagrams come in its name, though nothing of them is proven.
    #[serde(default)]
    pub knocks: bool,
}

impl PairFinding {
    /// Nothing was found out of `pair`.
    pub fn of(pair: Pair) -> Self {
        Self {
            local: pair.local,
            remote: pair.remote,
            round_trip_us: None,
            asked: false,
            ahead_s: None,
            ways: PathWays::default(),
            size: None,
            listens: false,
            refused: false,
            hears: false,
            knocks: false,
        }
    }
}

/// What was sent, and whether it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PathWays {
    /// UDP to the port of IKE.
    #[serde(default)]
    pub ike: BothWays,
    /// UDP to the port of ESP in UDP.
    #[serde(default)]
    pub nat: BothWays,
    /// ESP as the SA in use sends it.
    #[serde(default)]
    pub esp: BothWays,
}
