//! The exporter of a host, run by somebody who may look and nothing else.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::HOSTSEAL;
use super::host::{Host, Process};
use super::picture::{PageLook, Served};
use super::wait::until;

/// Where it listens.
pub const PORT: u16 = 10931;
/// The group whose users may look.
const GROUP: u32 = 990;
/// A user who has nothing.
const USER: u32 = 4711;
/// Where it remembers what it saw.
const STATE: &str = "/run/exporter";
/// How long it may take for anything, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// What an exporter said.
#[derive(Debug, Clone)]
pub struct Scrape {
    /// The HTTP status.
    pub code: u16,
    /// The body.
    pub text: String,
}

/// Makes the group, which an agent finds when it starts.
///
/// # Errors
/// When the host cannot be written to.
pub fn make_group(host: &Host) -> Result<()> {
    host.run(&format!("grep -q ^hostseal: /etc/group || echo hostseal:x:{GROUP}: >> /etc/group"))?;
    Ok(())
}

/// What begins a command line of the user, who is in the group or not.
pub fn as_user(in_group: bool) -> String {
    let groups = if in_group { format!("--groups {GROUP}") } else { "--clear-groups".to_owned() };
    format!("setpriv --reuid {USER} --regid {USER} {groups} --inh-caps=-all --bounding-set=-all")
}

/// Starts it and waits until it serves. It is killed when the result goes.
///
/// # Errors
/// When it does not serve.
pub fn start(host: &Host, in_group: bool, listen: &str) -> Result<Process> {
    host.run(&format!("mkdir -p {STATE} && chown {USER} {STATE} && chmod 0700 {STATE}"))?;
    let line = format!("exec {} {HOSTSEAL} exporter --state {STATE} --listen {listen}", as_user(in_group));
    let log = host.within(|| std::fs::File::create("/run/exporter.log"))??;
    let process = host.spawn(Command::new("sh").args(["-c", &line]).stdout(log.try_clone()?).stderr(log))?;
    until("the exporter serves", LIMIT, || get(host, "healthz").and_then(|it| it.expect(200)))
        .with_context(|| host.read("/run/exporter.log").unwrap_or_default())?;
    Ok(process)
}

/// Asks it for a page.
///
/// # Errors
/// When there is no answer.
pub fn get(host: &Host, page: &str) -> Result<Scrape> {
    request(host, &format!("http://127.0.0.1:{PORT}/{page}"))
}

/// The same with what curl takes.
///
/// # Errors
/// When there is no answer.
pub fn request(host: &Host, arguments: &str) -> Result<Scrape> {
    let said = host.run(&format!("curl -s -m 30 -w '\\n%{{http_code}}' {arguments}"))?;
    let (text, code) = said.rsplit_once('\n').context("curl says no status")?;
    Ok(Scrape { code: code.parse()?, text: text.to_owned() })
}

/// The whole answer to whoever asks for the page, of which pictures are wanted.
///
/// # Errors
/// When there is none.
pub fn served(host: &Host, name: &str, looks: &[PageLook]) -> Result<Served> {
    let http = request(host, &format!("-i http://127.0.0.1:{PORT}/"))?.expect(200)?.text;
    Ok(Served { name: name.to_owned(), http, looks: looks.to_vec() })
}

/// All series.
///
/// # Errors
/// When there are none.
pub fn scrape(host: &Host) -> Result<Scrape> {
    get(host, "metrics")?.expect(200)
}

impl Scrape {
    /// Checks the status.
    ///
    /// # Errors
    /// When it is another.
    pub fn expect(self, code: u16) -> Result<Self> {
        ensure!(self.code == code, "{} instead of {code}: {}", self.code, self.text);
        Ok(self)
    }

    /// The value of a sample, such as `hostseal_pairs{state="protected"}`.
    pub fn value(&self, sample: &str) -> Option<f64> {
        let value = |line: &str| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok();
        self.text.lines().find_map(value)
    }

    /// The samples of counters of traffic, which go on over the end of an agent.
    pub fn traffic(&self) -> impl Iterator<Item = (&str, f64)> {
        let samples = self.text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| line.rsplit_once(' '));
        let counts = |name: &str| {
            ["transmit_", "receive_", "errors_"].iter().any(|word| name.contains(word))
                && name.contains("_total")
        };
        samples
            .filter(move |(name, _)| counts(name))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
    }
}
