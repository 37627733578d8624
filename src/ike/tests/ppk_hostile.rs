//! Whoever wants post-quantum preshared keys away, or says odd things of them: somebody on the path, who changes and
//! copies what is said in the clear, and a member that has gone bad.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::net::{Net, SECRET, classical, pair, settings};
use super::ppk::{
    BOTH_EARLIER, ONE, SECOND, TWO, WRONG, forget, is_init, is_intermediate_answer, is_said, two,
    two_with_earlier, used, with,
};
use crate::identity::PpkUse;
use crate::ike::insider::cover_tampering;
use crate::ike::wire::codes::{Exchange, notify, payload, transform};
use crate::ike::wire::{Message, Payload, Transform, parse_chain, write_chain, write_clear};
use crate::ike::{Draft, Posture, Settings, Transmit, stop_tampering, tamper};
use crate::types::Proposals;

/// What somebody on the path may take away, and who knows nothing of PPKs in IKE_INTERMEDIATE then. Each changes all that
/// the first messages say.
const STRIPPED: [(&[u16], &[usize]); 4] = [
    (&[notify::USE_PPK_INT], &[]),
    (&[notify::USE_PPK_INT, notify::DRAFT_USE_PPK_INT], &[]),
    (&[notify::USE_PPK, notify::USE_PPK_INT, notify::DRAFT_USE_PPK_INT], &[]),
    (&[notify::USE_PPK], BOTH_EARLIER),
];

/// `transmit` without these words of its sender.
fn stripped(transmit: &Transmit, words: &[u16]) -> Transmit {
    let message = Message::parse(&transmit.bytes).unwrap();
    let is_use = |payload: &Payload| matches!(payload, Payload::Notify(it) if words.contains(&it.kind));
    let payloads: Vec<Payload> = message.payloads.into_iter().filter(|it| !is_use(it)).collect();
    Transmit { bytes: write_clear(message.header, &payloads), ..transmit.clone() }
}

/// Somebody on the path takes the word away, in one direction or in both: nothing is made without a PPK of two hosts that
/// both have one, required or not.
#[test]
fn who_strips_the_word_gets_no_keys_without() {
    for ((words, earlier), required) in STRIPPED.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        for which in [[true, false], [false, true], [true, true]] {
            let mut net = two_with_earlier(69, earlier, [Some((ONE, required)); 2]);
            net.middlebox = Box::new(move |transmit| {
                let strips = is_init(&transmit) && which[usize::from(transmit.local != Net::socket(0))];
                if strips { stripped(&transmit, words) } else { transmit }
            });
            net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
            net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
            net.run(60 * SECOND);
            assert!(net.hosts.iter().all(|host| host.children.is_empty()), "{required} {which:?}");
            net.middlebox = Box::new(|transmit| transmit);
            assert!(net.run_until(120 * SECOND, |net| net.is_one_pair(0, 1)), "{required} {which:?}");
            assert_eq!(used(&net, 0).as_deref(), Some("one"));
        }
    }
}

/// The same by copies that come sooner or later than the true messages, of which one would do: what was gone by is what
/// AUTH is about.
#[test]
fn a_copy_without_the_word_makes_nobody_go_without() {
    for ((words, earlier), required) in STRIPPED.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        for (request, answer) in [(true, false), (false, true), (true, true)] {
            for sooner in [false, true] {
                let mut net = two_with_earlier(70, earlier, [Some((ONE, required)); 2]);
                net.cut = Box::new(|_| true);
                net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
                net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
                net.run(Duration::ZERO);
                let sent = net.sent.last().unwrap().clone();
                let with_copy = |transmit: &Transmit, copied: bool| {
                    let both = [stripped(transmit, words), transmit.clone()];
                    let from = usize::from(!copied);
                    let mut all = both[from..].to_vec();
                    if !sooner {
                        all.reverse();
                    }
                    all
                };
                for transmit in with_copy(&sent, request) {
                    net.inject(&transmit);
                }
                let answered = net.sent.iter().rfind(|it| it.remote == Net::socket(0)).unwrap().clone();
                net.cut = Box::new(|_| false);
                for transmit in with_copy(&answered, answer) {
                    net.inject(&transmit);
                }
                net.run(Duration::from_millis(100));
                for at in 0..2 {
                    let went_without = net.hosts[at]
                        .children
                        .keys()
                        .any(|spi| net.hosts[at].engine.ppk_of(pair(at, 1 - at), *spi) == Some(PpkUse::None));
                    assert!(!went_without, "host {at}: {required} {request} {answer} {sooner}");
                }
                assert!(net.run_until(120 * SECOND, |net| net.is_one_pair(0, 1)));
                assert_eq!(used(&net, 0).as_deref(), Some("one"));
            }
        }
    }
}

