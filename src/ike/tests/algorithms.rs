//! Hosts whose files list different algorithms.

use std::time::Duration;

use super::net::{Dice, Net, SECRET, pair, settings};
use crate::ike::{FailureCode, Posture, Settings, Transmit};
use crate::observe::explain;
use crate::types::{EspProposal, Group, IkeProposal, Proposals};

const SECOND: Duration = Duration::from_secs(1);
const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;
const CREATE_CHILD_SA: u8 = 36;

fn listing(ike: &str) -> Settings {
    let proposals = ike.split(", ").map(|text| text.parse::<IkeProposal>().unwrap()).collect();
    Settings { ike_proposals: Proposals::new(proposals).unwrap(), ..settings(SECRET) }
}

fn children_of(esp: &str) -> Settings {
    let proposals = vec![esp.parse::<EspProposal>().unwrap()];
    Settings { esp_proposals: Proposals::new(proposals).unwrap(), ..settings(SECRET) }
}

fn exchanges(net: &Net) -> Vec<u8> {
    net.sent.iter().map(|transmit| transmit.bytes[18]).collect()
}

/// The public value that an IKE_SA_INIT request in the clear brings is of that group.
fn group_of(transmit: &Transmit) -> u16 {
    let message = crate::ike::wire::Message::parse(&transmit.bytes).unwrap();
    crate::ike::wire::Parts(&message.payloads).ke().unwrap().group
}

#[test]
fn every_suite_makes_and_rekeys_a_child() {
    for (seed, suite) in [
        "aes256gcm16-prfsha384-x25519",
        "aes128gcm16-prfsha256-ecp256",
        "aes256-sha256-ecp384",
        "aes256-sha384-x25519",
        "aes128gcm16-prfsha512-ecp384",
    ]
    .into_iter()
    .enumerate()
    {
        let mut net = Net::new(60 + seed as u64, [listing(suite), listing(suite)]);
        net.keep(0, 1);
        net.run(SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!(exchanges(&net)[..4], [IKE_SA_INIT, IKE_SA_INIT, IKE_AUTH, IKE_AUTH], "{suite}");
        for host in [0, 1] {
            net.call(host, |engine, now| engine.rekey_ike(now, pair(host, 1 - host)));
            net.run(SECOND);
            let old = net.child_of(host);
            net.call(host, |engine, now| engine.rekey_child(now, pair(host, 1 - host), old));
            net.run(2 * SECOND);
            net.assert_one_pair(0, 1);
            assert_ne!(net.child_of(host), old, "{suite}");
        }
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "{suite}");
    }
}

#[test]
fn every_suite_of_children_is_agreed() {
    for (esp, agreed) in [
        ("aes256gcm16-esn", (256, true)),
        ("aes128gcm16-noesn", (128, false)),
        ("aes128gcm16-aes256gcm16", (128, true)),
    ] {
        let mut net = Net::new(61, [children_of(esp), children_of(esp)]);
        net.keep(0, 1);
        net.run(SECOND);
        net.assert_one_pair(0, 1);
        let suite = net.hosts[0].children[&net.child_of(0)].child.suite;
        assert_eq!((suite.key_bits, suite.esn), agreed, "{esp}");
    }
}

/// ```text
/// a  --- IKE_SA_INIT, KE of x25519 ------------->  b   likes ecp384 best
/// a  <-- IKE_SA_INIT, N(INVALID_KE_PAYLOAD) -----  b   remembers nothing
/// a  --- IKE_SA_INIT, KE of ecp384 ------------->  b
/// a  <-- IKE_SA_INIT ---------------------------  b
/// a  --- IKE_AUTH ------------------------------>  b
/// a  <-- IKE_AUTH ------------------------------  b
/// ```
#[test]
fn who_answers_has_its_group() {
    let [a, b] = ["aes256gcm16-prfsha384-x25519-ecp384", "aes256gcm16-prfsha384-ecp384-x25519"];
    let mut net = Net::new(62, [listing(a), listing(b)]);
    net.keep(0, 1);
    net.run(Duration::from_millis(20));
    net.assert_one_pair(0, 1);
    let exchanges = exchanges(&net);
    assert_eq!(exchanges[..4], [IKE_SA_INIT; 4]);
    assert_eq!(exchanges[4..6], [IKE_AUTH, IKE_AUTH]);
    assert_eq!([group_of(&net.sent[0]), group_of(&net.sent[2])], [31, 20]);
    let [first, second] = [&net.sent[0].bytes, &net.sent[2].bytes];
    assert_eq!(first[..16], second[..16], "it has the same index");
    let offers = |bytes: &[u8]| {
        let message = crate::ike::wire::Message::parse(bytes).unwrap();
        let parts = crate::ike::wire::Parts(&message.payloads);
        (parts.sa().unwrap().to_vec(), parts.nonce().unwrap().to_vec())
    };
    assert_eq!(offers(first), offers(second), "and offers all that it did");
    assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
}

