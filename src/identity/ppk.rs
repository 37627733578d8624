//! Post-quantum preshared keys (RFC 8784, RFC 9867): what two hosts share beside their proofs, and what is mixed into the
//! keys of their IKE SA.

use std::fmt;
use std::sync::Arc;

use super::{Secret, SecretId};

/// A post-quantum preshared key, and what both hosts call it.
#[derive(Debug)]
pub struct Ppk {
    id: String,
    key: Secret,
}

/// Which PPK it is, safe to show: what it is called, and the fingerprint of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PpkTag {
    id: String,
    key: SecretId,
}

/// What PPK keys have in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PpkUse {
    /// This one.
    Used(PpkTag),
    /// None.
    None,
}

/// The PPKs that two hosts may use with each other.
#[derive(Debug, Clone, Default)]
pub struct PpkRule {
    /// Those that are taken. This host begins with the first, and tries the second where that is refused.
    pub keys: Vec<Arc<Ppk>>,
    /// They make no keys with each other without one.
    pub required: bool,
}

impl Ppk {
    /// The key that both hosts call `id`.
    pub fn new(id: String, key: Secret) -> Self {
        Self { id, key }
    }

    /// The key that hosts share who have `root`, and call `id`.
    pub fn of_root(id: String, root: &Secret) -> Arc<Self> {
        let mut ppk = Arc::new(Self::new(id, Secret::new([0; 32])));
        if let Some(ppk) = Arc::get_mut(&mut ppk) {
            ppk.key.become_ppk(root);
        }
        ppk
    }

    /// What both hosts call it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The key itself.
    pub fn expose(&self) -> &[u8] {
        self.key.expose()
    }

    /// Which one it is.
    pub fn tag(&self) -> PpkTag {
        PpkTag { id: self.id.clone(), key: self.key.id() }
    }
}

impl PpkTag {
    /// The fingerprint of its key.
    pub fn key(&self) -> SecretId {
        self.key
    }

    /// What both hosts call it.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for PpkTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (key {})", self.id, self.key)
    }
}

impl PpkUse {
    /// What both hosts call the PPK.
    pub fn id(&self) -> Option<&str> {
        match self {
            PpkUse::Used(tag) => Some(tag.id()),
            PpkUse::None => None,
        }
    }
}

impl PpkRule {
    /// The one to begin with. `fallback`: the first was refused.
    pub fn choice(&self, fallback: bool) -> Option<&Arc<Ppk>> {
        self.keys.get(usize::from(fallback)).or(self.keys.first())
    }

    /// The one that the other host calls `id`.
    pub fn named(&self, id: &[u8]) -> Option<&Arc<Ppk>> {
        self.keys.iter().find(|ppk| ppk.id.as_bytes() == id)
    }

    /// Whether it is one of these.
    pub fn has(&self, tag: &PpkTag) -> bool {
        self.keys.iter().any(|ppk| ppk.tag() == *tag)
    }

    /// Which one is wanted.
    pub fn wanted(&self) -> Option<PpkTag> {
        self.choice(false).map(|ppk| ppk.tag())
    }
}
