//! Proposals and transforms (RFC 7296 section 3.3).

use super::payload::length16;
use super::reader::Reader;
use crate::ike::reason::{BadMessage, Reason};

/// Octets in front of a proposal's SPI.
const PROPOSAL_HEAD: usize = 8;
/// Octets in front of a transform's attributes.
const TRANSFORM_HEAD: usize = 8;
/// "Another proposal follows."
const MORE_PROPOSALS: u8 = 2;
/// "Another transform follows."
const MORE_TRANSFORMS: u8 = 3;
/// The attribute Key Length in its two-octet form (RFC 7296 section 3.3.5).
const KEY_LENGTH: u16 = 0x8000 | 14;
/// The bit of an attribute that says: a value of two octets, no length.
const SHORT_ATTRIBUTE: u16 = 0x8000;

/// One set of transforms out of which one of each type is to be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Its number, from 1; an answer repeats the number chosen.
    pub number: u8,
    /// IKE or ESP.
    pub protocol: u8,
    /// The sender's SPI: none in IKE_SA_INIT, 8 octets for IKE, 4 for ESP.
    pub spi: Vec<u8>,
    /// In the sender's order of preference within each type.
    pub transforms: Vec<Transform>,
}

/// One algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transform {
    /// What it is for.
    pub kind: u8,
    /// Which it is.
    pub id: u16,
    /// Bits of its key, where its identifier does not say.
    pub key_bits: Option<u16>,
    /// It carries an attribute that we do not know, so it must not be chosen (RFC 7296 section 3.3.6).
    pub unknown_attribute: bool,
}

impl Transform {
    /// A transform without attributes.
    pub fn new(kind: u8, id: u16) -> Self {
        Self { kind, id, key_bits: None, unknown_attribute: false }
    }

    /// A transform with a key length.
    pub fn keyed(kind: u8, id: u16, key_bits: u16) -> Self {
        Self { kind, id, key_bits: Some(key_bits), unknown_attribute: false }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<(Self, bool), Reason> {
        let last = reader.u8()? == 0;
        reader.u8()?;
        let length = usize::from(reader.u16()?);
        let kind = reader.u8()?;
        reader.u8()?;
        let mut transform = Self::new(kind, reader.u16()?);
        let attributes = length.checked_sub(TRANSFORM_HEAD).ok_or(BadMessage::ShortTransform)?;
        let mut attributes = Reader::new(reader.take(attributes)?);
        while !attributes.is_empty() {
            let attribute = attributes.u16()?;
            let value = attributes.u16()?;
            match attribute {
                KEY_LENGTH => transform.key_bits = Some(value),
                _ => transform.unknown_attribute = true,
            }
            if attribute & SHORT_ATTRIBUTE == 0 {
                attributes.take(usize::from(value))?;
            }
        }
        Ok((transform, last))
    }

    fn write(&self, last: bool, out: &mut Vec<u8>) {
        let length = TRANSFORM_HEAD + if self.key_bits.is_some() { 4 } else { 0 };
        out.extend([if last { 0 } else { MORE_TRANSFORMS }, 0]);
        out.extend(length16(length));
        out.extend([self.kind, 0]);
        out.extend(self.id.to_be_bytes());
        if let Some(bits) = self.key_bits {
            out.extend(KEY_LENGTH.to_be_bytes());
            out.extend(bits.to_be_bytes());
        }
    }
}

impl Proposal {
    /// Reads the body of an SA payload.
    pub fn parse_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, Reason> {
        let mut proposals = Vec::new();
        loop {
            let (proposal, last) = Self::parse(reader)?;
            proposals.push(proposal);
            if last {
                return Ok(proposals);
            }
        }
    }

    /// Writes the body of an SA payload.
    pub fn write_all(proposals: &[Self], out: &mut Vec<u8>) {
        for (at, proposal) in proposals.iter().enumerate() {
            proposal.write(at + 1 == proposals.len(), out);
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<(Self, bool), Reason> {
        let last = reader.u8()? == 0;
        reader.u8()?;
        let length = usize::from(reader.u16()?);
        let body = length.checked_sub(4).ok_or(BadMessage::ShortProposal)?;
        let mut body = Reader::new(reader.take(body)?);
        let (number, protocol) = (body.u8()?, body.u8()?);
        let (spi_size, count) = (usize::from(body.u8()?), body.u8()?);
        let spi = body.take(spi_size)?.to_vec();
        let mut transforms = Vec::new();
        for at in 1..=count {
            let (transform, last) = Transform::parse(&mut body)?;
            if last != (at == count) {
                return Err(BadMessage::TransformCount.into());
            }
            transforms.push(transform);
        }
        body.finish()?;
        Ok((Self { number, protocol, spi, transforms }, last))
    }

    fn write(&self, last: bool, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend([if last { 0 } else { MORE_PROPOSALS }, 0, 0, 0]);
        out.extend([self.number, self.protocol]);
        out.extend(
            [self.spi.len(), self.transforms.len()].map(|count| u8::try_from(count).unwrap_or(u8::MAX)),
        );
        debug_assert_eq!(out.len() - start, PROPOSAL_HEAD);
        out.extend(&self.spi);
        for (at, transform) in self.transforms.iter().enumerate() {
            transform.write(at + 1 == self.transforms.len(), out);
        }
        let length = length16(out.len() - start);
        out[start + 2..start + 4].copy_from_slice(&length);
    }
}
