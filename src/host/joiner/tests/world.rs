//! Members and hosts that join, with real engines, disks that take their time, and a network that loses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::super::{JoinError, JoinErrorKind, JoinOrder, JoinStep, JoinedRoster, Joiner};
use crate::host::membership::Membership;
use crate::host::membership::tests::{Dice, NOW, address, keys, said, settings, sign, site};
use crate::identity::PrivateKey;
use crate::ike::{ControlEvent, Engine, Event, Purpose, Topic};
use crate::roster::{EntryId, Invite, Roster, Saying, Seconds, SignedEntry, Signer, Site, Token};
use crate::types::{Pair, UnixTime};

pub const MILLISECOND: Duration = Duration::from_millis(1);
pub const SECOND: Duration = Duration::from_secs(1);

/// What an admin says who invites whoever has a token.
pub fn any(seed: u8) -> Invite {
    Invite {
        key: Signer::of(&PrivateKey::from_seed(&[seed; 32]).unwrap()).unwrap(),
        name: None,
        line: None,
        admin: false,
        expires: Seconds(NOW.0 + 3600),
        within: Vec::new(),
        addresses: Vec::new(),
    }
}

/// The token of an invite that is made of the same seed, with these members as seeds.
pub fn token(roster: &Roster, invite: &Invite, seed: u8, members: &[usize]) -> Token {
    let seeds = members.iter().map(|at| SocketAddr::new(address(*at), 500)).collect();
    let what = (invite.name.clone(), invite.admin);
    Token::new(
        (roster.view().cluster.clone(), roster.cluster()),
        seeds,
        what,
        UnixTime(invite.expires.0),
        [seed; 32],
    )
}

/// The same roster once more.
pub fn copy(roster: &Roster) -> Roster {
    let entries: Vec<&[u8]> = roster.in_order().map(SignedEntry::octets).collect();
    let mut copy = Roster::found(entries[0]).unwrap();
    copy.merge(entries);
    copy
}

/// A member.
pub struct Host {
    pub at: usize,
    pub engine: Engine,
    pub member: Membership,
    own: EntryId,
    /// Whose key for IKE it has.
    ike: usize,
    /// What it has after its next start.
    pub disk: Roster,
    /// What it writes, and when that is written.
    writes: Vec<(Instant, Vec<SignedEntry>)>,
    /// How far its clock is ahead, in seconds.
    pub ahead: u64,
    /// Its disk is full.
    pub refuses_writes: bool,
}

/// A host that joins.
pub struct Guest {
    pub at: usize,
    pub joiner: Joiner,
    pub outcome: Option<Result<JoinedRoster, JoinError>>,
    pub steps: Vec<JoinStep>,
    /// How many datagrams have come to it.
    pub came: usize,
}

/// What somebody says to what has come.
pub type Says = Box<dyn FnMut(Option<&[u8]>) -> Option<Vec<u8>>>;

/// Somebody with an engine who says what it likes: it is called with what has come, or once what it said has arrived.
pub struct Stranger {
    pub at: usize,
    pub engine: Engine,
    pub says: Says,
    /// How many pages have come to it.
    pub heard: usize,
}

/// All of them, and what is under way.
pub struct World {
    pub now: Instant,
    begun: Instant,
    pub rng: StdRng,
    pub hosts: Vec<Host>,
    pub guests: Vec<Guest>,
    pub strangers: Vec<Stranger>,
    wire: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    pub sent: u64,
    /// How many of a hundred datagrams are lost, and how many come twice.
    pub loss: u32,
    pub twice: u32,
    /// How long it takes to write something.
    pub writing: Duration,
    /// Those that nothing comes to and nothing comes from.
    pub cut: BTreeSet<(usize, usize)>,
}

impl World {
    /// The members of a roster.
    pub fn new(seed: u64, roster: &Roster, lines: &[EntryId]) -> Self {
        let now = Instant::now();
        let mut world = Self {
            now,
            begun: now,
            rng: StdRng::seed_from_u64(seed),
            hosts: Vec::new(),
            guests: Vec::new(),
            strangers: Vec::new(),
            wire: BTreeMap::new(),
            sent: 0,
            loss: 0,
            twice: 0,
            writing: MILLISECOND,
            cut: BTreeSet::new(),
        };
        for (at, line) in lines.iter().enumerate() {
            world.add(at, copy(roster), *line, at);
        }
        world
    }

