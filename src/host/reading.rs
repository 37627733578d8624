//! What is read of the kernel to tell how the host stands. SAs count all the time; policies change seldom, this host knows
//! of what it changes itself, and the kernel tells of every other change.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Host;
use super::core::Core;
use super::system::System;
use crate::types::stranger::Strangers;
use crate::types::{KernelSight, KernelState, PolicyId, PolicyReading, SaId, SaReading, SaTable};

/// How closely the kernel is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scrutiny {
    /// All that it holds is read.
    Whole,
    /// SAs are read. Policies are as they were read last, unless anything has happened to them since.
    Counters,
}

/// What was read.
pub(super) struct KernelReading {
    pub(super) sas: BTreeMap<SaId, SaReading>,
    /// `None` where they are as the core knows them.
    policies: Option<BTreeMap<PolicyId, PolicyReading>>,
    strangers: Strangers,
}

impl KernelReading {
    /// All that the kernel holds, beside what its `core` knows of that.
    pub(super) fn sight<'a>(&'a self, core: Option<&'a Core>) -> KernelSight<'a> {
        let known = || core.and_then(Core::known_policies).map(|(policies, _)| policies);
        KernelSight {
            sas: &self.sas,
            policies: match &self.policies {
                Some(policies) => policies,
                None => known().unwrap_or(const { &BTreeMap::new() }),
            },
            strangers: &self.strangers,
        }
    }
}

impl Host {
    /// Reads the kernel. The dump first, then the ends that it cannot have seen: no SA is missed and none counts twice.
    pub(super) fn read_kernel(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        scrutiny: Scrutiny,
    ) -> anyhow::Result<KernelReading> {
        self.handle_kernel_events(now, system);
        if scrutiny == Scrutiny::Counters && self.knows_policies() {
            let SaTable { ours: mut sas, strangers } = system.read_all_sas()?;
            for ended in self.handle_kernel_events(now, system) {
                sas.remove(&ended);
            }
            // The kernel tells of a change before it is over.
            if let Some((_, policies)) =
                self.core.as_ref().filter(|_| self.knows_policies()).and_then(Core::known_policies)
            {
                let strangers = Strangers { policies: policies.to_vec(), sas: strangers };
                return Ok(KernelReading { sas, policies: None, strangers });
            }
        }
        let KernelState { mut sas, policies, strangers } = system.read()?;
        for ended in self.handle_kernel_events(now, system) {
            sas.remove(&ended);
        }
        Ok(KernelReading { sas, policies: Some(policies), strangers })
    }

    /// Whether nothing has happened to the kernel's policies since they were read that this host has not done itself.
    fn knows_policies(&self) -> bool {
        self.looks.deadline().is_none()
            && self.core.as_ref().is_some_and(|core| core.known_policies().is_some())
    }
}
