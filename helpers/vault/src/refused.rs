//! Why nothing comes of an ask.

use hostseal_kms_protocol::{Answer, Refusal};

/// That nothing comes of it, in words too.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    refusal: Refusal,
    why: String,
}

impl Refused {
    pub fn new(refusal: Refusal, why: impl Into<String>) -> Self {
        Self { refusal, why: why.into() }
    }

    /// Vault could not be asked.
    pub fn unavailable(why: impl Into<String>) -> Self {
        Self::new(Refusal::Unavailable, why)
    }

    /// The same, in other words where they repeat `secret`: Vault, or what stands before it, may quote what it was told.
    pub fn without(self, secret: &str) -> Self {
        match self.why.contains(secret) {
            true => {
                Self { why: "the words to that are not told, as they repeat a secret".to_owned(), ..self }
            }
            false => self,
        }
    }

    pub fn refusal(&self) -> &Refusal {
        &self.refusal
    }

    pub fn why(&self) -> &str {
        &self.why
    }
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Self {
        Self { outcome: Err(refused.refusal), why: Some(refused.why), request_id: None }
    }
}
