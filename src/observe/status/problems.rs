//! What is wrong beside what the rows say, as far as the agent knows it, or that it does not answer.

use std::collections::BTreeSet;
use std::time::Duration;

use super::evidence::Evidence;
use super::sight::PairSight;
use super::{Agent, Encapsulation, PpkInKeys, standing};
use crate::config::{Config, NamedPpk, PpkSource};
use crate::observe::differs;
use crate::observe::snapshot::{Snapshot, UnlistedRequests};
use crate::types::units::{human_duration, listed};
use crate::types::{Problem, ProblemCode, ReasonCode, RowState};

/// All of it, of a host that has these pairs.
pub(super) fn of(evidence: &Evidence<'_>, pairs: &[PairSight<'_>]) -> Vec<Problem> {
    match evidence.agent {
        Agent::Answers { snapshot, .. } => {
            let mut problems: Vec<Problem> = unguarded(snapshot).into_iter().collect();
            problems.extend(unlisted(snapshot, evidence.config));
            problems.extend(differing(snapshot, pairs));
            for sight in pairs {
                let of_pair = [unrenewed, narrow, refused, forgetful];
                problems.extend(of_pair.into_iter().filter_map(|problem| problem(sight)));
                problems.extend(without_ppk(evidence, sight));
                problems.extend(without_kms(evidence, sight));
            }
            problems
        }
        Agent::Hangs { pid, patience, .. } => vec![hung(pid, patience)],
        Agent::Gone { .. } => Vec::new(),
    }
}

fn hung(pid: Option<u32>, patience: Duration) -> Problem {
    let words = format!(
        "{} runs and does not answer within {}: this is what the kernel holds. It is busy or hangs",
        standing::agent(pid),
        human_duration(patience)
    );
    Problem::critical(ProblemCode::AgentHung, None, words).mended_by(
        "Look again; if it stays so, see its log, end it, and run `hostseal enable`: protection stays in place \
         meanwhile",
    )
}

/// Peers that do not fit together with this host, as they say of themselves. Each once, however many addresses it has.
fn differing(snapshot: &Snapshot<'_>, pairs: &[PairSight<'_>]) -> BTreeSet<Problem> {
    let told = |sight: &PairSight<'_>| {
        let (own, theirs) = (snapshot.about.as_ref()?, sight.known?.peer?);
        Some(differs::problems(own, &sight.node, sight.state, theirs))
    };
    pairs.iter().filter_map(told).flatten().collect()
}

/// This host has more addresses than its guards name.
fn unguarded(snapshot: &Snapshot<'_>) -> Option<Problem> {
    let beyond = Some(&snapshot.unguarded).filter(|beyond| !beyond.is_empty())?;
    let words = format!(
        "the guard does not block these addresses of this host, which have no pair: {}. It would need more than \
         {} policies. Packets between them and sealed hosts pass in the clear",
        listed(beyond, 3),
        snapshot.guards_most
    );
    Some(Problem::critical(ProblemCode::Hole, None, words).mended_by("Remove addresses, or list fewer hosts"))
}

/// Hosts that ask for keys and are no peers of this one.
fn unlisted(snapshot: &Snapshot<'_>, config: &Config) -> Vec<Problem> {
    let problem = |knock: &UnlistedRequests| {
        let UnlistedRequests { local, remote, requests } = knock;
        let listed = config.nodes.iter().find(|node| node.addresses.contains(remote));
        let node = listed.map(|node| node.name.clone());
        let (words, fix) = match &node {
            Some(_) => (
                format!(
                    "asks for keys between {remote} and {local} (requests: {requests}), which are no pair here"
                ),
                "Compare `protection.networks` and the addresses in the files of both hosts",
            ),
            None => (
                format!(
                    "{remote} asks this host ({local}) for keys (requests: {requests}), and the file does not list it"
                ),
                "Add it to `[[nodes]]` here, or remove this host from its file",
            ),
        };
        Problem::info(ProblemCode::UnlistedPeer, node, words).mended_by(fix)
    };
    snapshot.unlisted.iter().map(problem).collect()
}

/// Keys of a protected pair end, and attempts to agree new ones have failed.
fn unrenewed(sight: &PairSight<'_>) -> Option<Problem> {
    let known = sight.known?;
    let (code, why) = known.unrenewed.as_ref()?;
    let since = if *code == ReasonCode::NoAnswer { standing::since(known) } else { String::new() };
    let left = human_duration(Duration::from_secs(sight.active().filter_map(|sa| sight.left_of(sa)).min()?));
    let (node, remote) = (&sight.node, sight.pair.remote);
    let words =
        format!("cannot renew keys; traffic with {node} ({remote}) stops in {left}. Cause: {why}{since}");
    Some(Problem::critical(ProblemCode::KeysNotRenewed, Some(node.clone()), words))
}

