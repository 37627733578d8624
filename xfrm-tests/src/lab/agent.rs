//! The product on the hosts of the lab: configuration, secret, and the real binary.

use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::HOSTSEAL;
use super::host::{Host, Process};
use super::wait::until;

/// Where the product looks by itself.
pub const CONFIG: &str = "/etc/hostseal/hostseal.toml";
/// The secret that [`CONFIG`] names.
pub const SECRET: &str = "/etc/hostseal/secret";
/// Two secrets for tests: 32 bytes in base64.
pub const SECRETS: [&str; 2] =
    ["bGFiIHNlY3JldCBudW1iZXIgb25lLCAzMiBieXRlcy4=", "bGFiIHNlY3JldCBudW1iZXIgdHdvLCAzMiBieXRlcy4="];

/// How clusters make keys that do not say it themselves; where it is not set, as the product does by default.
static METHOD: OnceLock<String> = OnceLock::new();

/// Has clusters make keys by `method` from now on that do not say it themselves. What was said first holds.
pub fn make_keys_by(method: String) {
    METHOD.get_or_init(|| method);
}

/// Hosts with one configuration and one secret.
#[derive(Clone)]
pub struct Cluster {
    members: Vec<(String, Vec<String>)>,
    sections: Vec<(String, Vec<String>)>,
    /// Further lines of members, by their names.
    lines: Vec<(String, String)>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was run, for messages.
    pub what: String,
    /// The exit status; 128 and more for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Cluster {
    /// These addresses of each host.
    pub fn new<'a>(members: impl IntoIterator<Item = (&'a Host, Vec<String>)>) -> Self {
        let members = members.into_iter().map(|(host, addresses)| (host.name().to_owned(), addresses));
        Self { members: members.collect(), sections: sections(), lines: Vec::new() }
    }

    /// Both addresses of all `hosts`.
    pub fn of(hosts: &[Host]) -> Self {
        let addresses = |host: &Host| vec![host.v4().to_string(), host.v6().to_string()];
        let members = hosts.iter().map(|host| (host.name().to_owned(), addresses(host))).collect();
        Self { members, sections: sections(), lines: Vec::new() }
    }

    /// The IPv4 addresses of all `hosts` alone.
    pub fn of_v4(hosts: &[Host]) -> Self {
        let mut cluster = Self::of(hosts);
        for (_, addresses) in &mut cluster.members {
            addresses.truncate(1);
        }
        cluster
    }

    /// Adds a line to a section, such as `keying`, `rekey_after = "2s"`.
    #[must_use]
    pub fn with(mut self, section: &str, line: &str) -> Self {
        match self.sections.iter_mut().find(|(name, _)| name == section) {
            Some((_, lines)) => lines.push(line.to_owned()),
            None => self.sections.push((section.to_owned(), vec![line.to_owned()])),
        }
        self
    }

    /// With keys that are made so: `method` as the file calls it.
    #[must_use]
    pub fn by(self, method: &str) -> Self {
        self.with("keying", &format!("method = \"{method}\""))
    }

    /// The same with the method of [`make_keys_by`], unless it has one.
    fn with_method(&self) -> Self {
        let keying = self.sections.iter().find(|(name, _)| name == "keying");
        let is_said = keying.is_some_and(|(_, lines)| lines.iter().any(|line| line.starts_with("method")));
        match METHOD.get().filter(|_| !is_said) {
            Some(method) => self.clone().by(method),
            None => self.clone(),
        }
    }

    /// Adds a line to the entry of a host, such as `auth = "secret"`.
    #[must_use]
    pub fn with_node(mut self, host: &Host, line: &str) -> Self {
        self.lines.push((host.name().to_owned(), line.to_owned()));
        self
    }

    /// The configuration file.
    pub fn text(&self) -> String {
        let mut text = "cluster = \"lab\"\n".to_owned();
        for (name, lines) in &self.with_method().sections {
            text += &format!("\n[{name}]\n{}\n", lines.join("\n"));
        }
        for (name, addresses) in &self.members {
            text += &format!("\n[[nodes]]\nname = \"{name}\"\naddresses = {addresses:?}\n");
            for (_, line) in self.lines.iter().filter(|(member, _)| member == name) {
                text += &format!("{line}\n");
            }
        }
        text
    }

    /// Writes configuration and secret to a host.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn install(&self, host: &Host, secret: &str) -> Result<()> {
        host.write(CONFIG, &self.text(), 0o644)?;
        host.write(SECRET, &format!("{secret}\n"), 0o600)
    }

    /// Writes configuration and the first of [`SECRETS`] to all `hosts`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn install_all(&self, hosts: &[Host]) -> Result<()> {
        hosts.iter().try_for_each(|host| self.install(host, SECRETS[0]))
    }
}

/// What every file says.
fn sections() -> Vec<(String, Vec<String>)> {
    vec![("secret".to_owned(), vec![format!("file = \"{SECRET}\"")])]
}

/// Runs `hostseal ARGUMENTS` on a host to its end, whatever that is. It is stopped after a minute.
///
/// # Errors
/// When it cannot be started.
pub fn hostseal(host: &Host, arguments: &str) -> Result<Outcome> {
    run(host, arguments, &format!("{HOSTSEAL} {arguments}"))
}

/// The same where the system is called `name`: otherwise all hosts have the name of the machine.
///
/// # Errors
/// When it cannot be started.
pub fn hostseal_called(host: &Host, name: &str, arguments: &str) -> Result<Outcome> {
    let line = format!("sysctl -qw kernel.hostname={name} && exec {HOSTSEAL} {arguments}");
    run(host, arguments, &format!("unshare --uts sh -c '{line}'"))
}

