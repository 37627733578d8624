//! Key encapsulation in the place of a key exchange: ML-KEM-768 (FIPS 203, draft-ietf-ipsecme-ikev2-mlkem).
//!
//! The library draws the random bytes of both operations by itself. That is one of two exceptions to entropy as an
//! argument (the other signs, in `identity`): nothing is decided by them, they end in secrets and in octets that look
//! random.

use aws_lc_rs::kem;

use super::Hidden;
use crate::ike::reason::{Failed, Misbehaved, Reason};
use crate::ike::wire::Parts;
use crate::types::AdditionalKe;

fn algorithm(additional: AdditionalKe) -> &'static kem::Algorithm {
    match additional {
        AdditionalKe::MlKem768 => &kem::ML_KEM_768,
    }
}

fn refused<E>(_: E) -> Reason {
    Misbehaved::AdditionalPublicValue.into()
}

/// The initiator's half: what it sends is the public key, what comes back is the secret, encrypted.
pub struct KemKey {
    additional: AdditionalKe,
    private: kem::DecapsulationKey,
    public: Vec<u8>,
}

impl KemKey {
    /// A new one.
    pub fn generate(additional: AdditionalKe) -> Result<Self, Reason> {
        kem::DecapsulationKey::generate(algorithm(additional))
            .and_then(|private| {
                let public = private.encapsulation_key()?.key_bytes()?.as_ref().to_vec();
                Ok(Self { additional, private, public })
            })
            .map_err(|_| Failed::Cryptography.into())
    }

    /// The one with this private key, as FIPS 203 section 7.1 writes it.
    #[cfg(test)]
    pub fn from_private(additional: AdditionalKe, private: &[u8]) -> Self {
        let private = kem::DecapsulationKey::new(algorithm(additional), private).unwrap();
        Self { additional, private, public: Vec::new() }
    }

    /// Its method.
    pub fn additional(&self) -> AdditionalKe {
        self.additional
    }

    /// What the peer gets.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The secret that the peer encrypted. One that was garbled on the way gives another secret, and then
    /// nothing that follows is authentic (FIPS 203 section 6.3).
    pub fn agree(&self, peer: &[u8]) -> Result<Hidden, Reason> {
        let secret = self.private.decapsulate(kem::Ciphertext::from(peer)).map_err(refused)?;
        Ok(Hidden::new(secret.as_ref().to_vec()))
    }
}

/// The responder's half: a secret, and what goes to the initiator. A key that is none is refused (FIPS 203
/// section 7.2).
pub fn encapsulate(additional: AdditionalKe, peer: &[u8]) -> Result<(Vec<u8>, Hidden), Reason> {
    let key = kem::EncapsulationKey::new(algorithm(additional), peer).map_err(refused)?;
    let (ciphertext, secret) = key.encapsulate().map_err(refused)?;
    Ok((ciphertext.as_ref().to_vec(), Hidden::new(secret.as_ref().to_vec())))
}

/// The other end's public value, or what stands for it.
pub fn public_value<'a>(additional: AdditionalKe, parts: &Parts<'a>) -> Result<&'a [u8], Reason> {
    let ke = parts.ke().filter(|ke| ke.group == additional.id());
    ke.map(|ke| ke.data.as_slice()).ok_or(Misbehaved::NoAdditionalPublicValue.into())
}
