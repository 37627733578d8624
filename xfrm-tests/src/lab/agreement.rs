//! Whether an exporter says what `hostseal status` says: of its host and of each pair.

use anyhow::{Result, ensure};
use hostseal::observe::status::{PeerRow, SaRow, SaState, Status};
use hostseal::types::{Direction, RowState, UnixTime};
use serde::Serialize;

use super::agent::hostseal;
use super::exporter::{Scrape, scrape};
use super::host::Host;

/// How far apart times may be: both are told in whole seconds, and of two moments.
const APART: f64 = 3.0;

/// Checks that both say the same now. What changes between the two looks makes them differ: try again then.
///
/// # Errors
/// When they do not, or do not answer.
pub fn ensure_agree(host: &Host) -> Result<()> {
    let outcome = hostseal(host, "status --json")?;
    let status: Status = serde_json::from_value(outcome.json()?)?;
    let page = scrape(host)?;
    let comparison = Comparison { page: &page, status: &status };
    comparison.host(outcome.code)?;
    comparison.kernel(host)?;
    status.peers.iter().try_for_each(|row| comparison.pair(row))
}

struct Comparison<'a> {
    page: &'a Scrape,
    status: &'a Status,
}

impl Comparison<'_> {
    fn equal(&self, sample: &str, expected: u64) -> Result<()> {
        let said = self.page.value(sample);
        ensure!(said == Some(expected as f64), "{sample}: {said:?}, and status says {expected}");
        Ok(())
    }

    fn about(&self, sample: &str, expected: Option<UnixTime>) -> Result<()> {
        let said = self.page.value(sample);
        let expected = expected.map(|time| time.0 as f64);
        let agree = match (said, expected) {
            (Some(said), Some(expected)) => (said - expected).abs() <= APART,
            (said, expected) => said.is_none() && expected.is_none(),
        };
        ensure!(agree, "{sample}: {said:?}, and status says {expected:?}");
        Ok(())
    }

    fn host(&self, exit: i32) -> Result<()> {
        let Status { summary, protection, mode, config_id, secret_id, cluster, .. } = self.status;
        let node = self.status.node.as_ref().map(ToString::to_string).unwrap_or_default();
        self.equal("hostseal_agent_up", 1)?;
        self.equal("hostseal_healthy", u64::from(exit == 0))?;
        self.equal("hostseal_config_error", u64::from(self.status.config_error.is_some()))?;
        for (state, count) in [
            ("off", summary.off),
            ("negotiating", summary.negotiating),
            ("protected", summary.protected),
            ("clear", summary.clear),
            ("blocked", summary.blocked),
        ] {
            self.equal(&format!("hostseal_pairs{{state=\"{state}\"}}"), count)?;
        }
        self.equal("hostseal_silent_pairs", summary.silent)?;
        let (mode, protection) = (word(mode), word(protection));
        self.equal(&format!("hostseal_protection_info{{mode=\"{mode}\",state=\"{protection}\"}}"), 1)?;
        let names = format!("cluster=\"{cluster}\",node=\"{node}\"");
        self.equal(&format!("hostseal_node_info{{{names}}}"), 1)?;
        let secret_id = secret_id.as_deref().unwrap_or_default();
        let ids = format!("config_id=\"{config_id}\",secret_id=\"{secret_id}\"");
        self.equal(&format!("hostseal_config_info{{{names},{ids}}}"), 1)?;
        for problem in &self.status.problems {
            let alike =
                |it: &&hostseal::types::Problem| (it.code, it.severity) == (problem.code, problem.severity);
            let labels = format!("code=\"{}\",severity=\"{}\"", word(&problem.code), word(&problem.severity));
            let count = self.status.problems.iter().filter(alike).count();
            self.equal(&format!("hostseal_problems{{{labels}}}"), count as u64)?;
        }
        let uptime = self.status.agent.uptime_s.map(|uptime| UnixTime(self.status.time.0 - uptime));
        self.about("hostseal_agent_start_timestamp_seconds", uptime)?;
        let rows = || self.status.peers.iter();
        let first = |times: Vec<Option<UnixTime>>| times.into_iter().flatten().min();
        let due = first(rows().map(|row| self.due(row)).collect());
        self.about("hostseal_earliest_rekey_due_timestamp_seconds", due)?;
        let expiry = first(rows().map(|row| self.expiry(row)).collect());
        self.about("hostseal_earliest_expiry_timestamp_seconds", expiry)
    }

    /// What the kernel says of itself.
    fn kernel(&self, host: &Host) -> Result<()> {
        let sas = host.run("ip xfrm state | grep -c 'proto esp spi 0x[c-f]' || true")?;
        self.equal("hostseal_sas", sas.trim().parse()?)?;
        for direction in ["out", "in", "fwd"] {
            let policies = host.run(&format!("ip xfrm policy | grep -c '\\sdir {direction} ' || true"))?;
            let sample = format!("hostseal_policies{{direction=\"{direction}\"}}");
            self.equal(&sample, policies.trim().parse()?)?;
        }
        Ok(())
    }

    fn pair(&self, row: &PeerRow) -> Result<()> {
        let ends = format!("peer=\"{}\",local=\"{}\",remote=\"{}\"", row.node, row.local, row.remote);
        let named = |name: &str, label: &str, value: &str| {
            format!("hostseal_pair_{name}{{{ends},{label}=\"{value}\"}}")
        };
        let plain = |name: &str| format!("hostseal_pair_{name}{{{ends}}}");
        self.equal(&named("info", "family", &word(&row.family)), 1)?;
        for state in RowState::ALL {
            self.equal(&named("state", "state", &word(&state)), u64::from(state == row.state))?;
        }
        if let Some(code) = &row.reason_code {
            self.equal(&named("reason_info", "code", &word(code)), 1)?;
        }
        self.equal(&named("encapsulation_info", "kind", &word(&row.encapsulation)), 1)?;
        self.about(&plain("state_since_timestamp_seconds"), row.since)?;
        let refused = [
            ("replay", row.errors.replay),
            ("replay_window", row.errors.replay_window),
            ("integrity", row.errors.integrity),
        ];
        for (kind, count) in refused {
            self.equal(&named("errors_total", "kind", kind), count)?;
        }
        let (esp, ike) = (
            named("last_heard_timestamp_seconds", "via", "esp"),
            named("last_heard_timestamp_seconds", "via", "ike"),
        );
        self.about(&esp, row.last_heard_esp)?;
        let latest = [&esp, &ike].into_iter().filter_map(|sample| self.page.value(sample)).reduce(f64::max);
        let heard = row.last_heard.map(|heard| heard.0 as f64);
        let agree =
            latest.zip(heard).map_or(latest == heard, |(latest, heard)| (latest - heard).abs() <= APART);
        ensure!(agree, "{ends} heard {latest:?}, and status says {heard:?}");
        self.about(&plain("rekey_due_timestamp_seconds"), self.due(row))?;
        self.about(&plain("expiry_timestamp_seconds"), self.expiry(row))
    }

    fn due(&self, row: &PeerRow) -> Option<UnixTime> {
        let outbound = |sa: &&SaRow| sa.state == SaState::Active && sa.direction == Direction::Out;
        let left = row.sas.iter().filter(outbound).filter_map(|sa| sa.rekey_in_s).min()?;
        Some(UnixTime(self.status.time.0 + left))
    }

    fn expiry(&self, row: &PeerRow) -> Option<UnixTime> {
        let active = row.sas.iter().filter(|sa| sa.state == SaState::Active);
        let left = active.filter_map(|sa| sa.expires_in_s).min()?;
        Some(UnixTime(self.status.time.0 + left))
    }
}

/// What JSON calls it.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        other => format!("{other:?}"),
    }
}
