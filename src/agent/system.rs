//! The kernel of this system, as a host sees it.

use std::collections::BTreeMap;

#[cfg(feature = "key-export")]
use super::export;
use crate::host::kernel::{Kernel, Unreadable};
use crate::types::{KernelState, KeySource, Op, OpError, PolicyReading, SaId, SaReading};
use crate::xfrm;

impl Kernel for xfrm::Kernel {
    fn apply(&mut self, ops: &[Op], keys: &dyn KeySource) -> Vec<Result<(), OpError>> {
        #[cfg(feature = "key-export")]
        export::sas(ops, keys);
        self.apply(ops, keys)
    }

    fn read(&mut self) -> Result<KernelState, Unreadable> {
        self.read().map_err(|error| Unreadable(error.to_string()))
    }

    fn read_sas(&mut self) -> Result<BTreeMap<SaId, SaReading>, Unreadable> {
        self.read_sas().map_err(|error| Unreadable(error.to_string()))
    }

    fn unused(&mut self, policies: &[PolicyReading]) -> Vec<bool> {
        self.unused(policies)
    }
}
