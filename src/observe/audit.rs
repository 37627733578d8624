//! The record of what was done with the key that wraps the secret: what a line says, and how far it has come.

use hostseal_kms_protocol::{KmsGift, KmsRefusal, Refusal};
use serde::{Deserialize, Serialize};

use super::kms::KeyStanding;
use crate::config::KmsRules;
use crate::store::{AuditEvent, AuditKind, ChainHead};
use crate::types::{NodeName, Problem, ProblemCode, UnixTime};

/// When and where something was done, and with which key.
#[derive(Debug, Clone, Copy)]
pub struct AuditPlace<'a> {
    /// The time of day.
    pub time: UnixTime,
    /// The cluster.
    pub cluster: &'a str,
    /// The node of it.
    pub node: &'a NodeName,
    /// The key.
    pub rules: &'a KmsRules,
}

/// What is said of it beside that.
#[derive(Debug, Clone, Default)]
pub struct AuditWords {
    answer: Option<KeyStanding>,
    deletion_date: Option<String>,
    why: Option<String>,
    request_id: Option<String>,
    sas_cut: Option<u64>,
}

impl AuditWords {
    /// Of a use of the key.
    pub fn of_gift<T>(gift: &KmsGift<T>) -> Self {
        let (why, request_id) = (gift.why.clone(), gift.request_id.clone());
        Self { answer: Some(KeyStanding::Valid), why, request_id, ..Self::default() }
    }

    /// Of a secret that was wrapped.
    pub fn of_wrapping() -> Self {
        Self { answer: Some(KeyStanding::Valid), ..Self::default() }
    }

    /// Of a use that did not come about.
    pub fn of_refusal(refused: &KmsRefusal) -> Self {
        let (why, request_id) = (refused.why.clone(), refused.request_id.clone());
        let deletion_date = match &refused.refusal {
            Refusal::PendingDeletion(date) => date.clone(),
            _ => None,
        };
        let answer = Some(KeyStanding::of(&refused.refusal));
        Self { answer, deletion_date, why, request_id, ..Self::default() }
    }

    /// The same of a cut that has removed so many SAs.
    #[must_use]
    pub fn of_cut(self, sas: Option<u64>) -> Self {
        Self { sas_cut: sas, ..self }
    }

    /// What is written of an event there.
    pub fn of(self, event: AuditKind, place: AuditPlace<'_>) -> AuditEvent {
        let Self { answer, deletion_date, why, request_id, sas_cut } = self;
        AuditEvent {
            time: place.time,
            cluster: place.cluster.to_owned(),
            node: place.node.clone(),
            event,
            provider: place.rules.provider.clone(),
            key: place.rules.key.clone(),
            answer: answer.map(|answer| answer.code().to_owned()),
            deletion_date,
            why,
            request_id,
            sas_cut,
        }
    }
}

/// How far the record of the key has come.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AuditReport {
    /// The last line; `None` while the agent has written none, or does not know.
    pub head: Option<ChainHead>,
    /// Events that wait to be written, as that failed.
    pub unwritten: u64,
    /// Events that have no line, and will not have one, since the agent started.
    pub lost: u64,
    /// Why nothing can be written.
    pub trouble: Option<String>,
}

impl AuditReport {
    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<Problem> {
        let trouble = self.trouble.as_ref()?;
        let Self { unwritten, lost, .. } = self;
        let lost = if *lost > 0 { format!(", and {lost} are lost") } else { String::new() };
        let words = format!("{unwritten} audit lines wait to be written{lost}: {trouble}");
        let fix = "Until then they are in the log alone (`kms audit, not in the file`)";
        Some(Problem::warning(ProblemCode::AuditNotWritten, None, words).mended_by(fix))
    }
}
