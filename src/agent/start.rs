//! Reads what an agent starts with, and what it goes on with: the files, and what the system says of this host.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::confine::{Reach, Role};
use crate::config::{Config, STATE_DIR};
use crate::host::setup::{Secrets, Setup};
use crate::host::{Files, Read, Start};
use crate::machine::{named_node, own_addresses};
use crate::observe::causes;
use crate::store::{CredentialsError, Saved, config_file, credentials, enabled, owner};
use crate::types::{NodeName, Protection};

/// Reads the configuration in `path` and what it names. Where that is wrong and this host is protected,
/// what was good before will do: somebody must keep what the kernel holds, and say what is wrong.
///
/// # Errors
/// Something is wrong, and nothing is protected, or nothing is known of how it was before.
pub(super) fn find(path: &Path) -> anyhow::Result<Start> {
    let (config, mut trouble) = load(path)?;
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
    let state_dir = config.state_dir.clone();
    let setup = who(config, saved.node.as_ref()).or_else(|error| {
        let last = config_file::last_good(path, &state_dir).filter(|_| trouble.is_none());
        let setup = last.and_then(|config| who(config, saved.node.as_ref()).ok());
        match setup {
            Some(setup) => {
                trouble = Some(error);
                Ok(setup)
            }
            None => Err(error),
        }
    })?;
    let secrets = secrets(&setup).map_err(|error| trouble = Some(error.into())).ok();
    match trouble {
        Some(error) if saved.protection == Protection::Off => Err(error),
        trouble => {
            let trouble = trouble.map(|error| causes::words(error.as_ref()));
            Ok(Start { setup, secrets, saved, trouble })
        }
    }
}

/// The configuration, or what it was when it was good and nobody else could write it, and what is wrong with it now.
fn load(path: &Path) -> anyhow::Result<(Config, Option<anyhow::Error>)> {
    let Err(error) = owner::check(path) else {
        let (config, broken) = config_file::load_or_last_good(path)?;
        return Ok((config, broken.map(anyhow::Error::from)));
    };
    // Nothing that the file says counts, so it is the default place or none.
    let state_dir = Path::new(STATE_DIR);
    let last = owner::check(state_dir).ok().and_then(|()| config_file::last_good(path, state_dir));
    match last {
        Some(config) => Ok((config, Some(error.into()))),
        None => Err(error.into()),
    }
}

/// Finds out who this host is in `config`. `remembered` is what it was before, for when its addresses are not there.
fn who(config: Config, remembered: Option<&NodeName>) -> anyhow::Result<Setup> {
    let own = own_addresses().context("this host's addresses cannot be listed")?;
    let node = config.whoami(&own, named_node().as_deref(), remembered)?.clone();
    Ok(Setup { config, node })
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

/// Reads what an agent goes on with whose configuration is in `path` and that can read what is within `reach`, now that
/// it goes by `setup`.
///
/// # Errors
/// Something is wrong with it, or it takes a new agent.
pub(super) fn files(read: &Read, path: &Path, reach: &Reach, setup: &Setup) -> anyhow::Result<Files> {
    let config = match read {
        Read::Preview { file, text, .. } => Config::parse(text, &file.display().to_string())?,
        Read::Changed | Read::Reload(_) => {
            owner::check(path)?;
            config_file::load(path)?
        }
    };
    let own = own_addresses().context("this host's addresses cannot be listed")?;
    let setup = setup.followed_by(config, &own, named_node().as_deref())?;
    let beyond = setup.config.files_for_proofs().into_iter().find(|file| !reach.covers(file));
    if let Some(file) = beyond {
        bail!(
            "{}: the agent gave up all files but those in {} when it started. Put it there, or restart the agent \
             (`systemctl restart hostseal`, or SIGTERM and start it again: protection stays in place)",
            file.display(),
            reach.words()
        );
    }
    let secrets = secrets(&setup)?;
    Ok(Files { setup, secrets })
}

/// Reads the secrets that `setup` names.
fn secrets(setup: &Setup) -> Result<Secrets, CredentialsError> {
    let Setup { config, node } = setup;
    let (current, previous) = credentials::load_secrets(config)?;
    Ok(Secrets::new(current, previous, credentials::load(config, node)?))
}
