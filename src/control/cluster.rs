//! What the command line asks of a member about its cluster, and what that answers.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::doctor::NodeChecks;
use super::member_proof::{MemberProofReply, MemberProofRequest};
use crate::observe::MemberPlan;
use crate::observe::cluster::ClusterStatus;
use crate::observe::member_pairs::ClusterPairs;
use crate::types::{NodeName, UnixTime};

/// What the command line asks of a member about its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterRequest {
    /// How does the cluster stand? The member asks the others first. Answered by [`ClusterReply::Status`].
    Status,
    /// The cluster is to be protected. Answered by [`ClusterReply::Done`] once that is signed and written.
    Enable {
        /// It goes back by itself after so many seconds, unless that is confirmed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        try_s: Option<u64>,
    },
    /// What is on trial is to stay. Likewise.
    Confirm,
    /// The cluster is to be in the clear. Likewise.
    Disable,
    /// All nodes are to have new keys. Likewise.
    Rotate,
    /// Somebody is to be invited. Answered by [`ClusterReply::Token`].
    CreateToken(TokenOrder),
    /// A node that runs other software is to be listed. Answered by [`ClusterReply::Done`].
    Add(AddOrder),
    /// A node is to have other addresses. Likewise.
    Move(MoveOrder),
    /// A node is to be out for good. Likewise.
    Remove {
        /// Its name.
        node: NodeName,
        /// An address of it, where several have that name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        /// Its keys may be in other hands: it is told nothing, and its addresses are blocked.
        compromised: bool,
    },
    /// This node is to be out for good. Likewise.
    Leave,
    /// A node is to be an admin, or none any more. Likewise.
    Admin {
        /// Its name.
        node: NodeName,
        /// Whether it is to be one.
        admin: bool,
    },
    /// What are the settings of the cluster? Answered by [`ClusterReply::Settings`].
    Settings,
    /// These are to be the settings of the cluster. Answered by [`ClusterReply::Done`].
    SetSettings(SettingsOrder),
    /// What would these settings change on each node? Answered by [`ClusterReply::Plans`].
    Preview(String),
    /// What do the checks of each node find? Answered by [`ClusterReply::Checks`].
    Checks,
    /// The other nodes are to prove pairs of theirs. Answered by [`ClusterReply::Proofs`].
    Proofs(MemberProofRequest),
    /// How do the pairs of all nodes stand? Answered by [`ClusterReply::Pairs`], which may be some seconds old.
    Pairs,
    /// Which addresses move between nodes? Answered by [`ClusterReply::Floating`].
    Floating,
    /// These addresses are to move between these nodes. Answered by [`ClusterReply::Done`].
    SetFloating(FloatingOrder),
    /// The floating addresses of this name are to be no more. Likewise.
    RemoveFloating(NodeName),
    /// The same, also where the member has heard no other one since its start.
    Alone(Box<ClusterRequest>),
    /// [`ClusterRequest::Remove`] or [`ClusterRequest::Admin`], signed with the cluster's recovery key instead of this
    /// node's.
    Recovered {
        /// That key, as `hostseal init` has printed it.
        key: SecretLine,
        /// What it signs.
        order: Box<ClusterRequest>,
    },
}

/// Settings that a cluster is to have.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SettingsOrder {
    /// They, as TOML.
    pub toml: String,
    /// They go back by themselves after so many seconds, unless [`ClusterRequest::Confirm`] comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub try_s: Option<u64>,
    /// The entry from which they were made, as [`ClusterReply::Settings`] names it: if there is a newer one by now, they are
    /// refused. `None` if they are good whatever there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// They may hold a wrapped secret that the cluster has not been offered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub other_secret: bool,
}

impl SettingsOrder {
    /// These for good, whatever there is.
    pub fn of(toml: impl Into<String>) -> Self {
        Self { toml: toml.into(), ..Self::default() }
    }
}

/// Whom a token invites.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenOrder {
    /// The name that the node gets; `None` where it says it itself. That of a node without keys is taken over by it.
    pub node: Option<NodeName>,
    /// It will be an admin.
    pub admin: bool,
    /// For how many seconds the token is good.
    pub ttl_s: u64,
    /// The networks in which its addresses lie, such as `10.0.0.0/16`; none where any do.
    pub within: Vec<String>,
}

/// A node that runs other software.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddOrder {
    /// Its name.
    pub node: NodeName,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its public key, as `hostseal key show` prints one.
    pub public_key: String,
}

/// A node that is to have other addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveOrder {
    /// Its name.
    pub node: NodeName,
    /// All addresses that it has from then on.
    pub addresses: Vec<IpAddr>,
}

/// Addresses that are to move between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingOrder {
    /// What people call them.
    pub name: NodeName,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The nodes that may have them.
    pub nodes: Vec<NodeName>,
}

/// Addresses that move between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingRow {
    /// What people call them.
    pub name: NodeName,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// The nodes that may have them.
    pub nodes: Vec<NodeName>,
}

impl FloatingRow {
    /// The addresses and the nodes, for people.
    pub fn in_words(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let nodes: Vec<&str> = self.nodes.iter().map(NodeName::as_str).collect();
        format!("{} at {}", addresses.join(", "), nodes.join(", "))
    }
}

/// What would change on a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    /// Its name.
    pub node: NodeName,
    /// What it says itself; `None` where it has not answered.
    pub plan: Option<MemberPlan>,
}

/// What a member answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterReply {
    /// It is signed, and on its way to the others.
    Done {
        /// What follows from it, one sentence each: who was not reached, for example.
        notes: Vec<String>,
    },
    /// Whoever has this may join.
    Token {
        /// What `hostseal join` takes.
        token: SecretLine,
        /// The last second in which it is good.
        expires: UnixTime,
    },
    /// How the cluster stands.
    Status(Box<ClusterStatus>),
    /// The settings.
    Settings {
        /// As TOML.
        toml: String,
        /// They go back by themselves, unless [`ClusterRequest::Confirm`] comes.
        #[serde(default)]
        on_trial: bool,
        /// The entry that says so; empty while none does.
        #[serde(default)]
        entry: String,
    },
    /// What would change on each node, by their names.
    Plans(Vec<NodePlan>),
    /// What the checks of the other nodes find, of those that have answered.
    Checks(Vec<NodeChecks>),
    /// What came of proofs by other nodes.
    Proofs(MemberProofReply),
    /// How the pairs of all nodes stand.
    Pairs(Box<ClusterPairs>),
    /// Addresses that move between nodes, by their names.
    Floating(Vec<FloatingRow>),
}

/// A token or the recovery key as a line of text. It does not print: whoever has it can join, or decide who is in.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretLine(pub String);

impl fmt::Debug for SecretLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretLine(..)")
    }
}
