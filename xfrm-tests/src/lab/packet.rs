//! What a captured frame is: ESP, key exchange, discovery of neighbours, or clear.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};

use super::host::Family;
use super::net::{MARKER_LABEL, MARKER_PORT};

/// What a packet is to somebody who listens on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// ESP directly in IP (protocol 50).
    Esp,
    /// ESP in UDP, or a keepalive that holds a NAT open for it (RFC 3948).
    UdpEsp,
    /// IKE on UDP 500 or 4500.
    Ike,
    /// ARP, IPv6 neighbour and router discovery, reports of multicast listeners.
    Discovery,
    /// Everything else: readable by all.
    Clear,
    /// Sent by the lab itself.
    Marker(u64),
}

/// Whether the host at the end of the captured cable sent or received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// The host sent it.
    Out,
    /// The host received it, or could have.
    In,
}

/// A frame, as far as it was read.
#[derive(Debug, Clone)]
pub struct Packet {
    /// When it passed, by the clock of the place.
    pub time: SystemTime,
    /// Seen from the host.
    pub direction: Direction,
    /// None for what is not IP.
    pub family: Option<Family>,
    /// Its class.
    pub kind: Kind,
    /// Source and destination, unless it is not IP.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// The IP protocol behind all extension headers.
    pub protocol: u8,
    /// For TCP, UDP and SCTP; zeros otherwise.
    pub ports: (u16, u16),
    /// For ESP, in IP or in UDP.
    pub spi: Option<u32>,
    /// For ICMP and ICMPv6, its type and code.
    pub icmp: Option<(u8, u8)>,
    /// For an error of ICMP, the packet that it is about, as far as it was quoted.
    pub quoted: Option<Box<Packet>>,
    /// The length on the wire in bytes, with the Ethernet header.
    pub length: u32,
    /// The frame from its Ethernet header on, as far as it was kept.
    pub bytes: Vec<u8>,
}

impl Packet {
    /// The header of an IKE message (RFC 7296 section 3.1) and what was kept behind it. On the second of its ports
    /// four zeros stand before it (RFC 3948 section 2.2).
    pub fn ike_header(&self) -> Option<&[u8]> {
        let network = if self.family? == Family::V4 { 20 } else { 40 };
        let marker = if self.ports.0 == 4500 || self.ports.1 == 4500 { 4 } else { 0 };
        self.bytes.get(14 + network + 8 + marker..).filter(|_| self.kind == Kind::Ike)
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.time.duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(f, "{}.{:06} ", since.as_secs() % 100_000, since.subsec_micros())?;
        let direction = match self.direction {
            Direction::Out => "out",
            Direction::In => "in ",
        };
        write!(f, "{direction} ")?;
        self.describe(f)?;
        self.quoted.as_ref().map_or(Ok(()), |quoted| {
            write!(f, ", about ")?;
            quoted.describe(f)
        })
    }
}

impl Packet {
    fn describe(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if let Some((from, to)) = self.addresses {
            write!(f, " {from} > {to} ")?;
            match self.protocol {
                TCP => write!(f, "tcp {} > {}", self.ports.0, self.ports.1)?,
                UDP => write!(f, "udp {} > {}", self.ports.0, self.ports.1)?,
                ICMP => write!(f, "icmp")?,
                ICMPV6 => write!(f, "icmpv6")?,
                other => write!(f, "protocol {other}")?,
            }
        }
        if let Some((kind, code)) = self.icmp {
            write!(f, " type {kind} code {code}")?;
        }
        if let Some(spi) = self.spi {
            write!(f, " spi 0x{spi:08x}")?;
        }
        write!(f, ", {} bytes", self.length)
    }
}

const ICMP: u8 = 1;
const IGMP: u8 = 2;
const TCP: u8 = 6;
/// The IP protocol of UDP.
pub const UDP: u8 = 17;
const ESP: u8 = 50;
const ICMPV6: u8 = 58;
const SCTP: u8 = 132;

