//! Fleets in virtual time: hundreds of members that talk to their neighbours on a ring, over ways that lose, delay and
//! are cut, with members that die and come back with what they had written, and commands from anywhere.
//!
//! A message is an exchange of IKE: it is sent again until it is answered, and a session whose message is never answered
//! ends. `HOSTSEAL_SEEDS` says how many seeds are tried; a failure names the one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::people::{NOW, genesis, invite, keys, off, on, set, sign, signer, statement};
use crate::roster::entry::UncheckedEntry;
use crate::roster::{
    Admission, Carriage, EntryId, Invite, Join, Merged, PAGE_MAX, Ring, Roster, RosterId, Saying,
    SignedEntry, Site, Statement,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// How many of 100 datagrams are lost.
const LOST: u32 = 10;
/// A message is sent again after this, and after twice that, and so on; so often at most.
const AGAIN: Duration = Duration::from_millis(500);
const TRIES: u32 = 6;
/// How long after a change it is written, at most.
const WRITTEN: Duration = Duration::from_secs(1);

/// How a fleet is tried.
#[derive(Clone, Copy)]
struct Trial {
    nodes: usize,
    admins: usize,
    commands: usize,
    /// How many nodes die on the way.
    deaths: usize,
    partitions: usize,
    seed: u64,
}

/// The longest until there is one roster, when the last node is back and nothing is cut any more: a session may have to
/// break first (32 s), a peer may be left in peace meanwhile (16 s), and the steps around the ring take their time.
const SETTLED_MAX: Duration = Duration::from_secs(60);
/// How many pages a node tells each neighbour for an entry, at most: what its roster is, and of an exchange the parts, the
/// names and the entry.
const PAGES_MAX: usize = 4;

struct Fleet {
    now: Instant,
    rng: StdRng,
    nodes: Vec<Node>,
    /// What is to happen, and when.
    agenda: BTreeMap<(Instant, u64), Event>,
    timers: BTreeSet<(Instant, usize)>,
    number: u64,
    /// On which side of a cut each node is.
    side: Vec<bool>,
    lines: BTreeMap<EntryId, usize>,
    rings: BTreeMap<RosterId, Arc<Ring>>,
    /// What came of the same entries in the same roster: it is a function of both.
    known: BTreeMap<(RosterId, Vec<EntryId>), (Roster, Merged)>,
    octets: u64,
    entries: usize,
    broken: usize,
}

struct Node {
    line: EntryId,
    /// How often it has changed its keys.
    rotated: u32,
    /// What it finds when it starts.
    written: Roster,
    life: Option<Life>,
    told: u64,
}

struct Life {
    roster: Roster,
    carriage: Carriage<usize>,
    /// The sessions with its neighbours.
    sessions: BTreeMap<usize, u64>,
    timer: Option<Instant>,
    is_written: bool,
}

#[derive(Debug)]
enum Event {
    /// Two neighbours try to make a session.
    Meet(usize, usize),
    /// A message is sent, for the how many-th time.
    Send {
        session: u64,
        from: usize,
        to: usize,
        page: Arc<Vec<u8>>,
        tries: u32,
        came: bool,
    },
    Arrive {
        session: u64,
        from: usize,
        to: usize,
        page: Arc<Vec<u8>>,
    },
    /// The answer comes.
    Answered {
        session: u64,
        from: usize,
        to: usize,
    },
    Written(usize),
    Start(usize),
}

fn name(at: usize, rotated: u32) -> String {
    match (at, rotated) {
        (0, 0) => "a".to_owned(),
        (_, 0) => format!("n{at}"),
        _ => format!("n{at} keys {rotated}"),
    }
}

/// A cluster of the admin a and of others that have joined by its tokens.
fn city(trial: Trial) -> (Roster, Vec<EntryId>) {
    let mut roster = Roster::found(&genesis("a")).unwrap();
    let cluster = roster.cluster();
    let (mut entries, mut joins) = (Vec::new(), Vec::new());
    for at in 1..trial.nodes {
        let (node, token) = (name(at, 0), format!("token of {at}"));
        let address = std::net::Ipv4Addr::from_bits(0x0a01_0000 + u32::try_from(at).unwrap());
        let site =
            Site { name: node.parse().unwrap(), addresses: vec![address.into()], inside: BTreeMap::new() };
        let says = Saying::Invite(Invite { admin: at < trial.admins, ..invite(&token, &node) });
        entries.push(sign(cluster, statement("a", (1, 0), says), &["a", &token]));
        let says = Saying::Join(Join { site, keys: keys(&node) });
        let join = sign(cluster, statement(&token, (0, 0), says), &[&token, &node, &format!("{node} ike")]);
        let of = UncheckedEntry::read(cluster, &join).unwrap().id();
        joins.push(of);
        entries.push(join);
        entries.push(sign(cluster, statement("a", (0, 0), Saying::Admission(Admission { of })), &["a"]));
    }
    let merged = roster.merge(entries.iter().map(Vec::as_slice));
    assert_eq!(merged.taken, entries.len(), "{merged:?}");
    let lines = std::iter::once(EntryId::from(cluster)).chain(joins).collect();
    (roster, lines)
}

impl Fleet {
    fn new(trial: Trial) -> Self {
        let (roster, lines) = city(trial);
        let node = |line: &EntryId| {
            let written = roster.clone();
            Node { line: *line, rotated: 0, written, life: None, told: 0 }
        };
        let mut fleet = Self {
            now: Instant::now(),
            rng: StdRng::seed_from_u64(trial.seed),
            nodes: lines.iter().map(node).collect(),
            agenda: BTreeMap::new(),
            timers: BTreeSet::new(),
            number: 0,
            side: vec![false; trial.nodes],
            lines: lines.iter().enumerate().map(|(at, line)| (*line, at)).collect(),
            rings: BTreeMap::new(),
            known: BTreeMap::new(),
            octets: 0,
            entries: 0,
            broken: 0,
        };
        (0..trial.nodes).for_each(|at| fleet.start(at));
        fleet
    }

    fn at(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.agenda.insert((self.now + after, self.number), event);
    }

    /// The time that a datagram takes; `None` where it is lost.
    fn way(&mut self, from: usize, to: usize) -> Option<Duration> {
        let lost = self.rng.random_range(0..100) < LOST;
        let way = Duration::from_micros(self.rng.random_range(500..20_000));
        (!lost && self.side[from] == self.side[to]).then_some(way)
    }

    fn start(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let (roster, carriage) = (node.written.clone(), Carriage::default());
        node.life = Some(Life { roster, carriage, sessions: BTreeMap::new(), timer: None, is_written: true });
        self.look_around(at);
    }

    fn die(&mut self, at: usize) {
        if let Some(timer) = self.nodes[at].life.take().and_then(|life| life.timer) {
            self.timers.remove(&(timer, at));
        }
    }

    fn ring(&mut self, at: usize) -> Option<Arc<Ring>> {
        let roster = &self.nodes[at].life.as_ref()?.roster;
        let ring = self.rings.entry(roster.id()).or_insert_with(|| Arc::new(Ring::of(roster.view())));
        Some(Arc::clone(ring))
    }

    fn wants(&mut self, at: usize) -> BTreeSet<usize> {
        let line = self.nodes[at].line;
        let ring = self.ring(at);
        let near = ring.iter().flat_map(|ring| ring.neighbours(line)).collect::<Vec<_>>();
        near.into_iter().map(|line| self.lines[&line]).collect()
    }

    /// A node keeps sessions with its neighbours, and with nobody else. Who is no member any more lets the others end them:
    /// they have to hear first that it goes.
    fn look_around(&mut self, at: usize) {
        let wants = self.wants(at);
        let Node { line, life: Some(life), .. } = &mut self.nodes[at] else { return };
        if life.roster.view().member(*line).is_none() {
            return;
        }
        let others: Vec<usize> = life.sessions.keys().copied().filter(|to| !wants.contains(to)).collect();
        let new: Vec<usize> = wants.into_iter().filter(|to| !life.sessions.contains_key(to)).collect();
        others.into_iter().for_each(|to| self.part(at, to));
        for to in new {
            let after = MILLISECOND * self.rng.random_range(1..200);
            self.at(after, Event::Meet(at, to));
        }
    }

    fn meet(&mut self, one: usize, other: usize) {
        let session = |of: usize, with: usize| self.nodes[of].life.as_ref()?.sessions.get(&with).copied();
        let known = session(one, other).filter(|known| session(other, one) == Some(*known));
        if known.is_some() || self.side[one] != self.side[other] {
            return;
        }
        if !self.wants(one).contains(&other) || !self.wants(other).contains(&one) {
            return;
        }
        self.number += 1;
        for (of, with) in [(one, other), (other, one)] {
            if let Some(life) = &mut self.nodes[of].life {
                life.sessions.insert(with, self.number);
                life.carriage.handle_up(self.now, with, &life.roster);
            }
        }
        self.tell(one);
        self.tell(other);
    }

    /// A session ends; the other end hears of it where it can.
    fn part(&mut self, one: usize, other: usize) {
        let reachable = self.side[one] == self.side[other];
        for (of, with) in [(one, other)].into_iter().chain(reachable.then_some((other, one))) {
            if let Some(life) = &mut self.nodes[of].life
                && life.sessions.remove(&with).is_some()
            {
                life.carriage.handle_down(with);
                self.tell(of);
            }
        }
    }

    fn is_in(&self, session: u64, of: usize, with: usize) -> bool {
        self.nodes[of].life.as_ref().is_some_and(|life| life.sessions.get(&with) == Some(&session))
    }

    /// Whatever a node has to tell goes out, and its timer is set.
    fn tell(&mut self, at: usize) {
        let mut pages = Vec::new();
        let Some(life) = &mut self.nodes[at].life else { return };
        while let Some((to, page)) = life.carriage.poll_tell(&life.roster) {
            pages.push((life.sessions[&to], to, page));
        }
        let timer = life.carriage.poll_timeout(&life.roster);
        if timer != life.timer {
            if let Some(timer) = life.timer {
                self.timers.remove(&(timer, at));
            }
            self.timers.extend(timer.map(|timer| (timer, at)));
            life.timer = timer;
        }
        for (session, to, page) in pages {
            assert!(page.len() <= PAGE_MAX);
            self.octets += page.len() as u64;
            self.nodes[at].told += 1;
            let page = Arc::new(page);
            self.at(Duration::ZERO, Event::Send { session, from: at, to, page, tries: 0, came: false });
        }
    }

    /// The roster of a node has changed, or may have.
    fn changed(&mut self, at: usize, before: RosterId) {
        let Some(life) = &mut self.nodes[at].life else { return };
        if life.roster.id() == before {
            return;
        }
        if std::mem::take(&mut life.is_written) {
            let after = WRITTEN.mul_f64(self.rng.random());
            self.at(after, Event::Written(at));
        }
        if self.rings.get(&before).map(Arc::clone) != self.ring(at) {
            self.look_around(at);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Meet(one, other) => self.meet(one, other),
            Event::Send { session, from, to, page, tries, mut came } => {
                if !self.is_in(session, from, to) {
                    return;
                }
                if tries == TRIES {
                    self.broken += 1;
                    self.part(from, to);
                    return self.at(SECOND, Event::Meet(from, to));
                }
                let way = self.way(from, to).filter(|_| self.is_in(session, to, from));
                if let Some(way) = way {
                    // What comes again is answered again, and no more.
                    if !std::mem::replace(&mut came, true) {
                        let page = Arc::clone(&page);
                        self.at(way, Event::Arrive { session, from, to, page });
                    }
                    if let Some(back) = self.way(to, from) {
                        return self.at(way + back, Event::Answered { session, from, to });
                    }
                }
                let tries = tries + 1;
                self.at(AGAIN * (1 << (tries - 1)), Event::Send { session, from, to, page, tries, came });
            }
            Event::Arrive { session, from, to, page } => self.arrive(session, from, to, &page),
            Event::Answered { session, from, to } => {
                if self.is_in(session, from, to)
                    && let Some(life) = &mut self.nodes[from].life
                {
                    life.carriage.handle_heard(to);
                    self.tell(from);
                }
            }
            Event::Written(at) => {
                let node = &mut self.nodes[at];
                if let Some(life) = &mut node.life {
                    node.written = life.roster.clone();
                    life.is_written = true;
                }
            }
            Event::Start(at) => self.start(at),
        }
    }

    fn arrive(&mut self, session: u64, from: usize, to: usize, page: &[u8]) {
        if !self.is_in(session, to, from) {
            return;
        }
        let (known, rng) = (&mut self.known, &mut self.rng);
        let take = |roster: &mut Roster, entries: Vec<UncheckedEntry>| {
            if entries.is_empty() {
                return Merged::default();
            }
            let key = (roster.id(), entries.iter().map(UncheckedEntry::id).collect());
            if let Some((after, merged)) = known.get(&key) {
                // Sometimes it is looked at again.
                if rng.random_range(0..500) == 0 {
                    assert_eq!(roster.take(entries), *merged);
                    assert_eq!((roster.id(), roster.view()), (after.id(), after.view()));
                }
                *roster = after.clone();
                return merged.clone();
            }
            let merged = roster.take(entries);
            known.insert(key, (roster.clone(), merged.clone()));
            merged
        };
        let Some(life) = &mut self.nodes[to].life else { return };
        let before = life.roster.id();
        life.carriage.handle_told_by(self.now, from, page, &mut life.roster, take);
        self.changed(to, before);
        self.tell(to);
    }

    fn step(&mut self, until: Instant) -> bool {
        let event = self.agenda.first_key_value().map(|((at, _), _)| *at);
        let timer = self.timers.first().map(|(at, _)| *at);
        let Some(next) = event.into_iter().chain(timer).min().filter(|next| *next <= until) else {
            self.now = until;
            return false;
        };
        self.now = self.now.max(next);
        if event == Some(next) {
            self.agenda.pop_first().into_iter().for_each(|(_, event)| self.happen(event));
        } else if let Some((_, at)) = self.timers.pop_first()
            && let Some(life) = &mut self.nodes[at].life
        {
            life.timer = None;
            life.carriage.handle_timeout(self.now, &life.roster);
            self.tell(at);
        }
        true
    }

    fn run(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
    }

    /// A command on some node signs something; whether it could.
    fn command(&mut self) -> bool {
        let at = self.rng.random_range(0..self.nodes.len());
        let of = self.nodes[self.rng.random_range(0..self.nodes.len())].line;
        let (what, by) = (self.rng.random_range(0..8), name(at, self.nodes[at].rotated));
        let Some(life) = &self.nodes[at].life else { return false };
        let (roster, key) = (&life.roster, signer(&by));
        let one = |says| roster.draft(key, says, NOW).map(|statement| vec![statement]);
        let next = name(at, self.nodes[at].rotated + 1);
        let (mut signers, mut rotates) = (vec![by.clone()], false);
        let drafted = match what {
            0 => one(on()),
            1 => one(off()),
            2 => one(set(&format!("# {}\n", self.number))),
            3 => roster.rights(key, of, true, NOW),
            4 => roster.rights(key, of, false, NOW),
            5 => roster.removal(key, of, false, NOW),
            6 => roster.removal(key, self.nodes[at].line, false, NOW),
            _ => {
                signers.extend([next.clone(), format!("{next} ike")]);
                rotates = true;
                one(Saying::Keys(keys(&next)))
            }
        };
        let Ok(statements) = drafted else { return false };
        let signers: Vec<&str> = signers.iter().map(String::as_str).collect();
        self.say(at, statements, &signers);
        self.nodes[at].rotated += u32::from(rotates);
        true
    }

    fn say(&mut self, at: usize, statements: Vec<Statement>, signers: &[&str]) {
        let Some(life) = &mut self.nodes[at].life else { return };
        let (before, cluster) = (life.roster.id(), life.roster.cluster());
        let entries: Vec<Vec<u8>> =
            statements.into_iter().map(|statement| sign(cluster, statement, signers)).collect();
        self.entries += entries.len();
        let merged = life.roster.merge(entries.iter().map(Vec::as_slice));
        assert!(merged.refused.is_empty(), "a command signs what is refused: {merged:?}");
        let ids: Vec<EntryId> =
            entries.iter().map(|entry| UncheckedEntry::read(cluster, entry).unwrap().id()).collect();
        life.carriage.handle_signed(self.now, &life.roster, &ids);
        // What is signed is written before it is told.
        self.nodes[at].written = life.roster.clone();
        self.changed(at, before);
        self.tell(at);
    }

    fn cut(&mut self, is_cut: bool) {
        for side in &mut self.side {
            *side = is_cut && self.rng.random();
        }
        if !is_cut {
            (0..self.nodes.len()).for_each(|at| self.look_around(at));
        }
    }

    /// Those that are members, as most of them see it.
    fn members(&self) -> Vec<usize> {
        let mut alike: BTreeMap<RosterId, (usize, &Roster)> = BTreeMap::new();
        for life in self.nodes.iter().filter_map(|node| node.life.as_ref()) {
            alike.entry(life.roster.id()).or_insert((0, &life.roster)).0 += 1;
        }
        let most = alike.into_values().max_by_key(|(count, _)| *count).map(|(_, roster)| roster.view());
        most.iter().flat_map(|view| &view.members).map(|member| self.lines[&member.line]).collect()
    }

    fn is_one(&self, members: &[usize]) -> bool {
        let mut ids = members.iter().map(|at| self.nodes[*at].life.as_ref().map(|life| life.roster.id()));
        let first = ids.next();
        ids.all(|id| Some(id) == first)
    }
}

/// Commands, deaths and cuts in turns, and then peace.
fn try_fleet(trial: Trial) {
    let mut fleet = Fleet::new(trial);
    fleet.run(10 * SECOND);
    let all: Vec<usize> = (0..trial.nodes).collect();
    assert!(fleet.is_one(&all));
    let neighbours = all.iter().map(|at| fleet.wants(*at).len()).max().unwrap_or_default();
    fleet.octets = 0;
    fleet.nodes.iter_mut().for_each(|node| node.told = 0);
    let mut signed = 0;
    while signed < trial.commands {
        let turn = signed;
        let every = |count: usize| count > 0 && turn % (trial.commands / count).max(1) == 0;
        if fleet.command() {
            signed += 1;
            let at = fleet.rng.random_range(0..trial.nodes);
            if every(trial.deaths) && fleet.nodes[at].life.is_some() {
                fleet.die(at);
                let after = SECOND * fleet.rng.random_range(5..60);
                fleet.at(after, Event::Start(at));
            }
            if every(trial.partitions) {
                let is_cut = !fleet.side.contains(&true);
                fleet.cut(is_cut);
            }
            let pause = MILLISECOND * fleet.rng.random_range(0..6000);
            fleet.run(pause);
        }
    }
    fleet.cut(false);
    let dead: Vec<usize> = all.iter().copied().filter(|at| fleet.nodes[*at].life.is_none()).collect();
    fleet.agenda.retain(|_, event| !matches!(event, Event::Start(_)));
    dead.into_iter().for_each(|at| fleet.start(at));
    let healed = fleet.now;
    while !fleet.is_one(&fleet.members()) {
        fleet.run(50 * MILLISECOND);
        assert!(fleet.now < healed + 600 * SECOND, "no end with seed {}", trial.seed);
    }
    let settled = fleet.now - healed;
    fleet.run(120 * SECOND);
    let told: Vec<u64> = fleet.nodes.iter().map(|node| node.told).collect();
    fleet.run(600 * SECOND);
    check(&fleet, trial, &told);
    let told: u64 = told.into_iter().sum();
    let (nodes, entries) = (trial.nodes as u64, fleet.entries as u64);
    let most = fleet.nodes.iter().map(|node| node.told).max().unwrap_or_default();
    println!(
        "{nodes} nodes with up to {neighbours} neighbours, seed {}: {} commands, {entries} entries; one roster {} ms after \
         all was whole; for each entry a node told {} pages ({} at most) of {} octets together; {} sessions broke, \
         {} merges were different",
        trial.seed,
        trial.commands,
        settled.as_millis(),
        told / nodes / entries,
        most / entries,
        fleet.octets / nodes / entries,
        fleet.broken,
        fleet.known.len(),
    );
    assert!(settled <= SETTLED_MAX);
    assert!(most / entries <= (PAGES_MAX * neighbours) as u64);
}

/// All members have one roster, which is that of whoever hears it all at once, and none of them says anything any more.
fn check(fleet: &Fleet, trial: Trial, told: &[u64]) {
    let members = fleet.members();
    assert!(fleet.is_one(&members), "seed {}", trial.seed);
    let silent = members.iter().all(|at| fleet.nodes[*at].told == told[*at]);
    assert!(silent, "pages in peace with seed {}", trial.seed);
    let life = fleet.nodes[members[0]].life.as_ref().unwrap();
    let mut fresh = Roster::found(&genesis("a")).unwrap();
    fresh.merge(life.roster.in_order().map(SignedEntry::octets));
    assert_eq!((fresh.id(), fresh.view()), (life.roster.id(), life.roster.view()));
}

/// The same seeds in each run; `HOSTSEAL_SEEDS` times as many, if it is set.
fn seeds(usual: u64) -> std::ops::Range<u64> {
    let times = std::env::var("HOSTSEAL_SEEDS").ok().and_then(|times| times.parse::<u64>().ok());
    1..1 + usual * times.unwrap_or(1)
}

#[test]
fn two_hundred_members_come_to_one_roster_in_bounded_time_and_pages() {
    for seed in seeds(1) {
        try_fleet(Trial { nodes: 200, admins: 20, commands: 50, deaths: 10, partitions: 6, seed });
    }
}

#[test]
fn a_thousand_members_on_a_ring_come_to_one_roster_in_bounded_time_and_pages() {
    for seed in seeds(1) {
        try_fleet(Trial { nodes: 1000, admins: 50, commands: 20, deaths: 5, partitions: 2, seed });
    }
}

/// `cargo test --release --lib roster::tests::fleet -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn two_thousand_members_with_many_commands() {
    for seed in seeds(1) {
        try_fleet(Trial { nodes: 2000, admins: 100, commands: 200, deaths: 100, partitions: 20, seed });
    }
}
