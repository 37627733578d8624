//! What packets between the two addresses of a pair are: ESP, what is clear on purpose, and what should not be there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::watch::Passed;
use crate::config::{Config, Exemptions, Node};
use crate::observe::pair_proof::WireCount;
use crate::types::{Block, Exemption, Nonce, NonceKind, Pair, PolicyDirection, Ports, Selector};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ESP: u8 = 50;
const ICMPV6: u8 = 58;
/// Neighbour solicitation and advertisement.
const NEIGHBOURS: [u8; 2] = [135, 136];
/// So many clear packets are described.
const EXAMPLES: usize = 5;

/// What of a configuration says what may be clear.
pub(super) struct ClearOnPurpose {
    ike_port: u16,
    exempt: Exemptions,
}

impl ClearOnPurpose {
    pub(super) fn of(config: &Config, node: &Node) -> Self {
        Self { ike_port: config.keying.port, exempt: Exemptions::of(config, Some(node)) }
    }
}

/// What is counted.
pub(super) struct WireTally<'g> {
    ground: &'g ClearOnPurpose,
    pair: Pair,
    nat_port: u16,
    /// What both ends have sent in the clear on purpose.
    own: BTreeSet<Nonce>,
    count: WireCount,
    clear_in: u64,
    /// Some of the clear packets that left, and some of those that came, in words.
    left: Vec<String>,
    came: Vec<String>,
}

/// A packet.
#[derive(Debug, PartialEq, Eq)]
enum PacketKind {
    Esp,
    /// Clear on purpose: what it is called.
    LeftOut(String),
    /// Clear: what it is.
    Clear(String),
}

/// The parts of a packet that tell what it is.
struct IpParts<'p> {
    protocol: u8,
    source: IpAddr,
    destination: IpAddr,
    /// It is not the first part of a packet.
    later: bool,
    /// What is behind the IP header.
    payload: &'p [u8],
}

impl<'g> WireTally<'g> {
    pub(super) fn new(ground: &'g ClearOnPurpose, pair: Pair, nat_port: u16, own: &[Nonce]) -> Self {
        let own = own.iter().copied().collect();
        let (left, came) = (Vec::new(), Vec::new());
        Self { ground, pair, nat_port, own, count: WireCount::default(), clear_in: 0, left, came }
    }

    /// A packet of any kind: ESP is counted.
    pub(super) fn note_any(&mut self, passed: &Passed<'_>) {
        if self.kind(passed) == Some(PacketKind::Esp) {
            let count = if passed.outgoing { &mut self.count.esp_out } else { &mut self.count.esp_in };
            *count += 1;
        }
    }

    /// A packet that is no ESP.
    pub(super) fn note_clear(&mut self, passed: &Passed<'_>) {
        match self.kind(passed) {
            Some(PacketKind::LeftOut(name)) => *self.count.left_out.entry(name).or_default() += 1,
            Some(PacketKind::Clear(words)) => {
                *(if passed.outgoing { &mut self.count.clear_out } else { &mut self.clear_in }) += 1;
                let examples = if passed.outgoing { &mut self.left } else { &mut self.came };
                if examples.len() < EXAMPLES && !examples.contains(&words) {
                    examples.push(words);
                }
            }
            Some(PacketKind::Esp) | None => {}
        }
    }

    /// All of it. So many packets came through inbound SAs: where none of them was seen as ESP, this kernel shows packets
    /// after it has decrypted them, and then those that came prove nothing.
    pub(super) fn count(mut self, missed: u64, inbound: u64) -> WireCount {
        self.count.missed = missed;
        let shown_decrypted = self.count.esp_in == 0 && inbound > 0;
        self.count.clear_in = (!shown_decrypted).then_some(self.clear_in);
        self.count.examples = self.left;
        self.count.examples.extend(self.came.into_iter().filter(|_| !shown_decrypted));
        self.count
    }

    /// What a packet is; `None` for one that is not of the pair.
    fn kind(&self, passed: &Passed<'_>) -> Option<PacketKind> {
        let parts = IpParts::of(passed.bytes)?;
        let Pair { local, remote } = self.pair;
        let ends = (parts.source, parts.destination);
        if ends != (local, remote) && ends != (remote, local) {
            return None;
        }
        Some(self.kind_of(&parts))
    }

    fn kind_of(&self, parts: &IpParts<'_>) -> PacketKind {
        let IpParts { protocol, payload, .. } = *parts;
        if protocol == ESP {
            return PacketKind::Esp;
        }
        if parts.later {
            return PacketKind::LeftOut("later parts of packets".to_owned());
        }
        if protocol == ICMPV6 && payload.first().is_some_and(|kind| NEIGHBOURS.contains(kind)) {
            return PacketKind::LeftOut("IPv6 neighbour discovery".to_owned());
        }
        let ports = parts.ports();
        if let Some(kind) = self.of_udp(parts, ports) {
            return kind;
        }
        match self.exemption(parts, ports) {
            Some(entry) => PacketKind::LeftOut(format!("exempt {entry}")),
            None => PacketKind::Clear(parts.words(ports)),
        }
    }

