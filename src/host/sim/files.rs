//! What the files of simulated hosts say, and what follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::world::{Host, NAT_PORT, PORT, World, address};
use crate::host::scheme::Scheme;
use crate::host::setup::jitter;
use crate::identity::Secret;
use crate::ike;
use crate::protect::GuardRules;
use crate::types::{EncapsulationMode, EspProposal, Limits, Method, Pair, Proposals, UnixTime};

/// What a host's files say.
#[derive(Clone)]
pub(super) struct File {
    /// The hosts that it lists, itself included.
    pub(super) nodes: Vec<usize>,
    pub(super) secret: [u8; 32],
    pub(super) previous: Option<[u8; 32]>,
    pub(super) method: Method,
    pub(super) accept: Vec<Method>,
    pub(super) esp_proposals: Proposals<EspProposal>,
    pub(super) replay_window: u32,
    pub(super) rekey_after: Duration,
    pub(super) encapsulation: EncapsulationMode,
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
        let (scheme, settings) = (self.scheme(at), self.settings(at));
        self.on(at, |core, now, kernel| core.reconfigure(now, UnixTime(0), kernel, scheme, settings));
    }

    pub(super) fn scheme(&self, at: usize) -> Scheme {
        let File { nodes, replay_window, .. } = &self.hosts[at].file;
        let remotes = nodes.iter().filter(|node| **node != at).map(|node| address(*node));
        let fixed = remotes.filter_map(|remote| Pair::new(self.hosts[at].address, remote));
        Scheme {
            nodes: BTreeMap::new(),
            pairs: fixed.chain(self.floating_pairs(at)).collect(),
            floating: self.floating_addresses(),
            exemptions: Default::default(),
            replay_window: *replay_window,
            limits: Limits { hard_seconds: Some(86_400), ..Limits::default() },
            inside: self.inside(at),
            allow_peer_disable: true,
            guard: GuardRules { beside: true, forwarded: false },
            port: PORT,
            nat_port: NAT_PORT,
        }
    }

    pub(super) fn settings(&self, at: usize) -> ike::Settings {
        let Host { file, kernel, .. } = &self.hosts[at];
        ike::Settings {
            credentials: Arc::default(),
            secret: Some(Arc::new(Secret::new(file.secret))),
            previous: file.previous.map(|secret| Arc::new(Secret::new(secret))),
            cluster: "simulated".to_owned(),
            inside: self.inside(at),
            method: file.method,
            accept: file.accept.clone(),
            port: PORT,
            nat_port: NAT_PORT,
            encapsulation: file.encapsulation,
            ike_proposals: Proposals::default(),
            esp_proposals: file.esp_proposals.clone(),
            rekey_after: file.rekey_after,
            initial_contact: kernel.state.sas.is_empty(),
            jitter: jitter(file.nodes.len()),
            about: self.about.clone(),
        }
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
