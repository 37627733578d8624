//! The ways to make keys.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How keys are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Negotiated by IKEv2.
    Ike,
    /// From the secret that all hosts share, without Diffie-Hellman.
    Derived,
}

impl Method {
    /// All of them.
    pub const ALL: [Method; 2] = [Method::Ike, Method::Derived];

    /// What the file calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Ike => "ike",
            Method::Derived => "derived",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
