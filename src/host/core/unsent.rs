//! What this host itself does not let out is no silence of the peer.

use std::net::SocketAddr;
use std::time::Instant;

use super::Core;
use crate::host::kernel::Kernel;
use crate::types::{Pair, ReasonCode, RowState};

/// A datagram that did not leave: between which sockets, and why.
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
        for Unsent { local, remote, why } in unsent {
            let pair = Pair::new(local.ip(), remote.ip()).filter(|pair| self.pairs.get(*pair).is_some());
            let Some(pair) = pair else { continue };
            let words = format!("this host cannot send to {remote} from {}: {why}", local.ip());
            if self.unsent.insert(pair, words.clone()).as_ref() == Some(&words) {
                continue;
            }
            let protected = self.pairs.get(pair).is_some_and(|it| it.row_state() == RowState::Protected);
            if !protected && self.fail(now, pair, ReasonCode::KernelError, words.clone()) {
                self.line(pair).warn(&words);
            }
        }
        self.settle(now, kernel);
    }

    /// Why an attempt at keys failed that had no answer, where this host is the reason.
    pub(super) fn take_unsent(&mut self, pair: Pair) -> Option<String> {
        self.unsent.remove(&pair)
    }
}
