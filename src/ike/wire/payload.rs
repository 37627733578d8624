//! The payloads (RFC 7296 sections 3.2 to 3.13), and chains of them.

use std::net::IpAddr;

use super::codes::{self, payload as kind};
use super::reader::Reader;
use super::{GENERIC, Proposal, TrafficSelector};
use crate::identity::PublicKey;
use crate::ike::reason::{BadMessage, Incompatible, Reason};

/// More payloads than this in one message are not a message of ours or of any peer worth talking to.
pub const MAX_PAYLOADS: usize = 64;
/// Nonces have 16 to 256 octets (RFC 7296 section 3.9).
const NONCE_LENGTH: std::ops::RangeInclusive<usize> = 16..=256;
/// The bit that says: refuse the message if you do not know this payload.
const CRITICAL: u8 = 0x80;

/// One payload that we know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// What is offered, or what was chosen.
    Sa(Vec<Proposal>),
    /// A public value.
    Ke(Ke),
    /// Who the initiator of the exchange is.
    IdI(Id),
    /// Who the responder of the exchange is.
    IdR(Id),
    /// A certificate, or something like one.
    Cert(Encoded),
    /// Which certificates the sender takes.
    CertReq(Encoded),
    /// The proof of it.
    Auth {
        /// How it was made.
        method: u8,
        /// The proof.
        data: Vec<u8>,
    },
    /// Freshness.
    Nonce(Vec<u8>),
    /// An error or a remark.
    Notify(Notify),
    /// SAs that are gone.
    Delete(Delete),
    /// What software the sender is.
    VendorId(Vec<u8>),
    /// Which packets, at the initiator's end.
    TsI(Vec<TrafficSelector>),
    /// Which packets, at the responder's end.
    TsR(Vec<TrafficSelector>),
}

/// A Key Exchange payload (RFC 7296 section 3.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ke {
    /// The group.
    pub group: u16,
    /// The public value.
    pub data: Vec<u8>,
}

/// An identity (RFC 7296 section 3.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    /// Its type.
    pub kind: u8,
    /// Its data.
    pub data: Vec<u8>,
}

/// The body of a Certificate or a Certificate Request payload (RFC 7296 sections 3.6 and 3.7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What kind of certificate it is about.
    pub encoding: u8,
    /// The certificate, or the names of CAs.
    pub data: Vec<u8>,
}

/// A notification (RFC 7296 section 3.10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// What SA it is about, if any: protocol and SPI.
    pub about: Option<(u8, Vec<u8>)>,
    /// Its type.
    pub kind: u16,
    /// Its data.
    pub data: Vec<u8>,
}

/// SAs that the sender has deleted (RFC 7296 section 3.11).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delete {
    /// The IKE SA that carries this.
    Ike,
    /// ESP SAs, by the SPIs of the sender's inbound ones.
    Esp(Vec<u32>),
    /// SAs of another protocol, which we never have.
    Other,
}

/// The generic header and the body of a payload.
pub struct Generic<'a> {
    /// The type of the payload that follows.
    pub next: u8,
    critical: bool,
    /// The payload without its generic header.
    pub body: &'a [u8],
}

impl<'a> Generic<'a> {
    pub fn parse(reader: &mut Reader<'a>) -> Result<Self, Reason> {
        let next = reader.u8()?;
        let critical = reader.u8()? & CRITICAL != 0;
        let length = usize::from(reader.u16()?);
        let body = length.checked_sub(GENERIC).ok_or(BadMessage::ShortPayload)?;
        Ok(Self { next, critical, body: reader.take(body)? })
    }
}

/// Reads the chain of payloads inside an Encrypted payload.
pub fn parse_chain(first: u8, bytes: &[u8]) -> Result<Vec<Payload>, Reason> {
    let mut reader = Reader::new(bytes);
    let mut next = first;
    let mut payloads = Vec::new();
    let mut count = 0;
    while next != kind::NONE {
        count += 1;
        if count > MAX_PAYLOADS {
            return Err(BadMessage::TooManyPayloads.into());
        }
        let generic = Generic::parse(&mut reader)?;
        payloads.extend(Payload::parse(next, &generic)?);
        next = generic.next;
    }
    reader.finish()?;
    Ok(payloads)
}

