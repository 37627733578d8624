//! An additional key exchange: ML-KEM-768 after X25519 (RFC 9242, RFC 9370).

use std::net::IpAddr;
use std::time::Duration;

use super::net::{Net, SECRET, Weather, classical, pair, seeds, settings};
use crate::ike::crypto::Hidden;
use crate::ike::crypto::kem::{KemKey, encapsulate};
use crate::ike::crypto::keys::{IkeKeys, Nonces, Seed, Spis, derive};
use crate::ike::path::Path;
use crate::ike::session::fragment::covered;
use crate::ike::session::nat::Nat;
use crate::ike::wire::codes::{Exchange, payload};
use crate::ike::wire::{Header, HeaderFlags};
use crate::ike::{FailureCode, Posture, Purpose, Settings};
use crate::types::{AdditionalKe, IkeProposal, Prf, Proposals};

const SECOND: Duration = Duration::from_secs(1);
const IKE_SA_INIT: u8 = 34;
const IKE_AUTH: u8 = 35;
const CREATE_CHILD_SA: u8 = 36;
const INFORMATIONAL: u8 = 37;
const IKE_INTERMEDIATE: u8 = 43;
const IKE_FOLLOWUP_KE: u8 = 44;

/// The default.
fn default() -> Settings {
    Settings { ike_proposals: Proposals::default(), ..settings(SECRET) }
}

/// The additional exchange is required.
fn required() -> Settings {
    let proposal: IkeProposal = "aes256gcm16-prfsha384-x25519-ke1_mlkem768".parse().unwrap();
    Settings { ike_proposals: Proposals::new(vec![proposal]).unwrap(), ..settings(SECRET) }
}

fn hybrids(seed: u64) -> Net {
    Net::new(seed, [default(), default()])
}

fn exchanges(net: &Net) -> Vec<u8> {
    net.sent.iter().map(|transmit| transmit.bytes[18]).collect()
}

/// ```text
/// a  --- IKE_SA_INIT, N(INTERMEDIATE_EXCHANGE_SUPPORTED) --->  b
/// a  <-- IKE_SA_INIT, N(INTERMEDIATE_EXCHANGE_SUPPORTED) ----  b
/// a  --- IKE_INTERMEDIATE, KE of ML-KEM-768 ---------------->  b
/// a  <-- IKE_INTERMEDIATE, KE ------------------------------  b   both have other keys
/// a  --- IKE_AUTH ------------------------------------------>  b   covers all of it
/// a  <-- IKE_AUTH ------------------------------------------  b
/// ```
#[test]
fn the_default_agrees_on_keys_that_a_quantum_computer_does_not_find() {
    let mut net = hybrids(100);
    net.keep(0, 1);
    net.run(Duration::from_millis(20));
    net.assert_one_pair(0, 1);
    let expected = [IKE_SA_INIT, IKE_SA_INIT, IKE_INTERMEDIATE, IKE_INTERMEDIATE, IKE_AUTH, IKE_AUTH];
    assert_eq!(exchanges(&net)[..6], expected);
    assert!(net.sent.iter().all(|transmit| transmit.bytes.len() <= 1280 - 28), "whole over IPv4");
    assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
    // Message numbers go on after it.
    let old = net.child_of(1);
    net.call(1, |engine, now| engine.rekey_child(now, pair(1, 0), old));
    net.run(2 * SECOND);
    net.assert_one_pair(0, 1);
}

/// ```text
/// a  --- CREATE_CHILD_SA: SA, Ni, KEi ----------------------------->  b
/// a  <-- CREATE_CHILD_SA: SA, Nr, KEr, N(ADDITIONAL_KEY_EXCHANGE) --  b
/// a  --- IKE_FOLLOWUP_KE: KEi(1), N(ADDITIONAL_KEY_EXCHANGE) ------>  b
/// a  <-- IKE_FOLLOWUP_KE: KEr(1) ----------------------------------  b
/// a  --- INFORMATIONAL: D(IKE) ----------------------------------->  b
/// ```
#[test]
fn either_end_rekeys_the_ike_sa_with_it() {
    for rekeying in [0, 1] {
        let mut net = hybrids(101);
        net.keep(0, 1);
        net.run(SECOND);
        let (child, before) = (net.child_of(0), net.sent.len());
        net.call(rekeying, |engine, now| engine.rekey_ike(now, pair(rekeying, 1 - rekeying)));
        net.run(Duration::from_millis(100));
        net.assert_one_pair(0, 1);
        assert_eq!(net.child_of(0), child, "the child stays as it is");
        // The request of IKE_FOLLOWUP_KE is in two fragments.
        let expected = [CREATE_CHILD_SA, IKE_FOLLOWUP_KE, INFORMATIONAL].map(|exchange| [exchange; 2]);
        let mut exchanges = exchanges(&net)[before..].to_vec();
        exchanges.remove(2);
        assert_eq!(exchanges, expected.concat());
        let old = net.child_of(1);
        net.call(1, |engine, now| engine.rekey_child(now, pair(1, 0), old));
        net.run(2 * SECOND);
        net.assert_one_pair(0, 1);
    }
}

