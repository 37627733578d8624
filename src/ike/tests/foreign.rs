//! Peers that are not hostseal say no words and get none.

use std::time::Duration;

use super::net::{Net, SECRET, by, pair, seeds, settings};
use crate::ike::wire::Payload;
use crate::ike::{FailureCode, Settings};
use crate::types::{Method, Proposals};

const SECOND: Duration = Duration::from_secs(1);

/// Two hosts that do not know each other for hostseal.
fn strangers(seed: u64) -> Net {
    let mut net = Net::two(seed);
    for (at, host) in net.hosts.iter_mut().enumerate() {
        host.engine.pass_for_foreign();
        host.engine.allow_ahead(pair(at, 1 - at), true);
    }
    net
}

fn ready(net: &Net, host: usize) -> usize {
    net.hosts[host].log.iter().filter(|line| line.starts_with("ForeignReady")).count()
}

/// ```text
/// a  --- IKE_AUTH ----------->  b
/// a  <-- IKE_AUTH ------------  b   a: ForeignReady
/// a  <-- INFORMATIONAL (empty) - b
/// a  --- INFORMATIONAL ------>  b   b: ForeignReady
/// ```
#[test]
fn both_ends_find_out_that_the_other_is_ready() {
    let mut net = strangers(50);
    net.keep(0, 1);
    assert!(net.run_until(SECOND, |net| ready(net, 0) == 1));
    assert_eq!(ready(&net, 1), 0, "a responder has to ask");
    net.run(SECOND);
    assert_eq!(ready(&net, 1), 1);
    net.assert_one_pair(0, 1);
    assert!(net.hosts.iter().all(|host| host.children.values().all(|it| it.child.foreign)));
    assert!(net.hosts.iter().all(|host| host.words.is_empty()));
    assert!(net.hosts[0].engine.summary(pair(0, 1)).unwrap().foreign);
}

#[test]
fn a_rekey_by_either_end_is_confirmed_too() {
    for rekeying in [0, 1] {
        let mut net = strangers(51);
        net.keep(0, 1);
        net.run(SECOND);
        let old = net.child_of(rekeying);
        net.call(rekeying, |engine, now| engine.rekey_child(now, pair(rekeying, 1 - rekeying), old));
        net.run(3 * SECOND);
        net.assert_one_pair(0, 1);
        assert_eq!((ready(&net, 0), ready(&net, 1)), (2, 2));
    }
}

