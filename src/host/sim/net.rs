//! The network between simulated hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::world::NAT_PORT;
use crate::types::SaId;

/// What is on the wire.
#[derive(Debug, Clone)]
pub(super) enum Packet {
    Ike {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Esp {
        id: SaId,
        from: SocketAddr,
        in_udp: bool,
        inner: Inner,
    },
    Clear {
        from: IpAddr,
        to: IpAddr,
    },
    /// A datagram in the clear that is not traffic.
    Plain {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
}

/// What ESP hides.
#[derive(Debug, Clone)]
pub(super) enum Inner {
    Probe { to: SocketAddr, bytes: Vec<u8> },
    Data,
}

impl Packet {
    fn ends(&self) -> (IpAddr, IpAddr) {
        match self {
            Packet::Ike { from, to, .. } | Packet::Plain { from, to, .. } => (from.ip(), to.ip()),
            Packet::Esp { id, from, .. } => (from.ip(), id.destination),
            Packet::Clear { from, to } => (*from, *to),
        }
    }

    pub(super) fn destination(&self) -> IpAddr {
        self.ends().1
    }

    /// The same with other addresses.
    fn map(self, source: impl Fn(IpAddr) -> IpAddr, destination: impl Fn(IpAddr) -> IpAddr) -> Self {
        let from = |from: SocketAddr| SocketAddr::new(source(from.ip()), from.port());
        let to = |to: SocketAddr| SocketAddr::new(destination(to.ip()), to.port());
        match self {
            Packet::Ike { from: local, to: remote, bytes } => {
                Packet::Ike { from: from(local), to: to(remote), bytes }
            }
            Packet::Plain { from: local, to: remote, bytes } => {
                Packet::Plain { from: from(local), to: to(remote), bytes }
            }
            Packet::Clear { from, to } => Packet::Clear { from: source(from), to: destination(to) },
            Packet::Esp { id, from: local, in_udp, inner } => {
                let id = SaId { destination: destination(id.destination), ..id };
                let inner = match inner {
                    // What ESP hides has the addresses of the packet that it is taken out of.
                    Inner::Probe { to: remote, bytes } => Inner::Probe { to: to(remote), bytes },
                    Inner::Data => Inner::Data,
                };
                Packet::Esp { id, from: from(local), in_udp, inner }
            }
        }
    }
}

/// How the network treats IKE. Data is not lost by the network, so that every loss is ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    pub(super) loss: f64,
    pub(super) duplication: f64,
    pub(super) delay: (Duration, Duration),
}

impl Weather {
    pub(super) const FAIR: Self =
        Self { loss: 0.0, duplication: 0.0, delay: (Duration::from_micros(200), Duration::from_micros(400)) };
    pub(super) const ROUGH: Self =
        Self { loss: 0.1, duplication: 0.02, delay: (Duration::from_millis(1), Duration::from_millis(50)) };
    pub(super) const FOUL: Self =
        Self { loss: 0.3, duplication: 0.1, delay: (Duration::from_millis(1), Duration::from_millis(80)) };
    pub(super) const STORM: Self =
        Self { loss: 0.7, duplication: 0.2, delay: (Duration::from_millis(1), Duration::from_secs(3)) };
}

/// A stateful firewall: one host begins, the others only answer, for as long as it remembers that.
pub(super) struct Firewall {
    begins: IpAddr,
    forgets: Duration,
    /// It is for UDP 4500 and not for protocol 50.
    of_udp: bool,
    passed: Option<Instant>,
    /// So many packets of traffic it has dropped.
    pub(super) dropped: u64,
}

impl Firewall {
    pub(super) fn new(begins: IpAddr, forgets: Duration) -> Self {
        Self { begins, forgets, of_udp: false, passed: None, dropped: 0 }
    }

    /// The same for UDP 4500, IKE and ESP alike.
    pub(super) fn of_udp(begins: IpAddr, forgets: Duration) -> Self {
        Self { of_udp: true, ..Self::new(begins, forgets) }
    }

    fn concerns(&self, packet: &Packet) -> bool {
        match packet {
            Packet::Esp { in_udp, .. } => *in_udp == self.of_udp,
            Packet::Ike { from, .. } => self.of_udp && from.port() == NAT_PORT,
            Packet::Clear { .. } | Packet::Plain { .. } => false,
        }
    }

