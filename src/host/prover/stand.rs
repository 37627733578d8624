//! What one end of a proof has on its host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::counted::ProofCount;
use super::word::ProofPorts;
use super::{NonceArrival, NonceSet, ProvingGround};
use crate::ike::Entropy;
use crate::types::{NONCES_LEAST, NONCES_MOST, Nonce, NonceKind, Pair};

/// A port of this host, what is sent to the peer's, and what has come.
pub(super) struct Stand {
    pair: Pair,
    ports: ProofPorts,
    /// The peer's, once it has said them.
    theirs: Option<ProofPorts>,
    nonces: NonceSet,
    /// What has left of them.
    sent: NonceSet,
    /// Why some have not.
    unsent: Option<String>,
    /// Datagrams that have left as any program's, and past all policies.
    sealed_sent: u64,
    clear_sent: u32,
    /// What has come, and what it said that it was.
    came: BTreeMap<Nonce, NonceKind>,
    /// What the kernel has counted.
    counted: ProofCount,
}

impl Stand {
    /// Opens one.
    ///
    /// # Errors
    /// In words: this host has no socket for it, or does not count. Nothing is left open.
    pub(super) fn open(
        ground: &mut dyn ProvingGround,
        entropy: &mut dyn Entropy,
        pair: Pair,
    ) -> Result<Self, String> {
        let ports = ground.open(pair)?;
        let before = ground.look(pair).inspect_err(|_| ground.close())?.gauges;
        let nonces = NonceSet { clear: some(entropy), sealed: some(entropy) };
        Ok(Self {
            pair,
            ports,
            theirs: None,
            nonces,
            sent: NonceSet::default(),
            unsent: None,
            sealed_sent: 0,
            clear_sent: 0,
            came: BTreeMap::new(),
            counted: ProofCount::since(before),
        })
    }

    /// Counts from now on.
    pub(super) fn renew(&mut self, ground: &mut dyn ProvingGround) {
        self.look(ground);
        self.came.clear();
        self.counted = ProofCount::since(self.counted.last().clone());
    }

    /// This host's ports.
    pub(super) fn ports(&self) -> ProofPorts {
        self.ports
    }

    /// The peer's ports are these.
    pub(super) fn meet(&mut self, theirs: ProofPorts) {
        self.theirs = Some(theirs);
    }

    /// Sends all to the peer, past all policies first.
    pub(super) fn send(&mut self, ground: &mut dyn ProvingGround) {
        let Some(theirs) = self.theirs else { return };
        let to = SocketAddr::new(self.pair.remote, theirs.ordinary);
        let (sent, unsent) = ground.send(to, &self.nonces);
        self.sealed_sent += sent.sealed.len() as u64;
        self.clear_sent += sent.clear.len() as u32;
        // What left once is sent.
        for (all, more) in [(&mut self.sent.clear, sent.clear), (&mut self.sent.sealed, sent.sealed)] {
            let new: Vec<Nonce> = more.into_iter().filter(|nonce| !all.contains(nonce)).collect();
            all.extend(new);
        }
        self.unsent = unsent;
        // An SA may be gone at the next look, and what it has counted with it.
        self.look(ground);
    }

    /// Looks what has come, and what the kernel has counted.
    pub(super) fn look(&mut self, ground: &mut dyn ProvingGround) {
        // A kernel that has counted once counts again; where it does not, the last figures stay.
        let Ok(sight) = ground.look(self.pair) else { return };
        let room = 2 * usize::from(NONCES_MOST);
        for NonceArrival { port, kind, nonce } in sight.came {
            let from = self.theirs.map(|theirs| match kind {
                NonceKind::Clear => theirs.past,
                NonceKind::Sealed => theirs.ordinary,
            });
            if from == Some(port) && self.came.len() < room {
                self.came.insert(nonce, kind);
            }
        }
        self.counted.note(sight.gauges);
    }

    /// What has left.
    pub(super) fn sent(&self) -> &NonceSet {
        &self.sent
    }

    /// Why some did not, the last time.
    pub(super) fn unsent(&self) -> Option<&str> {
        self.unsent.as_deref()
    }

    /// Datagrams that have left as any program's, each time counted.
    pub(super) fn sealed_sent(&self) -> u64 {
        self.sealed_sent
    }

    /// And past all policies.
    pub(super) fn clear_sent(&self) -> u32 {
        self.clear_sent
    }

    /// So many different ones have come that say that they were to be encrypted.
    pub(super) fn sealed_came(&self) -> usize {
        self.came.values().filter(|kind| **kind == NonceKind::Sealed).count()
    }

    /// All that has come.
    pub(super) fn seen(&self) -> BTreeSet<Nonce> {
        self.came.keys().copied().collect()
    }

    /// What the kernel has counted.
    pub(super) fn counted(&self) -> &ProofCount {
        &self.counted
    }
}

/// A random number of random numbers.
fn some(entropy: &mut dyn Entropy) -> Vec<Nonce> {
    let mut one = [0];
    entropy.fill(&mut one);
    let count = NONCES_LEAST + one[0] % (NONCES_MOST - NONCES_LEAST + 1);
    let nonce = |_| {
        let mut octets = [0; 8];
        entropy.fill(&mut octets);
        Nonce(octets)
    };
    (0..count).map(nonce).collect()
}
