//! The IKE header (RFC 7296 section 3.1).

use super::codes::Exchange;
use super::reader::Reader;
use crate::ike::reason::{BadMessage, Reason};

/// Octets of the IKE header.
pub const HEADER: usize = 28;
/// Major version 2, minor version 0.
const VERSION: u8 = 0x20;
/// Where the type of the first payload stands.
pub(super) const FIRST_AT: usize = 16;
/// Where the total length stands.
const LENGTH_AT: std::ops::Range<usize> = 24..28;

/// The header of a message, without its length, which follows from the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The SPI of the end that initiated the IKE SA.
    pub initiator_spi: u64,
    /// The SPI of the other end, 0 in the first message.
    pub responder_spi: u64,
    /// The type of the first payload.
    pub first: u8,
    /// What the message belongs to.
    pub exchange: Exchange,
    /// Who speaks, and whether it is an answer.
    pub flags: HeaderFlags,
    /// The number of the exchange, counted by each end for those it starts.
    pub message_id: u32,
}

/// The two flags that matter; the version flag is ignored as the RFC wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeaderFlags {
    /// Sent by the end that initiated the IKE SA.
    pub from_initiator: bool,
    /// An answer.
    pub response: bool,
}

impl HeaderFlags {
    const INITIATOR: u8 = 0x08;
    const RESPONSE: u8 = 0x20;
}

impl Header {
    /// Reads the header of `datagram` and checks that its length is the datagram's.
    pub fn parse(datagram: &[u8]) -> Result<Self, Reason> {
        let mut reader = Reader::new(datagram);
        let (initiator_spi, responder_spi) = (reader.u64()?, reader.u64()?);
        let first = reader.u8()?;
        let version = reader.u8()?;
        let exchange = Exchange(reader.u8()?);
        let flags = reader.u8()?;
        let message_id = reader.u32()?;
        let length = reader.u32()?;
        if version >> 4 != VERSION >> 4 {
            return Err(BadMessage::Version.into());
        }
        if usize::try_from(length).ok() != Some(datagram.len()) {
            return Err(BadMessage::Length.into());
        }
        let flags = HeaderFlags {
            from_initiator: flags & HeaderFlags::INITIATOR != 0,
            response: flags & HeaderFlags::RESPONSE != 0,
        };
        Ok(Self { initiator_spi, responder_spi, first, exchange, flags, message_id })
    }

    /// Writes the header over the first octets of `message`, with the length that `message` has now.
    pub fn write_over(&self, message: &mut [u8]) {
        let flags = if self.flags.from_initiator { HeaderFlags::INITIATOR } else { 0 }
            | if self.flags.response { HeaderFlags::RESPONSE } else { 0 };
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&self.initiator_spi.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.responder_spi.to_be_bytes());
        bytes[16..20].copy_from_slice(&[self.first, VERSION, self.exchange.0, flags]);
        bytes[20..24].copy_from_slice(&self.message_id.to_be_bytes());
        message[..HEADER].copy_from_slice(&bytes);
        write_length(message, message.len());
    }
}

/// Writes `total` as the length of `message`. What we build stays far below 2^32 octets.
pub fn write_length(message: &mut [u8], total: usize) {
    message[LENGTH_AT].copy_from_slice(&u32::try_from(total).unwrap_or(u32::MAX).to_be_bytes());
}
