//! Hosts and time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

use super::files::File;
use super::floating::{VIP, Vip};
use super::imposter::Imposter;
use super::kernel::{Death, Leaves, SimKernel};
use super::net::{Inner, Net, Packet, Weather};
use crate::host::accounts::Accounts;
use crate::host::core::{Core, Datagram};
use crate::host::due::Due;
use crate::host::guard::first_step;
use crate::host::kernel::Kernel as _;
use crate::host::probe;
use crate::host::timers::Timers;
use crate::ike;
use crate::protect::silence::LISTEN_EVERY;
use crate::store::PairRecord;
use crate::types::{EncapsulationMode, Inside, Method, Pair, Proposals, UnixTime};

pub(super) const PORT: u16 = 500;
pub(super) const NAT_PORT: u16 = 4500;
/// How often a condition is looked at: it may concern every pair of a large cluster.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Octets of the largest packet that kernels let out as ESP.
pub(super) const LETS_OUT: u16 = 1466;
/// Bytes of a data packet.
const DATA: u64 = 100;

pub(super) struct Seeded(pub(super) StdRng);

impl ike::Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

/// One host.
pub(super) struct Host {
    pub(super) address: IpAddr,
    pub(super) kernel: SimKernel,
    pub(super) core: Option<Core>,
    /// What its agent last wrote to its state directory.
    saved: BTreeMap<Pair, PairRecord>,
    /// What its files say.
    pub(super) file: File,
    /// When it writes again.
    due: Due,
    /// How large that is, and how often it was written.
    pub(super) octets: usize,
    pub(super) writes: u64,
    /// What the operator wants, as the state directory says it.
    wanted: bool,
    /// When it goes back to the clear, as its state directory tells.
    trial: Option<Instant>,
    tick: Instant,
    /// Until when its agent gets no turn.
    pub(super) starves: Option<Instant>,
    /// What its agent has not read yet.
    inbox: Vec<Datagram>,
}

/// What became of data packets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) lost: u64,
    pub(super) clear: u64,
    /// Sent in the clear by a host that accepts nothing clear itself.
    pub(super) leaked: u64,
}

pub(super) struct World {
    pub(super) now: Instant,
    begun: Instant,
    pub(super) rng: StdRng,
    pub(super) hosts: Vec<Host>,
    pub(super) net: Net,
    /// What all hosts tell of themselves.
    pub(super) about: Arc<[u8]>,
    /// Who answers in the place of a host, and keeps it from being heard.
    pub(super) imposter: Option<Imposter>,
    /// An address that moves between hosts.
    pub(super) vip: Option<Vip>,
    timers: Timers<usize>,
    /// When kernels remove a policy by themselves.
    expiries: Timers<usize>,
    /// Data packets by way.
    pub(super) tally: BTreeMap<(usize, usize), Tally>,
}

pub(super) fn address(host: usize) -> IpAddr {
    IpAddr::from([10, 0, (host / 250) as u8, (host % 250 + 1) as u8])
}

/// The host that [`address`] gives this address.
fn listed_at(address: IpAddr) -> Option<usize> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    let [_, _, high, low] = address.octets();
    Some(usize::from(high) * 250 + usize::from(low.checked_sub(1)?))
}

impl World {
    /// The method of keying comes with the seed, so that whatever is tried with several is tried with each.
    pub(super) fn new(hosts: usize, seed: u64, weather: Weather) -> Self {
        let now = Instant::now();
        let method = Method::ALL[(seed / 2 % 2) as usize];
        let host = |at| Host {
            address: address(at),
            kernel: SimKernel::default(),
            core: None,
            saved: BTreeMap::new(),
            file: File {
                nodes: (0..hosts).collect(),
                secret: [7; 32],
                previous: None,
                method,
                accept: vec![method],
                esp_proposals: Proposals::default(),
                replay_window: 4096,
                rekey_after: Duration::from_secs(3600),
                encapsulation: EncapsulationMode::Auto,
            },
            due: Due::default(),
            octets: 0,
            writes: 0,
            wanted: false,
            trial: None,
            tick: now,
            starves: None,
            inbox: Vec::new(),
        };
        Self {
            now,
            begun: now,
            rng: StdRng::seed_from_u64(seed),
            hosts: (0..hosts).map(host).collect(),
            net: Net::new(weather),
            about: Arc::default(),
            imposter: None,
            vip: None,
            timers: Timers::default(),
            expiries: Timers::default(),
            tally: BTreeMap::new(),
        }
    }

