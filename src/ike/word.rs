//! The notification that carries a [`Word`]: what hostseal tells hostseal about its end of a child.
//!
//! ```text
//!  0                   1                   2                   3
//! +---------------+---------------+-------------------------------+
//! !  version (1)  !     flags     !           revision            !
//! +---------------+---------------+-------------------------------+
//! !                  SPI of the sender's inbound SA               !
//! +---------------------------------------------------------------+
//! !                        token, 16 octets                       !
//! +---------------------------------------------------------------+
//! ```
//! Whatever follows is of a later version and is ignored.

use super::wire::codes::notify;
use super::wire::{Notify, Payload};
use crate::model::word::Flags;
use crate::model::{Spi, Word};

/// The version of the notification.
const VERSION: u8 = 1;
/// Octets that this version has.
const LENGTH: usize = 24;

/// The payload that says `word`.
pub(super) fn to_payload(word: &Word) -> Payload {
    let mut data = Vec::with_capacity(LENGTH);
    data.extend([VERSION, word.flags.bits()]);
    data.extend(word.revision.to_be_bytes());
    data.extend(word.spi.0.to_be_bytes());
    data.extend(word.token);
    Payload::notify(notify::HOSTSEAL_WORD, data)
}

/// The word in `notification`, if it is one of a version that we know.
pub(super) fn from_notify(notification: &Notify) -> Option<Word> {
    if notification.kind != notify::HOSTSEAL_WORD {
        return None;
    }
    let (head, rest) = notification.data.split_first_chunk::<8>()?;
    let token = *rest.first_chunk::<16>()?;
    let [version, flags, high, low, spi @ ..] = *head;
    (version == VERSION).then_some(Word {
        spi: Spi(u32::from_be_bytes(spi)),
        token,
        revision: u16::from_be_bytes([high, low]),
        flags: Flags::from_bits(flags),
    })
}
