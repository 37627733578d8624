//! What somebody with a token says to a member, and what whoever answers in a member's place says to a host that joins.
//!
//! Nothing panics. In the roster of the member there is nobody whom it has not admitted, and it admits one node by each
//! token. A host that joins ends with a roster of the cluster of its token in which it is a member, or it does not join.

#![no_main]

#[path = "../../src/roster/tests/people.rs"]
#[allow(dead_code)]
mod people;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use hostseal::host::joiner::{JoinOrder, Joiner};
use hostseal::host::membership::Membership;
use hostseal::identity::PrivateKey;
use hostseal::ike::{
    ControlEvent, ControlSettings, Engine, Entropy, Event, Purpose, Settings, Topic, Transmit,
};
use hostseal::roster::{
    EntryId, Invite, Join, JoinPage, JoinRefusal, Keys, RefusalCode, Saying, SignedEntry, Signer, Token,
};
use hostseal::types::{EncapsulationMode, Inside, Method, Pair, Proposals, UnixTime};
use hostseal::{identity, roster, types};
use libfuzzer_sys::fuzz_target;
use people::{NOW, Town, invite, key, keys, sign, site, statement};

/// What is said to a member.
#[derive(Debug, Arbitrary)]
enum Said {
    Raw(Vec<u8>),
    Ask { own: bool, after: u8 },
    Join { by: u8, name: u8, last: u8, node: u8, flip: Option<(u16, u8)> },
    Page(Page),
    /// What the member has signed is written now, or cannot be.
    Written(bool),
}

/// What is said to a host that joins.
#[derive(Debug, Arbitrary)]
enum Page {
    Raw(Vec<u8>),
    /// Some of the roster, with something else in it.
    Roster { after: u8, flip: Option<(u16, u8)>, more: Option<bool> },
    Admitted { true_one: bool, octets: Vec<u8> },
    Refused { code: u8, words: Vec<u8> },
}

struct Seeded(u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = self.0.to_be_bytes()[0];
        }
    }
}

const MEMBER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
const GUEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9));
const SEED: [u8; 32] = [3; 32];

fn settings(key: PrivateKey, invites: Vec<identity::PublicKey>) -> Settings {
    let (mark, welcome) = (Arc::default(), Arc::from([1]));
    let control =
        ControlSettings { key: Arc::new(key), members: Default::default(), invites, mark, welcome };
    Settings {
        credentials: Arc::default(),
        secret: None,
        previous: None,
        cluster: "prod".to_owned(),
        inside: Inside::default(),
        method: Method::Ike,
        accept: vec![Method::Ike],
        port: 500,
        nat_port: 4500,
        encapsulation: EncapsulationMode::Auto,
        ike_proposals: Proposals::new(vec!["aes256gcm16-prfsha384-x25519".parse().unwrap()]).unwrap(),
        esp_proposals: Proposals::default(),
        rekey_after: Duration::from_secs(3600),
        initial_contact: false,
        jitter: Duration::ZERO,
        about: Arc::default(),
        first: |token, _| token.to_vec(),
        control: Some(control),
    }
}

/// A cluster of a and b, with a token that nobody has used.
fn town() -> (Town, Invite) {
    let mut town = Town::of(&["a", "b"]);
    let token = PrivateKey::from_seed(&SEED).unwrap();
    let of = Invite { name: None, key: Signer::of(&token).unwrap(), ..invite("t", "x") };
    let by = people::signer("a");
    let says = town.roster.draft(by, Saying::Invite(of.clone()), NOW).unwrap();
    let entry = SignedEntry::sign(town.roster.cluster(), says, &[&key("a"), &token]).unwrap();
    assert_eq!(town.take(entry.octets().to_vec()).taken, 1);
    (town, of)
}

fn entry(town: &Town, at: u8) -> Option<EntryId> {
    let ids: Vec<EntryId> = town.roster.ids().collect();
    ids.get(usize::from(at) % (ids.len() + 1)).copied()
}

fn flipped(mut octets: Vec<u8>, flip: Option<(u16, u8)>) -> Vec<u8> {
    if let Some((at, flip)) = flip.filter(|_| !octets.is_empty()) {
        let at = usize::from(at) % octets.len();
        octets[at] ^= flip;
    }
    octets
}

