//! What comes of `hostseal init`, `hostseal join` and `hostseal leave --to-file`, which do without an agent.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::types::NodeName;

/// A cluster that was founded on this host.
#[derive(Serialize)]
pub struct NewCluster {
    /// What the cluster is called.
    pub cluster: String,
    /// What this host is called in it.
    pub node: NodeName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The recovery key: to be shown once, and to be kept offline. It is nowhere else.
    #[serde(rename = "recovery_key", serialize_with = "shown")]
    pub recovery: Zeroizing<String>,
    /// The nodes of its file, where it ran by one, that are to join now.
    pub to_join: Vec<NodeName>,
    /// Where that file is kept.
    pub former_file: Option<PathBuf>,
    /// The cluster is to be protected, as this host is.
    pub desired_on: bool,
}

/// A host that has joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NewMember {
    /// What the cluster is called.
    pub cluster: String,
    /// What this host is called in it.
    pub node: NodeName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// It is an admin.
    pub admin: bool,
    /// How many nodes the cluster has, this one among them.
    pub nodes: usize,
    /// The cluster is to be protected, and so is this host once its agent runs.
    pub desired_on: bool,
    /// The nodes that are still to join.
    pub to_join: Vec<NodeName>,
    /// Where the file is kept that this host ran by.
    pub former_file: Option<PathBuf>,
}

/// A host that was a member, and runs by a file again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FormerMember {
    /// What its cluster is called.
    pub cluster: String,
    /// What this host is called in it, and in the file.
    pub node: NodeName,
    /// Where its key lies now.
    pub key_file: PathBuf,
    /// Where its file as a member is kept, where it had one.
    pub former_file: Option<PathBuf>,
    /// It is protected, and goes on so.
    pub protected: bool,
}

/// Whoever asks for JSON gets it there.
fn shown<S: Serializer>(key: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key)
}
