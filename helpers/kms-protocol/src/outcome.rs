//! What comes of an ask, with what is said to it.

use serde::{Deserialize, Serialize};

use crate::{Answer, Given, Refusal};

/// What a KMS has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsGift<T> {
    /// It.
    pub given: T,
    /// What is said to that.
    pub why: Option<String>,
    /// What the KMS calls the request.
    pub request_id: Option<String>,
}

/// Why a KMS has given nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KmsRefusal {
    /// What it means for the key.
    pub refusal: Refusal,
    /// What is said to that.
    pub why: Option<String>,
    /// What the KMS calls the request.
    pub request_id: Option<String>,
}

impl<T> KmsGift<T> {
    /// The same, where this is given.
    pub fn of<U>(self, given: impl FnOnce(T) -> U) -> KmsGift<U> {
        let Self { given: before, why, request_id } = self;
        KmsGift { given: given(before), why, request_id }
    }
}

impl KmsRefusal {
    /// One by `refusal`, for this reason.
    pub fn because(refusal: Refusal, why: impl Into<String>) -> Self {
        Self { refusal, why: Some(why.into()), request_id: None }
    }
}

impl From<Answer> for Result<KmsGift<Given>, KmsRefusal> {
    fn from(Answer { outcome, why, request_id }: Answer) -> Self {
        match outcome {
            Ok(given) => Ok(KmsGift { given, why, request_id }),
            Err(refusal) => Err(KmsRefusal { refusal, why, request_id }),
        }
    }
}
