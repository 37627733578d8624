//! What the files say: the configuration, which node of it this host is, and the secrets.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::core::Scheme;
use crate::ike;
use crate::model::config::{NodeName, SecretFileError};
use crate::model::host::{named_node, own_addresses};
use crate::model::status::Protection;
use crate::model::{Config, Node, Saved, Secret};

/// The most that starts are spread over time, and what each pair adds to it.
const JITTER_MOST: Duration = Duration::from_secs(2);
const JITTER_PER_PAIR: Duration = Duration::from_millis(1);

/// A valid configuration, and who this host is in it.
pub(super) struct Setup {
    /// The configuration.
    pub config: Config,
    /// The node that this host is.
    pub node: Node,
}

/// The secrets that a configuration names.
pub(super) struct Secrets {
    current: Arc<Secret>,
    previous: Option<Arc<Secret>>,
}

/// What an agent starts with.
pub(super) struct Start {
    /// What the configuration says, or what it said when it was good.
    pub setup: Setup,
    /// The secrets, where they can be read.
    pub secrets: Option<Secrets>,
    /// What the agent before left.
    pub saved: Saved,
    /// What is wrong with the files as they are now.
    pub trouble: Option<String>,
}

impl Start {
    /// Reads the configuration in `path` and what it names. Where that is wrong and this host is protected,
    /// what was good before will do: somebody must keep what the kernel holds, and say what is wrong.
    ///
    /// # Errors
    /// Something is wrong, and nothing is protected, or nothing is known of how it was before.
    pub(super) fn find(path: &Path) -> anyhow::Result<Self> {
        let (config, broken) = Config::load_or_last_good(path)?;
        let saved = Saved::load(&config.state_path())?;
        let mut trouble = broken.map(anyhow::Error::from);
        let state_dir = config.state_dir.clone();
        let setup = Setup::new(config, saved.node.as_ref()).or_else(|error| {
            let last = Config::last_good(path, &state_dir).filter(|_| trouble.is_none());
            let setup = last.and_then(|config| Setup::new(config, saved.node.as_ref()).ok());
            match setup {
                Some(setup) => {
                    trouble = Some(error);
                    Ok(setup)
                }
                None => Err(error),
            }
        })?;
        let secrets = Secrets::load(&setup.config).map_err(|error| trouble = Some(error.into())).ok();
        match trouble {
            Some(error) if saved.protection == Protection::Off => Err(error),
            trouble => Ok(Self { setup, secrets, saved, trouble: trouble.map(|error| format!("{error:#}")) }),
        }
    }
}

impl Setup {
    /// Finds out who this host is in `config`. `remembered` is what it was before, for when its addresses are
    /// not there.
    pub(super) fn new(config: Config, remembered: Option<&NodeName>) -> anyhow::Result<Self> {
        let own = own_addresses().context("this host's addresses cannot be listed")?;
        let node = config.whoami(&own, named_node().as_deref(), remembered)?.clone();
        Ok(Self { config, node })
    }

    /// What the core has to know.
    pub(super) fn scheme(&self) -> Scheme {
        Scheme::of(&self.config, &self.node)
    }

    /// What the key exchange has to know.
    pub(super) fn settings(&self, secrets: &Secrets, initial_contact: bool) -> ike::Settings {
        let Config { keying, esp, .. } = &self.config;
        ike::Settings {
            secret: secrets.current.clone(),
            previous: secrets.previous.clone(),
            port: keying.port,
            key_bits: esp.key_bits,
            rekey_after: keying.rekey_after,
            initial_contact,
            jitter: (JITTER_PER_PAIR * self.config.pairs(&self.node).len() as u32).min(JITTER_MOST),
        }
    }

    /// The files that this was read from, if the configuration is in `path`.
    pub(super) fn files(&self, path: &Path) -> Vec<PathBuf> {
        let secret = &self.config.secret;
        [Some(path), Some(&secret.file), secret.previous_file.as_deref()]
            .into_iter()
            .flatten()
            .map(Path::to_owned)
            .collect()
    }
}

impl Secrets {
    /// Reads them.
    pub(super) fn load(config: &Config) -> Result<Self, SecretFileError> {
        let current = Arc::new(config.load_secret()?);
        Ok(Self { current, previous: config.load_previous_secret()?.map(Arc::new) })
    }

    /// The fingerprint of the secret of the cluster.
    pub(super) fn id(&self) -> String {
        self.current.id().to_string()
    }

    /// What `next` changes, one line a change.
    pub(super) fn changes(&self, next: &Secrets) -> Vec<String> {
        let shown = |secret: &Option<Arc<Secret>>| {
            secret.as_ref().map_or_else(|| "none".to_owned(), |secret| secret.id().to_string())
        };
        [
            ("the secret", self.id(), next.id()),
            ("the previous secret", shown(&self.previous), shown(&next.previous)),
        ]
        .into_iter()
        .filter(|(_, before, after)| before != after)
        .map(|(what, before, after)| format!("{what}: id {after}, was {before}"))
        .collect()
    }
}
