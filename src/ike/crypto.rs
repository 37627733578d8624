//! The cryptography of IKE: prf, prf+, the Encrypted payload's AEAD, Diffie-Hellman. Secrets live in types
//! that cannot be printed or cloned and that are zeroed when dropped.

use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use aws_lc_rs::agreement;
use hmac::{Hmac, Mac};
use sha2::{Sha256, Sha384, Sha512};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::Entropy;
use super::error::Error;
use super::wire::codes::transform;

/// Bytes that nobody must see.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Hidden(Vec<u8>);

impl Hidden {
    /// Takes over secret bytes.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes, for a computation.
    pub(super) fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// The pseudo-random functions of IKEv2 that are HMACs (RFC 4868).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prf {
    /// PRF_HMAC_SHA2_256.
    HmacSha256,
    /// PRF_HMAC_SHA2_384.
    HmacSha384,
    /// PRF_HMAC_SHA2_512.
    HmacSha512,
}

impl Prf {
    /// The function with transform identifier `id`.
    pub(super) fn from_id(id: u16) -> Option<Self> {
        match id {
            transform::PRF_HMAC_SHA2_256 => Some(Prf::HmacSha256),
            transform::PRF_HMAC_SHA2_384 => Some(Prf::HmacSha384),
            transform::PRF_HMAC_SHA2_512 => Some(Prf::HmacSha512),
            _ => None,
        }
    }

    /// Octets of its output, which is also its preferred key size.
    pub(super) fn output(self) -> usize {
        match self {
            Prf::HmacSha256 => 32,
            Prf::HmacSha384 => 48,
            Prf::HmacSha512 => 64,
        }
    }

    /// prf(key, parts[0] | parts[1] | …).
    pub(super) fn compute(self, key: &[u8], parts: &[&[u8]]) -> Hidden {
        match self {
            Prf::HmacSha256 => mac::<Hmac<Sha256>>(key, parts),
            Prf::HmacSha384 => mac::<Hmac<Sha384>>(key, parts),
            Prf::HmacSha512 => mac::<Hmac<Sha512>>(key, parts),
        }
    }

    /// The first `length` octets of prf+(key, parts[0] | parts[1] | …) (RFC 7296 section 2.13).
    /// `length` is at most 255 times the output, as everything in IKE is.
    pub(super) fn plus(self, key: &[u8], parts: &[&[u8]], length: usize) -> Hidden {
        // With the capacity that it needs the buffer never moves and leaves no copy behind.
        let mut stream = Vec::with_capacity(length + self.output());
        let mut previous = Hidden::new(Vec::new());
        for counter in 1..=u8::MAX {
            if stream.len() >= length {
                break;
            }
            let count = [counter];
            let mut input = vec![previous.expose()];
            input.extend(parts);
            input.push(&count);
            let block = self.compute(key, &input);
            stream.extend_from_slice(block.expose());
            previous = block;
        }
        stream[length..].zeroize();
        stream.truncate(length);
        Hidden::new(stream)
    }
}

fn mac<M: Mac + hmac::KeyInit>(key: &[u8], parts: &[&[u8]]) -> Hidden {
    // HMAC takes a key of any length, so this is never empty.
    let computed = <M as hmac::KeyInit>::new_from_slice(key).map(|mut mac| {
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes().to_vec()
    });
    debug_assert!(computed.is_ok(), "HMAC takes a key of any length");
    Hidden::new(computed.unwrap_or_default())
}

/// Octets of the explicit initialization vector (RFC 5282 section 3.1).
pub(super) const IV: usize = 8;
/// Octets of the authentication tag.
pub(super) const TAG: usize = 16;
/// Octets of salt at the end of the key material (RFC 5282 section 7.1).
const SALT: usize = 4;
/// Octets of key material for AES-GCM with a 256-bit key.
pub(super) const AEAD_KEY: usize = 32 + SALT;

