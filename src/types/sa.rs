//! Security associations (SAs): their identity, what is asked of the kernel, and what it reports.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{Pair, Reqid, UdpPorts};

/// A security parameter index of an ESP SA, chosen by the receiving host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spi(pub u32);

impl Spi {
    /// The smallest SPI that hostseal chooses: well above the numbers that people give to SAs by hand.
    pub const FIRST: u32 = 0xc000_0000;

    /// An SPI of ours from 32 random bits.
    pub fn from_random(bits: u32) -> Self {
        Self(bits | Self::FIRST)
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Which way the packets of an SA flow, seen from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the other host to this one.
    In,
    /// From this host to the other one.
    Out,
}

/// What identifies an ESP SA in a kernel: its destination and its SPI (docs/kernel.md, fact 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SaId {
    /// The address that the packets are sent to.
    pub destination: IpAddr,
    /// The index, chosen by the host that owns `destination`.
    pub spi: Spi,
}

impl fmt::Display for SaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SA {} to {}", self.spi, self.destination)
    }
}

/// What two hosts agreed on for ESP: AES-GCM with a 16-byte ICV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EspSuite {
    /// Bits of the AES key, 128 or 256, without the 32 bits of salt.
    pub key_bits: u16,
    /// Extended (64-bit) sequence numbers.
    pub esn: bool,
}

/// When the kernel speaks up about an SA (soft) and when it deletes it (hard). `None` means never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Seconds after its creation at which the kernel deletes the SA.
    pub hard_seconds: Option<u64>,
    /// Bytes at which the kernel asks for a rekey.
    pub soft_bytes: Option<u64>,
    /// Packets at which the kernel asks for a rekey. It compares before it counts: 0 makes it speak up with
    /// the first packet, 1 with the second (measured on Linux 7.2, both directions).
    pub soft_packets: Option<u64>,
    /// Bytes at which the kernel deletes the SA.
    pub hard_bytes: Option<u64>,
    /// Packets at which the kernel deletes the SA.
    pub hard_packets: Option<u64>,
}

impl Limits {
    /// The same, with the kernel speaking up at the first packet.
    pub fn at_first_packet(self) -> Self {
        Self { soft_packets: Some(0), soft_bytes: None, ..self }
    }

    /// Whether an SA that has counted so much has reached a soft limit.
    pub fn is_soft_reached(self, bytes: u64, packets: u64) -> bool {
        self.soft_bytes.is_some_and(|limit| bytes > limit)
            || self.soft_packets.is_some_and(|limit| packets > limit)
    }

    /// The same with soft limits a tenth lower: one end of a pair takes these, so that both seldom ask for
    /// a rekey at the same moment.
    pub fn earlier(self) -> Self {
        let lower = |limit: u64| limit - limit / 10;
        Self { soft_bytes: self.soft_bytes.map(lower), soft_packets: self.soft_packets.map(lower), ..self }
    }
}

/// An SA as we ask for it, without its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sa {
    /// The addresses it is between.
    pub pair: Pair,
    /// Which way its packets flow.
    pub direction: Direction,
    /// Its index.
    pub spi: Spi,
    /// The set that it belongs to.
    pub reqid: Reqid,
    /// What the hosts agreed on.
    pub suite: EspSuite,
    /// The UDP ports that it goes between, where it goes in UDP.
    pub encapsulation: Option<UdpPorts>,
    /// Packets of the anti-replay window, for an inbound SA.
    pub replay_window: u32,
    /// When it ends.
    pub limits: Limits,
}

impl Sa {
    /// What identifies it in the kernel.
    pub fn id(&self) -> SaId {
        SaId::of(self.pair, self.direction, self.spi)
    }
}

impl SaId {
    /// The identity of the SA of `pair` that flows in `direction`.
    pub fn of(pair: Pair, direction: Direction, spi: Spi) -> Self {
        let destination = match direction {
            Direction::In => pair.local,
            Direction::Out => pair.remote,
        };
        Self { destination, spi }
    }
}

/// The key of one SA: 16 or 32 bytes of AES key, then 4 bytes of salt (RFC 4106 section 8.1).
/// It cannot be printed or cloned and is zeroed when dropped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SaKey(Vec<u8>);