    /// The time of day.
    pub(super) fn wall(&self) -> UnixTime {
        UnixTime(1_767_225_600 + (self.now - self.begun).as_secs())
    }

    pub(super) fn pair(&self, from: usize, to: usize) -> Pair {
        Pair { local: self.hosts[from].address, remote: address(to) }
    }

    /// Puts a NAT before a host: it has another address itself than the one that the others send to.
    pub(super) fn put_behind_nat(&mut self, at: usize) {
        // In another order than the listed ones.
        let own = IpAddr::from([192, 168, 0, 250 - at as u8]);
        self.net.translated.insert(own, address(at));
        self.hosts[at].address = own;
    }

    /// The host that has this address, or is sent to by it.
    fn host_at(&self, address: IpAddr) -> Option<usize> {
        if address == VIP {
            return self.vip.as_ref().and_then(|vip| vip.at);
        }
        let listed = self.net.translated.get(&address).copied().unwrap_or(address);
        listed_at(listed).filter(|at| *at < self.hosts.len())
    }

    pub(super) fn inside(&self, at: usize) -> Inside {
        let own = self.hosts[at].address;
        Inside::new((own != address(at)).then_some((address(at), own)).into_iter().collect())
    }

    pub(super) fn give_other_secret(&mut self, host: usize) {
        self.hosts[host].file.secret = [8; 32];
    }

    /// `enable`: with an agent that runs, or the first one, or one after a kill, an upgrade or a reboot.
    pub(super) fn enable(&mut self, at: usize) {
        self.enable_with(at, false, self.hosts[at].trial);
    }

    /// The same; `strict` seals all pairs at once, and at the end of a `trial` they go back to the clear.
    pub(super) fn enable_with(&mut self, at: usize, strict: bool, trial: Option<Instant>) {
        let host = &mut self.hosts[at];
        host.trial = trial;
        if !std::mem::replace(&mut host.wanted, true) {
            // What was sealed before the operator went back to clear begins in stages again.
            host.saved.values_mut().for_each(|record| record.sealed = false);
        }
        self.start_with(at, strict);
    }

    /// An agent starts, where none runs, and goes on with what is wanted.
    pub(super) fn start(&mut self, at: usize) {
        self.start_with(at, false);
    }

    fn start_with(&mut self, at: usize, strict: bool) {
        let trial = self.hosts[at].trial;
        if self.hosts[at].core.is_none() {
            let core = self.make_core(at);
            self.hosts[at].core = Some(core);
            self.hosts[at].tick = self.now + LISTEN_EVERY;
            self.tell_addresses(at);
        }
        let own = self.hosts[at].address;
        if self.hosts[at].wanted {
            self.on(at, |core, now, kernel| {
                core.know_own(BTreeSet::from([own]));
                core.enable(now, kernel, strict, trial).expect("a kernel can be read")
            });
        } else {
            self.on(at, |core, now, kernel| core.disable(now, kernel).expect("a kernel can be read"));
        }
    }

    pub(super) fn disable(&mut self, at: usize) {
        (self.hosts[at].wanted, self.hosts[at].trial) = (false, None);
        self.start(at);
    }

    pub(super) fn confirm(&mut self, at: usize) {
        self.hosts[at].trial = None;
        self.on(at, |core, now, kernel| core.confirm(now, kernel));
    }

    /// The host has these addresses beside its own one now.
    pub(super) fn know(&mut self, at: usize, others: &[IpAddr]) {
        let own = others.iter().copied().chain([self.hosts[at].address]).collect();
        self.on(at, |core, now, kernel| {
            core.know_own(own);
            core.handle_timeout(now, kernel);
        });
    }

    /// The agent is gone without a word; its kernel goes on.
    pub(super) fn kill(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.core = None;
        host.due = Due::default();
        // Nobody hears of them any more.
        host.kernel.ended.clear();
        self.timers.set(at, None);
    }

