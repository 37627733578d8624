//! Control IKE SAs between members: made without children, beside whatever the pair has, and never with a key of data.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::bounds::shake;
use super::net::{Dice, Net, SECRET, Weather, address, by, octets, pair, seeds, settings};
use super::proof::Pem;
use crate::identity::{KeyKind, PublicKey};
use crate::ike::reason::{BadProof, Incompatible, Reason, Refusal};
use crate::ike::wire::codes::{Exchange, notify};
use crate::ike::wire::{Message, Parts, Payload, parse_chain, write_chain};
use crate::ike::{
    ControlSettings, ControlSummary, Draft, Posture, Purpose, Settings, TOLD_MAX, Topic, stop_tampering,
    tamper,
};
use crate::types::Method;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The members 0, 1, …, and the keys that each has.
pub(super) struct Members(pub(super) Vec<Pem>);

impl Members {
    pub(super) fn new(count: usize) -> Self {
        Self((0..count).map(|_| Pem::new(KeyKind::Ed25519)).collect())
    }

    fn keys(&self) -> BTreeMap<std::net::IpAddr, Vec<PublicKey>> {
        let keys = self.0.iter().enumerate();
        keys.map(|(at, pem)| (address(at), vec![pem.public()])).collect()
    }

    /// What member `at` has for control IKE SAs.
    pub(super) fn control(&self, at: usize) -> ControlSettings {
        ControlSettings {
            key: Arc::new(self.0[at].key()),
            members: self.keys(),
            invites: Vec::new(),
            mark: format!("mark of {at}").into_bytes().into(),
            welcome: format!("welcome by {at}").into_bytes().into(),
        }
    }

    /// The settings of member `at`, whose traffic rests on the secret.
    pub(super) fn settings(&self, at: usize) -> Settings {
        Settings { control: Some(self.control(at)), ..settings(SECRET) }
    }

    /// Two hosts with these settings, and nothing kept.
    pub(super) fn net(&self, seed: u64) -> Net {
        Net::new(seed, [self.settings(0), self.settings(1)])
    }
}

impl Net {
    pub(super) fn keep_control(&mut self, a: usize, b: usize) {
        for (host, other) in [(a, b), (b, a)] {
            self.call(host, |engine, now| engine.keep_control(now, pair(host, other), Posture::Active));
        }
    }

    pub(super) fn control(&self, host: usize, other: usize) -> ControlSummary {
        self.hosts[host].engine.control(pair(host, other), Purpose::Control).unwrap()
    }

    pub(super) fn stands(&self) -> bool {
        [(0, 1), (1, 0)].into_iter().all(|(host, other)| self.control(host, other).sessions == 1)
    }

    pub(super) fn tell_control(&mut self, host: usize, other: usize, text: &str) {
        self.call(host, |engine, now| engine.tell(now, pair(host, other), Topic::Control, octets(text)));
    }

    /// One control IKE SA at each end, the same, on which both ends are heard.
    pub(super) fn assert_control(&mut self) {
        assert!(self.stands(), "{:?} {:?}", self.control(0, 1), self.control(1, 0));
        for (host, other) in [(0, 1), (1, 0)] {
            let text = format!("{:?} of {host}", self.now);
            self.tell_control(host, other, &text);
            self.run(SECOND);
            assert_eq!(self.hosts[other].said.last().unwrap(), text.as_bytes());
        }
        self.assert_no_child();
    }

    /// No key of data came out of anything.
    pub(super) fn assert_no_child(&self) {
        for host in &self.hosts {
            let keys = |line: &&String| line.starts_with("ChildAgreed") || line.starts_with("InboundAhead");
            assert_eq!(host.log.iter().find(keys), None);
            assert!(host.children.is_empty() && host.ahead.is_empty());
        }
    }
}

/// Two members whose control IKE SA stands.
pub(super) fn standing(seed: u64) -> (Members, Net) {
    let members = Members::new(2);
    let mut net = members.net(seed);
    net.keep_control(0, 1);
    net.run(SECOND);
    assert!(net.stands());
    (members, net)
}

