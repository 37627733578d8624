//! What other settings make of what is there: nothing is dropped. What no longer fits is replaced by the
//! ordinary exchanges, spread over the jitter.

use std::time::Instant;

use super::Engine;
use crate::identity::certificate::CertificateError;
use crate::ike::outbox::{Cx, up_to};
use crate::ike::reason::Lapsed;
use crate::ike::session::child::ChildSa;
use crate::ike::session::established::Established;
use crate::ike::{Settings, Topic};
use crate::types::{EncapsulationMode, Method, Pair, Spi};

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

impl Established {
    /// Goes on under other settings than those `before`.
    fn adjust(&mut self, cx: &mut Cx<'_>, before: &Settings) {
        let now = cx.now;
        let remote = self.pair().remote;
        // A key that was stolen is not to serve for as long as one that is merely replaced.
        let review = self.introduction.basis.review(cx.settings, remote, cx.wall);
        if review == Err(CertificateError::Revoked) {
            return self.end_unproven(cx, Lapsed::Revoked);
        }
        let taken = self.basis().is_taken(cx.settings, remote);
        let notice = now + cx.settings.rekey_after;
        self.notice = (!taken).then(|| self.notice.map_or(notice, |at| at.min(notice)));
        if cx.settings.about != before.about {
            self.tell(now, Topic::Session, cx.settings.told());
        }
        // Whatever part of its life is left, that part is left of the new one: jitter stays jitter.
        let stretch = cx.settings.rekey_after.as_secs_f64() / before.rekey_after.as_secs_f64();
        let deadlines = self.sas.iter_mut().filter_map(|sa| sa.rekey_at.as_mut());
        for at in deadlines.chain(self.children.iter_mut().filter_map(|child| child.rekey_at.as_mut())) {
            *at = now + at.saturating_duration_since(now).mul_f64(stretch);
        }
        let ike = Some(&cx.settings.ike_proposals).filter(|now| **now != before.ike_proposals);
        // What has no Diffie-Hellman is not made with any of them.
        let ike = ike.filter(|_| self.basis().method == Method::Ike);
        if let Some(best) = ike.and_then(|proposals| proposals.best()) {
            for sa in self.sas.iter_mut().filter(|sa| sa.keys.suite != best) {
                bring_forward(cx, &mut sa.rekey_at);
            }
        }
        let (esp, before) = (&cx.settings.esp_proposals, &before.esp_proposals);
        // Without Diffie-Hellman no child has any.
        let best = esp.best_key_exchange().filter(|_| self.basis().method == Method::Ike);
        let replaced = |child: &ChildSa| {
            esp.replace(before, child.suite) || (esp != before && child.key_exchange != best)
        };
        let other = self.children.iter().filter(|child| replaced(child));
        for in_spi in other.map(|child| child.in_spi).collect::<Vec<_>>() {
            self.renew(cx, in_spi);
        }
    }

    /// Brings the rekey of a child forward, unless it is on its way.
    fn renew(&mut self, cx: &mut Cx<'_>, in_spi: Spi) {
        if let Some(child) = self.child_mut(in_spi) {
            bring_forward(cx, &mut child.rekey_at);
        }
    }
}

/// To within the jitter, if it is not sooner.
fn bring_forward(cx: &mut Cx<'_>, rekey_at: &mut Option<Instant>) {
    let at = cx.now + up_to(cx.entropy, cx.settings.jitter);
    *rekey_at = rekey_at.map(|due| due.min(at));
}
