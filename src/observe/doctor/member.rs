//! What `doctor --cluster` says of each node of a cluster: what the node says itself when it is asked inside IKE.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::check::{Check, CheckId, CheckResult};
use super::host::{HostEvidence, of_host};
use super::peer::{self, PeerEvidence, of_peers};
use crate::config::{Config, Node};
use crate::observe::cluster::{MemberRow, MemberTrouble};
use crate::observe::status::Status;
use crate::types::generation::{VERSION, is_older};
use crate::types::{NodeName, Problem};

/// The octets of the checks in one answer: with what is around them, they are told at once.
const CHECKS_MAX: usize = 3000;
/// The longest text in a check of another node.
const TEXT_MAX: usize = 1000;

/// What a member says of itself. It may have gone bad: nothing is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MemberChecks {
    /// How many checks are ok.
    pub ok: u64,
    /// Those that are not, the worst first, without those that nothing was found out of.
    pub checks: Vec<Check>,
    /// How many more there are.
    #[serde(default)]
    pub more: u64,
}

impl MemberChecks {
    /// What a member with this status says: what its agent knows, without asking anybody else.
    pub fn of(config: &Config, node: &Node, status: &Status) -> Self {
        let problems: BTreeSet<Problem> = status.problems.iter().cloned().collect();
        let evidence = HostEvidence {
            now: status.time,
            config: Some(config),
            node: Some(Ok(node)),
            problems: Some(&problems),
            status: Some(status),
            ..HostEvidence::default()
        };
        let mut checks = of_host(&evidence);
        checks.extend(of_peers(PeerEvidence { config, status, findings: &[], only: None }));
        Self::gathered(checks)
    }

    fn gathered(checks: Vec<Check>) -> Self {
        let ok = checks.iter().filter(|check| check.result == CheckResult::Ok).count() as u64;
        let mut wrong: Vec<Check> = checks
            .into_iter()
            .filter(|check| matches!(check.result, CheckResult::Fail | CheckResult::Warn))
            .map(Check::into_plain)
            .collect();
        wrong.sort_by_key(|check| check.result != CheckResult::Fail);
        let all = wrong.len();
        let mut room = CHECKS_MAX;
        wrong.retain(|check| {
            let octets = serde_json::to_vec(check).map_or(usize::MAX, |octets| octets.len());
            let fits = octets <= room;
            room -= if fits { octets } else { 0 };
            fits
        });
        Self { ok, more: (all - wrong.len()) as u64, checks: wrong }
    }

    /// Whether all of it can be shown.
    pub(in crate::observe) fn is_plain(&self) -> bool {
        self.checks.iter().all(Check::is_plain)
    }
}

impl Check {
    /// Its words as others may show them: in one line, and not too long.
    fn into_plain(self) -> Self {
        let plain = |text: String| {
            let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            text.truncate(text.floor_char_boundary(TEXT_MAX));
            text
        };
        Self { detail: plain(self.detail), fix: self.fix.map(plain), ..self }
    }

    fn is_plain(&self) -> bool {
        let mut texts = [Some(&self.detail), self.fix.as_ref()].into_iter().flatten();
        texts.all(|text| text.len() <= TEXT_MAX && !text.chars().any(char::is_control))
    }
}

/// The checks of another node: how it stands by `row`, and what it says of itself where it knows the question. `version`
/// is that of the member that asks.
pub fn of_member(row: &MemberRow, said: Option<&MemberChecks>, version: &str) -> Vec<Check> {
    let mut checks = vec![answers(row, said)];
    checks.extend(row.version.as_deref().map(|theirs| peer::version(Some(version), theirs)));
    checks.extend(row.clock_skew_s.map(|skew| peer::clock(skew.ms)));
    checks.extend(said.into_iter().flat_map(|said| said.checks.iter().map(from_there)));
    checks.into_iter().map(|check| check.about(&row.name)).collect()
}

/// A check that another node has made, of itself or of a pair with a third one.
fn from_there(check: &Check) -> Check {
    let of = |node: &NodeName| format!("with {node}: {}", check.detail);
    Check {
        detail: check.node.as_ref().map_or_else(|| check.detail.clone(), of),
        node: None,
        ..check.clone()
    }
}

fn answers(row: &MemberRow, said: Option<&MemberChecks>) -> Check {
    let id = CheckId::Answers;
    let reason = row.reason.clone().unwrap_or_default();
    match (row.reason_code, said) {
        (Some(MemberTrouble::NoAnswer | MemberTrouble::NotJoined), _) => Check::unknown(id, reason),
        (Some(MemberTrouble::Problems) | None, Some(said)) => {
            let words = format!("it answers; {} of its checks are ok", said.ok);
            match said.more {
                0 => Check::ok(id, words),
                more => Check::warn(id, format!("{words}, and {more} more that are not have no room here"))
                    .mended_by("Run `hostseal doctor` there"),
            }
        }
        (Some(_), _) => Check::fail(id, reason),
        (None, None) if row.version.as_deref().is_some_and(|theirs| is_older(theirs, VERSION)) => {
            Check::unknown(id, "it answers, and does not know the question: it runs an older version")
                .mended_by("Update it, or run `hostseal doctor` there")
        }
        (None, None) => Check::unknown(id, "it answers, and did not say in time what its checks find")
            .mended_by("Try again, or run `hostseal doctor` there"),
    }
}
