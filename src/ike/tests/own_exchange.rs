//! Children with their own key exchange (RFC 7296 section 1.3.1), and with an additional one (RFC 9370 section
//! 2.2.4). How they cross each other and other exchanges is in `collide`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::net::{Dice, Net, SECRET, Weather, by, pair, seeds, settings};
use crate::ike::reason::{Reason, Refusal};
use crate::ike::wire::codes::{notify, transform};
use crate::ike::wire::{Ke, Parts, Payload, parse_chain, write_chain};
use crate::ike::{FailureCode, Settings, stop_tampering, tamper};
use crate::types::{EspProposal, Method, Proposals};

const SECOND: Duration = Duration::from_secs(1);
const CREATE_CHILD_SA: u8 = 36;
const INFORMATIONAL: u8 = 37;
const IKE_FOLLOWUP_KE: u8 = 44;
const CLASSICAL: &str = "aes256gcm16-x25519-esn";
const HYBRID: &str = "aes256gcm16-x25519-ke1_mlkem768-esn";

fn proposals(esp: &str) -> Proposals<EspProposal> {
    Proposals::new(esp.split(", ").map(|text| text.parse().unwrap()).collect()).unwrap()
}

fn listing(esp: &str) -> Settings {
    Settings { esp_proposals: proposals(esp), ..settings(SECRET) }
}

/// Two hosts with these lists, and a child.
fn hosts(seed: u64, esp: [&str; 2]) -> Net {
    let mut net = Net::new(seed, esp.map(listing));
    net.keep(0, 1);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    net.sent.clear();
    net
}

/// The key exchange of the only child, which both ends name alike.
fn exchange(net: &Net) -> Option<String> {
    let of = |host: usize| net.hosts[host].engine.key_exchange_of(pair(host, 1 - host), net.child_of(host));
    assert_eq!(of(0), of(1));
    of(0).map(|it| it.to_string())
}

/// `host` asks for a successor of its child.
fn rekey(net: &mut Net, host: usize) {
    let old = net.child_of(host);
    net.sent.clear();
    net.call(host, |engine, now| engine.rekey_child(now, pair(host, 1 - host), old));
}

/// The same, and there is one.
fn rekeyed(net: &mut Net, host: usize) {
    let old = net.child_of(host);
    rekey(net, host);
    net.run(2 * SECOND);
    net.assert_one_pair(0, 1);
    assert_ne!(net.child_of(host), old);
}

fn exchanges(net: &Net) -> Vec<u8> {
    net.sent.iter().map(|transmit| transmit.bytes[18]).collect()
}

fn count(net: &Net, exchange: u8) -> usize {
    exchanges(net).iter().filter(|it| **it == exchange).count()
}

/// Changes the payloads of all that is said in `exchange`, requests or answers, from now on.
fn tamper_with(exchange: u8, response: bool, change: impl Fn(&mut Vec<Payload>) + 'static) {
    tamper(move |draft| {
        if (draft.exchange, draft.response) != (exchange, response) {
            return;
        }
        let mut payloads = parse_chain(draft.first, &draft.text).unwrap();
        change(&mut payloads);
        draft.first = payloads[0].kind();
        draft.text.clear();
        write_chain(&payloads, &mut draft.text);
    });
}

/// ```text
/// a  --- IKE_AUTH: SA without a group, … ----------------->  b   the first child has the exchange of its IKE SA
/// a  <-- IKE_AUTH -----------------------------------------  b
/// a  --- CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, KEi, TSi … ->  b
/// a  <-- CREATE_CHILD_SA: SA, Nr, KEr, TSi, TSr -----------  b   both have keys of g^ir too
/// ```
#[test]
fn either_end_brings_a_public_value() {
    for rekeying in [0, 1] {
        let mut net = hosts(400, [CLASSICAL; 2]);
        assert_eq!(exchange(&net), None);
        for _ in 0..2 {
            rekeyed(&mut net, rekeying);
            assert_eq!(exchange(&net).as_deref(), Some("x25519"));
            assert_eq!(count(&net, CREATE_CHILD_SA), 2);
        }
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
    }
}

