//! What the policies do to packets, by a lookup like the kernel's.

use std::net::IpAddr;

use crate::config::Exemptions;
use crate::protect::{Desired, Indexes, plan, policies};
use crate::types::{Action, Block, KernelState, Op, Pair, PolicyDirection, Ports, Selector, Spi, Through};

/// A packet as policies see it. For ICMP the ports are type and code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    source_port: u16,
    destination_port: u16,
}

impl Packet {
    pub(super) fn tcp(source: IpAddr, source_port: u16, destination: IpAddr, destination_port: u16) -> Self {
        Self { source, destination, protocol: 6, source_port, destination_port }
    }
}

/// What becomes of a packet. Inbound, `Esp` is "only if it came through an SA".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Clear,
    Esp,
    Drop,
}

fn matches(selector: &Selector, packet: &Packet) -> bool {
    let port = |ports: &Ports, port: u16| port & ports.mask == ports.port;
    selector.source.contains(packet.source)
        && selector.destination.contains(packet.destination)
        && (selector.protocol == 0 || selector.protocol == packet.protocol)
        && port(&selector.source_ports, packet.source_port)
        && port(&selector.destination_ports, packet.destination_port)
}

/// The policy with the smallest priority decides; without one a packet passes.
pub(super) fn verdict(state: &KernelState, direction: PolicyDirection, packet: &Packet) -> Verdict {
    let candidates = state.policies.values().filter(|policy| policy.id.direction == direction);
    let first =
        candidates.filter(|policy| matches(&policy.id.selector, packet)).min_by_key(|policy| policy.priority);
    match first.and_then(|policy| policy.action) {
        None | Some(Action::Allow | Action::Accept) => Verdict::Clear,
        Some(Action::Block) => Verdict::Drop,
        Some(Action::Seal { .. } | Action::Require) => Verdict::Esp,
    }
}

fn kernel(policies: impl IntoIterator<Item = crate::types::Policy>) -> KernelState {
    let mut state = KernelState::default();
    let desired = Desired { policies: policies.into_iter().collect(), ..Desired::default() };
    let ops: Vec<Op> = plan(&desired, &state, &mut Indexes::of(&state)).ops;
    ops.iter().for_each(|op| state.apply(op).unwrap());
    state
}

fn sealed(pair: Pair, exempt: &[&str]) -> KernelState {
    let exempt = Exemptions::of_all(exempt.iter().map(|entry| entry.parse().unwrap()));
    let exemptions = policies::exempt(pair.remote, &exempt);
    kernel(
        policies::inbound(pair, Action::Require)
            .into_iter()
            .chain([policies::outbound(pair, Action::Seal { through: Through::Sa(Spi(1)) })])
            .chain(policies::block(Block::host(beside(pair)), pair.remote))
            .chain(exemptions)
            .chain(policies::neighbour_discovery()),
    )
}

/// Another address of this host.
fn beside(pair: Pair) -> IpAddr {
    match pair.local {
        IpAddr::V4(_) => [10, 0, 0, 9].into(),
        IpAddr::V6(_) => [0xfd00, 0, 0, 0, 0, 0, 0, 9].into(),
    }
}

fn v4() -> Pair {
    Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap()
}

#[test]
fn a_sealed_pair_is_esp_and_the_guard_drops_what_is_beside_it() {
    let state = sealed(v4(), &[]);
    let out = |packet| verdict(&state, PolicyDirection::Out, &packet);
    let into = |packet| verdict(&state, PolicyDirection::In, &packet);
    assert_eq!(out(Packet::tcp(v4().local, 40_000, v4().remote, 80)), Verdict::Esp);
    assert_eq!(into(Packet::tcp(v4().remote, 40_000, v4().local, 80)), Verdict::Esp);
    let other = beside(v4());
    assert_eq!(out(Packet::tcp(other, 40_000, v4().remote, 80)), Verdict::Drop);
    assert_eq!(into(Packet::tcp(v4().remote, 40_000, other, 80)), Verdict::Drop);
    assert_eq!(out(Packet::tcp(v4().local, 40_000, other, 80)), Verdict::Clear);
    // What this host forwards, and what goes to many.
    let (pod, group) = (IpAddr::from([172, 17, 0, 2]), IpAddr::from([239, 192, 1, 1]));
    assert_eq!(out(Packet::tcp(pod, 40_000, v4().remote, 80)), Verdict::Clear);
    assert_eq!(out(Packet::tcp(v4().local, 40_000, group, 80)), Verdict::Clear);
    assert_eq!(into(Packet::tcp(v4().remote, 40_000, group, 80)), Verdict::Clear);
    assert_eq!(
        verdict(&state, PolicyDirection::Forward, &Packet::tcp(v4().remote, 9, v4().local, 80)),
        Verdict::Esp
    );
}

