//! Addresses that float come to this host and leave it.

use std::net::IpAddr;
use std::time::Instant;

use super::Core;
use crate::model::Pair;

impl Core {
    /// Tells the pairs whose ends float where those are now.
    pub(super) fn place(&mut self, now: Instant) {
        let floats = |end: &IpAddr| self.scheme.floating.contains_key(end);
        let pairs = self.scheme.pairs.iter().filter(|pair| floats(&pair.local) || floats(&pair.remote));
        for pair in pairs.copied().collect::<Vec<_>>() {
            let away = self.scheme.away(pair, &self.present);
            if self.pairs.get(pair).is_some_and(|machine| machine.away() != away) {
                let sealed = self.is_sealed_beside(pair);
                self.with_pair(pair, |machine| machine.handle_move(now, away, sealed));
                self.persist = true;
            }
        }
    }

    /// Whether packets of `pair` can pass on this host now.
    pub fn is_possible(&self, pair: Pair) -> bool {
        self.pairs.get(pair).is_none_or(|machine| machine.away().is_none())
    }

    /// Whether this host's other pairs with whoever is at the other end of `pair` are sealed, so that this one can
    /// begin so: whoever it is takes ESP. With an address that floats it can be any host that may have it.
    fn is_sealed_beside(&self, pair: Pair) -> bool {
        let holders = self.scheme.floating.get(&pair.remote);
        let remotes = holders.into_iter().flatten().chain(holders.is_none().then_some(&pair.remote));
        let of_family = |remote: &&IpAddr| remote.is_ipv4() == pair.remote.is_ipv4();
        // This host may be one of them, and has no pair with itself.
        let mut beside = remotes
            .filter(of_family)
            .map(|remote| self.pairs.sealed_with(*remote))
            .filter(Option::is_some)
            .peekable();
        beside.peek().is_some() && beside.all(|sealed| sealed == Some(true))
    }
}
