//! Post-quantum preshared keys (RFC 8784, RFC 9867): both roles, required and optional, hosts that know the later way and
//! hosts that do not, and whoever wants them away.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::net::{Dice, Net, SECRET, Weather, address, classical, pair, seeds, settings};
use crate::identity::{AuthMethod, Credentials, Identity, KeyKind, Ppk, PpkRule, PpkUse, Secret};
use crate::ike::control::Purpose;
use crate::ike::crypto::Hidden;
use crate::ike::crypto::keys::{Nonces, Seed, Spis, derive, ppk_confirmation};
use crate::ike::crypto::suite::Suite;
use crate::ike::insider::know_draft_of_early_ppks;
use crate::ike::path::Bond;
use crate::ike::tests::proof::{Pem, knowing};
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Message, Parts};
use crate::ike::{Posture, Settings, Transmit, forget_early_ppks};
use crate::types::{IkeCipher, Prf, Proposals};

pub(super) const SECOND: Duration = Duration::from_secs(1);
const IKE_AUTH: u8 = 35;
pub(super) const EXCHANGE: usize = 18;
const FLAGS: usize = 19;
const RESPONSE: u8 = 0x20;

/// A PPK that is called so, of a key of these octets.
fn ppk((id, octet): (&str, u8)) -> Arc<Ppk> {
    Arc::new(Ppk::new(id.to_owned(), Secret::new([octet; 32])))
}

