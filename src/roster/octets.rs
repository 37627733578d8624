//! Names of 32 octets: of entries, of clusters, of those who sign.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::identity::{KeyKind, NotAKey, PrivateKey, PublicKey};

/// How many octets each of them has.
pub(super) const LENGTH: usize = 32;

/// Text that should be 32 octets in base64 and is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 32 octets in base64 (RFC 4648 section 5, without padding)")]
pub struct NotOctets;

macro_rules! octets {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name([u8; LENGTH]);

        impl $name {
            /// These octets.
            pub fn new(octets: [u8; LENGTH]) -> Self {
                Self(octets)
            }

            /// Its octets.
            pub fn octets(&self) -> &[u8; LENGTH] {
                &self.0
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> Ordering {
                // That of the octets; it is nearly always decided by the first of them.
                let first = |name: &Self| name.0.first_chunk().map(|first| u64::from_be_bytes(*first));
                first(self).cmp(&first(other)).then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = NotOctets;

            fn from_str(text: &str) -> Result<Self, NotOctets> {
                let octets = URL_SAFE_NO_PAD.decode(text).map_err(|_| NotOctets)?;
                octets.try_into().map(Self).map_err(|_| NotOctets)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

octets! {
    /// The SHA-256 of what is signed of an entry.
    EntryId
}

octets! {
    /// The [`EntryId`] of the entry that founds a cluster.
    ClusterId
}

octets! {
    /// Who signs: the public half of an Ed25519 key (RFC 8032).
    Signer
}

octets! {
    /// What a set of entries is: the same on two hosts that have the same set.
    RosterId
}

impl ClusterId {
    /// What the first entry signs in place of the name that it only then has.
    pub(super) const NONE: ClusterId = ClusterId([0; LENGTH]);
}

impl EntryId {
    /// The cluster that this entry founds.
    pub(super) fn cluster(self) -> ClusterId {
        ClusterId(self.0)
    }
}

impl From<ClusterId> for EntryId {
    /// The entry that founds the cluster.
    fn from(cluster: ClusterId) -> Self {
        Self(cluster.0)
    }
}

impl Signer {
    /// Who signs with `key`; `None` where that is no Ed25519 key.
    pub fn of(key: &PrivateKey) -> Option<Self> {
        let public = key.public();
        let octets = (public.kind() == KeyKind::Ed25519).then(|| public.point().try_into().ok())?;
        octets.map(Self)
    }

    /// As others read it.
    ///
    /// # Errors
    /// It is no key.
    pub fn public_key(&self) -> Result<PublicKey, NotAKey> {
        PublicKey::from_ed25519(&self.0)
    }

    /// Whether `signature` of `message` is this one's.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}
