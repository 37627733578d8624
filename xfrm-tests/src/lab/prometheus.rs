//! A stock Prometheus on a host of the lab, which scrapes exporters, and is asked.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::exporter::PORT;
use super::host::{Host, Process};
use super::wait::until;

/// Where its files are.
const FILES: &str = "/run/prometheus";
/// The alerts that the package brings.
pub const ALERTS: &str = include_str!("../../../monitoring/alerts.yaml");
/// The dashboard.
pub const DASHBOARD: &str = include_str!("../../../monitoring/dashboard.json");
/// What people read about all of it.
const MONITORING: &str = include_str!("../../../docs/monitoring.md");
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

    /// Has it ask one more address, or no more than those that it began with.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn also_ask(&self, address: Option<&str>) -> Result<()> {
        let targets =
            address.map(|address| format!("- targets: [\"{address}\"]\n")).unwrap_or("[]\n".to_owned());
        self.host.write(&format!("{FILES}/hostseal/more.yaml"), &targets, 0o644)
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

    /// The alerts that fire now.
    ///
    /// # Errors
    /// When it does not say.
    pub fn firing(&self) -> Result<Alerts> {
        self.alerts("ALERTS{alertstate=\"firing\"}")
    }

    /// The alerts that have fired at any time since then: nothing is missed between two looks.
    ///
    /// # Errors
    /// When it does not say.
    pub fn fired_since(&self, then: Instant) -> Result<Alerts> {
        let seconds = then.elapsed().as_secs().max(1);
        self.alerts(&format!("present_over_time(ALERTS{{alertstate=\"firing\"}}[{seconds}s])"))
    }

    fn alerts(&self, expression: &str) -> Result<Alerts> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = |(labels, _): (Value, f64)| {
            let whom = if labels["instance"].is_string() { &labels["instance"] } else { &labels["cluster"] };
            (text(&labels["alertname"]).trim_start_matches("Hostseal").to_owned(), text(whom))
        };
        Ok(self.query(expression)?.into_iter().map(name).collect())
    }

    /// Waits until nothing fires.
    ///
    /// # Errors
    /// When something goes on firing for that long.
    pub fn until_calm(&self, limit: Duration) -> Result<()> {
        until("nothing fires", limit, || {
            let firing = self.firing()?;
            ensure!(firing.is_empty(), "{firing:?}");
            Ok::<_, anyhow::Error>(())
        })
    }

    /// Checks that what is shown of `subjects` has data: each query of the dashboard, what its variables list, and each
    /// series that an alert looks at.
    ///
    /// # Errors
    /// When one has none, or none with labels where its words name some.
    pub fn ensure_shown(&self, subjects: &[ShownPart]) -> Result<()> {
        let is_meant = |expression: &&String| subjects.contains(&ShownPart::of(expression));
        let shown = [queries()?, alerted()].concat();
        for expression in shown.iter().filter(is_meant) {
            let samples = self.query(expression)?;
            ensure!(!samples.is_empty(), "nothing to show: {expression}");
        }
        Ok(())
    }
}

/// Alerts without what all names begin with, each with the host or the cluster that it is about.
pub type Alerts = BTreeSet<(String, String)>;

/// What an expression is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownPart {
    /// Any host.
    Host,
    /// A member of a cluster with a roster.
    Member,
    /// A host whose secret is wrapped by a key in a KMS.
    Wrapped,
    /// node_exporter.
    Textfile,
}

impl ShownPart {
    fn of(expression: &str) -> Self {
        match expression {
            _ if expression.contains("hostseal_cluster_") => ShownPart::Member,
            _ if expression.contains("hostseal_kms_") => ShownPart::Wrapped,
            _ if expression.contains("node_textfile_") => ShownPart::Textfile,
            _ => ShownPart::Host,
        }
    }
}

/// The alerts of the package without their patience, which is minutes.
pub fn impatient() -> String {
    let hasty = |line: &str| match line.trim_start() {
        patience if patience.starts_with("for:") => "        for: 1s\n".to_owned(),
        _ => format!("{}\n", line.replace("_due_timestamp_seconds > 600", "_due_timestamp_seconds > 5")),
    };
    ALERTS.lines().map(hasty).collect()
}

/// The queries of the dashboard, and those that its variables make, with what Grafana would put in.
///
/// # Errors
/// When it is no dashboard.
pub fn queries() -> Result<Vec<String>> {
    let dashboard: Value = serde_json::from_str(DASHBOARD)?;
    let panels = dashboard["panels"].as_array().context("no panels")?.iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions = targets.filter_map(|target| target["expr"].as_str()).map(str::to_owned);
    let variables = dashboard["templating"]["list"].as_array().context("no variables")?.iter();
    let listed = variables.filter_map(|variable| {
        let (series, label) = variable["query"]
            .as_str()?
            .strip_prefix("label_values(")?
            .strip_suffix(')')?
            .rsplit_once(", ")?;
        // A label that is not there groups all under nothing.
        let (name, chosen) = series.split_once('{').unwrap_or((series, "}"));
        let chosen = chosen.trim_end_matches('}');
        let comma = if chosen.is_empty() { "" } else { ", " };
        // A label that is not there would group all under nothing.
        Some(format!("count by ({label}) ({name}{{{chosen}{comma}{label}!=\"\"}})"))
    });
    let filled = |expression: &str| {
        expression.replace("$__rate_interval", "30s").replace("$cluster", ".*").replace("$node", ".*")
    };
    Ok(expressions.chain(listed).map(|expression| filled(&expression)).collect())
}

/// The targets that a member writes of its roster, by the line that the pages give.
///
/// # Errors
/// When there is no such line, or it fails.
pub fn targets_of_roster(member: &Host) -> Result<Value> {
    let is_meant = |line: &&str| line.starts_with("hostseal status --cluster --json | python3 ");
    let line = MONITORING.lines().find(is_meant).context("the pages have no such line")?;
    let (line, _) = line.rsplit_once(" > ").context("it writes no file")?;
    Ok(serde_json::from_str(&member.run(line)?)?)
}

/// The series that alerts look at, whatever their labels are.
fn alerted() -> Vec<String> {
    let expressions = ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let words = expressions.flat_map(|expression| {
        expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
    });
    let series = words.filter(|word| word.starts_with("hostseal_") || word.starts_with("node_textfile_"));
    series.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use crate::lab::root::Root;

    /// With their patience, and of made-up series. The root's promtool runs on this machine, with the root's libraries: the
    /// kernel of the lab takes minutes for what takes seconds here.
    #[test]
    fn alerts_pass_their_own_tests() {
        let Root { path: root } = Root::prepare().unwrap();
        let promtool = |arguments: &[&str]| {
            let mut command = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
            command.arg("--library-path").arg(root.join("usr/lib/x86_64-linux-gnu"));
            command.arg(root.join("usr/bin/promtool")).args(arguments);
            let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../monitoring");
            let said = command.current_dir(rules).output().unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        };
        promtool(&["check", "rules", "alerts.yaml"]);
        promtool(&["test", "rules", "alerts_test.yaml", "alerts_hours_test.yaml"]);
    }
}
