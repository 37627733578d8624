//! Rosters of many members that tell each other what is new, over ways that lose, break and are cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::people::{Town, off, on, set, sign, statement};
use crate::roster::{Carriage, IgnoredBecause, PAGE_MAX, Roster, SignedEntry};

const MILLISECOND: Duration = Duration::from_millis(1);

/// Members that talk to some of each other.
struct Lands {
    now: Instant,
    rng: StdRng,
    members: Vec<Member>,
    /// What is under way: when it comes, from whom, to whom.
    wire: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    /// The ways that are there.
    ways: BTreeSet<(usize, usize)>,
    /// How many of 100 messages break a session off.
    breaks: u32,
}

struct Member {
    roster: Roster,
    carriage: Carriage<usize>,
}

impl Lands {
    /// As many members with the roster of `town`, on a ring, each with its next `neighbours` on either side.
    fn ring(town: &Town, count: usize, neighbours: usize, seed: u64) -> Self {
        let ways = (0..count).flat_map(|at| (1..=neighbours).map(move |far| (at, (at + far) % count)));
        let ways = ways.map(|(one, other)| (one.min(other), one.max(other))).collect();
        let member = |_| Member { roster: town.copy().roster, carriage: Carriage::default() };
        let mut lands = Self {
            now: Instant::now(),
            rng: StdRng::seed_from_u64(seed),
            members: (0..count).map(member).collect(),
            wire: BTreeMap::new(),
            sent: 0,
            ways: BTreeSet::new(),
            breaks: 0,
        };
        lands.connect(ways);
        lands
    }

    /// The ways that are there from now on.
    fn connect(&mut self, ways: BTreeSet<(usize, usize)>) {
        let before = std::mem::replace(&mut self.ways, ways);
        for (one, other) in before.difference(&self.ways.clone()) {
            self.members[*one].carriage.handle_down(*other);
            self.members[*other].carriage.handle_down(*one);
        }
        for (one, other) in self.ways.clone().difference(&before) {
            self.up(*one, *other);
        }
    }

    fn up(&mut self, one: usize, other: usize) {
        let now = self.now;
        for (one, other) in [(one, other), (other, one)] {
            let Member { roster, carriage } = &mut self.members[one];
            carriage.handle_up(now, other, roster);
        }
    }

    /// A member says something.
    fn say(&mut self, at: usize, entry: &[u8]) {
        let Member { roster, carriage } = &mut self.members[at];
        let before: BTreeSet<_> = roster.ids().collect();
        roster.merge([entry]);
        let new: Vec<_> = roster.ids().filter(|id| !before.contains(id)).collect();
        carriage.handle_signed(self.now, roster, &new);
    }

    /// Sends what is to be sent, and lets the next thing happen.
    fn step(&mut self) {
        for at in 0..self.members.len() {
            let Member { roster, carriage } = &mut self.members[at];
            while let Some((to, octets)) = carriage.poll_tell(roster) {
                assert!(octets.len() <= PAGE_MAX);
                self.sent += 1;
                // One after the other on each way, as IKE has it.
                let comes = self.now + 5 * MILLISECOND;
                self.wire.insert((comes, self.sent), (at, to, octets));
            }
        }
        let due = |member: &Member| member.carriage.poll_timeout(&member.roster);
        let timeout = self.members.iter().filter_map(due).min();
        let comes = self.wire.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = timeout.into_iter().chain(comes).min() else {
            self.now += 100 * MILLISECOND;
            return;
        };
        self.now = self.now.max(next);
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, octets) = entry.remove();
            self.arrive(from, to, &octets);
        }
        for Member { roster, carriage } in &mut self.members {
            if carriage.poll_timeout(roster).is_some_and(|at| at <= self.now) {
                carriage.handle_timeout(self.now, roster);
            }
        }
    }

    fn arrive(&mut self, from: usize, to: usize, octets: &[u8]) {
        let way = (from.min(to), from.max(to));
        if !self.ways.contains(&way) {
            return;
        }
        if self.rng.random_range(0..100) < self.breaks {
            // The session ends, and another one begins: what was under way in it is lost.
            self.wire.retain(|_, (one, other, _)| (*one.min(other), *one.max(other)) != way);
            self.up(from, to);
            return;
        }
        let Member { roster, carriage } = &mut self.members[to];
        carriage.handle_told(self.now, from, octets, roster);
        self.members[from].carriage.handle_heard(to);
    }

    fn is_one(&self) -> bool {
        let first = self.members[0].roster.id();
        self.members.iter().all(|member| member.roster.id() == first)
    }

    /// Goes on until all have one roster; how long that took.
    fn converge(&mut self) -> Duration {
        let begin = self.now;
        while !self.is_one() {
            self.step();
            assert!(self.now < begin + Duration::from_secs(600), "no end");
        }
        self.now - begin
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }
}

