//! How the key stands that wraps the secret of a host, for people and programs.

use std::collections::BTreeMap;
use std::time::Duration;

use hostseal_kms_protocol::{KmsRefusal, Refusal};
use serde::{Deserialize, Serialize};

use super::audit::AuditReport;
use crate::types::units::human_duration;
use crate::types::{Problem, ProblemCode, ReasonCode, UnixTime};

/// What its KMS said when it was asked last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyStanding {
    /// It was not asked yet.
    Unasked,
    /// The key was used.
    Valid,
    /// This host may not use it.
    Denied,
    /// It is disabled.
    Disabled,
    /// It is going to be deleted.
    PendingDeletion,
    /// There is none.
    NotFound,
    /// It does not open the blob, or what it opens is another secret.
    Broken,
    /// Nobody answered.
    Unavailable,
    /// A standing that only a later version knows.
    #[serde(other)]
    Other,
}

impl KeyStanding {
    /// All that this version knows.
    pub const ALL: [Self; 8] = [
        Self::Unasked,
        Self::Valid,
        Self::Denied,
        Self::Disabled,
        Self::PendingDeletion,
        Self::NotFound,
        Self::Broken,
        Self::Unavailable,
    ];

    /// For programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Unasked => "unasked",
            Self::Valid => "valid",
            Self::Denied => "denied",
            Self::Disabled => "disabled",
            Self::PendingDeletion => "pending_deletion",
            Self::NotFound => "not_found",
            Self::Broken => "broken",
            Self::Unavailable => "unavailable",
            Self::Other => "other",
        }
    }

    /// What a refusal says of the key.
    pub fn of(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Denied => Self::Denied,
            Refusal::Disabled => Self::Disabled,
            Refusal::PendingDeletion(_) => Self::PendingDeletion,
            Refusal::NotFound => Self::NotFound,
            Refusal::Broken => Self::Broken,
            Refusal::Unavailable => Self::Unavailable,
        }
    }

    /// Whether it says that the key is not to be used any more.
    pub fn is_denial(self) -> bool {
        matches!(self, Self::Denied | Self::Disabled | Self::PendingDeletion | Self::NotFound)
    }

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unasked => "not asked yet",
            Self::Valid => "valid",
            Self::Denied => "denied",
            Self::Disabled => "disabled",
            Self::PendingDeletion => "pending deletion",
            Self::NotFound => "not found",
            Self::Broken => "broken",
            Self::Unavailable => "unavailable",
            Self::Other => "unknown to this version",
        }
    }
}

/// The key, and for how long this host goes on without it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReport {
    /// Which kind of KMS has it.
    pub provider: String,
    /// What the KMS calls it.
    pub key: String,
    /// What the KMS said when it was asked last.
    pub state: KeyStanding,
    /// When the KMS deletes it, in its words.
    pub deletion_date: Option<String>,
    /// What was said to that.
    pub why: Option<String>,
    /// What the KMS calls the last request.
    pub request_id: Option<String>,
    /// When the key was used last, since the agent started.
    pub last_use: Option<UnixTime>,
    /// Whether the secret and all keys that rest on it are gone.
    pub cut: bool,
    /// Whether nobody asks for the key any more, as that was in vain for too long.
    #[serde(default)]
    pub given_up: bool,
    /// Seconds until they are, unless the key is used before; `None` where they are.
    pub lease_left_s: Option<u64>,
    /// Whether less of that is left than there should be.
    pub short: bool,
    /// After how many seconds nothing is encrypted any more once the key is revoked, where its KMS answers at once.
    pub bound_s: u64,
    /// How long this host goes on where it cannot be.
    pub max_offline_s: u64,
    /// How often what was answered, since the agent started.
    #[serde(default)]
    pub answers: BTreeMap<KeyStanding, u64>,
    /// What is on record of it; `None` where an older agent keeps no record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditReport>,
}

impl KeyReport {
    /// What is wrong.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.key_problem().into_iter().chain(self.audit.as_ref().and_then(AuditReport::problem))
    }

    /// What is wrong with the key, where something is.
    pub(super) fn key_problem(&self) -> Option<Problem> {
        let Self { key, state, .. } = self;
        let answer = self.in_words();
        let left = human_duration(Duration::from_secs(self.lease_left_s.unwrap_or_default()));
        let given_back = hope(self.given_up);
        match (self.cut, state) {
            (_, KeyStanding::Valid | KeyStanding::Unasked) if !self.cut => None,
            (
                true,
                KeyStanding::Unavailable | KeyStanding::Broken | KeyStanding::Unasked | KeyStanding::Valid,
            ) => {
                let words =
                    format!("the key {key} could not be used for too long ({answer}): this host is cut off");
                Some(Problem::critical(ProblemCode::KeyOffline, None, words).mended_by(given_back))
            }
            (true, _) => {
                let words = format!("the key {key} cannot be used ({answer}): this host is cut off");
                Some(Problem::critical(ProblemCode::KeyRevoked, None, words).mended_by(given_back))
            }
            (false, KeyStanding::Unavailable | KeyStanding::Broken) if !self.short => None,
            (false, KeyStanding::Unavailable | KeyStanding::Broken) => {
                let words =
                    format!("the key {key} cannot be used now ({answer}): this host is cut off in {left}");
                let fix = "See `hostseal kms check`, and whether its KMS can be reached from here";
                Some(Problem::warning(ProblemCode::KeyOffline, None, words).mended_by(fix))
            }
            (false, _) => {
                let words = format!(
                    "the key {key} is not to be used any more ({answer}): this host is cut off in {left}"
                );
                Some(Problem::critical(ProblemCode::KeyRevoked, None, words).mended_by(given_back))
            }
        }
    }

    /// What was answered last.
    pub fn in_words(&self) -> String {
        let dated = self.deletion_date.as_ref().map(|date| format!(" on {date}")).unwrap_or_default();
        let why = self.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        let request = self.request_id.as_ref().map(|id| format!(", request {id}")).unwrap_or_default();
        format!("{}{dated}{why}{request}", self.state.word())
    }
}

