//! Other settings: nothing is dropped. SAs that no longer fit are replaced by the ordinary exchanges, spread over the
//! jitter.

use std::time::Instant;

use super::Engine;
use crate::ike::Settings;
use crate::ike::path::Bond;
use crate::types::{EncapsulationMode, Pair, Spi};

impl Engine {
    /// Goes on with other settings. IKE SAs and children that were not made with the best proposal now are rekeyed;
    /// the ages at which SAs are rekeyed are stretched or shrunk. A session that rests on another secret, key or
    /// method serves until one that rests on the wanted ones has taken over: that is tried now, and again and again
    /// with a peer that does not take them yet. A peer that proved itself with what is no longer taken has as long as
    /// a child lives to do better; a control IKE SA ends at once.
    ///
    /// `initial_contact` stays as it was: what this host knows of earlier sessions does not change.
    pub fn reconfigure(&mut self, now: Instant, settings: Settings) {
        let initial_contact = self.settings.initial_contact;
        let before = std::mem::replace(&mut self.settings, Settings { initial_contact, ..settings });
        let never = |settings: &Settings| settings.encapsulation == EncapsulationMode::Never;
        let given_up = never(&self.settings) && !never(&before);
        let mut bonds: Vec<Bond> = self.pairs.keys().copied().collect();
        bonds.sort();
        for bond in bonds {
            if let Some(keep) = self.pairs.get_mut(&bond) {
                keep.start_over();
                keep.esp_blocked &= !given_up;
            }
            for key in self.sessions_of(bond) {
                self.with_established(now, key, |session, cx| session.adjust(cx, &before));
            }
            self.reconsider(now, bond);
        }
    }

    /// Makes a successor of a child within the jitter, because what this end wants of it has changed.
    pub fn renew_child(&mut self, now: Instant, pair: Pair, in_spi: Spi) {
        self.with_child(now, pair, in_spi, |session, cx| session.renew(cx, in_spi));
    }
}