/// Where a frame was captured.
#[derive(Debug, Clone, Copy)]
pub struct Cable {
    /// The hardware address of the host at its end.
    pub mac: [u8; 6],
    /// The ports on which IKE is spoken. On the second one, ESP travels too.
    pub ike_ports: (u16, u16),
}

/// Reads a pcap file as tcpdump writes it on this machine.
///
/// # Errors
/// When it is no such file. A frame cut off at the end, as in a file that is still written, is left out.
pub fn read_pcap(bytes: &[u8], cable: Cable) -> Result<Vec<Packet>> {
    const HEADER: usize = 24;
    const RECORD: usize = 16;
    ensure!(bytes.len() >= HEADER, "a capture without a header ({} bytes)", bytes.len());
    let word =
        |at: usize| -> Option<u32> { Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)) };
    // Little endian, with microseconds or nanoseconds.
    let unit = match word(0) {
        Some(0xa1b2_c3d4) => 1_000,
        Some(0xa1b2_3c4d) => 1,
        magic => anyhow::bail!("not a capture of this machine: magic {magic:08x?}"),
    };
    ensure!(word(20) == Some(1), "not a capture of Ethernet");
    let mut packets = Vec::new();
    let mut at = HEADER;
    while let (Some(seconds), Some(fraction), Some(kept), Some(length)) =
        (word(at), word(at + 4), word(at + 8), word(at + 12))
    {
        let start = at + RECORD;
        let end = start + usize::try_from(kept)?;
        let Some(frame) = bytes.get(start..end) else { break };
        let time = UNIX_EPOCH + Duration::new(seconds.into(), fraction * unit);
        packets.push(read_frame(frame, time, length, cable).context("a frame without a header")?);
        at = end;
    }
    Ok(packets)
}

/// Reads an Ethernet frame; `None` if it is too short to be one.
fn read_frame(frame: &[u8], time: SystemTime, length: u32, cable: Cable) -> Option<Packet> {
    let source: [u8; 6] = frame.get(6..12)?.try_into().ok()?;
    let ethertype = u16_at(frame, 12)?;
    let mut packet = Packet {
        time,
        direction: if source == cable.mac { Direction::Out } else { Direction::In },
        family: None,
        kind: Kind::Clear,
        addresses: None,
        protocol: 0,
        ports: (0, 0),
        spi: None,
        icmp: None,
        quoted: None,
        length,
        bytes: frame.to_vec(),
    };
    match ethertype {
        0x0800 => read_v4(frame.get(14..)?, &mut packet, cable),
        0x86dd => read_v6(frame.get(14..)?, &mut packet, cable),
        0x0806 => {
            packet.kind = Kind::Discovery;
            Some(())
        }
        _ => Some(()),
    };
    Some(packet)
}

/// Fills in what an IPv4 packet says; `None` if it ends early, and then it stays clear.
fn read_v4(bytes: &[u8], packet: &mut Packet, cable: Cable) -> Option<()> {
    packet.family = Some(Family::V4);
    let address = |at: usize| -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?))
    };
    packet.addresses = Some((address(12)?.into(), address(16)?.into()));
    packet.protocol = *bytes.get(9)?;
    let later_fragment = u16_at(bytes, 6)? & 0x1fff != 0;
    let header = usize::from(bytes.first()? & 0x0f) * 4;
    read_payload(bytes.get(header..)?, later_fragment, packet, cable)
}

/// The same for IPv6, behind its extension headers.
fn read_v6(bytes: &[u8], packet: &mut Packet, cable: Cable) -> Option<()> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    packet.family = Some(Family::V6);
    let address = |at: usize| -> Option<Ipv6Addr> {
        Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?))
    };
    packet.addresses = Some((address(8)?.into(), address(24)?.into()));
    packet.protocol = *bytes.get(6)?;
    let mut later_fragment = false;
    let mut at = 40;
    loop {
        match packet.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let step = 8 + usize::from(*bytes.get(at + 1)?) * 8;
                packet.protocol = *bytes.get(at)?;
                at += step;
            }
            FRAGMENT => {
                later_fragment = u16_at(bytes, at + 2)? & 0xfff8 != 0;
                packet.protocol = *bytes.get(at)?;
                at += 8;
            }
            _ => return read_payload(bytes.get(at..)?, later_fragment, packet, cable),
        }
    }
}

