//! Rekeys, alone and crossing each other.

use std::time::Duration;

use super::net::{Net, SECRET, Weather, by, pair, seeds};
use crate::ike::Settings;
use crate::types::{Method, Outcomes, Proposals, Rekeys};

const SECOND: Duration = Duration::from_secs(1);
const ONCE: Outcomes = Outcomes { done: 1, failed: 0 };

/// How the keys of children are made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// From those of an IKE SA that was negotiated.
    Negotiated,
    /// From those of one without Diffie-Hellman.
    Derived,
    /// With their own key exchange.
    OwnExchange,
    /// With two: IKE_FOLLOWUP_KE.
    TwoExchanges,
}

impl Way {
    fn settings(self) -> Settings {
        let negotiated = by(Method::Ike, SECRET);
        let listing = |esp: &str| Proposals::new(vec![esp.parse().unwrap()]).unwrap();
        match self {
            Way::Negotiated => negotiated,
            Way::Derived => by(Method::Derived, SECRET),
            Way::OwnExchange => Settings { esp_proposals: listing("aes256gcm16-x25519"), ..negotiated },
            Way::TwoExchanges => {
                Settings { esp_proposals: listing("aes256gcm16-x25519-ke1_mlkem768"), ..negotiated }
            }
        }
    }
}