/// What each message that is encrypted has inside, and whether it is an answer.
type Inside = Rc<RefCell<Vec<(u8, bool, Vec<Payload>)>>>;

fn listen() -> Inside {
    let inside = Inside::default();
    let heard = inside.clone();
    tamper(move |draft: &mut Draft| {
        let payloads = parse_chain(draft.first, &draft.text).unwrap();
        heard.borrow_mut().push((draft.exchange, draft.response, payloads));
    });
    inside
}

/// ```text
/// a  --- IKE_SA_INIT, N(purpose) ----------------------->  b
/// a  <-- IKE_SA_INIT, N(CHILDLESS_IKEV2_SUPPORTED) ------  b
/// a  --- IKE_AUTH: IDi, IDr, AUTH, N(mark) ------------->  b
/// a  <-- IKE_AUTH: IDr, AUTH, N(mark) -------------------  b
/// ```
#[test]
fn one_is_made_without_a_child() {
    let inside = listen();
    let (members, mut net) = standing(300);
    stop_tampering();
    assert_eq!(net.sent.iter().map(|sent| sent.bytes[18]).collect::<Vec<_>>(), [34, 34, 35, 35]);
    let says = |at: usize, kind: u16| {
        let message = Message::parse(&net.sent[at].bytes).unwrap();
        Parts(&message.payloads).notify(kind).cloned()
    };
    assert_eq!(says(0, notify::HOSTSEAL_PURPOSE).unwrap().data, [1]);
    assert_eq!(says(0, notify::CHILDLESS_IKEV2_SUPPORTED), None, "the responder says it");
    assert_eq!(notify::CHILDLESS_IKEV2_SUPPORTED, 16418);
    assert_eq!(says(1, notify::CHILDLESS_IKEV2_SUPPORTED).unwrap().data, Vec::<u8>::new());
    assert_eq!(says(1, notify::HOSTSEAL_PURPOSE), None);
    let auth = inside.borrow();
    for (_, _, payloads) in auth.iter() {
        let parts = Parts(payloads);
        assert!(parts.sa().is_err() && parts.ts_i().is_err() && parts.ts_r().is_err());
        assert!(parts.notify(notify::INITIAL_CONTACT).is_none() && parts.auth().unwrap().0 == 14);
    }
    drop(auth);
    for (host, other) in [(0, 1), (1, 0)] {
        let [seen] = &net.hosts[host].introduced[..] else { panic!("{:?}", net.hosts[host].introduced) };
        assert_eq!((seen.pair, seen.purpose), (pair(host, other), Purpose::Control));
        assert_eq!(
            (&seen.key, seen.mark.clone()),
            (&members.0[other].public(), format!("mark of {other}").into())
        );
        assert_eq!(net.control(host, other).key.as_ref(), Some(&seen.key));
    }
    net.assert_control();
    assert!(net.hosts.iter().all(|host| host.reasons.is_empty() && host.failures.is_empty()));
}

/// Whatever the traffic rests on, and whichever is there first.
#[test]
fn one_stands_with_or_without_the_keys_of_the_pair() {
    for method in Method::ALL {
        let members = Members::new(2);
        let host = |at| Settings { control: Some(members.control(at)), ..by(method, SECRET) };
        let mut net = Net::new(301, [host(0), host(1)]);
        net.keep_control(0, 1);
        net.keep(0, 1);
        net.run(5 * SECOND);
        net.assert_one_pair(0, 1);
        assert!(net.stands());
        for (host, other) in [(0, 1), (1, 0)] {
            net.call(host, |engine, now| engine.forget(now, pair(host, other)));
            net.hosts[host].children.clear();
        }
        net.run(5 * SECOND);
        assert!(net.stands(), "the pair is forgotten, and they talk on");
        net.keep(0, 1);
        net.run(5 * SECOND);
        net.assert_one_pair(0, 1);
        for (host, other) in [(0, 1), (1, 0)] {
            net.call(host, |engine, now| engine.end_control(now, pair(host, other)));
        }
        net.run(60 * SECOND);
        net.assert_one_pair(0, 1);
        assert!(
            net.hosts.iter().all(|host| host.engine.counters().sessions == 1 && host.failures.is_empty())
        );
    }
}

