//! Days of a cluster's life in virtual time: rekeys, restarts, reboots, partitions and worse weather at
//! random, while a tenth of IKE is lost and the rest arrives in any order; then calm, every hour. In the calm all
//! pairs are protected by one pair of SAs, no table has grown, and hosts say no more than their rekeys need; and
//! in all that time no packet is lost or clear but those between hosts that were cut off or down.
//!
//! `HOSTSEAL_SOAK_HOURS` and `HOSTSEAL_SOAK_HOSTS` make it as long and as large as wanted, `HOSTSEAL_SOAK_PEERS`
//! has each host list so many others only, `HOSTSEAL_SOAK_SEED` repeats a run.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::cluster::{MINUTE, SECOND};
use super::net::Weather;
use super::world::World;

/// How much of each hour is calm.
const CALM: Duration = Duration::from_secs(15 * 60);
/// Packets a second, on ways that are drawn refreshed every second.
const PACKETS: usize = 50;
/// How long a host may take until all its pairs are protected again after a reboot.
const RECOVERY: Duration = Duration::from_secs(120);
/// The share of the hosts that a mishap befalls: one of so many.
const BEFALLEN: usize = 50;
/// IKE datagrams of a pair in a minute of the calm, at most. A rekey takes ten, and where packets go one way only
/// ESP is proven anew now and then; what goes on trying says something every few seconds.
const TALK: f64 = 5.0;
/// How long it may take until a host in the calm is seen while nothing of it is being rekeyed.
const AT_REST: Duration = Duration::from_secs(5 * 60);

/// What happens now and then.
#[derive(Debug, Clone, Copy)]
enum Mishap {
    /// The agent dies, and comes again after a while.
    Kill,
    /// The agent ends, and comes again after a while.
    Stop,
    /// The host loses its kernel's tables; the agent is there as soon as the network.
    Reboot,
    /// Some hosts see nothing of the others.
    Partition,
    /// Much of IKE is lost, repeated and late.
    Weather,
    /// Somebody removes the SAs of a host.
    Flush,
}

impl Mishap {
    /// Whether it befalls the network and not single hosts.
    fn is_of_all(self) -> bool {
        matches!(self, Mishap::Partition | Mishap::Weather)
    }
}

const MISHAPS: [Mishap; 6] =
    [Mishap::Kill, Mishap::Stop, Mishap::Reboot, Mishap::Partition, Mishap::Weather, Mishap::Flush];

struct Soak {
    world: World,
    /// When an agent that ended comes again.
    starts: BTreeMap<usize, Instant>,
    /// Hosts whose SAs are gone: until they are protected again packets to and from them are lost.
    recovering: BTreeMap<usize, Instant>,
    healed_at: Option<Instant>,
    fair_at: Option<Instant>,
    mishaps: u64,
    /// IKE datagrams of a pair in a minute of the calm.
    talk: f64,
}

impl Soak {
    fn new(hosts: usize, peers: usize, seed: u64) -> Self {
        let mut world = World::new(hosts, seed, Weather::ROUGH);
        if peers < hosts - 1 {
            world.thin_out(peers);
        }
        (0..hosts).for_each(|host| world.enable(host));
        assert!(world.run_until(2 * MINUTE, World::all_protected), "seed {seed}: not all protected");
        world.run(10 * SECOND, None);
        world.tally.clear();
        Self {
            world,
            starts: BTreeMap::new(),
            recovering: BTreeMap::new(),
            healed_at: None,
            fair_at: None,
            mishaps: 0,
            talk: 0.0,
        }
    }

    /// An hour, the end of it calm.
    fn hour(&mut self) {
        let start = self.world.now;
        let mut next = start;
        self.clear_up();
        while self.world.now < start + 60 * MINUTE - CALM {
            if self.world.now >= next {
                next = self.world.now + self.world.rng.random_range(30 * SECOND..5 * MINUTE);
                let kind = MISHAPS[self.world.rng.random_range(0..MISHAPS.len())];
                let befallen = if kind.is_of_all() { 1 } else { self.world.hosts.len().div_ceil(BEFALLEN) };
                (0..befallen).for_each(|_| self.mishap(kind));
            }
            self.second();
        }
        self.calm_down();
        // What was held up has been made up for by then.
        while self.world.now < start + 60 * MINUTE - CALM / 2 {
            self.second();
        }
        let before = self.world.net.ike_sent;
        while self.world.now < start + 60 * MINUTE {
            self.second();
        }
        let said = (self.world.net.ike_sent - before) as f64;
        let pairs = (self.world.ways().len() / 2) as f64;
        self.talk = said / pairs / (CALM / 2).as_secs_f64() * 60.0;
    }

    fn mishap(&mut self, kind: Mishap) {
        let hosts = self.world.hosts.len();
        let at = self.world.rng.random_range(0..hosts);
        let while_ = self.world.rng.random_range(SECOND..5 * MINUTE);
        let end = self.world.now + while_;
        if self.starts.contains_key(&at) {
            return;
        }
        self.mishaps += 1;
        match kind {
            Mishap::Kill => {
                self.world.kill(at);
                self.starts.insert(at, end);
            }
            Mishap::Stop => {
                self.world.stop(at);
                self.starts.insert(at, end);
            }
            Mishap::Reboot => {
                self.world.reboot(at);
                self.world.start(at);
                self.recovering.insert(at, self.world.now);
            }
            Mishap::Flush => {
                self.world.flush_sas(at);
                self.recovering.insert(at, self.world.now);
            }
            Mishap::Partition => {
                let side: Vec<bool> = (0..hosts).map(|_| self.world.rng.random_bool(0.3)).collect();
                let address = |at: usize| self.world.hosts[at].address;
                let cut = self.world.ways().into_iter().filter(|(a, b)| side[*a] != side[*b]);
                self.world.net.cut = cut.map(|(a, b)| (address(a), address(b))).collect();
                self.healed_at = Some(end);
            }
            Mishap::Weather => {
                self.world.net.weather = Weather::FOUL;
                self.fair_at = Some(end);
            }
        }
    }

