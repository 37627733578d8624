//! Hosts and time.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use tempfile::TempDir;

use super::cluster::SECOND;
use super::disk::Disk;
use super::files::{File, Place};
use super::floating::{VIP, Vip};
use super::imposter::Imposter;
use super::kernel::{Death, Leaves, SimKernel};
use super::lease_histories::LeaseWatch;
use super::net::{Inner, Net, Packet, Weather};
use crate::control::{Reply, Request, Terms};
use crate::host::core::{Core, Datagram};
use crate::host::kernel::Kernel as _;
use crate::host::lease::AskId;
use crate::host::ledger::Asker;
use crate::host::ports::SecretSource as _;
use crate::host::system::Moment;
use crate::host::timers::Timers;
use crate::host::{Host as Agent, Start, guard, probe};
use crate::ike;
use crate::observe::status::Status;
use crate::store::Saved;
use crate::types::{
    Boot, EncapsulationMode, Inside, Method, NetworkNews, Pair, Proposals, Protection, UnixTime,
};

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
    pub(super) agent: Option<Agent>,
    /// What its files say.
    pub(super) file: File,
    pub(super) disk: Disk,
    /// How often it was started.
    starts: u64,
    /// Until when its agent gets no turn.
    pub(super) starves: Option<Instant>,
    /// What its agent has not read yet.
    inbox: Vec<Datagram>,
    /// What its agent asks a KMS that does not answer yet, and since when.
    pub(super) unanswered: Option<(AskId, Instant)>,
    /// Who looks on what becomes of its lease.
    pub(super) watch: Option<LeaseWatch>,
    /// What its agent is asked next, and by whom.
    pub(super) requests: VecDeque<(Asker, Request)>,
    asked: u64,
    /// What it answered, and what was on the disk then.
    pub(super) replies: Vec<(Asker, Reply, Saved)>,
}

impl Host {
    /// What joins its pairs and its kernel, while its agent is at work.
    pub(super) fn core(&self) -> Option<&Core> {
        self.agent.as_ref()?.core()
    }

    /// This start of its system, after so long.
    fn boot(&self, uptime: Duration) -> Boot {
        Boot { id: self.starts.to_string(), uptime }
    }

