//! Starts the agent: by systemd where it knows the service, else as a process.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::args::Invocation;
use super::client::Client;
use super::exit::{CommandError, Exit};
use super::log;
use crate::config::{Config, DEFAULT_PATH};

/// The unit of the package; enabling it enables the guard's too.
const SERVICE: &str = "hostseal.service";
/// How often a new agent is asked whether it is there.
const INTERVAL: Duration = Duration::from_millis(20);
/// How much of a log is shown when an agent ends at once.
const LOG_LINES: usize = 5;

/// An agent that was started.
#[derive(Debug)]
pub(super) struct Started {
    /// How, and where it logs.
    pub(super) how: String,
    child: Option<(Child, PathBuf)>,
}

/// Sees to it that guard and agent start at every boot, where systemd has our units. Elsewhere that is the
/// operator's to arrange.
pub(super) fn at_boot(invocation: &Invocation) -> Result<(), CommandError> {
    if systemd_has_it(&invocation.config) { systemctl("enable") } else { Ok(()) }
}

/// Starts the agent; it may not answer yet.
pub(super) fn start(invocation: &Invocation, config: &Config) -> Result<Started, CommandError> {
    if systemd_has_it(&invocation.config) { by_systemd() } else { detached(invocation, config) }
}

/// Waits until an agent answers.
pub(super) fn wait(mut started: Started, client: &Client, deadline: Instant) -> Result<(), CommandError> {
    loop {
        if client.is_there()? {
            return Ok(());
        }
        if let Some((child, log)) = &mut started.child {
            let ended =
                child.try_wait().map_err(|error| CommandError::io("waiting for the agent", &error))?;
            if let Some(status) = ended {
                // Both are written for people, and the log's last line says why.
                let message = format!("the agent ended at once ({status}):\n{}", last_lines(log));
                return Err(CommandError::new(ended_with(status.code()), message));
            }
        }
        if Instant::now() >= deadline {
            let message = format!("the agent does not answer yet; {}", started.how);
            return Err(CommandError::new(Exit::Failed, message));
        }
        std::thread::sleep(INTERVAL);
    }
}

/// The agent's exit status is of the same kind as ours.
fn ended_with(code: Option<i32>) -> Exit {
    match code {
        Some(2) => Exit::Usage,
        Some(5) => Exit::NotPermitted,
        _ => Exit::Failed,
    }
}

/// Makes the calling process, just started as an agent, independent of the session that started it.
///
/// # Errors
/// The system refused.
pub fn detach() -> Result<(), CommandError> {
    nix::unistd::setsid()
        .map(|_| ())
        .map_err(|errno| CommandError::io("starting a session of the agent's own", &errno.into()))
}

/// Whether systemd runs this very host (not one that is a network namespace of it) and has our service,
/// which runs with the default configuration.
fn systemd_has_it(config: &Path) -> bool {
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    config == Path::new(DEFAULT_PATH)
        && Path::new("/run/systemd/system").exists()
        && network("1").is_some_and(|first| network("self") == Some(first))
        && Command::new("systemctl")
            .args(["cat", SERVICE])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

fn by_systemd() -> Result<Started, CommandError> {
    systemctl("start")?;
    let how = "started by systemd: `journalctl -u hostseal` shows its log".to_owned();
    Ok(Started { how, child: None })
}

/// Has systemd do something to our service.
fn systemctl(verb: &str) -> Result<(), CommandError> {
    let output = Command::new("systemctl")
        .args(["--quiet", verb, SERVICE])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| CommandError::io("running systemctl", &error))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let message = format!("systemd did not {verb} {SERVICE}: {}", said.trim());
        return Err(CommandError::new(Exit::Failed, message));
    }
    Ok(())
}

fn detached(invocation: &Invocation, config: &Config) -> Result<Started, CommandError> {
    let path = config.run_dir.join("agent.log");
    let log = make_log(&config.run_dir, &path)
        .map_err(|error| CommandError::io(format!("writing {}", path.display()), &error))?;
    let spawn = || {
        let file = std::path::absolute(&invocation.config)?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--config").arg(file).args(["agent", "--detached", "--log-file"]).arg(&path);
        command.args((0..invocation.verbose).map(|_| "-v"));
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.spawn()
    };
    let child = spawn().map_err(|error| CommandError::io("starting the agent", &error))?;
    let how = format!("started as process {}, logging to {}", child.id(), path.display());
    Ok(Started { how, child: Some((child, path)) })
}

fn make_log(run_dir: &Path, path: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o755).create(run_dir)?;
    log::open(path)
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES)..];
    shown.iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that was started as an agent and does what `script` says.
    fn started(directory: &Path, script: &str) -> Started {
        let log = directory.join("agent.log");
        let file = make_log(directory, &log).unwrap();
        let mut command = Command::new("sh");
        let child = command.arg("-c").arg(script).stdin(Stdio::null()).stderr(file).spawn().unwrap();
        Started { how: "started somehow".to_owned(), child: Some((child, log)) }
    }

    fn wait_for(script: &str, patience: Duration) -> CommandError {
        let directory = tempfile::tempdir().unwrap();
        let client = Client::new(directory.path().join("socket"));
        wait(started(directory.path(), script), &client, Instant::now() + patience).unwrap_err()
    }

    #[test]
    fn an_agent_that_ends_at_once_says_why() {
        let lines = "for n in 1 2 3 4 5 6; do echo \"line $n\" >&2; done; ";
        for (code, exit) in [(1, Exit::Failed), (2, Exit::Usage), (5, Exit::NotPermitted)] {
            let failure = wait_for(&format!("{lines} exit {code}"), Duration::from_secs(60));
            assert_eq!(failure.exit, exit);
            assert!(
                failure.message.ends_with("\n  line 2\n  line 3\n  line 4\n  line 5\n  line 6"),
                "{failure:?}"
            );
        }
        assert_eq!(wait_for("kill -9 $$", Duration::from_secs(60)).exit, Exit::Failed);
    }

    #[test]
    fn an_agent_that_takes_too_long_is_not_waited_for() {
        // It ends by itself: nobody is left to end it.
        let failure = wait_for("exec sleep 10", Duration::ZERO);
        assert_eq!(
            (failure.exit, failure.message.as_str()),
            (Exit::Failed, "the agent does not answer yet; started somehow")
        );
    }

    #[test]
    fn logs_are_for_root_alone() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let (run_dir, log) = (directory.path().join("made/run"), directory.path().join("made/run/agent.log"));
        drop(make_log(&run_dir, &log).unwrap());
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn systemd_runs_the_default_configuration_only() {
        assert!(!systemd_has_it(Path::new("/etc/hostseal/other.toml")));
    }
}
