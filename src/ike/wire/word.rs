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
//! !        milliseconds until the sender's trial ends, or 0       !
//! +-------------------------------+-------------------------------+
//! !             round             !            passed             !
//! +-------------------------------+-------------------------------+
//! !     microseconds since the first probe came to the sender      !
//! +---------------------------------------------------------------+
//! ```
//! Where the last fields are missing, the sender does not measure, or knows of no rounds, or of no trials either. Whatever follows
//! is of a later version and is ignored.

use std::time::{Duration, Instant};

use super::codes::notify;
use super::{Notify, Payload};
use crate::types::word::{Flags, Rounds};
use crate::types::{Spi, Word};

/// The version of the notification.
const VERSION: u8 = 1;
/// Octets that this version has.
const LENGTH: usize = 36;

/// The payload that says `word` at `now`.
pub fn to_payload(word: &Word, now: Instant) -> Payload {
    let mut data = Vec::with_capacity(LENGTH);
    data.extend([VERSION, word.flags.bits()]);
    data.extend(word.revision.to_be_bytes());
    data.extend(word.spi.0.to_be_bytes());
    data.extend(word.token);
    data.extend(word.flags.trial.map_or(0, |end| milliseconds(end, now)).to_be_bytes());
    if let Some(Rounds { round, passed, came }) = word.flags.rounds {
        data.extend([round, passed].map(u16::to_be_bytes).concat());
        data.extend(came.map_or(0, |came| microseconds(came, now)).to_be_bytes());
    }
    Payload::notify(notify::HOSTSEAL_WORD, data)
}

/// What is left until `end`: at least 1, as 0 says that there is no end.
fn milliseconds(end: Instant, now: Instant) -> u32 {
    let left = end.saturating_duration_since(now).as_millis();
    u32::try_from(left).unwrap_or(u32::MAX).max(1)
}

/// What has passed since `came`.
fn microseconds(came: Instant, now: Instant) -> u32 {
    u32::try_from(now.saturating_duration_since(came).as_micros()).unwrap_or(u32::MAX)
}

/// The word in `notification`, which came in at `now`, if it is one of a version that we know.
pub fn from_notify(notification: &Notify, now: Instant) -> Option<Word> {
    if notification.kind != notify::HOSTSEAL_WORD {
        return None;
    }
    let (head, rest) = notification.data.split_first_chunk::<8>()?;
    let (token, rest) = rest.split_first_chunk::<16>()?;
    let left = rest.first_chunk().map_or(0, |left| u32::from_be_bytes(*left));
    let trial = (left != 0).then(|| now + Duration::from_millis(left.into()));
    let rounds = rest.get(4..).and_then(<[u8]>::split_first_chunk::<4>).map(|([a, b, c, d], rest)| Rounds {
        round: u16::from_be_bytes([*a, *b]),
        passed: u16::from_be_bytes([*c, *d]),
        came: rest
            .first_chunk()
            .and_then(|passed| now.checked_sub(Duration::from_micros(u32::from_be_bytes(*passed).into()))),
    });
    let [version, flags, high, low, spi @ ..] = *head;
    (version == VERSION).then_some(Word {
        spi: Spi(u32::from_be_bytes(spi)),
        token: *token,
        revision: u16::from_be_bytes([high, low]),
        flags: Flags { trial, rounds, ..Flags::from_bits(flags) },
    })
}
