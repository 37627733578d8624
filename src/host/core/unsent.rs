//! What this host itself does not let out is no silence of the peer.

use std::net::SocketAddr;
use std::time::Instant;

use super::{Cause, Core};
use crate::host::kernel::Kernel;
use crate::types::{Pair, RowState};

/// A datagram that did not leave: between which sockets, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// From where.
    pub local: SocketAddr,
    /// Where to.
    pub remote: SocketAddr,
    /// Why, in words.
    pub why: String,
}

impl Core {
    /// These datagrams did not leave this host. The pairs say so instead of waiting for an answer; one that is
    /// protected does so only once its keys cannot be renewed.
    pub fn handle_unsent(&mut self, now: Instant, kernel: &mut dyn Kernel, unsent: Vec<Unsent>) {
        for unsent in unsent {
            let pair = Pair::new(unsent.local.ip(), unsent.remote.ip());
            let Some(pair) = pair.filter(|pair| self.pairs.get(*pair).is_some()) else { continue };
            if self.unsent.insert(pair, unsent.clone()).as_ref() == Some(&unsent) {
                continue;
            }
            let protected = self.pairs.get(pair).is_some_and(|it| it.row_state() == RowState::Protected);
            let cause = Cause::Unsent(unsent);
            let words = self.words(pair, &cause);
            if !protected && self.fail(now, pair, cause) {
                self.line(pair).warn(&words);
            }
        }
        self.settle(now, kernel);
    }

    /// Why an attempt at keys failed that had no answer, where this host is the reason.
    pub(super) fn take_unsent(&mut self, pair: Pair) -> Option<Unsent> {
        self.unsent.remove(&pair)
    }
}