/// What one end tells of itself on the pair's IKE SAs stays there.
#[test]
fn what_is_told_is_told_where_it_belongs() {
    let members = Members::new(2);
    let about =
        |at: usize| Settings { about: Arc::from(format!("about {at}").as_bytes()), ..members.settings(at) };
    let mut net = Net::new(302, [about(0), about(1)]);
    net.keep_control(0, 1);
    net.run(5 * SECOND);
    assert!(net.hosts.iter().all(|host| host.said.is_empty() && host.told.is_empty()));
    net.keep(0, 1);
    net.run(5 * SECOND);
    net.tell_control(0, 1, "to the cluster");
    net.run(SECOND);
    assert_eq!(net.hosts[1].said, [b"to the cluster"]);
    assert_eq!(net.hosts[1].told, [b"about 0"]);
}

/// The end that begins by rule is late, so that both do.
#[test]
fn of_two_that_cross_one_stays() {
    for seed in seeds(40) {
        let members = Members::new(2);
        let mut net = members.net(310 + seed);
        net.cut = Box::new(|_| true);
        net.keep_control(0, 1);
        net.run(1450 * MILLISECOND);
        net.cut = Box::new(|_| false);
        net.weather = Weather { delay: 400, ..Weather::default() };
        net.run(5 * SECOND);
        net.weather = Weather::default();
        net.run(60 * SECOND);
        net.assert_control();
        assert!(net.hosts.iter().all(|host| host.engine.counters().sessions == 1));
    }
}

fn do_something(members: &Members, net: &mut Net, dice: &mut Dice) {
    let host = usize::from(dice.percent(50));
    let (other, pair) = (1 - host, pair(host, 1 - host));
    match dice.below(16) {
        0..=3 => net.call(host, |engine, now| engine.rekey_control(now, pair)),
        4..=5 => net.call(host, |engine, now| engine.check_control(now, pair)),
        6..=8 => net.tell_control(host, other, &format!("{:?}", net.now)),
        9 => {
            net.restart(host, members.settings(host));
            net.keep_control(host, other);
        }
        10 => {
            net.call(host, |engine, now| engine.end_control(now, pair));
            net.keep_control(host, other);
        }
        _ => {
            let (loss, duplication, delay) = (dice.below(50), dice.below(20), dice.below(500));
            net.weather = Weather { loss, duplication, delay };
        }
    }
}

#[test]
fn after_any_trouble_one_is_left() {
    for seed in seeds(40) {
        let (members, mut dice) = (Members::new(2), Dice(!seed));
        let mut net = members.net(3100 + seed);
        net.keep_control(0, 1);
        for _ in 0..60 {
            do_something(&members, &mut net, &mut dice);
            let pause = Duration::from_millis(dice.below(1500));
            net.run(pause);
        }
        net.weather = Weather::default();
        for host in 0..2 {
            net.call(host, |engine, now| engine.check_control(now, pair(host, 1 - host)));
        }
        net.run(90 * SECOND);
        net.assert_control();
    }
}

#[test]
fn it_is_rekeyed_and_lives_on() {
    let (_, mut net) = standing(303);
    net.sent.clear();
    net.run(12 * settings(SECRET).rekey_after);
    let rekeys = net.sent.iter().filter(|sent| sent.bytes[18] == Exchange::CREATE_CHILD_SA.0).count();
    assert!((6..=10).contains(&rekeys), "{rekeys} messages");
    assert!(net.hosts.iter().all(|host| host.ended == 0 && host.introduced.len() == 1));
    net.assert_control();
}