/// What is to come of a host that has no secret, where nobody asks for the key any more (`given_up`) or somebody does.
pub fn hope(given_up: bool) -> &'static str {
    match given_up {
        true => "Nobody asks for the key any more: run `hostseal reload` once it can be used",
        false => "This host is protected again by itself as soon as the key can be used",
    }
}

/// Why a KMS gives nothing.
pub fn refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Denied => "the KMS does not let this host use the key".to_owned(),
        Refusal::Disabled => "the key is disabled".to_owned(),
        Refusal::PendingDeletion(None) => "the key is going to be deleted".to_owned(),
        Refusal::PendingDeletion(Some(date)) => format!("the key is going to be deleted on {date}"),
        Refusal::NotFound => "there is no such key".to_owned(),
        Refusal::Broken => "the key does not open what was wrapped, or that is another secret".to_owned(),
        Refusal::Unavailable => "the KMS cannot be asked".to_owned(),
    }
}

/// Why a pair has no keys whose other end, `node`, has said that it was cut off.
pub fn of_peer(node: &str) -> String {
    format!(
        "{node} was cut off from its key, as its agent said, and agrees no keys until it can use the key again: see \
         `hostseal kms status` there"
    )
}

/// Why a KMS gave nothing, and what it said to that.
pub fn in_words(refused: &KmsRefusal) -> String {
    let KmsRefusal { refusal: what, why, request_id } = refused;
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let request = request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default();
    format!("{}{why}{request}", refusal(what))
}

/// For programs, why pairs are cut off whose key was refused so.
pub fn reason_code(refusal: Option<&Refusal>) -> ReasonCode {
    match refusal {
        Some(Refusal::PendingDeletion(_)) => ReasonCode::KeyPendingDeletion,
        Some(Refusal::Denied | Refusal::Disabled | Refusal::NotFound) => ReasonCode::KeyRevoked,
        Some(Refusal::Broken | Refusal::Unavailable) | None => ReasonCode::KeyOffline,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn report(state: KeyStanding, cut: bool, short: bool) -> KeyReport {
        KeyReport {
            provider: "exec".to_owned(),
            key: "k".to_owned(),
            state,
            deletion_date: (state == KeyStanding::PendingDeletion).then(|| "2026-01-02".to_owned()),
            why: Some("said".to_owned()),
            request_id: Some("r".to_owned()),
            last_use: None,
            cut,
            given_up: false,
            lease_left_s: (!cut).then_some(3600),
            short,
            bound_s: 360,
            max_offline_s: 4 * 3600,
            answers: BTreeMap::new(),
            audit: None,
        }
    }

    #[test]
    fn each_standing_is_called_as_in_json() {
        for standing in KeyStanding::ALL {
            assert_eq!(serde_json::to_value(standing).unwrap(), standing.code());
        }
        let answers = [(KeyStanding::Valid, 3), (KeyStanding::NotFound, 1)].into();
        let report = KeyReport { answers, ..report(KeyStanding::Valid, false, false) };
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains("\"answers\":{\"valid\":3,\"not_found\":1}"), "{text}");
        assert_eq!(serde_json::from_str::<KeyReport>(&text).unwrap(), report);
    }

    #[test]
    fn lines_that_cannot_be_written_are_a_problem() {
        let audit =
            AuditReport { unwritten: 2, lost: 1, trouble: Some("f: disk full".to_owned()), head: None };
        let report = KeyReport { audit: Some(audit), ..report(KeyStanding::Valid, false, false) };
        let problems: Vec<Problem> = report.problems().collect();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        let expected = "2 audit lines wait to be written, and 1 are lost: f: disk full";
        assert!(!problem.is_critical() && problem.message.starts_with(expected), "{}", problem.message);
    }

    #[test]
    fn what_needs_somebody_is_a_problem() {
        let critical = |state, cut, short| {
            report(state, cut, short).key_problem().map(|it| (it.is_critical(), it.message))
        };
        for fine in [KeyStanding::Valid, KeyStanding::Unasked] {
            assert_eq!(critical(fine, false, false), None);
        }
        assert_eq!(critical(KeyStanding::Unavailable, false, false), None, "for a moment");
        let (is_critical, words) = critical(KeyStanding::Unavailable, false, true).unwrap();
        assert!(!is_critical && words.contains("cut off in 1h") && words.contains("kms check"), "{words}");
        for state in
            [KeyStanding::Denied, KeyStanding::PendingDeletion, KeyStanding::Unavailable, KeyStanding::Valid]
        {
            let (is_critical, words) = critical(state, true, true).unwrap();
            assert!(is_critical && words.contains("by itself"), "{words}");
        }
        let (_, words) = critical(KeyStanding::PendingDeletion, false, false).unwrap();
        assert!(words.contains("pending deletion on 2026-01-02: said, request r"), "{words}");
    }
}
