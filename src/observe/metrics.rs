//! Prometheus' text format, written from [`Figures`] (docs/monitoring.md lists the series).
//!
//! It is written by hand: the `prometheus` crate keeps a registry of series that live on, where here all of them come
//! from one value and most belong to pairs that come and go; filling one for each scrape costs more than the text. The
//! format is a few lines, and `promtool check metrics` reads what an exporter says in the lab.

mod cluster;
mod kernel;
mod kms;
mod page;
mod pairs;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::page::{Kind, MetricsPage, Word};
use super::Figures;
use super::status::{SaState, Status, Summary};
use crate::config::Mode;
use crate::types::{
    AgentTally, Durations, NodeName, Outcomes, ProblemCode, Protection, RowState, SaErrors, Severity,
    UnixTime, Volume,
};

/// What is still true while the agent does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastKnown {
    /// The name of the cluster.
    pub cluster: String,
    /// Which node this host is.
    pub node: Option<NodeName>,
    /// What happens to a pair that has no keys.
    pub mode: Mode,
    /// What the operator wants, and how far that has come.
    pub protection: Protection,
    /// What the kernel has, unless it holds nothing any more.
    pub keys: Option<LastKeys>,
}

/// What is still true of a kernel that goes on by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastKeys {
    /// How many pairs were in which state.
    pub summary: Summary,
    /// When the keys of a pair end first: nobody replaces them.
    pub earliest_expiry: Option<UnixTime>,
}

impl LastKnown {
    /// The system has been started anew since: the kernel has forgotten all keys.
    pub fn rebooted(self) -> Self {
        Self { keys: None, ..self }
    }

    /// The agent has gone back to the clear since, and ended.
    pub fn disabled(self) -> Self {
        Self { protection: Protection::Off, keys: None, ..self }
    }
}

impl From<&Figures> for LastKnown {
    fn from(figures: &Figures) -> Self {
        Self {
            cluster: figures.cluster.clone(),
            node: figures.node.clone(),
            mode: figures.mode,
            protection: figures.protection,
            keys: Some(LastKeys { summary: figures.summary, earliest_expiry: figures.earliest_expiry }),
        }
    }
}

/// Of a host without an agent, as its kernel and its files say.
impl From<&Status> for LastKnown {
    fn from(status: &Status) -> Self {
        let active = status.peers.iter().flat_map(|row| &row.sas).filter(|sa| sa.state == SaState::Active);
        let left = active.filter_map(|sa| sa.expires_in_s).min();
        let earliest_expiry = left.map(|left| UnixTime(status.time.0.saturating_add(left)));
        Self {
            cluster: status.cluster.clone(),
            node: status.node.clone(),
            mode: status.mode,
            protection: status.protection,
            keys: Some(LastKeys { summary: status.summary, earliest_expiry }),
        }
    }
}

/// The series of a host whose agent answers.
pub fn text(figures: &Figures) -> String {
    let mut page = MetricsPage::default();
    agent_up(&mut page, true);
    host(&mut page, figures);
    volume(&mut page, figures.volume);
    work(&mut page, &figures.tally);
    for (name, count) in &figures.kernel {
        let (name, cause) = kernel::series(name);
        page.one(Kind::Counter, &name, cause, count);
    }
    cluster::write(&mut page, figures);
    kms::write(&mut page, figures.kms.as_ref());
    kms::write_record(&mut page, figures.kms_audit.as_ref());
    pairs::write(&mut page, figures.pairs.as_deref());
    page.into_text()
}

/// The series of a host whose agent does not answer.
pub fn away(last: Option<&LastKnown>) -> String {
    let mut page = MetricsPage::default();
    agent_up(&mut page, false);
    if let Some(LastKnown { cluster, node, mode, protection, keys }) = last {
        node_info(&mut page, cluster, node.as_ref());
        protection_info(&mut page, *mode, *protection);
        if let Some(LastKeys { summary, earliest_expiry }) = keys {
            states(&mut page, summary);
            expiry(&mut page, *earliest_expiry);
        }
    }
    page.into_text()
}

fn agent_up(page: &mut MetricsPage, up: bool) {
    page.one(Kind::Gauge, "agent_up", "Whether the agent answers.", u8::from(up));
}

