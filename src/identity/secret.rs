//! The secret that the hosts of a cluster share.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// 32 random bytes. It cannot be cloned, prints as its redacted self and is zeroed when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

/// A fingerprint of a secret that is safe to compare aloud: 8 bytes of HKDF-SHA256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretId([u8; 8]);

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The whole fingerprint of a secret, which begins with its [`SecretId`]: nobody finds another secret that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretDigest([u8; 32]);

impl fmt::Display for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for SecretDigest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "must be 64 hexadecimal digits";
        let digits: Vec<u32> = text.chars().map_while(|digit| digit.to_digit(16)).collect();
        match <[u32; 64]>::try_from(digits) {
            Ok(digits) if text.len() == 64 => {
                Ok(Self(std::array::from_fn(|at| (digits[2 * at] << 4 | digits[2 * at + 1]) as u8)))
            }
            _ => Err(wrong),
        }
    }
}

impl SecretDigest {
    /// The fingerprint that is compared aloud.
    pub fn id(&self) -> SecretId {
        SecretId(std::array::from_fn(|at| self.0[at]))
    }
}

/// Why a line is not a secret. It never repeats the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a secret: it must be 32 bytes in base64 on one line, as `hostseal secret generate` prints it")]
pub struct NotASecret;

impl Secret {
    /// Takes over 32 random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads the base64 line that [`Secret::to_line`] prints; surrounding white space is ignored.
    pub fn from_line(line: &str) -> Result<Self, NotASecret> {
        let decoded = Zeroizing::new(STANDARD.decode(line.trim()).map_err(|_| NotASecret)?);
        let bytes: [u8; 32] = decoded.as_slice().try_into().map_err(|_| NotASecret)?;
        Ok(Self(bytes))
    }

    /// The same in place, as with [`Secret::shared`].
    ///
    /// # Errors
    /// It is no such line.
    pub fn shared_from_line(line: &str) -> Result<Arc<Self>, NotASecret> {
        let decoded = Zeroizing::new(STANDARD.decode(line.trim()).map_err(|_| NotASecret)?);
        Self::shared(&decoded)
    }

    /// The base64 line, without a line end.
    pub fn to_line(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }

    /// The bytes: the IKE pre-shared key.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Takes over what a KMS has given, in place: no copy of it stays behind where it was moved from.
    ///
    /// # Errors
    /// It has another length.
    pub fn shared(octets: &[u8]) -> Result<Arc<Self>, NotASecret> {
        let mut secret = Arc::new(Self([0; 32]));
        match Arc::get_mut(&mut secret) {
            Some(Self(bytes)) if bytes.len() == octets.len() => bytes.copy_from_slice(octets),
            _ => return Err(NotASecret),
        }
        Ok(secret)
    }

    /// Its fingerprint.
    pub fn id(&self) -> SecretId {
        self.digest().id()
    }

    /// Its whole fingerprint.
    pub fn digest(&self) -> SecretDigest {
        let mut out = [0u8; 32];
        self.expand(b"secret id", &mut out);
        SecretDigest(out)
    }

    /// Becomes the PPK that hosts share who have `root`, in place: no copy of it stays behind where it was moved from.
    pub(super) fn become_ppk(&mut self, root: &Secret) {
        root.expand(b"ppk", &mut self.0);
    }

    /// One of several outputs of HKDF-SHA256 (RFC 5869), none of which tells anything of another one.
    #[expect(
        clippy::expect_used,
        reason = "two secrets that look the same are worse than an agent that ends"
    )]
    fn expand(&self, purpose: &[u8], out: &mut [u8; 32]) {
        let filled = Hkdf::<Sha256>::new(Some(b"hostseal"), &self.0).expand(purpose, out);
        filled.expect("32 bytes are within HKDF's limit");
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files and peers name secrets by it.
    #[test]
    fn the_fingerprint_is_the_beginning_of_the_whole_one() {
        let secret = Secret::new([7; 32]);
        let mut short = [0; 8];
        Hkdf::<Sha256>::new(Some(b"hostseal"), &[7; 32]).expand(b"secret id", &mut short).unwrap();
        assert_eq!(secret.id(), SecretId(short));
        let digest = secret.digest();
        assert!(digest.to_string().starts_with(&secret.id().to_string()));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for wrong in ["", "91c2", &"g".repeat(64), &"0".repeat(65), &"é".repeat(32)] {
            assert!(wrong.parse::<SecretDigest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_kms_gives_is_32_octets() {
        assert_eq!(Secret::shared(&[7; 32]).unwrap().expose(), &[7; 32]);
        assert!(Secret::shared(&[7; 31]).is_err() && Secret::shared(&[7; 33]).is_err());
    }
}
