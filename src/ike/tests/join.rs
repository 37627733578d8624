//! Joiners: only a host with an invite is let in to talk; a few at a time, and for a limited time.

use std::sync::Arc;
use std::time::Duration;

use super::control::Members;
use super::net::{Dice, Net, SECRET, Weather, address, octets, pair, seeds, settings};
use super::proof::Pem;
use crate::identity::{KeyKind, PublicKey};
use crate::ike::reason::{BadProof, Incompatible, Reason, Refusal};
use crate::ike::wire::codes::{encoding, id, notify};
use crate::ike::wire::{Encoded, Id, Message, Parts, Payload, parse_chain, write_chain};
use crate::ike::{
    ControlSettings, Draft, Engine, Posture, Purpose, Settings, Topic, Transmit, stop_tampering, tamper,
};
use crate::types::Pair;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// What a host needs that has the invite with that key, and knows nobody.
fn joining(invite: &Pem) -> Settings {
    let control = ControlSettings {
        key: Arc::new(invite.key()),
        members: Default::default(),
        invites: Vec::new(),
        mark: Arc::default(),
        welcome: Arc::from(&b"let me in"[..]),
    };
    Settings { control: Some(control), ..settings([9; 32]) }
}

/// What member 0 needs, with these invites.
fn inviting(members: &Members, invites: &[&Pem]) -> Settings {
    let invites = invites.iter().map(|pem| pem.public()).collect();
    Settings { control: Some(ControlSettings { invites, ..members.control(0) }), ..members.settings(0) }
}

fn pem() -> Pem {
    Pem::new(KeyKind::Ed25519)
}

/// A member, and hosts 1, 2, … with an invite each.
fn guests(seed: u64, count: usize) -> (Members, Vec<Pem>, Net) {
    let (members, invites) = (Members::new(1), (0..count).map(|_| pem()).collect::<Vec<_>>());
    let hosts = [inviting(&members, &invites.iter().collect::<Vec<_>>())];
    let net = Net::new(seed, hosts.into_iter().chain(invites.iter().map(joining)));
    (members, invites, net)
}

impl Net {
    fn join(&mut self, host: usize) {
        self.call(host, |engine, now| engine.join(now, pair(host, 0)));
    }

    fn tell_join(&mut self, host: usize, other: usize, text: &str) {
        self.call(host, |engine, now| engine.tell(now, pair(host, other), Topic::Join, octets(text)));
    }

    /// How many sessions the two have as joiner and member, as each end sees it.
    fn joined(&self, host: usize) -> (usize, usize) {
        let of = |at: usize, other: usize| {
            let summary = self.hosts[at].engine.control(pair(at, other), Purpose::Join);
            summary.map_or(0, |summary| summary.sessions)
        };
        (of(host, 0), of(0, host))
    }

    fn reasons(&self, host: usize) -> &[Reason] {
        &self.hosts[host].reasons
    }
}

/// ```text
/// j  --- IKE_SA_INIT, N(purpose) ------------------------------>  a
/// j  <-- IKE_SA_INIT, N(CHILDLESS_IKEV2_SUPPORTED) -------------  a
/// j  --- IKE_AUTH: IDi = ID_KEY_ID, IDr, AUTH, N(mark) -------->  a
/// j  <-- IKE_AUTH: IDr, CERT (raw public key), AUTH, N(mark) ---  a
/// j  --- told ------------------------------------------------->  a
/// j  <-- told --------------------------------------------------  a
/// ```
#[test]
fn who_has_an_invite_is_heard() {
    let (members, invites, mut net) = guests(400, 1);
    let inside = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let heard = inside.clone();
    tamper(move |draft: &mut Draft| {
        heard.borrow_mut().push(parse_chain(draft.first, &draft.text).unwrap());
    });
    net.join(1);
    net.run(SECOND);
    stop_tampering();
    assert_eq!(net.joined(1), (1, 1));
    let first = Message::parse(&net.sent[0].bytes).unwrap();
    assert_eq!(Parts(&first.payloads).notify(notify::HOSTSEAL_PURPOSE).unwrap().data, [2]);
    let (asked, answered) = (&inside.borrow()[0], &inside.borrow()[1]);
    let known_by = Id { kind: id::KEY_ID, data: invites[0].public().der().to_vec() };
    assert_eq!(Parts(asked).id_i(), Some(&known_by));
    let raw = Encoded { encoding: encoding::RAW_PUBLIC_KEY, data: members.0[0].public().der().to_vec() };
    assert!(answered.contains(&Payload::Cert(raw)));
    let (guest, host) = (&net.hosts[1].introduced[0], &net.hosts[0].introduced[0]);
    assert_eq!((&guest.key, &guest.mark[..]), (&members.0[0].public(), &b"welcome by 0"[..]));
    assert_eq!((&host.key, &host.mark[..]), (&invites[0].public(), &b"let me in"[..]));
    assert_eq!((host.pair, host.purpose), (pair(0, 1), Purpose::Join));
    net.tell_join(1, 0, "here I am");
    net.run(SECOND);
    net.tell_join(0, 1, "welcome");
    net.run(SECOND);
    assert_eq!(
        (&net.hosts[0].said, &net.hosts[1].said),
        (&vec![b"here I am".to_vec()], &vec![b"welcome".to_vec()])
    );
    assert_eq!(net.hosts[0].engine.counters().joiners, 1);
    assert!(net.hosts.iter().all(|host| host.children.is_empty() && host.told.is_empty()));
    net.call(1, |engine, now| engine.end_join(now, pair(1, 0)));
    net.run(SECOND);
    assert_eq!((net.joined(1), net.hosts[0].ended), ((0, 0), 1));
    net.run(60 * SECOND);
    assert_eq!(net.hosts[0].engine.counters().sessions, 0);
    assert!(net.hosts[0].engine.control(pair(0, 1), Purpose::Join).is_none(), "nothing is left of it");
}

