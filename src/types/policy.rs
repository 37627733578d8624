//! Policies: which packets must be ESP, which are let pass and which are dropped.

use std::fmt;
use std::net::IpAddr;
use std::time::Instant;

use super::{Pair, Through};

/// Which packets a policy is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyDirection {
    /// Packets for this host.
    In,
    /// Packets from this host.
    Out,
    /// Packets that this host forwards; here, those that a DNAT rule sends elsewhere.
    Forward,
}

/// An address block of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// The address; bits beyond `prefix` are zero.
    pub address: IpAddr,
    /// How many leading bits count.
    pub prefix: u8,
}

impl Block {
    /// The block of `prefix` leading bits of `address`; `None` where the family has fewer bits.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let cut = u32::from(Self::host(address).prefix.checked_sub(prefix)?);
        let address = match address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(cut).unwrap_or(0)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(cut).unwrap_or(0)).into()),
        };
        Some(Self { address, prefix })
    }

    /// Whether `address` lies in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && Self::new(address, self.prefix) == Some(*self)
    }

    /// The largest address in it.
    pub fn last(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(v4) => {
                let beyond = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                IpAddr::V4((v4.to_bits() | beyond).into())
            }
            IpAddr::V6(v6) => {
                let beyond = u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                IpAddr::V6((v6.to_bits() | beyond).into())
            }
        }
    }

    /// One address.
    pub fn host(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// All addresses of the family of `like`.
    pub fn any(like: IpAddr) -> Self {
        let address = match like {
            IpAddr::V4(_) => IpAddr::from([0u8; 4]),
            IpAddr::V6(_) => IpAddr::from([0u8; 16]),
        };
        Self { address, prefix: 0 }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A set of ports as the kernel compares them: `port & mask`. For ICMP the source port is the type and
/// the destination port the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ports {
    /// The value, with no bit outside `mask`.
    pub port: u16,
    /// The bits that count; 0 means any port.
    pub mask: u16,
}

impl Ports {
    /// Every port.
    pub const ANY: Self = Self { port: 0, mask: 0 };

    /// Whether every port of `other` is one of these.
    pub fn contains(&self, other: Ports) -> bool {
        self.mask & other.mask == self.mask && other.port & self.mask == self.port
    }

    /// One port.
    pub fn one(port: u16) -> Self {
        Self { port, mask: 0xffff }
    }
}

/// What a policy matches. Selector and direction identify a policy in the kernel, whatever its priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selector {
    /// Source addresses.
    pub source: Block,
    /// Destination addresses.
    pub destination: Block,
    /// IP protocol number, 0 for any.
    pub protocol: u8,
    /// Source ports.
    pub source_ports: Ports,
    /// Destination ports.
    pub destination_ports: Ports,
}

impl Selector {
    /// All packets from `source` to `destination`.
    pub fn between(source: Block, destination: Block) -> Self {
        Self { source, destination, protocol: 0, source_ports: Ports::ANY, destination_ports: Ports::ANY }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.source, self.destination)?;
        if self.protocol != 0 {
            write!(f, " proto {}", self.protocol)?;
        }
        for (name, ports) in [("sport", self.source_ports), ("dport", self.destination_ports)] {
            if ports.mask == 0xffff {
                write!(f, " {name} {}", ports.port)?;
            } else if ports.mask != 0 {
                write!(f, " {name} {:#06x}/{:#06x}", ports.port, ports.mask)?;
            }
        }
        Ok(())
    }
}

/// What happens to a packet that a policy matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Passes as it is.
    Allow,
    /// Dropped.
    Block,
    /// Outbound: leaves as ESP through these SAs, or not at all. The template names source, destination, and the SPI
    /// or the reqid, so that one policy update switches from some SAs to others.
    Seal {
        /// The outbound SAs.
        through: Through,
    },
    /// Inbound and forwarded: must have come through an SA of ours.
    Require,
    /// Inbound and forwarded: may have come through an SA of ours, or in the clear (`level use`).
    Accept,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::Allow => f.write_str("allow"),
            Action::Block => f.write_str("block"),
            Action::Seal { through } => write!(f, "esp through {through}"),
            Action::Require => f.write_str("esp required"),
            Action::Accept => f.write_str("esp or clear"),
        }
    }
}

/// A policy as we ask for it. Its index is chosen when it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Which packets it is asked about.
    pub direction: PolicyDirection,
    /// Which of them it matches.
    pub selector: Selector,
    /// What happens to them.
    pub action: Action,
    /// Among policies that match, the smallest number decides.
    pub priority: u32,
    /// When the kernel removes it by itself, with or without an agent; `None` for never.
    pub until: Option<Instant>,
}

/// What identifies a policy in a kernel (docs/kernel.md, fact 8b).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId {
    /// Which packets it is asked about.
    pub direction: PolicyDirection,
    /// Which of them it matches.
    pub selector: Selector,
}

impl PolicyId {
    /// The id of a policy for all packets that go one way between addresses of this host and others, which forwarded
    /// packets come from.
    pub fn between(direction: PolicyDirection, own: Block, other: Block) -> Self {
        let selector = match direction {
            PolicyDirection::Out => Selector::between(own, other),
            PolicyDirection::In | PolicyDirection::Forward => Selector::between(other, own),
        };
        Self { direction, selector }
    }

    /// The id of the policy of a pair.
    pub fn of(pair: Pair, direction: PolicyDirection) -> Self {
        Self::between(direction, Block::host(pair.local), Block::host(pair.remote))
    }
}

impl Policy {
    /// What identifies it in the kernel.
    pub fn id(&self) -> PolicyId {
        PolicyId { direction: self.direction, selector: self.selector }
    }

    /// The same policy, which the kernel removes at `until`.
    pub fn lasting(self, until: Option<Instant>) -> Self {
        Self { until, ..self }
    }
}

impl fmt::Display for PolicyDirection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PolicyDirection::In => "in",
            PolicyDirection::Out => "out",
            PolicyDirection::Forward => "fwd",
        })
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "policy {} {}", self.direction, self.selector)
    }
}

/// A policy as the kernel reports it, ours or a stranger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyReading {
    /// What identifies it.
    pub id: PolicyId,
    /// Its index: ours lie in a reserved range.
    pub index: u32,
    /// Among policies that match, the smallest number decides.
    pub priority: u32,
    /// What happens to a packet; `None` for something that we never write.
    pub action: Option<Action>,
    /// When the kernel removes it by itself, to a second or two; `None` for never.
    pub until: Option<Instant>,
}
