//! One agent per run directory: a lock, and in its file the process that holds it.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long an agent may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often it is looked whether it has.
const INTERVAL: Duration = Duration::from_millis(20);

fn path(run_dir: &Path) -> PathBuf {
    run_dir.join("agent.lock")
}

fn try_lock(path: &Path) -> anyhow::Result<Option<Flock<File>>> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let file = file.with_context(|| format!("{} cannot be opened", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

/// The lock of the only agent, for as long as it is held.
pub(super) fn claim(run_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = path(run_dir);
    let Some(mut lock) = try_lock(&path)? else {
        bail!("another agent runs: it holds {}", path.display());
    };
    lock.set_len(0)?;
    write!(lock, "{}", std::process::id())?;
    Ok(lock)
}

/// Whether the agent of a run directory runs.
pub(super) fn runs(run_dir: &Path) -> anyhow::Result<bool> {
    let path = path(run_dir);
    Ok(path.exists() && try_lock(&path)?.is_none())
}

/// Ends the agent of a run directory, if one runs: by SIGTERM, or SIGKILL where that does not help.
pub(super) fn end(run_dir: &Path) -> anyhow::Result<()> {
    let path = path(run_dir);
    if !path.exists() {
        return Ok(());
    }
    let started = Instant::now();
    let mut asked = None;
    while try_lock(&path)?.is_none() {
        let text = fs::read_to_string(&path)?;
        let pid: i32 = text.trim().parse().with_context(|| format!("{} names no process", path.display()))?;
        let signal = if started.elapsed() < PATIENCE { Signal::SIGTERM } else { Signal::SIGKILL };
        if asked != Some(signal) {
            asked = Some(signal);
            kill(Pid::from_raw(pid), signal)
                .with_context(|| format!("the agent (pid {pid}) cannot be ended"))?;
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_while_the_first_runs() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!runs(directory.path()).unwrap());
        let first = claim(directory.path()).unwrap();
        assert!(runs(directory.path()).unwrap());
        assert!(claim(directory.path()).unwrap_err().to_string().contains("another agent runs"));
        drop(first);
        assert!(!runs(directory.path()).unwrap());
        claim(directory.path()).unwrap();
        end(directory.path()).unwrap();
    }
}
