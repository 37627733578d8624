//! SAs of an agent before this one that do not bind what they carry to their two hosts.

use std::collections::BTreeMap;

use super::evidence::Evidence;
use crate::types::{NodeName, Problem, ProblemCode, SasByEnds};

/// One problem for each peer that has such SAs. New keys replace them: it stays only where none are agreed.
pub(super) fn problems(evidence: Evidence<'_>, sas: &SasByEnds<'_>) -> impl Iterator<Item = Problem> {
    let mut unbound: BTreeMap<NodeName, usize> = BTreeMap::new();
    // There are none for long: not each of thousands of pairs need be asked about.
    let any = evidence.kernel.sas.values().any(|sa| !sa.bound);
    for (node, pair) in any.then(|| evidence.config.pairs(evidence.node)).into_iter().flatten() {
        let count = sas.of(pair).filter(|sa| !sa.bound).count();
        if count > 0 {
            *unbound.entry(node).or_default() += count;
        }
    }
    unbound.into_iter().map(|(node, count)| {
        let words = format!(
            "{count} SAs with {node}, of an older agent, accept packets in the name of other hosts. They go as soon \
             as new keys are agreed. If they stay, `hostseal status {node}` says why no keys are agreed"
        );
        Problem::warning(ProblemCode::UnboundSa, Some(node), words)
    })
}
