//! The key pairs that hosts prove themselves with.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// The kinds of keys that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ECDSA on the curve P-256.
    EcdsaP256,
    /// ECDSA on the curve P-384.
    EcdsaP384,
}

impl KeyKind {
    const ALL: [KeyKind; 3] = [KeyKind::Ed25519, KeyKind::EcdsaP256, KeyKind::EcdsaP384];

    /// What a SubjectPublicKeyInfo of this kind begins with, in DER: there is one way to write it, so
    /// nothing needs to be parsed (RFC 8410 section 4, RFC 5480 section 2). The key itself follows.
    fn head(self) -> &'static [u8] {
        match self {
            KeyKind::Ed25519 => b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00",
            KeyKind::EcdsaP256 => {
                b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
                  \x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00"
            }
            KeyKind::EcdsaP384 => {
                b"\x30\x76\x30\x10\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\
                  \x06\x05\x2b\x81\x04\x00\x22\x03\x62\x00"
            }
        }
    }

    /// What checks that the rest is a key.
    fn algorithm(self) -> &'static dyn signature::VerificationAlgorithm {
        match self {
            KeyKind::Ed25519 => &signature::ED25519,
            KeyKind::EcdsaP256 => &signature::ECDSA_P256_SHA256_ASN1,
            KeyKind::EcdsaP384 => &signature::ECDSA_P384_SHA384_ASN1,
        }
    }

    /// What it is called on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::Ed25519 => "ed25519",
            KeyKind::EcdsaP256 => "ecdsa-p256",
            KeyKind::EcdsaP384 => "ecdsa-p384",
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why something is not a key. It never repeats what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// No public key.
    #[error(
        "not a public key: it must be an Ed25519, ECDSA P-256 or P-384 key in base64 on one line, as \
         `hostseal key generate` and `hostseal key show` print it"
    )]
    Public,
    /// No private key.
    #[error(
        "not a private key: it must be an Ed25519, ECDSA P-256 or P-384 key in PKCS#8 PEM \
         (\"BEGIN PRIVATE KEY\", not encrypted), as `hostseal key generate` writes it"
    )]
    Private,
}

/// The public half: what others know a host by.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: KeyKind,
    der: Vec<u8>,
}

impl PublicKey {
    /// Reads a SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7) in DER.
    ///
    /// # Errors
    /// It is none, or of a kind that we do not know.
    pub fn from_der(der: &[u8]) -> Result<Self, NotAKey> {
        let kind = KeyKind::ALL.into_iter().find(|kind| der.starts_with(kind.head()));
        let key = Self { kind: kind.ok_or(NotAKey::Public)?, der: der.to_vec() };
        let parsed = signature::ParsedPublicKey::new(key.kind.algorithm(), key.point());
        parsed.map(|_| key).map_err(|_| NotAKey::Public)
    }

    /// An Ed25519 key (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    /// It is none.
    pub fn from_ed25519(key: &[u8; 32]) -> Result<Self, NotAKey> {
        Self::from_der(&[KeyKind::Ed25519.head(), key].concat())
    }

    /// Its SubjectPublicKeyInfo in DER.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Its kind.
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// The key without its kind: an Ed25519 key (RFC 8032) or a point on the curve, uncompressed.
    pub fn point(&self) -> &[u8] {
        self.der.get(self.kind.head().len()..).unwrap_or_default()
    }

    /// Whether `signature` of `message` is one that [`PrivateKey::sign`] makes with the private half.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        signature::UnparsedPublicKey::new(self.kind.algorithm(), self.point())
            .verify(message, signature)
            .is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = NotAKey;

    /// Reads the line that `Display` prints.
    fn from_str(line: &str) -> Result<Self, NotAKey> {
        Self::from_der(&STANDARD.decode(line.trim()).map_err(|_| NotAKey::Public)?)
    }
}

impl fmt::Display for PublicKey {
    /// Its SubjectPublicKeyInfo in base64.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&STANDARD.encode(&self.der))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}

/// A key pair. It cannot be cloned and prints as its redacted self; the library that holds the private half
/// overwrites it when it is dropped.
pub struct PrivateKey {
    pair: Private,
    public: PublicKey,
}

enum Private {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
}

/// ECDSA with the hash that fits the curve.
const ECDSA: [&EcdsaSigningAlgorithm; 2] =
    [&signature::ECDSA_P256_SHA256_ASN1_SIGNING, &signature::ECDSA_P384_SHA384_ASN1_SIGNING];

/// The cryptography library refused: it has no randomness, or no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptography library failed")]
pub struct CryptoFailed;

impl PrivateKey {
    /// A new key pair with randomness of the cryptography library's own, as PKCS#8 PEM (RFC 5958, RFC 7468):
    /// version 1, which every other program reads too.
    ///
    /// # Errors
    /// The cryptography library failed.
    pub fn generate(kind: KeyKind) -> Result<Zeroizing<String>, CryptoFailed> {
        let random = SystemRandom::new();
        let document = match kind {
            KeyKind::Ed25519 => Ed25519KeyPair::generate_pkcs8v1(&random),
            KeyKind::EcdsaP256 => EcdsaKeyPair::generate_pkcs8(ECDSA[0], &random),
            KeyKind::EcdsaP384 => EcdsaKeyPair::generate_pkcs8(ECDSA[1], &random),
        }
        .map_err(|_| CryptoFailed)?;
        Ok(wrapped(document.as_ref()))
    }

