//! One agent in each network namespace, whose tables it keeps, and one in each run directory: a name and a lock.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::accept::Acceptor;
use super::fellows;
use super::name::{self, Owner};

/// How long an agent may take to end before it is killed, and then to be gone.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long an agent may take that is ending by itself.
const ENDING: Duration = Duration::from_secs(1);
/// How often it is looked whether it has.
const INTERVAL: Duration = Duration::from_millis(20);
/// How often a name is tried that is let go of meanwhile.
const ATTEMPTS: usize = 3;

/// What the only agent has, for as long as it is held.
pub(super) struct Claim {
    _lock: Flock<File>,
    /// `None` where somebody else has the name, who is no agent.
    name: Option<UnixListener>,
}

impl Claim {
    /// Lets go of everybody who connects to the name: an asker has its owner by then, and others must not fill the
    /// queue.
    ///
    /// # Errors
    /// The runtime cannot wait for them.
    pub(super) fn answer(&mut self) -> io::Result<()> {
        let Some(name) = self.name.take() else { return Ok(()) };
        let mut name = Acceptor::new(name)?;
        tokio::task::spawn_local(async move {
            loop {
                drop(name.next().await);
            }
        });
        Ok(())
    }
}

fn try_lock(path: &Path) -> anyhow::Result<Option<Flock<File>>> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let file = file.with_context(|| format!("{} cannot be opened", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(error).with_context(|| format!("{} cannot be locked", path.display())),
    }
}

/// What only one agent at a time can have.
pub(super) struct Single {
    lock: PathBuf,
    name: String,
}

impl Single {
    /// For agents of this run directory.
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { lock: run_dir.join("agent.lock"), name: name::AGENT.to_owned() }
    }

    /// With a name that no other test has.
    #[cfg(test)]
    pub(super) fn of_test(run_dir: &Path, name: &Path) -> Self {
        Self { name: format!("hostseal-test-{}", name.display()), ..Self::new(run_dir) }
    }

    /// Becomes the only agent. One that is about to end, as after `disable`, is waited for.
    ///
    /// # Errors
    /// There is one, or a file cannot be written.
    pub(super) fn claim(&self) -> anyhow::Result<Claim> {
        let started = Instant::now();
        loop {
            match self.try_claim() {
                Err(_) if started.elapsed() < ENDING => std::thread::sleep(INTERVAL),
                claimed => return claimed,
            }
        }
    }

    fn try_claim(&self) -> anyhow::Result<Claim> {
        let Some(mut lock) = try_lock(&self.lock)? else {
            bail!("another agent runs: it holds {}", self.lock.display());
        };
        lock.set_len(0)?;
        write!(lock, "{}", std::process::id())?;
        Ok(Claim { _lock: lock, name: take(&self.name)? })
    }

    /// Whether an agent runs in this network namespace, or with this run directory.
    ///
    /// # Errors
    /// The lock cannot be tried.
    pub(super) fn runs(&self) -> anyhow::Result<bool> {
        Ok(self.is_locked()? || matches!(name::owner(&self.name), Owner::Trusted(_)))
    }

    fn is_locked(&self) -> anyhow::Result<bool> {
        Ok(self.lock.exists() && try_lock(&self.lock)?.is_none())
    }

    /// Ends the agents of this network namespace: by SIGTERM, or SIGKILL where that does not help.
    ///
    /// # Errors
    /// One cannot be ended, or cannot be reached from here.
    pub(super) fn end(&self) -> anyhow::Result<()> {
        end_fellows()?;
        if let Owner::Trusted(_) = name::owner(&self.name) {
            bail!(
                "an agent runs in this network namespace, in another process namespace (a container?), and cannot be \
                 ended from here"
            );
        }
        if self.is_locked()? {
            bail!("an agent of another network namespace holds {}, and was left alone", self.lock.display());
        }
        Ok(())
    }
}

fn take(name: &str) -> anyhow::Result<Option<UnixListener>> {
    for _ in 0..ATTEMPTS {
        match name::take(name) {
            Ok(listener) => return Ok(Some(listener)),
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                return Err(error).context("the agent's name cannot be taken");
            }
            Err(_) => {}
        }
        let owner = name::owner(name);
        let agent = fellows::find().unwrap_or_default().first().copied();
        match (owner, agent) {
            (_, Some(pid)) | (Owner::Trusted(pid @ 1..), None) => bail!(
                "another agent runs in this network namespace (pid {pid}), and two would undo each other's work. To \
                 replace it, end it first: `kill {pid}` leaves protection in place"
            ),
            (Owner::Trusted(_), None) => bail!(
                "another agent runs in this network namespace, in another process namespace (a container?), and two \
                 would undo each other's work: end it first"
            ),
            // It was let go of, or its owner does not listen yet.
            (Owner::Nobody, None) => std::thread::sleep(INTERVAL),
            (owner, None) => {
                tracing::warn!("{}", stranger(&owner));
                return Ok(None);
            }
        }
    }
    tracing::warn!("{}", stranger(&Owner::Unknown));
    Ok(None)
}

fn stranger(owner: &Owner) -> String {
    let who = match owner {
        Owner::User(uid) => format!("A process of user {uid}"),
        _ => "A process that does not listen".to_owned(),
    };
    format!(
        "{who} has the abstract socket @{}, which is for hostseal's agent. The agent goes on without it. Find the process \
         with `ss -xlp` and end it",
        name::AGENT
    )
}

fn end_fellows() -> anyhow::Result<()> {
    let started = Instant::now();
    let mut asked = BTreeMap::new();
    loop {
        let agents = fellows::find().context("the processes cannot be listed")?;
        let Some(first) = agents.first() else { return Ok(()) };
        let waited = started.elapsed();
        if waited > 2 * PATIENCE {
            bail!("the agent (pid {first}) does not end, not even by SIGKILL");
        }
        let signal = if waited < PATIENCE { Signal::SIGTERM } else { Signal::SIGKILL };
        for pid in agents {
            if asked.insert(pid, signal) != Some(signal) {
                match kill(Pid::from_raw(pid), signal) {
                    // It ended by itself.
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(error) => bail!("the agent (pid {pid}) cannot be ended: {error}"),
                }
            }
        }
        std::thread::sleep(INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_is_refused_while_the_first_runs() {
        let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let one = Single::of_test(here.path(), here.path());
        let refusal = |one: &Single| one.claim().err().unwrap().to_string();
        assert!(!one.runs().unwrap());
        let first = one.claim().unwrap();
        assert!(one.runs().unwrap());
        assert!(refusal(&one).contains("another agent runs: it holds"));
        let other = Single::of_test(elsewhere.path(), here.path());
        assert!(other.runs().unwrap(), "with other directories too");
        assert!(refusal(&other).contains(&format!("kill {}", std::process::id())));
        drop(first);
        assert!(!one.runs().unwrap() && !other.runs().unwrap());
        one.claim().unwrap();
    }
}