/// Makes a test of each function for each way.
macro_rules! by_each_way {
    ($($name:ident),+ $(,)?) => {
        by_each_way!(@ negotiated Negotiated $($name)+);
        by_each_way!(@ derived Derived $($name)+);
        by_each_way!(@ own_exchange OwnExchange $($name)+);
        by_each_way!(@ two_exchanges TwoExchanges $($name)+);
    };
    (@ $module:ident $way:ident $($name:ident)+) => {
        mod $module {
            $(#[test] fn $name() { super::$name(super::Way::$way) })+
        }
    };
}

fn established(way: Way, seed: u64) -> Net {
    let mut net = Net::new(seed, [way.settings(), way.settings()]);
    net.keep(0, 1);
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    net
}

/// ```text
/// a  --- CREATE_CHILD_SA: N(REKEY_SA), … --->  b
/// a  <-- CREATE_CHILD_SA ---------------------  b
///    both send through the new one
/// a  --- INFORMATIONAL: D(old) -------------->  b
/// a  <-- INFORMATIONAL: D(old) ---------------  b
/// ```
fn either_end_rekeys_a_child(way: Way) {
    for rekeying in [0, 1] {
        let mut net = established(way, 20);
        let old = net.child_of(rekeying);
        net.call(rekeying, |engine, now| engine.rekey_child(now, pair(rekeying, 1 - rekeying), old));
        net.run(Duration::from_millis(500));
        assert_eq!(net.hosts[0].children.len(), 2, "the old one stays for its grace");
        net.run(2 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(rekeying), old);
        assert!(net.hosts[rekeying].children.values().all(|it| it.child.initiator));
        for counters in net.hosts.iter().map(|host| host.engine.counters()) {
            let rekeys = Rekeys { child: ONCE, ..Rekeys::default() };
            assert_eq!((counters.rekeys, counters.handshakes), (rekeys, ONCE));
            assert_eq!(counters.handshake_durations.count(), 1);
        }
    }
}

/// ```text
/// a  --- CREATE_CHILD_SA: N(REKEY_SA) --->\  /<--- CREATE_CHILD_SA: N(REKEY_SA) ---  b
///                                           \/
///                                           /\
/// a  <-- CREATE_CHILD_SA -----------------/    \--- CREATE_CHILD_SA -------------->  b
///    the one made with the lowest nonce is deleted by whoever asked for it
/// ```
fn both_rekey_a_child_at_once(way: Way) {
    let mut winners = [0, 0];
    for seed in seeds(40) {
        let mut net = established(way, seed);
        net.weather.delay = if seed % 2 == 0 { 0 } else { 300 };
        let (a, b) = (net.child_of(0), net.child_of(1));
        let now = net.now;
        net.hosts[0].engine.rekey_child(now, pair(0, 1), a);
        net.hosts[1].engine.rekey_child(now, pair(1, 0), b);
        net.drain();
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
        let winner = &net.hosts[0].children[&net.child_of(0)].child;
        assert!(winner.in_spi != a);
        winners[usize::from(winner.initiator)] += 1;
    }
    assert!(winners[0] > 5 && winners[1] > 5, "chance decides: {winners:?}");
}

/// The answer to a request that loses comes late: the child that won has been replaced meanwhile.
fn an_answer_that_comes_late_leaves_no_second_child(way: Way) {
    let mut late = 0;
    for seed in seeds(20) {
        let mut net = established(way, seed);
        let (a, b, now) = (net.child_of(0), net.child_of(1), net.now);
        let is_answer = |bytes: &[u8]| bytes[18] == 36 && bytes[19] & 0x20 != 0;
        net.cut = Box::new(move |sent| sent.local == Net::socket(1) && is_answer(&sent.bytes));
        net.hosts[0].engine.rekey_child(now, pair(0, 1), a);
        net.hosts[1].engine.rekey_child(now, pair(1, 0), b);
        net.drain();
        net.run(3 * SECOND);
        let won = net.hosts[1].children.values().find(|it| it.child.initiator && !it.replaced);
        if let Some(won) = won.map(|it| it.child.in_spi) {
            late += 1;
            net.call(1, |engine, now| engine.rekey_child(now, pair(1, 0), won));
            net.run(3 * SECOND);
        }
        net.cut = Box::new(|_| false);
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
    }
    assert!(late > 5, "{late} answers were late");
}

#[test]
fn either_end_rekeys_the_ike_sa() {
    for rekeying in [0, 1] {
        let mut net = established(Way::Negotiated, 21);
        let child = net.child_of(0);
        net.call(rekeying, |engine, now| engine.rekey_ike(now, pair(rekeying, 1 - rekeying)));
        net.run(Duration::from_millis(100));
        net.assert_one_pair(0, 1);
        assert!(net.hosts.iter().all(|host| host.engine.counters().rekeys.ike == ONCE));
        assert_eq!(net.child_of(0), child, "the child stays as it is");
        // The child can be rekeyed on the new IKE SA, by either end.
        let old = net.child_of(1);
        net.call(1, |engine, now| engine.rekey_child(now, pair(1, 0), old));
        net.run(2 * SECOND);
        net.assert_one_pair(0, 1);
        let last = net.sent.last().unwrap();
        assert_ne!(last.bytes[..16], net.sent[1].bytes[..16], "it has other indexes");
    }
}

#[test]
fn both_rekey_the_ike_sa_at_once() {
    for seed in seeds(40) {
        let mut net = established(Way::Negotiated, seed);
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
        // One IKE SA is left at each end, once those that were deleted are forgotten.
        net.run(60 * SECOND);
        assert!(net.hosts.iter().all(|host| host.engine.counters().sessions == 1));
    }
}

/// A child and the IKE SA at the same time: RFC 7296 section 2.25.2 lets one wait.
fn a_child_and_the_ike_sa_are_rekeyed_at_once(way: Way) {
    for seed in seeds(40) {
        let mut net = established(way, seed);
        net.weather.delay = 200;
        let (b, now) = (net.child_of(1), net.now);
        net.hosts[0].engine.rekey_ike(now, pair(0, 1));
        net.hosts[1].engine.rekey_child(now, pair(1, 0), b);
        net.drain();
        net.run(15 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(1), b);
    }
}

fn both_delete_the_child_at_once(way: Way) {
    for seed in seeds(20) {
        let mut net = established(way, seed);
        net.weather.delay = 200;
        let (a, b, now) = (net.child_of(0), net.child_of(1), net.now);
        net.hosts[0].engine.delete_child(now, pair(0, 1), a);
        net.hosts[1].engine.delete_child(now, pair(1, 0), b);
        net.drain();
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(0), a);
    }
}

