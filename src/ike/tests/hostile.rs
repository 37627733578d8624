//! Datagrams from people who do not know the secret.

use std::time::Duration;

use super::net::{Dice, Host, Net, SECRET, Weather, by, by_each_method, pair, seeds, settings};
use crate::ike::{FailureCode, Posture, Settings, Transmit, digest, stop_tampering, tamper};
use crate::types::{Method, Proposals};

const SECOND: Duration = Duration::from_secs(1);

fn established(method: Method, seed: u64) -> Net {
    let mut net = Net::two_by(method, seed);
    net.keep(0, 1);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    net
}

fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            return;
        }
        let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
        match dice.below(5) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes.insert(at, dice.roll().to_be_bytes()[0]),
            _ => bytes[at] ^= dice.roll().to_be_bytes()[0],
        }
    }
    // Half of them are at least as long as they say.
    if dice.percent(50) && bytes.len() >= 28 {
        let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
        bytes[24..28].copy_from_slice(&length);
    }
}

/// One proposal for an IKE SA and no other.
fn only(proposal: &str) -> Settings {
    let ike_proposals = Proposals::new(vec![proposal.parse().unwrap()]).unwrap();
    Settings { ike_proposals, ..settings(SECRET) }
}

fn a_hundred_thousand_mutated_datagrams_change_nothing(method: Method) {
    endures(established(method, 30), 100_000);
}

/// The same where a checksum stands beside the cipher.
#[test]
fn mutated_datagrams_change_nothing_under_cbc_either() {
    let mut net = Net::new(30, ["aes256-sha256-ecp256"; 2].map(only));
    net.keep(0, 1);
    net.run(SECOND);
    endures(net, 20_000);
}

