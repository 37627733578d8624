//! Addresses that float come to this host and leave it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::{Core, Persist};
use crate::protect::Beside;
use crate::types::Pair;

impl Core {
    /// Tells the pairs whose ends float where those are now.
    pub(super) fn place(&mut self, now: Instant) {
        let floats = |end: &IpAddr| self.scheme.floating.contains_key(end);
        let pairs = self.scheme.pairs.iter().filter(|pair| floats(&pair.local) || floats(&pair.remote));
        for pair in pairs.copied().collect::<Vec<_>>() {
            let away = self.scheme.away(pair, &self.present);
            if self.pairs.get(pair).is_some_and(|machine| machine.away() != away) {
                let beside = self.beside(pair);
                self.with_pair(pair, |machine| machine.handle_move(now, away, beside));
                self.persist(Persist::Seals);
            }
        }
    }

    /// Whether one of these addresses floats, so that pairs follow it.
    pub fn waits_for(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        addresses.iter().any(|address| self.scheme.floating.contains_key(address))
    }

    /// Whether packets of `pair` can pass on this host now.
    pub fn is_possible(&self, pair: Pair) -> bool {
        self.pairs.get(pair).is_none_or(|machine| machine.away().is_none())
    }

    /// How this host's other pairs stand with whoever is at the other end of `pair`. With an address that floats it
    /// can be any host that may have it; this host, which may be one of them, has no pair with itself.
    fn beside(&self, pair: Pair) -> Option<Beside> {
        let holders = self.scheme.floating.get(&pair.remote);
        let remotes = holders.into_iter().flatten().chain(holders.is_none().then_some(&pair.remote));
        let of_family = remotes.filter(|remote| remote.is_ipv4() == pair.remote.is_ipv4());
        Beside::of(of_family.flat_map(|remote| self.pairs.possible_with(*remote)))
    }
}
