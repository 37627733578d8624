//! How a host stands, before it is put into words or numbers.

use super::evidence::{Agent, Evidence};
use super::sight::PairSight;
use super::{Summary, is_as_wanted, problems, unbound};
use crate::config::Exemptions;
use crate::observe::KeyReport;
use crate::observe::audit::AuditReport;
use crate::observe::strangers::{self, Ground};
use crate::types::{NodeName, Pair, Problem, Protection, RowState, SasByEnds};

/// How a host stands.
#[derive(Debug)]
pub struct Outlook<'a> {
    /// Its pairs.
    pub pairs: Vec<PairSight<'a>>,
    /// How many of them are in which state.
    pub summary: Summary,
    /// What the operator wants, and how far that has come.
    pub protection: Protection,
    /// What is wrong beside how the pairs stand, the worst first.
    pub problems: Vec<Problem>,
}

impl<'a> Outlook<'a> {
    /// How a host stands of which this is known; `found` are other problems of its system.
    pub fn of(evidence: &Evidence<'a>, found: impl IntoIterator<Item = Problem>) -> Self {
        let Evidence { config, node, kernel, saved, agent, .. } = *evidence;
        let pairs = pairs(evidence);
        let overruled = strangers::overruled(kernel.strangers, &pairs);
        let sas = SasByEnds::new(kernel.sas.values());
        let mut problems: Vec<Problem> = unbound::problems(*evidence, &sas).chain(found).collect();
        if saved.protection != Protection::Off {
            let exempt = Exemptions::of(config, Some(node));
            problems.extend(strangers::problems(kernel.strangers, Ground { pairs: &pairs, exempt: &exempt }));
        }
        let sight = |(node, pair)| PairSight::of(evidence, node, pair, &sas, &overruled);
        let pairs: Vec<PairSight<'_>> = pairs.into_iter().map(sight).collect();
        if let Some(snapshot) = agent.snapshot() {
            problems.extend(snapshot.kms.iter().flat_map(KeyReport::problems));
            problems.extend(snapshot.kms_audit.iter().filter_map(AuditReport::problem));
        }
        problems.extend(problems::of(evidence, &pairs));
        problems.sort();
        let silent = pairs.iter().filter(|sight| sight.is_silent()).count() as u64;
        let summary = Summary { silent, ..Summary::of(pairs.iter().map(|sight| sight.state)) };
        let protection = match agent.snapshot() {
            Some(snapshot) => snapshot.protection_with(summary.negotiating),
            None => saved.protection,
        };
        Self { pairs, summary, protection, problems }
    }

    /// Whether all is as the operator wants it: `status` ends with 0 then.
    pub fn is_healthy(&self, agent: Agent<'_>) -> bool {
        let in_force = agent.snapshot().is_some_and(|snapshot| snapshot.trouble.is_none());
        let is_well = |sight: &PairSight<'_>| sight.state == RowState::Protected && !sight.is_silent();
        is_as_wanted(self.protection, &self.problems, || in_force && self.pairs.iter().all(is_well))
    }
}

/// The pairs that have a row.
fn pairs(evidence: &Evidence<'_>) -> Vec<(NodeName, Pair)> {
    let mut pairs = evidence.config.pairs(evidence.node);
    pairs.retain(|(_, pair)| !evidence.config.is_away(*pair, evidence.present));
    pairs
}
