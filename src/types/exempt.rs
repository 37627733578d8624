//! Exemptions: what the operator leaves in the clear on purpose.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::{Block, NodeName, PolicyDirection, Ports, Selector};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u16 = 135;
const NEIGHBOUR_ADVERTISEMENT: u16 = 136;

/// Far ports of an exempted connection: 32768 and up. Without the mask a source port of 22 would open
/// every port (docs/kernel.md, fact 18c).
const FAR_PORTS: Ports = Ports { port: FIRST_FAR_PORT, mask: FIRST_FAR_PORT };
/// The first of them: one bit, so that a mask can tell them from the others.
pub const FIRST_FAR_PORT: u16 = 0x8000;

/// What kind of traffic is exempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP, by the server's port.
    Tcp,
    /// UDP, by the server's port.
    Udp,
    /// ICMP over IPv4 and ICMPv6 over IPv6, all of it.
    Icmp,
}

/// One entry of `protection.exempt`: `tcp/22`, `udp/6000-6010`, `icmp`, each with or without `in:` in front,
/// and those with ports with or without the nodes that serve them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Exemption {
    /// What kind of traffic.
    pub protocol: Protocol,
    /// The server's ports; `None` for ICMP, which has none.
    pub ports: Option<RangeInclusive<u16>>,
    /// Accepted in the clear and not sent so: the stage in which all hosts must be before one of them sends.
    pub incoming: bool,
    /// The nodes that serve these ports; `None` for all.
    pub served_by: Option<BTreeSet<NodeName>>,
}

impl Exemption {
    /// Whether a packet can fall under both. Where servers are named, an exemption for incoming packets may stand
    /// beside one for both ways: the stage between one set of servers and another.
    pub fn overlaps(&self, other: &Exemption) -> bool {
        let named = self.served_by.is_some() || other.served_by.is_some();
        let apart = match (&self.served_by, &other.served_by) {
            (Some(one), Some(two)) => one.is_disjoint(two),
            _ => false,
        };
        self.protocol == other.protocol
            && !apart
            && !(named && self.incoming != other.incoming)
            && match (&self.ports, &other.ports) {
                (Some(one), Some(two)) => one.start() <= two.end() && two.start() <= one.end(),
                _ => true,
            }
    }

    /// Whether `node` serves it.
    pub fn is_served_by(&self, node: &NodeName) -> bool {
        self.served_by.as_ref().is_none_or(|nodes| nodes.contains(node))
    }
}

/// Packets of one direction that pass in the clear, by an exemption or because they have to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClearFlow {
    /// Which way they go.
    pub direction: PolicyDirection,
    /// Which packets.
    pub selector: Selector,
    /// Whether the server sends them, else it receives them.
    from_server: bool,
}

impl ClearFlow {
    /// Whether it lets all packets pass that `other` matches of those between the same two addresses.
    pub fn covers(&self, other: &Selector) -> bool {
        self.covers_server(other)
            && self.selector.source_ports.contains(other.source_ports)
            && self.selector.destination_ports.contains(other.destination_ports)
    }

    /// The same whatever the client's port.
    pub fn covers_server(&self, other: &Selector) -> bool {
        let (own, others) = match self.from_server {
            true => (self.selector.source_ports, other.source_ports),
            false => (self.selector.destination_ports, other.destination_ports),
        };
        self.selector.protocol == other.protocol && own.contains(others)
    }
}

/// Unicast neighbour discovery stays in the clear, or IKE over IPv6 deadlocks (docs/kernel.md, fact 18b).
pub fn neighbour_discovery() -> Vec<ClearFlow> {
    let any = Block::any(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let flow = |(kind, direction)| {
        let selector =
            Selector { protocol: ICMPV6, source_ports: Ports::one(kind), ..Selector::between(any, any) };
        ClearFlow { direction, selector, from_server: true }
    };
    let kinds = [NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT];
    let both = |kind| [PolicyDirection::In, PolicyDirection::Out].map(|direction| (kind, direction));
    kinds.into_iter().flat_map(both).map(flow).collect()
}

impl Exemption {
    /// Both directions, with the server `here`, `there`, or at either end.
    pub fn both_ways(&self, remote: IpAddr, here: bool, there: bool) -> Vec<ClearFlow> {
        let Some(ports) = &self.ports else {
            let protocol = if remote.is_ipv4() { ICMP } else { ICMPV6 };
            return served_here(remote, protocol, Ports::ANY, Ports::ANY).into();
        };
        let protocol = if self.protocol == Protocol::Tcp { TCP } else { UDP };
        let of_port = |server| {
            let here = here.then(|| served_here(remote, protocol, server, FAR_PORTS));
            let there = there.then(|| served_there(remote, protocol, server, FAR_PORTS));
            here.into_iter().chain(there).flatten()
        };
        port_masks(ports.clone()).into_iter().flat_map(of_port).collect()
    }
}

/// Between a server on this host and a client at `remote`.
fn served_here(remote: IpAddr, protocol: u8, server: Ports, client: Ports) -> [ClearFlow; 2] {
    between(remote, protocol, server, client)
        .map(|flow| ClearFlow { from_server: flow.direction == PolicyDirection::Out, ..flow })
}

/// Between a server at `remote` and a client on this host.
fn served_there(remote: IpAddr, protocol: u8, server: Ports, client: Ports) -> [ClearFlow; 2] {
    between(remote, protocol, client, server)
        .map(|flow| ClearFlow { from_server: flow.direction == PolicyDirection::In, ..flow })
}

/// Both directions between this host, on ports `near`, and `remote`, on ports `far`.
fn between(remote: IpAddr, protocol: u8, near: Ports, far: Ports) -> [ClearFlow; 2] {
    let (here, there) = (Block::any(remote), Block::host(remote));
    let inbound =
        Selector { source: there, destination: here, protocol, source_ports: far, destination_ports: near };
    let outbound =
        Selector { source: here, destination: there, protocol, source_ports: near, destination_ports: far };
    [(PolicyDirection::In, inbound), (PolicyDirection::Out, outbound)]
        .map(|(direction, selector)| ClearFlow { direction, selector, from_server: false })
}

impl FromStr for Exemption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("\"{text}\" is not an exemption such as \"tcp/22\", \"udp/6000-6010\" or \"icmp\"");
        let (incoming, entry) = text.strip_prefix("in:").map_or((false, text), |entry| (true, entry));
        let (protocol, ports) = match entry.split_once('/') {
            None if entry == "icmp" => {
                return Ok(Self { protocol: Protocol::Icmp, ports: None, incoming, served_by: None });
            }
            Some(("tcp", ports)) => (Protocol::Tcp, ports),
            Some(("udp", ports)) => (Protocol::Udp, ports),
            _ => return Err(wrong()),
        };
        let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
        let port = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse::<u16>().map_err(|_| wrong()),
            false => Err(wrong()),
        };
        let (first, last) = (port(first)?, port(last)?);
        if first == 0 {
            return Err(format!("\"{text}\": there is no port 0"));
        }
        if first > last {
            return Err(format!("\"{text}\": {first} comes after {last}"));
        }
        Ok(Self { protocol, ports: Some(first..=last), incoming, served_by: None })
    }
}