/// A copy of an answer that says these words of what comes next, and no others.
fn saying(answer: &Transmit, words: &[u16]) -> Transmit {
    const WORDS: [u16; 4] = [
        notify::USE_PPK,
        notify::USE_PPK_INT,
        notify::DRAFT_USE_PPK_INT,
        notify::INTERMEDIATE_EXCHANGE_SUPPORTED,
    ];
    let bare = stripped(answer, &WORDS);
    let message = Message::parse(&bare.bytes).unwrap();
    let mut payloads = message.payloads;
    payloads.extend(words.iter().map(|kind| Payload::notify(*kind, Vec::new())));
    Transmit { bytes: write_clear(message.header, &payloads), ..answer.clone() }
}

/// A copy of the true answer comes first, and says that the PPK comes in elsewhere, or not at all: the true one counts, and
/// nothing is lost.
#[test]
fn a_copy_that_puts_the_ppk_elsewhere_costs_nothing() {
    let copies: [&[u16]; 5] = [
        &[notify::USE_PPK],
        &[notify::USE_PPK_INT],
        &[notify::DRAFT_USE_PPK_INT],
        &[notify::USE_PPK, notify::USE_PPK_INT],
        &[],
    ];
    for (earlier, copied) in [&[][..], &[1]].into_iter().flat_map(|it| copies.map(|copied| (it, copied))) {
        for (hybrid, required) in [(false, false), (false, true), (true, false), (true, true)] {
            // Here the request in IKE_AUTH itself is another one, and its answer says no.
            if !earlier.is_empty() && copied.is_empty() && !hybrid && !required {
                continue;
            }
            // Here nothing tells the copy that comes first from the truth before AUTH does.
            if !earlier.is_empty() && copied != [notify::USE_PPK] && hybrid && !required {
                continue;
            }
            let case = format!("{earlier:?} {copied:?}, hybrid: {hybrid}, required: {required}");
            forget(earlier);
            let ike_proposals = || if hybrid { Proposals::default() } else { classical() };
            let host = || {
                with(Settings { ike_proposals: ike_proposals(), ..settings(SECRET) }, Some((ONE, required)))
            };
            let mut net = Net::new(87, [host(), host()]);
            let answer = net.hold_first_answer().1;
            let copy = saying(&answer, &[&[notify::INTERMEDIATE_EXCHANGE_SUPPORTED], copied].concat());
            net.cut = Box::new(|_| false);
            net.inject(&copy);
            net.inject(&answer);
            assert!(net.run_until(Duration::from_millis(100), |net| net.is_one_pair(0, 1)), "{case}");
            assert_eq!([used(&net, 0), used(&net, 1)].map(|it| it.unwrap()), ["one", "one"], "{case}");
            net.run(20 * SECOND);
            net.assert_one_pair(0, 1);
            let begun = net.sent.iter().filter(|it| is_init(it) && it.local == Net::socket(0));
            assert_eq!(begun.count(), 1, "{case}");
        }
    }
}