    /// By which exemption it passes, as the policies are made.
    fn exemption(&self, parts: &IpParts<'_>, ports: Option<[u16; 2]>) -> Option<&Exemption> {
        let leaves = parts.source == self.pair.local;
        let direction = if leaves { PolicyDirection::Out } else { PolicyDirection::In };
        let [source_ports, destination_ports] = ports.map_or([Ports::ANY; 2], |ports| ports.map(Ports::one));
        let ends = Selector::between(Block::host(parts.source), Block::host(parts.destination));
        let packet = Selector { protocol: parts.protocol, source_ports, destination_ports, ..ends };
        self.ground.exempt.which(self.pair.remote, direction, &packet)
    }

    /// What UDP that is hostseal's own carries.
    fn of_udp(&self, parts: &IpParts<'_>, ports: Option<[u16; 2]>) -> Option<PacketKind> {
        let (Some([source, destination]), UDP) = (ports, parts.protocol) else { return None };
        let data = parts.payload.get(8..).unwrap_or_default();
        // The ports of this host that its agent has.
        let own = if parts.source == self.pair.local { source } else { destination };
        if own == self.nat_port || own == self.ground.ike_port {
            // RFC 3948 section 2.2.
            let is_ike =
                own == self.ground.ike_port || data.first_chunk().is_none_or(|marker| marker == &[0; 4]);
            return Some(if is_ike { PacketKind::LeftOut("IKE".to_owned()) } else { PacketKind::Esp });
        }
        match Nonce::from_datagram(data) {
            Some((NonceKind::Clear, nonce)) if self.own.contains(&nonce) => {
                Some(PacketKind::LeftOut("clear packets of the proof".to_owned()))
            }
            Some((NonceKind::Sealed, _)) => {
                let words = "a packet of the proof that should have been encrypted";
                Some(PacketKind::Clear(format!("{words} ({})", parts.words(ports))))
            }
            _ => None,
        }
    }
}

impl<'p> IpParts<'p> {
    /// Those of an IP packet.
    fn of(bytes: &'p [u8]) -> Option<Self> {
        match bytes.first()? >> 4 {
            4 => {
                let length = usize::from(bytes.first()? & 0xf) * 4;
                let source: [u8; 4] = *bytes.get(12..)?.first_chunk()?;
                let destination: [u8; 4] = *bytes.get(16..)?.first_chunk()?;
                let fragment = u16::from_be_bytes(*bytes.get(6..)?.first_chunk()?);
                Some(Self {
                    protocol: *bytes.get(9)?,
                    source: source.into(),
                    destination: destination.into(),
                    later: fragment & 0x1fff != 0,
                    payload: bytes.get(length..)?,
                })
            }
            6 => {
                let source: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
                let destination: [u8; 16] = *bytes.get(24..)?.first_chunk()?;
                let (mut protocol, mut payload, mut later) = (*bytes.get(6)?, bytes.get(40..)?, false);
                // RFC 8200 section 4.5.
                if protocol == 44 {
                    later = u16::from_be_bytes(*payload.get(2..)?.first_chunk()?) & 0xfff8 != 0;
                    (protocol, payload) = (*payload.first()?, payload.get(8..)?);
                }
                Some(Self {
                    protocol,
                    source: source.into(),
                    destination: destination.into(),
                    later,
                    payload,
                })
            }
            _ => None,
        }
    }

    fn ports(&self) -> Option<[u16; 2]> {
        let [a, b, c, d] = *self.payload.first_chunk()?;
        matches!(self.protocol, TCP | UDP).then(|| [[a, b], [c, d]].map(u16::from_be_bytes))
    }