/// What the kernel refused about a pair that is protected all the same, as its policies and SAs say.
fn refused(sight: &PairSight<'_>) -> Option<Problem> {
    let reason = sight.known?.reason.as_ref();
    let (_, words) = reason.filter(|(code, _)| *code == ReasonCode::KernelError)?;
    let words = format!(
        "the kernel refuses a change for {}: {words}. It is tried again by itself",
        sight.pair.remote
    );
    let problem = Problem::critical(ProblemCode::KernelRefuses, Some(sight.node.clone()), words);
    (sight.state == RowState::Protected).then_some(problem)
}

/// A path that silently loses large packets.
fn narrow(sight: &PairSight<'_>) -> Option<Problem> {
    let passes = sight.known?.narrow.filter(|_| sight.state == RowState::Protected)?;
    let (remote, mtu) = (sight.pair.remote, wire_size(sight, passes));
    let words = format!(
        "packets of more than {passes} octets to {remote} are lost on the way, and nothing there says so: large \
         transfers hang"
    );
    let fix =
        format!("Lower the MTU of this host's route to {remote} to {mtu} (`ip route replace … mtu {mtu}`)");
    Some(Problem::critical(ProblemCode::Mtu, Some(sight.node.clone()), words).mended_by(fix))
}

/// Octets of a packet as ESP that has `octets` before (kernel.md, Overhead; RFC 4303 section 2, RFC 4106 section 3).
fn wire_size(sight: &PairSight<'_>, octets: u16) -> u16 {
    const HEADER_IV_ICV: u16 = 8 + 8 + 16;
    let header: u16 = if sight.pair.remote.is_ipv4() { 20 } else { 40 };
    let padded = (octets.saturating_sub(header) + 2).next_multiple_of(4);
    header + HEADER_IV_ICV + padded + if sight.encapsulation() == Encapsulation::Udp { 8 } else { 0 }
}

/// The keys of a protected pair have no PPK, though both hosts could have one.
fn without_ppk(evidence: &Evidence<'_>, sight: &PairSight<'_>) -> Option<Problem> {
    if sight.state != RowState::Protected || sight.ppk() != Some(PpkInKeys::None) {
        return None;
    }
    let other = evidence.config.node_named(sight.node.as_str())?;
    let (keys, required) = evidence.config.ppks_between(evidence.node, other)?;
    let id = keys.first().map(|key| &key.id)?;
    let (node, remote) = (&sight.node, sight.pair.remote);
    let both = format!("See that both hosts have \"{id}\" (`[ppk]`)");
    let (why, fix) = match required {
        false => ("none is required", format!("{both}, then {}", to_require(keys))),
        true => ("one is required, so they end soon", both),
    };
    let words = format!("the keys with {node} ({remote}) have no PPK: {why}");
    Some(Problem::warning(ProblemCode::PpkOptional, Some(node.clone()), words).mended_by(fix))
}

/// What has all hosts require a PPK. One that is wrapped may come from a roster, which says that itself.
fn to_require(keys: &[NamedPpk]) -> &'static str {
    match keys.first().map(|key| &key.source) {
        Some(PpkSource::Wrapped) => {
            "say `ppk.required = true` on all of them (in a cluster with a roster, run `hostseal secret wrap` on an admin node: \
             it goes on where it stopped)"
        }
        _ => "say `ppk.required = true` on all of them",
    }
}

/// Keys could be made without the PPK that a key of somebody else wraps.
fn without_kms(evidence: &Evidence<'_>, sight: &PairSight<'_>) -> Option<Problem> {
    let _rules = evidence.config.kms.as_ref()?;
    let node = &sight.node;
    let other = evidence.config.node_named(node.as_str())?;
    let (keys, required) = evidence.config.ppks_between(evidence.node, other)?;
    let is_wrapped = keys.first().is_some_and(|key| key.source == PpkSource::Wrapped);
    (is_wrapped && !required).then(|| {
        let until =
            evidence.config.ppks_optional_until().map(|end| format!(" until {end}")).unwrap_or_default();
        let words =
            format!("{node} and this host can make keys without the KMS: the PPK is not required{until}");
        let fix = format!("When all hosts have the PPK, {}", to_require(keys));
        Problem::warning(ProblemCode::KmsOptional, Some(node.clone()), words).mended_by(fix)
    })
}

/// A path that forgets a pair which is idle, and is reminded by this host.
fn forgetful(sight: &PairSight<'_>) -> Option<Problem> {
    let pause = human_duration(sight.known?.reminded_after?);
    let (node, remote) = (&sight.node, sight.pair.remote);
    let what = match sight.encapsulation() {
        Encapsulation::Udp => "ESP in UDP",
        Encapsulation::None => "ESP (IP protocol 50)",
    };
    let words = format!(
        "a firewall on the path to {node} ({remote}) forgets {what} when no traffic flows: it dropped what this \
         host sent to {node} until {node} sent something. This host now sends a packet every {pause} without \
         traffic to prevent that"
    );
    let fix = format!("Allow {what} in both directions in the firewalls in between, or raise their timeout");
    Some(Problem::warning(ProblemCode::PathForgets, Some(node.clone()), words).mended_by(fix))
}
