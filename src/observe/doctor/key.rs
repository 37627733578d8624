//! Checks of the key that wraps the secret of this host. The KMS is not asked for them: `hostseal kms check` does that.

use std::time::Duration;

use super::check::{Check, CheckId};
use crate::observe::KeyReport;
use crate::observe::audit::AuditReport;
use crate::types::units::human_duration;

/// The way to a KMS as it was found on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KmsWay {
    /// The program that speaks to the KMS.
    pub program: String,
    /// Where it is run.
    pub socket: String,
    /// What is wrong with the two, in words, each with what to do.
    pub wrong: Vec<(String, String)>,
}

/// Whether a helper can be run.
pub fn of_way(way: &KmsWay) -> Vec<Check> {
    let KmsWay { program, socket, wrong } = way;
    match &wrong[..] {
        [] => vec![Check::ok(CheckId::KmsHelper, format!("{program} can be run, at {socket}"))],
        wrong => {
            let check =
                |(words, fix): &(String, String)| Check::fail(CheckId::KmsHelper, words).mended_by(fix);
            wrong.iter().map(check).collect()
        }
    }
}

/// What the agent knows of the key, where nothing is wrong with it: problems are told elsewhere.
pub fn of_report(key: &KeyReport) -> Option<Check> {
    if key.key_problem().is_some() {
        return None;
    }
    let left = human_duration(Duration::from_secs(key.lease_left_s.unwrap_or_default()));
    let words = match key.last_use {
        Some(at) => format!("the key {} was used on {at}; {left} of the lease are left", key.key),
        None => format!("the key {} was not used yet; {left} of the lease are left", key.key),
    };
    Some(Check::ok(CheckId::KmsKey, words))
}

/// How far the record of what is done with a key has come, where nothing is wrong with it.
pub fn of_record(audit: &AuditReport) -> Option<Check> {
    let head = audit.head.filter(|_| audit.trouble.is_none())?;
    Some(Check::ok(
        CheckId::KmsAudit,
        format!("what is done with the key is recorded, up to line {}", head.seq),
    ))
}