#[test]
fn a_guard_that_knows_no_address_blocks_all_but_what_goes_to_many() {
    let pair = v4();
    let state = kernel(policies::block_all(pair.remote));
    let (other, groups) = (beside(pair), [[239, 192, 1, 1], [224, 0, 0, 18], [255; 4]].map(IpAddr::from));
    for own in [pair.local, other] {
        let packet = Packet::tcp(own, 40_000, pair.remote, 80);
        assert_eq!(verdict(&state, PolicyDirection::Out, &packet), Verdict::Drop);
        let packet = Packet::tcp(pair.remote, 40_000, own, 80);
        assert_eq!(verdict(&state, PolicyDirection::In, &packet), Verdict::Drop);
    }
    for group in groups {
        let [from, into] = [(pair.local, PolicyDirection::Out), (pair.remote, PolicyDirection::In)]
            .map(|(from, way)| verdict(&state, way, &Packet::tcp(from, 40_000, group, 80)));
        assert_eq!((from, into), (Verdict::Clear, Verdict::Clear), "{group}");
    }
}

#[test]
fn an_exempted_port_is_clear_for_server_and_client_and_opens_nothing_else() {
    let state = sealed(v4(), &["tcp/22"]);
    let (us, them) = (v4().local, v4().remote);
    let cases = [
        (PolicyDirection::In, Packet::tcp(them, 40_000, us, 22), Verdict::Clear),
        (PolicyDirection::Out, Packet::tcp(us, 22, them, 40_000), Verdict::Clear),
        (PolicyDirection::Out, Packet::tcp(us, 40_000, them, 22), Verdict::Clear),
        (PolicyDirection::In, Packet::tcp(them, 22, us, 40_000), Verdict::Clear),
        // A peer that binds port 22 as its source reaches no service of ours in the clear.
        (PolicyDirection::In, Packet::tcp(them, 22, us, 80), Verdict::Esp),
        (PolicyDirection::In, Packet::tcp(them, 1000, us, 22), Verdict::Esp),
        (PolicyDirection::In, Packet { protocol: 17, ..Packet::tcp(them, 40_000, us, 22) }, Verdict::Esp),
    ];
    for (direction, packet, expected) in cases {
        assert_eq!(verdict(&state, direction, &packet), expected, "{direction:?} {packet:?}");
    }
}

#[test]
fn an_exemption_for_what_comes_in_is_not_sent() {
    let state = sealed(v4(), &["in:tcp/22"]);
    let (us, them) = (v4().local, v4().remote);
    let cases = [
        (PolicyDirection::In, Packet::tcp(them, 40_000, us, 22), Verdict::Clear),
        (PolicyDirection::In, Packet::tcp(them, 22, us, 40_000), Verdict::Clear),
        (PolicyDirection::Out, Packet::tcp(us, 22, them, 40_000), Verdict::Esp),
        (PolicyDirection::Out, Packet::tcp(us, 40_000, them, 22), Verdict::Esp),
    ];
    for (direction, packet, expected) in cases {
        assert_eq!(verdict(&state, direction, &packet), expected, "{direction:?} {packet:?}");
    }
}

#[test]
fn neighbour_discovery_is_clear_and_other_icmpv6_is_not() {
    let pair = Pair::new("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap()).unwrap();
    let state = sealed(pair, &[]);
    let icmp = |kind| Packet { protocol: 58, ..Packet::tcp(pair.local, kind, pair.remote, 0) };
    for (kind, expected) in
        [(135, Verdict::Clear), (136, Verdict::Clear), (128, Verdict::Esp), (137, Verdict::Esp)]
    {
        assert_eq!(verdict(&state, PolicyDirection::Out, &icmp(kind)), expected, "type {kind}");
    }
    let exempted = sealed(pair, &["icmp"]);
    assert_eq!(verdict(&exempted, PolicyDirection::Out, &icmp(128)), Verdict::Clear);
}
