//! The series of the key that wraps the secret.

use super::page::{Kind, MetricsPage};
use crate::observe::audit::AuditReport;
use crate::observe::kms::{KeyReport, KeyStanding};

/// Writes them, where a key wraps the secret of the host.
pub fn write(page: &mut MetricsPage, key: Option<&KeyReport>) {
    let Some(key) = key else { return };
    page.info(
        "kms_info",
        "The key that wraps the secret of this host.",
        &[("provider", &key.provider), ("key", &key.key)],
    );
    page.family(Kind::Gauge, "kms_state", "1 for what the KMS said of the key when it was asked last.");
    for standing in KeyStanding::ALL {
        page.sample(&[("state", &standing.code())], u8::from(key.state == standing));
    }
    let help = "Whether this host is cut off, as its secret was taken from it.";
    page.one(Kind::Gauge, "kms_cut", help, u8::from(key.cut));
    let help = "How long this host goes on after the key was used.";
    page.one(Kind::Gauge, "kms_lease_seconds", help, key.max_offline_s);
    let help = "How long it still does; 0 where it is cut off.";
    page.one(Kind::Gauge, "kms_lease_left_seconds", help, key.lease_left_s.unwrap_or_default());
    let help = "When the key was used last, since the agent started.";
    page.time("kms_last_use_timestamp_seconds", help, key.last_use);
    page.family(Kind::Counter, "kms_answers_total", "What the KMS said when it was asked for the secret.");
    for standing in KeyStanding::ALL.into_iter().filter(|standing| *standing != KeyStanding::Unasked) {
        let count = key.answers.get(&standing).copied().unwrap_or_default();
        page.sample(&[("answer", &standing.code())], count);
    }
    write_record(page, key.audit.as_ref());
}

/// Writes those of the record of what is done with a key, where one is kept.
pub fn write_record(page: &mut MetricsPage, audit: Option<&AuditReport>) {
    let Some(audit) = audit else { return };
    page.family(Kind::Gauge, "kms_audit_lines", "The number of the last audit line.");
    audit.head.iter().for_each(|head| page.sample(&[], head.seq));
    let help = "Events that wait to be written to the audit file, as that failed.";
    page.one(Kind::Gauge, "kms_audit_unwritten", help, audit.unwritten);
    let help = "Events that have no audit line, and will not have one.";
    page.one(Kind::Counter, "kms_audit_lost_total", help, audit.lost);
}