    fn wall(&self, ahead: u64) -> UnixTime {
        NOW.after(self.now.duration_since(self.begun) + Duration::from_secs(ahead))
    }

    fn dice(&mut self) -> Box<Dice> {
        Box::new(Dice(StdRng::seed_from_u64(self.rng.random())))
    }

    /// Somebody at the address `at` with this roster, who proves itself with the IKE key of `ike`.
    pub fn add(&mut self, at: usize, roster: Roster, own: EntryId, ike: usize) {
        let disk = copy(&roster);
        let ([signing, _], [_, key]) = (keys(at), keys(ike));
        let machine = [u8::try_from(at).unwrap(); 16];
        let mut member = Membership::new(roster, own, Arc::new(key), (machine, [0; 16]));
        member.open_door(Arc::new(signing));
        let mut engine = Engine::new(settings(&member), self.dice());
        member.begin(self.now, &mut engine);
        let (writes, ahead, refuses_writes) = (Vec::new(), 0, false);
        let host = Host { at, engine, member, own, ike, disk, writes, ahead, refuses_writes };
        self.hosts.push(host);
    }

    /// A member dies and begins again with what it has written.
    pub fn restart(&mut self, at: usize) {
        let Host { at, own, ike, disk, .. } = self.hosts.remove(at);
        self.add(at, disk, own, ike);
        let host = self.hosts.pop().unwrap();
        let place = self.hosts.iter().position(|other| other.at > at).unwrap_or(self.hosts.len());
        self.hosts.insert(place, host);
    }

    /// Member `at` says something, and it is written.
    pub fn say(&mut self, at: usize, says: Saying) -> EntryId {
        let host = &mut self.hosts[at];
        let entry = said(host.member.roster(), host.at, says);
        host.take(self.now, std::slice::from_ref(&entry));
        entry.id()
    }

    /// Member 0 invites whoever has the token of that seed.
    pub fn invite(&mut self, invite: &Invite, seed: u8) -> EntryId {
        let host = &mut self.hosts[0];
        let [admin, _] = keys(0);
        let by = Signer::of(&admin).unwrap();
        let roster = host.member.roster();
        let statement = roster.draft(by, Saying::Invite(invite.clone()), NOW).unwrap();
        let token = PrivateKey::from_seed(&[seed; 32]).unwrap();
        let entry = sign(roster.cluster(), statement, &[&admin, &token]);
        host.take(self.now, std::slice::from_ref(&entry));
        entry.id()
    }

    /// The host `at` joins by a token, with the keys of `key`.
    pub fn join_as(&mut self, at: usize, token: Token, site: Site, key: usize) {
        let [signing, ike] = keys(key);
        let sources = token.seeds.iter().map(|seed| (seed.ip(), address(at))).collect();
        let order = JoinOrder { token, site, sources, peers: Default::default(), patience: 60 * SECOND };
        let (now, wall, dice) = (self.now, self.wall(0), self.dice());
        let joiner = Joiner::new(now, wall, order, [&signing, &ike], dice).unwrap();
        self.guests.push(Guest { at, joiner, outcome: None, steps: Vec::new(), came: 0 });
    }

    /// The same where it says that it is what it is.
    pub fn join(&mut self, at: usize, token: Token) {
        self.join_as(at, token, site(at), at);
    }

    /// Member 0 invites, and the host `at` joins by `members`.
    pub fn invite_and_join(&mut self, at: usize, members: &[usize]) {
        let seed = u8::try_from(at).unwrap();
        self.invite(&any(seed), seed);
        self.run(SECOND);
        let token = token(self.hosts[0].member.roster(), &any(seed), seed, members);
        self.join(at, token);
    }

    /// Somebody with this token who says what it likes to a member.
    pub fn stray(
        &mut self,
        at: usize,
        seed: u8,
        member: usize,
        says: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + 'static,
    ) {
        let token = PrivateKey::from_seed(&[seed; 32]).unwrap();
        let mut engine = Engine::new(super::super::seeds::settings("prod", token, 500), self.dice());
        engine.join(self.now, Pair { local: address(at), remote: address(member) });
        self.strangers.push(Stranger { at, engine, says: Box::new(says), heard: 0 });
    }

