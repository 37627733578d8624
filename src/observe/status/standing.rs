//! How a pair stands, and why: what the agent knows of it, checked against what the kernel does.

use super::Agent;
use super::evidence::Evidence;
use crate::observe::snapshot::{PairSnapshot, RowReason};
use crate::types::units::human_duration;
use crate::types::{Pair, Protection, ReasonCode, RowState, UnixTime};

/// Why a row is not as the agent would have it.
const OVERRULED: &str =
    "the kernel's policies or SAs are not those that hostseal wrote, or another's come before them";

/// How `pair` stands, whose state is `kernel` by the kernel, and why. `last_heard` is when its peer was heard last.
pub(super) fn of(
    evidence: &Evidence<'_>,
    pair: Pair,
    kernel: RowState,
    last_heard: Option<UnixTime>,
) -> (RowState, Option<RowReason>) {
    let fine = matches!(kernel, RowState::Protected | RowState::Off);
    let unless_fine = |code, words: String| (!fine).then_some((code, words));
    match evidence.agent {
        Agent::Answers { snapshot, .. } => match snapshot.pairs.get(&pair) {
            Some(known) => {
                let (state, reason) = agreed((known.state, known.reason.clone()), kernel);
                (
                    state,
                    silent(evidence, pair, known, state, last_heard).or(reason.map(|it| dated(it, known))),
                )
            }
            None if snapshot.protection == Protection::Off => (RowState::Off, None),
            None => {
                let words = snapshot.trouble.unwrap_or("the agent does not keep this pair");
                (kernel, unless_fine(ReasonCode::Internal, words.to_owned()))
            }
        },
        Agent::Hangs { pid, .. } => {
            let words = format!("{} does not answer", agent(pid));
            (kernel, unless_fine(ReasonCode::NoAgent, words))
        }
        Agent::Gone { remedy, .. } => {
            (kernel, unless_fine(ReasonCode::NoAgent, format!("no agent runs: {remedy}")))
        }
    }
}

/// An agent that runs, in words.
pub(super) fn agent(pid: Option<u32>) -> String {
    pid.map_or_else(|| "the agent".to_owned(), |pid| format!("the agent (pid {pid})"))
}

/// How a row stands, and why: as the agent says in `own`, since it knows why and what the path does, but never better
/// than the kernel's policies say in `kernel`, nor worse.
fn agreed(own: (RowState, Option<RowReason>), kernel: RowState) -> (RowState, Option<RowReason>) {
    let refused = own.1.as_ref().is_some_and(|(code, _)| *code == ReasonCode::KernelError);
    match (own.0, kernel) {
        // What it refused opens nothing, and `problems` tells of it.
        (RowState::Clear, RowState::Protected) if refused => (kernel, None),
        (RowState::Protected, RowState::Clear | RowState::Blocked)
        | (RowState::Blocked, RowState::Clear)
        | (RowState::Clear, RowState::Blocked) => {
            let overruled = || Some((ReasonCode::KernelError, OVERRULED.to_owned()));
            (kernel, own.1.filter(|_| refused).or_else(overruled))
        }
        _ => own,
    }
}

/// A reason, with since when it is so where nobody answers.
fn dated((code, mut words): RowReason, known: &PairSnapshot<'_>) -> RowReason {
    if code == ReasonCode::NoAnswer {
        words.push_str(&since(known));
    }
    (code, words)
}

/// Since when nobody answers, to be put behind the reason.
pub(super) fn since(known: &PairSnapshot<'_>) -> String {
    known.failing_since.map(|since| format!(" No answer since {since}.")).unwrap_or_default()
}

/// Why a pair counts as silent that is protected, if it does.
fn silent(
    evidence: &Evidence<'_>,
    pair: Pair,
    known: &PairSnapshot<'_>,
    state: RowState,
    last_heard: Option<UnixTime>,
) -> Option<RowReason> {
    known.heard.filter(|heard| heard.silent && state == RowState::Protected)?;
    let heard = last_heard.map_or_else(
        || "nothing was heard since the agent started".to_owned(),
        |at| format!("nothing was heard for {}", human_duration(evidence.now.since(at))),
    );
    let words = format!(
        "silent: {heard}, and {} does not answer: is it up, and its link? Its packets stay protected or dropped",
        pair.remote
    );
    Some((ReasonCode::Silent, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(code: ReasonCode) -> Option<RowReason> {
        Some((code, "words".to_owned()))
    }

    #[test]
    fn the_agent_is_believed_where_the_kernel_is_as_it_says() {
        for state in
            [RowState::Off, RowState::Negotiating, RowState::Clear, RowState::Blocked, RowState::Protected]
        {
            let own = (state, why(ReasonCode::NoAnswer));
            assert_eq!(agreed(own.clone(), state), own);
        }
        let agreeing = (RowState::Negotiating, why(ReasonCode::InProgress));
        assert_eq!(agreed(agreeing.clone(), RowState::Clear), agreeing);
    }

    #[test]
    fn where_the_kernel_is_otherwise_that_is_the_cause_and_no_other() {
        for (own, kernel) in [
            (RowState::Protected, RowState::Clear),
            (RowState::Protected, RowState::Blocked),
            (RowState::Blocked, RowState::Clear),
            (RowState::Clear, RowState::Blocked),
        ] {
            let overruled = (kernel, Some((ReasonCode::KernelError, OVERRULED.to_owned())));
            assert_eq!(agreed((own, None), kernel), overruled);
            assert_eq!(agreed((own, why(ReasonCode::NoAnswer)), kernel), overruled);
            let refused = why(ReasonCode::KernelError);
            assert_eq!(agreed((own, refused.clone()), kernel), (kernel, refused), "its own words say more");
        }
    }

    #[test]
    fn what_the_kernel_refused_makes_nothing_clear_that_it_protects() {
        assert_eq!(
            agreed((RowState::Clear, why(ReasonCode::KernelError)), RowState::Protected),
            (RowState::Protected, None)
        );
        let unsealed = (RowState::Clear, why(ReasonCode::PeerDisabled));
        assert_eq!(agreed(unsealed.clone(), RowState::Protected), unsealed);
    }
}