fn both_forget_at_once(way: Way) {
    let mut net = established(way, 22);
    let now = net.now;
    net.hosts[0].engine.forget(now, pair(0, 1));
    net.hosts[1].engine.forget(now, pair(1, 0));
    net.drain();
    net.run(60 * SECOND);
    assert!(net.hosts.iter().all(|host| host.children.is_empty() && host.engine.counters().sessions == 0));
}

/// Rekeys of everything every few seconds, at both ends, through bad weather: one child is left in the end
/// and no attempt was needed twice for long.
fn time_rekeys_everything_through_bad_weather(way: Way) {
    for seed in seeds(30) {
        let often = || Settings { rekey_after: Duration::from_secs(5), ..way.settings() };
        let mut net = Net::new(2000 + seed, [often(), often()]);
        net.weather = Weather { loss: 20, duplication: 10, delay: 200 };
        net.keep(0, 1);
        net.run(120 * SECOND);
        // In good weather one child is there almost all the time.
        net.weather = Weather::default();
        net.run(10 * SECOND);
        assert!(net.run_until(30 * SECOND, |net| net.is_one_pair(0, 1)));
        net.assert_one_pair(0, 1);
    }
}

fn the_end_that_initiates_rekeys_first(way: Way) {
    let often = || Settings { rekey_after: Duration::from_secs(60), ..way.settings() };
    let mut net = Net::new(23, [often(), often()]);
    net.keep(0, 1);
    net.run(600 * SECOND);
    let agreed = net.hosts[0].log.iter().filter(|line| line.starts_with("ChildAgreed")).count();
    // Where an IKE SA is resumed rather than rekeyed, a child comes with it.
    let most = if way == Way::Derived { 16 } else { 12 };
    assert!((10..=most).contains(&agreed), "{agreed} children in ten minutes");
    net.run(3 * SECOND);
    assert!(net.hosts[0].children.values().all(|it| it.child.initiator));
}

/// Neither end has a child, and both ask for one at the same time.
fn both_ask_for_a_new_child_at_once(way: Way) {
    for seed in seeds(20) {
        let mut net = established(way, seed);
        let (a, now) = (net.child_of(0), net.now);
        net.hosts[0].engine.delete_child(now, pair(0, 1), a);
        // The first one's request is on its way when the second one's turn comes.
        net.weather.delay = 100;
        net.run_until(SECOND, |net| net.hosts.iter().all(|host| host.children.is_empty()));
        net.cut = Box::new(|transmit| transmit.bytes[18] == 36);
        net.run(Duration::from_millis(1500));
        net.cut = Box::new(|_| false);
        net.run(20 * SECOND);
        net.assert_one_pair(0, 1);
    }
}

by_each_way![
    either_end_rekeys_a_child,
    both_rekey_a_child_at_once,
    an_answer_that_comes_late_leaves_no_second_child,
    a_child_and_the_ike_sa_are_rekeyed_at_once,
    both_delete_the_child_at_once,
    both_forget_at_once,
    time_rekeys_everything_through_bad_weather,
    the_end_that_initiates_rekeys_first,
    both_ask_for_a_new_child_at_once,
];

/// ```text
/// a  --- CREATE_CHILD_SA: a successor of the IKE SA --->  b
/// a  forgets the pair: its session is to end
/// a  <-- CREATE_CHILD_SA ------------------------------  b   late: what it makes ends too
/// ```
#[test]
fn what_is_made_while_a_session_ends_ends_with_it() {
    let ike_proposals = Proposals::new(vec!["aes256gcm16-prfsha256-x25519".parse().unwrap()]).unwrap();
    let host = || Settings { ike_proposals: ike_proposals.clone(), ..by(Method::Ike, SECRET) };
    let mut net = Net::new(90, [host(), host()]);
    net.keep(0, 1);
    net.run(SECOND);
    net.cut = Box::new(|transmit| transmit.local == Net::socket(1));
    net.call(0, |engine, now| engine.rekey_ike(now, pair(0, 1)));
    net.run(SECOND / 10);
    net.call(0, |engine, now| engine.forget(now, pair(0, 1)));
    net.cut = Box::new(|_| false);
    net.run(60 * SECOND);
    assert_eq!(net.hosts[0].engine.counters().sessions, 0);
}
