//! The lease of a wrapped secret as it is remembered: when it ends, and what was said against the key. Never the secret.

use std::time::Duration;

use hostseal_kms_protocol::KmsRefusal;
use serde::{Deserialize, Serialize};

use crate::types::Boot;

/// A lease as it is remembered. It counts from the start of the system, which no change of the clock moves; after another
/// start of the system there is nothing left that it could end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLease {
    /// The start of the system under which it ran.
    boot: String,
    /// When it ends or has ended, in milliseconds since then.
    ends_ms: u64,
    /// The key, as its KMS calls it.
    key: String,
    /// What the KMS has said against the key, unless it was used since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    denial: Option<KmsRefusal>,
}

impl SavedLease {
    /// The lease of the secret that `key` wraps; it ends when `end` is. `denial` is what was said against the key, and no
    /// use of it has lifted.
    pub fn new(end: &Boot, key: String, denial: Option<KmsRefusal>) -> Self {
        let ends_ms = u64::try_from(end.uptime.as_millis()).unwrap_or(u64::MAX);
        Self { boot: end.id.clone(), ends_ms, key, denial }
    }

    /// When it ends or has ended, since the start of the system that is called `boot`; `None` where it ran under another.
    pub fn end(&self, boot: &str) -> Option<Duration> {
        (self.boot == boot).then(|| Duration::from_millis(self.ends_ms))
    }

    /// What was said against `key`.
    pub fn denial(&self, key: &str) -> Option<&KmsRefusal> {
        self.denial.as_ref().filter(|denial| denial.refusal.is_final() && self.key == key)
    }
}