#[test]
fn both_rekey_the_ike_sa_at_once() {
    for seed in seeds(40) {
        let mut net = hybrids(seed);
        net.keep(0, 1);
        net.run(SECOND);
        net.weather.delay = if seed % 2 == 0 { 0 } else { 300 };
        let now = net.now;
        net.hosts[0].engine.rekey_ike(now, pair(0, 1));
        net.hosts[1].engine.rekey_ike(now, pair(1, 0));
        net.drain();
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
        for (host, other) in [(0, 1), (1, 0)] {
            let old = net.child_of(host);
            net.call(host, |engine, now| engine.rekey_child(now, pair(host, other), old));
            net.run(5 * SECOND);
            net.assert_one_pair(0, 1);
        }
        net.run(60 * SECOND);
        assert!(net.hosts.iter().all(|host| host.engine.counters().sessions == 1));
    }
}

#[test]
fn a_child_and_the_ike_sa_are_rekeyed_at_once() {
    for seed in seeds(30) {
        let mut net = hybrids(300 + seed);
        net.keep(0, 1);
        net.run(SECOND);
        net.weather.delay = 200;
        let (b, now) = (net.child_of(1), net.now);
        net.hosts[0].engine.rekey_ike(now, pair(0, 1));
        net.hosts[1].engine.rekey_child(now, pair(1, 0), b);
        net.drain();
        net.run(30 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(1), b);
    }
}

/// One end begins a rekey and does not go on with it: it is made in the end.
#[test]
fn a_rekey_that_is_left_half_made_is_made_in_the_end() {
    let mut net = hybrids(102);
    net.keep(0, 1);
    net.run(SECOND);
    let index = net.sent.last().unwrap().bytes[..8].to_vec();
    net.cut = Box::new(|transmit| transmit.bytes[18] == IKE_FOLLOWUP_KE);
    net.call(0, |engine, now| engine.rekey_ike(now, pair(0, 1)));
    net.run(SECOND);
    assert!(exchanges(&net).contains(&IKE_FOLLOWUP_KE));
    net.cut = Box::new(|_| false);
    net.run(90 * SECOND);
    net.assert_one_pair(0, 1);
    net.call(0, |engine, now| engine.check_liveness(now, pair(0, 1)));
    net.run(SECOND);
    assert_ne!(net.sent.last().unwrap().bytes[..8], index, "there is another IKE SA");
}

#[test]
fn it_gets_through_bad_weather() {
    for seed in seeds(30) {
        let often = || Settings { rekey_after: Duration::from_secs(5), ..default() };
        let mut net = Net::new(5000 + seed, [often(), often()]);
        net.weather = Weather { loss: 20, duplication: 10, delay: 200 };
        net.keep(0, 1);
        net.run(120 * SECOND);
        net.weather = Weather::default();
        net.run(10 * SECOND);
        assert!(net.run_until(60 * SECOND, |net| net.is_one_pair(0, 1)));
        net.assert_one_pair(0, 1);
    }
}

/// Where packets are small, the exchange comes in fragments.
#[test]
fn it_comes_in_fragments_where_it_must() {
    let mut net = hybrids(103);
    net.hosts.iter_mut().for_each(|host| host.engine.packet_max = 600);
    net.weather = Weather { loss: 5, duplication: 20, delay: 50 };
    net.keep(0, 1);
    assert!(net.run_until(60 * SECOND, |net| net.is_one_pair(0, 1)));
    let fragments = net.sent.iter().filter(|sent| sent.bytes[18] == IKE_INTERMEDIATE && sent.bytes[16] == 53);
    assert!(fragments.count() >= 6);
    net.weather = Weather::default();
    net.call(1, |engine, now| engine.rekey_ike(now, pair(1, 0)));
    net.run(10 * SECOND);
    net.assert_one_pair(0, 1);
}

