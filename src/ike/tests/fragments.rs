//! Messages in several datagrams (RFC 7383).

use std::time::Duration;

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::net::{Dice, Net, SECRET, Weather, pair, seeds, settings};
use crate::ike::crypto::Hidden;
use crate::ike::crypto::keys::{Nonces, Seed, Spis, derive};
use crate::ike::crypto::suite::Suite;
use crate::ike::limits::{FRAGMENTS_MAX, REASSEMBLED_MAX};
use crate::ike::session::exchange::Window;
use crate::ike::session::fragment::{Outcome, Reassembly};
use crate::ike::session::ike_sa::IkeSa;
use crate::ike::wire::codes::{Exchange, payload};
use crate::ike::wire::{Encrypted, Fragment, HEADER, Message, Payload};
use crate::ike::{Settings, Transmit};
use crate::types::{Group, IkeCipher, Integrity, Prf, Proposals};

const SECOND: Duration = Duration::from_secs(1);
/// So small that everything but words comes in fragments.
const SMALL: usize = 28 + 160;

/// Two hosts that send small packets only.
fn small(seed: u64, settings: [Settings; 2]) -> Net {
    let mut net = Net::new(seed, settings);
    net.hosts.iter_mut().for_each(|host| host.engine.packet_max = SMALL);
    net
}

/// The fragments among what was sent: exchange, number and total.
fn fragments(sent: &[Transmit]) -> Vec<(u8, u16, u16)> {
    let fragment = |transmit: &Transmit| {
        let fragment = Message::parse(&transmit.bytes).ok()?.encrypted?.fragment?;
        Some((transmit.bytes[18], fragment.number, fragment.total))
    };
    sent.iter().filter_map(fragment).collect()
}

/// ```text
/// a  --- IKE_SA_INIT, N(IKEV2_FRAGMENTATION_SUPPORTED) --->  b
/// a  <-- IKE_SA_INIT, N(IKEV2_FRAGMENTATION_SUPPORTED) ----  b
/// a  --- IKE_AUTH 1/3, 2/3, 3/3 -------------------------->  b
/// a  <-- IKE_AUTH 1/2, 2/2 -------------------------------  b
/// ```
#[test]
fn a_message_that_is_too_large_comes_in_fragments() {
    let cbc = || {
        let proposals = vec!["aes256-sha256-x25519".parse().unwrap()];
        Settings { ike_proposals: Proposals::new(proposals).unwrap(), ..settings(SECRET) }
    };
    for settings in [[settings(SECRET), settings(SECRET)], [cbc(), cbc()]] {
        let mut net = small(80, settings);
        net.keep(0, 1);
        net.run(SECOND);
        net.assert_one_pair(0, 1);
        for host in [0, 1] {
            net.call(host, |engine, now| engine.rekey_ike(now, pair(host, 1 - host)));
            net.run(SECOND);
            let old = net.child_of(host);
            net.call(host, |engine, now| engine.rekey_child(now, pair(host, 1 - host), old));
            net.run(2 * SECOND);
            net.assert_one_pair(0, 1);
        }
        let encrypted: Vec<_> = net.sent.iter().filter(|transmit| transmit.bytes[18] != 34).collect();
        assert!(encrypted.iter().all(|transmit| transmit.bytes.len() <= SMALL - 28));
        let fragments = fragments(&net.sent);
        assert_eq!(fragments[0].0, 35);
        assert!(fragments.iter().any(|(exchange, ..)| *exchange == 36), "{fragments:?}");
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
        assert!(net.hosts.iter().all(|host| host.engine.counters().fragments_refused == 0));
    }
}

#[test]
fn what_fits_is_sent_whole() {
    let mut net = Net::two(81);
    net.keep(0, 1);
    net.run(SECOND);
    assert_eq!(fragments(&net.sent), []);
    assert!(net.sent.iter().all(|transmit| transmit.bytes.len() <= 1280 - 28));
}

