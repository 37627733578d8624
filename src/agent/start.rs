//! Reads what an agent starts with, and what it goes on with: the files, and what the system says of this host.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, bail};

use super::confine::{Reach, Role};
use crate::config::{Config, STATE_DIR};
use crate::host::ports::SecretSource;
use crate::host::setup::{Secrets, Setup};
use crate::host::{ClusterStart, Found, Host, Read, Start};
use crate::identity::{AuthMethod, Secret};
use crate::machine::{self, named_node, own_addresses};
use crate::store::{ClusterFiles, Saved, config_file, credentials, enabled, kms, member_config, owner};

/// Reads the configuration in `path` and what it names.
///
/// # Errors
/// Something is wrong, and nothing is protected, or nothing is known of how it was before.
pub(super) fn find(path: &Path) -> anyhow::Result<Start> {
    let (config, broken) = load(path)?;
    owner::check(&config.state_dir)?;
    let saved = match enabled::in_place_of_lost_state(path, &config) {
        Some(saved) => {
            let state = config.state_path();
            tracing::error!(
                "{} is lost: every pair counts as sealed, and totals begin anew",
                state.display()
            );
            saved
        }
        None => Saved::load(&config.state_path())?,
    };
    let now = SystemTime::now().into();
    let last_good = config_file::last_good(path, &config.state_dir).map(|config| config.at(now));
    let cluster = member(&config)?;
    let (own, named) = (own_addresses().map_err(Into::into), named_node());
    let found = Found { config, broken, last_good, saved, own, named };
    Ok(Start { cluster, ..Start::of(found, &mut FileSource { reach: None })? })
}

/// What this host has of its cluster, where it is a member of one. One that cannot read it goes on with the last good
/// configuration, which says why.
fn member(config: &Config) -> anyhow::Result<Option<ClusterStart>> {
    let files = ClusterFiles::of(&config.state_dir);
    let state = files.load().inspect_err(|error| tracing::error!("{error}")).ok().flatten();
    let Some(state) = state else { return Ok(None) };
    let ids = machine::ids(state.roster.cluster().octets())?;
    Ok(Some(ClusterStart { state, machine: ids.machine, boot: ids.boot }))
}

/// The configuration, or its last good copy that nobody else could write, and what is wrong with it now.
fn load(path: &Path) -> anyhow::Result<(Config, Option<anyhow::Error>)> {
    let Err(error) = owner::check(path) else {
        let (config, broken) = config_file::load_or_last_good(path)?;
        return Ok((config.at(SystemTime::now().into()), broken.map(anyhow::Error::from)));
    };
    // Nothing that the file says counts, so it is the default place or none.
    let state_dir = Path::new(STATE_DIR);
    let last = owner::check(state_dir).ok().and_then(|()| config_file::last_good(path, state_dir));
    match last {
        Some(config) => Ok((config.at(SystemTime::now().into()), Some(error.into()))),
        None => Err(error.into()),
    }
}

/// What of this system an agent with this setup needs; the configuration is in `path`.
pub(super) fn role(setup: &Setup, path: &Path) -> Role {
    let Config { run_dir, state_dir, .. } = &setup.config;
    // Only what is there can be allowed; where it cannot be made, saving says why.
    let _ = DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
    #[cfg_attr(not(any(feature = "fault-injection", feature = "key-export")), expect(unused_mut))]
    let mut write = vec![run_dir.clone(), state_dir.clone()];
    #[cfg(feature = "fault-injection")]
    write.push("/run".into());
    #[cfg(feature = "key-export")]
    write.extend(std::env::var_os("HOSTSEAL_KEY_EXPORT").map(Into::into));
    Role::Agent { write, read: setup.files(path) }
}

/// Reads what the agent of `host` goes on with, whose configuration is in `path`.
///
/// # Errors
/// Something is wrong with it, or it takes a new agent.
pub(super) fn followed(read: &Read, path: &Path, host: &Host) -> anyhow::Result<Setup> {
    let (file, text) = match read {
        Read::Preview { file, text, .. } => (file.as_path(), Some(text.clone())),
        Read::Changed | Read::Again | Read::Reload(_) => {
            owner::check(path)?;
            (path, None)
        }
    };
    let (setup, name) = (host.setup(), file.display().to_string());
    let config = match (host.roster(), text) {
        (Some((roster, own)), text) => {
            let local = text.map_or_else(|| config_file::read_local(path), Ok)?;
            member_config(roster, own, host.tried_settings(), (&local, &name))?
        }
        (None, Some(text)) => Config::parse(&text, &name)?,
        (None, None) => config_file::load(path)?,
    };
    let own = own_addresses().context("this host's addresses cannot be listed")?;
    setup.followed_by(config.at(SystemTime::now().into()), &own, named_node().as_deref())
}

/// The files that a configuration names for proofs.
pub(super) struct FileSource {
    /// Which of them an agent can read that has given up the others.
    pub(super) reach: Option<Reach>,
}

impl SecretSource for FileSource {
    fn read(&mut self, setup: &Setup, root: Option<&Arc<Secret>>) -> anyhow::Result<Option<Secrets>> {
        let Setup { config, node, .. } = setup;
        if let Some(reach) = &self.reach
            && let Some(file) = config.files_for_proofs().into_iter().find(|file| !reach.covers(file))
        {
            bail!(
                "{}: the agent gave up all files but those in {} when it started. Put it there, or restart the agent \
                 (`systemctl restart hostseal`, or SIGTERM and start it again: protection stays in place)",
                file.display(),
                reach.words()
            );
        }
        // What a key of somebody else wraps is not to be had at once. What is wrong with the files is said now.
        if let Some(digest) = kms::digest(config)? {
            let root = root.filter(|root| root.digest() == digest);
            let credentials = credentials::load_with(config, node, root.map(Arc::as_ref))?;
            let is_proof = config.uses(AuthMethod::Secret);
            return Ok(root.map(|root| Secrets::of_root(root.clone(), is_proof, credentials)));
        }
        let (current, previous) = credentials::load_secrets(config)?;
        Ok(Some(Secrets::new(current, previous, credentials::load(config, node)?)))
    }
}