/// ```text
/// a  --- CREATE_CHILD_SA: N(REKEY_SA), SA, Ni, KEi, TSi, TSr ---------------->  b
/// a  <-- CREATE_CHILD_SA: SA, Nr, KEr, TSi, TSr, N(ADDITIONAL_KEY_EXCHANGE) --  b   no child yet
/// a  --- IKE_FOLLOWUP_KE: KEi(1), N(ADDITIONAL_KEY_EXCHANGE) ---------------->  b   in two fragments
/// a  <-- IKE_FOLLOWUP_KE: KEr(1) -------------------------------------------  b   both have the child
/// ```
#[test]
fn either_end_adds_an_exchange() {
    for rekeying in [0, 1] {
        let mut net = hosts(401, [HYBRID; 2]);
        for _ in 0..2 {
            rekeyed(&mut net, rekeying);
            assert_eq!(exchange(&net).as_deref(), Some("x25519-ke1_mlkem768"));
            let mut first = exchanges(&net);
            first.truncate(6);
            let expected =
                [&[CREATE_CHILD_SA; 2], [IKE_FOLLOWUP_KE; 3].as_slice(), &[INFORMATIONAL]].concat();
            assert_eq!(first, expected);
        }
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
    }
}

/// Who lists it and who does not agree on it as soon as one of them insists.
#[test]
fn the_default_has_what_the_other_end_insists_on() {
    let default = Proposals::<EspProposal>::default().to_string();
    let insisting = [
        (CLASSICAL, "x25519", 2),
        (HYBRID, "x25519-ke1_mlkem768", 2),
        // The first time it brings another and is told which one is wanted; then it knows.
        ("aes256gcm16-ecp256", "ecp256", 4),
    ];
    for (insisted, agreed, first) in insisting {
        let mut net = hosts(402, [&default, insisted]);
        for created in [first, 2] {
            rekeyed(&mut net, 0);
            assert_eq!(exchange(&net).as_deref(), Some(agreed));
            assert_eq!(count(&net, CREATE_CHILD_SA), created);
        }
        rekeyed(&mut net, 1);
        assert_eq!((exchange(&net).as_deref(), count(&net, CREATE_CHILD_SA)), (Some(agreed), 2));
        assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
    }
    let mut net = hosts(403, [&default; 2]);
    for host in [0, 1] {
        rekeyed(&mut net, host);
        assert_eq!((exchange(&net), count(&net, CREATE_CHILD_SA)), (None, 2), "nobody asks for it");
    }
}

/// RFC 7296 section 1.3.1. There is software that dies where it is not so.
#[test]
fn a_group_is_never_offered_without_a_public_value() {
    let seen = Rc::new(Cell::new(0));
    for esp in [&Proposals::<EspProposal>::default().to_string(), "aes256gcm16, aes128gcm16-ecp384", HYBRID] {
        let mut net = hosts(419, [esp; 2]);
        let seen = Rc::clone(&seen);
        tamper(move |draft| {
            let payloads = parse_chain(draft.first, &draft.text).unwrap();
            let parts = Parts(&payloads);
            if let (CREATE_CHILD_SA, false, Ok(offers)) = (draft.exchange, draft.response, parts.sa()) {
                let group = parts.ke().expect("a public value").group;
                let transforms = offers.iter().flat_map(|offer| &offer.transforms);
                assert!(transforms.clone().any(|it| (it.kind, it.id) == (transform::DH, group)));
                seen.set(seen.get() + 1);
            }
        });
        rekeyed(&mut net, 0);
        stop_tampering();
    }
    assert_eq!(seen.get(), 3);
}