/// Whoever cannot be first does not end an attempt: the copy comes after the true answer, and before the next one.
#[test]
fn a_copy_that_comes_second_costs_nothing() {
    for theirs in [None, Some((TWO, false))] {
        let host = |rule| with(Settings { ike_proposals: Proposals::default(), ..settings(SECRET) }, rule);
        forget(&[]);
        let mut net = Net::new(88, [host(Some((ONE, false))), host(theirs)]);
        let answer = net.hold_first_answer().1;
        let copy = saying(&answer, &[notify::INTERMEDIATE_EXCHANGE_SUPPORTED, notify::USE_PPK]);
        net.inject(&answer);
        net.inject(&copy);
        net.cut = Box::new(|_| false);
        assert!(net.run_until(20 * SECOND, |net| net.is_one_pair(0, 1)), "{theirs:?}");
        let begun = net.sent.iter().filter(|it| is_init(it) && it.local == Net::socket(0));
        assert_eq!(begun.count(), 1, "{theirs:?}");
    }
}

/// A copy of an answer that takes the additional key exchange out, or puts it in: the other proposal of the default that
/// differs in that alone.
fn with_other_additional(answer: &Transmit) -> Transmit {
    let message = Message::parse(&answer.bytes).unwrap();
    let mut payloads = message.payloads;
    for payload in &mut payloads {
        let Payload::Sa(proposals) = payload else { continue };
        let [chosen] = &mut proposals[..] else { panic!("an answer chooses one") };
        let ml_kem = Transform::new(transform::ADDKE1, transform::ADDKE_ML_KEM_768);
        chosen.number = match chosen.transforms.iter().position(|it| *it == ml_kem) {
            Some(at) => {
                chosen.transforms.remove(at);
                2
            }
            None => {
                chosen.transforms.push(ml_kem);
                1
            }
        };
    }
    Transmit { bytes: write_clear(message.header, &payloads), ..answer.clone() }
}

/// The numbers in the initialization vectors of what host 0 has encrypted before it had other keys, each datagram once.
fn early_numbers(net: &Net) -> Vec<[u8; 2]> {
    let is_early =
        |it: &&Transmit| it.local == Net::socket(0) && !is_init(it) && it.bytes[20..24] == [0, 0, 0, 1];
    let datagrams: HashSet<&Vec<u8>> = net.sent.iter().filter(is_early).map(|it| &it.bytes).collect();
    // RFC 7383 section 2.5: a fragment says which of how many it is before it.
    let at = |it: &[u8]| if it[16] == payload::FRAGMENT { 36 } else { 32 };
    datagrams.into_iter().map(|it| [it[at(it)], it[at(it) + 1]]).collect()
}

/// Somebody has ML-KEM out of the true answer, or in it, and the PPK elsewhere: the host that answered goes on with what it
/// has said, however many ways the other one tries.
#[test]
fn a_copy_with_another_additional_exchange_costs_nothing() {
    let cases = [true, false].into_iter().flat_map(|hybrid| [(hybrid, false), (hybrid, true)]);
    for (hybrid, required) in cases {
        let theirs = || if hybrid { Proposals::default() } else { classical() };
        let of = |ike_proposals| with(Settings { ike_proposals, ..settings(SECRET) }, Some((ONE, required)));
        for (order, lossy, packet_max) in [
            (&[1, 0][..], false, None),
            (&[0, 1], false, None),
            (&[2, 1, 0], false, None),
            (&[2, 0, 1], true, None),
            (&[1, 2, 0], true, Some(600)),
            (&[1, 0, 2], false, Some(600)),
        ] {
            let case = format!("hybrid: {hybrid}, required: {required}, {order:?}, {lossy}, {packet_max:?}");
            forget(&[]);
            let mut net = Net::new(89, [of(Proposals::default()), of(theirs())]);
            if let Some(octets) = packet_max {
                net.hosts.iter_mut().for_each(|host| host.engine.packet_max = octets);
            }
            let answer = net.hold_first_answer().1;
            let copy = with_other_additional(&answer);
            let elsewhere = saying(&copy, &[notify::INTERMEDIATE_EXCHANGE_SUPPORTED, notify::USE_PPK]);
            let all = [answer, copy, elsewhere];
            net.cut = Box::new(|_| false);
            if lossy {
                net.cut = Box::new(is_intermediate_answer);
            }
            order.iter().for_each(|at| net.inject(&all[*at]));
            let mut patience = Duration::from_millis(100);
            if lossy {
                net.run(SECOND);
                net.cut = Box::new(|_| false);
                patience = 5 * SECOND;
            }
            assert!(net.run_until(patience, |net| net.is_one_pair(0, 1)), "{case}");
            assert_eq!([used(&net, 0), used(&net, 1)].map(|it| it.unwrap()), ["one", "one"], "{case}");
            net.run(20 * SECOND);
            net.assert_one_pair(0, 1);
            let begun: HashSet<_> = net
                .sent
                .iter()
                .filter(|it| is_init(it) && it.local == Net::socket(0))
                .map(|it| it.bytes[..8].to_vec())
                .collect();
            assert_eq!(begun.len(), 1, "{case}");
            assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "{case}");
            let mut numbers = early_numbers(&net);
            assert!(numbers.len() >= 2, "{case}");
            numbers.sort_unstable();
            assert!(numbers.windows(2).all(|it| it[0] != it[1]), "{case}: {numbers:?}");
        }
    }
}

