//! What packets between the two addresses of a pair are: ESP, what is clear on purpose, and what should not be there.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::IpAddr;
use std::sync::Arc;

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
/// So many different numbers are told apart: both ends send fewer, also in all proofs of late.
const NONCES: usize = 1 << 15;
/// What clear packets of the proof are called.
const OF_PROOF: &str = "clear packets of the proof";

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
pub(super) struct WireTally {
    ground: Arc<ClearOnPurpose>,
    pair: Pair,
    nat_port: u16,
    /// By the name of what they are.
    left_out: BTreeMap<String, u64>,
    /// Those that left, and those that came.
    left: ClearTally,
    came: ClearTally,
    /// Later parts of packets and the like: ESP that the kernel does not know as such.
    esp: [u64; 2],
}

/// Clear packets one way.
#[derive(Default)]
struct ClearTally {
    count: u64,
    /// Some of them, in words.
    examples: Vec<String>,
    /// Those that say to be clear packets of a proof: how many, and one in words.
    nonces: BTreeMap<Nonce, (u64, String)>,
}

/// What the kernel has counted meanwhile.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WireSight {
    /// Packets of ESP that left.
    pub(super) esp_out: u64,
    /// And that came.
    pub(super) esp_in: u64,
    /// Packets that could not be looked at.
    pub(super) missed: u64,
    /// Packets that came through inbound SAs.
    pub(super) inbound: u64,
}

/// A packet.
#[derive(Debug, PartialEq, Eq)]
enum PacketKind {
    Esp,
    /// Clear on purpose: what it is called.
    LeftOut(String),
    /// It says to be a clear packet of a proof, with this number. What both ends have sent is known in the end.
    Nonce(Nonce, String),
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

impl ClearTally {
    fn note(&mut self, count: u64, words: String) {
        self.count += count;
        if self.examples.len() < EXAMPLES && !self.examples.contains(&words) {
            self.examples.push(words);
        }
    }

    fn note_nonce(&mut self, nonce: Nonce, words: String) {
        let has_room = self.nonces.len() < NONCES;
        match self.nonces.entry(nonce) {
            Entry::Occupied(mut entry) => entry.get_mut().0 += 1,
            Entry::Vacant(entry) if has_room => drop(entry.insert((1, words))),
            Entry::Vacant(_) => self.note(1, words),
        }
    }

    /// How many of them both ends have sent on purpose; all others are clear packets like any.
    fn settle(&mut self, own: &BTreeSet<Nonce>) -> u64 {
        let mut sent = 0;
        for (nonce, (count, words)) in std::mem::take(&mut self.nonces) {
            match own.contains(&nonce) {
                true => sent += count,
                false => self.note(count, words),
            }
        }
        sent
    }

    /// How many there were. That there was none takes that all was looked at.
    fn known(&self, missed: u64) -> Option<u64> {
        (missed == 0 || self.count > 0).then_some(self.count)
    }
}

impl WireTally {
    pub(super) fn new(ground: Arc<ClearOnPurpose>, pair: Pair, nat_port: u16) -> Self {
        let (left, came) = Default::default();
        Self { ground, pair, nat_port, left_out: BTreeMap::new(), left, came, esp: [0; 2] }
    }

    /// A packet that the kernel does not know as ESP.
    pub(super) fn note(&mut self, passed: &Passed<'_>) {
        let kind = self.kind(passed);
        let way = if passed.outgoing { &mut self.left } else { &mut self.came };
        match kind {
            Some(PacketKind::LeftOut(name)) => *self.left_out.entry(name).or_default() += 1,
            Some(PacketKind::Nonce(nonce, words)) => way.note_nonce(nonce, words),
            Some(PacketKind::Clear(words)) => way.note(1, words),
            Some(PacketKind::Esp) => self.esp[usize::from(passed.outgoing)] += 1,
            None => {}
        }
    }

