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
    /// Orders of this host's operator that are not carried out yet.
    pub pending: u64,
}
