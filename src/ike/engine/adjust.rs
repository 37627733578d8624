//! What other settings make of what is there: nothing is dropped. What no longer fits is replaced by the
//! ordinary exchanges, spread over the jitter.

use std::time::Instant;

use super::Engine;
use crate::ike::Settings;
use crate::types::{EncapsulationMode, Pair, Spi};

impl Engine {
    /// Goes on with other settings. Where other proposals are listed, what is of another kind than is liked best
    /// now is rekeyed, IKE SAs as well as children; ages at which things are rekeyed are stretched or shrunk; a
    /// session that rests on other proofs than those wanted now (another secret, another key, another method of keying) serves until one
    /// that rests on these has taken over, which is tried now and, with a peer that does not take them yet, again
    /// and again. Where the peer has proven itself with what is no longer taken at all, it has as long as a child
    /// lives to do better.
    ///
    /// `initial_contact` stays as it was: what this host knows of earlier sessions does not change.
    pub fn reconfigure(&mut self, now: Instant, settings: Settings) {
        let initial_contact = self.settings.initial_contact;
        let before = std::mem::replace(&mut self.settings, Settings { initial_contact, ..settings });
        let never = |settings: &Settings| settings.encapsulation == EncapsulationMode::Never;
        let given_up = never(&self.settings) && !never(&before);
        let mut pairs: Vec<Pair> = self.pairs.keys().copied().collect();
        pairs.sort();
        for pair in pairs {
            if let Some(keep) = self.pairs.get_mut(&pair) {
                keep.start_over();
                keep.esp_blocked &= !given_up;
            }
            for key in self.sessions_of(pair) {
                self.with_established(now, key, |session, cx| session.adjust(cx, &before));
            }
            self.reconsider(now, pair);
        }
    }

    /// Makes a successor of a child within the jitter, because what this end wants of it has changed.
    pub fn renew_child(&mut self, now: Instant, pair: Pair, in_spi: Spi) {
        self.with_child(now, pair, in_spi, |session, cx| session.renew(cx, in_spi));
    }
}