/// That the peer answers something else does not say that it has the new child.
#[test]
fn an_answer_that_is_lost_confirms_no_successor() {
    let mut net = strangers(52);
    net.keep(0, 1);
    net.run(SECOND);
    let old = net.child_of(0);
    net.cut = Box::new(|transmit| transmit.bytes[18] == 36 && transmit.bytes[19] & 0x20 != 0);
    net.call(0, |engine, now| engine.rekey_child(now, pair(0, 1), old));
    net.run(SECOND / 10);
    net.call(1, |engine, now| engine.check_liveness(now, pair(1, 0)));
    net.run(SECOND / 10);
    assert_eq!(ready(&net, 1), 1, "the old child serves");
    net.cut = Box::new(|_| false);
    net.run(3 * SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!((ready(&net, 0), ready(&net, 1)), (2, 2));
}

#[test]
fn crossing_rekeys_end_with_one_child() {
    for seed in seeds(20) {
        let mut net = strangers(seed);
        net.keep(0, 1);
        net.run(SECOND);
        net.weather.delay = 200;
        let (a, b, now) = (net.child_of(0), net.child_of(1), net.now);
        net.hosts[0].engine.rekey_child(now, pair(0, 1), a);
        net.hosts[1].engine.rekey_child(now, pair(1, 0), b);
        net.drain();
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
    }
}

/// Words of a peer that did not introduce itself do not count.
#[test]
fn words_of_a_stranger_are_not_heard() {
    let mut net = Net::two(52);
    net.hosts[1].engine.vendor_id = Payload::VendorId(Vec::new());
    net.keep(0, 1);
    net.run(SECOND);
    assert!(net.hosts[0].words.is_empty() && net.hosts[1].words.is_empty());
    assert_eq!(ready(&net, 0), 1);
    assert!(net.hosts[0].children.values().all(|it| it.child.foreign));
    assert!(net.hosts[1].children.values().all(|it| !it.child.foreign));
}

/// ```text
/// a  --- IKE_SA_INIT --------->  b
/// a  <-- IKE_SA_INIT ----------  b   a: InboundAhead, in the kernel
/// a  --- IKE_AUTH, ESN only -->  b   b: sends ESP from now on
/// ```
#[test]
fn the_inbound_sa_is_there_before_a_stranger_is_asked() {
    let mut net = strangers(53);
    net.cut = Box::new(|transmit| transmit.bytes[18] == 35);
    net.keep(0, 1);
    net.run(SECOND);
    assert_eq!((net.hosts[0].ahead.len(), net.hosts[1].ahead.len()), (1, 0));
    net.cut = Box::new(|_| false);
    net.run(3 * SECOND);
    assert!(net.hosts[0].ahead.is_empty(), "it became the child's");
    net.assert_one_pair(0, 1);
    assert!(net.hosts[0].children.values().all(|it| it.child.suite.esn));
}

#[test]
fn an_inbound_sa_that_nobody_will_use_goes_again() {
    let mut net = strangers(54);
    net.cut = Box::new(|transmit| transmit.bytes[18] == 35);
    net.keep(0, 1);
    net.run(SECOND);
    assert_eq!(net.hosts[0].ahead.len(), 1);
    net.run(8 * SECOND);
    assert!(net.hosts[0].log.iter().any(|line| line.starts_with("ChildClosed")), "no answer");
    let mut net = Net::new(
        55,
        [settings(SECRET), Settings { esp_proposals: Proposals::of_key_bits(128), ..settings(SECRET) }],
    );
    for (at, host) in net.hosts.iter_mut().enumerate() {
        host.engine.vendor_id = Payload::VendorId(Vec::new());
        host.engine.allow_ahead(pair(at, 1 - at), true);
    }
    net.keep(0, 1);
    assert!(net.run_until(5 * SECOND, |net| net.hosts[0].failures.contains(&FailureCode::NoProposal)));
    assert!(net.hosts[0].ahead.is_empty());
}

/// Everything that can lead an initiator to IKE_AUTH: by a key exchange, by one with an additional exchange, and by a
/// secret alone.
fn ways() -> [Settings; 3] {
    let hybrid = Settings { ike_proposals: Proposals::default(), ..settings(SECRET) };
    [settings(SECRET), hybrid, by(Method::Derived, SECRET)]
}

/// ```text
/// a  --- IKE_SA_INIT --->  whoever is in b's place
/// a  <-- IKE_SA_INIT ----  knows all keys from here on
/// a  --- IKE_AUTH ------>
/// ```
#[test]
fn nothing_is_there_before_a_proof_unless_that_was_allowed() {
    for (way, allowed) in (0..ways().len()).flat_map(|way| [(way, false), (way, true)]) {
        let mut net = Net::new(56, [0, 1].map(|_| ways().into_iter().nth(way).unwrap()));
        net.hosts[1].engine.pass_for_foreign();
        net.hosts[0].engine.allow_ahead(pair(0, 1), allowed);
        // No IKE_AUTH is answered.
        net.cut = Box::new(|transmit| transmit.bytes[18] == 35 && transmit.bytes[19] & 0x20 != 0);
        net.keep(0, 1);
        net.run(SECOND);
        assert!(net.sent.iter().any(|transmit| transmit.bytes[18] == 35), "IKE_AUTH is on its way");
        assert_eq!(net.hosts[0].ahead.len(), usize::from(allowed), "way {way}");
        assert!(net.hosts[0].children.is_empty());
        net.cut = Box::new(|_| false);
        assert!(net.run_until(30 * SECOND, |net| net.is_one_pair(0, 1)), "way {way}");
        assert!(net.hosts[0].engine.summary(pair(0, 1)).unwrap().foreign, "as it has proven itself");
    }
}

/// What is taken back goes at once. The peer, which has agreed to it by then, gets another child with other keys.
#[test]
fn an_inbound_sa_ahead_goes_once_it_is_not_allowed_any_more() {
    for heard in [false, true] {
        let mut net = strangers(57);
        net.cut =
            Box::new(move |transmit| transmit.bytes[18] == 35 && (transmit.bytes[19] & 0x20 != 0 || !heard));
        net.keep(0, 1);
        net.run(SECOND);
        let keys: Vec<Vec<u8>> = net.hosts[0].ahead.values().map(|it| it.key.expose().to_vec()).collect();
        assert_eq!(keys.len(), 1);
        net.call(0, |engine, _| engine.allow_ahead(pair(0, 1), false));
        assert!(net.hosts[0].ahead.is_empty());
        net.cut = Box::new(|_| false);
        net.run(10 * SECOND);
        net.assert_one_pair(0, 1);
        let child = net.hosts[0].children.values().next().unwrap();
        assert!(!keys.contains(&child.child.in_key.expose().to_vec()), "a key lives once");
    }
}
