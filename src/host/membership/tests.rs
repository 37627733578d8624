//! Members with real engines, and a network that loses: what one signs comes to all.

mod moved;
pub(in crate::host) mod refused;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::{MemberMark, Membership};
use crate::identity::PrivateKey;
use crate::ike::reason::{BadProof, Incompatible};
use crate::ike::{self, Engine, Entropy, Event, Topic};
use crate::roster::{
    Admission, ClusterId, ClusterSettings, DesiredProtection, EntryId, Genesis, Gone, Invite, Join, Keys,
    Roster, Saying, Seconds, SignedEntry, Signer, Site, Statement, Version,
};
use crate::types::{EncapsulationMode, Inside, Method, Pair, Proposals, UnixTime};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
pub(in crate::host) const NOW: UnixTime = UnixTime(1_800_000_000);

pub(in crate::host) struct Dice(pub StdRng);

impl Entropy for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// The keys of member `at`: the one that signs, and the one for IKE.
pub(in crate::host) fn keys(at: usize) -> [PrivateKey; 2] {
    seeds(at).map(|seed| PrivateKey::from_seed(&seed).unwrap())
}

pub(in crate::host) fn seeds(at: usize) -> [[u8; 32]; 2] {
    let at = u8::try_from(at).unwrap();
    [1, 2].map(|kind| {
        let mut seed = [kind; 32];
        seed[0] = at;
        seed
    })
}

pub(in crate::host) fn address(at: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, u8::try_from(at + 1).unwrap()])
}

pub(in crate::host) fn site(at: usize) -> Site {
    Site { name: format!("n{at}").parse().unwrap(), addresses: vec![address(at)], inside: BTreeMap::new() }
}

pub(in crate::host) fn signers(at: usize) -> Keys {
    let [signing, ike] = keys(at);
    Keys { signing: Signer::of(&signing).unwrap(), ike: Signer::of(&ike).unwrap() }
}

pub(in crate::host) fn sign(cluster: ClusterId, statement: Statement, by: &[&PrivateKey]) -> SignedEntry {
    SignedEntry::sign(cluster, statement, by).unwrap()
}

/// What member `at` says, as a command would sign it.
pub(in crate::host) fn said(roster: &Roster, at: usize, says: Saying) -> SignedEntry {
    let [signing, _] = keys(at);
    let statement = roster.draft(Signer::of(&signing).unwrap(), says, NOW).unwrap();
    sign(roster.cluster(), statement, &[&signing])
}

/// The roster of a cluster of so many, and their first entries.
pub(in crate::host) fn cluster(count: usize) -> (Roster, Vec<EntryId>) {
    let [signing, ike] = keys(0);
    let recovery = PrivateKey::from_seed(&[99; 32]).unwrap();
    let by = Signer::of(&signing).unwrap();
    let says = Saying::Genesis(Genesis {
        cluster: "prod".to_owned(),
        site: site(0),
        keys: signers(0),
        recovery: Signer::of(&recovery).unwrap(),
    });
    let genesis = Statement { by, version: Version(0, 0), after: Vec::new(), basis: None, says };
    let genesis = sign(ClusterId::new([0; 32]), genesis, &[&signing, &ike, &recovery]);
    let mut roster = Roster::found(genesis.octets()).unwrap();
    let mut lines = vec![genesis.id()];
    for at in 1..count {
        lines.push(join(&mut roster, at));
    }
    (roster, lines)
}

/// Member 0 invites `at`, which joins.
fn join(roster: &mut Roster, at: usize) -> EntryId {
    let mut seed = [100; 32];
    seed[0] = u8::try_from(at).unwrap();
    let token = PrivateKey::from_seed(&seed).unwrap();
    let key = Signer::of(&token).unwrap();
    let invite = Invite {
        key,
        name: None,
        line: None,
        admin: false,
        expires: Seconds(NOW.0),
        within: Vec::new(),
        addresses: Vec::new(),
    };
    let [admin, _] = keys(0);
    let invite = roster.draft(Signer::of(&admin).unwrap(), Saying::Invite(invite), NOW).unwrap();
    let invite = sign(roster.cluster(), invite, &[&admin, &token]);
    let [signing, ike] = keys(at);
    let says = Saying::Join(Join { site: site(at), keys: signers(at) });
    let join = Statement { by: key, version: Version(0, 0), after: Vec::new(), basis: None, says };
    let join = sign(roster.cluster(), join, &[&token, &signing, &ike]);
    roster.merge([invite.octets(), join.octets()]);
    let admission = said(roster, 0, Saying::Admission(Admission { of: join.id() }));
    roster.merge([admission.octets()]);
    join.id()
}

