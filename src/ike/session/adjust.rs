//! What other settings make of a session: what no longer fits is replaced by the ordinary exchanges.

use std::time::Instant;

use super::child::ChildSa;
use super::established::Established;
use crate::identity::certificate::CertificateError;
use crate::ike::outbox::{Cx, up_to};
use crate::ike::reason::Lapsed;
use crate::ike::{Settings, Topic};
use crate::types::{Method, Spi};

impl Established {
    /// Goes on under other settings than those `before`.
    pub fn adjust(&mut self, cx: &mut Cx<'_>, before: &Settings) {
        let now = cx.now;
        // A key that was stolen is not to serve for as long as one that is merely replaced.
        if self.review(cx) == Err(CertificateError::Revoked) {
            return self.end_unproven(cx, Lapsed::Revoked);
        }
        if cx.settings.about != before.about && !self.is_childless() {
            self.tell(now, Topic::Session, cx.settings.told());
        }
        // Whatever part of its life is left, that part is left of the new one: jitter stays jitter.
        let stretch = cx.settings.rekey_after.as_secs_f64() / before.rekey_after.as_secs_f64();
        let stretched = |at: Instant| now + at.saturating_duration_since(now).mul_f64(stretch);
        self.sas.iter_mut().for_each(|sa| sa.rekey_at = sa.rekey_at.map(stretched));
        self.children.iter_mut().for_each(|child| child.move_rekey(stretched));
        let ike = Some(&cx.settings.ike_proposals).filter(|now| **now != before.ike_proposals);
        // An IKE SA without Diffie-Hellman is made with none of them.
        let ike = ike.filter(|_| self.basis().method == Method::Ike);
        if let Some(best) = ike.and_then(|proposals| proposals.best()) {
            for sa in self.sas.iter_mut().filter(|sa| sa.keys.suite != best) {
                let soon = soon(cx);
                sa.rekey_at = sa.rekey_at.map(|due| due.min(soon));
            }
        }
        let (esp, before) = (&cx.settings.esp_proposals, &before.esp_proposals);
        // Without Diffie-Hellman no child has any.
        let best = esp.best_key_exchange().filter(|_| self.basis().method == Method::Ike);
        let replaced = |child: &ChildSa| {
            esp.replace(before, child.suite()) || (esp != before && child.key_exchange() != best)
        };
        let other = self.children.iter().filter(|child| replaced(child));
        for in_spi in other.map(|child| child.in_spi()).collect::<Vec<_>>() {
            self.renew(cx, in_spi);
        }
    }

    /// Brings the rekey of a child forward, unless it is on its way.
    pub fn renew(&mut self, cx: &mut Cx<'_>, in_spi: Spi) {
        if let Some(child) = self.children.get_mut(in_spi) {
            let soon = soon(cx);
            child.move_rekey(|due| due.min(soon));
        }
    }
}

/// A moment within the jitter.
fn soon(cx: &mut Cx<'_>) -> Instant {
    cx.now + up_to(cx.entropy, cx.settings.jitter)
}