fn joining(town: &Town, by: u8, name: u8, last: u8, node: u8) -> Vec<u8> {
    let (name, node) = (["a", "b", "c", "x"][usize::from(name % 4)], ["c", "d", "a", "token of b"][usize::from(node % 4)]);
    let says = Saying::Join(Join { site: site(name, last), keys: keys(node) });
    let ike = format!("{node} ike");
    match by % 4 {
        0 => sign(town.roster.cluster(), statement("token of b", (0, 0), says), &["token of b", node, &ike]),
        _ => {
            let token = PrivateKey::from_seed(&SEED).unwrap();
            let by = Signer::of(&token).unwrap();
            let says = roster::Statement { by, ..statement("a", (0, 0), says) };
            let signers = [&token, &key(node), &key(&ike)];
            SignedEntry::sign(town.roster.cluster(), says, &signers).unwrap().octets().to_vec()
        }
    }
}

impl Page {
    fn octets(&self, town: &Town, admitting: &[Vec<u8>], number: u32) -> Vec<u8> {
        match self {
            Page::Raw(octets) => [&[1], octets.as_slice()].concat(),
            Page::Roster { after, flip, more } => {
                let after = if *after == 0 { None } else { entry(town, *after) };
                match JoinPage::of_roster(&town.roster, after) {
                    JoinPage::Entries { entries, more: has_more } => {
                        let entries = entries.into_iter().map(|entry| flipped(entry, *flip)).collect();
                        JoinPage::Entries { entries, more: more.unwrap_or(has_more) }.octets(number)
                    }
                    _ => Vec::new(),
                }
            }
            Page::Admitted { true_one: true, .. } => JoinPage::Admitted(admitting.to_vec()).octets(number),
            Page::Admitted { octets, .. } => JoinPage::Admitted(vec![octets.clone()]).octets(number),
            Page::Refused { code, words } => {
                let refusal = JoinRefusal { code: RefusalCode::Other, words: String::new() };
                let mut octets = JoinPage::Refused(refusal).octets(number);
                octets.pop();
                octets.push(*code);
                octets.extend(words.iter().take(3000));
                octets
            }
        }
    }
}

/// Carries datagrams until nobody has any more.
fn carry(now: Instant, one: &mut dyn FnMut(Option<Transmit>) -> Option<Transmit>, other: &mut Engine, mut event: impl FnMut(&mut Engine, Event)) {
    let _ = now;
    loop {
        let mut moved = false;
        while let Some(sent) = one(None) {
            moved = true;
            other.handle_datagram(now, sent.remote, sent.local, &sent.bytes);
            while let Some(it) = other.poll_event() {
                event(other, it);
            }
        }
        while let Some(sent) = other.poll_transmit() {
            moved = true;
            one(Some(sent));
        }
        if !moved {
            return;
        }
    }
}

/// Somebody with a token says this to a member.
fn to_a_member(input: &mut Unstructured<'_>) {
    let (town, _) = town();
    let now = Instant::now();
    let entries: Vec<&[u8]> = town.roster.in_order().map(SignedEntry::octets).collect();
    let mut own = roster::Roster::found(entries[0]).unwrap();
    own.merge(entries);
    let line = own.view().members[0].line;
    let mut member = Membership::new(own, line, Arc::new(key("a ike")), ([1; 16], [1; 16]));
    member.open_door(Arc::new(key("a")));
    let mut engine = Engine::new(settings(key("a ike"), Vec::new()), Box::new(Seeded(1)));
    member.begin(now, &mut engine);
    member.set_clock(now, UnixTime(NOW.0), &mut engine);
    let mut guest =
        Engine::new(settings(PrivateKey::from_seed(&SEED).unwrap(), Vec::new()), Box::new(Seeded(2)));
    guest.join(now, Pair { local: GUEST, remote: MEMBER });
    guest.handle_timeout(now);
    let pair = Pair { local: MEMBER, remote: GUEST };
    let mut one = |sent: Option<Transmit>| {
        if let Some(sent) = sent {
            guest.handle_datagram(now, sent.remote, sent.local, &sent.bytes);
            while let Some(event) = guest.poll_event() {
                if let Event::Control { event: ControlEvent::Introduced { session, .. }, .. } = event {
                    guest.admit(now, session);
                }
            }
        }
        guest.poll_transmit()
    };
    carry(now, &mut one, &mut engine, |engine, event| {
        if let Event::Control { pair, purpose: Purpose::Join, event } = event {
            member.handle_join(now, engine, pair, event);
        }
    });
    assert_eq!(engine.control(pair, Purpose::Join).map(|it| it.sessions), Some(1));
    let mut pending: Option<Vec<SignedEntry>> = None;
    let mut number = 0;
    for _ in 0..16 {
        let Ok(said) = Said::arbitrary(input) else { break };
        number += 1;
        let octets = match &said {
            Said::Raw(octets) => [&[1], octets.as_slice()].concat(),
            Said::Ask { own, after } => {
                let join = if *own { entry(&town, *after) } else { None };
                let join = join.unwrap_or(EntryId::new([*after; 32]));
                JoinPage::Ask { join, after: entry(&town, *after) }.octets(number)
            }
            Said::Join { by, name, last, node, flip } => {
                let entry = flipped(joining(&town, *by, *name, *last, *node), *flip);
                JoinPage::Join(entry).octets(number)
            }
            Said::Page(page) => page.octets(&town, &[], number),
            Said::Written(true) => {
                pending.take().into_iter().for_each(|it| member.handle_signed(now, &mut engine, &it));
                continue;
            }
            Said::Written(false) => {
                pending.take().into_iter().for_each(|it| member.handle_not_written(now, &mut engine, &it));
                continue;
            }
        };
        let before = member.roster().id();
        member.handle_join_told(now, &mut engine, pair, &octets);
        assert_eq!(member.roster().id(), before, "nothing counts that is not written");
        if let Some(signed) = member.poll_signed() {
            assert!(pending.replace(signed).is_none(), "one at a time");
        }
        while engine.poll_event().is_some() {}
        while engine.poll_transmit().is_some() {}
        let members = member.roster().view().members.len();
        assert!((2..=3).contains(&members), "a token is good for one node");
        assert!(member.roster().view().held_out.is_empty());
    }
}