#[test]
fn what_one_says_all_know_at_once_and_then_all_are_silent() {
    let town = Town::of(&["a", "b"]);
    let mut lands = Lands::ring(&town, 8, 4, 1);
    lands.run(Duration::from_secs(5));
    lands.sent = 0;
    lands.say(3, &town.entry("a", set("new")));
    assert!(lands.converge() <= 20 * MILLISECOND);
    lands.run(Duration::from_secs(3));
    // An entry and a summary to each, and from each a summary to each.
    assert!(lands.sent <= 7 * 2 + 8 * 7, "{}", lands.sent);
    lands.sent = 0;
    lands.run(Duration::from_secs(3600));
    assert_eq!(lands.sent, 0);
}

#[test]
fn a_member_that_was_away_gets_all_that_it_missed() {
    let mut town = Town::of(&["a", "b"]);
    let mut lands = Lands::ring(&town, 2, 1, 2);
    lands.connect(BTreeSet::new());
    for at in 0..300 {
        let entry = town.entry("a", set(&format!("{at}")));
        town.take(entry.clone());
        lands.say(0, &entry);
    }
    lands.connect(BTreeSet::from([(0, 1)]));
    lands.sent = 0;
    assert!(lands.converge() < Duration::from_secs(2));
    assert!(lands.sent < 120, "{}", lands.sent);
    assert_eq!(lands.members[1].roster.view(), town.roster.view());
}

#[test]
fn both_ends_of_a_partition_become_one() {
    let town = Town::of(&["a", "b", "c"]);
    let mut lands = Lands::ring(&town, 6, 3, 3);
    let whole = lands.ways.clone();
    let side = |at: usize| at < 3;
    lands.connect(whole.iter().filter(|(one, other)| side(*one) == side(*other)).copied().collect());
    lands.say(0, &town.entry("a", set("here")));
    lands.say(5, &town.entry("b", on()));
    lands.run(Duration::from_secs(60));
    assert!(!lands.is_one());
    lands.connect(whole);
    assert!(lands.converge() < Duration::from_secs(2));
    let view = lands.members[4].roster.view();
    assert_eq!(view.settings.as_ref().map(|settings| settings.says.toml.as_str()), Some("here"));
    assert!(view.desired.as_ref().is_some_and(|desired| desired.says.on));
}

/// Commands from anywhere on a large ring whose sessions break off, with halves that part and meet again.
#[test]
fn a_ring_of_many_comes_to_one_roster_in_bounded_time_and_messages() {
    let names: Vec<String> = (0..12).map(|at| format!("n{at}")).collect();
    let names: Vec<&str> = std::iter::once("a").chain(names.iter().map(String::as_str)).collect();
    let town = Town::of(&names);
    let mut lands = Lands::ring(&town, 60, 2, 4);
    lands.breaks = 10;
    let whole = lands.ways.clone();
    let mut word = town.copy();
    for round in 0..20 {
        let at = lands.rng.random_range(0..60);
        if round % 5 == 2 {
            let half = lands.rng.random_range(1..60);
            let same = |(one, other): &&(usize, usize)| (*one < half) == (*other < half);
            lands.connect(whole.iter().filter(same).copied().collect());
        } else if round % 5 == 4 {
            lands.connect(whole.clone());
        }
        let by = names[lands.rng.random_range(0..names.len())];
        let says = match lands.rng.random_range(0..3) {
            0 if by == "a" => off(),
            1 if by == "a" => set(&format!("{round}")),
            _ => on(),
        };
        word.roster.merge(lands.members[at].roster.in_order().map(SignedEntry::octets));
        lands.say(at, &word.entry(by, says));
        lands.run(Duration::from_millis(300));
    }
    lands.connect(whole);
    lands.sent = 0;
    assert!(lands.converge() < Duration::from_secs(60));
    let view = lands.members[0].roster.view();
    assert!(lands.members.iter().all(|member| member.roster.view() == view));
    // A few pages for each way and round: never entries over and over.
    assert!(lands.sent < 60 * 4 * 60, "{}", lands.sent);
}

