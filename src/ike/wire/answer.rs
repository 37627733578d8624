//! Causes and notifications (RFC 7296 section 3.10.1): what a peer is told of a failure, and what it tells.

use super::codes::notify;
use super::{Payload, about_child};
use crate::ike::reason::{Declined, Incompatible, Reason, Refusal};

impl Reason {
    /// The notification that answers a request which failed so (RFC 7296 section 2.21).
    pub(in crate::ike) fn to_notify(&self) -> Payload {
        let (kind, data) = match self {
            Reason::BadMessage(_) | Reason::Misbehaved(_) => (notify::INVALID_SYNTAX, Vec::new()),
            Reason::Incompatible(Incompatible::CriticalPayload(kind)) => {
                (notify::UNSUPPORTED_CRITICAL_PAYLOAD, vec![*kind])
            }
            Reason::Incompatible(Incompatible::Group(group)) => {
                (notify::INVALID_KE_PAYLOAD, group.to_be_bytes().to_vec())
            }
            Reason::Incompatible(Incompatible::Selectors) => (notify::TS_UNACCEPTABLE, Vec::new()),
            Reason::Incompatible(_) => (notify::NO_PROPOSAL_CHOSEN, Vec::new()),
            // RFC 5723 section 4.3.2.
            Reason::BadTicket(_) => (notify::TICKET_NACK, Vec::new()),
            Reason::BadProof(_) | Reason::BadPpk(_) | Reason::Lapsed(_) => {
                (notify::AUTHENTICATION_FAILED, Vec::new())
            }
            Reason::Declined(Declined::ChildrenMost | Declined::Childless) => {
                (notify::NO_ADDITIONAL_SAS, Vec::new())
            }
            Reason::Declined(Declined::NoSuchChild(spi)) => {
                return about_child(notify::CHILD_SA_NOT_FOUND, spi.0);
            }
            Reason::Declined(Declined::NoExchange) => (notify::STATE_NOT_FOUND, Vec::new()),
            Reason::Declined(Declined::Crossed | Declined::JoinersMost)
            | Reason::Refused(_)
            | Reason::Unanswered(_)
            | Reason::Failed(_) => (notify::TEMPORARY_FAILURE, Vec::new()),
        };
        Payload::notify(kind, data)
    }
}

impl Refusal {
    /// What a notification of `kind` says, which is an error.
    pub(super) fn of(kind: u16) -> Self {
        match kind {
            notify::UNSUPPORTED_CRITICAL_PAYLOAD => Refusal::CriticalPayload,
            notify::INVALID_SYNTAX => Refusal::Syntax,
            notify::NO_PROPOSAL_CHOSEN => Refusal::Proposals,
            notify::INVALID_KE_PAYLOAD => Refusal::PublicValue,
            notify::AUTHENTICATION_FAILED => Refusal::Authentication,
            notify::NO_ADDITIONAL_SAS => Refusal::ChildrenMost,
            notify::TS_UNACCEPTABLE => Refusal::Selectors,
            notify::TEMPORARY_FAILURE => Refusal::Temporary,
            notify::CHILD_SA_NOT_FOUND => Refusal::NoSuchChild,
            notify::STATE_NOT_FOUND => Refusal::NoExchange,
            notify::TICKET_NACK => Refusal::Ticket,
            other => Refusal::Other(other),
        }
    }
}
