//! AUTH with a shared key (RFC 7296 section 2.15).

use subtle::ConstantTimeEq;

use super::crypto::{Hidden, Prf};
use super::wire::Id;
use super::wire::codes::auth;
use crate::model::Secret;
use crate::model::secret::SecretId;

/// RFC 7296 section 2.15: 17 ASCII characters without a terminator.
const KEY_PAD: &[u8] = b"Key Pad for IKEv2";

/// What one end signs.
pub(super) struct Signed<'a> {
    /// The negotiated function.
    pub(super) prf: Prf,
    /// The signer's IKE_SA_INIT message, as it was on the wire.
    pub(super) message: &'a [u8],
    /// The nonce of the other end.
    pub(super) nonce: &'a [u8],
    /// The signer's SK_p.
    pub(super) key: &'a Hidden,
    /// The signer's identity.
    pub(super) id: &'a Id,
}

/// The peer has proven that it knows a secret and is who it says. Only [`Signed::verify`] makes one, and
/// an established session is made only from one.
#[derive(Debug)]
pub(super) struct Verified(SecretId);

impl Verified {
    /// The secret that it has proven to know.
    pub(super) fn secret(&self) -> SecretId {
        self.0
    }
}

impl Signed<'_> {
    /// AUTH of this end.
    pub(super) fn sign(&self, secret: &Secret) -> Vec<u8> {
        let padded = self.prf.compute(secret.expose(), &[KEY_PAD]);
        let id = self.prf.compute(self.key.expose(), &[&self.id.body()]);
        self.prf.compute(padded.expose(), &[self.message, self.nonce, id.expose()]).expose().to_vec()
    }

    /// Checks the peer's AUTH against each of `secrets`, in constant time.
    pub(super) fn verify<'s>(
        &self,
        method: u8,
        data: &[u8],
        secrets: impl Iterator<Item = &'s Secret>,
    ) -> Option<Verified> {
        let known = secrets
            .filter(|secret| bool::from(self.sign(secret).ct_eq(data)))
            .map(|secret| Verified(secret.id()))
            .reduce(|first, _| first);
        known.filter(|_| method == auth::SHARED_KEY)
    }
}