/// ```text
/// a  --- CREATE_CHILD_SA: KE of x25519 ---------->  b   has ecp384 alone
/// a  <-- CREATE_CHILD_SA: N(INVALID_KE_PAYLOAD) --  b
/// a  --- CREATE_CHILD_SA: KE of ecp384 ---------->  b
/// a  <-- CREATE_CHILD_SA -------------------------  b
/// ```
#[test]
fn who_answers_has_its_group() {
    let (two, one) = ("aes256gcm16-x25519, aes256gcm16-ecp384", "aes256gcm16-ecp384");
    let mut net = hosts(404, [two, one]);
    for created in [4, 2] {
        rekeyed(&mut net, 0);
        assert_eq!((exchange(&net).as_deref(), count(&net, CREATE_CHILD_SA)), (Some("ecp384"), created));
    }
    rekeyed(&mut net, 1);
    assert_eq!((exchange(&net).as_deref(), count(&net, CREATE_CHILD_SA)), (Some("ecp384"), 2));
    assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
}

/// A peer that wants one group and then another is not followed for ever, nor to one that is not listed.
#[test]
fn a_wish_for_another_group_is_obeyed_once() {
    for (wanted, asked) in [(20_u16, 2), (19, 1), (31, 1)] {
        let mut net = hosts(405, ["aes256gcm16-x25519-ecp384"; 2]);
        let child = net.child_of(0);
        net.hosts[1].kernel_refuses = u32::try_from(asked).unwrap();
        tamper_with(CREATE_CHILD_SA, true, move |payloads| {
            *payloads = vec![Payload::notify(notify::INVALID_KE_PAYLOAD, wanted.to_be_bytes().to_vec())];
        });
        rekey(&mut net, 0);
        net.run(Duration::from_millis(200));
        assert_eq!(count(&net, CREATE_CHILD_SA), 2 * asked, "{wanted}");
        assert_eq!(net.hosts[0].failures, [FailureCode::NoProposal]);
        stop_tampering();
        net.run(60 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(0), child, "it is made in the end");
    }
}

/// Who names no group has none, and who names one has no successor without: the keys come from a new IKE SA, whose
/// exchange is as fresh. Lists that have not even a cipher in common leave the child that there is, and try seldom.
#[test]
fn what_is_not_listed_is_refused_and_comes_with_a_new_ike_sa() {
    for esp in [["aes256gcm16-esn", CLASSICAL], [CLASSICAL, HYBRID], ["aes256gcm16-ecp384", CLASSICAL]] {
        for rekeying in [0, 1] {
            let mut net = hosts(406, esp);
            for _ in 0..3 {
                let child = net.child_of(0);
                rekey(&mut net, rekeying);
                net.run(10 * SECOND);
                net.assert_one_pair(0, 1);
                assert_ne!(net.child_of(0), child, "{esp:?}");
            }
            assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "{esp:?}");
        }
    }
    let mut net = hosts(406, ["aes256gcm16-esn"; 2]);
    let child = net.child_of(0);
    net.call(1, |engine, now| engine.reconfigure(now, listing("aes128gcm16-esn")));
    net.run(20 * SECOND);
    net.sent.clear();
    net.run(600 * SECOND);
    assert_eq!(net.child_of(0), child);
    assert!(net.sent.len() < 600, "{}", net.sent.len());
    assert!(net.hosts[1].failures.contains(&FailureCode::NoProposal));
}

/// A file that lists the exchange first, taken while a child without it serves.
#[test]
fn a_changed_list_makes_children_anew() {
    let mut net = hosts(407, ["aes256gcm16-esn"; 2]);
    for esp in ["aes256gcm16-x25519-esn, aes256gcm16-esn", HYBRID, "aes256gcm16-esn"] {
        let child = net.child_of(0);
        for host in [0, 1] {
            net.call(host, |engine, now| engine.reconfigure(now, listing(esp)));
        }
        net.run(20 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(0), child);
        let best = proposals(esp).best_key_exchange().map(|it| it.to_string());
        assert_eq!(exchange(&net), best);
        // What is as it should be stays.
        let child = net.child_of(0);
        net.call(0, |engine, now| engine.reconfigure(now, listing(esp)));
        net.run(20 * SECOND);
        assert_eq!(net.child_of(0), child);
    }
}

