//! What hosts ask of each other beside what they tell: of the pairs, and not of their protection.

use std::sync::Arc;
use std::time::Instant;

use super::Core;
use crate::host::prover::word::SAS_MOST;
use crate::ike::Topic;
use crate::protect::PairMachine;
use crate::types::{Pair, SaId};

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

    /// The SAs of a pair.
    pub fn sas_of(&self, pair: Pair) -> impl Iterator<Item = SaId> {
        self.pairs.get(pair).into_iter().flat_map(PairMachine::sas).take(SAS_MOST)
    }
}