fn run(host: &Host, arguments: &str, command: &str) -> Result<Outcome> {
    // A daemon that it starts must not keep our pipes open, so the streams go through files.
    let id = std::thread::current().id();
    let base = format!("/tmp/hostseal-{}-{id:?}", host.name()).replace(['(', ')'], "");
    let line = format!("timeout 60 {command} >{base}.out 2>{base}.err");
    let status = host.within(|| {
        Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
    })??;
    let read = |ending: &str| host.read(&format!("{base}.{ending}"));
    let what = format!("{}# hostseal {arguments}", host.name());
    Ok(Outcome { what, code: code(status), stdout: read("out")?, stderr: read("err")? })
}

/// Runs the same command on all hosts at the same time.
///
/// # Errors
/// When one cannot be started.
pub fn hostseal_all(hosts: &[Host], arguments: &str) -> Result<Vec<Outcome>> {
    std::thread::scope(|scope| {
        let running: Vec<_> =
            hosts.iter().map(|host| scope.spawn(move || hostseal(host, arguments))).collect();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

impl Outcome {
    /// Checks the exit status.
    ///
    /// # Errors
    /// When it is another, with all that the command wrote.
    pub fn expect_code(self, code: i32) -> Result<Self> {
        ensure!(
            self.code == code,
            "`{}` ended with {} instead of {code}\n{}{}",
            self.what,
            self.code,
            self.stdout,
            self.stderr
        );
        Ok(self)
    }

    /// What it printed as one JSON object.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("`{}` printed no JSON:\n{}{}", self.what, self.stdout, self.stderr))
    }
}

/// `hostseal status --json` of a host.
#[derive(Debug, Clone)]
pub struct Status(pub Value);

/// Asks a host for its status. Any of the exit statuses that product.md has for it will do.
///
/// # Errors
/// When there is no answer.
pub fn status(host: &Host) -> Result<Status> {
    /// How often the agent is asked again: a machine that has no time for it looks as if the agent hung.
    const TRIES: usize = 5;
    let mut seen = Status(Value::Null);
    for _ in 0..TRIES {
        let outcome = hostseal(host, "status --json")?;
        ensure!(matches!(outcome.code, 0 | 3 | 4), "{outcome:?}");
        seen = outcome.json().map(Status)?;
        if seen.at("/agent/running") != true || seen.at("/agent/answering") == true {
            break;
        }
    }
    Ok(seen)
}

/// Waits until a host's status satisfies `wanted`.
///
/// # Errors
/// After `limit`, with the last status.
pub fn status_until(
    host: &Host,
    what: &str,
    limit: Duration,
    wanted: impl Fn(&Status) -> bool,
) -> Result<Status> {
    until(&format!("{what} on {}", host.name()), limit, || {
        let status = status(host)?;
        ensure!(wanted(&status), "{:#}", status.0);
        Ok::<_, anyhow::Error>(status)
    })
}

impl Status {
    /// The value at a path such as `/summary/protected`; null if there is none.
    pub fn at(&self, path: &str) -> &Value {
        self.0.pointer(path).unwrap_or(&Value::Null)
    }

    /// A number at a path; 0 if there is none.
    pub fn number(&self, path: &str) -> u64 {
        self.at(path).as_u64().unwrap_or_default()
    }

    /// All rows.
    pub fn peers(&self) -> &[Value] {
        self.at("/peers").as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// The row of the pair with this address of the other.
    ///
    /// # Errors
    /// When there is none.
    pub fn peer(&self, remote: std::net::IpAddr) -> Result<Status> {
        let remote = remote.to_string();
        let row = self.peers().iter().find(|row| row["remote"] == remote.as_str());
        row.cloned().map(Status).with_context(|| format!("no row of {remote} in {:#}", self.0))
    }

    /// Whether there are rows and all of them are protected.
    pub fn all_protected(&self) -> bool {
        !self.peers().is_empty() && self.peers().iter().all(|row| row["state"] == "protected")
    }

    /// The agent's process, when one runs.
    ///
    /// # Errors
    /// When none runs.
    pub fn agent(&self) -> Result<Pid> {
        ensure!(self.at("/agent/running") == true, "no agent runs: {:#}", self.0);
        Ok(Pid::from_raw(i32::try_from(self.number("/agent/pid"))?))
    }
}

/// Kills a host's agent without a warning and waits until it is gone.
///
/// # Errors
/// When none runs, or it does not go.
pub fn kill_agent(host: &Host) -> Result<()> {
    let agent = status(host)?.agent()?;
    kill(agent, Signal::SIGKILL)?;
    await_end(host, agent)
}

/// Waits until a process of a host is gone.
///
/// # Errors
/// When it stays.
pub fn await_end(host: &Host, process: Pid) -> Result<()> {
    until("the process is gone", Duration::from_secs(5), || match host.processes()?.contains(&process) {
        false => Ok(()),
        true => Err(anyhow::anyhow!("process {process} is there")),
    })
}

/// Starts `hostseal agent` in the foreground of a host, with its output in a file. It is killed when the
/// result goes.
///
/// # Errors
/// When it cannot be started.
pub fn start_agent(host: &Host) -> Result<Process> {
    let log = host.within(|| std::fs::File::create("/run/agent.log"))??;
    let mut command = Command::new(HOSTSEAL);
    command.arg("agent").stdout(log.try_clone()?).stderr(log);
    host.spawn(&mut command)
}