/// Keys derived from the secret have no public-key cryptography at all.
#[test]
fn a_derived_child_has_none() {
    let esp_proposals = proposals("aes256gcm16-x25519-esn, aes256gcm16-ecp384-ke1_mlkem768");
    let all = || Settings { esp_proposals: esp_proposals.clone(), ..by(Method::Derived, SECRET) };
    let mut net = Net::new(408, [all(), all()]);
    net.keep(0, 1);
    net.run(SECOND);
    tamper(|draft| {
        let payloads = parse_chain(draft.first, &draft.text).unwrap();
        assert!(Parts(&payloads).ke().is_none());
    });
    for host in [0, 1] {
        rekeyed(&mut net, host);
        assert_eq!((exchange(&net), count(&net, CREATE_CHILD_SA)), (None, 2));
    }
    stop_tampering();
}

/// What is done to payloads.
type Change = fn(&mut Vec<Payload>);
/// What is done to a public value, and what a responder says of it.
type Harm = (&'static str, Change, Refusal);

const HARMS: [Harm; 5] = [
    ("missing", |all| all.retain(|it| !matches!(it, Payload::Ke(_))), Refusal::PublicValue),
    ("too short", |all| with_value(all, |ke| ke.data.truncate(ke.data.len() - 1)), Refusal::Syntax),
    ("too long", |all| with_value(all, |ke| ke.data.push(0)), Refusal::Syntax),
    ("no point", |all| with_value(all, |ke| ke.data.fill(0)), Refusal::Syntax),
    ("of another group", |all| with_value(all, |ke| ke.group = 14), Refusal::PublicValue),
];

fn with_value(payloads: &mut [Payload], change: impl Fn(&mut Ke)) {
    for payload in payloads {
        if let Payload::Ke(ke) = payload {
            change(ke);
        }
    }
}

/// Neither end makes a child with what is no public value, and the next attempt makes one.
#[test]
fn a_public_value_that_is_none_is_refused() {
    for group in ["aes256gcm16-x25519", "aes256gcm16-ecp256", "aes256gcm16-ecp384"] {
        for ((name, harm, refusal), response) in HARMS.iter().flat_map(|harm| [(harm, false), (harm, true)]) {
            let mut net = hosts(409, [group; 2]);
            let child = net.child_of(0);
            tamper_with(CREATE_CHILD_SA, response, *harm);
            rekey(&mut net, 0);
            net.run(Duration::from_millis(300));
            stop_tampering();
            assert_eq!(net.child_of(0), child, "{group} {name}");
            assert!(!net.hosts[0].failures.is_empty());
            if !response {
                let named = format!("{:?}", net.hosts[0].log);
                assert!(named.contains(&format!("{:?}", Reason::from(*refusal))), "{group} {name}: {named}");
            }
            net.run(60 * SECOND);
            net.assert_one_pair(0, 1);
            assert_ne!(net.child_of(0), child, "{group} {name}");
        }
    }
}

/// The same of the additional exchange, and of what ties it to the first.
#[test]
fn an_additional_value_that_is_none_is_refused() {
    let unlinked = |all: &mut Vec<Payload>| {
        all.retain(|it| !matches!(it, Payload::Notify(it) if it.kind == notify::ADDITIONAL_KEY_EXCHANGE));
    };
    let other_link = |all: &mut Vec<Payload>| {
        for payload in all {
            if let Payload::Notify(notify) = payload
                && notify.kind == notify::ADDITIONAL_KEY_EXCHANGE
            {
                notify.data[0] ^= 1;
            }
        }
    };
    let of_key: [(&str, Change); 4] = [HARMS[0], HARMS[1], HARMS[2], HARMS[4]].map(|it| (it.0, it.1));
    let cases = of_key
        .into_iter()
        .flat_map(|(name, harm)| [(IKE_FOLLOWUP_KE, false, name, harm), (IKE_FOLLOWUP_KE, true, name, harm)]);
    let links: [(u8, bool, &str, Change); 4] = [
        (IKE_FOLLOWUP_KE, false, "without a link", unlinked),
        (IKE_FOLLOWUP_KE, false, "with another link", other_link),
        (CREATE_CHILD_SA, true, "answered without a link", unlinked),
        (CREATE_CHILD_SA, true, "answered with another link", other_link),
    ];
    for (exchange, response, name, harm) in cases.chain(links) {
        let mut net = hosts(410, [HYBRID; 2]);
        let child = net.child_of(0);
        tamper_with(exchange, response, harm);
        rekey(&mut net, 0);
        net.run(Duration::from_millis(300));
        stop_tampering();
        assert_eq!(net.child_of(0), child, "{name}");
        net.run(90 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(0), child, "{name} {response}");
    }
}

/// A ciphertext that was changed gives other keys at each end (FIPS 203 section 6.3): the child is there and carries
/// nothing, which the agent finds out with its probe. Nobody without the keys of the IKE SA can change it.
#[test]
fn the_additional_secret_is_in_the_keys() {
    let mut net = hosts(411, [HYBRID; 2]);
    let old = net.child_of(0);
    tamper_with(IKE_FOLLOWUP_KE, true, |all| with_value(all, |ke| ke.data[5] ^= 1));
    rekey(&mut net, 0);
    net.run(Duration::from_millis(300));
    stop_tampering();
    let new = |host: usize| {
        let mut children = net.hosts[host].children.values();
        children.find(|it| it.child.initiator == (host == 0) && !it.replaced).map(|it| &it.child).unwrap()
    };
    assert_ne!(new(0).in_spi, old);
    assert_eq!((new(0).in_spi, new(0).out_spi), (new(1).out_spi, new(1).in_spi));
    assert!(new(0).in_key.expose() != new(1).out_key.expose());
}

/// Each message of a rekey is lost once.
#[test]
fn each_message_may_be_lost() {
    for (esp, messages) in [(CLASSICAL, 2), (HYBRID, 5)] {
        for (rekeying, nth) in [0, 1].into_iter().flat_map(|host| (0..messages).map(move |nth| (host, nth))) {
            let mut net = hosts(412, [esp; 2]);
            let sent = Cell::new(0);
            net.cut = Box::new(move |_| sent.replace(sent.get() + 1) == nth);
            rekeyed(&mut net, rekeying);
            assert!(exchange(&net).is_some());
            assert!(net.hosts.iter().all(|host| host.failures.is_empty()), "lost {nth}");
        }
    }
}

/// What was recorded of a rekey, the additional exchange too, makes no second child.
#[test]
fn what_is_played_again_changes_nothing() {
    let mut net = hosts(413, [HYBRID; 2]);
    rekeyed(&mut net, 0);
    let (recorded, child) = (std::mem::take(&mut net.sent), net.child_of(0));
    let agreed = |net: &Net| net.hosts[1].log.iter().filter(|it| it.starts_with("ChildAgreed")).count();
    let before = agreed(&net);
    for transmit in recorded.iter().chain(&recorded) {
        net.inject(transmit);
    }
    assert!(net.sent.iter().all(|answer| recorded.contains(answer)), "nothing new is said");
    assert_eq!(agreed(&net), before);
    net.run(30 * SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!(net.child_of(0), child);
}

/// One end begins a child and does not go on with it: nothing of it is in a kernel, and it is made in the end.
#[test]
fn a_child_that_is_left_half_made_is_made_in_the_end() {
    for beginning in [0, 1] {
        let mut net = hosts(414, [HYBRID; 2]);
        let child = net.child_of(0);
        net.cut = Box::new(|transmit| transmit.bytes[18] == IKE_FOLLOWUP_KE);
        rekey(&mut net, beginning);
        net.run(SECOND);
        assert!(count(&net, IKE_FOLLOWUP_KE) > 2);
        net.assert_one_pair(0, 1);
        assert_eq!(net.child_of(0), child);
        net.cut = Box::new(|_| false);
        net.run(90 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(0), child);
    }
}

/// The peer begins a child and forgets that it did; what it left is given up, and the child is made by this end.
#[test]
fn what_the_peer_does_not_go_on_with_is_given_up() {
    let mut net = hosts(415, [HYBRID; 2]);
    let child = net.child_of(1);
    // The answer says that it is a refusal: whoever began it does not go on.
    tamper_with(CREATE_CHILD_SA, true, |all| {
        *all = vec![Payload::notify(notify::NO_ADDITIONAL_SAS, Vec::new())]
    });
    rekey(&mut net, 0);
    net.run(Duration::from_millis(100));
    stop_tampering();
    assert_eq!(net.hosts[0].failures, [FailureCode::PeerRefused]);
    // Without the first end, which would try again.
    net.cut = Box::new(|transmit| transmit.local == Net::socket(0) && transmit.bytes[19] & 0x20 == 0);
    net.run(15 * SECOND);
    assert_eq!(net.child_of(1), child, "it may still go on");
    net.run(15 * SECOND);
    net.cut = Box::new(|_| false);
    net.run(10 * SECOND);
    net.assert_one_pair(0, 1);
    assert_ne!(net.child_of(1), child);
}

/// The kernel refuses the child when it is whole: the old one serves until another is made.
#[test]
fn a_kernel_that_refuses_it_leaves_the_old_one() {
    for refusing in [0, 1] {
        let mut net = hosts(416, [HYBRID; 2]);
        let child = net.child_of(0);
        net.hosts[refusing].kernel_refuses = 1;
        rekey(&mut net, 0);
        net.run(60 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(0), child);
        assert_eq!(net.hosts[refusing].kernel_refuses, 0);
    }
}

#[test]
fn it_gets_through_bad_weather() {
    for seed in seeds(20) {
        let often = || Settings { rekey_after: Duration::from_secs(5), ..listing(HYBRID) };
        let all = || Settings { ike_proposals: Proposals::default(), ..often() };
        let mut net = Net::new(6000 + seed, [all(), all()]);
        net.weather = Weather { loss: 20, duplication: 10, delay: 200 };
        net.keep(0, 1);
        net.run(120 * SECOND);
        net.weather = Weather::default();
        net.run(10 * SECOND);
        assert!(net.run_until(60 * SECOND, |net| net.is_one_pair(0, 1)));
        net.assert_one_pair(0, 1);
    }
}

#[test]
fn mutated_datagrams_change_nothing() {
    let mut net = hosts(417, [HYBRID; 2]);
    rekeyed(&mut net, 1);
    let recorded = std::mem::take(&mut net.sent);
    net.endure_flips(&recorded, 418);
}

/// A peer with the keys says what no honest peer says; afterwards the two find to each other again.
#[test]
fn an_insider_does_no_lasting_harm() {
    for seed in seeds(20) {
        let mut net = hosts(7000 + seed, [HYBRID; 2]);
        let mut dice = Dice(!seed);
        tamper(move |draft| {
            if dice.percent(30) && !draft.text.is_empty() {
                let at = usize::try_from(dice.below(draft.text.len() as u64)).unwrap();
                draft.text[at] ^= dice.roll().to_be_bytes()[0];
            }
        });
        for round in 0..20 {
            let host = round % 2;
            let (pair, child) = (pair(host, 1 - host), net.hosts[host].children.keys().next().copied());
            net.call(host, |engine, now| match (round / 2 % 3, child) {
                (0 | 1, Some(child)) => engine.rekey_child(now, pair, child),
                _ => engine.rekey_ike(now, pair),
            });
            net.run(SECOND);
            assert!(net.hosts[host].children.len() <= 8 * 8);
        }
        stop_tampering();
        for host in [0, 1] {
            net.call(host, |engine, now| engine.forget(now, pair(host, 1 - host)));
        }
        net.run(60 * SECOND);
        net.keep(0, 1);
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
    }
}
