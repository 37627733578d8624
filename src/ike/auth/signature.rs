//! AUTH by digital signatures (RFC 7427), with Ed25519 (RFC 8420) and ECDSA.

use aws_lc_rs::signature::{self, VerificationAlgorithm};

use crate::identity::{KeyKind, PrivateKey, PublicKey};
use crate::ike::reason::{Failed, Incompatible, Reason};
use crate::ike::wire::codes::{hash, notify};
use crate::ike::wire::{Parts, Payload};

/// One way to sign.
struct SignatureScheme {
    /// Its AlgorithmIdentifier in DER (RFC 7427 appendix A, RFC 8420 section A): there is one way to write
    /// it, so it is compared and never parsed.
    identifier: &'static [u8],
    key: KeyKind,
    hash: u16,
    algorithm: &'static dyn VerificationAlgorithm,
}

/// ecdsa-with-SHA256 and ecdsa-with-SHA384 (RFC 7427 appendix A.3).
const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ECDSA_SHA384: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
/// id-Ed25519 (RFC 8420 appendix A.1).
const ED25519: &[u8] = b"\x30\x05\x06\x03\x2b\x65\x70";

/// What we know; of each kind of key the first is what we sign with. No hash is weaker than its curve (RFC 7427
/// section 6), and SHA-1 is not there at all.
const SCHEMES: [SignatureScheme; 4] = [
    SignatureScheme {
        identifier: ED25519,
        key: KeyKind::Ed25519,
        hash: hash::IDENTITY,
        algorithm: &signature::ED25519,
    },
    SignatureScheme {
        identifier: ECDSA_SHA256,
        key: KeyKind::EcdsaP256,
        hash: hash::SHA2_256,
        algorithm: &signature::ECDSA_P256_SHA256_ASN1,
    },
    SignatureScheme {
        identifier: ECDSA_SHA384,
        key: KeyKind::EcdsaP384,
        hash: hash::SHA2_384,
        algorithm: &signature::ECDSA_P384_SHA384_ASN1,
    },
    SignatureScheme {
        identifier: ECDSA_SHA384,
        key: KeyKind::EcdsaP256,
        hash: hash::SHA2_384,
        algorithm: &signature::ECDSA_P256_SHA384_ASN1,
    },
];

/// The hashes that a peer takes in signatures; none where it said nothing about signatures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hashes(Vec<u16>);

impl Hashes {
    /// What the peer's IKE_SA_INIT message says (RFC 7427 section 4).
    pub fn read(parts: &Parts<'_>) -> Self {
        let data = parts.notify(notify::SIGNATURE_HASH_ALGORITHMS).map(|notify| notify.data.as_slice());
        let pairs = data.unwrap_or_default().chunks_exact(2);
        Self(pairs.filter_map(|pair| pair.try_into().ok()).map(u16::from_be_bytes).collect())
    }

    /// What we take, for our own IKE_SA_INIT message.
    pub fn ours() -> Payload {
        let known = [hash::SHA2_256, hash::SHA2_384, hash::IDENTITY];
        let data = known.into_iter().flat_map(u16::to_be_bytes).collect();
        Payload::notify(notify::SIGNATURE_HASH_ALGORITHMS, data)
    }
}

/// How to sign with `key` for a peer that takes `hashes`.
fn scheme(key: &PrivateKey, hashes: &Hashes) -> Result<&'static SignatureScheme, Reason> {
    let scheme =
        SCHEMES.iter().find(|scheme| scheme.key == key.public().kind()).ok_or(Failed::Cryptography)?;
    if !hashes.0.contains(&scheme.hash) {
        return Err(Incompatible::Signature.into());
    }
    Ok(scheme)
}

/// Whether a peer that takes `hashes` takes signatures by `key`.
pub fn ensure_taken(key: &PrivateKey, hashes: &Hashes) -> Result<(), Reason> {
    scheme(key, hashes).map(drop)
}

/// Signs `octets` for a peer that takes `hashes`: the data of an AUTH payload (RFC 7427 section 3).
pub(super) fn sign(key: &PrivateKey, hashes: &Hashes, octets: &[u8]) -> Result<Vec<u8>, Reason> {
    let scheme = scheme(key, hashes)?;
    let signature = key.sign(octets).map_err(|_| Failed::Cryptography)?;
    let length = u8::try_from(scheme.identifier.len()).map_err(|_| Failed::Cryptography)?;
    Ok([&[length], scheme.identifier, &signature].concat())
}

/// Whether `data` of an AUTH payload is a signature of `octets` by `key`.
pub fn verify(key: &PublicKey, data: &[u8], octets: &[u8]) -> bool {
    let Some((length, rest)) = data.split_first() else { return false };
    let Some((identifier, signature)) = rest.split_at_checked(usize::from(*length)) else { return false };
    let fits = |scheme: &&SignatureScheme| scheme.key == key.kind() && scheme.identifier == identifier;
    SCHEMES.iter().find(fits).is_some_and(|scheme| {
        let key = signature::UnparsedPublicKey::new(scheme.algorithm, key.point());
        key.verify(octets, signature).is_ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KINDS: [KeyKind; 3] = [KeyKind::Ed25519, KeyKind::EcdsaP256, KeyKind::EcdsaP384];

    fn pair(kind: KeyKind) -> PrivateKey {
        PrivateKey::from_pem(&PrivateKey::generate(kind).unwrap()).unwrap()
    }

    fn all_hashes() -> Hashes {
        Hashes::read(&Parts(&[Hashes::ours()]))
    }

    #[test]
    fn a_signature_is_of_its_key_and_its_octets() {
        for kind in KINDS {
            let (key, other) = (pair(kind), pair(kind));
            let data = sign(&key, &all_hashes(), b"octets").unwrap();
            assert!(verify(key.public(), &data, b"octets"));
            assert!(!verify(key.public(), &data, b"other octets"));
            assert!(!verify(other.public(), &data, b"octets"));
            for kind in KINDS.into_iter().filter(|other| *other != kind) {
                assert!(!verify(pair(kind).public(), &data, b"octets"));
            }
        }
    }

    /// RFC 7427 section 4: only what the peer said.
    #[test]
    fn nothing_is_signed_that_the_peer_does_not_take() {
        for (kind, own) in KINDS.into_iter().zip([hash::IDENTITY, hash::SHA2_256, hash::SHA2_384]) {
            for hash in [hash::SHA2_256, hash::SHA2_384, hash::IDENTITY] {
                let signed = sign(&pair(kind), &Hashes(vec![1, hash]), b"octets");
                assert_eq!(signed.is_ok(), hash == own);
            }
            assert!(sign(&pair(kind), &Hashes::default(), b"octets").is_err());
        }
    }

    proptest! {
        #[test]
        fn any_data_is_refused_without_panic(data in prop::collection::vec(any::<u8>(), 0..200), kind in 0..3usize) {
            prop_assert!(!verify(pair(KINDS[kind]).public(), &data, b"octets"));
        }

        /// No part of it can be changed or cut off.
        #[test]
        fn a_changed_signature_is_refused(at in any::<prop::sample::Index>(), bit in 0..8u8, cut: bool, kind in 0..3usize) {
            let key = pair(KINDS[kind]);
            let mut data = sign(&key, &all_hashes(), b"octets").unwrap();
            let at = at.index(data.len());
            if cut { data.truncate(at) } else { data[at] ^= 1 << bit }
            prop_assert!(!verify(key.public(), &data, b"octets"));
        }
    }
}
