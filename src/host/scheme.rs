//! What a core has to know of the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use super::pairs::Pairs;
use crate::config::{Config, Exemptions, Forwarded, Mode, Node};
use crate::protect::{Away, Guard, GuardRules, PairMachine, Rules};
use crate::types::{Inside, Limits, NodeName, Pair};

/// Hard limits in bytes and packets are this many times the soft ones, at least.
const HARD_OVER_SOFT: u64 = 4;
/// And no lower than this: a fast link must not reach them before keys can be replaced, one time or several.
const HARD_BYTES_LEAST: u64 = 1 << 40;
/// See [`HARD_BYTES_LEAST`].
const HARD_PACKETS_LEAST: u64 = 1 << 32;

/// What the core has to know of the configuration.
pub struct Scheme {
    /// The pairs of this host, the blocked ones included.
    pub pairs: Vec<Pair>,
    /// Those that get no keys, and are blocked while this host is protected.
    pub blocked: BTreeSet<Pair>,
    /// Those that get no keys for now, and are blocked where they were sealed.
    pub withheld: BTreeSet<Pair>,
    /// What this host is called.
    pub name: NodeName,
    /// The nodes of the other hosts' addresses.
    pub nodes: BTreeMap<IpAddr, NodeName>,
    /// What stays in the clear.
    pub exemptions: Exemptions,
    /// The anti-replay window, in packets.
    pub replay_window: u32,
    /// When SAs end.
    pub limits: Limits,
    /// The addresses that float, each with those of the hosts that may have it.
    pub floating: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
    /// Which addresses of this host the others call otherwise.
    pub inside: Inside,
    /// May an authenticated peer take its pair to the clear.
    pub allow_peer_disable: bool,
    /// What is blocked beside the pairs with a sealed peer.
    pub guard: GuardRules,
    /// UDP port of IKE, for probes too.
    pub port: u16,
    /// The port of IKE, and of probes, where ESP goes in UDP.
    pub nat_port: u16,
}

impl Scheme {
    /// What `config` says of this host, which is `node`.
    pub fn of(config: &Config, node: &Node) -> Self {
        let keying = &config.keying;
        let hard =
            |soft: Option<u64>, least: u64| soft.map(|soft| soft.saturating_mul(HARD_OVER_SOFT).max(least));
        let limits = Limits {
            hard_seconds: Some(keying.expire_after.as_secs()),
            soft_bytes: keying.rekey_bytes,
            soft_packets: keying.rekey_packets,
            hard_bytes: hard(keying.rekey_bytes, HARD_BYTES_LEAST),
            hard_packets: hard(keying.rekey_packets, HARD_PACKETS_LEAST),
        };
        let (named, blocked) = (config.pairs(node), config.blocked_pairs(node));
        let withheld: BTreeSet<Pair> = config.withheld_pairs(node).into_iter().collect();
        let keyless: BTreeSet<Pair> = blocked.iter().chain(&withheld).copied().collect();
        Self {
            pairs: named.iter().map(|(_, pair)| *pair).chain(keyless).collect(),
            blocked: blocked.into_iter().collect(),
            withheld,
            name: node.name.clone(),
            nodes: named.into_iter().map(|(name, pair)| (pair.remote, name)).collect(),
            exemptions: Exemptions::of(config, Some(node)),
            replay_window: config.esp.replay_window,
            limits,
            floating: floating(config),
            inside: node.inside.clone(),
            allow_peer_disable: config.protection.allow_peer_disable,
            guard: GuardRules {
                beside: config.protection.mode == Mode::Require,
                forwarded: config.protection.forwarded == Forwarded::Block,
            },
            port: keying.port,
            nat_port: keying.nat_port,
        }
    }

    /// Why `pair` is impossible on a host that has the addresses `present`, if it is.
    pub fn away(&self, pair: Pair, present: &BTreeSet<IpAddr>) -> Option<Away> {
        let floats = |end: IpAddr| self.floating.contains_key(&end);
        if floats(pair.local) && !present.contains(&pair.local) {
            Some(Away::Elsewhere)
        } else {
            (floats(pair.remote) && present.contains(&pair.remote)).then_some(Away::Here)
        }
    }

    /// When SAs of `pair` end: those of the end that initiates by rule are replaced first.
    pub fn limits_of(&self, pair: Pair) -> Limits {
        if self.inside.initiates(pair) { self.limits.earlier() } else { self.limits }
    }

    /// A machine of `pair`, off. `sealed`: it was persisted so.
    pub fn machine(&self, pair: Pair, sealed: bool, now: Instant) -> PairMachine {
        PairMachine::new(pair, self.rules(pair), sealed, now)
    }

    /// What the machine of `pair` is to go by.
    pub fn rules(&self, pair: Pair) -> Rules {
        Rules { leads: self.inside.initiates(pair), allow_peer_disable: self.allow_peer_disable }
    }

    /// The pairs, all off. `sealed` are those that were persisted as sealed.
    pub fn machines(&self, sealed: &BTreeSet<Pair>, now: Instant) -> Pairs {
        let machine = |pair: &Pair| self.machine(*pair, sealed.contains(pair), now);
        Pairs::new(self.pairs.iter().map(machine), self.exemptions.clone(), Guard::new(self.guard))
    }
}

/// The floating addresses of `config`, each with those of the nodes that may have it.
fn floating(config: &Config) -> BTreeMap<IpAddr, BTreeSet<IpAddr>> {
    let mut floating = BTreeMap::<IpAddr, BTreeSet<IpAddr>>::new();
    for node in &config.nodes {
        for address in config.floating_at(node) {
            floating.entry(address).or_default().extend(node.addresses.iter().copied());
        }
    }
    floating
}
