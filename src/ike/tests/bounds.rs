//! What others can make an end hold has bounds, and who means well gets in all the same.

use std::time::Duration;

use super::abuse::{has_cookie, with_cookie};
use super::net::{Dice, Net, SECRET, by, by_each_method, pair, settings};
use crate::ike::{Engine, Posture, Settings, Transmit};
use crate::types::Method;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// Handshakes of somebody who sees what is sent to the peer's address, and so returns cookies.
const HANDSHAKES: u64 = 2_000;
/// Sessions of one pair whose initiator has not proven itself.
const UNPROVEN: u64 = 16;

/// One handshake with host 0 in the name of host 1, up to the refusal of its IKE_AUTH, or up to the answer before.
pub(super) fn shake(net: &mut Net, method: Method, seed: u64, goes_on: bool) {
    let secret = if method == Method::Ike { [66; 32] } else { SECRET };
    let mut initiator = Engine::new(by(method, secret), Box::new(Dice(seed)));
    initiator.keep(net.now, pair(1, 0), Posture::Active);
    // It would leave the beginning to the other end for a while.
    initiator.handle_timeout(net.now + 2 * SECOND);
    while let Some(Transmit { local, remote, mut bytes }) = initiator.poll_transmit() {
        if bytes[18] == 35 && !goes_on {
            break;
        }
        if bytes[18] == 35 && method == Method::Derived {
            // It has no proof: what it sends is not authentic.
            bytes[60] ^= 1;
        }
        let victim = &mut net.hosts[0].engine;
        victim.handle_datagram(net.now, remote, local, &bytes);
        while let Some(answer) = victim.poll_transmit() {
            initiator.handle_datagram(net.now, answer.remote, answer.local, &answer.bytes);
        }
        while initiator.poll_event().is_some() {}
    }
    net.drain();
    net.sent.clear();
}

/// Whoever refuses them keeps little of them, and a protected pair shows nothing of it.
fn refused_handshakes_fill_nothing_and_show_nothing(method: Method) {
    let mut net = Net::two_by(method, 90);
    net.keep(0, 1);
    net.run(SECOND);
    let (before, log) = (net.hosts[0].engine.summary(pair(0, 1)), net.hosts[0].log.len());
    for seed in 0..HANDSHAKES {
        shake(&mut net, method, 1_000 + seed, true);
        let counters = net.hosts[0].engine.counters();
        assert!(counters.half_open <= UNPROVEN && counters.sessions <= UNPROVEN + 1, "{counters:?}");
        if seed % 100 == 0 {
            net.run(MILLISECOND);
        }
    }
    let counters = net.hosts[0].engine.counters();
    assert!(counters.cookies > HANDSHAKES / 2 && counters.half_open_dropped > HANDSHAKES / 2, "{counters:?}");
    assert_eq!(net.hosts[0].engine.summary(pair(0, 1)), before, "nothing that nobody has proven is shown");
    assert!(net.hosts[0].failures.is_empty() && net.hosts[0].log.len() == log);
    net.run(20 * SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!(net.hosts[0].engine.counters().half_open, 0, "all of it is forgotten");
}

/// Where the data of the payload of type `kind` begin in a message in the clear, behind what stands in front of them.
fn data_of(bytes: &[u8], kind: u8, head: usize) -> std::ops::Range<usize> {
    let (mut next, mut at) = (bytes[16], 28);
    loop {
        let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if next == kind {
            return at + 4 + head..at + length;
        }
        (next, at) = (bytes[at], at + length);
    }
}

/// A public value that is none makes an end compute, and nothing is kept of it: its sender must show, too, that it
/// receives at its address. Nothing is computed for whoever forges that.
#[test]
fn who_brings_no_valid_public_value_must_show_its_address() {
    let mut net = Net::two(92);
    net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Passive);
    let mut initiator = Engine::new(settings(SECRET), Box::new(Dice(93)));
    initiator.keep(net.now, pair(1, 0), Posture::Active);
    initiator.handle_timeout(net.now + 2 * SECOND);
    let mut request = initiator.poll_transmit().unwrap();
    let ke = data_of(&request.bytes, 34, 4);
    request.bytes[ke].fill(0);
    for count in 0..HANDSHAKES {
        request.bytes[..8].copy_from_slice(&(count + 1).to_be_bytes());
        net.inject(&request);
        net.run(MILLISECOND);
        net.sent.clear();
    }
    let counters = net.hosts[0].engine.counters();
    assert!(counters.cookies > HANDSHAKES * 9 / 10, "{counters:?}");
    assert_eq!(counters.sessions, 0);
    net.keep(0, 1);
    assert!(net.run_until(3 * SECOND, |net| net.is_one_pair(0, 1)), "who means well gets in");
    net.run(20 * SECOND);
    let before = net.hosts[0].engine.counters().cookies;
    request.bytes[7] ^= 1;
    net.inject(&request);
    assert_eq!(net.hosts[0].engine.counters().cookies, before, "it is forgotten");
}

