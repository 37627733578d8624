//! What the files say: the configuration, which node of it this host is, and what hosts prove themselves
//! with.

use std::fs::DirBuilder;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::confine::Role;
use super::scheme::Scheme;
use super::sockets::Ports;
use crate::ike;
use crate::model::config::{CredentialsError, NodeName, STATE_DIR, owner};
use crate::model::host::{named_node, own_addresses};
use crate::model::status::Protection;
use crate::model::{About, Config, Credentials, EncapsulationMode, Node, Saved, Secret, causes, enabled};

/// The most that starts are spread over time, and what each pair adds to it.
const JITTER_MOST: Duration = Duration::from_secs(1);
const JITTER_PER_PAIR: Duration = Duration::from_millis(1);

/// Over what time the starts of so many pairs are spread.
pub(super) fn jitter(pairs: usize) -> Duration {
    (JITTER_PER_PAIR * u32::try_from(pairs).unwrap_or(u32::MAX)).min(JITTER_MOST)
}

/// A valid configuration, and who this host is in it.
pub(super) struct Setup {
    /// The configuration.
    pub config: Config,
    /// The node that this host is.
    pub node: Node,
}

/// What the files hold that a configuration names for proofs.
pub(super) struct Secrets {
    /// Where any host proves itself with it.
    current: Option<Arc<Secret>>,
    previous: Option<Arc<Secret>>,
    credentials: Arc<Credentials>,
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
        let secrets = Secrets::load(&setup).map_err(|error| trouble = Some(error.into())).ok();
        match trouble {
            Some(error) if saved.protection == Protection::Off => Err(error),
            trouble => {
                let trouble = trouble.map(|error| causes::words(error.as_ref()));
                Ok(Self { setup, secrets, saved, trouble })
            }
        }
    }
}

/// The configuration, or what it was when it was good and nobody else could write it, and what is wrong with it now.
fn load(path: &Path) -> anyhow::Result<(Config, Option<anyhow::Error>)> {
    let Err(error) = owner::check(path) else {
        let (config, broken) = Config::load_or_last_good(path)?;
        return Ok((config, broken.map(anyhow::Error::from)));
    };
    // Nothing that the file says counts, so it is the default place or none.
    let state_dir = Path::new(STATE_DIR);
    let last = owner::check(state_dir).ok().and_then(|()| Config::last_good(path, state_dir));
    match last {
        Some(config) => Ok((config, Some(error.into()))),
        None => Err(error.into()),
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

    /// What of this system an agent with this setup needs.
    pub(super) fn role(&self, path: &Path) -> Role {
        let Config { run_dir, state_dir, .. } = &self.config;
        // Only what is there can be allowed; where it cannot be made, saving says why.
        let _ = DirBuilder::new().recursive(true).mode(0o700).create(state_dir);
        #[cfg_attr(not(any(feature = "fault-injection", feature = "key-export")), expect(unused_mut))]
        let mut write = vec![run_dir.clone(), state_dir.clone()];
        #[cfg(feature = "fault-injection")]
        write.push("/run".into());
        #[cfg(feature = "key-export")]
        write.extend(std::env::var_os("HOSTSEAL_KEY_EXPORT").map(PathBuf::from));
        Role::Agent { write, read: self.files(path) }
    }

    /// The addresses that this host has or may have, as its interfaces have them.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.node.own_addresses().chain(self.config.floating_at(&self.node))
    }

    /// What is to be opened.
    pub(super) fn ports(&self) -> Ports {
        let Config { keying, esp, .. } = &self.config;
        let nat = esp.encapsulation != EncapsulationMode::Never;
        Ports { ike: keying.port, nat: nat.then_some(keying.nat_port) }
    }

    /// What the key exchange has to know.
    pub(super) fn settings(&self, secrets: &Secrets, initial_contact: bool) -> ike::Settings {
        let Config { keying, esp, .. } = &self.config;
        ike::Settings {
            credentials: secrets.credentials.clone(),
            secret: secrets.current.clone(),
            previous: secrets.previous.clone(),
            cluster: self.config.cluster.clone(),
            inside: self.node.inside.clone(),
            method: keying.method,
            accept: keying.accept.clone(),
            port: keying.port,
            nat_port: keying.nat_port,
            encapsulation: esp.encapsulation,
            ike_proposals: keying.proposals.clone(),
            esp_proposals: esp.proposals.clone(),
            rekey_after: keying.rekey_after,
            initial_contact,
            about: self.about(secrets).to_bytes().into(),
            jitter: jitter(self.config.pairs(&self.node).len()),
        }
    }

    /// What the peers are told of this host.
    pub(super) fn about(&self, secrets: &Secrets) -> About {
        About::of(&self.config, secrets.current.as_deref(), secrets.previous.as_deref())
    }

    /// The files that this was read from, if the configuration is in `path`.
    pub(super) fn files(&self, path: &Path) -> Vec<PathBuf> {
        [path.to_owned()].into_iter().chain(self.config.files_for_proofs()).collect()
    }
}

impl Secrets {
    /// Reads them.
    pub(super) fn load(setup: &Setup) -> Result<Self, CredentialsError> {
        let Setup { config, node } = setup;
        let (current, previous) = config.load_secrets()?;
        let credentials = Arc::new(config.load_credentials(node)?);
        Ok(Self { current: current.map(Arc::new), previous: previous.map(Arc::new), credentials })
    }

    /// The fingerprint of the secret of the cluster, where one is used.
    pub(super) fn id(&self) -> Option<String> {
        self.current.as_ref().map(|secret| secret.id().to_string())
    }

    /// What `next` changes, one line a change.
    pub(super) fn changes(&self, next: &Secrets) -> Vec<String> {
        let shown = |secret: &Option<Arc<Secret>>| {
            secret.as_ref().map_or_else(|| "none".to_owned(), |secret| secret.id().to_string())
        };
        let secrets = [
            ("the secret", shown(&self.current), shown(&next.current)),
            ("the previous secret", shown(&self.previous), shown(&next.previous)),
        ];
        let changed = secrets.into_iter().filter(|(_, before, after)| before != after);
        let mut lines: Vec<String> =
            changed.map(|(what, before, after)| format!("{what}: id {after}, was {before}")).collect();
        lines.extend(self.credentials.changes(&next.credentials));
        lines
    }
}
