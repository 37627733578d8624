//! Why a pair is not protected, as values. `observe` makes words of them.

use crate::types::{OpError, PolicyReading, ReasonCode};

/// Why a pair is neither protected nor off, or why its keys are not renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairReason {
    /// It is on its way back to the clear.
    Leaving,
    /// It sends ESP, and accepts clear packets still.
    Sealing,
    /// Keys are agreed, and ESP is to be seen to get through.
    Proving,
    /// Keys are being agreed.
    Agreeing,
    /// ESP by itself does not get through, and is tried in UDP.
    Encapsulating,
    /// This host does not have its address of the pair.
    NoAddress,
    /// The operator of the peer disabled it.
    PeerDisabled,
    /// The peer took the pair to the clear, as its file does not list this host any more.
    PeerRemoved,
    /// The peer's trial ended, and nobody confirmed it.
    TrialEnded,
    /// A policy is not in the kernel as it should be.
    Unwritten(Unwritten),
    /// The kernel did not take an SA.
    NotInstalled(OpError),
    /// Keys are agreed, and ESP does not get through.
    EspBlocked {
        /// Which way.
        way: BlockedWay,
        /// What was tried beside ESP by itself.
        detour: DetourTried,
    },
    /// The key exchange failed: whoever carries it out knows why.
    NoKeys(ReasonCode),
}

/// Why a policy is not in the kernel as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unwritten {
    /// The kernel did not take it.
    Refused(OpError),
    /// This policy of other software has its place.
    InTheWay(PolicyReading),
}

/// Which way ESP does not get through, as far as both ends know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlockedWay {
    /// Nobody knows.
    #[default]
    Unknown,
    /// From this host to the other.
    Out,
    /// From the other host to this one.
    In,
    /// In either direction.
    Both,
}

/// What was tried where ESP by itself does not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DetourTried {
    /// Nothing.
    Nothing,
    /// ESP in UDP, on which no keys could be agreed.
    Failed,
    /// ESP in UDP to this port, which does not get through either.
    Port(u16),
}

impl PairReason {
    /// The code in the contract with programs.
    pub fn code(&self) -> ReasonCode {
        match self {
            PairReason::Leaving
            | PairReason::Sealing
            | PairReason::Proving
            | PairReason::Agreeing
            | PairReason::Encapsulating => ReasonCode::InProgress,
            PairReason::NoAddress => ReasonCode::NoAddress,
            PairReason::PeerDisabled | PairReason::PeerRemoved | PairReason::TrialEnded => {
                ReasonCode::PeerDisabled
            }
            PairReason::Unwritten(_) | PairReason::NotInstalled(_) => ReasonCode::KernelError,
            PairReason::EspBlocked { .. } => ReasonCode::EspBlocked,
            PairReason::NoKeys(code) => *code,
        }
    }
}