fn node_info(page: &mut MetricsPage, cluster: &str, node: Option<&NodeName>) {
    let node = node.map_or("", NodeName::as_str);
    page.info(
        "node_info",
        "Which node of which cluster this host is.",
        &[("cluster", &cluster), ("node", &node)],
    );
}

fn protection_info(page: &mut MetricsPage, mode: Mode, protection: Protection) {
    let help = "What the operator wants of this host, and how far that has come.";
    page.info("protection_info", help, &[("mode", &mode), ("state", &protection)]);
}

fn states(page: &mut MetricsPage, summary: &Summary) {
    let count = |state| match state {
        RowState::Off => summary.off,
        RowState::Negotiating => summary.negotiating,
        RowState::Protected => summary.protected,
        RowState::Clear => summary.clear,
        RowState::Blocked => summary.blocked,
    };
    page.family(Kind::Gauge, "pairs", "Pairs of addresses by their state.");
    for state in RowState::ALL {
        page.sample(&[("state", &state)], count(state));
    }
    let help = "Protected pairs whose other host shows no sign of life.";
    page.one(Kind::Gauge, "silent_pairs", help, summary.silent);
}

fn expiry(page: &mut MetricsPage, at: Option<UnixTime>) {
    let help = "When the keys of a pair end first, and its traffic with them, if nobody replaces them.";
    page.time("earliest_expiry_timestamp_seconds", help, at);
}

/// How things stand.
fn host(page: &mut MetricsPage, figures: &Figures) {
    let (cluster, node) = (figures.cluster.as_str(), figures.node.as_ref().map_or("", |node| node.as_str()));
    let secret_id = figures.secret_id.as_deref().unwrap_or_default();
    page.info("build_info", "The version of the agent.", &[("version", &figures.version)]);
    node_info(page, cluster, figures.node.as_ref());
    page.info(
        "config_info",
        "The configuration and the secret of this host, as hashes that are the same on all hosts.",
        &[
            ("cluster", &cluster),
            ("node", &node),
            ("config_id", &figures.config_id),
            ("secret_id", &secret_id),
        ],
    );
    protection_info(page, figures.mode, figures.protection);
    page.one(Kind::Gauge, "healthy", "Whether hostseal status ends with 0.", u8::from(figures.healthy));
    page.time("agent_start_timestamp_seconds", "When the agent started.", Some(figures.started));
    let help = "Whether the files as they are now are not in force.";
    page.one(Kind::Gauge, "config_error", help, u8::from(figures.config_error));
    states(page, &figures.summary);
    problems(page, figures);
    expiry(page, figures.earliest_expiry);
    let help = "When the keys of a pair are to be replaced first. In the past if that does not succeed.";
    page.time("earliest_rekey_due_timestamp_seconds", help, figures.earliest_rekey_due);
    page.one(Kind::Gauge, "sas", "Security associations of hostseal in the kernel.", figures.sas);
    let policies = &figures.policies;
    let policies = [("out", policies.out), ("in", policies.inbound), ("fwd", policies.forward)];
    page.each(Kind::Gauge, "policies", "Policies of hostseal in the kernel.", "direction", policies);
}

fn problems(page: &mut MetricsPage, figures: &Figures) {
    let kinds = ProblemCode::ALL.iter().flat_map(|code| Severity::ALL.map(|severity| (*code, severity)));
    let mut counts: BTreeMap<(ProblemCode, Severity), u64> = kinds.map(|kind| (kind, 0)).collect();
    counts.extend(figures.problems.iter().map(|it| ((it.code, it.severity), it.count)));
    page.family(Kind::Gauge, "problems", "What is wrong with this host beside the states of its pairs.");
    for ((code, severity), count) in counts {
        page.sample(&[("code", &Word(code)), ("severity", &Word(severity))], count);
    }
}