    /// The host loses its address, or has it again: nothing leaves it or reaches it meanwhile.
    pub(super) fn set_address(&mut self, at: usize, present: bool) {
        let own = self.hosts[at].address;
        for other in self.hosts.iter().map(|host| host.address) {
            for way in [(own, other), (other, own)] {
                if present {
                    self.net.cut.remove(&way)
                } else {
                    self.net.cut.insert(way)
                };
            }
        }
        let there: BTreeSet<IpAddr> = present.then_some(own).into_iter().chain(self.vip_at(at)).collect();
        self.on(at, |core, now, kernel| core.handle_addresses(now, kernel, &there));
    }

    /// The agent ends as it is told to; its kernel goes on.
    pub(super) fn stop(&mut self, at: usize) {
        self.save(at);
        self.kill(at);
    }

    /// The host starts anew: the kernel's tables are empty, the state directory is not.
    pub(super) fn reboot(&mut self, at: usize) {
        self.kill(at);
        self.hosts[at].kernel = SimKernel::default();
    }

    /// A stranger removes all SAs; the kernel's notification makes the agent look.
    pub(super) fn flush_sas(&mut self, at: usize) {
        self.hosts[at].kernel.flush();
        self.on(at, |core, now, kernel| core.look_again(now, kernel));
    }

    pub(super) fn flush_policies(&mut self, at: usize) {
        self.hosts[at].kernel.state.policies.clear();
        self.on(at, |core, now, kernel| core.look_again(now, kernel));
    }

    /// What runs at boot before the network is up.
    pub(super) fn guard(&mut self, at: usize) {
        let (scheme, sealed) = (self.scheme(at), self.sealed(at));
        let kernel = &mut self.hosts[at].kernel;
        let plan = first_step(&scheme, &sealed, kernel.state.clone(), self.now);
        for result in kernel.apply(&plan.ops, &BTreeMap::new()) {
            result.expect("a guard changes nothing that is not there");
        }
    }

    fn sealed(&self, at: usize) -> BTreeSet<Pair> {
        let saved = self.hosts[at].saved.iter();
        saved.filter(|(_, record)| record.sealed).map(|(pair, _)| *pair).collect()
    }

    fn make_core(&mut self, at: usize) -> Core {
        let (scheme, settings) = (self.scheme(at), self.settings(at));
        let (mut accounts, wall) = (Accounts::default(), self.wall());
        let saved = &self.hosts[at].saved;
        for pair in &scheme.pairs {
            accounts.restore(*pair, saved.get(pair).unwrap_or(&PairRecord::default()), wall);
        }
        let entropy = Seeded(StdRng::seed_from_u64(self.rng.random()));
        let engine = ike::Engine::new(settings, Box::new(entropy));
        let mut core = Core::new(scheme, engine, accounts, &self.sealed(at), self.now);
        core.set_clock(self.now, wall);
        core.recall(&self.hosts[at].saved);
        core
    }

