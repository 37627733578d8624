//! An older revision of hostseal, built from this repository into the lab's cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use super::root::{cache_dir, say};

/// The checkout that this program was built from.
const CHECKOUT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A commit.
pub struct Revision(String);

impl Revision {
    /// The commit that git knows by `name`; without one the newest tag before this commit, or else the commit
    /// before this one.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(name: Option<&str>) -> Result<Self> {
        let tag = || git(&["describe", "--tags", "--abbrev=0", "HEAD^"]);
        let name = name.map_or_else(|| tag().unwrap_or_else(|_| "HEAD^".to_owned()), str::to_owned);
        git(&["rev-parse", "--verify", "--quiet", &format!("{name}^{{commit}}")])
            .map(Self)
            .with_context(|| format!("`{name}` names no commit"))
    }

    /// Its short name and subject.
    ///
    /// # Errors
    /// When git does not say.
    pub fn title(&self) -> Result<String> {
        git(&["log", "-1", "--format=%h %s", &self.0])
    }

    /// Its hostseal, built now when the cache does not hold it. What it shares with this revision is taken
    /// from `target`, cargo's target directory.
    ///
    /// # Errors
    /// When it does not build.
    pub fn build(&self, target: &Path) -> Result<PathBuf> {
        let place = cache_dir()?.join(format!("revision-{}", self.0));
        let program = place.join("hostseal");
        if program.is_file() {
            return Ok(program);
        }
        let source = place.join("source");
        fs::create_dir_all(&source).with_context(|| format!("cannot create {}", source.display()))?;
        say(&format!("building hostseal of {}", self.title()?));
        let mut archive = Command::new("git")
            .args(["-C", CHECKOUT, "archive", &self.0])
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run git")?;
        let stream = archive.stdout.take().context("git without output")?;
        let unpacked = Command::new("tar").arg("-xC").arg(&source).stdin(stream).status()?;
        ensure!(archive.wait()?.success() && unpacked.success(), "the revision cannot be unpacked");
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .current_dir(&source)
            .args(["build", "--quiet", "--package", "hostseal", "--bin", "hostseal", "--target-dir"])
            .arg(target)
            .status()
            .context("cannot run cargo")?;
        ensure!(built.success(), "hostseal of {} does not build", self.title()?);
        // Whole or not at all.
        let part = place.join("part");
        fs::copy(target.join("debug/hostseal"), &part)?;
        fs::rename(&part, &program)?;
        Ok(program)
    }
}

fn git(arguments: &[&str]) -> Result<String> {
    let output = Command::new("git").args(["-C", CHECKOUT]).args(arguments).output();
    let output = output.context("cannot run git")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
