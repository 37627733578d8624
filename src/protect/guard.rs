//! Blocks traffic beside the pairs between this host and a peer with which all pairs are sealed.
//!
//! The kernel asks outbound policies about forwarded packets too, before a NAT rule gives them this host's address,
//! and inbound policies about multicast (docs/kernel.md, fact 23). So the guard names addresses of this host one by one:
//! what this host forwards for others, multicast and broadcast pass.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::policies;
use crate::types::{Block, Policy};

/// The most policies that all guards of a host have together: the kernel loses no throughput by so many.
pub const GUARDS_MOST: usize = 100_000;

/// What an operator wants of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GuardRules {
    /// Traffic between the peer and an address of this host that has no pair with it is blocked.
    pub beside: bool,
    /// What this host forwards for others, to the peer and from it, is blocked.
    pub forwarded: bool,
}

/// The guard of a host.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    rules: GuardRules,
    /// The unicast addresses of this host, without loopback and IPv6 link-local ones; `None` before they are known.
    own: Option<BTreeSet<IpAddr>>,
}

impl Guard {
    /// One that knows no address yet: what it blocks is then as broad as it must be.
    pub fn new(rules: GuardRules) -> Self {
        Self { rules, own: None }
    }

    /// The same addresses, and other rules.
    #[must_use]
    pub fn by(&self, rules: GuardRules) -> Self {
        Self { rules, own: self.own.clone() }
    }

    /// This host has these unicast addresses now. Says whether that is news.
    pub fn know(&mut self, own: BTreeSet<IpAddr>) -> bool {
        let own = Some(own);
        let news = self.own != own;
        self.own = own;
        news
    }

    /// What it has in the kernel for one of `peers` sealed addresses of others. `has_pair` tells which addresses of
    /// this host have a pair with it.
    pub fn policies(&self, remote: IpAddr, peers: usize, has_pair: impl Fn(IpAddr) -> bool) -> Vec<Policy> {
        let mut policies = Vec::new();
        match &self.own {
            _ if !self.rules.beside => {}
            None => policies.extend(policies::block_all(remote)),
            Some(own) => {
                let beside = own.iter().filter(|own| Self::is_beside(**own, remote) && !has_pair(**own));
                let guarded = beside.take(Self::most_addresses(peers)).map(|own| Block::host(*own));
                let blocks = guarded.chain(remote.is_ipv6().then(policies::link_local));
                policies.extend(blocks.flat_map(|own| policies::block(own, remote)));
            }
        }
        if self.rules.forwarded {
            policies.extend(policies::block_forwarded(remote));
        }
        policies
    }

    /// Whether packets can go between an address of this host and a peer. A peer's address that this host has too, as
    /// one that has moved, is this host talking to itself.
    fn is_beside(own: IpAddr, remote: IpAddr) -> bool {
        own.is_ipv4() == remote.is_ipv4() && own != remote
    }

    /// The addresses of this host that are too many to be guarded against each of `peers` addresses of others.
    /// `has_pair` tells which have a pair with any of those.
    pub fn beyond(&self, peers: usize, has_pair: impl Fn(IpAddr) -> bool) -> Vec<IpAddr> {
        let unpaired = self.own.iter().flatten().copied().filter(|own| self.rules.beside && !has_pair(*own));
        let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = unpaired.partition(IpAddr::is_ipv4);
        [v4, v6].into_iter().flat_map(|family| family.into_iter().skip(Self::most_addresses(peers))).collect()
    }

    /// So many addresses of this host are guarded against each of `peers` addresses of others.
    fn most_addresses(peers: usize) -> usize {
        GUARDS_MOST / 2 / peers.max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Action, PolicyDirection};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn guard(own: &[&str]) -> Guard {
        let mut guard = Guard::new(GuardRules { beside: true, forwarded: false });
        assert!(guard.know(own.iter().map(|own| address(own)).collect()));
        guard
    }

    #[test]
    fn it_names_each_address_without_a_pair_and_nothing_else() {
        let guard = guard(&["10.0.0.1", "172.17.0.1", "fd00::1"]);
        let policies = guard.policies(address("10.0.0.2"), 1, |own| own == address("10.0.0.1"));
        let shown: Vec<String> = policies.iter().map(|policy| policy.selector.to_string()).collect();
        assert_eq!(shown, ["10.0.0.2/32 -> 172.17.0.1/32", "172.17.0.1/32 -> 10.0.0.2/32"]);
        assert!(policies.iter().all(|policy| policy.action == Action::Block));
        assert!(guard.policies(address("10.0.0.2"), 1, |_| true).is_empty());
        let moved = guard.policies(address("172.17.0.1"), 1, |own| own == address("10.0.0.1"));
        assert!(moved.is_empty(), "a peer's address that this host has is its own");
    }

    #[test]
    fn link_local_addresses_are_one_block_as_nobody_forwards_them() {
        let policies = guard(&["fd00::1"]).policies(address("fd00::2"), 1, |_| true);
        let shown: Vec<String> = policies.iter().map(|policy| policy.selector.to_string()).collect();
        assert_eq!(shown, ["fd00::2/128 -> fe80::/10", "fe80::/10 -> fd00::2/128"]);
    }

    #[test]
    fn what_it_forwards_is_blocked_only_where_that_is_wanted() {
        let rules = GuardRules { beside: false, forwarded: true };
        let policies = guard(&["172.17.0.1"]).by(rules).policies(address("10.0.0.2"), 1, |_| false);
        assert_eq!(policies.len(), 2);
        assert!(policies.iter().all(|policy| policy.direction == PolicyDirection::Forward));
    }

    #[test]
    fn before_addresses_are_known_it_is_broad_and_lets_multicast_in() {
        let rules = GuardRules { beside: true, forwarded: false };
        let policies = Guard::new(rules).policies(address("10.0.0.2"), 1, |_| true);
        let of = |action| {
            let found = policies.iter().filter(move |policy| policy.action == action);
            found.map(|policy| policy.selector.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(of(Action::Block), ["10.0.0.2/32 -> 0.0.0.0/0", "0.0.0.0/0 -> 10.0.0.2/32"]);
        assert_eq!(of(Action::Allow), ["10.0.0.2/32 -> 224.0.0.0/4", "10.0.0.2/32 -> 255.255.255.255/32"]);
    }

    #[test]
    fn there_is_a_most_and_what_is_beyond_is_told() {
        let own: Vec<String> = (1..=60).map(|last| format!("172.17.0.{last}")).collect();
        let guard = guard(&own.iter().map(String::as_str).collect::<Vec<_>>());
        let beyond = |peers, paired: usize| {
            let paired: Vec<IpAddr> = own.iter().take(paired).map(|own| address(own)).collect();
            guard.beyond(peers, |own| paired.contains(&own))
        };
        assert!(beyond(1, 0).is_empty());
        assert_eq!(beyond(1000, 0).len(), 10);
        assert_eq!(beyond(1000, 8).len(), 2, "paired ones need no guard");
        assert!(beyond(1000, 10).is_empty());
        assert_eq!(guard.policies(address("10.0.0.2"), 1000, |_| false).len(), 100);
    }
}