/// In a flood a host does not answer what its sender has sent again by now; who returns a cookie is let in, however long
/// that has waited.
#[test]
fn old_first_requests_are_not_worth_a_cookie() {
    let mut net = Net::two(94);
    net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Passive);
    let mut initiator = Engine::new(settings(SECRET), Box::new(Dice(95)));
    initiator.keep(net.now, pair(1, 0), Posture::Active);
    initiator.handle_timeout(net.now + 2 * SECOND);
    let mut request = initiator.poll_transmit().unwrap().bytes;
    let (victim, now) = (&mut net.hosts[0].engine, net.now);
    let (local, remote) = (pair(0, 1).local, pair(0, 1).remote);
    let mut ask = |request: &[u8], waited: Duration| {
        victim.note_waited(waited);
        victim.handle_datagram(now, (local, 500).into(), (remote, 500).into(), request);
        (victim.poll_transmit().map(|it| it.bytes), victim.counters())
    };
    let mut answers = Vec::new();
    for count in 0..HANDSHAKES {
        request[..8].copy_from_slice(&(count + 1).to_be_bytes());
        answers.extend(ask(&request, Duration::ZERO).0);
    }
    let cookie = answers.last().unwrap();
    assert!(has_cookie(cookie));
    let (answer, counters) = ask(&with_cookie(&request, cookie), 5 * SECOND);
    assert!(answer.is_some_and(|answer| !has_cookie(&answer)) && counters.first_requests_late == 0);
    // A few are: this host may be late for another reason.
    let (mut answered, mut late) = (0, counters);
    for count in 0..100 {
        request[..8].copy_from_slice(&(HANDSHAKES + count + 2).to_be_bytes());
        let (answer, after) = ask(&request, SECOND / 2);
        answered += u64::from(answer.is_some());
        late = after;
    }
    assert_eq!((answered, late.first_requests_late, late.cookies - counters.cookies), (32, 68, 32));
    request[7] ^= 0x80;
    let (answer, _) = ask(&request, SECOND / 4);
    assert!(answer.is_some_and(|answer| has_cookie(&answer)));
}

/// Hundreds in a second, from the peer's own address, refused or left half open, while the peer begins.
fn the_peer_gets_in_through_handshakes_in_its_name(method: Method) {
    for goes_on in [false, true] {
        let mut net = Net::two_by(method, 91);
        net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Passive);
        for seed in 0..200 {
            shake(&mut net, method, 5_000 + seed, goes_on);
        }
        net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Active);
        let mut seed = 10_000;
        let mut rounds = 0;
        while !net.is_one_pair(0, 1) {
            shake(&mut net, method, seed, goes_on);
            seed += 1;
            net.run(3 * MILLISECOND);
            rounds += 1;
            assert!(rounds < 1_000, "goes on: {goes_on}");
        }
        let counters = net.hosts[0].engine.counters();
        assert!(counters.half_open <= UNPROVEN, "{counters:?}");
        // What is left of the requests goes.
        net.run(30 * SECOND);
        net.assert_one_pair(0, 1);
    }
}

/// A member asks for one successor of its IKE SA after another, and deletes none.
#[test]
fn ike_sas_do_not_pile_up() {
    let mut net = Net::two(92);
    net.keep(0, 1);
    net.run(SECOND);
    // Deletes, and whatever else it has to say.
    net.cut = Box::new(|transmit| transmit.bytes[18] == 37 && transmit.local == Net::socket(1));
    let mut most = 0;
    for _ in 0..100 {
        net.call(1, |engine, now| engine.rekey_ike(now, pair(1, 0)));
        net.run(100 * MILLISECOND);
        most = most.max(net.hosts[0].engine.counters().ike_sas);
    }
    let counters = net.hosts[0].engine.counters();
    assert!(most <= 8 && counters.ike_sas_refused > 10, "{most}, {counters:?}");
    net.cut = Box::new(|_| false);
    net.run(120 * SECOND);
    net.assert_one_pair(0, 1);
}

/// One that does it by the rules, as fast as it can, is served.
#[test]
fn rekeys_by_the_rules_are_not_refused() {
    let mut net = Net::two(93);
    net.keep(0, 1);
    net.run(SECOND);
    for round in 0..100 {
        let host = round % 2;
        net.call(host, |engine, now| engine.rekey_ike(now, pair(host, 1 - host)));
        net.run(200 * MILLISECOND);
        assert!(net.hosts.iter().all(|host| host.engine.counters().ike_sas <= 8));
    }
    net.run(60 * SECOND);
    net.assert_one_pair(0, 1);
    assert!(net.hosts.iter().all(|host| host.engine.counters().ike_sas_refused == 0));
}

/// Fragments of messages that never come as a whole, of half-open sessions.
#[test]
fn fragments_of_unproven_parties_are_bounded() {
    let hybrid = || Settings { ike_proposals: crate::types::Proposals::default(), ..settings(SECRET) };
    let mut net = Net::new(94, [hybrid(), hybrid()]);
    net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
    net.hosts.iter_mut().for_each(|host| host.engine.packet_max = 600);
    // The last fragment of each message is lost.
    net.cut = Box::new(|transmit| {
        let (number, total) = (&transmit.bytes[32..34], &transmit.bytes[34..36]);
        transmit.bytes[16] == 53 && number == total
    });
    for _ in 0..40 {
        net.hosts[0].engine.forget(net.now, pair(0, 1));
        net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
        net.run(100 * MILLISECOND);
        assert!(net.hosts[1].engine.counters().fragment_octets <= 64 << 10);
    }
    assert!(net.hosts[1].engine.counters().fragment_octets > 0, "some are held");
    net.hosts[0].engine.forget(net.now, pair(0, 1));
    net.run(20 * SECOND);
    assert_eq!(net.hosts[1].engine.counters().fragment_octets, 0);
}

by_each_method![
    refused_handshakes_fill_nothing_and_show_nothing,
    the_peer_gets_in_through_handshakes_in_its_name,
];
