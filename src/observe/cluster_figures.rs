//! The numbers of a cluster as one member knows them by itself: nobody is asked for them.

use serde::{Deserialize, Serialize};

use super::cluster::DesiredState;

/// How many nodes there are, by how they belong to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeCounts {
    /// They are members.
    pub joined: u64,
    /// They are listed and have not joined yet.
    pub not_joined: u64,
    /// They run other software.
    pub foreign: u64,
    /// They are no members until an admin decides.
    pub held_out: u64,
}

/// How many nodes are how far with new keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyCounts {
    /// They have not made them.
    pub due: u64,
    /// They have, and their keys from before are accepted as well.
    pub offered: u64,
    /// They have them, and no others count.
    pub current: u64,
}

/// How many entries and pages of members this host has not taken, by why. All grow from the start of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RefusedCounts {
    /// Entries: a signature does not hold.
    pub not_signed: u64,
    /// Entries that found another cluster.
    pub other_cluster: u64,
    /// Entries that nobody has signed whom this host knows.
    pub unknown_signer: u64,
    /// Entries that their signer may not say.
    pub not_entitled: u64,
    /// Entries that cannot be read.
    pub malformed: u64,
    /// Entries that are too long.
    pub too_long: u64,
    /// Entries whose signer has said that too often.
    pub too_many: u64,
    /// Entries that have no room.
    pub full: u64,
    /// Entries that were put off: their signer changes the same thing all the time.
    pub put_off: u64,
    /// Pages that are nothing this version knows.
    pub pages_unreadable: u64,
    /// Pages that came faster than a member may send them.
    pub pages_too_many: u64,
}

impl RefusedCounts {
    /// All, by what they are called.
    pub fn by_reason(&self) -> [(&'static str, u64); 11] {
        [
            ("not_signed", self.not_signed),
            ("other_cluster", self.other_cluster),
            ("unknown_signer", self.unknown_signer),
            ("not_entitled", self.not_entitled),
            ("malformed", self.malformed),
            ("too_long", self.too_long),
            ("too_many", self.too_many),
            ("full", self.full),
            ("put_off", self.put_off),
            ("pages_unreadable", self.pages_unreadable),
            ("pages_too_many", self.pages_too_many),
        ]
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.by_reason().into_iter().map(|(_, count)| count).fold(0, u64::saturating_add)
    }
}

/// What a member knows of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFigures {
    /// The hash of the entry that founded it.
    pub cluster_id: String,
    /// The hash of this host's roster.
    pub roster_id: String,
    /// How many entries that has.
    pub entries: u64,
    /// Whether the cluster is to be protected.
    pub desired: DesiredState,
    /// The operator of this host wants something else here.
    pub overridden: bool,
    /// Its nodes.
    pub nodes: NodeCounts,
    /// The members that this host talks to, and that did not answer when it told or asked them something last.
    pub unheard: u64,
    /// Those that it hears, and that have another roster.
    pub differing: u64,
    /// Those for which two machines speak.
    pub duplicates: u64,
    /// Orders that were given at the same time, and that an admin has to settle.
    pub conflicts: u64,
    /// How far its nodes are with new keys.
    pub keys: KeyCounts,
    /// Orders of this host's operator that wait, and one more while what is new in the roster is not written.
    pub pending: u64,
    /// What members have sent and this host has not taken.
    #[serde(default)]
    pub refused: RefusedCounts,
}
