//! The notifications that carry octets for the engine's user, about a child, about the session, or what is asked and answered
//! beside that, to peers with our Vendor ID alone. What the octets say is not known here.
//!
//! Those about a child have its SPI behind the first four octets, and any length:
//! ```text
//!  0                   1                   2                   3
//! +---------------------------------------------------------------+
//! !                          four octets                          !
//! +---------------------------------------------------------------+
//! !                  SPI of the sender's inbound SA               !
//! +---------------------------------------------------------------+
//! ~                       all further octets                      ~
//! +---------------------------------------------------------------+
//! ```
//!
//! Of control IKE SAs there are two more: in the first message of one, a single octet says what it is for (whatever
//! follows is of a later version, and is ignored), and in IKE_AUTH each end has its mark.

use super::codes::notify;
use super::{Notify, Parts, Payload};
use crate::ike::control::Purpose;
use crate::ike::limits::TOLD_MAX;
use crate::types::Spi;

/// The notification that tells `octets` of the session.
pub fn of_session(octets: Vec<u8>) -> Payload {
    Payload::notify(notify::HOSTSEAL_SESSION, octets)
}

/// The notification that asks `octets`.
pub fn of_question(octets: Vec<u8>) -> Payload {
    Payload::notify(notify::HOSTSEAL_QUESTION, octets)
}

/// The notification that answers `octets`.
pub fn of_answer(octets: Vec<u8>) -> Payload {
    Payload::notify(notify::HOSTSEAL_ANSWER, octets)
}

/// The notification that tells `octets` of the child whose inbound SA here is `spi`; less than four say nothing.
pub fn of_child(spi: Spi, octets: &[u8]) -> Option<Payload> {
    let (head, rest) = octets.split_first_chunk::<4>()?;
    let data = [&head[..], &spi.0.to_be_bytes(), rest].concat();
    Some(Payload::notify(notify::HOSTSEAL_CHILD, data))
}

/// What a notification tells of the session, if it does.
pub fn from_session(notification: &Notify) -> Option<Vec<u8>> {
    data(notification, notify::HOSTSEAL_SESSION).map(<[u8]>::to_vec)
}

/// What a notification asks, if it does.
pub fn from_question(notification: &Notify) -> Option<Vec<u8>> {
    data(notification, notify::HOSTSEAL_QUESTION).map(<[u8]>::to_vec)
}

/// What a notification answers, if it does.
pub fn from_answer(notification: &Notify) -> Option<Vec<u8>> {
    data(notification, notify::HOSTSEAL_ANSWER).map(<[u8]>::to_vec)
}

/// The child that a notification tells of, by the sender's inbound SA, and what it tells, if it does.
pub fn from_child(notification: &Notify) -> Option<(Spi, Vec<u8>)> {
    let data = data(notification, notify::HOSTSEAL_CHILD)?;
    let (head, rest) = data.split_first_chunk::<4>()?;
    let (spi, rest) = rest.split_first_chunk()?;
    Some((Spi(u32::from_be_bytes(*spi)), [head, rest].concat()))
}

/// What says what an IKE SA is to be for; nothing does where it is for data.
pub fn of_purpose(purpose: Purpose) -> Option<Payload> {
    let number = match purpose {
        Purpose::Data => return None,
        Purpose::Control => 1,
        Purpose::Join => 2,
    };
    Some(Payload::notify(notify::HOSTSEAL_PURPOSE, vec![number]))
}

/// What an IKE SA is to be for by the first message with these `parts`; one of a later version is as unknown here as it
/// was to earlier ones.
pub fn purpose(parts: &Parts<'_>) -> Purpose {
    match parts.notify(notify::HOSTSEAL_PURPOSE).and_then(|it| it.data.first()) {
        Some(1) => Purpose::Control,
        Some(2) => Purpose::Join,
        _ => Purpose::Data,
    }
}

/// What says the mark of this end.
pub fn of_mark(mark: &[u8]) -> Payload {
    Payload::notify(notify::HOSTSEAL_MARK, mark.to_vec())
}

/// The mark of a peer whose IKE_AUTH has these `parts`; it is empty where there is none, or it is too long.
pub fn mark(parts: &Parts<'_>) -> Vec<u8> {
    parts.notifies().find_map(|it| data(it, notify::HOSTSEAL_MARK)).unwrap_or_default().to_vec()
}

fn data(notification: &Notify, kind: u16) -> Option<&[u8]> {
    let data = notification.data.as_slice();
    (notification.kind == kind && data.len() <= TOLD_MAX).then_some(data)
}