    /// All of it, where `own` is what both ends have sent in the clear on purpose. Of what came as ESP no less is seen than
    /// came through the SAs: where it is less, this kernel shows packets after it has decrypted them, and then those that
    /// came prove nothing.
    pub(super) fn count(mut self, own: &[Nonce], sight: WireSight) -> WireCount {
        let WireSight { esp_out, esp_in, missed, inbound } = sight;
        let own = own.iter().copied().collect();
        let sent = self.left.settle(&own) + self.came.settle(&own);
        if sent > 0 {
            self.left_out.insert(OF_PROOF.to_owned(), sent);
        }
        let (esp_out, esp_in) = (esp_out + self.esp[1], esp_in + self.esp[0]);
        let shown_as_came = esp_in >= inbound;
        let came = if shown_as_came { self.came } else { ClearTally::default() };
        WireCount {
            esp_out,
            esp_in,
            clear_out: self.left.known(missed),
            clear_in: came.known(missed).filter(|_| shown_as_came),
            examples: self.left.examples.into_iter().chain(came.examples).collect(),
            left_out: self.left_out,
            missed,
        }
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
        if let Some(kind) = self.of_agent(parts, ports) {
            return kind;
        }
        // Before it is looked what it holds: by an exempt port any local user may send what looks like part of a proof.
        if let Some(entry) = self.exemption(parts, ports) {
            return PacketKind::LeftOut(format!("exempt {entry}"));
        }
        let data = (parts.protocol == UDP).then(|| parts.data()).and_then(Nonce::from_datagram);
        match data {
            Some((NonceKind::Clear, nonce)) => PacketKind::Nonce(nonce, parts.words(ports)),
            Some((NonceKind::Sealed, _)) => {
                let words = "a packet of the proof that should have been encrypted";
                PacketKind::Clear(format!("{words} ({})", parts.words(ports)))
            }
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

    /// What UDP by a port of this host's agent carries.
    fn of_agent(&self, parts: &IpParts<'_>, ports: Option<[u16; 2]>) -> Option<PacketKind> {
        let (Some([source, destination]), UDP) = (ports, parts.protocol) else { return None };
        let data = parts.data();
        // The ports of this host that its agent has.
        let own = if parts.source == self.pair.local { source } else { destination };
        if own == self.nat_port || own == self.ground.ike_port {
            // RFC 3948 section 2.2.
            let is_ike =
                own == self.ground.ike_port || data.first_chunk().is_none_or(|marker| marker == &[0; 4]);
            return Some(if is_ike { PacketKind::LeftOut("IKE".to_owned()) } else { PacketKind::Esp });
        }
        None
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

    /// What UDP carries.
    fn data(&self) -> &'p [u8] {
        self.payload.get(8..).unwrap_or_default()
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
        let exempt = ["tcp/22", "udp/9999", "icmp", "in:tcp/23"].map(|entry| entry.parse().unwrap());
        ClearOnPurpose { ike_port: 500, exempt: Exemptions::of_all(exempt) }
    }

    #[test]
    fn each_packet_is_what_it_is() {
        let ground = Arc::new(ground());
        let left_out = |name: &str| Some(PacketKind::LeftOut(name.to_owned()));
        for v4 in [true, false] {
            let tally = WireTally::new(ground.clone(), pair(v4), 4500);
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
            assert!(matches!(kind(UDP, &proof(NonceKind::Clear, OWN)), Some(PacketKind::Nonce(OWN, _))));
            assert!(matches!(kind(UDP, &proof(NonceKind::Sealed, OWN)), Some(PacketKind::Clear(_))));
            // Another host's port 500 is not that of this host's agent.
            for clear in [udp([40_000, 500], &[0; 28]), udp([40_000, 4500], &[0; 28])] {
                assert!(matches!(kind(UDP, &clear), Some(PacketKind::Clear(_))));
            }
            assert_eq!(kind(TCP, &udp([22, 40_000], &[])), left_out("exempt tcp/22"));
            // A local user sends what looks like part of a proof by a port that is exempt.
            for of_proof in [NonceKind::Clear, NonceKind::Sealed].map(|kind| OWN.datagram(kind)) {
                assert_eq!(kind(UDP, &udp([9999, 40_001], &of_proof)), left_out("exempt udp/9999"));
            }
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
                WireTally::new(ground.clone(), pair(!v4), 4500)
                    .kind(&Passed { outgoing: true, bytes: &bytes }),
                None
            );
        }
    }

    /// A watch that saw these clear packets leave and come, beside what the kernel counted.
    fn seen(left: &[Vec<u8>], came: &[Vec<u8>], sight: WireSight) -> WireCount {
        let mut tally = WireTally::new(Arc::new(ground()), pair(true), 4500);
        for (outgoing, packets) in [(true, left), (false, came)] {
            packets.iter().for_each(|bytes| tally.note(&Passed { outgoing, bytes }));
        }
        tally.count(&[OWN], sight)
    }

    #[test]
    fn what_came_counts_only_where_it_is_shown_as_it_was() {
        let [left, came] = [true, false].map(|outgoing| packet(true, outgoing, TCP, &udp([1, 2], &[])));
        // Whatever else there was, as much ESP came as the SAs took, or less was shown so.
        for (esp_in, clear_in, examples) in [(90, Some(2), 2), (70, Some(2), 2), (69, None, 1), (0, None, 1)]
        {
            let sight = WireSight { esp_in, inbound: 70, ..WireSight::default() };
            let count = seen(std::slice::from_ref(&left), &[came.clone(), came.clone()], sight);
            assert_eq!(
                (count.clear_out, count.clear_in, count.examples.len()),
                (Some(1), clear_in, examples)
            );
        }
    }

    /// Who could not look at all of it cannot say that there was nothing.
    #[test]
    fn what_was_missed_may_have_been_anything() {
        let missed = WireSight { missed: 1, ..WireSight::default() };
        let count = seen(&[], &[], missed);
        assert_eq!((count.clear_out, count.clear_in, count.missed), (None, None, 1));
        let left = packet(true, true, TCP, &udp([1, 2], &[]));
        let count = seen(&[left], &[], missed);
        assert_eq!((count.clear_out, count.clear_in), (Some(1), None), "so many at least");
    }

    #[test]
    fn clear_packets_of_the_proof_are_known_by_their_numbers() {
        let of =
            |nonce: Nonce| packet(true, true, UDP, &udp([40_000, 40_001], &nonce.datagram(NonceKind::Clear)));
        let count = seen(&[of(OWN), of(OWN)], &[], WireSight::default());
        assert_eq!((count.clear_out, count.left_out.get(OF_PROOF)), (Some(0), Some(&2)));
        // Nobody else has a use for numbers.
        let many: Vec<Vec<u8>> = (0..NONCES as u64 + 9).map(|it| of(Nonce(it.to_be_bytes()))).collect();
        let count = seen(&many, &[], WireSight::default());
        assert_eq!((count.clear_out, count.left_out.get(OF_PROOF)), (Some(NONCES as u64 + 9), None));
    }
}
