//! What the files say, as a host goes by it: the configuration, which node of it this host is, and what hosts prove
//! themselves with.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};

use super::scheme::Scheme;
use crate::config::{Config, Node, StoreRules};
use crate::identity::{Credentials, Secret};
use crate::ike;
use crate::observe::About;
use crate::protect::report::Report;
use crate::types::EncapsulationMode;

/// The most that starts are spread over time, and what each pair adds to it.
const JITTER_MOST: Duration = Duration::from_secs(1);
const JITTER_PER_PAIR: Duration = Duration::from_millis(1);

/// Over what time the starts of so many pairs are spread.
pub fn jitter(pairs: usize) -> Duration {
    (JITTER_PER_PAIR * u32::try_from(pairs).unwrap_or(u32::MAX)).min(JITTER_MOST)
}

/// The UDP ports that an agent binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IkePorts {
    /// IKE's own.
    pub ike: u16,
    /// The port of IKE and of ESP in UDP, where there is to be any.
    pub nat: Option<u16>,
}

/// A valid configuration, and who this host is in it.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// The node that this host is.
    pub node: Node,
    config_id: String,
}

/// What the files hold that a configuration names for proofs. The default is nothing.
#[derive(Default)]
pub struct Secrets {
    /// Where any host proves itself with it.
    current: Option<Arc<Secret>>,
    previous: Option<Arc<Secret>>,
    /// What a KMS has unwrapped.
    root: Option<Arc<Secret>>,
    credentials: Arc<Credentials>,
}

impl Setup {
    /// This configuration, in which this host is `node`.
    pub fn new(config: Config, node: Node) -> Self {
        // Who looks wants it each time, and with many nodes it takes long.
        let config_id = config.config_id();
        Self { config, node, config_id }
    }

    /// The hash of the configuration.
    pub fn config_id(&self) -> &str {
        &self.config_id
    }

    /// What an agent that goes by this one goes by after `config`, on a host that has the addresses `own` and that its
    /// environment calls `named`.
    ///
    /// # Errors
    /// It takes a new agent, or this host is not in it.
    pub fn followed_by(&self, config: Config, own: &[IpAddr], named: Option<&str>) -> anyhow::Result<Self> {
        let config = config.after_end(self.config.ppks_required_since());
        if let Some(words) = self.config.needs_restart(&config) {
            bail!("{words}");
        }
        let node = config.whoami(own, named, Some(&self.node.name))?.clone();
        let (name, before) = (&node.name, &self.node.name);
        ensure!(
            name == before,
            "this host is {name} in the file and was {before}: stop the agent (SIGTERM, protection stays in place) and \
             start it again"
        );
        Ok(Self::new(config, node))
    }

    /// What the core has to know.
    pub fn scheme(&self) -> Scheme {
        Scheme::of(&self.config, &self.node)
    }

    /// The addresses that this host has or may have, as its interfaces have them.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.node.own_addresses().chain(self.config.floating_at(&self.node))
    }

    /// The ports to bind.
    pub fn ports(&self) -> IkePorts {
        let Config { keying, esp, .. } = &self.config;
        let nat = esp.encapsulation != EncapsulationMode::Never;
        IkePorts { ike: keying.port, nat: nat.then_some(keying.nat_port) }
    }

    /// What the key exchange has to know.
    pub fn settings(&self, secrets: &Secrets, initial_contact: bool) -> ike::Settings {
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
            first: |token, now| Report::first(token).to_octets(now),
            jitter: jitter(self.config.pairs(&self.node).len()),
            control: None,
        }
    }

    /// What the peers are told of this host.
    pub fn about(&self, secrets: &Secrets) -> About {
        About::of((&self.config, &self.config_id), secrets.current.as_deref(), secrets.previous.as_deref())
    }

    /// The files that this was read from, if the configuration is in `path`.
    pub fn files(&self, path: &Path) -> Vec<PathBuf> {
        let of_store = self.config.store.iter().flat_map(StoreRules::files).cloned();
        [path.to_owned()].into_iter().chain(self.config.files_for_proofs()).chain(of_store).collect()
    }
}

impl Secrets {
    /// These, as they were read.
    pub fn new(
        current: Option<Arc<Secret>>,
        previous: Option<Arc<Secret>>,
        credentials: Credentials,
    ) -> Self {
        Self { current, previous, root: None, credentials: Arc::new(credentials) }
    }

    /// These, where a KMS has unwrapped the secret. Hosts prove themselves with it, or have it in their PPKs alone.
    pub fn of_root(root: Arc<Secret>, is_proof: bool, credentials: Credentials) -> Self {
        let current = is_proof.then(|| root.clone());
        Self { current, previous: None, root: Some(root), credentials: Arc::new(credentials) }
    }

    /// Whoever needs a PPK of `own` by `config` does not do without from now on, also where this host does not have it yet.
    pub fn require_ppks(&mut self, config: &Config, own: &Node) {
        let credentials = Arc::make_mut(&mut self.credentials);
        for node in config.nodes.iter().filter(|node| node.name != own.name) {
            if let Some((_, true)) = config.ppks_between(own, node) {
                let addresses = node.addresses.iter().copied().chain(config.floating_at(node));
                addresses.for_each(|address| credentials.require_ppk(address));
            }
        }
    }

    /// What a KMS has unwrapped.
    pub fn root(&self) -> Option<&Arc<Secret>> {
        self.root.as_ref()
    }

    /// The fingerprint of the secret of the cluster, where one is used.
    pub fn id(&self) -> Option<String> {
        self.current.as_ref().map(|secret| secret.id().to_string())
    }

    /// What `next` changes, one line a change.
    pub fn changes(&self, next: &Secrets) -> Vec<String> {
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
