//! Why a host could not be protected, in a word that other hosts can be told.

use serde::{Deserialize, Serialize};

/// Why a host could not be protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unready {
    /// Its kernel has no ESP.
    NoEsp,
    /// Its kernel has ESP, but not the cipher.
    NoCipher,
    /// Its agent may not change the kernel's tables.
    NotPermitted,
    /// Its file is not in force.
    File,
    /// Its kernel has refused what was tried, for a reason that may pass; or something that only another version knows.
    #[serde(other)]
    Other,
}

impl Unready {
    /// Whether it may be over soon, with nobody doing anything.
    pub fn may_pass(self) -> bool {
        self == Self::Other
    }
}