impl SaKey {
    /// Takes over key material of `suite.key_bits / 8 + 4` bytes.
    pub fn new(material: Vec<u8>) -> Self {
        Self(material)
    }

    /// The key and the salt, for the kernel only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// A pair of SAs that two hosts agreed on (a Child SA), with its keys, on its way to the kernel.
pub struct NewChild {
    /// Between whom.
    pub pair: Pair,
    /// The index of the inbound SA, chosen by us: the name of the child on this host.
    pub in_spi: Spi,
    /// The index of the outbound SA, chosen by the peer.
    pub out_spi: Spi,
    /// What was agreed.
    pub suite: EspSuite,
    /// The UDP ports that its ESP goes between, where it goes in UDP.
    pub encapsulation: Option<UdpPorts>,
    /// The key of the inbound SA.
    pub in_key: SaKey,
    /// The key of the outbound SA.
    pub out_key: SaKey,
    /// Whether this host initiated the exchange that made the child.
    pub initiator: bool,
    /// Whether the peer is not hostseal: nothing is told to it.
    pub foreign: bool,
}

/// An inbound SA whose keys are known before the peer has agreed: a peer that is not hostseal sends through it
/// as soon as it has answered.
pub struct NewInbound {
    /// Between whom.
    pub pair: Pair,
    /// Its index.
    pub spi: Spi,
    /// What the peer can agree to, and nothing else.
    pub suite: EspSuite,
    /// The UDP ports that its ESP goes between, where it goes in UDP.
    pub encapsulation: Option<UdpPorts>,
    /// Its key.
    pub key: SaKey,
}

/// An SA of ours as the kernel reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SaReading {
    /// The address that the packets come from.
    pub source: IpAddr,
    /// What identifies it.
    pub id: SaId,
    /// The set that it belongs to.
    pub reqid: Reqid,
    /// Bits of the AES key.
    pub key_bits: u16,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Whether its ESP goes in UDP.
    pub encapsulated: bool,
    /// Whether its selector takes packets between its two addresses alone. One of an agent before this one may
    /// carry packets in anybody's name.
    pub bound: bool,
    /// Payload bytes (ESP's overhead and the IP header excluded) since it was made.
    pub bytes: u64,
    /// Packets since it was made.
    pub packets: u64,
    /// Seconds since 1970 at which it took or sent a packet last; `None` before the first, and from kernels that do not
    /// say.
    pub last_used: Option<u64>,
    /// Seconds since 1970 at which it was made.
    pub added: u64,
    /// The kernel's hard limit in seconds after `added`, `None` for none.
    pub hard_seconds: Option<u64>,
    /// Past a soft limit: it works, but asks to be replaced.
    pub dying: bool,
    /// Packets refused as replays.
    pub replay: u32,
    /// Packets refused because they were older than the replay window.
    pub replay_window: u32,
    /// Packets refused because their integrity check failed.
    pub integrity: u32,
}

impl SaReading {
    /// An SA that was just made.
    pub fn fresh(sa: &Sa) -> Self {
        let source = match sa.direction {
            Direction::In => sa.pair.remote,
            Direction::Out => sa.pair.local,
        };
        Self {
            source,
            id: sa.id(),
            reqid: sa.reqid,
            key_bits: sa.suite.key_bits,
            esn: sa.suite.esn,
            encapsulated: sa.encapsulation.is_some(),
            bound: true,
            bytes: 0,
            packets: 0,
            last_used: None,
            added: 0,
            hard_seconds: sa.limits.hard_seconds,
            dying: false,
            replay: 0,
            replay_window: 0,
            integrity: 0,
        }
    }

    /// What it was made with.
    pub fn suite(&self) -> EspSuite {
        EspSuite { key_bits: self.key_bits, esn: self.esn }
    }

    /// Whether it is one of `pair`, in either direction.
    pub fn is_between(&self, pair: Pair) -> bool {
        let ends = (self.source, self.id.destination);
        ends == (pair.remote, pair.local) || ends == (pair.local, pair.remote)
    }

    /// Which way it flows, given the addresses of this host's pair.
    pub fn direction(&self, pair: Pair) -> Direction {
        if self.id.destination == pair.local { Direction::In } else { Direction::Out }
    }
}