/// Changes the payloads of an exchange before they are encrypted.
fn tamper_with(exchange: Exchange, answer: bool, mut change: impl FnMut(&mut Vec<Payload>) + 'static) {
    tamper(move |draft: &mut Draft| {
        if draft.exchange == exchange.0 && draft.response == answer {
            let mut payloads = parse_chain(draft.first, &draft.text).unwrap();
            change(&mut payloads);
            draft.text.clear();
            write_chain(&payloads, &mut draft.text);
            draft.first = payloads.first().map_or(0, Payload::kind);
        }
    });
}

/// What a peer calls its PPK is shown to people, who are not to read what it likes.
#[test]
fn a_peer_gets_no_words_in() {
    for (earlier, exchange, kind, answer) in [
        (BOTH_EARLIER, Exchange::IKE_AUTH, notify::PPK_IDENTITY, false),
        (&[], Exchange::IKE_INTERMEDIATE, notify::PPK_IDENTITY_KEY, false),
        (&[], Exchange::IKE_INTERMEDIATE, notify::PPK_IDENTITY, true),
    ] {
        let mut net =
            two_with_earlier(75, earlier, [Some((TWO, true)), Some((if answer { TWO } else { ONE }, true))]);
        tamper_with(exchange, answer, move |payloads| {
            let name = [&[2][..], b"x\" is fine. Run `evil` \x1b[31m", &[0xff; 100]].concat();
            payloads.retain(|it| !matches!(it, Payload::Notify(it) if it.kind == kind));
            payloads.push(Payload::notify(kind, name));
        });
        net.keep(0, 1);
        net.run(5 * SECOND);
        stop_tampering();
        assert!((0..2).any(|at| is_said(&net, at, "the peer uses PPK \"x??is?fine.?Run??evil????31m???")));
        assert!((0..2).all(|at| net.hosts[at].log.iter().all(|line| line.is_ascii() && line.len() < 400)));
    }
}

/// What ends say to each other in IKE_INTERMEDIATE of a PPK that is not the same at both, or that one of them leaves out
/// and has AUTH cover.
#[test]
fn an_early_ppk_is_named_shown_and_chosen() {
    let named = |payloads: &mut Vec<Payload>, kind| {
        payloads.retain(|it| !matches!(it, Payload::Notify(it) if it.kind == kind));
    };
    for required in [false, true] {
        for (answer, kind) in [(false, notify::PPK_IDENTITY_KEY), (true, notify::PPK_IDENTITY)] {
            let mut net = two(80, [Some((ONE, required)); 2]);
            tamper_with(Exchange::IKE_INTERMEDIATE, answer, move |payloads| named(payloads, kind));
            cover_tampering();
            net.keep(0, 1);
            net.run(10 * SECOND);
            stop_tampering();
            if !required && !answer {
                net.assert_one_pair(0, 1);
                assert_eq!([used(&net, 0), used(&net, 1)], [None, None]);
                assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "nobody is alarmed");
                continue;
            }
            assert!(net.hosts.iter().all(|host| host.children.is_empty()), "{required} {answer}");
            assert!(!required || (0..2).any(|at| is_said(&net, at, "uses no PPK")), "{answer}");
        }
    }
    let mut net = two(81, [Some((ONE, true)), Some((WRONG, true))]);
    net.keep(0, 1);
    net.run(10 * SECOND);
    assert!((0..2).any(|at| is_said(&net, at, "the peer has another key for PPK \"one\": compare")));
    assert!((0..2).any(|at| is_said(&net, at, "the peer rejected all PPKs of this host (\"one\")")));
}

