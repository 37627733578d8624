//! What `hostseal doctor` asks the agent, and what that answers.

use serde::{Deserialize, Serialize};

use crate::observe::doctor::{MemberChecks, PairFinding};
use crate::types::NodeName;

/// What of the paths to the peers is open? It is asked of them inside IKE, and tried. That takes some seconds, and up to
/// 15.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DoctorRequest {
    /// The node that is asked about; `None` for all, as many as are asked at a time.
    #[serde(default)]
    pub node: Option<NodeName>,
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DoctorReply {
    /// One for each pair that was asked about.
    pub findings: Vec<PairFinding>,
}

/// What the checks of a node of the cluster find.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeChecks {
    /// Its name.
    pub node: NodeName,
    /// What it says itself.
    pub checks: MemberChecks,
}
