//! Bytes to messages and back (RFC 7296 section 3). Nothing here knows a key, a clock or a session.
//!
//! Reading never panics and allocates no more than a small multiple of the datagram: every length is
//! checked against what is left, every repetition is bounded.

mod answer;
pub(super) mod codes;
mod header;
mod parts;
mod payload;
pub(super) mod private;
mod proposal;
mod reader;
mod selector;

pub(super) use header::{HEADER, Header, HeaderFlags};
pub(super) use parts::Parts;
pub(super) use payload::{Delete, Encoded, Id, Ke, Notify, Payload, parse_chain, write_chain};
pub(super) use proposal::{Proposal, Transform};
pub(super) use reader::Reader;
pub(super) use selector::TrafficSelector;

use crate::ike::reason::{BadMessage, Reason};
use codes::payload as kind;

/// Octets of the generic header in front of every payload (RFC 7296 section 3.2).
pub(super) const GENERIC: usize = 4;

/// A datagram taken apart as far as that goes without keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message<'a> {
    /// The IKE header.
    pub(super) header: Header,
    /// What follows it in the clear.
    pub(super) payloads: Vec<Payload>,
    /// The Encrypted payload, which is always the last.
    pub(super) encrypted: Option<Encrypted<'a>>,
}

/// An Encrypted payload (RFC 7296 section 3.14) or an Encrypted Fragment payload (RFC 7383 section 2.5),
/// still closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encrypted<'a> {
    /// The type of the first payload inside.
    pub(super) first: u8,
    /// Which part of the message it is, if it is not all of it.
    pub(super) fragment: Option<Fragment>,
    /// Everything from the IKE header to the payload's own header: authenticated (RFC 5282 section 5.1).
    pub(super) associated: &'a [u8],
    /// Initialization vector, ciphertext and tag.
    pub(super) body: &'a [u8],
}

/// Which part of a message a datagram has (RFC 7383 section 2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fragment {
    /// Its number, from 1.
    pub(super) number: u16,
    /// How many there are.
    pub(super) total: u16,
}

/// Octets of a Notify payload in front of its SPI.
const NOTIFY_HEAD: usize = 4;

impl Fragment {
    /// Octets of both numbers.
    pub(super) const OCTETS: usize = 4;

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let fragment = Self { number: reader.u16()?, total: reader.u16()? };
        match (1..=fragment.total).contains(&fragment.number) {
            true => Ok(fragment),
            false => Err(BadMessage::FragmentNumber.into()),
        }
    }
}

impl Encrypted<'_> {
    /// Whether it is the first part of a message, or all of it.
    pub(super) fn is_first(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.number == 1)
    }
}

impl<'a> Message<'a> {
    /// Takes `datagram` apart. The length in the header must be the datagram's.
    pub(super) fn parse(datagram: &'a [u8]) -> Result<Self, Reason> {
        let header = Header::parse(datagram)?;
        let mut reader = Reader::new(datagram.get(HEADER..).unwrap_or_default());
        let mut next = header.first;
        let mut clear = Vec::new();
        while next != kind::NONE {
            let at = HEADER + reader.taken();
            let generic = payload::Generic::parse(&mut reader)?;
            if matches!(next, kind::ENCRYPTED | kind::FRAGMENT) {
                if !reader.is_empty() {
                    return Err(BadMessage::AfterEncrypted.into());
                }
                let mut body = Reader::new(generic.body);
                let fragment = (next == kind::FRAGMENT).then(|| Fragment::parse(&mut body)).transpose()?;
                let associated = datagram.get(..at + GENERIC + body.taken()).unwrap_or_default();
                let encrypted = Encrypted { first: generic.next, fragment, associated, body: body.rest() };
                return Ok(Self { header, payloads: clear, encrypted: Some(encrypted) });
            }
            clear.extend(Payload::parse(next, &generic)?);
            if clear.len() > payload::MAX_PAYLOADS {
                return Err(BadMessage::TooManyPayloads.into());
            }
            next = generic.next;
        }
        reader.finish()?;
        Ok(Self { header, payloads: clear, encrypted: None })
    }

    /// The parts of a first request, `datagram` on the wire, that stay as they were when it is sent with a cookie, which
    /// comes first (RFC 7296 section 2.6), or with another one: all but the length.
    pub(super) fn without_cookie<'d>(&self, datagram: &'d [u8]) -> [&'d [u8]; 3] {
        let cookie = match self.payloads.first() {
            Some(Payload::Notify(notify))
                if self.header.first == kind::NOTIFY && notify.kind == codes::notify::COOKIE =>
            {
                let spi = notify.about.as_ref().map_or(0, |(_, spi)| spi.len());
                GENERIC + NOTIFY_HEAD + spi + notify.data.len()
            }
            _ => 0,
        };
        // The type of the first payload that stays stands in front of the one before, or in the header.
        let first = if cookie == 0 { header::FIRST_AT } else { HEADER };
        let part = |range: std::ops::Range<usize>| datagram.get(range).unwrap_or_default();
        let stays = datagram.get(HEADER + cookie..).unwrap_or_default();
        [part(0..header::FIRST_AT), part(first..first + 1), stays]
    }
}

/// A whole message in the clear.
pub(super) fn write_clear(mut header: Header, payloads: &[Payload]) -> Vec<u8> {
    header.first = payloads.first().map_or(kind::NONE, Payload::kind);
    let mut out = vec![0; HEADER];
    write_chain(payloads, &mut out);
    header.write_over(&mut out);
    out
}

/// Octets of what [`write_encrypted_head`] writes.
pub(super) fn encrypted_head_octets(fragmented: bool) -> usize {
    HEADER + GENERIC + if fragmented { Fragment::OCTETS } else { 0 }
}

/// The head of a message whose only payload is an Encrypted payload with `body` octets, or an Encrypted
/// Fragment payload: the IKE header and the payload's own. `first` is the type of the first payload inside.
pub(super) fn write_encrypted_head(
    mut header: Header,
    first: u8,
    fragment: Option<Fragment>,
    body: usize,
) -> Vec<u8> {
    header.first = if fragment.is_some() { kind::FRAGMENT } else { kind::ENCRYPTED };
    let total = encrypted_head_octets(fragment.is_some()) + body;
    let mut out = Vec::with_capacity(total);
    out.resize(HEADER, 0);
    out.extend([first, 0]);
    out.extend(payload::length16(total - HEADER));
    for number in fragment.into_iter().flat_map(|fragment| [fragment.number, fragment.total]) {
        out.extend(number.to_be_bytes());
    }
    header.write_over(&mut out);
    header::write_length(&mut out, total);
    out
}

/// A notification about the child whose inbound SA at the sender has `spi`.
pub(super) fn about_child(kind: u16, spi: u32) -> Payload {
    let about = Some((codes::protocol::ESP, spi.to_be_bytes().to_vec()));
    Payload::Notify(Notify { about, kind, data: Vec::new() })
}