/// Marks and octets as long as they may be, in as many fragments as that takes.
#[test]
fn long_marks_and_octets_go_in_fragments() {
    let members = Members::new(2);
    let long = |at: usize| {
        let control = ControlSettings { mark: vec![at as u8; TOLD_MAX].into(), ..members.control(at) };
        Settings { control: Some(control), ..members.settings(at) }
    };
    let mut net = Net::new(304, [long(0), long(1)]);
    net.weather = Weather { loss: 20, duplication: 10, delay: 50 };
    net.keep_control(0, 1);
    net.run(20 * SECOND);
    assert!(net.stands());
    assert_eq!(net.hosts[0].introduced.last().unwrap().mark, [1; TOLD_MAX]);
    assert_eq!(net.hosts[1].introduced.last().unwrap().mark, [0; TOLD_MAX]);
    net.tell_control(0, 1, &"x".repeat(TOLD_MAX));
    net.run(20 * SECOND);
    assert_eq!(net.hosts[1].said.last().unwrap().len(), TOLD_MAX);
    assert!(net.sent.iter().all(|sent| sent.bytes.len() <= 1280 - 28));
}

/// A peer that is gone is found out, and found again.
#[test]
fn a_silent_peer_is_gone_and_comes_back() {
    let (members, mut net) = standing(305);
    net.cut = Box::new(|_| true);
    net.call(0, |engine, now| engine.check_control(now, pair(0, 1)));
    net.run(20 * SECOND);
    assert_eq!((net.control(0, 1).sessions, net.hosts[0].ended), (0, 1));
    assert!(matches!(net.hosts[0].reasons[0], Reason::Unanswered(_)));
    net.restart(1, members.settings(1));
    net.keep_control(1, 0);
    net.cut = Box::new(|_| false);
    net.call(0, |engine, now| engine.hurry_control(now, pair(0, 1)));
    net.run(30 * SECOND);
    net.assert_control();
}

// ---------------------------------------------------------------------- who is believed

fn assert_none(net: &Net, host: usize) {
    assert_eq!(net.control(host, 1 - host).sessions, 0, "host {host}");
    assert!(net.hosts[host].said.is_empty());
}

#[test]
fn another_key_is_refused_by_whoever_sees_it() {
    for wrong in [0, 1] {
        let members = Members::new(2);
        let other =
            ControlSettings { key: Arc::new(Pem::new(KeyKind::Ed25519).key()), ..members.control(wrong) };
        let mut hosts = [members.settings(0), members.settings(1)];
        hosts[wrong].control = Some(other);
        let mut net = Net::new(320, hosts);
        net.keep_control(0, 1);
        net.run(5 * SECOND);
        (0..2).for_each(|host| assert_none(&net, host));
        assert!(net.hosts[1 - wrong].introduced.is_empty());
        assert!(
            net.hosts[1 - wrong].reasons.contains(&BadProof::Member.into()),
            "{:?}",
            net.hosts[1 - wrong].reasons
        );
        let refused = Reason::Refused(Refusal::Authentication);
        assert!(net.hosts[wrong].reasons.contains(&refused), "{:?}", net.hosts[wrong].reasons);
    }
}

/// The key is a member's, and the address another's.
#[test]
fn no_member_passes_for_another() {
    let members = Members::new(3);
    let third = ControlSettings { key: Arc::new(members.0[2].key()), ..members.control(1) };
    let mut net =
        Net::new(321, [members.settings(0), Settings { control: Some(third), ..members.settings(1) }]);
    net.keep_control(0, 1);
    net.run(5 * SECOND);
    (0..2).for_each(|host| assert_none(&net, host));
    assert!(net.hosts[0].introduced.is_empty());
}

/// Two ways to have a proof that is none: another method of AUTH, and AUTH of the pair's IKE SA.
#[test]
fn a_secret_is_no_way_around_a_key() {
    let members = Members::new(2);
    let mut net = members.net(322);
    tamper(|draft: &mut Draft| {
        let mut payloads = parse_chain(draft.first, &draft.text).unwrap();
        for payload in &mut payloads {
            if let Payload::Auth { method, .. } = payload {
                *method = 2;
            }
        }
        draft.text.clear();
        write_chain(&payloads, &mut draft.text);
    });
    net.keep_control(0, 1);
    net.run(5 * SECOND);
    stop_tampering();
    (0..2).for_each(|host| assert_none(&net, host));
    assert!(net.hosts.iter().all(|host| host.introduced.is_empty()));
}