#[test]
fn it_joins_over_a_bad_network() {
    for seed in seeds(20) {
        let (_, _, mut net) = guests(4000 + seed, 1);
        let mut dice = Dice(seed);
        net.weather = Weather { loss: dice.below(40), duplication: dice.below(20), delay: dice.below(300) };
        net.join(1);
        for page in 0..10 {
            let text = format!("page {page}");
            let arrived = |net: &Net| net.hosts[0].said.last().is_some_and(|said| *said == text.as_bytes());
            // The IKE SA that there was may be gone.
            let goes = |net: &mut Net| {
                net.tell_join(1, 0, &text);
                net.run_until(10 * SECOND, arrived)
            };
            assert!((0..30).any(|_| goes(&mut net)), "{text}");
        }
    }
}

#[test]
fn an_unknown_invite_is_refused() {
    let (members, _, _) = guests(401, 1);
    let mut net = Net::new(402, [inviting(&members, &[&pem()]), joining(&pem())]);
    net.join(1);
    net.run(5 * SECOND);
    assert_eq!(net.joined(1), (0, 0));
    assert!(net.reasons(1).contains(&Refusal::Authentication.into()), "{:?}", net.reasons(1));
    assert!(net.hosts[0].introduced.is_empty() && net.hosts[1].introduced.is_empty());
}

/// A member's key is no invite, and an invite's no member's.
#[test]
fn one_kind_of_key_does_not_pass_for_the_other() {
    let (members, invite) = (Members::new(2), pem());
    let member = ControlSettings { key: Arc::new(members.0[1].key()), ..joining(&invite).control.unwrap() };
    let mut net = Net::new(
        403,
        [inviting(&members, &[&invite]), Settings { control: Some(member), ..joining(&invite) }],
    );
    net.join(1);
    net.run(5 * SECOND);
    assert_eq!(net.joined(1), (0, 0));
    let invited = ControlSettings { key: Arc::new(invite.key()), ..members.control(1) };
    let mut net = Net::new(
        404,
        [inviting(&members, &[&invite]), Settings { control: Some(invited), ..members.settings(1) }],
    );
    net.keep_control(0, 1);
    net.run(5 * SECOND);
    assert_eq!(net.control(0, 1).sessions, 0);
    assert!(net.reasons(0).contains(&BadProof::Member.into()));
}

/// Somebody answers in the member's place with another key: the joiner's user sees that it is no member's, and nothing
/// else is said.
#[test]
fn who_answers_in_a_members_place_gets_nothing() {
    let (members, invites, _) = guests(405, 1);
    let imposter =
        ControlSettings { key: Arc::new(pem().key()), ..inviting(&members, &[&invites[0]]).control.unwrap() };
    let mut net =
        Net::new(406, [Settings { control: Some(imposter), ..members.settings(0) }, joining(&invites[0])]);
    net.hosts[1].admits = Box::new(|_| Some(false));
    net.join(1);
    net.tell_join(1, 0, "a secret");
    net.run(5 * SECOND);
    assert_ne!(net.hosts[1].introduced[0].key, members.0[0].public());
    assert_eq!(net.joined(1), (0, 0));
    assert!(net.hosts[0].said.is_empty());
    assert!(net.reasons(1).contains(&BadProof::NotAdmitted.into()));
}