    /// Whether its agent protects it.
    pub(super) fn is_at_work(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.protection == Protection::On)
    }

    /// Whether its agent, or the next one, is to protect it.
    fn is_wanted(&self) -> bool {
        self.disk.saved.protection == Protection::On
    }
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
    /// How far the time of day was set, in seconds.
    set: i64,
    pub(super) rng: StdRng,
    pub(super) hosts: Vec<Host>,
    pub(super) net: Net,
    /// Who answers in the place of a host, and keeps it from being heard.
    pub(super) imposter: Option<Imposter>,
    /// An address that moves between hosts.
    pub(super) vip: Option<Vip>,
    /// Where hosts are for the others that have another address than [`address`] gives them.
    pub(super) renumbered: BTreeMap<usize, IpAddr>,
    /// No KMS answers.
    pub(super) kms_waits: bool,
    /// The key of a KMS that nobody may use any more.
    pub(super) revoked_key: Option<&'static str>,
    /// Where hosts have the keys of members, if they are any.
    pub(super) keys: Option<TempDir>,
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
            kernel: SimKernel::at([address(at)]),
            agent: None,
            file: File {
                nodes: (0..hosts).collect(),
                secret: [7; 32],
                place: Place::File,
                kms: None,
                previous: None,
                method,
                accept: vec![method],
                esp_proposals: Proposals::default(),
                replay_window: 4096,
                rekey_after: Duration::from_secs(3600),
                encapsulation: EncapsulationMode::Auto,
                ppks: Vec::new(),
                ppk_required: true,
                ppk_until: None,
                is_broken: false,
            },
            disk: Disk::default(),
            starts: 0,
            starves: None,
            inbox: Vec::new(),
            unanswered: None,
            watch: None,
            requests: VecDeque::new(),
            asked: 0,
            replies: Vec::new(),
        };
        Self {
            now,
            begun: now,
            set: 0,
            rng: StdRng::seed_from_u64(seed),
            hosts: (0..hosts).map(host).collect(),
            net: Net::new(weather),
            imposter: None,
            vip: None,
            renumbered: BTreeMap::new(),
            kms_waits: false,
            revoked_key: None,
            keys: None,
            timers: Timers::default(),
            expiries: Timers::default(),
            tally: BTreeMap::new(),
        }
    }

    /// The time of day.
    pub(super) fn wall(&self) -> UnixTime {
        UnixTime((1_767_225_600 + (self.now - self.begun).as_secs()).saturating_add_signed(self.set))
    }

    /// The time of day is set on all hosts, by so many seconds.
    pub(super) fn set_clock(&mut self, by: i64) {
        self.set += by;
        for at in 0..self.hosts.len() {
            self.hosts[at].kernel.shift_ends(self.now, by);
            self.expiries.set(at, self.hosts[at].kernel.next_expiry);
        }
    }

    pub(super) fn pair(&self, from: usize, to: usize) -> Pair {
        let remote = self.renumbered.get(&to).copied().unwrap_or_else(|| address(to));
        Pair { local: self.hosts[from].address, remote }
    }

    /// Puts a NAT before a host: it has another address itself than the one that the others send to.
    pub(super) fn put_behind_nat(&mut self, at: usize) {
        // In another order than the listed ones.
        let own = IpAddr::from([192, 168, 0, 250 - at as u8]);
        self.net.translated.insert(own, address(at));
        self.hosts[at].address = own;
        self.hosts[at].kernel.has([own]);
    }

    /// The host that has this address, or is sent to by it.
    fn host_at(&self, address: IpAddr) -> Option<usize> {
        if address == VIP {
            return self.vip.as_ref().and_then(|vip| vip.at);
        }
        let listed = self.net.translated.get(&address).copied().unwrap_or(address);
        let has_it = |host: &Host| host.kernel.here.own.contains(&listed);
        listed_at(listed).filter(|at| *at < self.hosts.len()).or_else(|| self.hosts.iter().position(has_it))
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
        self.start(at);
        if !self.hosts[at].is_wanted() {
            self.ask(at, Request::Enable);
        }
    }

    /// The same; `strict` seals all pairs at once, and at the end of a `trial` they go back to the clear.
    pub(super) fn enable_with(&mut self, at: usize, strict: bool, trial: Option<Instant>) {
        self.start(at);
        let try_s = trial.map(|end| (end - self.now).as_secs());
        self.ask(at, Terms { strict, try_s }.into());
    }

    pub(super) fn disable(&mut self, at: usize) {
        self.start(at);
        self.ask(at, Request::Disable);
    }

    pub(super) fn confirm(&mut self, at: usize) {
        self.ask(at, Request::Confirm);
    }

    /// Asks the agent of a host, where one runs. Its answer comes among the replies.
    pub(super) fn ask(&mut self, at: usize, request: Request) -> Asker {
        let host = &mut self.hosts[at];
        host.asked += 1;
        let asker = Asker(host.asked);
        host.requests.push_back((asker, request));
        self.on(at, |_, _, _| {});
        asker
    }

    /// How a host says that it stands.
    pub(super) fn status(&mut self, at: usize) -> Status {
        let asker = self.ask(at, Request::Status);
        let told = move |world: &World| world.hosts[at].replies.iter().any(|(to, ..)| *to == asker);
        assert!(self.run_until(10 * SECOND, told));
        let reply = self.hosts[at].replies.iter().find(|(to, ..)| *to == asker);
        match reply {
            Some((_, Reply::Status(status), _)) => (**status).clone(),
            other => panic!("no status: {}", other.is_some()),
        }
    }

    /// An agent starts, where none runs, and goes on with what is wanted.
    pub(super) fn start(&mut self, at: usize) {
        if self.hosts[at].agent.is_some() {
            return;
        }
        let mut rng = StdRng::seed_from_u64(self.rng.random());
        let chance = move || Box::new(Seeded(StdRng::seed_from_u64(rng.random()))) as _;
        let (setup, moment) = (self.setup(at), self.moment());
        let secrets = self.source(at).read(&setup, None).expect("it says what it has");
        let member = self.member_start(at);
        let host = &mut self.hosts[at];
        let saved = host.disk.saved.clone();
        let cluster = member;
        let start = Start { setup, secrets, saved, trouble: None, withheld: None, cluster };
        host.agent = Some(Agent::new(moment, host.boot(moment.uptime).id, start, Box::new(chance)));
        self.on(at, |agent, _, kernel| agent.start(moment, kernel).expect("a kernel can be read"));
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.now, wall: self.wall(), uptime: self.now - self.begun }
    }

    /// The host has these addresses beside its own one now.
    pub(super) fn know(&mut self, at: usize, others: &[IpAddr]) {
        let own = self.hosts[at].address;
        self.hosts[at].kernel.has(others.iter().copied().chain([own]));
        self.tell_addresses(at);
    }

    /// Tells an agent that the addresses of its host may have changed.
    pub(super) fn tell_addresses(&mut self, at: usize) {
        let named = self.vip.iter().map(|_| VIP).collect();
        self.on(at, |agent, now, kernel| agent.handle_news(now, kernel, NetworkNews::Addresses(named)));
    }

    /// The agent is gone silently; its kernel goes on. What it was writing is lost.
    pub(super) fn kill(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        host.agent = None;
        host.disk.lose();
        host.requests.clear();
        host.unanswered = None;
        // Nobody hears of them any more.
        host.kernel.events.clear();
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
        let there = &mut self.hosts[at].kernel.here.present;
        if present {
            there.insert(own)
        } else {
            there.remove(&own)
        };
        self.tell_addresses(at);
    }

    /// The agent ends as it is told to; its kernel goes on.
    pub(super) fn stop(&mut self, at: usize) {
        self.on(at, |agent, now, _| agent.hurry(now));
        self.kill(at);
    }

    /// The host starts anew: the kernel's tables are empty, the state directory is not.
    pub(super) fn reboot(&mut self, at: usize) {
        self.kill(at);
        let host = &mut self.hosts[at];
        host.starts += 1;
        host.kernel.restart();
    }

    /// A stranger removes all SAs; the kernel's notification makes the agent look.
    pub(super) fn flush_sas(&mut self, at: usize) {
        self.hosts[at].kernel.flush();
        self.look(at);
    }

    pub(super) fn flush_policies(&mut self, at: usize) {
        self.hosts[at].kernel.state.policies.clear();
        self.look(at);
    }

    /// The kernel says that somebody has changed its tables.
    pub(super) fn look(&mut self, at: usize) {
        self.hosts[at].kernel.change();
        self.on(at, |_, _, _| {});
    }

    /// What runs at boot before the network is up.
    pub(super) fn guard(&mut self, at: usize) {
        let (scheme, uptime) = (self.setup(at).scheme(), self.moment().uptime);
        let host = &mut self.hosts[at];
        let Ok(sealed) = guard::sealed(&mut host.disk.saved.clone(), &host.boot(uptime)) else { return };
        let plan = guard::first_step(&scheme, &sealed, host.kernel.state.clone(), self.now);
        for result in host.kernel.apply(&plan.ops, &BTreeMap::new()) {
            result.expect("a guard changes nothing that is not there");
        }
    }

    /// Gives the agent of a host an input, and carries its outputs away. It may die of it, and then nobody
    /// learns of anything but what it did to its kernel.
    pub(super) fn on(&mut self, at: usize, input: impl FnOnce(&mut Agent, Instant, &mut SimKernel)) {
        let now = self.now;
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let Host { agent: Some(agent), kernel, .. } = &mut self.hosts[at] else { return };
            input(agent, now, kernel);
            while self.carry_away(at) {}
        }));
        self.hosts[at].kernel.note_sas(now);
        self.expiries.set(at, self.hosts[at].kernel.next_expiry);
        match outcome {
            Ok(()) => {}
            Err(cause) if cause.is::<Death>() => return self.kill(at),
            Err(cause) => resume_unwind(cause),
        }
        let host = &self.hosts[at];
        let due = host.agent.as_ref().and_then(Agent::poll_timeout);
        self.timers.set(at, due.into_iter().chain(host.disk.deadline()).min());
    }

    /// Carries out what an agent has to give. Says whether it has to be asked again.
    fn carry_away(&mut self, at: usize) -> bool {
        let (moment, mut again) = (self.moment(), self.unwrap(at));
        while let Some(read) = self.hosts[at].agent.as_mut().and_then(Agent::poll_read) {
            let (setup, mut source) = (self.setup(at), self.source(at));
            let broken = self.hosts[at].file.is_broken;
            let Host { agent: Some(agent), kernel, .. } = &mut self.hosts[at] else { return false };
            let setup = if broken { Err(anyhow::anyhow!("line 3")) } else { Ok(setup) };
            agent.handle_files(moment, kernel, &mut source, read, setup);
        }
        let Self { hosts, net, rng, now, .. } = self;
        let Host { agent: Some(agent), kernel, disk, requests, replies, .. } = &mut hosts[at] else {
            return false;
        };
        agent.send(*now, kernel);
        for packet in kernel.sent.drain(..) {
            net.send(*now, rng, packet);
        }
        if !kernel.events.is_empty() {
            agent.handle_kernel_events(*now, kernel);
            again = true;
        }
        if let Some((asker, request)) = requests.pop_front_if(|_| agent.takes_requests()) {
            agent.handle_request(moment, kernel, asker, request);
            again = true;
        }
        agent.handle_done(*now, kernel);
        if agent.poll_ways(*now) {
            agent.handle_ways(*now, None);
        }
        agent.write(*now, disk);
        while let Some(written) = disk.pop_due(*now) {
            agent.handle_written(*now, kernel, written);
            again = true;
        }
        replies.extend(
            std::iter::from_fn(|| agent.poll_reply())
                .flat_map(|(to, reply)| to.into_iter().map(move |to| (to, reply.clone())))
                .map(|(to, reply)| (to, reply, disk.saved.clone())),
        );
        again
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
                let (runs, now) = (self.hosts[from].agent.is_some(), self.now);
                self.hosts[from].watch.iter_mut().for_each(|watch| watch.note_packet(now, runs));
                let kernel = &mut self.hosts[from].kernel;
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
            Packet::Plain { from, to: local, bytes } => {
                let at = self.host_at(from.ip()).expect("packets come from hosts");
                let pair = self.pair(to, at);
                let kernel = &mut self.hosts[to].kernel;
                if kernel.accepts_clear(pair) {
                    kernel.proof.receive(from, local, &bytes);
                } else {
                    kernel.proof.refuse();
                }
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
                let kernel = &mut self.hosts[to].kernel;
                if kernel.receive(id, in_udp, bytes.len() as u64 + 8)
                    && !kernel.proof.receive(from, local, &bytes)
                {
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
            self.on(at, |_, _, _| {});
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
            let moment = self.moment();
            self.on(at, |agent, now, kernel| {
                // The disk may have been waited for alone.
                if agent.poll_timeout().is_some_and(|due| due <= now) {
                    agent.handle_timeout(moment, kernel);
                }
            });
        }
    }

    fn read(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.starves.is_none() && !host.inbox.is_empty() {
            let datagrams = std::mem::take(&mut host.inbox);
            self.on(at, |agent, now, kernel| agent.handle_datagrams(now, kernel, &datagrams));
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
        self.hosts[at].disk.saved.pairs.entry(pair).or_default().sealed = true;
    }
}
