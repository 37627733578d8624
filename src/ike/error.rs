//! What can go wrong in an exchange, sorted by blame, and the one function that tells the peer.

use std::fmt;

use super::auth::Unproven;
use super::wire::codes::notify;
use super::wire::{Payload, Proposal};
use super::{Failure, FailureCode};
use crate::ike::crypto::offered;

/// Why a message, or what it asks for, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The bytes are not a message.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// A payload of this type must be understood, and we do not.
    #[error("unsupported critical payload of type {0}")]
    UnsupportedCritical(u8),
    /// Well formed, and not what the protocol allows here.
    #[error("the peer broke the protocol: {0}")]
    PeerMisbehaved(&'static str),
    /// Correct, and nothing that we have in common.
    #[error("nothing in common: {0}")]
    PeerIncompatible(&'static str),
    /// Correct, and no algorithms that we have in common; what was offered, and what is taken here.
    #[error("{0}")]
    Proposals(String),
    /// Correct, but the public value is of another group than the one chosen.
    #[error("the public value must be of group {0}")]
    OtherGroup(u16),
    /// The ticket is not taken.
    #[error("the peer's ticket is rejected: {0}")]
    Ticket(&'static str),
    /// The traffic selectors do not contain the pair's addresses.
    #[error("traffic selectors without the pair's addresses")]
    Selectors,
    /// The peer did not prove that it is who it must be.
    #[error("authentication failed: {0}")]
    Unauthenticated(Unproven),
    /// A limit of ours.
    #[error("no more child SAs")]
    TooMany,
    /// The peer's request crosses something in progress.
    #[error("busy with an exchange that this one crosses")]
    Busy,
    /// The child that the request is about does not exist.
    #[error("no such child SA")]
    NoSuchChild(u32),
    /// The exchange goes on with something that we do not have.
    #[error("no exchange is under way that this message continues")]
    NoState,
    /// The peer refused, with this notification.
    #[error("{}", refusal(*.0))]
    Refused(u16),
    /// Our cryptography library failed.
    #[error("cryptography failed")]
    Internal,
}

impl Error {
    /// The failure that it means.
    pub(super) fn failure(&self) -> Failure {
        Failure { code: self.code(), words: self.to_string(), hearsay: false }
    }

    /// The same where it is the word of somebody who has proven nothing, or what came of it.
    pub(super) fn hearsay(&self) -> Failure {
        Failure { hearsay: true, ..self.failure() }
    }

    fn code(&self) -> FailureCode {
        match self {
            Error::Unauthenticated(_)
            | Error::Refused(notify::AUTHENTICATION_FAILED | notify::TICKET_NACK) => FailureCode::AuthFailed,
            Error::PeerIncompatible(_) | Error::Proposals(_) | Error::OtherGroup(_) | Error::Selectors => {
                FailureCode::NoProposal
            }
            Error::Refused(
                notify::NO_PROPOSAL_CHOSEN | notify::INVALID_KE_PAYLOAD | notify::TS_UNACCEPTABLE,
            ) => FailureCode::NoProposal,
            Error::Internal => FailureCode::Internal,
            _ => FailureCode::PeerRefused,
        }
    }
}

/// What the peer's notification means to the operator.
fn refusal(kind: u16) -> String {
    let name = notify::name(kind);
    match kind {
        notify::AUTHENTICATION_FAILED => format!(
            "authentication failed: the peer rejected our authentication. Run `hostseal status` there for the \
             reason: another secret or key than it expects, or an address that it does not list ({name})"
        ),
        notify::NO_PROPOSAL_CHOSEN => format!(
            "the peer refused our proposals. Compare what `hostseal config check` prints on both hosts, or run \
             `hostseal status` there ({name})"
        ),
        notify::TICKET_NACK => format!(
            "the peer rejected keys derived from the secret: it has another secret (compare `hostseal secret \
             id` on both hosts), another cluster or address for this host, or no \"derived\" in keying.accept ({name})"
        ),
        notify::TS_UNACCEPTABLE => format!("the peer has other addresses for this pair ({name})"),
        _ => format!("the peer answered {name}"),
    }
}

impl Error {
    /// Bytes that are not a message.
    pub(super) fn malformed(what: &'static str) -> Self {
        Error::Malformed(what)
    }

    /// That the peer's offer and our proposals for `what` have nothing in common.
    pub(super) fn no_proposal(what: &str, offers: &[Proposal], ours: &impl fmt::Display) -> Self {
        let offered = offered::words(offers);
        Error::Proposals(format!(
            "no algorithms in common for {what}: the peer offers {offered}, and this host takes {ours}"
        ))
    }

    /// The notification that answers a request which failed so (RFC 7296 section 2.21).
    pub(super) fn to_notify(&self) -> Payload {
        match self {
            Error::Malformed(_) | Error::PeerMisbehaved(_) => {
                Payload::notify(notify::INVALID_SYNTAX, Vec::new())
            }
            Error::UnsupportedCritical(kind) => {
                Payload::notify(notify::UNSUPPORTED_CRITICAL_PAYLOAD, vec![*kind])
            }
            Error::PeerIncompatible(_) | Error::Proposals(_) => {
                Payload::notify(notify::NO_PROPOSAL_CHOSEN, Vec::new())
            }
            Error::OtherGroup(group) => {
                Payload::notify(notify::INVALID_KE_PAYLOAD, group.to_be_bytes().to_vec())
            }
            // RFC 5723 section 4.3.2.
            Error::Ticket(_) => Payload::notify(notify::TICKET_NACK, Vec::new()),
            Error::Selectors => Payload::notify(notify::TS_UNACCEPTABLE, Vec::new()),
            Error::Unauthenticated(_) => Payload::notify(notify::AUTHENTICATION_FAILED, Vec::new()),
            Error::TooMany => Payload::notify(notify::NO_ADDITIONAL_SAS, Vec::new()),
            Error::NoSuchChild(spi) => super::wire::about_child(notify::CHILD_SA_NOT_FOUND, *spi),
            Error::NoState => Payload::notify(notify::STATE_NOT_FOUND, Vec::new()),
            Error::Busy | Error::Internal | Error::Refused(_) => {
                Payload::notify(notify::TEMPORARY_FAILURE, Vec::new())
            }
        }
    }
}