/// Somebody on the path says that an IKE SA is for something else, or that the peer knows of no control IKE SAs.
#[test]
fn what_it_is_for_cannot_be_changed_on_the_way() {
    for (bytes, kind) in [(1, notify::HOSTSEAL_PURPOSE), (0, notify::CHILDLESS_IKEV2_SUPPORTED)] {
        let members = Members::new(2);
        let mut net = members.net(323);
        net.middlebox = Box::new(move |mut transmit| {
            if transmit.bytes[18] == 34 {
                let at = transmit.bytes.windows(2).position(|it| it == kind.to_be_bytes());
                // It is another notification then, which nobody knows.
                at.into_iter().for_each(|at| transmit.bytes[at + 1] ^= 0x40);
            }
            transmit
        });
        net.keep(0, 1);
        net.keep_control(0, 1);
        net.run(5 * SECOND);
        (0..2).for_each(|host| assert_none(&net, host));
        net.assert_one_pair(0, 1);
        assert!(net.hosts.iter().all(|host| host.introduced.is_empty()), "{bytes}");
        net.middlebox = Box::new(|transmit| transmit);
        net.run(120 * SECOND);
        assert!(net.stands());
    }
}

#[test]
fn old_messages_and_changed_ones_change_nothing() {
    let (_, mut net) = standing(324);
    for host in [0, 1, 0] {
        net.call(host, |engine, now| engine.rekey_control(now, pair(host, 1 - host)));
        net.tell_control(host, 1 - host, &format!("{:?}", net.now));
        net.run(5 * SECOND);
    }
    net.run(60 * SECOND);
    let recorded = std::mem::take(&mut net.sent);
    let (log, said) = (net.hosts[0].log.len() + net.hosts[1].log.len(), net.hosts[1].said.len());
    let mut dice = Dice(325);
    for _ in 0..5_000 {
        let mut old = recorded[usize::try_from(dice.below(recorded.len() as u64)).unwrap()].clone();
        if dice.percent(70) {
            let at = usize::try_from(dice.below(old.bytes.len() as u64)).unwrap();
            old.bytes[at] ^= dice.roll().to_be_bytes()[0];
        }
        net.inject(&old);
        net.sent.clear();
    }
    net.run(30 * SECOND);
    assert_eq!(net.hosts[0].log.len() + net.hosts[1].log.len(), log);
    assert_eq!(net.hosts[1].said.len(), said);
    assert!(net.hosts.iter().all(|host| host.engine.counters().sessions == 1));
    net.assert_control();
}

// ---------------------------------------------------------------------- marks

#[test]
fn a_mark_is_refused_by_either_end() {
    for refuses in [0, 1] {
        let members = Members::new(2);
        let mut net = members.net(330);
        net.hosts[refuses].admits = Box::new(|_| Some(false));
        net.keep_control(0, 1);
        net.tell_control(0, 1, "too early");
        net.run(3 * SECOND);
        (0..2).for_each(|host| assert_none(&net, host));
        assert!(
            net.hosts[refuses].reasons.contains(&BadProof::NotAdmitted.into()),
            "{:?}",
            net.hosts[refuses].reasons
        );
        let refused = Reason::Refused(Refusal::Authentication);
        assert!(net.hosts[1 - refuses].reasons.contains(&refused), "{:?}", net.hosts[1 - refuses].reasons);
        let attempts = net.hosts[refuses].introduced.len();
        net.run(600 * SECOND);
        let more = net.hosts[refuses].introduced.len() - attempts;
        assert!((5..60).contains(&more), "{more} in ten minutes");
        net.hosts[refuses].admits = Box::new(|_| Some(true));
        net.run(120 * SECOND);
        net.assert_control();
    }
}

