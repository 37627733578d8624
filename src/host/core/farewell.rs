//! The last word of a host that is cut off from its key: its peers show why the pair is blocked, and ask for their own key
//! soon. None of them obeys it, as whoever says it may have gone bad.
//!
//! ```text
//! cut off   --- told: cut off, D --->   peer: asks its KMS within 20 s, and goes on if it gets its secret
//! ```
//! It is said once, in the message that ends the session. If that is lost, the peer finds out as if nothing had been said.

use std::sync::Arc;
use std::time::Instant;

use super::{Cause, Core};
use crate::ike::Topic;
use crate::observe::{About, kms};
use crate::types::Pair;

impl Core {
    /// Ends the sessions of all pairs, and says to each peer why.
    pub(super) fn say_farewell(&mut self, now: Instant) {
        let about = About::from_bytes(self.engine.about());
        let word = about.map(|about| Arc::new(About { cut_off: true, ..about }.to_bytes()));
        for pair in self.pairs().keys().copied().collect::<Vec<_>>() {
            if let Some(word) = word.clone() {
                self.engine.tell(now, pair, Topic::Session, Arc::new(move |_| word.to_vec()));
            }
            self.engine.forget(now, pair);
        }
    }

    /// Whether a peer has said that it was cut off, since the last call.
    pub fn poll_farewell(&mut self) -> bool {
        std::mem::take(&mut self.farewell_heard)
    }

    /// Why no keys are agreed with a peer that does not answer, if it has said so before.
    pub(super) fn cause_of_farewell(&self, pair: Pair) -> Option<Cause> {
        let is_cut_off = self.about(pair).is_some_and(|about| about.cut_off);
        is_cut_off.then(|| Cause::PeerCutOff(kms::of_peer(self.line(pair).node())))
    }

    /// The peer has deleted a child: the row says at once why, if the peer has.
    pub(super) fn explain_farewell(&mut self, now: Instant, pair: Pair) {
        if let Some(cause) = self.cause_of_farewell(pair) {
            self.fail(now, pair, cause);
        }
    }
}
