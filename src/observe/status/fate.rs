//! What becomes of the packets of a pair in a kernel: read from its policies and SAs, and from nothing else.

use crate::observe::strangers::Overruled;
use crate::types::stranger::Verdict;
use crate::types::{
    Action, Block, KernelSight, Pair, PolicyDirection, PolicyId, RowState, SaReading, SasByEnds, ours,
};

/// What becomes of packets in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Clear ones pass.
    Clear,
    /// They pass as ESP of ours, and not otherwise.
    Esp,
    /// None passes.
    Dropped,
}

/// How a pair stands by what `kernel` holds, whose SAs are `sas`; its outbound policy sends through `used`. `overruled` says
/// where other software decides.
pub(super) fn state(
    kernel: KernelSight<'_>,
    (sas, used): (&SasByEnds<'_>, Option<&SaReading>),
    overruled: &Overruled,
    pair: Pair,
) -> RowState {
    match (outbound(kernel, used, overruled, pair), inbound(kernel, sas, overruled, pair)) {
        (Fate::Esp, Fate::Esp) => RowState::Protected,
        (Fate::Clear, _) | (_, Fate::Clear) => RowState::Clear,
        (Fate::Dropped, _) | (_, Fate::Dropped) => RowState::Blocked,
    }
}

fn outbound(kernel: KernelSight<'_>, used: Option<&SaReading>, overruled: &Overruled, pair: Pair) -> Fate {
    let direction = PolicyDirection::Out;
    fate(overruled, direction, pair).unwrap_or_else(|| match used {
        Some(_) => Fate::Esp,
        None => match action(kernel, direction, pair) {
            Some(Action::Seal { .. } | Action::Block | Action::Require) => Fate::Dropped,
            Some(Action::Allow | Action::Accept) | None => Fate::Clear,
        },
    })
}

/// The SA that the outbound policy of `pair` sends through, where it is ours and the kernel has that SA.
pub(super) fn used<'a>(kernel: KernelSight<'a>, pair: Pair) -> Option<&'a SaReading> {
    let reading = kernel.policy(&PolicyId::of(pair, PolicyDirection::Out))?;
    match reading.action.filter(|_| ours::is_our_policy(reading))? {
        Action::Seal { through } => kernel.sends(pair, through),
        _ => None,
    }
}

fn inbound(kernel: KernelSight<'_>, sas: &SasByEnds<'_>, overruled: &Overruled, pair: Pair) -> Fate {
    let direction = PolicyDirection::In;
    fate(overruled, direction, pair).unwrap_or_else(|| match action(kernel, direction, pair) {
        Some(Action::Require) if sas.takes(pair) => Fate::Esp,
        Some(Action::Require | Action::Block | Action::Seal { .. }) => Fate::Dropped,
        Some(Action::Allow | Action::Accept) | None => Fate::Clear,
    })
}

/// What a stranger's policy in front of ours makes of all packets, where there is one. Its SAs may encrypt nothing, and
/// nobody here can tell: the worst counts.
fn fate(overruled: &Overruled, direction: PolicyDirection, pair: Pair) -> Option<Fate> {
    match overruled.get(&(direction, pair))? {
        Verdict::Allow | Verdict::Transform { .. } => Some(Fate::Clear),
        Verdict::Block => Some(Fate::Dropped),
    }
}

/// What our policy does that is asked about all packets of `pair`: its own, else what blocks the rest.
fn action(kernel: KernelSight<'_>, direction: PolicyDirection, pair: Pair) -> Option<Action> {
    let guard = PolicyId::between(direction, Block::any(pair.remote), Block::host(pair.remote));
    let asked = [PolicyId::of(pair, direction), guard];
    asked.iter().filter_map(|id| kernel.policy(id)).find(|reading| ours::is_our_policy(reading))?.action
}