    /// Somebody who takes these tokens in a member's place.
    pub fn stray_member(
        &mut self,
        at: usize,
        tokens: &[u8],
        says: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>> + 'static,
        version: u8,
    ) {
        let [_, key] = keys(at);
        let mut settings = super::super::seeds::settings("prod", key, 500);
        let invites = tokens.iter().map(|seed| any(*seed).key.public_key().unwrap());
        settings.control.iter_mut().for_each(|control| {
            control.invites = invites.clone().collect();
            control.welcome = Arc::from([version]);
        });
        let engine = Engine::new(settings, self.dice());
        self.strangers.push(Stranger { at, engine, says: Box::new(says), heard: 0 });
    }

    /// Lets the next thing happen.
    fn step(&mut self, end: Instant) {
        let mut sent = Vec::new();
        for at in 0..self.hosts.len() {
            let wall = self.wall(self.hosts[at].ahead);
            self.hosts[at].drain(self.now, wall, self.writing);
            while let Some(transmit) = self.hosts[at].engine.poll_transmit() {
                sent.push(transmit);
            }
        }
        for stranger in &mut self.strangers {
            stranger.drain(self.now);
            while let Some(transmit) = stranger.engine.poll_transmit() {
                sent.push(transmit);
            }
        }
        for guest in &mut self.guests {
            guest.drain();
            while let Some(transmit) = guest.joiner.poll_transmit() {
                sent.push(transmit);
            }
        }
        for transmit in sent {
            let times = match self.rng.random_range(0..100) {
                roll if roll < self.loss => 0,
                roll if roll < self.loss + self.twice => 2,
                _ => 1,
            };
            for _ in 0..times {
                self.sent += 1;
                let comes = self.now + MILLISECOND * self.rng.random_range(1..5);
                let datagram = (transmit.local, transmit.remote, transmit.bytes.clone());
                self.wire.insert((comes, self.sent), datagram);
            }
        }
        let hosts = self.hosts.iter().filter_map(Host::due);
        let guests = self.guests.iter().filter_map(|guest| guest.joiner.poll_timeout());
        let comes = self.wire.first_key_value().map(|((at, _), _)| *at);
        let strangers = self.strangers.iter().filter_map(|it| it.engine.poll_timeout().map(|(at, _)| at));
        let next = hosts.chain(guests).chain(strangers).chain(comes).min().unwrap_or(end).min(end);
        self.now = self.now.max(next);
        self.deliver();
        let (now, writing) = (self.now, self.writing);
        for host in &mut self.hosts {
            host.handle_timeout(now, writing);
        }
        for stranger in &mut self.strangers {
            stranger.engine.handle_timeout(now);
        }
        for guest in &mut self.guests {
            if guest.joiner.poll_timeout().is_some_and(|at| at <= now) {
                guest.joiner.handle_timeout(now);
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (from, to, bytes) = entry.remove();
            let is_cut = |at: usize| {
                let ends = [(at, from.ip()), (at, to.ip())];
                let other = |ip: IpAddr| (0..250).find(|at| address(*at) == ip);
                ends.into_iter().any(|(at, ip)| {
                    other(ip).is_some_and(|other| {
                        self.cut.contains(&(at, other)) || self.cut.contains(&(other, at))
                    })
                })
            };
            for at in 0..self.hosts.len() {
                if address(self.hosts[at].at) == to.ip() && !is_cut(self.hosts[at].at) {
                    let wall = self.wall(self.hosts[at].ahead);
                    self.hosts[at].engine.handle_datagram(self.now, to, from, &bytes);
                    self.hosts[at].drain(self.now, wall, self.writing);
                }
            }
            for stranger in self.strangers.iter_mut().filter(|it| address(it.at) == to.ip()) {
                stranger.engine.handle_datagram(self.now, to, from, &bytes);
                stranger.drain(self.now);
            }
            for guest in &mut self.guests {
                if address(guest.at) == to.ip() && !is_cut(guest.at) {
                    guest.came += 1;
                    guest.joiner.handle_datagram(self.now, to, from, &bytes);
                    guest.drain();
                }
            }
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !done(self) && self.now < end {
            self.step(end);
        }
        done(self)
    }

    /// Runs until all who join have come to an end.
    pub fn finish(&mut self, limit: Duration) {
        let ended = |world: &Self| world.guests.iter().all(|guest| guest.outcome.is_some());
        assert!(self.run_until(limit, ended), "somebody still tries to join after {limit:?}");
    }

    /// Who has joined becomes a member.
    pub fn become_member(&mut self, guest: usize) {
        let Guest { at, outcome, .. } = self.guests.remove(guest);
        let JoinedRoster { roster, own } = outcome.unwrap().unwrap();
        self.add(at, roster, own, at);
    }

    /// What came of who joined last.
    pub fn outcome(&self) -> &Result<JoinedRoster, JoinError> {
        self.guests.last().unwrap().outcome.as_ref().unwrap()
    }

    pub fn refusal(&self) -> (JoinErrorKind, String) {
        let error = self.outcome().as_ref().unwrap_err();
        (error.kind().clone(), error.to_string())
    }

    /// All members have the same roster, and these are its nodes.
    pub fn names(&self) -> Vec<String> {
        let roster = self.hosts[0].member.roster();
        assert!(self.hosts.iter().all(|host| host.member.roster().id() == roster.id()));
        roster.view().members.iter().map(|member| member.site.name.to_string()).collect()
    }
}

impl Host {
    /// How many times it has signed something that is not written yet.
    pub fn signed(&self) -> usize {
        self.writes.len()
    }

    /// What it has signed is on the disk, and it does not know that yet.
    pub fn write(&mut self) {
        let entries = self.writes.iter().flat_map(|(_, entries)| entries).map(SignedEntry::octets);
        self.disk.merge(entries);
    }

    fn take(&mut self, now: Instant, entries: &[SignedEntry]) {
        self.member.handle_signed(now, &mut self.engine, entries);
        self.disk.merge(entries.iter().map(SignedEntry::octets));
    }

    fn drain(&mut self, now: Instant, wall: UnixTime, writing: Duration) {
        self.member.set_clock(now, wall, &mut self.engine);
        if self.member.poll_save() {
            self.member.handle_stored_roster(now, &mut self.engine);
        }
        while let Some(event) = self.engine.poll_event() {
            let Self { engine, member, .. } = self;
            match event {
                Event::Control { pair, purpose: Purpose::Join, event } => {
                    member.handle_join(now, engine, pair, event);
                }
                Event::Control { pair, event, .. } => member.handle_control(now, engine, pair, event),
                Event::Told { pair, topic: Topic::Join, octets } => {
                    member.handle_join_told(now, engine, pair, &octets);
                }
                Event::Told { pair, topic: Topic::Control, octets } => {
                    member.handle_told(now, engine, pair, &octets);
                }
                other => panic!("nothing of data: {other:?}"),
            }
            if let Some(entries) = self.member.poll_signed() {
                self.writes.push((now + writing, entries));
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        let engine = self.engine.poll_timeout().map(|(at, _)| at);
        let writes = self.writes.iter().map(|(at, _)| *at);
        engine.into_iter().chain(self.member.poll_timeout()).chain(writes).min()
    }

    fn handle_timeout(&mut self, now: Instant, writing: Duration) {
        if self.engine.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.engine.handle_timeout(now);
        }
        if self.member.poll_timeout().is_some_and(|at| at <= now) {
            self.member.handle_timeout(now, &mut self.engine);
        }
        let written: Vec<_> = self.writes.extract_if(.., |(at, _)| *at <= now).collect();
        let mut next_writes = Vec::new();
        for (_, entries) in written {
            match self.refuses_writes {
                true => self.member.handle_not_written(now, &mut self.engine, &entries),
                false => self.take(now, &entries),
            }
            if let Some(next) = self.member.poll_signed() {
                next_writes.push((now + writing, next));
            }
        }
        self.writes.extend(next_writes);
    }
}

impl Stranger {
    fn drain(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            let (pair, said) = match event {
                Event::Control { pair, event: ControlEvent::Introduced { session, .. }, .. } => {
                    self.engine.admit(now, session);
                    (pair, (self.says)(None))
                }
                Event::Control { pair, event: ControlEvent::Heard, .. } => (pair, (self.says)(None)),
                Event::Told { pair, octets, .. } => {
                    self.heard += 1;
                    (pair, (self.says)(Some(&octets)))
                }
                _ => continue,
            };
            if let Some(said) = said {
                self.engine.tell(now, pair, Topic::Join, Arc::new(move |_| said.clone()));
            }
        }
    }
}

impl Guest {
    fn drain(&mut self) {
        while let Some(step) = self.joiner.poll_step() {
            self.steps.push(step);
        }
        if let Some(outcome) = self.joiner.poll_outcome() {
            assert!(self.outcome.is_none());
            self.outcome = Some(outcome);
        }
    }
}