    /// A second with packets.
    fn second(&mut self) {
        let now = self.world.now;
        let due: Vec<usize> =
            self.starts.iter().filter(|(_, at)| **at <= now).map(|(host, _)| *host).collect();
        for host in due {
            self.starts.remove(&host);
            self.world.start(host);
        }
        if self.healed_at.is_some_and(|at| at <= now) {
            self.heal();
        }
        if self.fair_at.is_some_and(|at| at <= now) {
            self.clear_up();
        }
        self.note_recoveries();
        let hosts = self.world.hosts.len();
        let mut ways = Vec::new();
        while ways.len() < PACKETS {
            let from = self.world.rng.random_range(0..hosts);
            let peers: Vec<usize> = self.world.peers(from).collect();
            let to = peers[self.world.rng.random_range(0..peers.len())];
            if ![from, to].iter().any(|host| self.recovering.contains_key(host)) {
                ways.push((from, to));
            } else if self.recovering.len() + 1 >= hosts {
                break;
            }
        }
        self.world.run(SECOND, Some((2 * SECOND, &ways)));
    }

    /// Only a host whose agent runs and that nothing cuts off can be asked to be back in time.
    fn note_recoveries(&mut self) {
        let disturbed = !self.starts.is_empty() || self.healed_at.is_some() || self.fair_at.is_some();
        let world = &self.world;
        let protected = |host: usize| {
            world.peers(host).all(|other| world.is_single(host, other) && world.is_single(other, host))
        };
        let now = world.now;
        for (host, since) in &mut self.recovering {
            if disturbed {
                *since = now;
            }
            assert!(now < *since + RECOVERY, "host {host} does not recover");
        }
        self.recovering.retain(|host, _| !protected(*host));
    }

    fn heal(&mut self) {
        self.world.net.cut.clear();
        self.healed_at = None;
    }

    fn clear_up(&mut self) {
        self.world.net.weather = Weather::ROUGH;
        self.fair_at = None;
    }

    fn calm_down(&mut self) {
        self.heal();
        self.clear_up();
        self.world.net.weather = Weather::FAIR;
        for host in std::mem::take(&mut self.starts).into_keys() {
            self.world.start(host);
        }
    }

    /// Everything is as it was when the cluster was new.
    fn check(&mut self) {
        let total = self.world.total();
        assert_eq!((total.lost, total.clear, total.leaked), (0, 0, 0), "{total:?}");
        assert!(self.world.all_protected(), "not all are protected");
        assert!(self.recovering.is_empty(), "{:?}", self.recovering);
        assert!(self.talk < TALK, "{} datagrams of a pair in a minute of the calm", self.talk);
        // In a large cluster some pair is always being rekeyed: each host is looked at until it is at rest.
        let mut busy: Vec<usize> = (0..self.world.hosts.len()).collect();
        let end = self.world.now + AT_REST;
        while self.world.now < end && !busy.is_empty() {
            self.second();
            busy.retain(|host| self.held(*host) != self.held_at_rest(*host));
        }
        let held: Vec<_> =
            busy.iter().map(|host| (host, self.held_at_rest(*host), self.held(*host))).collect();
        assert!(held.is_empty(), "at rest, but {held:?}");
    }

    /// SAs and policies in the kernel; keys, SAs that count, sessions, half open ones in the agent.
    fn held(&self, host: usize) -> [usize; 6] {
        let host = &self.world.hosts[host];
        let [keys, counting, sessions, half_open] = host.core().expect("an agent runs").sizes();
        let state = &host.kernel.state;
        [state.sas.len(), state.policies.len(), keys, counting, sessions, half_open]
    }

    fn held_at_rest(&self, host: usize) -> [usize; 6] {
        let peers = self.world.peers(host).count();
        // In, out and forward: the guard has no address to name.
        [2 * peers, 3 * peers, 0, 2 * peers, peers, 0]
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(format!("HOSTSEAL_SOAK_{name}")).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("HOSTSEAL_SOAK_{name} is `{text}` and no number")))
}

/// Says how to repeat a run that fails.
struct Repeat {
    hours: u64,
    hosts: usize,
    peers: usize,
    seed: u64,
}

impl Drop for Repeat {
    fn drop(&mut self) {
        let Self { hours, hosts, peers, seed } = self;
        if std::thread::panicking() {
            println!(
                "to repeat it: cargo lab soak --virtual {hours}h --hosts {hosts} --peers {peers} --seed {seed}"
            );
        }
    }
}

#[test]
fn hours_of_mishaps_leave_no_trace() {
    let hours = setting("HOURS").unwrap_or(2);
    let hosts = setting("HOSTS").unwrap_or(6) as usize;
    let peers = setting("PEERS").map_or(hosts - 1, |peers| peers as usize);
    let seed = setting("SEED").unwrap_or(1);
    println!("{hosts} hosts with {peers} peers each, {hours} hours, seed {seed}");
    let _repeat = Repeat { hours, hosts, peers, seed };
    let mut soak = Soak::new(hosts, peers, seed);
    for hour in 1..=hours {
        soak.hour();
        let total = soak.world.total();
        println!(
            "hour {hour}: {} mishaps, {} packets, {} lost, {} clear; {:.2} datagrams of a pair in a minute of the calm",
            soak.mishaps, total.sent, total.lost, total.clear, soak.talk
        );
        soak.check();
    }
}
