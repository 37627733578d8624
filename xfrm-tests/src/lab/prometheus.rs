//! A stock Prometheus on a host of the lab, which scrapes exporters, and is asked.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::exporter::PORT;
use super::host::{Host, Process};
use super::wait::until;

/// Where its files are.
const FILES: &str = "/run/prometheus";
/// The alerts that the package brings.
pub const ALERTS: &str = include_str!("../../../monitoring/alerts.yaml");
/// Its tests.
pub const ALERTS_TEST: &str = include_str!("../../../monitoring/alerts_test.yaml");
/// The dashboard.
pub const DASHBOARD: &str = include_str!("../../../monitoring/dashboard.json");
/// The scrape configurations.
pub const CONFIGURATION: &str = include_str!("../../../monitoring/prometheus.yaml");
/// How long it may take to be ready, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A Prometheus.
pub struct Prometheus {
    host: Host,
    _process: Process,
}

impl Prometheus {
    /// Starts one that scrapes the exporters of `hosts` each `seconds`, and evaluates `rules` as often.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(host: &Host, hosts: &[Host], rules: &str, seconds: u32) -> Result<Self> {
        let targets: Vec<String> = hosts.iter().map(|host| format!("\"{}:{PORT}\"", host.v4())).collect();
        host.write(
            &format!("{FILES}/hostseal/lab.yaml"),
            &format!("- targets: [{}]\n", targets.join(", ")),
            0o644,
        )?;
        host.write(&format!("{FILES}/alerts.yaml"), rules, 0o644)?;
        // The configuration that the package brings, with the places of the lab.
        let configuration = CONFIGURATION
            .replace("/usr/share/hostseal/monitoring/", &format!("{FILES}/"))
            .replace("/etc/prometheus/", &format!("{FILES}/"));
        let every = format!(
            "scrape_interval: {seconds}s, scrape_timeout: {seconds}s, evaluation_interval: {seconds}s"
        );
        let global = format!("global: {{ {every} }}\n");
        host.write(&format!("{FILES}/prometheus.yml"), &(global + &configuration), 0o644)?;
        host.run(&format!("promtool check config {FILES}/prometheus.yml"))?;
        let log = host.within(|| std::fs::File::create("/run/prometheus.log"))??;
        let mut command = Command::new("prometheus");
        command.args([
            format!("--config.file={FILES}/prometheus.yml"),
            format!("--storage.tsdb.path={FILES}/data"),
            "--web.listen-address=127.0.0.1:9090".to_owned(),
        ]);
        let process = host.spawn(command.stdout(log.try_clone()?).stderr(log))?;
        let prometheus = Self { host: host.clone(), _process: process };
        until("Prometheus has asked all exporters", LIMIT, || {
            let up = prometheus.query("sum(up)")?;
            ensure!(up.first().is_some_and(|it| it.1 == hosts.len() as f64), "{up:?}");
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(prometheus)
    }

    /// The samples of an expression now: labels and value.
    ///
    /// # Errors
    /// When it is none.
    pub fn query(&self, expression: &str) -> Result<Vec<(Value, f64)>> {
        let mut curl = Command::new("curl");
        curl.args(["-s", "-m", "30", "--data-urlencode"]).arg(format!("query={expression}"));
        let said = self.host.output_of(curl.arg("http://127.0.0.1:9090/api/v1/query"))?;
        let said: Value = serde_json::from_slice(&said.stdout).context("Prometheus does not answer")?;
        ensure!(said["status"] == "success", "{expression}: {said}");
        let samples = said["data"]["result"].as_array().context("no samples")?.iter();
        let sample = |sample: &Value| {
            let value = sample["value"][1].as_str().and_then(|value| value.parse().ok());
            Some((sample["metric"].clone(), value?))
        };
        Ok(samples.filter_map(sample).collect())
    }

    /// The one value of an expression.
    ///
    /// # Errors
    /// When there is none, or there are several.
    pub fn value(&self, expression: &str) -> Result<f64> {
        match self.query(expression)?[..] {
            [(_, value)] => Ok(value),
            ref others => anyhow::bail!("{expression}: {others:?}"),
        }
    }

    /// The names of the alerts that fire now, each with the host or the cluster that it is about.
    ///
    /// # Errors
    /// When it does not say.
    pub fn firing(&self) -> Result<Vec<(String, String)>> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = |(labels, _): (Value, f64)| {
            let whom = if labels["instance"].is_string() { &labels["instance"] } else { &labels["cluster"] };
            (text(&labels["alertname"]), text(whom))
        };
        Ok(self.query("ALERTS{alertstate=\"firing\"}")?.into_iter().map(name).collect())
    }
}

/// The queries of the dashboard, with what Grafana would put in.
///
/// # Errors
/// When it is no dashboard.
pub fn queries() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(DASHBOARD)?;
    let panels = dashboard["panels"].as_array().context("no panels")?.iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions = targets.filter_map(|target| target["expr"].as_str());
    let filled = |expression: &str| {
        expression.replace("$__rate_interval", "30s").replace("$cluster", ".*").replace("$node", ".*")
    };
    Ok(expressions.map(filled).collect())
}

/// The expressions of the alerts.
pub fn expressions() -> Vec<&'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).collect()
}