/// What one host says of PPKs: those that it has, and whether one is required. `None`: nothing.
pub(super) type Said<'a> = Option<(&'a [(&'a str, u8)], bool)>;

/// `settings` with these PPKs for everybody.
pub(super) fn with(settings: Settings, said: Said<'_>) -> Settings {
    let rule =
        said.map(|(keys, required)| PpkRule { keys: keys.iter().copied().map(ppk).collect(), required });
    let ppks: HashMap<_, _> = (0..3).filter_map(|host| Some((address(host), rule.clone()?))).collect();
    let credentials = Arc::into_inner(settings.credentials).unwrap();
    Settings { credentials: Arc::new(Credentials { ppks, ..credentials }), ..settings }
}

fn host(said: Said<'_>) -> Settings {
    with(settings(SECRET), said)
}

/// Two hosts, of which these know nothing of PPKs in IKE_INTERMEDIATE.
pub(super) fn two_with_earlier(seed: u64, earlier: &[usize], said: [Said<'_>; 2]) -> Net {
    forget(earlier);
    Net::new(seed, said.map(host))
}

pub(super) fn forget(earlier: &[usize]) {
    forget_early_ppks(earlier.iter().copied().map(address));
}

pub(super) fn two(seed: u64, said: [Said<'_>; 2]) -> Net {
    two_with_earlier(seed, &[], said)
}

/// What the PPK of the only child of `at` is called; `None`: it has none.
pub(super) fn used(net: &Net, at: usize) -> Option<String> {
    let spi = net.child_of(at);
    match net.hosts[at].engine.ppk_of(pair(at, 1 - at), spi).unwrap() {
        PpkUse::Used(tag) => Some(tag.id().to_owned()),
        PpkUse::None => None,
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

pub(super) fn is_said(net: &Net, at: usize, words: &str) -> bool {
    net.hosts[at].log.iter().any(|line| line.contains(words))
}

/// Who knows nothing of PPKs in IKE_INTERMEDIATE.
const EARLIER: [&[usize]; 4] = [&[], &[0], &[1], &[0, 1]];
/// What that is where all must go the earlier way.
pub(super) const BOTH_EARLIER: &[usize] = EARLIER[3];

pub(super) const ONE: &[(&str, u8)] = &[("one", 21)];
pub(super) const TWO: &[(&str, u8)] = &[("two", 22)];
/// Called as [`ONE`], and another key.
pub(super) const WRONG: &[(&str, u8)] = &[("one", 23)];

/// Computed with Python's hmac by the formulas of RFC 7296 sections 2.13, 2.14 and 2.17 and RFC 8784 section 3:
/// SK_d = prf+(PPK, SK_d'), and SK_pi and SK_pr likewise.
#[test]
fn keys_are_mixed_as_an_independent_computation_has_it() {
    let vectors = [
        (
            Prf::HmacSha256,
            "93627ad84aacecb6592d9ea2dbebc097361306b3a81eb927b5b95063d3e4f1a2",
            "f74f504dc8db59727177c3e6762e0b37e7e0c3d68fbf5ffe2512ad43d2691028",
            "3926f613f37371492649a0bc9224bdf4f63f1e82d183ec2dc988b202f1499a2158bf66aefef50382fdc2b29533336aceec743296\
             427049c68a87e4b9192c352e1a419024a0d20dd8",
        ),
        (
            Prf::HmacSha512,
            "b5deff11f44644d2e413c927b8fb34de9102712eee4b414ed117264f776009dca6aed7707d29c932a8f86274c561312706b0453d\
             af75053dfa19ac2ca232f47b",
            "a69d4f6c9ba9e35da387847876a4177f7cae03a1d138c30c1d8980519b41410007d9c3c5faf85453251d50d393ebae726983ac33\
             9bd9f93638d66d2c2c20b54f",
            "f0919a92878dc80793cbcf8a5b775a9f659eb1ec2f54e91cb541819f2156e3c6828d61f100b77d5c1363454f5e562b775b4a3841\
             d02bb7d32dad1bf773dea5e5210b409ee649f75f",
        ),
    ];
    let nonces = Nonces { initiator: vec![1; 32], responder: vec![2; 32] };
    let spis = Spis { initiator: 0x1111_1111_1111_1111, responder: 0x2222_2222_2222_2222 };
    let key: Vec<u8> = (0..32).collect();
    let ppk = Ppk::new("one".to_owned(), Secret::new(key.try_into().unwrap()));
    for (prf, sk_pi, sk_pr, of_child) in vectors {
        let suite =
            Suite { cipher: IkeCipher::AesGcm16(256), integrity: None, prf, group: None, additional: None };
        let shared = Hidden::new(vec![3; 32]);
        let (mut ike, proofs) = derive(suite, &Seed::Fresh(&shared), &nonces, spis, true).unwrap();
        let child = |ike: &crate::ike::crypto::keys::IkeKeys| {
            let (inbound, outbound) = ike.child(None, None, &nonces, 256, true);
            hex(&[outbound.expose(), inbound.expose()].concat())
        };
        let before = child(&ike);
        let mixed = proofs.with_ppk(prf, &ppk);
        assert_eq!([hex(mixed.mine.expose()), hex(mixed.peer.expose())], [sk_pi, sk_pr]);
        let without = ike.mix(&ppk);
        assert_eq!(child(&ike), of_child);
        ike.unmix(without);
        assert_eq!(child(&ike), before);
    }
}

/// Computed likewise by the formulas of RFC 9867 section 3.1: SKEYSEED' = prf+(PPK, SK_d), all keys as in RFC 7296 section
/// 2.14 from there; after an additional exchange (RFC 9370 section 2.2.2), where there is one; and the first octets of
/// prf(PPK, Ni | Nr | SPIi | SPIr).
#[test]
fn early_keys_are_as_an_independent_computation_has_them() {
    let vectors = [
        (
            Prf::HmacSha256,
            false,
            "8704a1d61d948271",
            "a50c9f3e4af2980978005d0c96d50dca2011af8c8b49502777bb6ca55def2205",
            "f2df709bfea990bbc7efaf5fea04cbb2788d0118a162573d045752e54d5f068b",
            "4494df1b801a54c92d3030b8c95407e65f2f1b72d2f6fdaf17c5921627db8670d5a480463bbf020340aad6272141a7e36cee72910438\
             a00b6038e552788e63eafda4d2228248df16",
        ),
        (
            Prf::HmacSha256,
            true,
            "8704a1d61d948271",
            "5099dc3ee0b307b29f92601645c73ab31d07f9b3bd212fe856b8c4b516005ae5",
            "fe511aaa6f6b76d18c9cb77164612677889cacaf486a78013f66f6beac2390fb",
            "25efdb5d7224bd8a90a033633b436b6b22892963f50ef4788e57ab150cf843dba78c695ba738ca9fa4b1858db5d8598135df200e38c8\
             823f8aad41c074fe37224f8622733abc8b76",
        ),
        (
            Prf::HmacSha512,
            true,
            "f7e92cb600cd4b81",
            "397a11a72b0673e229b062922322dde1053385e93278926be945fd3db899f70233cc68eede870f6058beed10d3d7af32ec8fe7b65eb8\
             38c4d9d605be78534e73",
            "2f1188b80c804a05a977a75bda1bacfe961d7a6c62008da129660ae749616037cf8d02738ee84d5a2b01b913f90b05b7e0c1413f1654\
             a55f2632a9159daaa713",
            "0204c8ab681ab8add9a666b815ba492a27669b30d3c5948d1c2b852055f219f86d8bb9f0e983c0c1e16fac1d36626d8185517ebd7dc7\
             7c5ebb573b96f66eaf904cb96dd2492c686c",
        ),
    ];
    let nonces = Nonces { initiator: vec![1; 32], responder: vec![2; 32] };
    let spis = Spis { initiator: 0x1111_1111_1111_1111, responder: 0x2222_2222_2222_2222 };
    let key: Vec<u8> = (0..32).collect();
    let ppk = Ppk::new("one".to_owned(), Secret::new(key.try_into().unwrap()));
    for (prf, hybrid, confirmation, sk_pi, sk_pr, of_child) in vectors {
        let suite =
            Suite { cipher: IkeCipher::AesGcm16(256), integrity: None, prf, group: None, additional: None };
        let derived = |seed: &Seed<'_>| derive(suite, seed, &nonces, spis, true).unwrap();
        let [shared, additional] = [3, 4].map(|octet| Hidden::new(vec![octet; 32]));
        let (mut ike, _) = derived(&Seed::Fresh(&shared));
        if hybrid {
            (ike, _) = derived(&ike.rekey_seed(&additional, None));
        }
        let (ike, proofs) = derived(&ike.ppk_seed(&ppk));
        assert_eq!(hex(&ppk_confirmation(prf, &ppk, &nonces, spis)), confirmation);
        assert_eq!([hex(proofs.mine.expose()), hex(proofs.peer.expose())], [sk_pi, sk_pr]);
        let (inbound, outbound) = ike.child(None, None, &nonces, 256, true);
        assert_eq!(hex(&[outbound.expose(), inbound.expose()].concat()), of_child);
    }
}

/// Where both ends know how, before anybody says who it is:
/// ```text
/// a  --- IKE_SA_INIT, N(USE_PPK), N(USE_PPK_INT) ----------------->  b
/// a  <-- IKE_SA_INIT, N(USE_PPK_INT) -----------------------------   b
/// a  --- IKE_INTERMEDIATE, N(PPK_IDENTITY_KEY, one, shown) ------->  b
/// a  <-- IKE_INTERMEDIATE, N(PPK_IDENTITY, one) ------------------   b
/// a  --- IKE_AUTH ------------------------------------------------>  b
/// a  <-- IKE_AUTH ------------------------------------------------   b
/// ```
/// Else:
/// ```text
/// a  --- IKE_SA_INIT, N(USE_PPK), … ------------------------------>  b
/// a  <-- IKE_SA_INIT, N(USE_PPK) ---------------------------------   b
/// a  --- IKE_AUTH, N(PPK_IDENTITY, one), [N(NO_PPK_AUTH)] -------->  b
/// a  <-- IKE_AUTH, N(PPK_IDENTITY) -------------------------------   b
/// ```
#[test]
fn hosts_of_both_kinds_have_one_as_early_as_both_can() {
    for earlier in EARLIER {
        for hybrid in [false, true] {
            forget(earlier);
            let ike_proposals = || if hybrid { Proposals::default() } else { classical() };
            let host =
                || with(Settings { ike_proposals: ike_proposals(), ..settings(SECRET) }, Some((ONE, true)));
            let mut net = Net::new(59, [host(), host()]);
            net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
            net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
            net.run(SECOND);
            net.assert_one_pair(0, 1);
            assert_eq!([used(&net, 0), used(&net, 1)].map(|it| it.unwrap()), ["one", "one"]);
            let is_early = earlier.is_empty();
            let says = |at: usize, kind| {
                let payloads = Message::parse(&net.sent[at].bytes).unwrap().payloads;
                Parts(&payloads).notify(kind).is_some()
            };
            let said = |at| [says(at, notify::USE_PPK), says(at, notify::USE_PPK_INT)];
            assert_eq!(said(0), [true, !earlier.contains(&0)], "{earlier:?}");
            assert_eq!(said(1), [!is_early, is_early], "{earlier:?}");
            let exchange = |transmit: &Transmit| transmit.bytes[EXCHANGE];
            let intermediate = net.sent.iter().any(|it| exchange(it) == Exchange::IKE_INTERMEDIATE.0);
            assert_eq!(intermediate, is_early || hybrid, "{earlier:?}");
            assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
        }
    }
}

/// Libreswan 5.2 and 5.3 have other numbers for the same.
#[test]
fn the_numbers_of_the_draft_are_understood() {
    for (at, begins) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let mut net = two(58, [Some((ONE, true)); 2]);
        know_draft_of_early_ppks(address(at));
        net.hosts[begins].engine.keep(net.now, pair(begins, 1 - begins), Posture::Active);
        net.hosts[1 - begins].engine.keep(net.now, pair(1 - begins, begins), Posture::Passive);
        net.run(5 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!([used(&net, 0), used(&net, 1)].map(|it| it.unwrap()), ["one", "one"]);
        let is_early = |it: &Transmit| it.bytes[EXCHANGE] == Exchange::IKE_INTERMEDIATE.0;
        assert!(net.sent.iter().any(is_early), "{at} {begins}");
    }
}

#[test]
fn what_two_hosts_say_decides_what_becomes_of_them() {
    let all: [Said<'_>; 7] = [
        None,
        Some((ONE, false)),
        Some((ONE, true)),
        Some((TWO, false)),
        Some((TWO, true)),
        Some((WRONG, false)),
        Some((WRONG, true)),
    ];
    let cases = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b)));
    for (earlier, (a, b)) in EARLIER.iter().flat_map(|earlier| cases.clone().map(move |both| (earlier, both)))
    {
        let required = [a, b].into_iter().flatten().any(|(_, required)| required);
        let expected = match (a, b) {
            (Some((a, _)), Some((b, _))) if a == b => Ok(Some(a[0].0)),
            // RFC 9867 section 3.1: another key is another PPK.
            (Some(_), Some(_)) if earlier.is_empty() && !required => Ok(None),
            // RFC 8784 section 3: a PPK whose name is known is used, and then its key must be right.
            (Some((a, _)), Some((b, _))) if a[0].0 == b[0].0 => {
                Err("the peer has another key for PPK \"one\"")
            }
            (Some(_), Some(_)) if required => Err("which is not known here"),
            _ if required => Err("the peer uses no PPK, and one is required here"),
            _ => Ok(None),
        };
        let mut net = two_with_earlier(60, earlier, [a, b]);
        net.keep(0, 1);
        net.run(20 * SECOND);
        match expected {
            Ok(ppk) => {
                net.assert_one_pair(0, 1);
                assert_eq!([used(&net, 0), used(&net, 1)], [ppk.map(str::to_owned), ppk.map(str::to_owned)]);
                assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "{a:?} {b:?}");
            }
            Err(words) => {
                assert!(net.hosts.iter().all(|host| host.children.is_empty()), "{a:?} {b:?}");
                assert!((0..2).any(|at| is_said(&net, at, words)), "{a:?} {b:?}: {words:?} is not said");
            }
        }
    }
}

#[test]
fn nothing_is_said_of_ppks_where_there_are_none() {
    let mut net = two(61, [None, Some((ONE, false))]);
    net.keep(0, 1);
    net.run(SECOND);
    for init in &net.sent[..2] {
        let parts = Message::parse(&init.bytes).unwrap().payloads;
        let says = [notify::USE_PPK, notify::USE_PPK_INT].map(|kind| Parts(&parts).notify(kind).is_some());
        assert_eq!(says, [false; 2], "only in answer to a host that says so");
    }
}

/// It is in the keys whatever proves who the hosts are, however the IKE SA came to its keys, and of either PRF.
#[test]
fn it_stands_beside_any_proof_and_any_exchange() {
    let pems = [(); 2].map(|()| Pem::new(KeyKind::Ed25519));
    let keys = pems.each_ref().map(|pem| Some(pem.public()));
    let keyed = |at: usize| knowing(Identity::PublicKey(pems[at].key()), &keys, &[AuthMethod::PublicKey]);
    for (earlier, required) in EARLIER.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        forget(earlier);
        for hybrid in [false, true] {
            let ike_proposals = || if hybrid { Proposals::default() } else { classical() };
            let host =
                |at| with(Settings { ike_proposals: ike_proposals(), ..keyed(at) }, Some((ONE, required)));
            let mut net = Net::new(62, [0, 1].map(host));
            net.keep(0, 1);
            net.run(SECOND);
            net.assert_one_pair(0, 1);
            assert_eq!(used(&net, 0).as_deref(), Some("one"));
            // RFC 8784 section 3: rekeys inherit it.
            net.run(Duration::from_secs(4 * 3600));
            net.assert_one_pair(0, 1);
            assert_eq!([used(&net, 0), used(&net, 1)].map(|it| it.unwrap()), ["one", "one"]);
            assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
        }
        let other = with(keyed(1), Some((WRONG, required)));
        let mut net = Net::new(63, [with(keyed(0), Some((ONE, required))), other]);
        net.keep(0, 1);
        net.run(10 * SECOND);
        if earlier.is_empty() && !required {
            net.assert_one_pair(0, 1);
            assert_eq!([used(&net, 0), used(&net, 1)], [None, None]);
            continue;
        }
        assert!(net.hosts.iter().all(|host| host.children.is_empty()), "the right keys, and the wrong PPK");
        assert!(
            is_said(&net, 1, "another key for PPK \"one\"")
                || is_said(&net, 0, "another key for PPK \"one\"")
        );
    }
}

#[test]
fn it_gets_through_bad_weather() {
    for seed in seeds(40) {
        let required = seed % 2 == 0;
        let earlier = EARLIER[usize::try_from(seed / 2 % 4).unwrap()];
        let mut net = two_with_earlier(seed, earlier, [Some((ONE, required)); 2]);
        net.weather = Weather { loss: 20, duplication: 20, delay: 300 };
        net.keep(0, 1);
        net.run(120 * SECOND);
        net.weather = Weather::default();
        net.run(60 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!(used(&net, 0).as_deref(), Some("one"));
    }
}

/// A key is replaced host by host: each has both meanwhile.
#[test]
fn a_ppk_is_rotated_without_a_failure() {
    const BOTH: &[(&str, u8)] = &[("two", 22), ("one", 21)];
    for (earlier, first) in EARLIER.into_iter().flat_map(|it| [(it, 0), (it, 1)]) {
        let mut net = two_with_earlier(64, earlier, [Some((ONE, true)); 2]);
        net.keep(0, 1);
        net.run(SECOND);
        net.call(first, |engine, now| engine.reconfigure(now, host(Some((BOTH, true)))));
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!(used(&net, 0).as_deref(), Some("one"), "the other one does not know it yet");
        net.call(1 - first, |engine, now| engine.reconfigure(now, host(Some((BOTH, true)))));
        assert!(
            net.run_until(60 * SECOND, |net| net.is_one_pair(0, 1) && used(net, 0).as_deref() == Some("two"))
        );
        for at in [0, 1] {
            net.call(at, |engine, now| engine.reconfigure(now, host(Some((TWO, true)))));
        }
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!([used(&net, 0), used(&net, 1)].map(|it| it.unwrap()), ["two", "two"]);
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "{first}");
    }
}

/// A rotation that is rolled back host by host has the ends begin with different PPKs meanwhile: each is content with what
/// the other one began with.
#[test]
fn ends_that_begin_with_different_ppks_come_to_rest() {
    for (earlier, first) in EARLIER.into_iter().flat_map(|it| [(it, 0), (it, 1)]) {
        let mut net = two_with_earlier(76, earlier, [Some((&[TWO[0], ONE[0]], true)); 2]);
        net.keep(0, 1);
        net.run(SECOND);
        net.call(first, |engine, now| engine.reconfigure(now, host(Some((&[ONE[0], TWO[0]], true)))));
        net.run(60 * SECOND);
        let done = |net: &Net| [0, 1].map(|at: usize| net.hosts[at].engine.counters().handshakes.done);
        let before = done(&net);
        net.run(600 * SECOND);
        assert_eq!(done(&net), before, "{first}");
        net.assert_one_pair(0, 1);
    }
}

/// Whoever names several goes on with what the other one knows, and asks seldom for the one that it would rather have.
#[test]
fn a_peer_that_knows_the_former_one_alone_is_left_in_peace() {
    for begins in [0, 1] {
        let both: Said<'_> = Some((&[TWO[0], ONE[0]], true));
        let mut net = two(79, [both, Some((ONE, true))]);
        net.hosts[begins].engine.keep(net.now, pair(begins, 1 - begins), Posture::Active);
        net.hosts[1 - begins].engine.keep(net.now, pair(1 - begins, begins), Posture::Passive);
        net.run(3 * SECOND);
        net.keep(0, 1);
        net.run(600 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!(used(&net, 0).as_deref(), Some("one"));
        let handshakes = net.hosts[begins].engine.counters().handshakes;
        // With which one to begin is the choice of the end that began.
        let most = if begins == 0 { 8 } else { 1 };
        assert!(handshakes.done <= most && handshakes.failed == 0, "{begins}: {handshakes:?}");
        // Whoever learns the other one asks for it.
        net.call(1, |engine, now| engine.reconfigure(now, host(both)));
        assert!(
            net.run_until(60 * SECOND, |net| net.is_one_pair(0, 1) && used(net, 0).as_deref() == Some("two"))
        );
    }
}

/// The end that learns the new one last cannot begin, as its first messages come to nothing at a NAT.
#[test]
fn a_ppk_comes_to_whoever_cannot_ask_for_it() {
    for earlier in EARLIER {
        let both: Said<'_> = Some((&[TWO[0], ONE[0]], true));
        let mut net = two_with_earlier(84, earlier, [both, Some((ONE, true))]);
        net.cut = Box::new(|transmit| {
            is_init(transmit) && transmit.bytes[FLAGS] & RESPONSE == 0 && transmit.local == Net::socket(1)
        });
        net.keep(0, 1);
        net.run(60 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!(used(&net, 0).as_deref(), Some("one"), "{earlier:?}");
        net.call(1, |engine, now| engine.reconfigure(now, host(both)));
        let has_new = |net: &Net| net.is_one_pair(0, 1) && used(net, 0).as_deref() == Some("two");
        assert!(net.run_until(1300 * SECOND, has_new), "{earlier:?}");
        let done = net.hosts[0].engine.counters().handshakes.done;
        assert!(done <= 8, "{earlier:?}: {done}");
        net.run(1300 * SECOND);
        assert_eq!(net.hosts[0].engine.counters().handshakes.done, done, "{earlier:?}");
    }
}

/// Whoever takes none of several is not asked for the next one: it was shown all of them.
#[test]
fn who_takes_none_is_shown_them_once() {
    let mut net = two(85, [Some((&[TWO[0], ONE[0]], true)), Some((&[("three", 24)], true))]);
    net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
    net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
    net.run(Duration::from_millis(400));
    let begun = net.sent.iter().filter(|it| is_init(it) && it.local == Net::socket(0));
    assert_eq!(begun.count(), 1);
    assert!(is_said(&net, 0, "the peer rejected all PPKs of this host (\"two\", \"one\")"));
}

/// Two hosts of which the first begins. What `is_held` tells is lost until one such datagram was sent and `change` is done.
fn changed_while_held(
    seed: u64,
    said: [Said<'_>; 2],
    is_held: fn(&Transmit) -> bool,
    change: impl FnOnce(&mut Net),
) -> Net {
    let mut net = two(seed, said);
    net.cut = Box::new(is_held);
    net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
    net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
    assert!(net.run_until(10 * SECOND, |net| net.sent.iter().any(is_held)));
    change(&mut net);
    net.cut = Box::new(|_| false);
    net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Active);
    net
}

pub(super) fn is_init(transmit: &Transmit) -> bool {
    transmit.bytes[EXCHANGE] == Exchange::IKE_SA_INIT.0
}

fn is_auth(transmit: &Transmit) -> bool {
    transmit.bytes[EXCHANGE] == IKE_AUTH
}

pub(super) fn is_intermediate_answer(transmit: &Transmit) -> bool {
    transmit.bytes[EXCHANGE] == Exchange::IKE_INTERMEDIATE.0 && transmit.local == Net::socket(1)
}

fn is_auth_answer(transmit: &Transmit) -> bool {
    is_auth(transmit) && transmit.local == Net::socket(1)
}

/// What was said before a host had its PPK goes on without, and is replaced.
#[test]
fn a_ppk_that_comes_during_a_handshake_is_used_soon() {
    for late in [&[0][..], &[1], &[0, 1]] {
        let said = [0, 1].map(|at| (!late.contains(&at)).then_some((ONE, false)));
        let mut net = changed_while_held(77, said, is_auth, |net| {
            for at in late {
                net.call(*at, |engine, now| engine.reconfigure(now, host(Some((ONE, false)))));
            }
        });
        let has_ppk = |net: &Net| net.is_one_pair(0, 1) && used(net, 0).as_deref() == Some("one");
        assert!(net.run_until(60 * SECOND, has_ppk), "{late:?}");
    }
}

#[test]
fn a_ppk_that_is_withdrawn_during_a_handshake_makes_no_keys() {
    for required in [false, true] {
        let mut net = changed_while_held(78, [Some((ONE, required)); 2], is_auth_answer, |net| {
            net.call(0, |engine, now| engine.reconfigure(now, host(Some((TWO, required)))));
        });
        net.run(60 * SECOND);
        let kept = |at: usize, spi: &_| match net.hosts[at].engine.ppk_of(pair(at, 1 - at), *spi) {
            Some(PpkUse::Used(tag)) => tag.id() == "one",
            Some(PpkUse::None) | None => false,
        };
        assert!((0..2).all(|at| !net.hosts[at].children.keys().any(|spi| kept(at, spi))), "{required}");
    }
}

/// What the responder has chosen is what was shown to it, or it is nothing: another key that is called the same does not
/// take its place.
#[test]
fn a_ppk_that_gets_another_key_during_a_handshake_is_told() {
    let mut net = changed_while_held(86, [Some((ONE, true)); 2], is_intermediate_answer, |net| {
        net.call(0, |engine, now| engine.reconfigure(now, host(Some((WRONG, true)))));
    });
    net.run(2 * SECOND);
    assert!(is_said(&net, 0, "the PPKs of this host changed while keys were agreed"));
    let proves = |it: &Transmit| is_auth(it) && it.local == Net::socket(0);
    assert!(!net.sent.iter().any(proves), "with what nobody has shown");
}

/// Hosts get a PPK one after the other, optional first: nothing fails, and what has none yet is replaced.
#[test]
fn hosts_move_to_a_ppk_one_by_one() {
    for first in [0, 1] {
        let mut net = two(65, [None; 2]);
        net.keep(0, 1);
        net.run(SECOND);
        for at in [first, 1 - first] {
            assert_eq!(used(&net, 0), None);
            net.call(at, |engine, now| engine.reconfigure(now, host(Some((ONE, false)))));
            net.run(10 * SECOND);
            net.assert_one_pair(0, 1);
        }
        assert_eq!([used(&net, 0), used(&net, 1)].map(|it| it.unwrap()), ["one", "one"]);
        for at in [first, 1 - first] {
            net.call(at, |engine, now| engine.reconfigure(now, host(Some((ONE, true)))));
            net.run(10 * SECOND);
        }
        net.assert_one_pair(0, 1);
        let handshakes = net.hosts[0].engine.counters().handshakes;
        assert!(handshakes.done <= 4 && handshakes.failed == 0, "{handshakes:?}");
    }
}

/// A peer that goes on without is asked again when something has changed, and not again and again.
#[test]
fn a_peer_that_has_none_is_left_in_peace() {
    let mut net = two(66, [Some((ONE, false)), None]);
    net.keep(0, 1);
    net.run(Duration::from_secs(7200));
    net.assert_one_pair(0, 1);
    assert_eq!(net.hosts[0].engine.counters().handshakes.done, 1);
}

/// What was made without serves for as long as a child lives once one is required, and no longer.
#[test]
fn what_has_no_ppk_ends_when_one_is_required() {
    let mut net = two(67, [Some((ONE, false)), None]);
    net.keep(0, 1);
    net.run(SECOND);
    net.call(0, |engine, now| engine.reconfigure(now, host(Some((ONE, true)))));
    net.run(60 * SECOND);
    assert!(!net.hosts[0].children.is_empty(), "it serves for a while");
    assert!(net.hosts[0].engine.summary(pair(0, 1)).unwrap().unproven.is_some(), "and it is told why");
    net.run(Duration::from_secs(2 * 3600));
    assert!(net.hosts[0].children.is_empty());
    assert!(is_said(&net, 0, "the keys have no PPK that is accepted still"));
}

/// The PPK of another agent's SAs is remembered, as what it rests on is.
#[test]
fn adopted_sas_end_where_their_ppk_is_not_taken() {
    for (said, taken) in
        [(Some((ONE, true)), true), (Some((TWO, true)), false), (Some((TWO, false)), false), (None, true)]
    {
        let mut net = two(68, [Some((ONE, true)); 2]);
        net.keep(0, 1);
        net.run(SECOND);
        let spi = net.child_of(0);
        let mut proven = net.hosts[0].engine.proven(net.now, pair(0, 1), spi).unwrap();
        net.call(0, |engine, now| engine.reconfigure(now, host(said)));
        let end = net.hosts[0].engine.end_of(net.now, pair(0, 1), &mut proven);
        assert_eq!(end.is_none(), taken, "{said:?}");
        proven.ppk = None;
        let end = net.hosts[0].engine.end_of(net.now, pair(0, 1), &mut proven);
        assert_eq!(
            end.is_some(),
            said.is_some_and(|(_, required)| required),
            "{said:?} and none in the keys"
        );
    }
}

#[test]
fn control_ike_sas_have_none() {
    let settings = host(Some((ONE, true)));
    let bond = |purpose| Bond { pair: pair(0, 1), purpose };
    let has = [Purpose::Data, Purpose::Control, Purpose::Join].map(|it| settings.ppks(bond(it)).is_some());
    assert_eq!(has, [true, false, false]);
}

/// A stranger's first child has its inbound SA before the answer, with the PPK in its key: if the answer goes without,
/// another child is made.
#[test]
fn an_inbound_sa_ahead_of_an_answer_without_is_made_anew() {
    let mut net = two_with_earlier(72, BOTH_EARLIER, [Some((ONE, false)), Some((TWO, false))]);
    net.hosts[1].engine.pass_for_foreign();
    net.hosts[0].engine.allow_ahead(pair(0, 1), true);
    net.cut =
        Box::new(|transmit| transmit.bytes[EXCHANGE] == IKE_AUTH && transmit.bytes[FLAGS] & RESPONSE != 0);
    net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
    net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
    net.run(SECOND);
    let keys: Vec<Vec<u8>> = net.hosts[0].ahead.values().map(|it| it.key.expose().to_vec()).collect();
    assert_eq!(keys.len(), 1);
    net.cut = Box::new(|_| false);
    assert!(net.run_until(30 * SECOND, |net| net.is_one_pair(0, 1)));
    net.assert_one_pair(0, 1);
    assert!(net.hosts[0].ahead.is_empty());
    let child = net.hosts[0].children.values().next().unwrap();
    assert!(!keys.contains(&child.child.in_key.expose().to_vec()), "a key lives once");
    assert_eq!(used(&net, 0), None);
    // One that knows the PPK keeps it.
    let mut net = two(73, [Some((ONE, false)); 2]);
    net.hosts[1].engine.pass_for_foreign();
    net.hosts[0].engine.allow_ahead(pair(0, 1), true);
    net.keep(0, 1);
    assert!(net.run_until(30 * SECOND, |net| net.is_one_pair(0, 1)));
    assert_eq!(used(&net, 0).as_deref(), Some("one"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any two hosts with any PPKs: both ends think the same of their keys, and no end that requires one goes without.
    #[test]
    fn both_ends_know_the_same_of_their_keys(
        seed: u64,
        earlier in prop::sample::select(EARLIER.to_vec()),
        rules in prop::array::uniform2(prop::option::of((prop::sample::subsequence(vec![0u8, 1, 2, 3], 1..=2), any::<bool>()))),
    ) {
        const NAMES: [(&str, u8); 4] = [("one", 21), ("two", 22), ("one", 23), ("three", 24)];
        type Keys = Vec<(&'static str, u8)>;
        let named = |keys: &Vec<u8>| keys.iter().map(|at| NAMES[usize::from(*at)]).collect::<Keys>();
        let keys: Vec<_> = rules.iter().map(|it| it.as_ref().map(|(keys, required)| (named(keys), *required))).collect();
        let said = [0, 1].map(|at: usize| keys[at].as_ref().map(|(keys, required)| (keys.as_slice(), *required)));
        let mut net = two_with_earlier(Dice(seed).roll(), earlier, said);
        net.keep(0, 1);
        net.run(60 * SECOND);
        if net.is_one_pair(0, 1) {
            net.assert_one_pair(0, 1);
            let [a, b] = [0, 1].map(|at| net.hosts[at].engine.ppk_of(pair(at, 1 - at), net.child_of(at)).unwrap());
            prop_assert_eq!(&a, &b);
            let required = said.iter().flatten().any(|(_, required)| *required);
            prop_assert!(!required || a != PpkUse::None);
        }
    }
}
