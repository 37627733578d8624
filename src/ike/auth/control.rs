//! AUTH of control IKE SAs: by public keys alone, with no certificate and no secret (RFC 7427).

use super::peer::Peer;
use super::{Signed, Verified, signature};
use crate::identity::{PrivateKey, Proof, PublicKey};
use crate::ike::control::{ControlSettings, Purpose};
use crate::ike::path::Bond;
use crate::ike::reason::{BadProof, Reason};
use crate::ike::wire::codes::auth;
use crate::ike::wire::{Encoded, Id, Parts, Payload};

impl Signed<'_> {
    /// AUTH by `key`, for `peer`.
    pub(super) fn sign(&self, key: &PrivateKey, peer: &Peer) -> Result<Payload, Reason> {
        let data = signature::sign(key, &peer.hashes, &self.octets())?;
        Ok(Payload::Auth { method: auth::DIGITAL_SIGNATURE, data })
    }

    /// The payloads by which this end proves itself to `peer` on a control IKE SA, and what the proof was made with.
    /// `shows`: the peer may not know the key yet.
    pub(in crate::ike) fn prove_by_key(
        &self,
        key: &PrivateKey,
        peer: &Peer,
        shows: bool,
    ) -> Result<(Vec<Payload>, Proof), Reason> {
        // RFC 7670 section 3.
        let raw = shows.then(|| Payload::Cert(Encoded::raw(key.public())));
        let payloads = raw.into_iter().chain([self.sign(key, peer)?]).collect();
        Ok((payloads, Proof::Key(key.public().clone())))
    }

    /// Checks AUTH of the peer of `bond`. `joins`: it is the one that joins.
    pub(in crate::ike) fn verify_by_key(
        &self,
        control: &ControlSettings,
        bond: Bond,
        joins: bool,
        parts: &Parts<'_>,
    ) -> Result<Verified, BadProof> {
        let remote = bond.pair.remote;
        // A joiner may have any address: its identity is its key.
        if !joins && *self.id != Id::of(remote) {
            return Err(BadProof::Identity);
        }
        let (method, data) = parts.auth().ok_or(BadProof::Missing)?;
        let signed = |key: &PublicKey| {
            method == auth::DIGITAL_SIGNATURE && signature::verify(key, data, &self.octets())
        };
        let (known, unproven) = match bond.purpose {
            Purpose::Join if joins => {
                let invite = control.invites.iter().find(|key| *self.id == Id::of_key(key));
                (invite.cloned().into_iter().collect(), BadProof::Invite)
            }
            // The user says whose key that is.
            Purpose::Join => (parts.raw_key().into_iter().collect(), BadProof::OtherSigner),
            Purpose::Control => (control.members.get(&remote).cloned().unwrap_or_default(), BadProof::Member),
            Purpose::Data => (Vec::new(), BadProof::Identity),
        };
        let key = known.into_iter().find(signed).ok_or(unproven)?;
        Ok(Verified(Proof::Key(key)))
    }
}