struct Node {
    at: usize,
    /// Those that its host has.
    addresses: Vec<IpAddr>,
    engine: Engine,
    member: Membership,
    /// How often its roster was written.
    writes: usize,
}

/// Members, and what is under way between them.
struct Land {
    now: Instant,
    rng: StdRng,
    nodes: Vec<Node>,
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    loss: u32,
    /// Who is cut off.
    cut: Vec<usize>,
}

pub(in crate::host) fn settings(member: &Membership) -> ike::Settings {
    ike::Settings {
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
        ike_proposals: Proposals::default(),
        esp_proposals: Proposals::default(),
        rekey_after: Duration::from_secs(3600),
        initial_contact: false,
        jitter: Duration::ZERO,
        about: Arc::default(),
        first: |token, _| token.to_vec(),
        control: Some(member.control_settings()),
    }
}

/// The machine of member `at`, and the start of it that is the first.
fn start(at: usize) -> ([u8; 16], [u8; 16]) {
    ([u8::try_from(at).unwrap(); 16], [0; 16])
}

impl Land {
    fn new(seed: u64, roster: &Roster, lines: &[EntryId]) -> Self {
        let mut land = Self {
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            nodes: Vec::new(),
            wire: BTreeMap::new(),
            sent: 0,
            loss: 0,
            cut: Vec::new(),
        };
        for (at, line) in lines.iter().enumerate() {
            land.add(at, roster, *line, start(at));
        }
        land
    }

    fn add(&mut self, at: usize, roster: &Roster, line: EntryId, start: ([u8; 16], [u8; 16])) {
        let entries: Vec<&[u8]> = roster.in_order().map(SignedEntry::octets).collect();
        let mut own = Roster::found(entries[0]).unwrap();
        own.merge(entries);
        let [_, key] = keys(at);
        let member = Membership::new(own, line, Arc::new(key), start);
        let dice = Dice(StdRng::seed_from_u64(self.rng.random()));
        let engine = Engine::new(settings(&member), Box::new(dice));
        let mut node = Node { at, addresses: vec![address(at)], engine, member, writes: 0 };
        node.member.begin(self.now, &mut node.engine);
        self.nodes.push(node);
    }

    fn say(&mut self, at: usize, says: Saying) -> EntryId {
        let node = &mut self.nodes[at];
        let entry = said(node.member.roster(), node.at, says);
        node.member.handle_signed(self.now, &mut node.engine, std::slice::from_ref(&entry));
        entry.id()
    }

    /// Lets the next thing happen.
    fn step(&mut self, end: Instant) {
        for node in &mut self.nodes {
            node.drain(self.now);
            if node.member.poll_save() {
                node.writes += 1;
                node.member.handle_stored_roster(self.now, &mut node.engine);
            }
            while let Some(sent) = node.engine.poll_transmit() {
                self.sent += 1;
                let is_away = self.cut.contains(&node.at) || !node.addresses.contains(&sent.local.ip());
                let lost = self.rng.random_range(0..100) < self.loss || is_away;
                if !lost {
                    let comes = self.now + MILLISECOND * self.rng.random_range(1..5);
                    self.wire.insert((comes, self.sent), (sent.local, sent.remote, sent.bytes));
                }
            }
        }
        let due = |node: &Node| {
            node.engine.poll_timeout().map(|(at, _)| at).into_iter().chain(node.member.poll_timeout()).min()
        };
        let timeout = self.nodes.iter().filter_map(due).min();
        let comes = self.wire.first_key_value().map(|((at, _), _)| *at);
        let next = timeout.into_iter().chain(comes).min().unwrap_or(end).min(end);
        self.now = self.now.max(next);
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, bytes) = entry.remove();
            for node in &mut self.nodes {
                if node.addresses.contains(&to.ip()) && !self.cut.contains(&node.at) {
                    node.engine.handle_datagram(self.now, to, from, &bytes);
                    node.drain(self.now);
                }
            }
        }
        for node in &mut self.nodes {
            if node.engine.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                node.engine.handle_timeout(self.now);
            }
            if node.member.poll_timeout().is_some_and(|at| at <= self.now) {
                node.member.handle_timeout(self.now, &mut node.engine);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) && self.now < end {
            self.step(end);
        }
        done(self)
    }

    fn is_one(&self) -> bool {
        self.nodes.iter().all(|node| node.member.roster().id() == self.nodes[0].member.roster().id())
    }

    /// How many control IKE SAs this node has.
    fn sessions(&self, at: usize) -> usize {
        let Node { engine, member, .. } = &self.nodes[at];
        let summaries = member.kept.keys().filter_map(|pair| engine.control(*pair, ike::Purpose::Control));
        summaries.map(|summary| summary.sessions).sum()
    }
}