/// The raw key is replaced by a member's, which the responder does not have; or there is none.
#[test]
fn a_key_must_be_the_responders_own() {
    for other in [None, Some(pem().public())] {
        let (_, _, mut net) = guests(407, 1);
        tamper(move |draft: &mut Draft| {
            let mut payloads = parse_chain(draft.first, &draft.text).unwrap();
            match &other {
                None => payloads.retain(|it| !matches!(it, Payload::Cert(_))),
                Some(key) => payloads.iter_mut().for_each(|it| {
                    if let Payload::Cert(cert) = it {
                        *cert = Encoded::raw(key);
                    }
                }),
            }
            draft.first = payloads.first().map_or(0, Payload::kind);
            draft.text.clear();
            write_chain(&payloads, &mut draft.text);
        });
        net.join(1);
        net.run(5 * SECOND);
        stop_tampering();
        assert!(net.hosts[1].introduced.is_empty());
        assert!(net.reasons(1).contains(&BadProof::OtherSigner.into()), "{:?}", net.reasons(1));
        assert_eq!(net.joined(1), (0, 0));
    }
}

/// What is proven for one purpose is worth nothing for another: the purpose in the first message is changed on the way.
#[test]
fn a_joiner_does_not_become_a_member_on_the_way() {
    let (members, invite) = (Members::new(2), pem());
    let mut net = Net::new(408, [inviting(&members, &[&invite]), members.settings(1)]);
    net.middlebox = Box::new(|mut transmit| {
        let kind = notify::HOSTSEAL_PURPOSE.to_be_bytes();
        if transmit.bytes[18] == 34
            && let Some(at) = transmit.bytes.windows(2).position(|it| it == kind)
        {
            transmit.bytes[at + 2] ^= 3;
        }
        transmit
    });
    net.keep_control(0, 1);
    net.run(5 * SECOND);
    assert!(net.hosts.iter().all(|host| host.introduced.is_empty()));
    assert_eq!(net.control(0, 1).sessions, 0);
}

#[test]
fn sixteen_are_let_in_and_the_next_one_later() {
    let (_, _, mut net) = guests(409, 18);
    (1..=16).for_each(|host| net.join(host));
    net.run(5 * SECOND);
    assert!((1..=16).all(|host| net.joined(host) == (1, 1)));
    net.join(17);
    net.run(5 * SECOND);
    assert_eq!(net.joined(17), (0, 0));
    assert!(net.reasons(17).contains(&Refusal::Temporary.into()), "{:?}", net.reasons(17));
    let counters = net.hosts[0].engine.counters();
    assert!(counters.joiners == 16 && counters.joiners_refused > 0, "{counters:?}");
    net.call(3, |engine, now| engine.end_join(now, pair(3, 0)));
    assert!(net.run_until(120 * SECOND, |net| net.joined(17) == (1, 1)), "there is room again");
}

/// One that begins anew, from the same address or another, takes its own place and nobody else's.
#[test]
fn an_invite_has_one_place() {
    let (members, invites) = (Members::new(1), [pem(), pem()]);
    let host = || joining(&invites[0]);
    let hosts = [inviting(&members, &[&invites[0], &invites[1]]), host(), host(), joining(&invites[1])];
    let mut net = Net::new(410, hosts);
    net.join(3);
    net.join(1);
    net.run(SECOND);
    net.restart(1, host());
    net.join(1);
    net.run(5 * SECOND);
    assert_eq!((net.joined(1), net.hosts[0].engine.counters().joiners), ((1, 1), 2));
    net.join(2);
    net.run(300 * MILLISECOND);
    assert_eq!((net.joined(2), net.joined(1).1), ((1, 1), 0));
    assert_eq!((net.joined(3), net.hosts[0].engine.counters().joiners), ((1, 1), 2));
}

/// Who says nothing for a minute is sent away, though it shows that it is there.
#[test]
fn who_is_silent_is_sent_away() {
    let (_, _, mut net) = guests(411, 1);
    net.join(1);
    net.run(SECOND);
    for _ in 0..5 {
        net.run(11 * SECOND);
        net.call(1, |engine, now| engine.path_is_back(now, pair(1, 0)));
    }
    net.run(3 * SECOND);
    assert_eq!((net.hosts[0].ended, net.joined(1)), (0, (1, 1)), "it has its minute");
    net.run(2 * SECOND);
    assert_eq!(net.hosts[0].ended, 1);
}