    /// Gives the core of a host an input, and carries its outputs away. It may die of it, and then nobody
    /// learns of anything but what it did to its kernel.
    pub(super) fn on(&mut self, at: usize, input: impl FnOnce(&mut Core, Instant, &mut SimKernel)) {
        let now = self.now;
        let Host { core: Some(core), kernel, .. } = &mut self.hosts[at] else {
            return;
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| input(core, now, kernel)));
        self.expiries.set(at, kernel.next_expiry);
        match outcome {
            Ok(()) => {}
            Err(cause) if cause.is::<Death>() => return self.kill(at),
            Err(cause) => resume_unwind(cause),
        }
        self.carry_away(at);
        let host = &mut self.hosts[at];
        let over = !host.wanted && host.core.as_ref().is_some_and(Core::is_off);
        if over {
            self.save(at);
            return self.kill(at);
        }
        let due = host.core.as_ref().and_then(Core::poll_timeout);
        self.timers.set(at, [due, host.due.deadline(), Some(host.tick)].into_iter().flatten().min());
    }

    fn carry_away(&mut self, at: usize) {
        let Self { hosts, net, rng, now, .. } = self;
        let Host { core, kernel, due, trial, wanted, .. } = &mut hosts[at];
        let Some(core) = core else {
            return;
        };
        while let Some(probe) = core.poll_probe() {
            let id = probe.sa.id();
            if probe.size.is_some_and(|size| size > LETS_OUT) {
                core.handle_probe_refused(*now, &probe, None);
                continue;
            }
            if kernel.count(id, probe.bytes.len() as u64 + 8) {
                core.handle_probe_sent(*now, &probe);
                let from = SocketAddr::new(probe.local, 40_000);
                let inner = Inner::Probe { to: probe.remote, bytes: probe.bytes.to_vec() };
                let in_udp = kernel.is_in_udp(id);
                net.send(*now, rng, Packet::Esp { id, from, in_udp, inner });
            }
        }
        while let Some(transmit) = core.poll_transmit() {
            let ike::Transmit { local, remote, bytes } = transmit;
            net.send(*now, rng, Packet::Ike { from: local, to: remote, bytes });
        }
        for reading in kernel.ended.drain(..) {
            core.handle_sa_end(&reading);
        }
        core.poll_absent(*now);
        if core.poll_trial_ended() {
            (*trial, *wanted) = (None, false);
        }
        if let Some(what) = core.poll_persist() {
            due.note(*now, what);
        }
    }

    /// The agent writes its state directory.
    fn save(&mut self, at: usize) {
        let wall = self.wall();
        let host = &mut self.hosts[at];
        host.due.begin(self.now);
        if let Some(core) = &host.core {
            host.saved = core.records(self.now, wall);
        }
        host.due.end(host.octets, None);
        host.writes += 1;
    }

    /// One data packet on its way.
    pub(super) fn send_data(&mut self, from: usize, to: usize) {
        let pair = self.pair(from, to);
        let tally = self.tally.entry((from, to)).or_default();
        tally.sent += 1;
        let kernel = &mut self.hosts[from].kernel;
        let packet = match kernel.leaves(pair) {
            Leaves::Clear => {
                tally.leaked += u64::from(!kernel.accepts_clear(pair));
                Packet::Clear { from: pair.local, to: pair.remote }
            }
            Leaves::Esp(id) => {
                kernel.count(id, DATA);
                let (from, in_udp) = (SocketAddr::new(pair.local, 0), kernel.is_in_udp(id));
                Packet::Esp { id, from, in_udp, inner: Inner::Data }
            }
            Leaves::Dropped => {
                tally.lost += 1;
                return;
            }
        };
        self.net.send(self.now, &mut self.rng, packet);
    }

    /// A packet arrives: counted at once, or for the agent, which takes what it finds in `inboxes` together.
    fn deliver(&mut self, packet: Packet, inboxes: &mut BTreeMap<usize, Vec<Datagram>>) {
        let Some(to) = self.host_at(packet.destination()) else { return };
        if self.imposter.as_ref().is_some_and(|imposter| imposter.instead_of == to) {
            return self.deceive(packet, inboxes);
        }
        match packet {
            Packet::Ike { from, to: local, bytes } => {
                inboxes.entry(to).or_default().push(Datagram {
                    local,
                    remote: from,
                    arrived: self.now,
                    bytes,
                });
            }
            Packet::Clear { from, .. } => {
                let from = self.host_at(from).expect("packets come from hosts");
                let pair = self.pair(to, from);
                let accepted = self.hosts[to].kernel.accepts_clear(pair);
                self.hosts[to].kernel.meet_inbound(pair);
                let tally = self.tally.entry((from, to)).or_default();
                tally.clear += 1;
                tally.lost += u64::from(!accepted);
            }
            Packet::Esp { id, from, in_udp, inner: Inner::Data } => {
                let from = self.host_at(from.ip()).expect("packets come from hosts");
                let pair = self.pair(to, from);
                let arrived = self.hosts[to].kernel.receive(id, in_udp, DATA);
                self.hosts[to].kernel.meet_inbound(pair);
                self.tally.entry((from, to)).or_default().lost += u64::from(!arrived);
            }
            Packet::Esp { id, from, in_udp, inner: Inner::Probe { to: local, bytes } } => {
                // Where words go: there they are read in the order in which they came.
                let words = if in_udp { NAT_PORT } else { PORT };
                assert!(local.port() == words || probe::decode(&bytes).is_none());
                if self.hosts[to].kernel.receive(id, in_udp, bytes.len() as u64 + 8) {
                    inboxes.entry(to).or_default().push(Datagram {
                        local,
                        remote: from,
                        arrived: self.now,
                        bytes,
                    });
                }
            }
        }
    }

    fn next_event(&self) -> Option<Instant> {
        self.timers.next().into_iter().chain(self.net.next()).chain(self.expiries.next()).min()
    }

    /// Lets time pass. With `every`, each way in `ways` carries a data packet that often.
    pub(super) fn run(&mut self, time: Duration, traffic: Option<(Duration, &[(usize, usize)])>) {
        let end = self.now + time;
        let mut next_data = self.now;
        loop {
            let data = traffic.map(|_| next_data);
            let next = [self.next_event(), data].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            if let Some((every, ways)) = traffic
                && self.now >= next_data
            {
                ways.iter().for_each(|(from, to)| self.send_data(*from, *to));
                next_data += every;
            }
            self.step();
        }
    }

    /// Runs until `done` or the end of patience; says whether it was done.
    pub(super) fn run_until(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + patience;
        let mut looked = self.now;
        while self.now < looked + LOOK_EVERY || !done(self) {
            if self.now >= looked + LOOK_EVERY {
                looked = self.now;
            }
            match self.next_event() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => return done(self),
            }
            self.step();
        }
        true
    }

    fn step(&mut self) {
        while let Some(at) = self.expiries.pop_due(self.now) {
            self.hosts[at].kernel.expire(self.now);
            self.expiries.set(at, self.hosts[at].kernel.next_expiry);
            self.on(at, |core, now, kernel| core.look_again(now, kernel));
        }
        let mut inboxes = BTreeMap::new();
        while let Some(packet) = self.net.pop_due(self.now) {
            self.deliver(packet, &mut inboxes);
        }
        for (at, datagrams) in inboxes {
            self.hosts[at].inbox.extend(datagrams);
            self.read(at);
        }
        while let Some(at) = self.timers.pop_due(self.now) {
            if self.hosts[at].starves.is_some_and(|until| until > self.now) {
                self.timers.set(at, self.hosts[at].starves);
                continue;
            }
            self.hosts[at].starves = None;
            self.read(at);
            if self.hosts[at].tick <= self.now {
                self.on(at, |core, now, kernel| core.handle_tick(now, kernel));
                let host = &mut self.hosts[at];
                host.tick =
                    host.core.as_ref().map_or(self.now + LISTEN_EVERY, |core| core.next_tick(self.now));
            }
            if self.hosts[at].due.deadline().is_some_and(|due| due <= self.now) {
                self.save(at);
            }
            self.on(at, |core, now, kernel| core.handle_timeout(now, kernel));
        }
    }

    fn read(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.starves.is_none() && !host.inbox.is_empty() {
            let datagrams = std::mem::take(&mut host.inbox);
            self.on(at, |core, now, kernel| core.handle_datagrams(now, kernel, &datagrams));
        }
    }

    /// The agent of a host gets no turn for a time, and reads then what has come meanwhile.
    pub(super) fn starve(&mut self, at: usize, time: Duration) {
        self.hosts[at].starves = Some(self.now + time);
        self.timers.set(at, self.hosts[at].starves);
    }

    /// Nothing passes between two hosts any more.
    pub(super) fn cut(&mut self, one: usize, other: usize) {
        let (one, other) = (self.hosts[one].address, self.hosts[other].address);
        self.net.cut.extend([(one, other), (other, one)]);
    }

    /// All passes between them again.
    pub(super) fn mend(&mut self, one: usize, other: usize) {
        let (one, other) = (self.hosts[one].address, self.hosts[other].address);
        [(one, other), (other, one)].iter().for_each(|way| {
            self.net.cut.remove(way);
        });
    }

    /// The state directory of a host says that it was sealed with another.
    pub(super) fn remember_sealed(&mut self, at: usize, other: usize) {
        let pair = self.pair(at, other);
        self.hosts[at].saved.entry(pair).or_default().sealed = true;
    }
}
