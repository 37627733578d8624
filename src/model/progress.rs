//! What a command that follows the agent is told: how far it has come, and which rows changed. Ten thousand
//! rows with all that a status says of them would be too much to send at each change.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::status::{Protection, RowState, Summary};
use super::{NodeName, Pair};

/// How far the agent has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Counts the changes of this agent; at least 1.
    pub revision: u64,
    /// What the operator wants, and how far that has come.
    pub protection: Protection,
    /// How many rows are in which state.
    pub summary: Summary,
    /// The rows that changed after the revision that was asked about.
    pub rows: Vec<RowProgress>,
}

/// How one pair stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowProgress {
    /// The name of the other host.
    pub node: NodeName,
    /// The address of this host.
    pub local: IpAddr,
    /// The address of the other host.
    pub remote: IpAddr,
    /// How it stands.
    pub state: RowState,
    /// Why it is neither protected nor off, in words.
    pub reason: Option<String>,
}

impl RowProgress {
    /// The pair of the row.
    pub fn pair(&self) -> Pair {
        Pair { local: self.local, remote: self.remote }
    }
}
