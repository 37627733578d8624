//! Address translation between the ends, and ESP in UDP without one (RFC 7296 section 2.23).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::net::{Net, SECRET, address, assert_mirrored, by, pair, settings};
use crate::ike::crypto::suite::OwnKe;
use crate::ike::path::Path;
use crate::ike::session::child::accept;
use crate::ike::session::nat::Nat;
use crate::ike::wire::codes::notify;
use crate::ike::wire::{Parts, Payload, TrafficSelector};
use crate::ike::{FailureCode, Posture, Purpose, Settings, Transmit};
use crate::types::{EncapsulationMode, Inside, Method, Pair, Proposals, UdpPorts};

const SECOND: Duration = Duration::from_secs(1);
const BOTH: Option<UdpPorts> = Some(UdpPorts { local: 4500, remote: 4500 });

fn mode(encapsulation: EncapsulationMode) -> Settings {
    Settings { encapsulation, ..settings(SECRET) }
}

fn two(a: Settings, b: Settings) -> Net {
    Net::new(900, [a, b])
}

/// The ports of the only child of a host.
fn ports(net: &Net, host: usize) -> Option<UdpPorts> {
    net.hosts[host].children[&net.child_of(host)].child.encapsulation
}

fn is_init(transmit: &Transmit) -> bool {
    transmit.local.port() == 500 && transmit.bytes[18] == 34
}

/// A middlebox in front of host 0 that gives it `offset` higher ports.
fn translate(net: &mut Net, offset: u16) {
    let inside = Net::socket(0).ip();
    net.middlebox = Box::new(move |mut transmit| {
        if transmit.local.ip() == inside {
            transmit.local.set_port(transmit.local.port() + offset);
        } else if transmit.remote.ip() == inside && transmit.remote.port() > offset {
            transmit.remote.set_port(transmit.remote.port() - offset);
        }
        transmit
    });
}

#[test]
fn without_a_nat_all_stays_on_the_port_of_ike() {
    let mut net = Net::two(901);
    net.keep(0, 1);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!((ports(&net, 0), ports(&net, 1)), (None, None));
    assert!(net.sent.iter().all(|it| (it.local.port(), it.remote.port()) == (500, 500)));
    assert_eq!(net.hosts[0].engine.poll_timeout().map(|(_, why)| why), Some("rekey of a child"));
}