    /// Whether a packet passes, which is `data` or a probe of ours.
    fn passes(&mut self, now: Instant, from: IpAddr, data: bool) -> bool {
        let remembers = self.passed.is_some_and(|passed| now - passed < self.forgets);
        let passes = from == self.begins || remembers;
        self.passed = if passes { Some(now) } else { self.passed };
        self.dropped += u64::from(data && !passes);
        passes
    }
}

/// Packets under way.
pub(super) struct Net {
    pub(super) weather: Weather,
    /// Ways (from, to) on which protocol 50 is dropped.
    pub(super) esp_blocked: BTreeSet<(IpAddr, IpAddr)>,
    /// Ways on which UDP to that port is dropped.
    pub(super) udp_blocked: BTreeSet<(IpAddr, IpAddr, u16)>,
    /// Ways on which nothing passes.
    pub(super) cut: BTreeSet<(IpAddr, IpAddr)>,
    /// A firewall.
    pub(super) firewall: Option<Firewall>,
    /// Packets larger than this are lost before ESP adds to them, and nobody says so.
    pub(super) swallows: Option<usize>,
    /// Clear datagrams that are not traffic are lost.
    pub(super) swallows_plain: bool,
    /// What NATs make of hosts' own addresses.
    pub(super) translated: BTreeMap<IpAddr, IpAddr>,
    under_way: BTreeMap<(Instant, u64), Packet>,
    sent: u64,
    /// IKE datagrams that hosts have sent.
    pub(super) ike_sent: u64,
}

impl Net {
    pub(super) fn new(weather: Weather) -> Self {
        Self {
            weather,
            esp_blocked: BTreeSet::new(),
            udp_blocked: BTreeSet::new(),
            cut: BTreeSet::new(),
            firewall: None,
            swallows: None,
            swallows_plain: false,
            translated: BTreeMap::new(),
            under_way: BTreeMap::new(),
            sent: 0,
            ike_sent: 0,
        }
    }

    pub(super) fn send(&mut self, now: Instant, rng: &mut StdRng, packet: Packet) {
        let ends = packet.ends();
        self.ike_sent += u64::from(matches!(packet, Packet::Ike { .. }));
        let blocked = matches!(packet, Packet::Esp { in_udp: false, .. }) && self.esp_blocked.contains(&ends);
        if let Packet::Ike { from, to, .. } = &packet
            && self.udp_blocked.contains(&(from.ip(), to.ip(), to.port()))
        {
            return;
        }
        if let Packet::Esp { inner: Inner::Probe { bytes, .. }, .. } = &packet
            && self.swallows.is_some_and(|limit| bytes.len() + 28 > limit)
        {
            return;
        }
        if self.swallows_plain && matches!(packet, Packet::Plain { .. }) {
            return;
        }
        let data = matches!(packet, Packet::Clear { .. } | Packet::Esp { inner: Inner::Data, .. });
        let lost = !data && rng.random_bool(self.weather.loss);
        let concerned = self.firewall.as_mut().filter(|firewall| firewall.concerns(&packet));
        let stopped = concerned.is_some_and(|firewall| !firewall.passes(now, ends.0, data));
        if blocked || lost || stopped || self.cut.contains(&ends) {
            return;
        }
        let packet = self.translate(packet);
        let copies = if !data && rng.random_bool(self.weather.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            // Data keeps to the shortest delay: it must never arrive later than what allows its loss.
            let (least, most) = self.weather.delay;
            let delay = if data { least } else { rng.random_range(least..=most) };
            self.sent += 1;
            self.under_way.insert((now + delay, self.sent), packet.clone());
        }
    }

    fn translate(&self, packet: Packet) -> Packet {
        let outward = |own| self.translated.get(&own).copied().unwrap_or(own);
        let inward = |listed| {
            let own = self.translated.iter().find(|(_, outside)| **outside == listed);
            own.map_or(listed, |(own, _)| *own)
        };
        packet.map(outward, inward)
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.under_way.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Packet> {
        let first = self.under_way.first_entry().filter(|entry| entry.key().0 <= now)?;
        Some(first.remove())
    }
}