#[test]
fn who_talks_stays_for_ten_minutes() {
    let (_, _, mut net) = guests(420, 1);
    net.join(1);
    net.run(9 * SECOND);
    for minute in 0..10 {
        net.tell_join(1, 0, &format!("minute {minute}"));
        net.run(59 * SECOND);
        assert_eq!((net.hosts[0].ended, net.hosts[0].said.len()), (0, minute + 1));
    }
    net.run(2 * SECOND);
    assert_eq!(net.hosts[0].ended, 1);
}

/// ```text
/// a: the invite is withdrawn
/// j  <-- D ---  a
/// ```
#[test]
fn an_invite_that_is_withdrawn_ends_what_rests_on_it() {
    let (members, invites, mut net) = guests(412, 2);
    net.join(1);
    net.join(2);
    net.run(SECOND);
    net.call(0, |engine, now| engine.reconfigure(now, inviting(&members, &[&invites[1]])));
    net.run(SECOND);
    assert_eq!((net.joined(1), net.joined(2)), ((0, 0), (1, 1)));
    assert_eq!((net.hosts[0].ended, net.hosts[1].ended), (1, 1));
    net.run(5 * SECOND);
    assert!(net.reasons(1).contains(&Refusal::Authentication.into()));
}

/// No invite, no control IKE SAs, or a version before: nobody answers, and who asks between other addresses is noted.
#[test]
fn nobody_joins_where_nobody_is_invited() {
    let members = Members::new(1);
    for host in [inviting(&members, &[]), settings(SECRET)] {
        let mut net = Net::new(413, [host, joining(&pem())]);
        net.join(1);
        net.run(20 * SECOND);
        assert!(matches!(net.reasons(1), [Reason::Unanswered(_), ..]), "{:?}", net.reasons(1));
        assert!(net.sent.iter().all(|sent| sent.local != Net::socket(0)));
        assert_eq!(net.hosts[0].engine.unlisted(net.now).count(), 1);
        // Between the addresses of a pair that is kept, it is answered as ever, and has no control IKE SA.
        let now = net.now;
        net.hosts[0].engine.keep(now, pair(0, 1), Posture::Passive);
        net.run(120 * SECOND);
        assert_eq!(net.joined(1), (0, 0));
    }
    let mut net = Net::new(414, [settings(SECRET), joining(&pem())]);
    net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Passive);
    net.join(1);
    net.run(20 * SECOND);
    assert!(net.reasons(1).contains(&Incompatible::NoControl.into()));
}

/// A host whose pair has keys by file joins the cluster beside them.
#[test]
fn a_pair_by_file_goes_on_while_an_end_joins() {
    let (members, invite) = (Members::new(1), pem());
    let guest = Settings { control: joining(&invite).control, ..settings(SECRET) };
    let mut net = Net::new(415, [inviting(&members, &[&invite]), guest]);
    net.keep(0, 1);
    net.run(5 * SECOND);
    net.join(1);
    net.run(700 * SECOND);
    net.assert_one_pair(0, 1);
    assert!(!net.hosts[0].introduced.is_empty());
    assert!(net.hosts.iter().all(|host| host.failures.is_empty()));
}

// ---------------------------------------------------------------------- floods

fn forged(at: u64) -> std::net::IpAddr {
    let [.., a, b] = at.to_be_bytes();
    [10, 7, a, b].into()
}

/// First messages of joiners from thousands of addresses, which receive their cookies or not: members notice nothing,
/// what is kept is bounded, and a joiner gets in.
#[test]
fn a_flood_of_joiners_takes_nothing_from_members() {
    for receives in [false, true] {
        let (members, invite) = (Members::new(2), pem());
        let mut net = Net::new(416, [inviting(&members, &[&invite]), members.settings(1), joining(&invite)]);
        let mut initiator = Engine::new(joining(&pem()), Box::new(Dice(417)));
        let of = |remote| Pair { local: remote, remote: address(0) };
        initiator.join(net.now, of(forged(0)));
        initiator.handle_timeout(net.now);
        let request = initiator.poll_transmit().unwrap();
        let mut dice = Dice(418);
        for count in 0..3_000 {
            let remote = std::net::SocketAddr::new(forged(count), 500);
            let mut bytes = request.bytes.clone();
            bytes[..8].copy_from_slice(&dice.roll().to_be_bytes());
            let victim = &mut net.hosts[0].engine;
            victim.handle_datagram(net.now, Net::socket(0), remote, &bytes);
            while let Some(Transmit { bytes: answer, .. }) = victim.poll_transmit() {
                if receives && super::abuse::has_cookie(&answer) {
                    let again = super::abuse::with_cookie(&bytes, &answer);
                    victim.handle_datagram(net.now, Net::socket(0), remote, &again);
                }
            }
            let counters = net.hosts[0].engine.counters();
            assert!(counters.half_open <= 18 && counters.sessions <= 24, "{counters:?}");
            match count {
                500 => net.keep(0, 1),
                600 => net.keep_control(0, 1),
                700 => net.join(2),
                _ => net.run(MILLISECOND),
            }
            net.sent.clear();
        }
        net.assert_one_pair(0, 1);
        assert_eq!(net.control(0, 1).sessions, 1);
        assert!(net.run_until(10 * SECOND, |net| net.joined(2) == (1, 1)), "receives: {receives}");
        let counters = net.hosts[0].engine.counters();
        assert!(counters.cookies > 2_000, "{counters:?}");
        net.run(20 * SECOND);
        assert_eq!(net.hosts[0].engine.counters().half_open, 0, "all of it is forgotten");
    }
}