/// Appends `payloads` as a chain.
pub fn write_chain(payloads: &[Payload], out: &mut Vec<u8>) {
    for (at, payload) in payloads.iter().enumerate() {
        let next = payloads.get(at + 1).map_or(kind::NONE, Payload::kind);
        let start = out.len();
        out.extend([next, 0, 0, 0]);
        payload.write_body(out);
        let length = length16(out.len() - start);
        out[start + 2..start + 4].copy_from_slice(&length);
    }
}

/// A length as two octets. What we build stays far below 65,536 octets.
pub fn length16(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

impl Payload {
    /// Its type.
    pub fn kind(&self) -> u8 {
        match self {
            Payload::Sa(_) => kind::SA,
            Payload::Ke(_) => kind::KE,
            Payload::IdI(_) => kind::ID_I,
            Payload::IdR(_) => kind::ID_R,
            Payload::Cert(_) => kind::CERT,
            Payload::CertReq(_) => kind::CERTREQ,
            Payload::Auth { .. } => kind::AUTH,
            Payload::Nonce(_) => kind::NONCE,
            Payload::Notify(_) => kind::NOTIFY,
            Payload::Delete(_) => kind::DELETE,
            Payload::VendorId(_) => kind::VENDOR_ID,
            Payload::TsI(_) => kind::TS_I,
            Payload::TsR(_) => kind::TS_R,
        }
    }

    /// Reads the payload of type `payload_kind`. One that we do not know is skipped, unless its critical
    /// bit asks to refuse the message (RFC 7296 section 2.5).
    pub fn parse(payload_kind: u8, generic: &Generic<'_>) -> Result<Option<Self>, Reason> {
        let mut reader = Reader::new(generic.body);
        let payload = match payload_kind {
            kind::SA => Payload::Sa(Proposal::parse_all(&mut reader)?),
            kind::KE => Payload::Ke(Ke::parse(&mut reader)?),
            kind::ID_I => Payload::IdI(Id::parse(&mut reader)?),
            kind::ID_R => Payload::IdR(Id::parse(&mut reader)?),
            kind::CERT => Payload::Cert(Encoded::parse(&mut reader)?),
            kind::CERTREQ => Payload::CertReq(Encoded::parse(&mut reader)?),
            kind::AUTH => {
                let method = reader.u8()?;
                reader.take(3)?;
                Payload::Auth { method, data: reader.rest().to_vec() }
            }
            kind::NONCE => {
                if !NONCE_LENGTH.contains(&generic.body.len()) {
                    return Err(BadMessage::NonceLength.into());
                }
                Payload::Nonce(reader.rest().to_vec())
            }
            kind::NOTIFY => Payload::Notify(Notify::parse(&mut reader)?),
            kind::DELETE => Payload::Delete(Delete::parse(&mut reader)?),
            kind::VENDOR_ID => Payload::VendorId(reader.rest().to_vec()),
            kind::TS_I => Payload::TsI(TrafficSelector::parse_all(&mut reader)?),
            kind::TS_R => Payload::TsR(TrafficSelector::parse_all(&mut reader)?),
            unknown if generic.critical => return Err(Incompatible::CriticalPayload(unknown).into()),
            _ => return Ok(None),
        };
        reader.finish()?;
        Ok(Some(payload))
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match self {
            Payload::Sa(proposals) => Proposal::write_all(proposals, out),
            Payload::Ke(ke) => {
                out.extend(ke.group.to_be_bytes());
                out.extend([0, 0]);
                out.extend(&ke.data);
            }
            Payload::IdI(id) | Payload::IdR(id) => out.extend(id.body()),
            Payload::Cert(encoded) | Payload::CertReq(encoded) => {
                out.push(encoded.encoding);
                out.extend(&encoded.data);
            }
            Payload::Auth { method, data } => {
                out.extend([*method, 0, 0, 0]);
                out.extend(data);
            }
            Payload::Nonce(data) | Payload::VendorId(data) => out.extend(data),
            Payload::Notify(notify) => notify.write(out),
            Payload::Delete(delete) => delete.write(out),
            Payload::TsI(selectors) | Payload::TsR(selectors) => TrafficSelector::write_all(selectors, out),
        }
    }

    /// An error or a remark that is about no SA.
    pub fn notify(notify_kind: u16, data: Vec<u8>) -> Self {
        Payload::Notify(Notify { about: None, kind: notify_kind, data })
    }
}

impl Ke {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let group = reader.u16()?;
        reader.u16()?;
        Ok(Self { group, data: reader.rest().to_vec() })
    }
}

