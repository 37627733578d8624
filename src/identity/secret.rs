//! The secret that the hosts of a cluster share.

use std::fmt;

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

    /// The base64 line, without a line end.
    pub fn to_line(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.0))
    }

    /// The bytes: the IKE pre-shared key.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Its fingerprint.
    #[expect(
        clippy::expect_used,
        reason = "two secrets that look the same are worse than an agent that ends"
    )]
    pub fn id(&self) -> SecretId {
        let mut out = [0u8; 8];
        let filled = Hkdf::<Sha256>::new(Some(b"hostseal"), &self.0).expand(b"secret id", &mut out);
        filled.expect("8 bytes are within HKDF's limit");
        SecretId(out)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
