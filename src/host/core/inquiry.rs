//! What hosts ask of each other beside what they tell: of the pairs, and not of their protection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::Core;
use crate::ike::Topic;
use crate::types::{NodeName, Pair, SaId, Spi};

/// So many words of peers may wait to be taken: they are taken after each input, so more of them is an attack.
const WAITING_MOST: usize = 64;

impl Core {
    pub(super) fn note_inquiry(&mut self, pair: Pair, octets: Vec<u8>) {
        if self.inquiries.len() < WAITING_MOST && self.pairs.get(pair).is_some() {
            self.inquiries.push_back((pair, octets));
        }
    }

    /// The next thing that a peer has asked or answered.
    pub fn poll_inquiry(&mut self) -> Option<(Pair, Vec<u8>)> {
        self.inquiries.pop_front()
    }

    /// Asks the peer of `pair`, or `answers` it.
    pub fn tell_inquiry(&mut self, now: Instant, pair: Pair, answers: bool, octets: Vec<u8>) {
        let topic = if answers { Topic::Answer } else { Topic::Question };
        self.engine.tell(now, pair, topic, Arc::new(move |_| octets.clone()));
    }

    /// The SAs of a pair, those of one child together under its name.
    pub fn sas_of(&self, pair: Pair) -> BTreeMap<Spi, Vec<SaId>> {
        let mut all: BTreeMap<Spi, Vec<SaId>> = BTreeMap::new();
        let Some(machine) = self.pairs.get(pair) else { return all };
        for (name, id) in machine.sas_of_children() {
            all.entry(name).or_default().push(id);
        }
        let named: BTreeSet<SaId> = all.values().flatten().copied().collect();
        // Those of an agent before this one have no name.
        for id in machine.sas().filter(|id| !named.contains(id)) {
            all.entry(id.spi).or_default().push(id);
        }
        all
    }

    /// Which node is at the other end of a pair: the one that has proven itself there, else the one that is listed.
    pub fn node_of(&self, pair: Pair) -> Option<NodeName> {
        self.engine.node_of(pair).or_else(|| self.scheme.nodes.get(&pair.remote)).cloned()
    }
}