impl Node {
    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Control { pair, event, .. } => {
                    self.member.handle_control(now, &mut self.engine, pair, event);
                }
                Event::Told { pair, topic: Topic::Control, octets } => {
                    self.member.handle_told(now, &mut self.engine, pair, &octets);
                }
                other => panic!("nothing of data: {other:?}"),
            }
        }
    }
}

fn on() -> Saying {
    Saying::Desired(DesiredProtection { on: true, trial: None, confirms: None })
}

fn is_on(node: &Node) -> bool {
    node.member.roster().view().desired.as_ref().is_some_and(|desired| desired.says.on)
}

#[test]
fn what_one_signs_comes_to_all_within_moments_and_is_to_be_written() {
    let (roster, lines) = cluster(5);
    let mut land = Land::new(1, &roster, &lines);
    assert!(land.run_until(5 * SECOND, |land| (0..5).all(|at| land.sessions(at) == 4)));
    land.run(SECOND);
    let begin = land.now;
    land.say(3, on());
    assert!(land.run_until(SECOND, |land| land.nodes.iter().all(is_on)));
    assert!(land.now - begin < 20 * MILLISECOND, "{:?}", land.now - begin);
    land.run(20 * MILLISECOND);
    assert!(land.nodes.iter().all(|node| node.writes > 0));
    // Then all are silent, but for what IKE asks now and then.
    land.run(2 * SECOND);
    land.sent = 0;
    land.run(10 * SECOND);
    assert_eq!(land.sent, 0);
}

#[test]
fn what_was_missed_comes_when_the_way_is_there_again_whatever_gets_lost() {
    for seed in 0..6 {
        let (roster, lines) = cluster(4);
        let mut land = Land::new(seed, &roster, &lines);
        land.loss = 20;
        land.run(10 * SECOND);
        land.cut = vec![2];
        land.say(0, Saying::Settings(ClusterSettings::lasting("#".repeat(3000))));
        for _ in 0..5 {
            land.say(1, on());
            land.run(11 * SECOND);
        }
        land.run(100 * SECOND);
        assert!(!land.is_one());
        land.cut.clear();
        assert!(land.run_until(200 * SECOND, Land::is_one), "{seed}");
        assert!(is_on(&land.nodes[2]));
    }
}

#[test]
fn a_removed_node_is_not_talked_to_and_a_new_one_is() {
    let (mut roster, lines) = cluster(4);
    let mut land = Land::new(7, &roster, &lines);
    land.run(5 * SECOND);
    land.say(0, Saying::Gone(Gone { of: lines[2], kept: Vec::new(), compromised: false }));
    let apart = |land: &Land| land.sessions(2) == 0 && [0, 1, 3].iter().all(|at| land.sessions(*at) == 2);
    assert!(land.run_until(2 * SECOND, apart));
    // It tries again and again, and nobody listens.
    land.run(300 * SECOND);
    assert!(apart(&land));
    let entries: Vec<&[u8]> = land.nodes[0].member.roster().in_order().map(SignedEntry::octets).collect();
    roster.merge(entries);
    let before: Vec<EntryId> = roster.ids().collect();
    let line = join(&mut roster, 4);
    let new: Vec<SignedEntry> =
        roster.in_order().filter(|entry| !before.contains(&entry.id())).cloned().collect();
    let node = &mut land.nodes[0];
    node.member.handle_signed(land.now, &mut node.engine, &new);
    land.add(4, &roster, line, start(4));
    assert!(land.run_until(30 * SECOND, |land| land.sessions(4) == 3));
    land.nodes.remove(2);
    assert!(land.run_until(5 * SECOND, Land::is_one));
}

