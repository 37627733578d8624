//! What `hostseal prove --cluster` asks of the agent.

use serde::{Deserialize, Serialize};

use super::ProveOrder;
use crate::observe::MemberProving;
use crate::types::NodeName;

/// What the command wants of the other nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberProofRequest {
    /// Which of them can prove pairs?
    WhoCan,
    /// One of them is to prove one of its pairs.
    Prove {
        /// Its name.
        by: NodeName,
        /// The pair as that node sees it.
        pair: ProveOrder,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberProofReply {
    /// Those that said that they can.
    Can(Vec<NodeName>),
    /// What that node has said; `None` where it has not.
    Said(Option<MemberProving>),
}