/// Nothing goes to or fro while somebody thinks it over; and not for ever.
#[test]
fn nothing_is_said_before_the_peer_is_admitted() {
    for thinks in [0, 1] {
        let members = Members::new(2);
        let mut net = members.net(331);
        net.hosts[thinks].admits = Box::new(|_| None);
        net.keep_control(0, 1);
        net.run(200 * MILLISECOND);
        let waiting = net.hosts[thinks].introduced[0].session;
        net.tell_control(0, 1, "from 0");
        net.tell_control(1, 0, "from 1");
        net.run(3 * SECOND);
        assert!(net.hosts.iter().all(|host| host.said.is_empty()));
        assert_eq!(net.hosts[thinks].introduced.len(), 1, "no other attempt is made meanwhile");
        net.call(thinks, |engine, now| engine.admit(now, waiting));
        net.run(5 * SECOND);
        net.assert_control();
        net.call(thinks, |engine, now| engine.admit(now, waiting));
        net.call(thinks, |engine, now| engine.refuse(now, waiting));
        net.assert_control();
    }
    let members = Members::new(2);
    let mut net = members.net(332);
    net.hosts[1].admits = Box::new(|_| None);
    net.keep_control(0, 1);
    net.run(40 * SECOND);
    (0..2).for_each(|host| assert_none(&net, host));
    assert!(net.hosts[1].reasons.contains(&BadProof::NotAdmitted.into()));
    assert!(net.hosts[1].engine.counters().sessions < 5);
}

/// Somebody who sees what is sent to the member's address, and so returns cookies, begins again and again.
#[test]
fn who_has_proven_itself_and_waits_is_not_pushed_out_by_who_has_not() {
    let members = Members::new(2);
    let mut net = members.net(333);
    net.hosts[0].admits = Box::new(|_| None);
    net.call(0, |engine, now| engine.keep_control(now, pair(0, 1), Posture::Passive));
    net.call(1, |engine, now| engine.keep_control(now, pair(1, 0), Posture::Active));
    net.run(2 * SECOND);
    let waiting = net.hosts[0].introduced[0].session;
    net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Passive);
    (0..40).for_each(|seed| shake(&mut net, Method::Ike, 7_000 + seed, false));
    assert!(net.hosts[0].engine.counters().half_open_dropped > 0);
    assert!(net.hosts[0].engine.is_introduced(pair(0, 1), waiting));
}

// ---------------------------------------------------------------------- settings

#[test]
fn a_key_that_is_withdrawn_ends_it_at_once() {
    let (members, mut net) = standing(340);
    let mut without = members.control(0);
    without.members.remove(&address(1));
    net.call(0, |engine, now| {
        engine.reconfigure(now, Settings { control: Some(without), ..members.settings(0) })
    });
    net.run(SECOND);
    (0..2).for_each(|host| assert_none(&net, host));
    assert_eq!(net.hosts[1].ended, 1, "the peer is told");
    net.call(0, |engine, now| engine.reconfigure(now, members.settings(0)));
    net.run(120 * SECOND);
    net.assert_control();
}

/// First where others know it, then on the host: what stands is replaced under way.
#[test]
fn a_key_is_replaced_while_it_serves() {
    let (members, mut net) = standing(341);
    let next = Pem::new(KeyKind::EcdsaP256);
    let mut both = members.control(0);
    both.members.get_mut(&address(1)).unwrap().push(next.public());
    net.call(0, |engine, now| {
        engine.reconfigure(now, Settings { control: Some(both), ..members.settings(0) })
    });
    let own = ControlSettings { key: Arc::new(next.key()), ..members.control(1) };
    net.call(1, |engine, now| {
        engine.reconfigure(now, Settings { control: Some(own), ..members.settings(1) })
    });
    net.run(30 * SECOND);
    net.assert_control();
    assert_eq!(net.control(0, 1).key, Some(next.public()));
    assert!(net.hosts.iter().all(|host| host.ended == 0 && host.reasons.is_empty()));
}

