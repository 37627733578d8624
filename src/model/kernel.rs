//! What a kernel holds.

use std::collections::BTreeMap;

use super::{PolicyId, PolicyReading, SaId, SaReading};

/// SAs of ours, and all policies: strangers' too, since one with the selector that we need is in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelState {
    /// SAs of ours.
    pub sas: BTreeMap<SaId, SaReading>,
    /// Policies, ours and strangers'.
    pub policies: BTreeMap<PolicyId, PolicyReading>,
}