#[test]
fn fragments_get_through_bad_weather() {
    for seed in seeds(30) {
        let mut net = small(4000 + seed, [settings(SECRET), settings(SECRET)]);
        net.weather = Weather { loss: 15, duplication: 20, delay: 300 };
        net.keep(0, 1);
        assert!(net.run_until(180 * SECOND, |net| net.is_one_pair(0, 1)));
        net.run(30 * SECOND);
        net.weather = Weather::default();
        for (host, other) in [(0, 1), (1, 0)] {
            net.call(host, |engine, now| engine.check_liveness(now, pair(host, other)));
        }
        assert!(net.run_until(120 * SECOND, |net| net.is_one_pair(0, 1)));
        net.run(40 * SECOND);
        net.assert_one_pair(0, 1);
    }
}

/// A request that comes again is answered again once, by its first fragment (RFC 7383 section 2.6.1).
#[test]
fn a_request_in_fragments_that_comes_again_is_answered_once_again() {
    let mut net = small(82, [settings(SECRET), settings(SECRET)]);
    net.keep(0, 1);
    net.run(SECOND);
    net.sent.clear();
    net.call(0, |engine, now| engine.rekey_ike(now, pair(0, 1)));
    net.run(Duration::from_millis(1));
    let request = net.sent.clone();
    assert!(fragments(&request).len() > 1);
    let answer: Vec<_> = net.sent.iter().filter(|sent| sent.local == Net::socket(1)).cloned().collect();
    let request: Vec<_> = request.into_iter().filter(|sent| sent.local == Net::socket(0)).collect();
    net.sent.clear();
    for fragment in request.iter().take(fragments(&request).len()) {
        net.inject(fragment);
    }
    let again: Vec<_> = net.sent.iter().filter(|sent| answer.contains(sent)).collect();
    assert_eq!(again.len(), fragments(&answer).len());
    net.run(SECOND);
    net.assert_one_pair(0, 1);
}

#[test]
fn mutated_fragments_change_nothing() {
    let mut net = small(83, [settings(SECRET), settings(SECRET)]);
    net.keep(0, 1);
    net.run(SECOND);
    let recorded: Vec<_> = net.sent.iter().filter(|sent| sent.bytes[18] != 34).cloned().collect();
    net.endure_flips(&recorded, 84);
}

/// Two ends of an IKE SA with `suite`.
fn ends(suite: Suite, fragments: Option<usize>) -> [IkeSa; 2] {
    let nonces = Nonces { initiator: vec![1; 32], responder: vec![2; 32] };
    let spis = Spis { initiator: 3, responder: 4 };
    [true, false].map(|initiator| {
        let shared = Hidden::new(vec![5; 32]);
        let (keys, _) = derive(suite, &Seed::Fresh(&shared), &nonces, spis, initiator).unwrap();
        IkeSa::new(spis, initiator, keys, Window::new(1, 1), fragments, std::time::Instant::now())
    })
}

fn suite(cbc: bool) -> Suite {
    let (cipher, integrity) = match cbc {
        true => (IkeCipher::AesCbc(256), Some(Integrity::HmacSha384)),
        false => (IkeCipher::AesGcm16(128), None),
    };
    Suite { cipher, integrity, prf: Prf::HmacSha256, group: Some(Group::X25519), additional: None }
}