#[test]
fn none_is_left_where_there_are_to_be_none() {
    let (members, mut net) = standing(342);
    net.call(0, |engine, now| engine.reconfigure(now, settings(SECRET)));
    net.run(30 * SECOND);
    net.sent.clear();
    net.run(3600 * SECOND);
    (0..2).for_each(|host| assert_none(&net, host));
    assert!(net.sent.iter().all(|sent| sent.local.ip() == address(1)), "it asks for none");
    net.call(0, |engine, now| engine.reconfigure(now, members.settings(0)));
    net.run(5 * SECOND);
    net.assert_control();
}

// ---------------------------------------------------------------------- peers without

/// An agent of the version before, or one by file: it knows nothing of it, and is asked again rarely.
#[test]
fn a_peer_without_is_named_and_asked_rarely() {
    let members = Members::new(2);
    let mut net = Net::new(350, [members.settings(0), settings(SECRET)]);
    net.keep(0, 1);
    net.run(5 * SECOND);
    net.call(0, |engine, now| engine.keep_control(now, pair(0, 1), Posture::Active));
    net.run(20 * SECOND);
    assert_eq!(net.control(0, 1).last_failure.unwrap().reason, Incompatible::NoControl.into());
    net.run(3600 * SECOND);
    net.sent.clear();
    net.run(3600 * SECOND);
    let asked = net.sent.iter().filter(|sent| sent.bytes[18] == 34 && sent.local == Net::socket(0)).count();
    assert!((1..=150).contains(&asked), "{asked} first messages in an hour");
    net.assert_one_pair(0, 1);
    assert!(net.hosts[0].failures.is_empty() && net.hosts[1].failures.is_empty());
    net.call(1, |engine, now| engine.reconfigure(now, members.settings(1)));
    net.call(1, |engine, now| engine.keep_control(now, pair(1, 0), Posture::Passive));
    net.call(0, |engine, now| engine.hurry_control(now, pair(0, 1)));
    net.run(5 * SECOND);
    assert!(net.stands());
}

/// A foreign peer gets none, and nothing of one, whoever begins.
#[test]
fn foreign_peers_never_see_one() {
    for stranger in [0, 1] {
        let members = Members::new(2);
        let mut net = members.net(351);
        net.hosts[stranger].engine.pass_for_foreign();
        let inside = listen();
        net.keep_control(0, 1);
        net.run(30 * SECOND);
        stop_tampering();
        (0..2).for_each(|host| assert_none(&net, host));
        assert!(inside.borrow().is_empty(), "nobody comes as far as IKE_AUTH");
        assert!(
            net.hosts[1 - stranger]
                .reasons
                .iter()
                .all(|it| *it == Incompatible::NoControl.into() || matches!(it, Reason::Unanswered(_)))
        );
        net.assert_no_child();
    }
}

/// Between hosts by file, and for the traffic of a pair whatever else there is, nothing is said that was not before.
#[test]
fn nothing_is_said_of_them_where_there_are_none() {
    let members = Members::new(2);
    for hosts in [[settings(SECRET), settings(SECRET)], [members.settings(0), members.settings(1)]] {
        let mut net = Net::new(352, hosts);
        let inside = listen();
        net.keep(0, 1);
        net.run(60 * SECOND);
        stop_tampering();
        net.assert_one_pair(0, 1);
        let kinds = [
            notify::HOSTSEAL_PURPOSE,
            notify::HOSTSEAL_MARK,
            notify::CHILDLESS_IKEV2_SUPPORTED,
            notify::SIGNATURE_HASH_ALGORITHMS,
        ];
        for sent in net.sent.iter().filter(|sent| sent.bytes[18] == 34) {
            let message = Message::parse(&sent.bytes).unwrap();
            assert!(kinds.iter().all(|kind| Parts(&message.payloads).notify(*kind).is_none()));
        }
        let says = |payloads: &Vec<Payload>| kinds.iter().any(|kind| Parts(payloads).notify(*kind).is_some());
        assert!(!inside.borrow().iter().any(|(.., payloads)| says(payloads)));
    }
}