/// What a member may say that has gone bad, and has AUTH cover it.
#[test]
fn a_member_that_says_odd_things_of_ppks_gets_in_with_the_right_one_alone() {
    let wrong = || Payload::notify(notify::PPK_IDENTITY_KEY, [&[2][..], b"one", &[0; 8]].concat());
    let choice = |id: &[u8]| Payload::notify(notify::PPK_IDENTITY, [&[2], id].concat());
    type Change = Box<dyn FnMut(&mut Vec<Payload>)>;
    let cases: [(Exchange, bool, Change, Result<(), &str>); 5] = [
        // The right one is there, too.
        (Exchange::IKE_INTERMEDIATE, false, Box::new(move |it| it.insert(0, wrong())), Ok(())),
        (Exchange::IKE_INTERMEDIATE, false, Box::new(move |it| it.push(wrong())), Ok(())),
        // Not what was shown.
        (
            Exchange::IKE_INTERMEDIATE,
            true,
            Box::new(move |it| it.splice(.., [choice(b"two")]).for_each(drop)),
            Err("uses PPK \"two\", which is not known here"),
        ),
        // The first word counts.
        (Exchange::IKE_INTERMEDIATE, true, Box::new(move |it| it.push(choice(b"two"))), Ok(())),
        // It is in the keys already.
        (Exchange::IKE_AUTH, true, Box::new(move |it| it.push(choice(b"two"))), Ok(())),
    ];
    for (at, (exchange, answer, change, expected)) in cases.into_iter().enumerate() {
        let mut net = two(88, [Some((ONE, true)); 2]);
        tamper_with(exchange, answer, change);
        cover_tampering();
        net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
        net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
        net.run(5 * SECOND);
        stop_tampering();
        match expected {
            Ok(()) => {
                net.assert_one_pair(0, 1);
                assert_eq!([used(&net, 0), used(&net, 1)].map(|it| it.unwrap()), ["one", "one"], "{at}");
            }
            Err(words) => {
                assert!(net.hosts.iter().all(|host| host.children.is_empty()), "{at}");
                assert!(is_said(&net, 0, words), "{at}");
            }
        }
    }
}

/// Whoever has proven nothing names as many as a message may have payloads, and no more.
#[test]
fn a_request_that_names_too_many_is_refused() {
    for (before, named) in [(63, true), (64, false)] {
        let mut net = two(82, [Some((ONE, true)); 2]);
        tamper_with(Exchange::IKE_INTERMEDIATE, false, move |payloads| {
            let other = Payload::notify(notify::PPK_IDENTITY_KEY, [&[2][..], b"one", &[0; 8]].concat());
            payloads.splice(0..0, vec![other; before]);
        });
        net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
        net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
        net.run(10 * SECOND);
        stop_tampering();
        assert!(net.hosts.iter().all(|host| host.children.is_empty()), "AUTH covers what was said");
        assert_eq!(is_said(&net, 1, "too many payloads"), !named, "{before}");
        assert!(!is_said(&net, 1, "another key"), "the last one that is named is the right one");
    }
}