/// AES-GCM with a 256-bit key and a 16-octet tag in one direction of one IKE SA (RFC 5282).
pub(super) struct Aead {
    cipher: Box<Aes256Gcm>,
    salt: Zeroizing<[u8; SALT]>,
}

impl Aead {
    /// The cipher of `material`: key, then salt.
    pub(super) fn new(material: &[u8]) -> Result<Self, Error> {
        let (key, salt) = material.split_last_chunk::<SALT>().ok_or(Error::Internal)?;
        let cipher = Aes256Gcm::new_from_slice(key).map_err(|_| Error::Internal)?;
        Ok(Self { cipher: Box::new(cipher), salt: Zeroizing::new(*salt) })
    }

    fn nonce(&self, iv: &[u8; IV]) -> [u8; SALT + IV] {
        let mut nonce = [0; SALT + IV];
        nonce[..SALT].copy_from_slice(self.salt.as_slice());
        nonce[SALT..].copy_from_slice(iv);
        nonce
    }

    /// Encrypts `text` in place and returns its tag. `iv` is never used twice with this key.
    pub(super) fn seal(&self, iv: &[u8; IV], associated: &[u8], text: &mut [u8]) -> Result<[u8; TAG], Error> {
        self.cipher
            .encrypt_inout_detached(&self.nonce(iv).into(), associated, InOutBuf::from(text))
            .map(Into::into)
            .map_err(|_| Error::Internal)
    }

    /// Decrypts what [`Aead::seal`] made; `None` if it is not authentic.
    pub(super) fn open(&self, associated: &[u8], body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (iv, body) = body.split_first_chunk::<IV>()?;
        let (text, tag) = body.split_last_chunk::<TAG>()?;
        let mut text = Zeroizing::new(text.to_vec());
        self.cipher
            .decrypt_inout_detached(
                &self.nonce(iv).into(),
                associated,
                InOutBuf::from(text.as_mut_slice()),
                &(*tag).into(),
            )
            .ok()?;
        Some(text)
    }
}

/// A Diffie-Hellman group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// Curve25519 (RFC 8031).
    X25519,
}

impl Group {
    /// The group with transform identifier `id`.
    pub(super) fn from_id(id: u16) -> Option<Self> {
        (id == transform::DH_CURVE25519).then_some(Group::X25519)
    }

    /// Its transform identifier.
    pub(super) fn id(self) -> u16 {
        match self {
            Group::X25519 => transform::DH_CURVE25519,
        }
    }
}

/// Our half of one Diffie-Hellman exchange.
pub(super) struct KeyPair {
    group: Group,
    private: agreement::PrivateKey,
    public: Vec<u8>,
}

impl KeyPair {
    /// A new one of `group`.
    pub(super) fn generate(group: Group, entropy: &mut dyn Entropy) -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(seed.as_mut_slice());
        Self::from_private(group, seed.as_slice())
    }

    /// The key pair of a private key.
    pub(super) fn from_private(group: Group, private: &[u8]) -> Result<Self, Error> {
        let private = match group {
            Group::X25519 => agreement::PrivateKey::from_private_key(&agreement::X25519, private),
        }
        .map_err(|_| Error::Internal)?;
        let public = private.compute_public_key().map_err(|_| Error::Internal)?.as_ref().to_vec();
        Ok(Self { group, private, public })
    }

    /// Its group.
    pub(super) fn group(&self) -> Group {
        self.group
    }

    /// What the peer gets.
    pub(super) fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret. A public value of small order, or of a wrong length, is refused (RFC 8031).
    pub(super) fn agree(&self, peer: &[u8]) -> Result<Hidden, Error> {
        let algorithm = match self.group {
            Group::X25519 => &agreement::X25519,
        };
        let peer = agreement::UnparsedPublicKey::new(algorithm, peer);
        let refused = Error::PeerMisbehaved("its public value is not valid");
        agreement::agree(&self.private, peer, refused, |secret| Ok(Hidden::new(secret.to_vec())))
    }
}