/// Mutates what two hosts that have agreed on a child said, `rounds` times.
fn endures(mut net: Net, rounds: u32) {
    let recorded = net.sent.clone();
    let child = net.child_of(0);
    let mut dice = Dice(31);
    for round in 0..rounds {
        let chosen = usize::try_from(dice.below(recorded.len() as u64)).unwrap();
        let mut transmit = recorded[chosen].clone();
        if transmit.bytes[18] == 34 && dice.percent(97) {
            continue; // IKE_SA_INIT costs a Diffie-Hellman exchange each.
        }
        mutate(&mut dice, &mut transmit.bytes);
        net.inject(&transmit);
        net.sent.clear();
        if round % 1000 == 0 {
            net.run(Duration::from_millis(100));
        }
    }
    net.run(30 * SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!(net.child_of(0), child);
    for host in &net.hosts {
        let counters = host.engine.counters();
        assert!(
            counters.malformed > u64::from(rounds / 100) && counters.not_authentic > u64::from(rounds / 100),
            "{counters:?}"
        );
        assert_eq!((counters.half_open, counters.sessions), (0, 1), "{counters:?}");
    }
}

/// A peer with the keys says what no honest peer says; afterwards the two find to each other again.
fn an_insider_does_no_lasting_harm(method: Method) {
    for seed in seeds(20) {
        let mut net = established(method, 4000 + seed);
        let mut dice = Dice(!seed);
        tamper(move |draft| {
            if dice.percent(30) {
                mutate(&mut dice, &mut draft.text);
            }
            if dice.percent(5) {
                draft.first = dice.roll().to_be_bytes()[0];
            }
        });
        net.weather = Weather { loss: 5, duplication: 5, delay: 50 };
        for round in 0..20 {
            let host = round % 2;
            let (pair, child) = (pair(host, 1 - host), net.hosts[host].children.keys().next().copied());
            net.call(host, |engine, now| match (round / 2 % 3, child) {
                (0, Some(child)) => engine.rekey_child(now, pair, child),
                (1, _) => engine.rekey_ike(now, pair),
                _ => engine.check_liveness(now, pair),
            });
            net.run(SECOND);
            let counters = net.hosts[host].engine.counters();
            assert!(counters.sessions <= 8 + 16 && net.hosts[host].children.len() <= 8 * 8, "{counters:?}");
        }
        stop_tampering();
        net.weather = Weather::default();
        for host in [0, 1] {
            net.call(host, |engine, now| engine.forget(now, pair(host, 1 - host)));
        }
        net.run(60 * SECOND);
        let empty = |host: &Host| host.children.is_empty() && host.engine.counters().sessions == 0;
        assert!(net.hosts.iter().all(empty), "nothing is left of it");
        net.keep(0, 1);
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
    }
}

/// What sessions and parsers ask of a message, without a session.
#[test]
fn what_is_said_is_digested_however_it_is_changed() {
    let net = established(Method::Ike, 42);
    let mut dice = Dice(43);
    for _ in 0..20_000 {
        let chosen = usize::try_from(dice.below(net.sent.len() as u64)).unwrap();
        let mut bytes = net.sent[chosen].bytes.clone();
        mutate(&mut dice, &mut bytes);
        digest(&bytes);
    }
}

fn random_datagrams_do_nothing(method: Method) {
    let mut net = established(method, 32);
    let mut dice = Dice(33);
    for _ in 0..20_000 {
        let length = usize::try_from(dice.below(200)).unwrap();
        let bytes = (0..length).map(|_| dice.roll().to_be_bytes()[0]).collect();
        net.inject(&Transmit { local: Net::socket(1), remote: Net::socket(0), bytes });
    }
    net.assert_one_pair(0, 1);
}

fn replays_get_the_same_answer_or_none(method: Method) {
    let mut net = established(method, 34);
    let recorded = std::mem::take(&mut net.sent);
    for transmit in recorded.iter().chain(&recorded) {
        net.inject(transmit);
    }
    let answers = std::mem::take(&mut net.sent);
    assert!(answers.iter().all(|answer| recorded.contains(answer)), "nothing new is said");
    net.assert_one_pair(0, 1);
    assert_eq!(net.hosts[0].engine.counters().sessions, 1);
}

/// A flood of IKE_SA_INIT requests with a forged address.
fn a_flood_meets_a_cookie_and_the_peer_still_gets_through(method: Method) {
    let mut net = Net::two_by(method, 35);
    let now = net.now;
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.run(Duration::ZERO);
    let mut first = net.sent[0].clone();
    net.hosts[1].engine.keep(now, pair(1, 0), Posture::Passive);
    let mut dice = Dice(36);
    for _ in 0..2000 {
        first.bytes[..8].copy_from_slice(&dice.roll().to_be_bytes());
        net.inject(&first);
    }
    let counters = net.hosts[1].engine.counters();
    assert_eq!((counters.half_open, counters.sessions), (4, 4));
    assert_eq!(counters.cookies, 1996);
    // The true initiator returns its cookie.
    net.run(2 * SECOND);
    net.run(20 * SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!(net.hosts[1].engine.counters().half_open, 0, "what nobody completes expires");
}

/// ```text
/// initiator                      responder
///   request              -->      many are half open
///                        <--      COOKIE
///   request with COOKIE  ...      late
///   request, a copy      -->      few are half open
///                        <--      response
///   request with COOKIE  -->
///   IKE_AUTH             -->      signs the request with COOKIE
/// ```
fn a_copy_without_the_cookie_that_comes_late_does_no_harm(method: Method) {
    let mut net = Net::two_by(method, 39);
    let now = net.now;
    net.cut = Box::new(|_| true);
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.hosts[1].engine.keep(now, pair(1, 0), Posture::Passive);
    net.run(Duration::ZERO);
    let mut forged = net.sent[0].clone();
    let mut dice = Dice(40);
    for _ in 0..4 {
        forged.bytes[..8].copy_from_slice(&dice.roll().to_be_bytes());
        net.inject(&forged);
    }
    // The attempt that meets the cookie begins shortly before those expire.
    net.run(Duration::from_millis(9_500));
    net.hosts[0].engine.forget(net.now, pair(0, 1));
    net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
    net.sent.clear();
    net.hosts[0].failures.clear();
    net.run(Duration::from_millis(1));
    let request = net.sent[0].clone();
    net.inject(&request);
    let cookie = net.sent.last().unwrap().clone();
    net.inject(&cookie);
    let with_cookie = net.sent.last().unwrap().clone();
    assert!(with_cookie.bytes.len() > request.bytes.len());
    net.run(Duration::from_millis(600));
    net.inject(&request);
    let response = net.sent.last().unwrap().clone();
    assert_eq!(response.local, Net::socket(1));
    net.inject(&with_cookie);
    net.cut = Box::new(|_| false);
    net.inject(&response);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
}

/// Errors in the clear are hints: the true answer still counts.
fn a_forged_refusal_does_not_end_an_attempt(method: Method) {
    let mut net = Net::two_by(method, 37);
    let now = net.now;
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.hosts[1].engine.keep(now, pair(1, 0), Posture::Passive);
    net.run(Duration::ZERO);
    let mut bytes = net.sent[0].bytes[..28].to_vec();
    bytes[16] = 41;
    bytes[19] = 0x20;
    bytes.extend([0, 0, 0, 8, 0, 0, 0, 14]); // N(NO_PROPOSAL_CHOSEN)
    bytes[24..28].copy_from_slice(&36u32.to_be_bytes());
    let forged = Transmit { local: Net::socket(1), remote: Net::socket(0), bytes };
    net.inject(&forged);
    net.inject(&forged);
    assert_eq!(net.hosts[0].failures, [FailureCode::NoProposal], "it is told at once, and once");
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!(net.hosts[0].failures.len(), 1);
    assert_eq!(net.hosts[0].engine.summary(pair(0, 1)).unwrap().last_failure, None);
}

/// ```text
/// a                                   b, which has nothing in common with it
///   HDR, SAi1, KEi, Ni, V   -->
///                           <--       HDR, N(NO_PROPOSAL_CHOSEN)
/// ```
#[test]
fn a_refusal_is_told_before_the_attempt_is_given_up() {
    let mut net = Net::new(41, [only("aes256gcm16-prfsha384-x25519"), only("aes256-sha256-ecp256")]);
    net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
    net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
    net.run(Duration::from_millis(50));
    assert_eq!(net.hosts[0].failures, [FailureCode::NoProposal]);
}

fn datagrams_of_others_are_counted(method: Method) {
    let mut net = established(method, 38);
    let mut transmit = net.sent[0].clone();
    transmit.local = "10.9.9.9:500".parse().unwrap();
    net.inject(&transmit);
    assert_eq!(net.hosts[1].engine.counters().unknown_pair, 1);
    let mut transmit = net.sent.last().unwrap().clone();
    transmit.bytes[0] ^= 1;
    transmit.bytes[8] ^= 1;
    net.inject(&transmit);
    let unknown: u64 = net.hosts.iter().map(|host| host.engine.counters().unknown_spi).sum();
    assert_eq!(unknown, 1);
}

/// Who floods a socket makes its datagrams wait, but nobody late: only those of known IKE SAs count.
#[test]
fn what_anybody_can_send_makes_no_host_late() {
    let sent_within = |known: bool| {
        let mut net = established(Method::Ike, 44);
        let mut transmit =
            net.sent.iter().rev().find(|it| it.remote.ip() == pair(0, 1).local).unwrap().clone();
        if !known {
            transmit.bytes[..16].iter_mut().for_each(|octet| *octet ^= 1);
        }
        net.hosts[0].engine.note_waited(2 * SECOND);
        net.inject(&transmit);
        let before = net.sent.len();
        net.hosts[1].engine.forget(net.now, pair(1, 0));
        net.hosts[0].engine.begin_anew(net.now, pair(0, 1));
        net.run(SECOND);
        net.sent[before..].iter().filter(|it| it.local.ip() == pair(0, 1).local).count()
    };
    assert!(sent_within(false) > sent_within(true), "{} {}", sent_within(false), sent_within(true));
}

/// A peer whose pair is off for now, as while this host starts, is told from one that no file lists.
#[test]
fn who_is_listed_is_not_named() {
    let mut net = Net::new(43, [by(Method::Ike, SECRET), by(Method::Ike, SECRET)]);
    net.keep(0, 1);
    net.hosts[1].engine.forget(net.now, pair(1, 0));
    net.run(Duration::from_millis(10));
    let unlisted = |net: &Net| net.hosts[1].engine.unlisted(net.now).count();
    assert_eq!(unlisted(&net), 1);
    net.hosts[1].engine.list([pair(1, 0)].into());
    assert_eq!(unlisted(&net), 0, "it was one before the file listed it");
    net.run(SECOND);
    assert_eq!(unlisted(&net), 0);
    assert_eq!(net.hosts[1].engine.counters().unknown_pair, 1);
    net.hosts[1].engine.list([].into());
    net.run(4 * SECOND);
    assert_eq!(unlisted(&net), 1, "the file does not list it any more");
}

/// Many peers start at once: above the threshold they return a cookie first, and all get through.
fn a_crowd_gets_through(method: Method) {
    let crowd = 80;
    let mut net = Net::new(39, (0..=crowd).map(|_| by(method, SECRET)));
    for host in 0..crowd {
        net.keep(host, crowd);
    }
    net.run(Duration::from_millis(1));
    let counters = net.hosts[crowd].engine.counters();
    assert_eq!(counters.half_open, 64);
    assert_eq!(counters.cookies, 16);
    net.run(SECOND);
    assert_eq!(net.hosts[crowd].children.len(), crowd);
}

by_each_method![
    a_hundred_thousand_mutated_datagrams_change_nothing,
    an_insider_does_no_lasting_harm,
    random_datagrams_do_nothing,
    replays_get_the_same_answer_or_none,
    a_flood_meets_a_cookie_and_the_peer_still_gets_through,
    a_copy_without_the_cookie_that_comes_late_does_no_harm,
    a_forged_refusal_does_not_end_an_attempt,
    datagrams_of_others_are_counted,
    a_crowd_gets_through,
];
