//! What software the peer is, and what it can.

use super::signature::{self, Hashes};
use crate::identity::{Identity, PrivateKey};
use crate::ike::reason::Reason;
use crate::ike::wire::{Parts, Payload};

/// How a hostseal host introduces itself in IKE_SA_INIT: random octets and a version.
const VENDOR_ID: &[u8] = b"\x9c\x1f\x62\xe7\x4d\xb8\x0a\x53\xf1\x2e\x87\xc4\x39\x6b\xd0\x15hostseal\x01";

/// The payload that introduces us.
pub fn vendor_id() -> Payload {
    Payload::VendorId(VENDOR_ID.to_vec())
}

/// What the peer's IKE_SA_INIT message says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// It is not hostseal.
    pub foreign: bool,
    /// What it takes in signatures.
    pub hashes: Hashes,
}

impl Peer {
    /// The sender of the IKE_SA_INIT message with these payloads.
    pub fn read(parts: &Parts<'_>) -> Self {
        Self { foreign: is_foreign(parts), hashes: Hashes::read(parts) }
    }

    /// Whether it can take what this end proves itself with.
    pub fn ensure_takes(&self, identity: &Identity) -> Result<(), Reason> {
        match identity {
            Identity::Secret => Ok(()),
            Identity::PublicKey(key) | Identity::Certificate(key, _) => self.ensure_takes_key(key),
        }
    }

    /// Whether it can take signatures by `key`.
    pub fn ensure_takes_key(&self, key: &PrivateKey) -> Result<(), Reason> {
        signature::ensure_taken(key, &self.hashes)
    }
}

/// Whether the sender is not hostseal. A later version has the same octets up to its own number.
fn is_foreign(parts: &Parts<'_>) -> bool {
    let (_, ours) = VENDOR_ID.split_last().unwrap_or((&0, VENDOR_ID));
    !parts.vendor_ids().any(|id| id.split_last().is_some_and(|(_, id)| id == ours))
}