/// The same on an IKE SA: the other end, whose order is another, rekeys it.
#[test]
fn a_rekey_of_the_ike_sa_changes_its_group_once() {
    let [a, b] = ["aes256gcm16-prfsha384-x25519-ecp384", "aes256gcm16-prfsha384-ecp384-x25519"];
    let mut net = Net::new(63, [listing(a), listing(b)]);
    net.keep(0, 1);
    net.run(SECOND);
    net.sent.clear();
    net.call(1, |engine, now| engine.rekey_ike(now, pair(1, 0)));
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    let create = exchanges(&net).iter().filter(|exchange| **exchange == CREATE_CHILD_SA).count();
    assert_eq!(create, 4, "it is refused once, and no time is lost");
}

#[test]
fn nothing_in_common_is_said_at_both_ends() {
    let mut net =
        Net::new(64, [listing("aes256gcm16-prfsha384-x25519"), listing("aes128gcm16-prfsha256-ecp256")]);
    net.keep(0, 1);
    net.run(10 * SECOND);
    for host in &net.hosts {
        assert_eq!(host.failures[0], FailureCode::NoProposal);
        assert!(host.children.is_empty());
        assert_eq!(host.engine.counters().half_open, 0);
    }
}

/// What the first version of hostseal spoke, beside everything of this one, in both roles.
#[test]
fn the_first_version_is_a_member() {
    for old in [0, 1] {
        let mut all = [settings(SECRET), settings(SECRET)];
        all[old] = listing("aes256gcm16-prfsha384-x25519");
        let mut net = Net::new(65, all);
        net.keep(0, 1);
        net.run(Duration::from_millis(20));
        net.assert_one_pair(0, 1);
        assert_eq!(exchanges(&net)[..4], [IKE_SA_INIT, IKE_SA_INIT, IKE_AUTH, IKE_AUTH]);
        for host in [0, 1] {
            net.call(host, |engine, now| engine.rekey_ike(now, pair(host, 1 - host)));
            net.run(SECOND);
            net.assert_one_pair(0, 1);
        }
    }
}

/// An INVALID_KE_PAYLOAD for the request that was sent last, which nobody has proven.
fn invalid_ke(request: &Transmit, group: Group) -> Transmit {
    let mut bytes = request.bytes[..28].to_vec();
    bytes[16] = 41;
    bytes[19] = 0x20;
    bytes.extend([0, 0, 0, 10, 0, 0, 0, 17]);
    bytes.extend(group.id().to_be_bytes());
    bytes[24..28].copy_from_slice(&38u32.to_be_bytes());
    Transmit { local: request.remote, remote: request.local, bytes }
}

/// Somebody on the path would have the ends use another group, and is faster than the peer.
#[test]
fn a_forged_wish_for_a_group_changes_nothing() {
    let mut net = Net::two(66);
    let now = net.now;
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.hosts[1].engine.keep(now, pair(1, 0), Posture::Passive);
    net.run(Duration::ZERO);
    let first = net.sent[0].clone();
    net.inject(&invalid_ke(&first, Group::EcpP256));
    assert_eq!(net.sent.len(), 2);
    assert_eq!(group_of(&net.sent[1]), 19);
    for group in [Group::EcpP384, Group::X25519, Group::EcpP256].repeat(3) {
        net.inject(&invalid_ke(&first, group));
    }
    assert_eq!(net.sent.len(), 2, "it is obeyed once");
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    let summary = net.hosts[0].engine.summary(pair(0, 1)).unwrap();
    assert_eq!((summary.last_failure, net.hosts[1].failures.len()), (None, 0));
}

