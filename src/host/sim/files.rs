//! What the files of simulated hosts say, and what follows from them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hostseal_kms_protocol::Refusal;

use super::lease::rules;
use super::world::{NAT_PORT, PORT, World, address};
use crate::config::{Config, Esp, Keying, Node};
use crate::host::ports::SecretSource;
use crate::host::setup::{Secrets, Setup};
use crate::identity::{Credentials, Ppk, PpkRule, Secret};
use crate::ike;
use crate::types::{EncapsulationMode, EspProposal, Inside, Method, NodeName, Proposals, UnixTime};

/// What all files say.
const SIMULATED: &str = "cluster = \"simulated\"\n[secret]\nfile = \"/secret\"\n\
    [[nodes]]\nname = \"h0\"\naddresses = [\"10.0.0.1\"]\n";

/// What files call a host.
pub(super) fn name(host: usize) -> NodeName {
    serde_json::from_value(format!("h{host}").into()).expect("this is a name")
}

/// Where a host has its secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In a file.
    File,
    /// Elsewhere: it comes when it comes.
    Elsewhere,
}

/// What a host's source of secrets has now.
pub(super) struct Source {
    secrets: Option<Secrets>,
    /// It has them only for who knows what a KMS unwraps.
    wraps: bool,
}

impl SecretSource for Source {
    fn read(&mut self, _: &Setup, root: Option<&Arc<Secret>>) -> anyhow::Result<Option<Secrets>> {
        let digest = |root: Option<&Arc<Secret>>| root.map(|root| root.digest());
        let own = self.secrets.as_ref().and_then(Secrets::root);
        let gives = !self.wraps || digest(root) == digest(own);
        Ok(self.secrets.take_if(|_| gives))
    }
}

/// What a host's files say.
#[derive(Clone)]
pub(super) struct File {
    /// The hosts that it lists, itself included.
    pub(super) nodes: Vec<usize>,
    pub(super) secret: [u8; 32],
    pub(super) place: Place,
    /// What the KMS answers that can unwrap the secret, where one can.
    pub(super) kms: Option<Result<(), Refusal>>,
    pub(super) previous: Option<[u8; 32]>,
    pub(super) method: Method,
    pub(super) accept: Vec<Method>,
    pub(super) esp_proposals: Proposals<EspProposal>,
    pub(super) replay_window: u32,
    pub(super) rekey_after: Duration,
    pub(super) encapsulation: EncapsulationMode,
    /// The PPK of all hosts and the one before it, each with the octet that its key is made of.
    pub(super) ppks: Vec<(&'static str, u8)>,
    pub(super) ppk_required: bool,
    pub(super) ppk_until: Option<UnixTime>,
    /// It cannot be read.
    pub(super) is_broken: bool,
}

impl File {
    /// What it says of PPKs.
    fn ppk_section(&self) -> String {
        let keys = self.ppks.iter().zip(["", "previous_"]);
        let keys = keys.map(|((id, _), before)| format!("{before}id = \"{id}\"\n{before}file = \"/{id}\"\n"));
        let keys: String = keys.collect();
        let until = self.ppk_until.map(|end| format!("optional_until = \"{end}\"\n")).unwrap_or_default();
        if keys.is_empty() { keys } else { format!("[ppk]\nrequired = {}\n{until}{keys}", self.ppk_required) }
    }

    /// What follows from that at `now`, with each other host.
    fn ppk_rule(&self, now: UnixTime) -> Option<PpkRule> {
        let ppk = |(id, octet): &(&str, u8)| Arc::new(Ppk::new((*id).to_owned(), Secret::new([*octet; 32])));
        let keys: Vec<Arc<Ppk>> = self.ppks.iter().map(ppk).collect();
        let required = self.ppk_required || self.ppk_until.is_some_and(|end| end <= now);
        (!keys.is_empty()).then_some(PpkRule { keys, required })
    }
}

impl World {
    /// All files say this about ESP in UDP; for agents that start.
    pub(super) fn encapsulation(&mut self, mode: EncapsulationMode) {
        self.hosts.iter_mut().for_each(|host| host.file.encapsulation = mode);
    }

    /// All files say this about when to rekey; for agents that start.
    pub(super) fn rekey_after(&mut self, time: Duration) {
        self.hosts.iter_mut().for_each(|host| host.file.rekey_after = time);
    }

