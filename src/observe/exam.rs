//! What two hosts say to each other inside IKE when the operator of one asks what of the path is open. It stands in what
//! they tell of themselves ([`About`](super::About)): earlier versions pass over it.
//!
//! ```text
//! asker  --- question: tokens --->  other        inside IKE
//! asker  <-- answer: nothing came --  other      inside IKE; the time from the question is the round trip
//! asker  === tokens ==============>  other       on each UDP port, and an echo through the SA
//! asker  <=== other tokens ========  other       the same
//! asker  <-- answer: these came ----  other      inside IKE, whenever more has come
//! ```
//! The tokens are random, and nobody but the two knows them before they are sent: what comes with one has come by that
//! way. Nothing is decided by any of it.

use serde::{Deserialize, Serialize};

use crate::types::UnixTime;

/// What a datagram carries that tries a port.
pub type ExamToken = [u8; 16];

/// What one end says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExamWord {
    /// What it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<ExamQuestion>,
    /// What it says to what it was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ExamAnswer>,
}

/// What of the path is open?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamQuestion {
    /// The answer has the same.
    pub number: u64,
    /// What the asker sends to each port: that of IKE, and that of ESP in UDP.
    pub out: [ExamToken; 2],
    /// What the other end is to send back.
    pub back: [ExamToken; 2],
}

/// So much has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExamAnswer {
    /// That of the question.
    pub number: u64,
    /// The time of day there when the question came.
    pub time: UnixTime,
    /// What has come to each port.
    pub came: [bool; 2],
    /// An echo has come through an SA.
    pub esp: bool,
}
