//! What `hostseal status --cluster` says: the types of its JSON.
//!
//! Fields are added, never renamed or removed, within one [`SCHEMA`](super::status::SCHEMA).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::member_key::MemberKey;
use crate::types::{NodeName, Problem, Protection, Severity, UnixTime, Unready};

/// How a cluster stands, as one member sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The version of the JSON.
    pub schema: u32,
    /// What people call the cluster.
    pub cluster: String,
    /// The hash of the entry that founded it, in hexadecimal digits.
    pub cluster_id: String,
    /// The hash of the roster of the member that was asked.
    pub roster_id: String,
    /// The name of that member; `None` where it was removed.
    pub node: Option<NodeName>,
    /// Whether the cluster is to be protected.
    pub desired: DesiredState,
    /// Seconds until it goes back by itself, unless that is confirmed; `None` without a trial.
    pub try_ends_in_s: Option<u64>,
    /// Seconds until the member that was asked goes by the settings before these, unless they are confirmed; `None` where none
    /// are on trial there.
    #[serde(default)]
    pub settings_try_end_in_s: Option<u64>,
    /// All members that answer have the same roster, and there is no conflict.
    pub consistent: bool,
    /// How many of what there are.
    pub summary: ClusterSummary,
    /// What was said twice at once, and is to be settled by an admin.
    pub conflicts: Vec<ConflictRow>,
    /// What is wrong, with what to do.
    pub problems: Vec<Problem>,
    /// The nodes, by their names.
    pub nodes: Vec<MemberRow>,
}

/// What all members are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// To be protected.
    On,
    /// To be in the clear.
    Off,
    /// Nobody has said so yet.
    Unset,
}

/// How many of what there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterSummary {
    /// Nodes.
    pub nodes: usize,
    /// Those that answer, the one that was asked among them.
    pub answering: usize,
    /// Rows of all that answer: each pair has two.
    pub rows: u64,
    /// Those that are protected, at both ends where both answer. Each end names the hosts that it is not protected with up
    /// to a number; beyond that, what the other end says counts alone.
    pub protected: u64,
}

/// What [`ConflictRow::about`] says of settings.
pub const OF_SETTINGS: &str = "the settings";

/// Two entries that replace the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRow {
    /// What both are about.
    pub about: String,
    /// Who has signed the one that counts meanwhile.
    pub winner: String,
    /// Who has signed the other one.
    pub loser: String,
    /// The same in words, with the command that settles it.
    pub message: String,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// Its name.
    pub name: NodeName,
    /// Its addresses as others send to them.
    pub addresses: Vec<IpAddr>,
    /// It is an admin.
    pub admin: bool,
    /// It runs other software, and tells nothing of itself.
    pub foreign: bool,
    /// It answers the member that was asked, or is that member.
    pub answers: bool,
    /// When it was heard last; `None` where that is not known.
    pub last_heard: Option<UnixTime>,
    /// Its version.
    pub version: Option<String>,
    /// Whether it is protected.
    pub protection: Option<Protection>,
    /// What its operator wants there instead of what the cluster is to do; `None` where it follows the cluster.
    #[serde(rename = "override")]
    pub local: Option<Protection>,
    /// How many pairs it has.
    pub rows: Option<u64>,
    /// How many of them are protected, as it says.
    pub protected: Option<u64>,
    /// How many of them are not protected and may be soon, without anybody doing anything: neither has something failed
    /// that somebody must mend, nor do they wait for a host that is not there. `None` where that is not known.
    #[serde(default)]
    pub under_way: Option<u64>,
    /// How many of them wait for a host that is not there: never sealed, and no answer. `None` where that is not known.
    #[serde(default)]
    pub waiting: Option<u64>,
    /// The hash of its roster.
    pub roster_id: Option<String>,
    /// The hash of what it goes by; `None` where that is not known.
    #[serde(default)]
    pub config_id: Option<String>,
    /// The fingerprint of its secret, where it uses one.
    pub secret_id: Option<String>,
    /// How far it is with new keys; `None` where it has none that it could replace.
    #[serde(default)]
    pub keys: Option<KeyProgress>,
    /// How it stands with a wrapped secret of the cluster; `None` where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrapped: Option<MemberKey>,
    /// How far its clock is ahead of that of the member that was asked.
    pub clock_skew_s: Option<ClockSkew>,
    /// Why it could not be protected; `None` where it is or could be, or where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready: Option<String>,
    /// The same for programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unready_code: Option<Unready>,
    /// What is not as it should be, for programs.
    pub reason_code: Option<MemberTrouble>,
    /// The same in words.
    pub reason: Option<String>,
}

/// How far a node is with the new keys that `hostseal rotate` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyProgress {
    /// It has not made them, as far as is known.
    Due,
    /// It has, and all accept its keys from before as well.
    Offered,
    /// It has them, and no others count.
    Current,
}

/// How far a clock is ahead of another one, to the millisecond; in JSON it is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct ClockSkew {
    /// Milliseconds.
    pub ms: i64,
}

impl From<f64> for ClockSkew {
    fn from(seconds: f64) -> Self {
        // Text that says too much says as much as fits.
        Self { ms: (seconds * 1000.0).round() as i64 }
    }
}

impl From<ClockSkew> for f64 {
    fn from(skew: ClockSkew) -> Self {
        skew.ms as f64 / 1000.0
    }
}

/// What is not as it should be with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberTrouble {
    /// It does not answer.
    NoAnswer,
    /// Whoever has its keys is in another cluster.
    OtherCluster,
    /// It is listed, and has not joined yet.
    NotJoined,
    /// It is no member until an admin decides.
    HeldOut,
    /// Two machines speak for it.
    DuplicateNode,
    /// It sends entries that no sound member has.
    Forges,
    /// It has another roster.
    RosterDiffers,
    /// It does not do what the cluster is to do, as its operator wants something else.
    Overridden,
    /// Not all of its pairs are protected.
    NotProtected,
    /// It says that a pair is protected, and the other end says that it is not.
    PairDisagrees,
    /// It says itself that something is wrong.
    Problems,
    /// Another kind, which only a later version knows.
    #[serde(other)]
    Other,
}

impl ClusterStatus {
    /// Whether all is as it should be: `status --cluster` ends with 0.
    pub fn is_healthy(&self) -> bool {
        let critical = |problem: &Problem| problem.severity == Severity::Critical;
        self.consistent
            && self.nodes.iter().all(|node| node.reason_code.is_none())
            && !self.problems.iter().any(critical)
    }

    /// The names of the nodes that are so far with new keys.
    pub fn with_keys(&self, progress: KeyProgress) -> Vec<&NodeName> {
        let so_far = self.nodes.iter().filter(|node| node.keys == Some(progress));
        so_far.map(|node| &node.name).collect()
    }

    /// Whether the newest keys of all nodes are in use, and no others.
    pub fn has_current_keys(&self) -> bool {
        self.nodes.iter().filter_map(|node| node.keys).all(|keys| keys == KeyProgress::Current)
    }
}
