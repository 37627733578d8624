//! No key of data comes out of a control IKE SA, whatever its ends or those in between say.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::control::{Members, standing};
use super::net::{Dice, Net, address, pair, seeds};
use super::proof::Pem;
use crate::identity::KeyKind;
use crate::ike::reason::Refusal;
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{
    Delete, Parts, Payload, Proposal, TrafficSelector, Transform, about_child, parse_chain, write_chain,
};
use crate::ike::{
    ControlEvent, ControlSettings, Draft, Engine, Event, Posture, Settings, stop_tampering, tamper,
};

const SECOND: Duration = Duration::from_secs(1);

/// What a request for a child has.
fn child_payloads(rekeys: bool) -> Vec<Payload> {
    let transforms = vec![Transform { key_bits: Some(256), ..Transform::new(1, 20) }, Transform::new(5, 0)];
    let offer = Proposal { number: 1, protocol: 3, spi: vec![0xc0, 1, 2, 3], transforms };
    let old = about_child(notify::REKEY_SA, 0xc000_0001);
    let mut payloads: Vec<_> = rekeys.then_some(old).into_iter().collect();
    payloads.extend([
        Payload::Sa(vec![offer]),
        Payload::Nonce(vec![7; 32]),
        Payload::TsI(vec![TrafficSelector::host(address(1))]),
        Payload::TsR(vec![TrafficSelector::host(address(0))]),
        Payload::notify(notify::USE_TRANSPORT_MODE, Vec::new()),
    ]);
    payloads
}

/// ```text
/// b  --- CREATE_CHILD_SA: SA, Ni, TSi, TSr -------->  a
/// b  <-- CREATE_CHILD_SA: N(NO_ADDITIONAL_SAS) -----  a
/// ```
#[test]
fn every_child_is_refused() {
    for (host, rekeys) in [(0, false), (1, false), (0, true), (1, true)] {
        let (_, mut net) = standing(360);
        let refusals = Rc::new(RefCell::new(Vec::new()));
        let heard = refusals.clone();
        tamper(move |draft: &mut Draft| {
            if draft.exchange != Exchange::CREATE_CHILD_SA.0 {
                return;
            }
            if draft.response {
                let payloads = parse_chain(draft.first, &draft.text).unwrap();
                heard.borrow_mut().push(Parts(&payloads).refusal());
                return;
            }
            let payloads = child_payloads(rekeys);
            draft.text.clear();
            write_chain(&payloads, &mut draft.text);
            draft.first = payloads[0].kind();
        });
        net.call(host, |engine, now| engine.rekey_control(now, pair(host, 1 - host)));
        net.run(SECOND);
        stop_tampering();
        assert_eq!(refusals.borrow().first(), Some(&Some(Refusal::ChildrenMost)));
        assert!(net.hosts[1 - host].engine.counters().children_refused > 0);
        net.assert_no_child();
        net.run(120 * SECOND);
        net.assert_control();
    }
}

/// A member asks for one with IKE_AUTH, or answers with one that nobody has asked for.
#[test]
fn no_child_comes_with_the_proof() {
    for answer in [false, true] {
        let members = Members::new(2);
        let mut net = members.net(361);
        tamper(move |draft: &mut Draft| {
            if draft.exchange == Exchange::IKE_AUTH.0 && draft.response == answer {
                let mut payloads = parse_chain(draft.first, &draft.text).unwrap();
                payloads.extend(child_payloads(false));
                draft.text.clear();
                write_chain(&payloads, &mut draft.text);
            }
        });
        net.keep_control(0, 1);
        net.run(SECOND);
        stop_tampering();
        net.assert_control();
    }
}

/// Whatever a member says behind the authentication, no key of data comes of it, and the pair\'s own child stays.
#[test]
fn a_member_gone_bad_gets_no_key_and_ends_no_child() {
    for seed in seeds(30) {
        let members = Members::new(2);
        let mut net = members.net(3600 + seed);
        net.keep(0, 1);
        net.run(SECOND);
        let (child, before) = (net.child_of(0), agreed(&net));
        net.keep_control(0, 1);
        net.run(SECOND);
        let mut dice = Dice(seed);
        let spis = [net.child_of(0).0, net.child_of(1).0];
        tamper(move |draft: &mut Draft| {
            let said = [
                child_payloads(dice.percent(50)),
                vec![Payload::Delete(Delete::Esp(spis.to_vec()))],
                vec![Payload::notify(notify::INITIAL_CONTACT, Vec::new())],
                vec![about_child(notify::HOSTSEAL_CHILD, spis[0])],
            ];
            if dice.percent(70) {
                let payloads = &said[usize::try_from(dice.below(4)).unwrap()];
                let mut all = parse_chain(draft.first, &draft.text).unwrap();
                if dice.percent(50) {
                    all.clear();
                }
                all.extend(payloads.iter().cloned());
                draft.text.clear();
                write_chain(&all, &mut draft.text);
                draft.first = all[0].kind();
            }
        });
        for round in 0..20 {
            net.call(1, |engine, now| engine.rekey_control(now, pair(1, 0)));
            net.tell_control(1, 0, &format!("round {round}"));
            net.call(0, |engine, now| engine.check_control(now, pair(0, 1)));
            net.run(SECOND);
        }
        stop_tampering();
        assert_eq!(agreed(&net), before, "no child is agreed");
        assert_eq!(net.child_of(0), child);
        net.assert_one_pair(0, 1);
        net.run(240 * SECOND);
        assert!(net.stands());
    }
}

/// How many children were agreed.
fn agreed(net: &Net) -> usize {
    net.hosts.iter().flat_map(|host| &host.log).filter(|line| line.starts_with("ChildAgreed")).count()
}

/// Somebody who sees the first message answers it sooner than the member, with the same words and another key.
#[test]
fn the_members_answer_counts_though_another_comes_first() {
    let members = Members::new(2);
    let mut net = members.net(362);
    net.cut = Box::new(|_| true);
    net.call(1, |engine, now| engine.keep_control(now, pair(1, 0), Posture::Passive));
    net.call(0, |engine, now| engine.keep_control(now, pair(0, 1), Posture::Active));
    net.run(Duration::ZERO);
    let request = net.sent.last().unwrap().clone();
    net.inject(&request);
    let answer = net.sent.last().unwrap().clone();
    assert_eq!(answer.remote, Net::socket(0));
    let key = Arc::new(Pem::new(KeyKind::Ed25519).key());
    let forging = ControlSettings { key, ..members.control(1) };
    let settings = Settings { control: Some(forging), ..members.settings(1) };
    let mut forger = Engine::new(settings, Box::new(Dice(363)));
    forger.keep_control(net.now, pair(1, 0), Posture::Passive);
    forger.handle_datagram(net.now, request.remote, request.local, &request.bytes);
    let lie = forger.poll_transmit().unwrap();
    net.cut = Box::new(|_| false);
    net.inject(&lie);
    net.inject(&answer);
    // Its IKE_AUTH, with a key that is none of the member's.
    let to_forger: Vec<_> = net.sent.iter().filter(|sent| sent.bytes[18] == 35).cloned().collect();
    for sent in &to_forger {
        forger.handle_datagram(net.now, sent.remote, sent.local, &sent.bytes);
        while let Some(event) = forger.poll_event() {
            if let Event::Control { event: ControlEvent::Introduced { session, .. }, .. } = event {
                forger.admit(net.now, session);
            }
        }
        while let Some(lie) = forger.poll_transmit() {
            net.inject(&lie);
        }
    }
    net.run(5 * SECOND);
    net.assert_control();
    assert!(net.hosts.iter().all(|host| host.introduced.len() == 1));
}