impl Id {
    /// The identity of a host in a pair: its address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self { kind: codes::id::IPV4_ADDR, data: v4.octets().to_vec() },
            IpAddr::V6(v6) => Self { kind: codes::id::IPV6_ADDR, data: v6.octets().to_vec() },
        }
    }

    /// The identity of somebody who is known by a public key.
    pub fn of_key(key: &PublicKey) -> Self {
        Self { kind: codes::id::KEY_ID, data: key.der().to_vec() }
    }

    /// The payload without its generic header, as AUTH covers it (RFC 7296 section 2.15).
    pub fn body(&self) -> Vec<u8> {
        let mut body = vec![self.kind, 0, 0, 0];
        body.extend(&self.data);
        body
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let kind = reader.u8()?;
        reader.take(3)?;
        Ok(Self { kind, data: reader.rest().to_vec() })
    }
}

impl Encoded {
    /// About an X.509 certificate.
    pub fn x509(data: &[u8]) -> Self {
        Self { encoding: codes::encoding::X509, data: data.to_vec() }
    }

    /// A public key without a certificate.
    pub fn raw(key: &PublicKey) -> Self {
        Self { encoding: codes::encoding::RAW_PUBLIC_KEY, data: key.der().to_vec() }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        Ok(Self { encoding: reader.u8()?, data: reader.rest().to_vec() })
    }
}

impl Notify {
    /// Whether it says that something went wrong.
    pub fn is_error(&self) -> bool {
        self.kind < codes::notify::FIRST_STATUS
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let protocol = reader.u8()?;
        let spi_size = usize::from(reader.u8()?);
        let kind = reader.u16()?;
        let spi = reader.take(spi_size)?;
        let about = (spi_size != 0).then(|| (protocol, spi.to_vec()));
        Ok(Self { about, kind, data: reader.rest().to_vec() })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let (protocol, spi) = self
            .about
            .as_ref()
            .map_or((codes::protocol::NONE, [].as_slice()), |(protocol, spi)| (*protocol, spi));
        out.extend([protocol, u8::try_from(spi.len()).unwrap_or(u8::MAX)]);
        out.extend(self.kind.to_be_bytes());
        out.extend(spi);
        out.extend(&self.data);
    }
}

impl Delete {
    fn parse(reader: &mut Reader<'_>) -> Result<Self, Reason> {
        let (protocol, size, count) = (reader.u8()?, reader.u8()?, usize::from(reader.u16()?));
        let delete = match (protocol, size) {
            (codes::protocol::IKE, 0) => Delete::Ike,
            // Capacity by what is there, not by what the count claims.
            (codes::protocol::ESP, 4) => {
                Delete::Esp((0..count).map(|_| reader.u32()).collect::<Result<_, _>>()?)
            }
            (codes::protocol::IKE | codes::protocol::ESP, _) => {
                return Err(BadMessage::DeleteSpiSize.into());
            }
            _ => {
                reader.take(usize::from(size) * count)?;
                Delete::Other
            }
        };
        Ok(delete)
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Delete::Ike => out.extend([codes::protocol::IKE, 0, 0, 0]),
            Delete::Esp(spis) => {
                out.extend([codes::protocol::ESP, 4]);
                out.extend(length16(spis.len()));
                out.extend(spis.iter().flat_map(|spi| spi.to_be_bytes()));
            }
            Delete::Other => out.extend([codes::protocol::NONE, 0, 0, 0]),
        }
    }
}