/// Who has one invite and goes on with it fills nothing.
#[test]
fn whoever_comes_again_and_again_with_one_invite_has_one_place() {
    let (_, invites, mut net) = guests(419, 3);
    net.join(1);
    net.join(2);
    for _ in 0..100 {
        net.restart(1, joining(&invites[0]));
        net.join(1);
        net.run(200 * MILLISECOND);
        let counters = net.hosts[0].engine.counters();
        assert!(counters.joiners <= 2 && counters.sessions <= 24, "{counters:?}");
    }
    net.join(3);
    net.run(5 * SECOND);
    assert_eq!((net.joined(2), net.joined(3)), ((1, 1), (1, 1)));
}

/// One after the other, while nobody says whether they are let in; and none is left of any.
#[test]
fn who_waits_to_be_let_in_has_one_place_too() {
    let (_, invites, mut net) = guests(421, 2);
    net.hosts[0].admits = Box::new(|_| None);
    for _ in 0..40 {
        net.restart(1, joining(&invites[0]));
        net.join(1);
        net.run(20 * MILLISECOND);
        assert!(net.hosts[0].engine.counters().joiners <= 1);
    }
    net.hosts[0].admits = Box::new(|_| Some(true));
    net.join(2);
    net.run(SECOND);
    assert_eq!(net.joined(2), (1, 1));
    net.call(1, |engine, now| engine.end_join(now, pair(1, 0)));
    net.run(60 * SECOND);
    assert!(net.hosts[0].engine.control(pair(0, 1), Purpose::Join).is_none(), "nothing is left of it");
}

#[test]
fn an_invite_that_is_withdrawn_while_one_waits_lets_nobody_in() {
    let (members, _, mut net) = guests(422, 1);
    net.hosts[0].admits = Box::new(|_| None);
    net.join(1);
    net.run(SECOND);
    let waiting = net.hosts[0].introduced[0].session;
    net.call(0, |engine, now| engine.reconfigure(now, inviting(&members, &[&pem()])));
    net.call(0, |engine, now| engine.admit(now, waiting));
    net.run(SECOND);
    assert_eq!(net.joined(1), (0, 0));
}

/// A host that has joined has its node key in the settings, and does not join with that.
#[test]
fn a_guest_that_becomes_a_member_is_heard_to_the_end() {
    let (members, invite) = (Members::new(2), pem());
    let mut net = Net::new(423, [inviting(&members, &[&invite]), joining(&invite)]);
    net.join(1);
    net.run(SECOND);
    net.call(1, |engine, now| engine.reconfigure(now, members.settings(1)));
    net.keep_control(0, 1);
    net.run(5 * SECOND);
    assert_eq!((net.joined(1), net.control(0, 1).sessions), ((1, 1), 1));
    net.tell_join(1, 0, "I am in");
    net.run(SECOND);
    assert_eq!(net.hosts[0].said, [b"I am in"]);
    assert!(net.hosts.iter().all(|host| host.reasons.is_empty()), "{:?}", net.hosts[0].reasons);
}

/// What is said of keys is what they are.
#[test]
fn a_raw_key_is_read_as_it_is_written() {
    for kind in [KeyKind::Ed25519, KeyKind::EcdsaP256, KeyKind::EcdsaP384] {
        let key: PublicKey = Pem::new(kind).public();
        assert_eq!(Id::of_key(&key).body()[4..], *key.der());
        assert_eq!(Parts(&[Payload::Cert(Encoded::raw(&key))]).raw_key(), Some(key));
    }
    let none = Encoded { encoding: encoding::RAW_PUBLIC_KEY, data: vec![1; 44] };
    assert_eq!(Parts(&[Payload::Cert(none)]).raw_key(), None);
}