#[test]
fn a_peer_that_talks_nonsense_or_too_much_is_not_listened_to_and_changes_nothing() {
    let mut town = Town::of(&["a", "b"]);
    let mut carriage = Carriage::default();
    let now = Instant::now();
    carriage.handle_up(now, 7, &town.roster);
    let id = town.roster.id();
    let (mut rng, mut too_many) = (StdRng::seed_from_u64(9), 0);
    for _ in 0..10_000 {
        let mut octets = vec![0; rng.random_range(0..PAGE_MAX)];
        rng.fill(&mut octets[..]);
        if octets.len() > 6 {
            (octets[0], octets[1]) = (1, rng.random_range(0..7));
        }
        let carried = carriage.handle_told(now, 7, &octets, &mut town.roster);
        too_many += usize::from(carried.ignored == Some(IgnoredBecause::TooMany));
    }
    assert_eq!(too_many, 10_000 - 128);
    let mut told = VecDeque::new();
    while let Some((peer, octets)) = carriage.poll_tell(&town.roster) {
        assert!(carriage.poll_tell(&town.roster).is_none(), "one page after the other");
        carriage.handle_heard(peer);
        told.push_back(octets);
    }
    assert!(told.len() <= 16 + 1 + 4096 / 8, "{}", told.len());
    assert_eq!(town.roster.id(), id);
    // A stranger is nobody.
    assert_eq!(carriage.handle_told(now, 8, &[1, 1], &mut town.roster), Default::default());
}

/// A peer that always says something else is told what ours is ever more seldom.
#[test]
fn a_peer_that_never_agrees_costs_less_and_less() {
    let town = Town::of(&["a", "b"]);
    let (mut carriage, mut now) = (Carriage::default(), Instant::now());
    carriage.handle_up(now, 7, &town.roster);
    let end = now + Duration::from_secs(3600);
    let mut told = 0;
    while now < end {
        while carriage.poll_tell(&town.roster).is_some() {
            carriage.handle_heard(7);
            told += 1;
        }
        now = carriage.poll_timeout(&town.roster).unwrap();
        carriage.handle_timeout(now, &town.roster);
    }
    assert!(told < 240, "{told}");
}

#[test]
fn who_is_no_admin_does_not_change_the_same_thing_all_the_time() {
    let mut town = Town::of(&["a", "b"]);
    let (mut carriage, mut now) = (Carriage::default(), Instant::now());
    carriage.handle_up(now, 7, &town.roster);
    let entries: Vec<Vec<u8>> =
        (1..5).map(|n| sign(town.roster.cluster(), statement("b", (0, n), on()), &["b"])).collect();
    let mut come = |entry: &[u8], now| -> (usize, usize) {
        let mut octets = vec![1, 5, 0, 0, 0, 1];
        octets.extend(u16::try_from(entry.len()).unwrap().to_be_bytes());
        octets.extend(entry);
        let carried = carriage.handle_told(now, 7, &octets, &mut town.roster);
        (carried.merged.taken, carried.put_off.values().sum())
    };
    assert_eq!(come(&entries[0], now), (1, 0));
    assert_eq!(come(&entries[1], now), (0, 1));
    now += Duration::from_secs(10);
    assert_eq!(come(&entries[1], now), (1, 0));
    assert_eq!(come(&entries[2], now), (0, 1));
}

/// What nobody has signed keeps no true word back.
#[test]
fn a_forged_entry_puts_off_nothing_that_a_member_has_signed() {
    let mut town = Town::of(&["a", "b"]);
    let (mut carriage, now) = (Carriage::default(), Instant::now());
    carriage.handle_up(now, 7, &town.roster);
    let entry = sign(town.roster.cluster(), statement("b", (0, 1), on()), &["b"]);
    let mut forged = sign(town.roster.cluster(), statement("b", (0, 2), on()), &["b"]);
    forged[2 + 32] ^= 1;
    let mut come = |entry: &[u8]| -> (usize, usize) {
        let mut octets = vec![1, 5, 0, 0, 0, 1];
        octets.extend(u16::try_from(entry.len()).unwrap().to_be_bytes());
        octets.extend(entry);
        let carried = carriage.handle_told(now, 7, &octets, &mut town.roster);
        (carried.merged.taken, carried.put_off.values().sum())
    };
    assert_eq!(come(&forged), (0, 0));
    assert_eq!(come(&entry), (1, 0));
}

/// A peer that takes long to answer is told what there is now, not what there was in between.
#[test]
fn a_peer_hears_last_what_the_roster_is_now() {
    let mut town = Town::of(&["a", "b"]);
    let (mut carriage, now) = (Carriage::default(), Instant::now());
    carriage.handle_up(now, 7, &town.roster);
    assert!(carriage.poll_tell(&town.roster).is_some());
    for at in 0..40 {
        let id = town.say("a", set(&format!("{at}")));
        carriage.handle_signed(now, &town.roster, &[id]);
    }
    let (mut last, mut summaries) = (Vec::new(), 0);
    carriage.handle_heard(7);
    while let Some((peer, page)) = carriage.poll_tell(&town.roster) {
        carriage.handle_heard(peer);
        summaries += usize::from(page[1] == 1);
        last = page;
    }
    assert_eq!((last[1], &last[6..]), (1, town.roster.id().octets().as_slice()));
    assert_eq!(summaries, 1);
}