/// What knows nothing of it is spoken to without, unless it is required.
#[test]
fn a_peer_without_it_gets_the_classical_exchange() {
    for old in [0, 1] {
        let mut all = [default(), default()];
        all[old].ike_proposals = classical();
        let mut net = Net::new(104, all);
        net.keep(0, 1);
        net.run(Duration::from_millis(20));
        net.assert_one_pair(0, 1);
        assert_eq!(exchanges(&net)[..4], [IKE_SA_INIT, IKE_SA_INIT, IKE_AUTH, IKE_AUTH]);
        for host in [0, 1] {
            net.call(host, |engine, now| engine.rekey_ike(now, pair(host, 1 - host)));
            net.run(SECOND);
            net.assert_one_pair(0, 1);
        }
        assert!(!exchanges(&net).contains(&IKE_FOLLOWUP_KE));
    }
    for old in [0, 1] {
        let mut all = [required(), required()];
        all[old].ike_proposals = classical();
        let mut net = Net::new(105, all);
        net.keep(0, 1);
        net.run(10 * SECOND);
        assert!(net.hosts.iter().all(|host| host.failures[0] == FailureCode::NoProposal));
        assert!(net.hosts.iter().all(|host| host.children.is_empty()));
    }
    let mut net = Net::new(106, [required(), default()]);
    net.keep(0, 1);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
}

/// Each message of the way there is lost once, comes twice, or comes changed before it comes as it is.
#[test]
fn each_message_may_be_lost_or_repeated_or_changed() {
    for nth in 0..6 {
        let sent = std::cell::Cell::new(0);
        let mut net = hybrids(107);
        net.cut = Box::new(move |_| sent.replace(sent.get() + 1) == nth);
        net.keep(0, 1);
        net.run(20 * SECOND);
        net.assert_one_pair(0, 1);
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "lost {nth}");
        for flip in [0, 1] {
            let mut net = hybrids(108);
            net.keep(0, 1);
            while net.sent.len() <= nth {
                assert!(net.run_until(SECOND, |net| net.sent.len() > nth));
            }
            let mut copy = net.sent[nth].clone();
            *copy.bytes.last_mut().unwrap() ^= flip;
            // IKE_SA_INIT is in the clear: a change of it is found out by AUTH alone.
            if flip == 0 || copy.bytes[18] != IKE_SA_INIT {
                net.inject(&copy);
            }
            net.run(20 * SECOND);
            net.assert_one_pair(0, 1);
            assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "{nth} {flip}");
        }
    }
}

#[test]
fn mutated_datagrams_change_nothing() {
    let mut net = hybrids(109);
    net.keep(0, 1);
    net.run(SECOND);
    net.call(0, |engine, now| engine.rekey_ike(now, pair(0, 1)));
    net.run(SECOND);
    let recorded: Vec<_> = net.sent.iter().filter(|sent| sent.bytes[18] != IKE_SA_INIT).cloned().collect();
    net.endure_flips(&recorded, 110);
}

#[test]
fn a_responder_forgets_who_does_not_go_on() {
    let mut net = hybrids(111);
    net.cut = Box::new(|transmit| transmit.bytes[18] == IKE_INTERMEDIATE);
    let now = net.now;
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.hosts[1].engine.keep(now, pair(1, 0), Posture::Passive);
    net.run(SECOND);
    assert_eq!(net.hosts[1].engine.counters().half_open, 1);
    net.hosts[0].engine.forget(net.now, pair(0, 1));
    net.drain();
    net.run(20 * SECOND);
    let counters = net.hosts[1].engine.counters();
    assert_eq!((counters.half_open, counters.sessions), (0, 0));
}

#[test]
fn a_secret_is_encapsulated() {
    let key = KemKey::generate(AdditionalKe::MlKem768).unwrap();
    assert_eq!(key.public().len(), 1184);
    let (ciphertext, secret) = encapsulate(AdditionalKe::MlKem768, key.public()).unwrap();
    assert_eq!(ciphertext.len(), 1088);
    assert_eq!(key.agree(&ciphertext).unwrap().expose(), secret.expose());
    let mut other = ciphertext.clone();
    other[5] ^= 1;
    assert_ne!(key.agree(&other).unwrap().expose(), secret.expose(), "implicit rejection");
    assert!(key.agree(&ciphertext[1..]).is_err());
    assert!(encapsulate(AdditionalKe::MlKem768, &key.public()[1..]).is_err());
    // FIPS 203 section 7.2: coefficients are below the modulus.
    assert!(encapsulate(AdditionalKe::MlKem768, &[0xff; 1184]).is_err());
}