fn text(octets: usize) -> Vec<Payload> {
    vec![Payload::VendorId((0..octets).map(|at| u8::try_from(at % 251).unwrap()).collect())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// In any order, some of them twice.
    #[test]
    fn what_is_cut_is_put_together(
        cbc in any::<bool>(),
        length in 0..6000usize,
        octets in 300..1500usize,
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let [mut a, b] = ends(suite(cbc), Some(octets));
        let payloads = text(length);
        let mut datagrams = a.encrypt(&mut Dice(1), Exchange::INFORMATIONAL, false, 1, &payloads).unwrap();
        prop_assert!(datagrams.iter().all(|datagram| datagram.len() <= octets));
        let whole = HEADER + 4 + 4 + length + 60;
        prop_assert!(datagrams.len() == 1 || whole + 60 > octets, "{} datagrams", datagrams.len());
        for index in &order {
            let (from, to) = (index.index(datagrams.len()), datagrams.len() - 1);
            datagrams.swap(from, to);
        }
        let copies: Vec<_> = order.iter().take(3).map(|at| datagrams[at.index(datagrams.len())].clone()).collect();
        let mut kept = Reassembly::default();
        let mut found = None;
        for datagram in copies.iter().chain(&datagrams) {
            let message = Message::parse(datagram).unwrap();
            let encrypted = message.encrypted.unwrap();
            let text = b.decrypt(&encrypted).expect("it is authentic").unwrap();
            if let Outcome::Whole(whole) = kept.add(1, &encrypted, text) {
                found = Some(whole.payloads().unwrap());
                break;
            }
        }
        prop_assert_eq!(found, Some(payloads));
    }

    /// Whatever a peer sends as fragments, what is kept of it stays small.
    #[test]
    fn what_is_kept_is_bounded(
        parts in prop::collection::vec((0..3u32, 1..80u16, 1..80u16, 0..2000usize), 0..200),
    ) {
        let mut kept = Reassembly::default();
        for (message_id, number, total, octets) in parts {
            let fragment = Fragment { number: number.min(total), total };
            let encrypted = Encrypted { first: payload::NONE, fragment: Some(fragment), associated: &[], body: &[] };
            if let Outcome::Whole(whole) = kept.add(message_id, &encrypted, Zeroizing::new(vec![0; octets])) {
                prop_assert!(whole.text.len() <= REASSEMBLED_MAX);
            }
            prop_assert!(kept.octets() <= REASSEMBLED_MAX);
        }
    }
}

fn add(kept: &mut Reassembly, message_id: u32, number: u16, total: u16, text: &[u8]) -> Outcome {
    let fragment = Some(Fragment { number, total });
    let encrypted = Encrypted { first: payload::VENDOR_ID, fragment, associated: &[], body: &[] };
    kept.add(message_id, &encrypted, Zeroizing::new(text.to_vec()))
}

#[test]
fn a_message_that_is_cut_anew_counts() {
    let mut kept = Reassembly::default();
    assert!(matches!(add(&mut kept, 7, 1, 2, b"ab"), Outcome::Incomplete));
    assert!(matches!(add(&mut kept, 7, 1, 3, b"a"), Outcome::Incomplete), "smaller pieces: begins anew");
    assert!(matches!(add(&mut kept, 7, 2, 2, b"c"), Outcome::Refused), "a larger one is late");
    assert!(matches!(add(&mut kept, 7, 2, 3, b"b"), Outcome::Incomplete));
    assert!(matches!(add(&mut kept, 7, 2, 3, b"x"), Outcome::Refused), "the first counts");
    let Outcome::Whole(whole) = add(&mut kept, 7, 3, 3, b"c") else { panic!("it is complete") };
    assert_eq!((whole.first, whole.text.as_slice()), (payload::VENDOR_ID, b"abc".as_slice()));
    assert!(matches!(add(&mut kept, 8, 1, 2, b"a"), Outcome::Incomplete));
    assert!(matches!(add(&mut kept, 9, 2, 2, b"b"), Outcome::Incomplete), "another message");
    let many = u16::try_from(FRAGMENTS_MAX + 1).unwrap();
    assert!(matches!(add(&mut kept, 9, 1, many, b"a"), Outcome::Refused));
}

#[test]
fn who_does_not_know_fragments_gets_none() {
    let [mut a, _] = ends(suite(false), None);
    let datagrams = a.encrypt(&mut Dice(1), Exchange::INFORMATIONAL, false, 1, &text(4000)).unwrap();
    assert_eq!(datagrams.len(), 1);
    assert!(Message::parse(&datagrams[0]).unwrap().encrypted.unwrap().fragment.is_none());
}