#[test]
fn a_wish_for_a_group_that_is_not_ours_is_not_obeyed() {
    let mut net = Net::new(67, [listing("aes256gcm16-prfsha384-x25519"), settings(SECRET)]);
    let now = net.now;
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.run(Duration::ZERO);
    let first = net.sent[0].clone();
    net.inject(&invalid_ke(&first, Group::EcpP256));
    assert_eq!(net.sent.len(), 1);
}

/// ```text
/// initiator                                        responder
///   HDR, SAi1, KEi, Ni                       -->   many are half open
///                                            <--   N(COOKIE)
///   HDR, N(COOKIE), SAi1, KEi, Ni            -->
///                                            <--   N(INVALID_KE_PAYLOAD)
///   HDR, N(COOKIE), SAi1, KEi', Ni           -->   the cookie still counts (RFC 7296 section 2.6.1)
///                                            <--   HDR, SAr1, KEr, Nr
/// ```
#[test]
fn a_cookie_stays_with_another_group() {
    let [a, b] = ["aes256gcm16-prfsha384-x25519-ecp384", "aes256gcm16-prfsha384-ecp384-x25519"];
    let mut net = Net::new(68, [listing(a), listing(b)]);
    let now = net.now;
    net.hosts[1].engine.keep(now, pair(1, 0), Posture::Passive);
    net.cut = Box::new(|_| true);
    // Four forged openings with the right group.
    let mut forger = Net::new(69, [listing(b), listing(b)]);
    forger.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    forger.run(Duration::ZERO);
    let mut forged = forger.sent[0].clone();
    let mut dice = Dice(70);
    for _ in 0..4 {
        forged.bytes[..8].copy_from_slice(&dice.roll().to_be_bytes());
        net.inject(&forged);
    }
    assert_eq!(net.hosts[1].engine.counters().half_open, 4);
    net.cut = Box::new(|_| false);
    net.sent.clear();
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.run(Duration::from_millis(20));
    assert_eq!(exchanges(&net)[..7], [34, 34, 34, 34, 34, 34, 35]);
    assert_eq!(net.hosts[1].engine.counters().cookies, 1);
    assert_eq!([0, 2, 4].map(|at| group_of(&net.sent[at])), [31, 31, 20]);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
}

/// Why the last attempt of a host failed, in words.
fn words(net: &Net, host: usize) -> String {
    let summary = net.hosts[host].engine.summary(pair(host, 1 - host)).unwrap();
    summary.last_failure.map(|failure| explain::words(&failure.reason)).unwrap_or_default()
}

/// Who is asked knows what the other offers and says so, but not for each of many requests, which anybody can send.
#[test]
fn an_offer_that_has_nothing_in_common_is_told() {
    let mut net = Net::new(71, [listing("aes256gcm16-prfsha384-x25519"), listing("aes256-sha256-ecp384")]);
    let now = net.now;
    net.hosts[1].engine.keep(now, pair(1, 0), Posture::Passive);
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.run(SECOND);
    assert_eq!(
        words(&net, 1),
        "no algorithms in common for IKE: the peer offers aes256gcm16-prfsha384-x25519, and this host takes \
         aes256-sha256-prfsha256-ecp384"
    );
    net.run(8 * SECOND);
    assert!(
        words(&net, 0).contains("refused our proposals") && words(&net, 0).contains("NO_PROPOSAL_CHOSEN")
    );
    assert!(exchanges(&net).len() > 4);
    assert_eq!(net.hosts[1].failures, [FailureCode::NoProposal]);
    // Of a peer that is proven the same is told of its children.
    let mut net = Net::new(72, [children_of("aes128gcm16"), children_of("aes256gcm16-esn")]);
    net.keep(0, 1);
    net.run(SECOND);
    let told = |it: &&String| it.contains("for ESP: the peer offers aes128gcm16-esn-noesn");
    assert_eq!(net.hosts[1].log.iter().filter(told).count(), 1, "{:?}", net.hosts[1].log);
}

#[test]
fn who_does_not_answer_is_named_with_port_and_time() {
    let mut net = Net::new(73, [settings(SECRET), settings(SECRET)]);
    let now = net.now;
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.run(20 * SECOND);
    assert!(words(&net, 0).starts_with("no answer from 10.0.0.2 on UDP 500: "), "{}", words(&net, 0));
    assert!(!words(&net, 0).contains("for 0 s"), "{}", words(&net, 0));
}
