//! The notifications that carry octets for the engine's user, about a child or about the session, to peers with our
//! Vendor ID alone. What the octets say is not known here.
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

use super::codes::notify;
use super::{Notify, Payload};
use crate::ike::limits::TOLD_MAX;
use crate::types::Spi;

/// The notification that tells `octets` of the session.
pub fn of_session(octets: Vec<u8>) -> Payload {
    Payload::notify(notify::HOSTSEAL_SESSION, octets)
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

/// The child that a notification tells of, by the sender's inbound SA, and what it tells, if it does.
pub fn from_child(notification: &Notify) -> Option<(Spi, Vec<u8>)> {
    let data = data(notification, notify::HOSTSEAL_CHILD)?;
    let (head, rest) = data.split_first_chunk::<4>()?;
    let (spi, rest) = rest.split_first_chunk()?;
    Some((Spi(u32::from_be_bytes(*spi)), [head, rest].concat()))
}

fn data(notification: &Notify, kind: u16) -> Option<&[u8]> {
    let data = notification.data.as_slice();
    (notification.kind == kind && data.len() <= TOLD_MAX).then_some(data)
}
