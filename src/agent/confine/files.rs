//! Files, by Landlock (landlock(7)).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError,
    RulesetStatus, path_beneath_rules,
};

/// What is known of Landlock here; an older kernel does what it can.
const VERSION: ABI = ABI::V5;

/// What of the system the agent reads: its own process, and what the kernel's network and clock say.
const SYSTEM: [&str; 4] = ["/proc/self", "/proc/sys/net", "/proc/sys/kernel", "/proc/uptime"];

/// The directories in which this process opens files, from a moment on for good.
pub struct Reach {
    write: BTreeSet<PathBuf>,
    read: BTreeSet<PathBuf>,
    /// Whether the kernel sees to it.
    enforced: bool,
}

impl Reach {
    /// Whatever is in `write`; and the files in `read`, with the directories in which they lie and those in which
    /// what they link to lies, so that others can take their places.
    pub(super) fn new(write: Vec<PathBuf>, read: &[PathBuf]) -> Self {
        let real = |path: &PathBuf| path.canonicalize().ok();
        let directory = |file: PathBuf| Some(file.parent()?.to_owned());
        let around = |file: &PathBuf| {
            let absolute = std::path::absolute(file).ok().and_then(directory);
            let there = real(file).and_then(directory);
            [absolute.as_ref().and_then(real), there]
        };
        Self {
            write: write.iter().filter_map(real).collect(),
            read: read.iter().flat_map(around).flatten().collect(),
            enforced: false,
        }
    }

    /// Has the kernel refuse all other files to this thread and those that it starts. Says in the log where it cannot.
    pub(super) fn enforce(mut self) -> Self {
        match self.restrict() {
            Ok(RulesetStatus::NotEnforced) => {
                tracing::info!("this kernel has no Landlock: the agent may open more files than it needs");
            }
            Ok(RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced) => self.enforced = true,
            Err(error) => tracing::warn!("the agent may open more files than it needs: {error}"),
        }
        self
    }

    fn restrict(&self) -> Result<RulesetStatus, RulesetError> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let all: BitFlags<AccessFs> = AccessFs::from_all(VERSION);
        let write =
            all & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
        let ruleset = Ruleset::default().handle_access(all)?.create()?;
        let ruleset = ruleset.add_rules(path_beneath_rules(&self.write, write))?;
        let ruleset = ruleset.add_rules(path_beneath_rules(&self.read, read))?;
        let ruleset = ruleset.add_rules(path_beneath_rules(SYSTEM, read))?;
        Ok(ruleset.restrict_self()?.ruleset)
    }

    /// Whether this process may still read `file`.
    pub fn covers(&self, file: &Path) -> bool {
        let real =
            file.canonicalize().or_else(|_| std::path::absolute(file)).unwrap_or_else(|_| file.to_owned());
        !self.enforced || self.write.union(&self.read).any(|directory| real.starts_with(directory))
    }

    /// The directories in words.
    pub fn words(&self) -> String {
        let all: Vec<String> = self.read.union(&self.write).map(|path| path.display().to_string()).collect();
        all.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// On kernels without Landlock there is nothing to see.
    #[test]
    fn other_files_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["run", "etc", "target", "other"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("target/secret"), "x").unwrap();
        fs::write(path("other/file"), "x").unwrap();
        symlink(path("target/secret"), path("etc/secret")).unwrap();
        // A thread gives up for itself alone.
        let confined = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let reach = Reach::new(vec![path("run")], &[path("etc/secret")]).enforce();
                    assert!(reach.covers(&path("etc/secret")) && reach.covers(&path("etc/new")));
                    fs::write(path("run/file"), "x").unwrap();
                    fs::rename(path("run/file"), path("run/other")).unwrap();
                    fs::read(path("etc/secret")).unwrap();
                    fs::read_dir("/proc/self/net").unwrap();
                    if reach.enforced {
                        assert!(!reach.covers(&path("other/file")));
                        fs::read(path("other/file")).unwrap_err();
                        fs::write(path("etc/file"), "x").unwrap_err();
                        fs::read("/etc/passwd").unwrap_err();
                        std::process::Command::new("/bin/true").spawn().unwrap_err();
                    }
                })
                .join()
        });
        confined.unwrap();
    }
}
