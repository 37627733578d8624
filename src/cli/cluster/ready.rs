//! Which nodes keep a cluster from being enabled: those that do not answer, have another roster or an old version, or could
//! not be protected.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::observe::cluster::{ClusterStatus, MemberRow, MemberTrouble};
use crate::types::generation::is_older;
use crate::types::units::listed;
use crate::types::{NodeName, Unready};

/// So far the clocks of nodes that try something may be apart.
const SKEW_MAX: Duration = Duration::from_secs(10);
/// So many nodes that are not ready for the same reason are named.
const NAMED: usize = 8;

/// The nodes that are not ready, by what keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct NotReady(BTreeMap<Why, Vec<NodeName>>);

/// What keeps a node from being enabled with the others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Why {
    NoAnswer,
    NotJoined,
    OtherRoster,
    OldVersion { there: String, here: String },
    OtherClock,
    NotReady { words: String, may_pass: bool },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("no answer"),
            Self::NotJoined => f.write_str("not joined yet"),
            Self::OtherRoster => f.write_str("another roster than here"),
            Self::OldVersion { there, here } => {
                write!(f, "hostseal {there}, which is older than {here} here: update it")
            }
            Self::NotReady { words, .. } => f.write_str(words),
            Self::OtherClock => f.write_str("its clock differs by more than 10 s: a trial ends by the clock"),
        }
    }
}

impl NotReady {
    /// Those of `status`. For a trial, clocks have to agree: a node that hears of it late takes what is left.
    pub(super) fn of(status: &ClusterStatus, for_trial: bool) -> Self {
        let here = status.nodes.iter().find(|node| status.node.as_ref() == Some(&node.name));
        let mut nodes: BTreeMap<Why, Vec<NodeName>> = BTreeMap::new();
        for node in status.nodes.iter().filter(|node| takes_part(node)) {
            let clock = (for_trial && is_off(node)).then_some(Why::OtherClock);
            if let Some(why) = why(node, here, &status.roster_id).or(clock) {
                nodes.entry(why).or_default().push(node.name.clone());
            }
        }
        Self(nodes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether waiting may help: an old version stays one, and who has not joined waits for its operator.
    pub(super) fn may_pass(&self) -> bool {
        let passes = |why: &Why| {
            matches!(why, Why::NoAnswer | Why::OtherRoster | Why::NotReady { may_pass: true, .. })
        };
        self.0.keys().all(passes)
    }

    /// How many they are.
    pub(super) fn count(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// A line for each reason.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.iter().map(|(why, nodes)| format!("  {}: {why}", listed(nodes, NAMED))).collect()
    }
}

/// Whether the clock of a node is another one.
fn is_off(node: &MemberRow) -> bool {
    node.clock_skew_s.is_some_and(|skew| skew.ms.unsigned_abs() > SKEW_MAX.as_millis() as u64)
}

/// Whether a node is one to ask. Software of others is told nothing, and who is held out is no member.
pub(super) fn takes_part(node: &MemberRow) -> bool {
    !node.foreign && node.reason_code != Some(MemberTrouble::HeldOut)
}

fn why(node: &MemberRow, here: Option<&MemberRow>, roster: &str) -> Option<Why> {
    if node.reason_code == Some(MemberTrouble::NotJoined) {
        return Some(Why::NotJoined);
    }
    if !node.answers {
        return Some(Why::NoAnswer);
    }
    let there = node.version.as_deref();
    let here = here.and_then(|here| here.version.as_deref());
    if let Some((there, here)) = there.zip(here).filter(|(there, here)| is_older(there, here)) {
        return Some(Why::OldVersion { there: there.to_owned(), here: here.to_owned() });
    }
    let is_other = node.roster_id.as_deref().is_some_and(|other| other != roster);
    if is_other {
        return Some(Why::OtherRoster);
    }
    let may_pass = node.unready_code.is_some_and(Unready::may_pass);
    node.unready.clone().map(|words| Why::NotReady { words, may_pass })
}
