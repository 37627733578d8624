//! What `hostseal prove` sends: small datagrams, each with a random number that nobody else knows, so that whoever says
//! to have seen it has seen it.

use serde::{Deserialize, Serialize};

/// Before the number, so that a capture can tell what it is.
const PREFIX: [u8; 7] = *b"hsprove";
/// What follows in one that is sent past all policies.
const CLEAR: u8 = b'c';
/// What follows in one that goes as the packets of any program do.
const SEALED: u8 = b's';
/// Octets of a datagram, without the UDP header.
pub const NONCE_DATAGRAM: usize = 16;
/// So many of each kind go each way at least.
pub const NONCES_LEAST: u8 = 16;
/// And at most.
pub const NONCES_MOST: u8 = 64;
/// How often they are sent at most, where some are missing.
pub const ROUNDS_MOST: u32 = 3;

/// A random number that is sent once each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Nonce(pub [u8; 8]);

/// How a nonce is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NonceKind {
    /// Past all policies, in the clear: a sealed peer refuses it.
    Clear,
    /// As the packets of any program: the policies have it encrypted.
    Sealed,
}

impl Nonce {
    /// The datagram that carries it.
    pub fn datagram(self, kind: NonceKind) -> [u8; NONCE_DATAGRAM] {
        let mut bytes = [0; NONCE_DATAGRAM];
        bytes[..7].copy_from_slice(&PREFIX);
        bytes[7] = match kind {
            NonceKind::Clear => CLEAR,
            NonceKind::Sealed => SEALED,
        };
        bytes[8..].copy_from_slice(&self.0);
        bytes
    }

    /// The nonce in a datagram and how it was meant to be sent, if it is one.
    pub fn from_datagram(bytes: &[u8]) -> Option<(NonceKind, Self)> {
        let (kind, nonce) = bytes.strip_prefix(&PREFIX)?.split_first()?;
        let kind = match *kind {
            CLEAR => NonceKind::Clear,
            SEALED => NonceKind::Sealed,
            _ => return None,
        };
        Some((kind, Self(nonce.try_into().ok()?)))
    }

    /// Those of many in one text.
    pub fn join(nonces: impl IntoIterator<Item = Self>) -> Vec<u8> {
        nonces.into_iter().flat_map(|nonce| nonce.0).collect()
    }

    /// Those that were joined; `None` where that is no whole number of them.
    pub fn split(octets: &[u8]) -> Option<Vec<Self>> {
        let (nonces, rest) = octets.as_chunks();
        rest.is_empty().then(|| nonces.iter().copied().map(Self).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_read_as_it_was_sent_and_nothing_else_is_one() {
        for (kind, letter) in [(NonceKind::Clear, b'c'), (NonceKind::Sealed, b's')] {
            let bytes = Nonce(*b"01234567").datagram(kind);
            assert_eq!(bytes, *[b"hsprove", &[letter][..], b"01234567"].concat());
            assert_eq!(Nonce::from_datagram(&bytes), Some((kind, Nonce(*b"01234567"))));
            assert_eq!(Nonce::from_datagram(&bytes[..15]), None);
            assert_eq!(Nonce::from_datagram(&[&bytes[..], b"x"].concat()), None);
        }
        assert_eq!(Nonce::from_datagram(b"hsprovex01234567"), None);
        let both = [Nonce(*b"01234567"), Nonce(*b"89abcdef")];
        assert_eq!(Nonce::split(&Nonce::join(both)), Some(both.to_vec()));
        assert_eq!(Nonce::split(b"0123456"), None);
    }
}