    /// The files of a host change, and its agent takes them.
    pub(super) fn reconfigure(&mut self, at: usize, change: impl FnOnce(&mut File)) {
        change(&mut self.hosts[at].file);
        self.on(at, |agent, _, _| agent.handle_change());
    }

    /// What the files of a host say.
    fn config(&self, at: usize) -> Config {
        let file = &self.hosts[at].file;
        let text = format!("{SIMULATED}{}", file.ppk_section());
        let mut config = Config::parse(&text, "simulated").expect("this is a configuration").at(self.wall());
        let keying = Keying {
            method: file.method,
            accept: file.accept.clone(),
            port: PORT,
            nat_port: NAT_PORT,
            rekey_after: file.rekey_after,
            rekey_bytes: None,
            rekey_packets: None,
            expire_after: Duration::from_secs(86_400),
            proposals: Proposals::default(),
        };
        let (proposals, encapsulation) = (file.esp_proposals.clone(), file.encapsulation);
        config.keying = keying;
        config.esp = Esp { proposals, replay_window: file.replay_window, encapsulation };
        config.kms = file.kms.as_ref().map(|_| rules());
        config.protection.exempt.clear();
        let node = |node: &usize| Node {
            name: name(*node),
            addresses: vec![address(*node)],
            inside: if *node == at { self.inside(at) } else { Inside::default() },
            public_key: None,
            previous_public_key: None,
            auth: None,
            expects_secret: false,
        };
        // A host that its file does not list is the other end of no pair.
        let others = file.nodes.iter().filter(|node| **node != at);
        config.nodes = others.chain([&at]).map(node).collect();
        config.floating = self.floating().into_iter().collect();
        config
    }

    /// What they say of this host.
    pub(super) fn setup(&self, at: usize) -> Setup {
        if let Some(setup) = self.member_setup(at) {
            return setup;
        }
        let config = self.config(at);
        let node = config.node_named(name(at).as_str()).expect("it is listed").clone();
        Setup::new(config, node)
    }

    /// What it proves itself with.
    pub(super) fn secrets(&self, at: usize) -> Secrets {
        if let Some(secrets) = self.member_secrets(at) {
            return secrets;
        }
        let file = &self.hosts[at].file;
        let ppks = (0..self.hosts.len())
            .filter_map(|host| Some((address(host), file.ppk_rule(self.wall())?)))
            .collect();
        let credentials = Credentials { ppks, ..Credentials::default() };
        let secret = Arc::new(Secret::new(file.secret));
        match file.kms {
            Some(_) => Secrets::of_root(secret, true, credentials),
            None => Secrets::new(Some(secret), file.previous.map(Secret::new).map(Arc::new), credentials),
        }
    }

    /// What gives it that.
    pub(super) fn source(&self, at: usize) -> Source {
        let file = &self.hosts[at].file;
        let gives = matches!(file.place, Place::File);
        let secrets = gives.then(|| self.secrets(at));
        let wraps = secrets.as_ref().is_some_and(|secrets| secrets.root().is_some());
        Source { secrets, wraps }
    }

    pub(super) fn settings(&self, at: usize) -> ike::Settings {
        self.setup(at).settings(&self.secrets(at), self.hosts[at].kernel.state.sas.is_empty())
    }

    /// From each host to each that it lists.
    pub(super) fn ways(&self) -> Vec<(usize, usize)> {
        (0..self.hosts.len()).flat_map(|from| self.peers(from).map(move |to| (from, to))).collect()
    }

    /// The hosts that a host lists, besides itself.
    pub(super) fn peers(&self, at: usize) -> impl Iterator<Item = usize> {
        self.hosts[at].file.nodes.iter().copied().filter(move |node| *node != at)
    }

    /// Each host lists that many others, near and far on a ring; for agents that start.
    pub(super) fn thin_out(&mut self, peers: usize) {
        let (hosts, steps) = (self.hosts.len(), peers / 2);
        let near_and_far = (0..steps).map(|step| 1 + step * (hosts / 2 - 1) / steps);
        let offsets: Vec<usize> = near_and_far.flat_map(|step| [step, hosts - step]).collect();
        for (at, host) in self.hosts.iter_mut().enumerate() {
            let listed: BTreeSet<usize> = offsets.iter().map(|offset| (at + offset) % hosts).collect();
            host.file.nodes = listed.into_iter().chain([at]).collect();
        }
    }
}