    /// Reads what [`PrivateKey::generate`] made, or another program: PKCS#8 PEM, not encrypted.
    ///
    /// # Errors
    /// It is none, or of a kind that we do not know.
    pub fn from_pem(pem: &str) -> Result<Self, NotAKey> {
        let der = unwrapped(pem).ok_or(NotAKey::Private)?;
        let ed25519 = Ed25519KeyPair::from_pkcs8(&der).map(Private::Ed25519).ok();
        let ecdsa = || ECDSA.iter().find_map(|algorithm| EcdsaKeyPair::from_pkcs8(algorithm, &der).ok());
        let pair = ed25519.or_else(|| ecdsa().map(Private::Ecdsa)).ok_or(NotAKey::Private)?;
        let public = match &pair {
            Private::Ed25519(pair) => pair.public_key().as_der(),
            Private::Ecdsa(pair) => pair.public_key().as_der(),
        };
        let public = PublicKey::from_der(public.map_err(|_| NotAKey::Private)?.as_ref())?;
        Ok(Self { pair, public })
    }

    /// The Ed25519 key pair of a private key of 32 octets (RFC 8032 section 5.1.5).
    ///
    /// # Errors
    /// The cryptography library refuses it.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, NotAKey> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| NotAKey::Private)?;
        let der = pair.public_key().as_der().map_err(|_| NotAKey::Private)?;
        Ok(Self { public: PublicKey::from_der(der.as_ref())?, pair: Private::Ed25519(pair) })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `message`: Ed25519, or ECDSA with SHA2-256 on P-256 and SHA2-384 on P-384, as an
    /// ECDSA-Sig-Value (RFC 3279 section 2.2.3). ECDSA takes a random number that the library draws by itself,
    /// whatever it is given: nothing is decided by it.
    ///
    /// # Errors
    /// The cryptography library failed.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoFailed> {
        match &self.pair {
            Private::Ed25519(pair) => pair.try_sign(message),
            Private::Ecdsa(pair) => pair.sign(&SystemRandom::new(), message),
        }
        .map(|signature| signature.as_ref().to_vec())
        .map_err(|_| CryptoFailed)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public)
    }
}

/// The lines around a private key (RFC 7468 section 10).
const PEM: [&str; 2] = ["-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"];

/// PEM of `der`. Its buffers have their full size at once: growing would leave copies behind.
fn wrapped(der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(base64.len() + base64.len() / 64 + 64));
    pem.push_str(PEM[0]);
    for at in (0..base64.len()).step_by(64) {
        pem.push('\n');
        pem.push_str(&base64[at..base64.len().min(at + 64)]);
    }
    pem.push('\n');
    pem.push_str(PEM[1]);
    pem.push('\n');
    pem
}

/// What [`wrapped`] was given. Text before and after is skipped, as RFC 7468 section 2 wants.
fn unwrapped(pem: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (_, rest) = pem.split_once(PEM[0])?;
    let (lines, _) = rest.split_once(PEM[1])?;
    let mut base64 = Zeroizing::new(String::with_capacity(lines.len()));
    lines.split_ascii_whitespace().for_each(|part| base64.push_str(part));
    STANDARD.decode(base64.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(kind: KeyKind) -> PrivateKey {
        PrivateKey::from_pem(&PrivateKey::generate(kind).unwrap()).unwrap()
    }

    #[test]
    fn a_key_pair_is_read_as_it_was_written() {
        for kind in KeyKind::ALL {
            let pem = PrivateKey::generate(kind).unwrap();
            assert!(pem.lines().all(|line| line.len() <= 64) && pem.ends_with("KEY-----\n"));
            let key = PrivateKey::from_pem(&pem).unwrap();
            assert_eq!(key.public().kind(), kind);
            let line = key.public().to_string();
            assert_eq!(&line.parse::<PublicKey>().unwrap(), key.public());
            assert_ne!(pair(kind).public(), key.public(), "each one is new");
            let signature = key.sign(b"this").unwrap();
            assert!(key.public().has_signed(b"this", &signature));
            assert!(!key.public().has_signed(b"that", &signature));
            assert!(!pair(kind).public().has_signed(b"this", &signature));
            assert!(!format!("{key:?}").contains(pem.lines().nth(1).unwrap()));
        }
    }

    /// RFC 8410 section 10.1 and 10.3: what OpenSSL and others write is what we read.
    #[test]
    fn the_rfcs_own_example_is_read() {
        let pem = "some text before\n-----BEGIN PRIVATE KEY-----\n\
                   MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
                   -----END PRIVATE KEY-----\n";
        let key = PrivateKey::from_pem(pem).unwrap();
        assert_eq!(key.public().to_string(), "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
    }

    /// RFC 8032 section 7.1, tests 1 and 2.
    #[test]
    fn a_seed_is_the_key_pair_of_the_rfc() {
        let cases = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            ),
        ];
        for (seed, public) in cases {
            let octets = |hex: &str| {
                let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
                digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect::<Vec<u8>>()
            };
            let key = PrivateKey::from_seed(octets(seed).as_slice().try_into().unwrap()).unwrap();
            assert_eq!(key.public().point(), octets(public));
        }
    }

    #[test]
    fn what_is_not_a_key_is_refused_without_being_repeated() {
        let whole = pair(KeyKind::EcdsaP256).public().to_string();
        let mut off_the_curve = STANDARD.decode(&whole).unwrap();
        *off_the_curve.last_mut().unwrap() ^= 1;
        let short = &whole[..whole.len() - 4];
        let wrong = ["", "secret", short, &format!("{whole}AAAA"), &STANDARD.encode(off_the_curve)];
        for wrong in wrong {
            assert_eq!(wrong.parse::<PublicKey>(), Err(NotAKey::Public), "{wrong}");
            assert_eq!(PrivateKey::from_pem(wrong).err(), Some(NotAKey::Private));
        }
        let garbled = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";
        assert_eq!(PrivateKey::from_pem(garbled).err(), Some(NotAKey::Private));
    }
}