/// A copied image has the keys of the machine that it is a copy of, and may have its name too. It does not take its place
/// while that one is there, whichever end begins by rule.
#[test]
fn a_copy_of_a_machine_takes_nobodys_place_and_both_are_named() {
    for (seed, copied) in [(8, 1), (9, 0)] {
        let (machine, boot) = start(copied);
        for copy in [([77; 16], boot), (machine, [77; 16])] {
            let (roster, lines) = cluster(2);
            let mut land = Land::new(seed, &roster, &lines);
            let other = 1 - copied;
            land.run(5 * SECOND);
            assert_eq!(land.sessions(other), 1);
            // The same address and keys. It hears what comes for the other, as on a network that floods.
            land.add(copied, &roster, lines[copied], copy);
            let named =
                |land: &Land, at: usize| land.nodes[at].member.duplicates(land.now).eq([lines[copied]]);
            assert!(land.run_until(120 * SECOND, |land| named(land, other)));
            for _ in 0..60 {
                land.run(5 * SECOND);
                assert_eq!([other, copied, 2].map(|at| land.sessions(at)), [1, 1, 0]);
                assert!(named(&land, other));
            }
            // The first one is gone: the other may take over.
            land.nodes.remove(copied);
            let other = land.nodes.iter().position(|node| node.at == other).unwrap();
            assert!(land.run_until(600 * SECOND, |land| land.sessions(1 - other) == 1));
            land.run(20 * 60 * SECOND);
            assert!(!named(&land, other), "there is one machine by now");
        }
    }
}

/// Who has rebooted does not answer on what it knows nothing of any more.
#[test]
fn a_machine_that_has_rebooted_is_back_within_seconds() {
    for rebooted in [0, 1] {
        for seed in 0..4 {
            let (roster, lines) = cluster(3);
            let mut land = Land::new(seed, &roster, &lines);
            land.loss = 10;
            land.run(10 * SECOND);
            let (machine, mut boot) = start(rebooted);
            for _ in 0..3 {
                boot[0] += 1;
                land.nodes.retain(|node| node.at != rebooted);
                let roster = land.nodes[0].member.roster();
                let entries: Vec<Vec<u8>> = roster.in_order().map(|entry| entry.octets().to_vec()).collect();
                let mut kept = Roster::found(&entries[0]).unwrap();
                kept.merge(entries.iter().map(Vec::as_slice));
                let others = [0, 1].map(|at| land.nodes[at].member.own());
                land.add(rebooted, &kept, lines[rebooted], (machine, boot));
                let is_back = |land: &Land| {
                    let Node { member, .. } = &land.nodes[2];
                    others.iter().all(|line| member.has(*line).is_some())
                        && land.nodes[..2].iter().all(|node| node.member.has(lines[rebooted]).is_some())
                };
                let begun = land.now;
                assert!(land.run_until(30 * SECOND, is_back), "{seed}");
                assert!(land.now - begun < 15 * SECOND, "{seed}: {:?}", land.now - begun);
                // What is signed then comes to all, and nobody is called a copy.
                land.say(1, on());
                assert!(land.run_until(30 * SECOND, Land::is_one), "{seed}");
                assert!(land.nodes.iter().all(|node| node.member.duplicates(land.now).next().is_none()));
                land.run(20 * SECOND);
            }
        }
    }
}

/// Where the network leads to one of two machines and then to the other, both are there in turn, and both are named.
#[test]
fn machines_that_are_there_in_turn_are_named() {
    let (roster, lines) = cluster(2);
    let mut land = Land::new(10, &roster, &lines);
    land.run(5 * SECOND);
    let (machine, _) = start(1);
    land.add(1, &roster, lines[1], (machine, [77; 16]));
    let copy = land.nodes.pop().unwrap();
    let first = std::mem::replace(&mut land.nodes[1], copy);
    assert!(land.run_until(60 * SECOND, |land| land.sessions(1) == 1));
    assert_eq!(land.nodes[0].member.duplicates(land.now).count(), 0, "it may have rebooted");
    land.nodes[1] = first;
    let named = |land: &Land| land.nodes[0].member.duplicates(land.now).eq([lines[1]]);
    assert!(land.run_until(120 * SECOND, named));
}

#[test]
fn a_node_of_another_cluster_is_refused_although_its_keys_are_known() {
    let (roster, lines) = cluster(2);
    let mut land = Land::new(9, &roster, &lines);
    land.nodes[1].member.mark.cluster = ClusterId::new([9; 32]);
    let settings = settings(&land.nodes[1].member);
    land.nodes[1].engine.reconfigure(land.now, settings);
    land.run(60 * SECOND);
    assert_eq!((land.sessions(0), land.sessions(1)), (0, 0));
    let elsewhere = |land: &Land, at: usize| land.nodes[at].member.is_elsewhere(land.now, lines[1 - at]);
    assert!(elsewhere(&land, 0) && elsewhere(&land, 1), "both know why");
    // It is in this one by now.
    land.nodes[1].member.mark.cluster = roster.cluster();
    let settings = self::settings(&land.nodes[1].member);
    land.nodes[1].engine.reconfigure(land.now, settings);
    assert!(land.run_until(600 * SECOND, |land| land.sessions(0) == 1 && land.sessions(1) == 1));
    assert!(!elsewhere(&land, 0) && !elsewhere(&land, 1));
}