fn volume(page: &mut MetricsPage, volume: Option<Volume>) {
    let Some(Volume { tx, rx, errors }) = volume else { return };
    let bytes = |way| format!("Bytes {way} through all SAs, without IP header and ESP overhead.");
    let packets = |way| format!("Packets {way} through all SAs.");
    page.one(Kind::Counter, "transmit_bytes_total", &bytes("sent"), tx.bytes);
    page.one(Kind::Counter, "transmit_packets_total", &packets("sent"), tx.packets);
    page.one(Kind::Counter, "receive_bytes_total", &bytes("received"), rx.bytes);
    page.one(Kind::Counter, "receive_packets_total", &packets("received"), rx.packets);
    let help =
        "Packets that SAs refused: replayed, older than the replay window, or with a failed integrity check.";
    page.each(Kind::Counter, "errors_total", help, "kind", kinds(errors));
}

fn kinds(SaErrors { replay, replay_window, integrity }: SaErrors) -> [(&'static str, u64); 3] {
    [("replay", replay), ("replay_window", replay_window), ("integrity", integrity)]
}

/// What the agent has done.
fn work(page: &mut MetricsPage, tally: &AgentTally) {
    let results = |Outcomes { done, failed }| [("ok", done), ("failed", failed)];
    page.family(
        Kind::Counter,
        "rekeys_total",
        "Replacements of the keys of pairs (child) and of IKE SAs (ike).",
    );
    for (kind, outcomes) in [("child", tally.rekeys.child), ("ike", tally.rekeys.ike)] {
        for (result, count) in results(outcomes) {
            page.sample(&[("kind", &kind), ("result", &result)], count);
        }
    }
    let help = "Handshakes with other hosts, begun by either end.";
    page.each(Kind::Counter, "handshakes_total", help, "result", results(tally.handshakes));
    handshake_durations(page, &tally.handshake_durations);
    let failures = &tally.ike_failures;
    let failures = [
        ("no_answer", failures.no_answer),
        ("auth_failed", failures.auth_failed),
        ("no_proposal", failures.no_proposal),
        ("peer_refused", failures.peer_refused),
        ("internal", failures.internal),
    ];
    page.each(Kind::Counter, "ike_failures_total", "Attempts to agree keys that failed.", "code", failures);
    let help = "First messages of IKE between addresses that are no pair.";
    page.one(Kind::Counter, "unknown_initiators_total", help, tally.unknown_initiators);
    let help = "Sessions of IKE whose initiator has not proven itself.";
    page.one(Kind::Gauge, "ike_half_open_sessions", help, tally.half_open);
    let help = "Initiators that had to show that they receive at their address.";
    page.one(Kind::Counter, "cookies_total", help, tally.cookies);
    let dropped = &tally.dropped;
    let reasons = [
        ("malformed", dropped.malformed),
        ("unknown_spi", dropped.unknown_spi),
        ("not_authentic", dropped.not_authentic),
        ("unexpected", dropped.unexpected),
        ("fragments", dropped.fragments),
        ("first_requests", dropped.first_requests),
        ("half_open", dropped.half_open),
        ("sessions", dropped.sessions),
        ("answers", dropped.answers),
        ("ike_sas", dropped.ike_sas),
        ("children", dropped.children),
        ("joiners", dropped.joiners),
        ("transmits", dropped.transmits),
    ];
    let help = "What IKE dropped: what it could not use, and what was beyond a bound.";
    page.each(Kind::Counter, "dropped_datagrams_total", help, "reason", reasons);
    let repairs = [("sa", tally.repairs.sas), ("policy", tally.repairs.policies)];
    let help = "Objects in the kernel that somebody else changed or removed, and the agent restored.";
    page.each(Kind::Counter, "drift_repairs_total", help, "object", repairs);
    let help = "How often the kernel had more events than the agent could take; it reads the tables then.";
    page.one(Kind::Counter, "netlink_overruns_total", help, tally.overruns);
}

fn handshake_durations(page: &mut MetricsPage, durations: &Durations) {
    let name = "handshake_duration_seconds";
    page.family(Kind::Histogram, name, "How long handshakes took, from the first message to the proof.");
    for (millis, count) in durations.up_to() {
        page.part("_bucket", &[("le", &(millis as f64 / 1000.0))], count);
    }
    page.part("_bucket", &[("le", &"+Inf")], durations.count());
    page.part("_sum", &[], durations.total().as_secs_f64());
    page.part("_count", &[], durations.count());
}

#[cfg(test)]
pub(crate) mod tests;