/// ```text
/// a:500   --- IKE_SA_INIT --------->  b:500
/// a:500   <-- IKE_SA_INIT ----------  b:500
/// a:4500  --- 0000, IKE_AUTH ------>  b:4500
/// a:4500  <-- 0000, IKE_AUTH -------  b:4500
/// ```
#[test]
fn either_end_can_have_esp_go_in_udp() {
    for (wanting, hybrid) in [(0, false), (1, false), (0, true)] {
        let both = || match hybrid {
            true => Settings { ike_proposals: Proposals::default(), ..settings(SECRET) },
            false => settings(SECRET),
        };
        let with = |host| match host == wanting {
            true => Settings { encapsulation: EncapsulationMode::Always, ..both() },
            false => both(),
        };
        let mut net = two(with(0), with(1));
        net.keep(0, 1);
        net.run(SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!((ports(&net, 0), ports(&net, 1)), (BOTH, BOTH));
        let (init, rest): (Vec<&Transmit>, Vec<&Transmit>) = net.sent.iter().partition(|it| is_init(it));
        assert_eq!(init.len(), 2);
        assert!(rest.iter().all(|it| (it.local.port(), it.remote.port()) == (4500, 4500)));
        assert!(rest.iter().all(|it| it.bytes.starts_with(&[0; 4]) && it.bytes.len() > 32));
        assert_eq!(net.hosts[1].engine.counters().unexpected, 0);
        let child = net.child_of(0);
        net.call(0, |engine, now| engine.rekey_child(now, pair(0, 1), child));
        net.call(1, |engine, now| engine.rekey_ike(now, pair(1, 0)));
        net.run(5 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!((ports(&net, 0), ports(&net, 1)), (BOTH, BOTH), "successors too");
    }
}

#[test]
fn a_nat_is_found_and_reminded() {
    for initiating in [0, 1] {
        let mut net = Net::two(902);
        translate(&mut net, 10_000);
        if initiating == 0 {
            net.keep(0, 1);
        } else {
            // It cannot be reached at first: what it sends makes a mapping.
            let now = net.now;
            net.hosts[1].engine.keep(now, pair(1, 0), Posture::Active);
            net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
        }
        net.run(5 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!(ports(&net, 0), BOTH);
        assert_eq!(ports(&net, 1), Some(UdpPorts { local: 4500, remote: 14_500 }));
        net.sent.clear();
        net.run(70 * SECOND);
        let reminders: Vec<_> = net.sent.iter().filter(|it| it.bytes == [0xff]).collect();
        assert_eq!(reminders.len(), 3, "each 20 s");
        assert!(reminders.iter().all(|it| it.local.ip() == Net::socket(0).ip() && it.local.port() == 4500));
        let refused = net.hosts[1].engine.counters();
        assert_eq!((refused.malformed, refused.unexpected), (0, 0));
    }
}

/// The NAT forgets and gives another port: the next authentic message tells it.
#[test]
fn a_peer_is_followed_to_another_port() {
    let mut net = Net::two(903);
    translate(&mut net, 10_000);
    net.keep(0, 1);
    net.run(SECOND);
    let old = net.child_of(1);
    translate(&mut net, 20_000);
    net.call(0, |engine, now| engine.check_liveness(now, pair(0, 1)));
    net.run(5 * SECOND);
    net.assert_one_pair(0, 1);
    assert_ne!(net.child_of(1), old);
    assert_eq!(ports(&net, 1), Some(UdpPorts { local: 4500, remote: 24_500 }));
}

/// The same where ESP tells it, which the kernel has found authentic: nobody waits for IKE to say something.
#[test]
fn esp_from_another_port_is_followed() {
    let mut net = Net::two(907);
    translate(&mut net, 10_000);
    net.keep(0, 1);
    net.run(SECOND);
    let old = net.child_of(1);
    translate(&mut net, 20_000);
    for _ in 0..3 {
        net.call(1, |engine, now| engine.peer_moved(now, pair(1, 0), old, 24_500));
    }
    net.run(5 * SECOND);
    net.assert_one_pair(0, 1);
    let moved = net.child_of(1);
    assert_ne!(moved, old);
    assert_eq!(ports(&net, 1), Some(UdpPorts { local: 4500, remote: 24_500 }));
    // The peer has no NAT before it: nothing moves it.
    let child = net.child_of(0);
    net.call(0, |engine, now| engine.peer_moved(now, pair(0, 1), child, 666));
    // What still comes through an earlier SA says nothing new.
    net.call(1, |engine, now| engine.peer_moved(now, pair(1, 0), moved, 24_500));
    net.run(5 * SECOND);
    assert_eq!((net.child_of(0), net.child_of(1)), (child, moved));
}

/// Somebody sends what host 0 has sent once more, from its own port, and changes it.
#[test]
fn only_what_is_new_and_authentic_moves_a_peer() {
    let mut net = Net::two(904);
    translate(&mut net, 10_000);
    net.keep(0, 1);
    net.run(SECOND);
    let recorded: Vec<Transmit> =
        net.sent.iter().filter(|it| it.remote == socket(1, 4500)).cloned().collect();
    assert!(!recorded.is_empty());
    for mut transmit in recorded {
        transmit.local.set_port(6666);
        net.inject(&transmit);
        *transmit.bytes.last_mut().unwrap() ^= 1;
        net.inject(&transmit);
    }
    net.sent.clear();
    net.call(1, |engine, now| engine.check_liveness(now, pair(1, 0)));
    assert!(net.sent.iter().all(|it| it.remote.port() == 14_500));
    net.run(SECOND);
    assert_eq!(ports(&net, 1), Some(UdpPorts { local: 4500, remote: 14_500 }));
}

fn socket(host: usize, port: u16) -> SocketAddr {
    (Net::socket(host).ip(), port).into()
}

/// ESP by itself does not get through, as either end or both find out: a second IKE SA takes over.
#[test]
fn where_esp_is_blocked_it_moves_to_udp_beside_what_there_is() {
    for finding in [vec![0], vec![1], vec![0, 1]] {
        let mut net = Net::two(905);
        net.keep(0, 1);
        net.run(SECOND);
        for host in &finding {
            let tried = net.hosts[*host].engine.encapsulate(net.now, pair(*host, 1 - host));
            assert!(tried);
        }
        net.drain();
        assert!(net.hosts.iter().all(|host| host.children.len() == 1), "what there is serves");
        net.run(5 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!((ports(&net, 0), ports(&net, 1)), (BOTH, BOTH), "found by {finding:?}");
        let sent = net.sent.len();
        net.run(15 * SECOND);
        assert_eq!(net.sent.len(), sent, "it is settled");
        // A peer that restarts knows nothing of it, and need not find out again.
        net.restart(1 - finding[0], settings(SECRET));
        net.keep(finding[0], 1 - finding[0]);
        net.run(30 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!((ports(&net, 0), ports(&net, 1)), (BOTH, BOTH));
    }
}

#[test]
fn a_peer_that_takes_no_esp_in_udp_is_left_as_it_is() {
    let mut net = two(settings(SECRET), mode(EncapsulationMode::Never));
    net.keep(0, 1);
    net.run(SECOND);
    let child = net.child_of(0);
    assert!(!net.hosts[1].engine.encapsulate(net.now, pair(1, 0)));
    assert!(net.hosts[0].engine.encapsulate(net.now, pair(0, 1)));
    net.run(60 * SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!((ports(&net, 0), net.child_of(0)), (None, child));
    let (sent, failures) = (net.sent.len(), net.hosts[0].failures.len());
    net.run(600 * SECOND);
    assert_eq!((net.sent.len(), failures), (sent, 0), "it is not asked for ever");
}

#[test]
fn always_and_never_have_nothing_in_common() {
    for wanting in [0, 1] {
        let modes = [EncapsulationMode::Always, EncapsulationMode::Never];
        let mut net = two(mode(modes[wanting]), mode(modes[1 - wanting]));
        net.keep(0, 1);
        net.run(20 * SECOND);
        assert!(net.hosts.iter().all(|host| host.children.is_empty()));
        assert!(net.hosts[0].failures.contains(&FailureCode::NoProposal), "host {wanting} wants it");
    }
}

/// Files change on one host after the other; what there is serves until a new IKE SA has taken over.
#[test]
fn other_settings_are_followed() {
    let mut net = Net::two(906);
    net.keep(0, 1);
    net.run(SECOND);
    let steps = [
        (0, EncapsulationMode::Always, BOTH),
        (1, EncapsulationMode::Always, BOTH),
        (0, EncapsulationMode::Auto, BOTH),
        (1, EncapsulationMode::Auto, BOTH),
        (1, EncapsulationMode::Never, None),
        (0, EncapsulationMode::Never, None),
        (0, EncapsulationMode::Auto, None),
        (1, EncapsulationMode::Auto, None),
    ];
    for (host, encapsulation, expected) in steps {
        net.call(host, |engine, now| engine.reconfigure(now, mode(encapsulation)));
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!((ports(&net, 0), ports(&net, 1)), (expected, expected), "{host} {encapsulation}");
    }
    assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
}

/// The address that a host has itself, behind a NAT that others send to by [`super::net::address`]: in the other order
/// than those.
fn inside(host: usize) -> IpAddr {
    IpAddr::from([192, 168, 7, 99 - host as u8])
}

/// Two hosts, those `behind` NATs that give them other addresses, and `offset` higher ports.
fn behind(behind: &'static [usize], offset: u16, of: impl Fn() -> Settings) -> Net {
    let settings = |host| match behind.contains(&host) {
        true => Settings { inside: Inside::new([(address(host), inside(host))].into()), ..of() },
        false => of(),
    };
    let mut net = two(settings(0), settings(1));
    behind.iter().for_each(|host| net.hosts[*host].address = inside(*host));
    net.middlebox = Box::new(move |mut transmit| {
        for host in behind {
            if transmit.local.ip() == inside(*host) {
                transmit.local = SocketAddr::new(address(*host), transmit.local.port() + offset);
            }
            if transmit.remote.ip() == address(*host) {
                let port = transmit.remote.port();
                transmit.remote = SocketAddr::new(inside(*host), port.checked_sub(offset).unwrap_or(port));
            }
        }
        transmit
    });
    net
}

/// The pair as the host itself has it.
fn own_pair(net: &Net, host: usize) -> Pair {
    Pair { local: net.hosts[host].address, remote: address(1 - host) }
}

fn keep_behind(net: &mut Net) {
    for host in 0..2 {
        let pair = own_pair(net, host);
        net.call(host, |engine, now| engine.keep(now, pair, Posture::Active));
    }
}

/// Identities and who begins go by listed addresses, the kernel by those that hosts have.
#[test]
fn a_nat_may_change_addresses() {
    const BEHIND: [&[usize]; 3] = [&[0], &[1], &[0, 1]];
    for (translated, offset) in BEHIND.into_iter().flat_map(|them| [(them, 0), (them, 10_000)]) {
        for method in Method::ALL {
            let mut net = behind(translated, offset, || by(method, SECRET));
            keep_behind(&mut net);
            net.run(10 * SECOND);
            for round in 0..4 {
                let children = [0, 1].map(|host| net.child_of(host));
                let [a, b] = [0, 1].map(|host| &net.hosts[host].children[&children[host]].child);
                assert_mirrored(a, b);
                assert_eq!((a.pair, b.pair), (own_pair(&net, 0), own_pair(&net, 1)));
                assert_eq!(a.initiator, round != 1, "{translated:?} {offset} {method}");
                for host in 0..2 {
                    let shift = if translated.contains(&(1 - host)) { offset } else { 0 };
                    let expected = UdpPorts { local: 4500, remote: 4500 + shift };
                    assert_eq!(ports(&net, host), Some(expected), "{translated:?} {offset} {method}");
                    let summary = net.hosts[host].engine.summary(own_pair(&net, host)).unwrap();
                    assert_eq!((summary.sessions, summary.children), (1, 1));
                }
                let host = usize::from(round == 0);
                let pair = own_pair(&net, host);
                net.call(host, |engine, now| match round {
                    0 | 1 => engine.rekey_child(now, pair, children[host]),
                    _ => engine.rekey_ike(now, pair),
                });
                net.run(10 * SECOND);
            }
            assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "{translated:?} {method}");
        }
    }
}

/// Unless the file says so its identity is an address that the peer does not know, and it is nobody.
#[test]
fn a_translated_address_that_the_file_does_not_tell_is_refused() {
    for method in Method::ALL {
        let mut net = behind(&[0], 0, || by(method, SECRET));
        net.restart(0, by(method, SECRET));
        net.hosts[0].address = inside(0);
        keep_behind(&mut net);
        net.run(20 * SECOND);
        assert!(net.hosts.iter().all(|host| host.children.is_empty()), "{method}");
        assert!(net.hosts[0].failures.contains(&FailureCode::AuthFailed), "{:?}", net.hosts[0].failures);
    }
}

/// RFC 7296 section 2.23.1: behind a NAT the ends call the hosts otherwise, and each is told its own words.
#[test]
fn selectors_behind_a_nat_are_given_back_as_they_came() {
    let inner = TrafficSelector::host("192.168.7.7".parse().unwrap());
    let wide = TrafficSelector { addresses: ("192.168.7.0".parse().unwrap(), inner.addresses.0), ..inner };
    let own = TrafficSelector::host(pair(1, 0).local);
    let request = |ts: TrafficSelector| {
        [
            Payload::Sa(crate::ike::crypto::suite::esp_offer(
                &Proposals::default(),
                crate::types::Spi(0xc000_0001),
            )),
            Payload::notify(notify::USE_TRANSPORT_MODE, Vec::new()),
            Payload::TsI(vec![ts]),
            Payload::TsR(vec![own]),
        ]
    };
    let answer = |nat, ts| {
        let (pair, purpose) = (pair(1, 0), Purpose::Data);
        let path = Path { pair, purpose, local: socket(1, 4500), remote: socket(0, 4500), nat };
        accept(&path, &Proposals::default(), &Parts(&request(ts)), OwnKe::Never).ok().map(|(_, both)| both)
    };
    let nat = Nat { there: true, here: false };
    assert_eq!(answer(nat, inner), Some([inner, own]));
    assert_eq!(answer(nat, wide), None, "exactly one address");
    assert_eq!(answer(Nat::default(), inner), None);
}
