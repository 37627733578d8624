//! Traffic selectors (RFC 7296 section 3.13).

use std::net::IpAddr;

use super::codes::ts;
use super::payload::length16;
use super::reader::Reader;
use crate::ike::reason::{BadMessage, Reason};

/// A range of addresses and ports of one protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrafficSelector {
    /// IP protocol, 0 for any.
    pub protocol: u8,
    /// First and last port.
    pub ports: (u16, u16),
    /// First and last address, of one family.
    pub addresses: (IpAddr, IpAddr),
}

impl TrafficSelector {
    /// Everything from or to one address.
    pub fn host(address: IpAddr) -> Self {
        Self { protocol: 0, ports: (0, u16::MAX), addresses: (address, address) }
    }

    /// Whether everything from or to `address` lies inside.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.protocol == 0
            && self.ports == (0, u16::MAX)
            && self.addresses.0.is_ipv4() == address.is_ipv4()
            && (self.addresses.0..=self.addresses.1).contains(&address)
    }

    /// Whether it is [`TrafficSelector::host`] of some address.
    pub fn is_host(&self) -> bool {
        self.addresses.0 == self.addresses.1 && self.contains(self.addresses.0)
    }

    /// Reads the body of a TS payload. Selectors of other types are skipped.
    pub fn parse_all(reader: &mut Reader<'_>) -> Result<Vec<Self>, Reason> {
        let count = reader.u8()?;
        reader.take(3)?;
        let mut selectors = Vec::new();
        for _ in 0..count {
            selectors.extend(Self::parse(reader)?);
        }
        Ok(selectors)
    }

    /// Writes the body of a TS payload.
    pub fn write_all(selectors: &[Self], out: &mut Vec<u8>) {
        out.extend([u8::try_from(selectors.len()).unwrap_or(u8::MAX), 0, 0, 0]);
        for selector in selectors {
            selector.write(out);
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Option<Self>, Reason> {
        let (kind, protocol, length) = (reader.u8()?, reader.u8()?, usize::from(reader.u16()?));
        let body = length.checked_sub(4).ok_or(BadMessage::ShortSelector)?;
        let mut body = Reader::new(reader.take(body)?);
        let addresses = |body: &mut Reader<'_>| -> Result<Option<(IpAddr, IpAddr)>, Reason> {
            Ok(match kind {
                ts::IPV4_ADDR_RANGE => {
                    Some((IpAddr::from(body.array::<4>()?), IpAddr::from(body.array::<4>()?)))
                }
                ts::IPV6_ADDR_RANGE => {
                    Some((IpAddr::from(body.array::<16>()?), IpAddr::from(body.array::<16>()?)))
                }
                _ => None,
            })
        };
        if !matches!(kind, ts::IPV4_ADDR_RANGE | ts::IPV6_ADDR_RANGE) {
            return Ok(None);
        }
        let ports = (body.u16()?, body.u16()?);
        let Some(addresses) = addresses(&mut body)? else { return Ok(None) };
        body.finish()?;
        Ok(Some(Self { protocol, ports, addresses }))
    }

    fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let kind = if self.addresses.0.is_ipv4() { ts::IPV4_ADDR_RANGE } else { ts::IPV6_ADDR_RANGE };
        out.extend([kind, self.protocol, 0, 0]);
        out.extend(self.ports.0.to_be_bytes());
        out.extend(self.ports.1.to_be_bytes());
        for address in [self.addresses.0, self.addresses.1] {
            match address {
                IpAddr::V4(v4) => out.extend(v4.octets()),
                IpAddr::V6(v6) => out.extend(v6.octets()),
            }
        }
        let length = length16(out.len() - start);
        out[start + 2..start + 4].copy_from_slice(&length);
    }
}
