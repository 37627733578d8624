//! The Encrypted payload in one direction of one IKE SA: AES-GCM (RFC 5282), or AES-CBC and then an HMAC
//! over everything (RFC 7296 section 3.14).

use aes::Aes256;
use aes_gcm::aead::inout::InOutBuf;
use aes_gcm::{AeadInOut, Aes128Gcm, Aes256Gcm, KeyInit};
use cbc::cipher::{Array, BlockCipherEncrypt, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Hidden;
use super::suite::Suite;
use crate::ike::reason::{BadMessage, Failed, Reason};
use crate::types::{IkeCipher, Integrity, Prf};

/// Octets of the explicit initialization vector of AES-GCM (RFC 5282 section 3.1).
const GCM_IV: usize = 8;
/// Octets of its tag.
const TAG: usize = 16;
/// Octets of salt at the end of its key material (RFC 5282 section 7.1).
const SALT: usize = 4;
/// Octets of a block of AES, and of the initialization vector of CBC.
const BLOCK: usize = 16;

/// One direction's keys. What encrypts is the only one with its keys, and counts what it has encrypted.
pub enum Cipher {
    /// AES-GCM with a 16-octet tag.
    Gcm(Gcm),
    /// AES-CBC with a 256-bit key and an HMAC.
    Cbc(Cbc),
}

/// AES-GCM.
pub struct Gcm {
    aes: AesGcm,
    salt: Zeroizing<[u8; SALT]>,
}

/// By the size of the key.
enum AesGcm {
    Bits128(Box<Aes128Gcm>),
    Bits256(Box<Aes256Gcm>),
}

/// AES-CBC with an HMAC.
pub struct Cbc {
    aes: Box<Aes256>,
    integrity: Integrity,
    integrity_key: Hidden,
}

impl Integrity {
    /// Octets of its key, which are those of its hash (RFC 4868 section 2.1.1).
    pub(in crate::ike) fn key_octets(self) -> usize {
        self.hash().output()
    }

    /// Octets of the checksum: half of the hash (RFC 4868 section 2.1.1).
    fn octets(self) -> usize {
        self.hash().output() / 2
    }

    fn hash(self) -> Prf {
        match self {
            Integrity::HmacSha256 => Prf::HmacSha256,
            Integrity::HmacSha384 => Prf::HmacSha384,
        }
    }

    fn checksum(self, key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        let mut checksum = self.hash().compute(key, parts).expose().to_vec();
        checksum.truncate(self.octets());
        checksum
    }
}

impl IkeCipher {
    /// Octets of its key material.
    pub(in crate::ike) fn key_octets(self) -> usize {
        match self {
            IkeCipher::AesGcm16(bits) => usize::from(bits) / 8 + SALT,
            IkeCipher::AesCbc(bits) => usize::from(bits) / 8,
        }
    }
}

impl Cipher {
    /// The cipher of `suite` with the material of one direction: SK_e, and SK_a, which is empty for AES-GCM.
    pub fn new(suite: &Suite, key: &[u8], integrity_key: &[u8]) -> Result<Self, Reason> {
        let internal = |_| Failed::Cryptography;
        match (suite.cipher, suite.integrity) {
            (IkeCipher::AesGcm16(bits), _) => {
                let (key, salt) = key.split_last_chunk::<SALT>().ok_or(Failed::Cryptography)?;
                let aes = match bits {
                    128 => AesGcm::Bits128(Box::new(Aes128Gcm::new_from_slice(key).map_err(internal)?)),
                    _ => AesGcm::Bits256(Box::new(Aes256Gcm::new_from_slice(key).map_err(internal)?)),
                };
                Ok(Cipher::Gcm(Gcm { aes, salt: Zeroizing::new(*salt) }))
            }
            (IkeCipher::AesCbc(_), Some(integrity)) => {
                let aes = Box::new(Aes256::new_from_slice(key).map_err(internal)?);
                let integrity_key = Hidden::new(integrity_key.to_vec());
                Ok(Cipher::Cbc(Cbc { aes, integrity, integrity_key }))
            }
            (IkeCipher::AesCbc(_), None) => Err(Failed::Cryptography.into()),
        }
    }

    /// Ends `text` as the cipher needs it: padding, and how much of it there is (RFC 7296 section 3.14).
    pub fn pad(&self, text: &mut Vec<u8>) {
        let padding = match self {
            // The cipher does not need any (RFC 5282 section 3).
            Cipher::Gcm(_) => 0,
            Cipher::Cbc(_) => (BLOCK - (text.len() + 1) % BLOCK) % BLOCK,
        };
        text.resize(text.len() + padding, 0);
        text.push(u8::try_from(padding).unwrap_or(u8::MAX));
    }

    /// Octets of what [`Cipher::encrypt`] makes of that many octets of text with its padding.
    pub fn encrypted_octets(&self, text: usize) -> usize {
        match self {
            Cipher::Gcm(_) => GCM_IV + text + TAG,
            Cipher::Cbc(cbc) => BLOCK + text + cbc.integrity.octets(),
        }
    }

    /// The most octets of text, without padding, of which [`Cipher::encrypt`] makes at most `octets`.
    pub fn room(&self, octets: usize) -> usize {
        let text = match self {
            Cipher::Gcm(_) => octets.saturating_sub(GCM_IV + TAG),
            Cipher::Cbc(cbc) => octets.saturating_sub(BLOCK + cbc.integrity.octets()) / BLOCK * BLOCK,
        };
        text.saturating_sub(1)
    }

    /// Encrypts `text`, which has its padding, and authenticates it together with `head`: initialization
    /// vector, ciphertext, checksum. The same `unique` never comes twice.
    pub fn encrypt(&self, unique: u64, head: &[u8], mut text: Vec<u8>) -> Result<Vec<u8>, Reason> {
        match self {
            Cipher::Gcm(gcm) => {
                // That is all it takes (RFC 5282 section 3.1).
                let iv = unique.to_be_bytes();
                let tag = gcm.encrypt(&iv, head, &mut text)?;
                Ok([&iv[..], &text, &tag].concat())
            }
            Cipher::Cbc(cbc) => {
                let iv = cbc.encrypt(unique, &mut text)?;
                let checksum = cbc.checksum(&[head, &iv, &text]);
                Ok([&iv[..], &text, &checksum].concat())
            }
        }
    }

    /// Decrypts what [`Cipher::encrypt`] made, padding included; `None` if it is not authentic.
    pub fn decrypt(&self, head: &[u8], body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match self {
            Cipher::Gcm(gcm) => gcm.decrypt(head, body),
            Cipher::Cbc(cbc) => cbc.decrypt(head, body),
        }
    }
}

/// What [`Cipher::decrypt`] found, without its padding.
pub fn unpadded(text: &[u8]) -> Result<&[u8], Reason> {
    text.split_last()
        .and_then(|(padding, text)| text.get(..text.len().checked_sub(usize::from(*padding))?))
        .ok_or(BadMessage::Padding.into())
}

impl Gcm {
    fn nonce(&self, iv: &[u8; GCM_IV]) -> [u8; SALT + GCM_IV] {
        let mut nonce = [0; SALT + GCM_IV];
        nonce[..SALT].copy_from_slice(self.salt.as_slice());
        nonce[SALT..].copy_from_slice(iv);
        nonce
    }

    fn encrypt(&self, iv: &[u8; GCM_IV], associated: &[u8], text: &mut [u8]) -> Result<[u8; TAG], Failed> {
        let (nonce, text) = (self.nonce(iv).into(), InOutBuf::from(text));
        match &self.aes {
            AesGcm::Bits128(aes) => aes.encrypt_inout_detached(&nonce, associated, text),
            AesGcm::Bits256(aes) => aes.encrypt_inout_detached(&nonce, associated, text),
        }
        .map(Into::into)
        .map_err(|_| Failed::Cryptography)
    }

    fn decrypt(&self, associated: &[u8], body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (iv, body) = body.split_first_chunk::<GCM_IV>()?;
        let (text, tag) = body.split_last_chunk::<TAG>()?;
        let mut text = Zeroizing::new(text.to_vec());
        let (nonce, buffer) = (self.nonce(iv).into(), InOutBuf::from(text.as_mut_slice()));
        match &self.aes {
            AesGcm::Bits128(aes) => {
                aes.decrypt_inout_detached(&nonce, associated, buffer, &(*tag).into()).ok()?
            }
            AesGcm::Bits256(aes) => {
                aes.decrypt_inout_detached(&nonce, associated, buffer, &(*tag).into()).ok()?
            }
        }
        Some(text)
    }
}

impl Cbc {
    /// Encrypts in place. An initialization vector must be one that nobody can tell beforehand: it is an
    /// encrypted number (NIST SP 800-38A appendix C).
    fn encrypt(&self, unique: u64, text: &mut [u8]) -> Result<[u8; BLOCK], Reason> {
        let mut iv = Array::from([0; BLOCK]);
        iv[BLOCK - 8..].copy_from_slice(&unique.to_be_bytes());
        self.aes.encrypt_block(&mut iv);
        let mut mode = cbc::Encryptor::inner_iv_init(&*self.aes, &iv);
        match Array::slice_as_chunks_mut(text) {
            (blocks, []) => mode.encrypt_blocks(blocks),
            _ => return Err(Failed::Cryptography.into()),
        }
        Ok(iv.into())
    }

    fn checksum(&self, parts: &[&[u8]]) -> Vec<u8> {
        self.integrity.checksum(self.integrity_key.expose(), parts)
    }

    /// Nothing is decrypted that is not authentic.
    fn decrypt(&self, head: &[u8], body: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (encrypted, checksum) =
            body.split_at_checked(body.len().checked_sub(self.integrity.octets())?)?;
        if !bool::from(self.checksum(&[head, encrypted]).ct_eq(checksum)) {
            return None;
        }
        let (iv, text) = encrypted.split_first_chunk::<BLOCK>()?;
        let mut text = Zeroizing::new(text.to_vec());
        let mut mode = cbc::Decryptor::inner_iv_init(&*self.aes, iv.into());
        match Array::slice_as_chunks_mut(text.as_mut_slice()) {
            (blocks, []) => mode.decrypt_blocks(blocks),
            _ => return None,
        }
        Some(text)
    }
}
