//! How things stand: with a host, and with each of its pairs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What the operator wants of this host, and how far that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// Everything is in the clear, on purpose.
    #[default]
    Off,
    /// On its way to `on`.
    Enabling,
    /// Wanted and in force for every pair that has come so far.
    On,
    /// On its way to `off`.
    Disabling,
}

/// The state of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowState {
    /// In the clear, on purpose.
    Off,
    /// Being agreed; clear until then.
    Negotiating,
    /// ESP in both directions, and nothing else accepted.
    Protected,
    /// Plaintext flows, though it should not.
    Clear,
    /// Everything is dropped: sealed, and no SA.
    Blocked,
}

/// Why a row is neither protected nor off, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// It is under way, and nothing has gone wrong.
    InProgress,
    /// The other host does not answer.
    NoAnswer,
    /// It answers, but one end does not take the proof of the other.
    AuthFailed,
    /// A PPK is required, and the other host uses none.
    PpkMissing,
    /// The other host uses a PPK that is not known here.
    PpkUnknown,
    /// It has another key for a PPK, or the proof is wrong otherwise.
    PpkWrong,
    /// It answers, but no algorithms are common to both.
    NoProposal,
    /// It refused for another reason.
    PeerRefused,
    /// Keys are agreed, but ESP does not get through.
    EspBlocked,
    /// This host does not have its address of the pair now.
    NoAddress,
    /// The other host took the pair back to clear.
    PeerDisabled,
    /// The kernel refused something.
    KernelError,
    /// Something else failed on this host.
    Internal,
    /// No agent runs here, or it does not answer.
    NoAgent,
    /// The pair is protected, and the other host shows no sign of life.
    Silent,
    /// The key that wraps this host's secret is not to be used any more.
    KeyRevoked,
    /// It could not be used for too long.
    KeyOffline,
    /// It is going to be deleted.
    KeyPendingDeletion,
    /// The other host said that it was cut off from its key.
    PeerCutOff,
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protection::Off => "off",
            Protection::Enabling => "enabling",
            Protection::On => "on",
            Protection::Disabling => "disabling",
        })
    }
}

impl RowState {
    /// All of them.
    pub const ALL: [RowState; 5] =
        [RowState::Off, RowState::Negotiating, RowState::Protected, RowState::Clear, RowState::Blocked];
}

impl fmt::Display for RowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RowState::Off => "off",
            RowState::Negotiating => "negotiating",
            RowState::Protected => "protected",
            RowState::Clear => "clear",
            RowState::Blocked => "blocked",
        })
    }
}
