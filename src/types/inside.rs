//! The addresses of a host behind a NAT: what the others call them, and what they are on the host itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Pair;

/// Which listed addresses of a host stand for other ones on its interfaces. Most hosts have none: the two are the
/// same there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inside(BTreeMap<IpAddr, IpAddr>);

impl Inside {
    /// Each listed address with the one on an interface; no two of them are alike.
    pub fn new(own_by_listed: BTreeMap<IpAddr, IpAddr>) -> Self {
        Self(own_by_listed)
    }

    /// Whether the host has all its listed addresses itself.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The listed addresses that stand for others, each with that one.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> {
        self.0.iter().map(|(listed, own)| (*listed, *own))
    }

    /// The address on an interface that the `listed` one stands for.
    pub fn own(&self, listed: IpAddr) -> IpAddr {
        self.0.get(&listed).copied().unwrap_or(listed)
    }

    /// What the others call the host's `own` address.
    pub fn listed(&self, own: IpAddr) -> IpAddr {
        self.iter().find(|(_, inside)| *inside == own).map_or(own, |(listed, _)| listed)
    }

    /// Whether this host initiates the IKE SA of `pair`: the one with the smaller listed address does, which
    /// both ends know, and the other waits.
    pub fn initiates(&self, pair: Pair) -> bool {
        self.listed(pair.local) < pair.remote
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_agree_on_who_begins() {
        let [a, b, inside] = ["203.0.113.1", "203.0.113.2", "203.0.113.9"].map(|it| it.parse().unwrap());
        let nat = Inside::new(BTreeMap::from([(a, inside)]));
        assert_eq!((nat.own(a), nat.listed(inside)), (inside, a));
        assert_eq!((nat.own(b), nat.listed(b)), (b, b));
        assert!(nat.initiates(Pair { local: inside, remote: b }));
        assert!(!Inside::default().initiates(Pair { local: b, remote: a }));
    }
}