impl fmt::Display for Exemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.incoming { "in:" } else { "" })?;
        f.write_str(match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        })?;
        match &self.ports {
            None => {}
            Some(ports) if ports.start() == ports.end() => write!(f, "/{}", ports.start())?,
            Some(ports) => write!(f, "/{}-{}", ports.start(), ports.end())?,
        }
        match &self.served_by {
            None => Ok(()),
            Some(nodes) => {
                let nodes: Vec<&str> = nodes.iter().map(NodeName::as_str).collect();
                write!(f, " served by {}", nodes.join(", "))
            }
        }
    }
}

/// The fewest [`Ports`] that together are exactly `range`: a selector knows no ranges, only
/// `port & mask`. At most 30 of them.
fn port_masks(range: RangeInclusive<u16>) -> Vec<Ports> {
    let (mut next, end) = (u32::from(*range.start()), u32::from(*range.end()) + 1);
    let mut masks = Vec::new();
    while next < end {
        // The largest block that starts here, by alignment and by what is left of the range.
        let aligned = if next == 0 { 16 } else { next.trailing_zeros().min(16) };
        let bits = aligned.min((end - next).ilog2());
        // Both fit: next < 65536, and the mask is cut to its low 16 bits.
        masks.push(Ports { port: next as u16, mask: ((0xffff_u32 << bits) & 0xffff) as u16 });
        next += 1 << bits;
    }
    masks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_read_and_shown() {
        for text in ["tcp/22", "udp/6000-6010", "icmp", "tcp/1-65535", "in:tcp/22", "in:icmp"] {
            assert_eq!(text.parse::<Exemption>().unwrap().to_string(), text);
        }
        let ssh: Exemption = "tcp/22".parse().unwrap();
        assert_eq!((ssh.protocol, ssh.ports), (Protocol::Tcp, Some(22..=22)));
        for text in [
            "",
            "tcp",
            "tcp/",
            "tcp/0",
            "tcp/65536",
            "tcp/9-5",
            "tcp/+5",
            "sctp/5",
            "icmp/8",
            "udp/1-2-3",
            "TCP/22",
            "out:tcp/22",
            "in:in:tcp/22",
        ] {
            assert!(text.parse::<Exemption>().is_err(), "{text}");
        }
    }

    #[test]
    fn overlaps_are_seen() {
        let overlap = |one: &str, two: &str| {
            one.parse::<Exemption>().unwrap().overlaps(&two.parse::<Exemption>().unwrap())
        };
        assert!(overlap("tcp/22", "tcp/20-25"));
        assert!(overlap("tcp/22", "in:tcp/22"));
        assert!(overlap("icmp", "icmp"));
        assert!(!overlap("tcp/22", "udp/22"));
        assert!(!overlap("tcp/22", "tcp/23"));
    }

    #[test]
    fn known_ranges() {
        assert_eq!(port_masks(22..=22), [Ports::one(22)]);
        assert_eq!(port_masks(0..=65535), [Ports::ANY]);
        assert_eq!(
            port_masks(6000..=6010),
            [
                Ports { port: 6000, mask: 0xfff8 },
                Ports { port: 6008, mask: 0xfffe },
                Ports { port: 6010, mask: 0xffff }
            ]
        );
        assert_eq!(port_masks(1..=65534).len(), 30);
    }

    proptest! {
        #[test]
        fn exactly_the_range(one: u16, two: u16) {
            let range = one.min(two)..=one.max(two);
            let masks = port_masks(range.clone());
            for port in 0..=u16::MAX {
                let matches = masks.iter().filter(|ports| port & ports.mask == ports.port).count();
                prop_assert_eq!(matches, usize::from(range.contains(&port)), "port {}", port);
            }
        }
    }
}