/// Somebody in a member's place says this to a host that joins.
fn to_a_joiner(input: &mut Unstructured<'_>, is_member: bool) {
    let (mut town, of) = town();
    let (now, token) = (Instant::now(), PrivateKey::from_seed(&SEED).unwrap());
    let seeds = vec![SocketAddr::new(MEMBER, 500)];
    let id = town.roster.cluster();
    let order = JoinOrder {
        token: Token::new(("prod".to_owned(), id), seeds, (None, false), UnixTime(of.expires.0), SEED),
        site: site("x", 9),
        sources: [(MEMBER, GUEST)].into(),
        peers: Default::default(),
        patience: Duration::from_secs(60),
    };
    let (signing, ike) = (key("c"), key("c ike"));
    let entropy = Box::new(Seeded(3));
    let mut joiner = Joiner::new(now, UnixTime(NOW.0), order, [&signing, &ike], entropy).unwrap();
    let own = key(if is_member { "b ike" } else { "x ike" });
    let mut engine = Engine::new(settings(own, vec![token.public().clone()]), Box::new(Seeded(4)));
    joiner.handle_timeout(now);
    let join = joining(&town, 1, 3, 9, 0);
    let redeemed = town.roster.redeem(&join, of.key, people::signer("b"), NOW).unwrap();
    let admission = SignedEntry::sign(id, redeemed.admission, &[&key("b")]).unwrap().octets().to_vec();
    let (pair, mut number) = (Pair { local: MEMBER, remote: GUEST }, 0);
    let mut outcome = None;
    for _ in 0..16 {
        let mut one = |sent: Option<Transmit>| {
            if let Some(sent) = sent {
                joiner.handle_datagram(now, sent.remote, sent.local, &sent.bytes);
            }
            joiner.poll_transmit()
        };
        carry(now, &mut one, &mut engine, |engine, event| {
            if let Event::Control { event: ControlEvent::Introduced { session, .. }, .. } = event {
                engine.admit(now, session);
            }
        });
        while joiner.poll_step().is_some() {}
        outcome = joiner.poll_outcome();
        if outcome.is_some() {
            break;
        }
        let Ok(page) = Page::arbitrary(input) else { break };
        number += 1;
        let octets = page.octets(&town, std::slice::from_ref(&admission), number);
        engine.tell(now, pair, Topic::Join, Arc::new(move |_| octets.clone()));
    }
    match outcome {
        Some(Ok(joined)) => {
            assert!(is_member, "it has believed who is no member");
            assert_eq!(joined.roster.cluster(), id);
            let member = joined.roster.view().member(joined.own).unwrap();
            let is_own = |keys: &Keys| keys.signing == Signer::of(&signing).unwrap();
            assert!(member.keys.as_ref().is_some_and(is_own));
            town.roster.merge(joined.roster.in_order().map(SignedEntry::octets));
            assert!(town.roster.view().members.iter().any(|member| member.site.name.as_str() == "x"));
        }
        Some(Err(error)) => assert!(!error.to_string().chars().any(char::is_control)),
        None => {}
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    match u8::arbitrary(&mut input).unwrap_or_default() % 3 {
        0 => to_a_member(&mut input),
        1 => to_a_joiner(&mut input, true),
        _ => to_a_joiner(&mut input, false),
    }
});
