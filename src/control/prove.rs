//! What `hostseal prove` asks of the agent.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::observe::pair_proof::PairProof;
use crate::types::Nonce;

/// Prove this pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProveOrder {
    /// The address of this host.
    pub local: IpAddr,
    /// The address of the other one.
    pub remote: IpAddr,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenPair {
    /// What both ends have measured.
    pub proof: PairProof,
    /// What they have sent past all policies lately: whoever watches the wire has seen it, and knows by this what it was.
    pub clear: Vec<Nonce>,
}
