//! What the operator should know beside rows and problems, in words.

use std::collections::BTreeSet;
use std::time::Duration;

use super::evidence::Evidence;
use super::{Agent, PeerRow, SaState};
use crate::types::Protection;
use crate::types::units::{counted, human_duration};

/// All of it, of a host that has these rows.
pub(super) fn of(evidence: &Evidence<'_>, peers: &[PeerRow]) -> Vec<String> {
    match evidence.agent {
        Agent::Answers { snapshot, .. } => {
            let mut notes: Vec<String> = rotation(evidence, peers).into_iter().collect();
            notes.extend(unproven(evidence, peers));
            notes.extend(unread(snapshot.unread));
            notes
        }
        Agent::Hangs { .. } => Vec::new(),
        Agent::Gone { remedy, .. } => {
            let wanted = evidence.saved.protection != Protection::Off;
            wanted.then(|| format!("{}: {remedy}", without_agent(peers))).into_iter().collect()
        }
    }
}

/// The note while a secret is being rotated.
fn rotation(evidence: &Evidence<'_>, peers: &[PeerRow]) -> Option<String> {
    let stale =
        peers.iter().filter(|row| row.secret_id.is_some() && row.secret_id.as_deref() != evidence.secret_id);
    let nodes: Vec<&str> = stale.map(|row| row.node.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    let words =
        || format!("the keys shared with {} still rest on another secret than this host's", nodes.join(", "));
    (!nodes.is_empty()).then(words)
}

/// A warning well before it happens: peers that the files no longer believe, whose keys end.
fn unproven(evidence: &Evidence<'_>, peers: &[PeerRow]) -> Vec<String> {
    let on_notice = |row: &PeerRow| {
        let (left, why) = evidence.known(row.pair())?.notice.as_ref()?;
        let why = why.as_ref().map(|words| format!(": {words}")).unwrap_or_default();
        Some(format!(
            "the keys with {} ({}) rest on a proof or a PPK that the files no longer accept; they end in {}{why}",
            row.node,
            row.remote,
            human_duration(Duration::from_secs(left.as_secs()))
        ))
    };
    peers.iter().filter_map(on_notice).collect()
}

/// What somebody else's flush took from the totals.
fn unread(count: u64) -> Option<String> {
    let words = || {
        format!(
            "another program removed {}: the totals lack what they counted after the last reading",
            counted(count as usize, "SA")
        )
    };
    (count > 0).then(words)
}

/// What it means that no agent runs while protection is on.
pub fn without_agent(peers: &[PeerRow]) -> String {
    let active = peers.iter().flat_map(|row| &row.sas).filter(|sa| sa.state == SaState::Active);
    let until = match active.filter_map(|sa| sa.expires_in_s).min() {
        Some(seconds) => {
            format!("; the kernel goes on with its keys for {}", human_duration(Duration::from_secs(seconds)))
        }
        None => String::new(),
    };
    format!("no agent runs to make new keys{until}")
}