    fn words(&self, ports: Option<[u16; 2]>) -> String {
        let protocol = match self.protocol {
            TCP => "TCP".to_owned(),
            UDP => "UDP".to_owned(),
            ICMP => "ICMP".to_owned(),
            ICMPV6 => "ICMPv6".to_owned(),
            other => format!("protocol {other}"),
        };
        match ports {
            Some([from, to]) => {
                format!("{protocol} from {} port {from} to {} port {to}", self.source, self.destination)
            }
            None => format!("{protocol} from {} to {}", self.source, self.destination),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Nonce = Nonce([7; 8]);

    fn pair(v4: bool) -> Pair {
        let [local, remote] = if v4 { ["10.0.0.1", "10.0.0.2"] } else { ["fd00::1", "fd00::2"] };
        Pair { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    /// A packet of the pair that leaves, or comes.
    fn packet(v4: bool, outgoing: bool, protocol: u8, payload: &[u8]) -> Vec<u8> {
        let Pair { local, remote } = pair(v4);
        let octets = |address: IpAddr| match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let (from, to) = if outgoing { (local, remote) } else { (remote, local) };
        let mut header = if v4 {
            vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0]
        } else {
            vec![0x60, 0, 0, 0, 0, 0, protocol, 64]
        };
        header.extend(octets(from));
        header.extend(octets(to));
        header.extend(payload);
        header
    }

    fn udp(ports: [u16; 2], data: &[u8]) -> Vec<u8> {
        let mut datagram: Vec<u8> = ports.into_iter().flat_map(u16::to_be_bytes).collect();
        datagram.extend([0; 4]);
        datagram.extend(data);
        datagram
    }

    fn ground() -> ClearOnPurpose {
        let exempt = ["tcp/22", "icmp", "in:tcp/23"].map(|entry| entry.parse().unwrap());
        ClearOnPurpose { ike_port: 500, exempt: Exemptions::of_all(exempt) }
    }

    #[test]
    fn each_packet_is_what_it_is() {
        let ground = ground();
        let left_out = |name: &str| Some(PacketKind::LeftOut(name.to_owned()));
        for v4 in [true, false] {
            let tally = WireTally::new(&ground, pair(v4), 4500, &[OWN]);
            let kind = |protocol, payload: &[u8]| {
                let bytes = packet(v4, true, protocol, payload);
                tally.kind(&Passed { outgoing: true, bytes: &bytes })
            };
            assert_eq!(kind(ESP, &[1; 20]), Some(PacketKind::Esp));
            assert_eq!(kind(UDP, &udp([500, 500], &[1; 28])), left_out("IKE"));
            assert_eq!(kind(UDP, &udp([4500, 4500], &[0; 28])), left_out("IKE"));
            assert_eq!(kind(UDP, &udp([4500, 4500], &[0xff])), left_out("IKE"), "a reminder for a NAT");
            assert_eq!(kind(UDP, &udp([4500, 4500], &[1; 28])), Some(PacketKind::Esp));
            let proof = |kind, nonce: Nonce| udp([40_000, 40_001], &nonce.datagram(kind));
            assert_eq!(kind(UDP, &proof(NonceKind::Clear, OWN)), left_out("clear packets of the proof"));
            for other in [proof(NonceKind::Clear, Nonce([8; 8])), proof(NonceKind::Sealed, OWN)] {
                assert!(matches!(kind(UDP, &other), Some(PacketKind::Clear(_))));
            }
            // Another host's port 500 is not that of this host's agent.
            for clear in [udp([40_000, 500], &[0; 28]), udp([40_000, 4500], &[0; 28])] {
                assert!(matches!(kind(UDP, &clear), Some(PacketKind::Clear(_))));
            }
            assert_eq!(kind(TCP, &udp([22, 40_000], &[])), left_out("exempt tcp/22"));
            assert!(matches!(kind(TCP, &udp([22, 443], &[])), Some(PacketKind::Clear(_))));
            assert_eq!(kind(ICMPV6, &[135, 0, 0, 0]), left_out("IPv6 neighbour discovery"));
            assert_eq!(kind(if v4 { ICMP } else { ICMPV6 }, &[128, 0, 0, 0]), left_out("exempt icmp"));
            // What is accepted in the clear alone is not sent so.
            let both = [true, false].map(|outgoing| {
                let bytes = packet(v4, outgoing, TCP, &udp([40_000, 23], &[]));
                tally.kind(&Passed { outgoing, bytes: &bytes })
            });
            assert!(matches!(both[0], Some(PacketKind::Clear(_))));
            assert_eq!(both[1], left_out("exempt in:tcp/23"));
            assert_eq!(
                kind(89, &[]),
                Some(PacketKind::Clear(format!(
                    "protocol 89 from {} to {}",
                    pair(v4).local,
                    pair(v4).remote
                )))
            );
            // What is cut off is nothing, and so is what is between others.
            let bytes = packet(v4, true, TCP, &[]);
            for length in 0..bytes.len() {
                assert_eq!(tally.kind(&Passed { outgoing: true, bytes: &bytes[..length] }), None);
            }
            assert_eq!(
                WireTally::new(&ground, pair(!v4), 4500, &[]).kind(&Passed { outgoing: true, bytes: &bytes }),
                None
            );
        }
    }

    #[test]
    fn what_came_counts_only_where_it_is_shown_as_it_was() {
        let ground = ground();
        let [left, came] = [true, false].map(|outgoing| packet(true, outgoing, TCP, &udp([1, 2], &[])));
        for (esp, clear_in, examples) in [(true, Some(2), 2), (false, None, 1)] {
            let mut tally = WireTally::new(&ground, pair(true), 4500, &[]);
            if esp {
                tally.note_any(&Passed { outgoing: false, bytes: &packet(true, false, ESP, &[]) });
            }
            tally.note_clear(&Passed { outgoing: false, bytes: &came });
            tally.note_clear(&Passed { outgoing: false, bytes: &came });
            tally.note_clear(&Passed { outgoing: true, bytes: &left });
            let count = tally.count(0, 20);
            assert_eq!((count.clear_out, count.clear_in, count.examples.len()), (1, clear_in, examples));
        }
    }
}