/// Classifies by what stands behind the IP header. A later fragment has no such header.
fn read_payload(payload: &[u8], later_fragment: bool, packet: &mut Packet, cable: Cable) -> Option<()> {
    if packet.protocol == ESP {
        packet.kind = Kind::Esp;
        packet.spi = if later_fragment { None } else { u32_at(payload, 0) };
        return Some(());
    }
    if later_fragment {
        return Some(());
    }
    match packet.protocol {
        IGMP => packet.kind = Kind::Discovery,
        // RFC 4861, RFC 2710, RFC 3810: 130-132 and 143 multicast listeners, 133-137 neighbours and routers.
        ICMPV6 if matches!(payload.first()?, 130..=137 | 143) => packet.kind = Kind::Discovery,
        ICMP | ICMPV6 => read_icmp(payload, packet, cable)?,
        TCP | SCTP => packet.ports = (u16_at(payload, 0)?, u16_at(payload, 2)?),
        UDP => {
            packet.ports = (u16_at(payload, 0)?, u16_at(payload, 2)?);
            packet.kind = udp_kind(payload.get(8..)?, packet, cable);
        }
        _ => {}
    }
    Some(())
}

/// Fills in the type, and what an error quotes behind its header of eight bytes (RFC 792, RFC 4443 section 2.1).
fn read_icmp(payload: &[u8], packet: &mut Packet, cable: Cable) -> Option<()> {
    let kind = *payload.first()?;
    packet.icmp = Some((kind, *payload.get(1)?));
    let quotes = if packet.protocol == ICMP { matches!(kind, 3 | 11 | 12) } else { kind < 128 };
    let bytes = payload.get(8..).filter(|_| quotes)?;
    let mut quoted = Packet {
        family: None,
        kind: Kind::Clear,
        addresses: None,
        icmp: None,
        length: u32::try_from(bytes.len()).ok()?,
        bytes: bytes.to_vec(),
        ..packet.clone()
    };
    let read = if packet.protocol == ICMP { read_v4 } else { read_v6 };
    read(bytes, &mut quoted, cable);
    packet.quoted = Some(Box::new(quoted));
    Some(())
}

fn udp_kind(data: &[u8], packet: &mut Packet, cable: Cable) -> Kind {
    let on = |port: u16| packet.ports.0 == port || packet.ports.1 == port;
    let (ike, nat) = cable.ike_ports;
    if on(nat) {
        // RFC 3948 section 2: four zero bytes where an SPI would be mean IKE, a single 0xff a keepalive.
        match u32_at(data, 0) {
            Some(0) => Kind::Ike,
            Some(spi) => {
                packet.spi = Some(spi);
                Kind::UdpEsp
            }
            None if data == [0xff] => Kind::UdpEsp,
            None => Kind::Clear,
        }
    } else if on(ike) && is_ike(data) {
        Kind::Ike
    } else if on(MARKER_PORT) && data.starts_with(MARKER_LABEL) {
        let token = data.get(MARKER_LABEL.len()..).and_then(|rest| rest.get(..8)?.try_into().ok());
        token.map_or(Kind::Clear, |token| Kind::Marker(u64::from_be_bytes(token)))
    } else {
        Kind::Clear
    }
}

/// An IKEv2 header: 28 bytes with version 2 in the 18th (RFC 7296 section 3.1).
fn is_ike(data: &[u8]) -> bool {
    data.len() >= 28 && data.get(17).is_some_and(|version| version >> 4 == 2)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
#[path = "packet_tests.rs"]
mod tests;