/// FIPS 203 by an implementation that shares no code with ours, in either role.
#[test]
fn an_independent_implementation_agrees_with_ours() {
    use ml_kem::ml_kem_768::{DecapsulationKey, EncapsulationKey};
    use ml_kem::{Decapsulate as _, KeyExport as _};
    for seed in 0..8 {
        let theirs = DecapsulationKey::from_seed([seed; 64].into());
        let public = theirs.encapsulation_key().to_bytes();
        let (ciphertext, secret) = encapsulate(AdditionalKe::MlKem768, &public).unwrap();
        let decapsulated = theirs.decapsulate(&ciphertext.as_slice().try_into().unwrap());
        assert_eq!(decapsulated.as_slice(), secret.expose());

        let ours = KemKey::generate(AdditionalKe::MlKem768).unwrap();
        let public = EncapsulationKey::new(&ours.public().try_into().unwrap()).unwrap();
        let (ciphertext, secret) = public.encapsulate_deterministic(&[seed; 32].into());
        assert_eq!(ours.agree(&ciphertext).unwrap().expose(), secret.as_slice());
    }
}

/// The formulas of RFC 9370 sections 2.2.2 and 2.2.4; SK_d shows in the keys of a child (RFC 7296 section
/// 2.17).
#[test]
fn an_additional_secret_enters_the_keys() {
    let prf = Prf::HmacSha384;
    let suite = required().ike_proposals.best().unwrap();
    let [first, second] = [1, 2].map(|octet| Hidden::new(vec![octet; 32]));
    let (ni, nr) = ([3; 32], [4; 16]);
    let nonces = Nonces { initiator: ni.to_vec(), responder: nr.to_vec() };
    let spis = Spis { initiator: 5, responder: 6 };
    let sk_d = |seed: Hidden| {
        prf.plus(seed.expose(), &[&ni, &nr, &[0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6]], 48)
    };
    let of_child = |sk_d: &Hidden| prf.plus(sk_d.expose(), &[&ni, &nr], 72);
    let check = |keys: &IkeKeys, expected: &Hidden| {
        let (inbound, outbound) = keys.child(None, None, &nonces, 256, true);
        assert_eq!([outbound.expose(), inbound.expose()].concat(), of_child(expected).expose());
    };

    let before = sk_d(prf.compute(&[ni.as_slice(), &nr].concat(), &[first.expose()]));
    let (keys, _) = derive(suite, &Seed::Fresh(&first), &nonces, spis, true).unwrap();
    check(&keys, &before);
    // IKE_INTERMEDIATE: SKEYSEED(1) = prf(SK_d(0), SK(1) | Ni | Nr).
    let after = sk_d(prf.compute(before.expose(), &[second.expose(), &ni, &nr]));
    check(&derive(suite, &keys.rekey_seed(&second, None), &nonces, spis, true).unwrap().0, &after);
    // IKE_FOLLOWUP_KE: SKEYSEED = prf(SK_d, SK(0) | Ni | Nr | SK(1)).
    let successor = sk_d(prf.compute(before.expose(), &[first.expose(), &ni, &nr, second.expose()]));
    check(
        &derive(suite, &keys.rekey_seed(&first, Some(&second)), &nonces, spis, true).unwrap().0,
        &successor,
    );
    // The same of a child: KEYMAT = prf+(SK_d, SK(0) | Ni | Nr | SK(1)).
    let (inbound, outbound) = keys.child(Some(&first), Some(&second), &nonces, 256, true);
    let expected = prf.plus(before.expose(), &[first.expose(), &ni, &nr, second.expose()], 72);
    assert_eq!([outbound.expose(), inbound.expose()].concat(), expected.expose());
}

/// RFC 9242 section 3.3.2: as if in one datagram, with lengths that do not count what encryption adds.
#[test]
fn what_auth_covers_has_adjusted_lengths() {
    let header = Header {
        initiator_spi: 1,
        responder_spi: 2,
        first: payload::FRAGMENT,
        exchange: Exchange::IKE_INTERMEDIATE,
        flags: HeaderFlags { from_initiator: true, response: false },
        message_id: 1,
    };
    let expected = [
        [0, 0, 0, 0, 0, 0, 0, 1].as_slice(),
        &[0, 0, 0, 0, 0, 0, 0, 2],
        &[46, 0x20, 43, 0x08, 0, 0, 0, 1, 0, 0, 0, 42],
        &[34, 0, 0, 14],
        &[7; 10],
    ]
    .concat();
    assert_eq!(covered(&header, payload::KE, &[7; 10]), expected);
}

#[test]
fn over_ipv6_the_headers_are_longer() {
    let path = |remote: &str, here| Path {
        pair: pair(0, 1),
        purpose: Purpose::Data,
        local: "10.0.0.1:500".parse().unwrap(),
        remote: (remote.parse::<IpAddr>().unwrap(), 500).into(),
        nat: Nat { here, there: false },
    };
    assert_eq!(path("10.0.0.2", false).datagram_octets(1280), 1252);
    assert_eq!(path("fd00::2", false).datagram_octets(1280), 1232);
    assert_eq!(path("fd00::2", true).datagram_octets(1280), 1228, "where ESP goes in UDP");
}