/// Whoever has the address of a member is told apart from nobody.
#[test]
fn why_a_member_is_not_taken_for_itself_is_known_until_it_is() {
    let (roster, lines) = cluster(2);
    let mut land = Land::new(10, &roster, &lines);
    let settings_with = |land: &Land, key: usize| {
        let [_, key] = keys(key);
        let control = land.nodes[1].member.control_settings();
        ike::Settings {
            control: Some(crate::ike::ControlSettings { key: Arc::new(key), ..control }),
            ..settings(&land.nodes[1].member)
        }
    };
    let unproven = |land: &Land, at: usize| land.nodes[at].member.unproven(lines[1 - at]).cloned();
    // It was installed anew: it has other keys.
    let anew = settings_with(&land, 7);
    land.nodes[1].engine.reconfigure(land.now, anew);
    let seen = land.run_until(60 * SECOND, |land| unproven(land, 0) == Some(BadProof::Member.into()));
    assert!(seen, "{:?}", unproven(&land, 0));
    // It runs by files.
    let no_member = ike::Settings { control: None, ..settings(&land.nodes[1].member) };
    let pair = Pair { local: address(1), remote: address(0) };
    land.nodes[1].engine.reconfigure(land.now, no_member);
    land.nodes[1].engine.keep(land.now, pair, ike::Posture::Passive);
    let no_control = |land: &Land| unproven(land, 0) == Some(Incompatible::NoControl.into());
    assert!(land.run_until(3600 * SECOND, no_control), "{:?}", unproven(&land, 0));
    land.nodes[1].engine.forget(land.now, pair);
    // It is away.
    land.cut = vec![1];
    assert!(land.run_until(3600 * SECOND, |land| unproven(land, 0).is_none()));
    land.cut.clear();
    let own = settings_with(&land, 1);
    land.nodes[1].engine.reconfigure(land.now, own);
    assert!(land.run_until(3600 * SECOND, |land| land.sessions(0) == 1));
    assert_eq!(unproven(&land, 0), None);
}

#[test]
fn with_many_members_each_talks_to_few_and_each_way_has_two_ends() {
    let (roster, lines) = cluster(80);
    let members: Vec<Membership> = lines
        .iter()
        .map(|line| {
            let entries: Vec<&[u8]> = roster.in_order().map(SignedEntry::octets).collect();
            let mut own = Roster::found(entries[0]).unwrap();
            own.merge(entries);
            let [_, key] = keys(0);
            Membership::new(own, *line, Arc::new(key), ([0; 16], [0; 16]))
        })
        .collect();
    let near = |member: &Membership| -> BTreeMap<_, _> {
        let (all, near) = member.wanted();
        assert_eq!(all.len(), 79, "it answers all");
        all.into_iter().filter(|(pair, _)| near.contains(pair)).collect()
    };
    let ways: Vec<BTreeMap<_, _>> = members.iter().map(near).collect();
    for (at, near) in ways.iter().enumerate() {
        assert!((6..=16).contains(&near.len()), "{}", near.len());
        for (pair, line) in near {
            let other = lines.iter().position(|other| other == line).unwrap();
            assert_eq!((pair.local, pair.remote), (address(at), address(other)));
            assert!(ways[other].values().any(|line| *line == lines[at]));
        }
    }
}

#[test]
fn a_mark_is_read_as_it_was_said_also_by_later_versions() {
    let mark = MemberMark { cluster: ClusterId::new([1; 32]), machine: [2; 16], boot: [3; 16] };
    let mut octets = mark.octets();
    assert_eq!(MemberMark::read(&octets), Some(mark));
    for length in 0..octets.len() {
        assert_eq!(MemberMark::read(&octets[..length]), None);
    }
    octets.push(9);
    assert_eq!(MemberMark::read(&octets), Some(mark));
    octets[0] = 2;
    assert_eq!(MemberMark::read(&octets), None);
}
