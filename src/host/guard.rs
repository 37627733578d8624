//! What `hostseal guard` changes in the kernel, before there is an agent.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::holdings::Holdings;
use super::scheme::Scheme;
use crate::config::Exemptions;
use crate::protect::{Desired, Indexes, Plan, plan, policies};
use crate::store::Saved;
use crate::types::{Boot, KernelState, Op, Pair, Protection};

/// The saved pairs that are to be blocked until an agent runs.
///
/// # Errors
/// There are none, and why.
pub fn sealed(saved: &mut Saved, boot: &Boot) -> Result<BTreeSet<Pair>, &'static str> {
    // A boot ends a trial; while one lasts, its agent alone knows how long its policies may stay.
    saved.end_trial(boot);
    if saved.trial.is_some() {
        return Err("protection is on trial");
    }
    if matches!(saved.protection, Protection::Off | Protection::Disabling) {
        return Err("protection is off");
    }
    Some(saved.sealed()).filter(|sealed| !sealed.is_empty()).ok_or("no pair was sealed")
}

/// The changes that an agent makes first.
pub fn first_step(scheme: &Scheme, sealed: &BTreeSet<Pair>, actual: KernelState, now: Instant) -> Plan {
    let mut pairs = scheme.machines(sealed, now);
    pairs.adopt(&actual);
    pairs.machines_mut().for_each(|machine| machine.enable(now, false, None));
    pairs.outstanding(Holdings::of(actual, &pairs.own()))
}

/// Blocks all of `addresses` but for exemptions, whichever of them this host has. Policies that are there stay.
pub fn block_all(addresses: &BTreeSet<IpAddr>, exempt: &Exemptions, actual: &KernelState) -> Plan {
    let of_one = |remote: &IpAddr| {
        let remote = *remote;
        let exempt = policies::exempt(remote, exempt);
        exempt.chain(policies::block_all(remote)).chain(policies::block_forwarded(remote))
    };
    let discovery = addresses.iter().any(IpAddr::is_ipv6).then(policies::neighbour_discovery);
    let policies = discovery.into_iter().flatten().chain(addresses.iter().flat_map(of_one)).collect();
    let desired = Desired { policies, ..Desired::default() };
    let mut plan = plan(&desired, actual, &mut Indexes::of(actual));
    plan.ops.retain(|op| matches!(op, Op::AddPolicy { .. }));
    plan
}
