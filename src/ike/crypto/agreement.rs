//! Diffie-Hellman (RFC 5903, RFC 8031).

use aws_lc_rs::agreement;
use zeroize::Zeroizing;

use super::Hidden;
use crate::ike::Entropy;
use crate::ike::reason::{Failed, Misbehaved, Reason};
use crate::types::Group;

/// In front of the two coordinates of a point: it is not compressed (SEC 1 section 2.3.3). IKE leaves it out
/// (RFC 5903 section 7).
const UNCOMPRESSED: u8 = 4;
/// The chance that random bytes are no private key of P-256 is 2^-32 each time.
const TRIES: usize = 8;

/// What our library calls a group, and the octets of its private keys.
fn algorithm(group: Group) -> (&'static agreement::Algorithm, usize) {
    match group {
        Group::X25519 => (&agreement::X25519, 32),
        Group::EcpP256 => (&agreement::ECDH_P256, 32),
        Group::EcpP384 => (&agreement::ECDH_P384, 48),
    }
}

/// Whether public values of a group are points without their first octet.
fn is_curve_point(group: Group) -> bool {
    match group {
        Group::X25519 => false,
        Group::EcpP256 | Group::EcpP384 => true,
    }
}

/// Our half of one Diffie-Hellman exchange.
pub struct KeyPair {
    group: Group,
    private: agreement::PrivateKey,
    public: Vec<u8>,
}

impl KeyPair {
    /// A new one of `group`.
    pub fn generate(group: Group, entropy: &mut dyn Entropy) -> Result<Self, Reason> {
        let mut seed = Zeroizing::new(vec![0; algorithm(group).1]);
        // Not every number is below the order of the curve.
        for _ in 0..TRIES {
            entropy.fill(&mut seed);
            if let Ok(pair) = Self::from_private(group, &seed) {
                return Ok(pair);
            }
        }
        Err(Failed::Cryptography.into())
    }

    /// The key pair of a private key.
    pub fn from_private(group: Group, private: &[u8]) -> Result<Self, Reason> {
        let internal = |_| Failed::Cryptography;
        let private = agreement::PrivateKey::from_private_key(algorithm(group).0, private);
        let private = private.map_err(|_| Failed::Cryptography)?;
        let public = private.compute_public_key().map_err(internal)?;
        let skipped = usize::from(is_curve_point(group));
        let public = public.as_ref().get(skipped..).ok_or(Failed::Cryptography)?.to_vec();
        Ok(Self { group, private, public })
    }

    /// Its group.
    pub fn group(&self) -> Group {
        self.group
    }

    /// What the peer gets.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// The shared secret: for the curves of NIST the x coordinate (RFC 5903 section 7). Refused is a public
    /// value of a wrong length, a point that is not on the curve, and one of small order (RFC 8031 section 2,
    /// RFC 6989 section 2.3).
    pub fn agree(&self, peer: &[u8]) -> Result<Hidden, Reason> {
        let mut point = Vec::with_capacity(1 + peer.len());
        point.extend(is_curve_point(self.group).then_some(UNCOMPRESSED));
        point.extend(peer);
        let refused = Reason::Misbehaved(Misbehaved::PublicValue);
        if peer.len() != self.public.len() {
            return Err(refused);
        }
        let peer = agreement::UnparsedPublicKey::new(algorithm(self.group).0, point);
        agreement::agree(&self.private, peer, refused, |secret| Ok(Hidden::new(secret.to_vec())))
    }
}