/// Whoever has the keys of IKE, and the secret, but says less than it must.
#[test]
fn a_proof_without_its_name_is_refused() {
    for required in [false, true] {
        for (answer, kind) in
            [(false, notify::PPK_IDENTITY), (true, notify::PPK_IDENTITY), (false, notify::NO_PPK_AUTH)]
        {
            let mut net = two_with_earlier(71, BOTH_EARLIER, [Some((ONE, required)); 2]);
            tamper_with(Exchange::IKE_AUTH, answer, move |payloads| {
                payloads.retain(|it| !matches!(it, Payload::Notify(it) if it.kind == kind));
            });
            net.keep(0, 1);
            net.run(10 * SECOND);
            stop_tampering();
            let made = net.hosts.iter().any(|host| !host.children.is_empty());
            // Without NO_PPK_AUTH there is still AUTH, where the PPK is known.
            assert_eq!(made, kind == notify::NO_PPK_AUTH, "{required} {answer} {kind}");
            let words = match (required, answer) {
                (true, _) => "uses no PPK",
                (false, false) => "names no PPK",
                (false, true) => "another secret",
            };
            assert!(made || (0..2).any(|at| is_said(&net, at, words)), "{required} {answer}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is said of PPKs in IKE_AUTH by whoever has no PPK, none required is none less, and nobody panics.
    #[test]
    fn any_word_of_ppks_is_taken_without_panic(
        name in prop::option::of(prop::collection::vec(any::<u8>(), 0..80)),
        auth in prop::option::of(prop::collection::vec(any::<u8>(), 0..80)),
        answer: bool,
        required: bool,
    ) {
        let mut net = two_with_earlier(74, BOTH_EARLIER, [Some((ONE, required)); 2]);
        tamper_with(Exchange::IKE_AUTH, answer, move |payloads| {
            payloads.retain(|it| {
                !matches!(it, Payload::Notify(it) if [notify::PPK_IDENTITY, notify::NO_PPK_AUTH].contains(&it.kind))
            });
            payloads.extend(name.clone().map(|data| Payload::notify(notify::PPK_IDENTITY, data)));
            payloads.extend(auth.clone().map(|data| Payload::notify(notify::NO_PPK_AUTH, data)));
        });
        net.keep(0, 1);
        net.run(5 * SECOND);
        stop_tampering();
        for at in 0..2 {
            for spi in net.hosts[at].children.keys() {
                let PpkUse::Used(tag) = net.hosts[at].engine.ppk_of(pair(at, 1 - at), *spi).unwrap() else {
                    panic!("keys without a PPK");
                };
                prop_assert_eq!(tag.id(), "one");
            }
        }
    }

    /// The same in IKE_INTERMEDIATE, from somebody on the way, or from a member that has AUTH cover it. Both ends think the
    /// same of the keys, and they go without where none is required and the member says nothing of the right one.
    #[test]
    fn any_early_word_of_ppks_is_taken_without_panic(
        words in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..80)), 0..5),
        keeps: bool,
        is_covered: bool,
        answer: bool,
        required: bool,
    ) {
        let mut net = two(83, [Some((ONE, required)); 2]);
        tamper_with(Exchange::IKE_INTERMEDIATE, answer, move |payloads| {
            let kinds = [notify::PPK_IDENTITY, notify::PPK_IDENTITY_KEY];
            payloads.retain(|it| keeps || !matches!(it, Payload::Notify(it) if kinds.contains(&it.kind)));
            let words = words.iter().map(|(kind, data)| Payload::notify(kinds[usize::from(*kind)], data.clone()));
            payloads.extend(words);
        });
        if is_covered {
            cover_tampering();
        }
        net.keep(0, 1);
        net.run(5 * SECOND);
        stop_tampering();
        let may_lack = is_covered && !required && !answer && !keeps;
        for at in 0..2 {
            for spi in net.hosts[at].children.keys() {
                match net.hosts[at].engine.ppk_of(pair(at, 1 - at), *spi).unwrap() {
                    PpkUse::Used(tag) => prop_assert_eq!(tag.id(), "one"),
                    PpkUse::None => prop_assert!(may_lack, "keys without a PPK"),
                }
            }
        }
        if net.is_one_pair(0, 1) {
            prop_assert_eq!(used(&net, 0), used(&net, 1));
        }
    }
}
