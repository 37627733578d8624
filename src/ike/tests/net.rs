//! Hosts with engines, agents that do what a kernel would, and a seeded network between them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::identity::{PublicKey, Secret};
use crate::ike::reason::Reason;
use crate::ike::{
    ControlEvent, Engine, Entropy, Event, FailureCode, Octets, Posture, Purpose, SessionKey, Settings, Topic,
    Transmit,
};
use crate::observe::explain;
use crate::types::{
    EncapsulationMode, IkeProposal, Inside, Method, NewChild, NewInbound, Pair, Proposals, Spi,
};

/// SplitMix64.
#[derive(Clone)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit.max(1)
    }

    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Entropy for Dice {
    fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let roll = self.roll().to_be_bytes();
            chunk.copy_from_slice(&roll[..chunk.len()]);
        }
    }
}

/// Seeds to try: `count`, or `$HOSTSEAL_SEEDS` times as many.
pub(super) fn seeds(count: u64) -> std::ops::Range<u64> {
    let times = std::env::var("HOSTSEAL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    0..count * times
}

/// How bad the network is.
#[derive(Clone, Copy, Default)]
pub(super) struct Weather {
    /// Percent of datagrams lost.
    pub(super) loss: u64,
    /// Percent delivered twice.
    pub(super) duplication: u64,
    /// Milliseconds of delay at most, on top of one; datagrams overtake each other.
    pub(super) delay: u64,
}

/// Octets that are the same whenever they are told.
pub(super) fn octets(text: &str) -> Octets {
    let bytes = text.as_bytes().to_vec();
    Arc::new(move |_| bytes.clone())
}

pub(super) const SECRET: [u8; 32] = [7; 32];
/// What nobody is told of it, however it is written: in hexadecimal, in base64, as Rust prints bytes.
const LEAKS: [&str; 3] = ["07070707", "BwcHBwcH", "7, 7, 7, 7"];

/// Everything without an additional key exchange.
pub(super) fn classical() -> Proposals<IkeProposal> {
    let all = Proposals::<IkeProposal>::default();
    Proposals::new(all.iter().filter(|it| it.additional.is_empty()).cloned().collect()).unwrap()
}

pub(super) fn settings(secret: [u8; 32]) -> Settings {
    Settings {
        credentials: Arc::default(),
        secret: Some(Arc::new(Secret::new(secret))),
        previous: None,
        cluster: "test".to_owned(),
        inside: Inside::default(),
        method: Method::Ike,
        accept: vec![Method::Ike],
        port: 500,
        nat_port: 4500,
        encapsulation: EncapsulationMode::Auto,
        ike_proposals: classical(),
        esp_proposals: Proposals::default(),
        rekey_after: Duration::from_secs(3600),
        initial_contact: false,
        jitter: Duration::ZERO,
        about: Arc::default(),
        first: |token, _| token.to_vec(),
        control: None,
    }
}

/// The same, with keys made by `method` alone.
pub(super) fn by(method: Method, secret: [u8; 32]) -> Settings {
    Settings { method, accept: vec![method], ..settings(secret) }
}

/// Makes two tests of each function, which takes the method that keys are made by.
macro_rules! by_each_method {
    ($($name:ident),+ $(,)?) => {
        mod by_ike {
            $(#[test] fn $name() { super::$name(crate::types::Method::Ike) })+
        }
        mod by_derived {
            $(#[test] fn $name() { super::$name(crate::types::Method::Derived) })+
        }
    };
}
pub(super) use by_each_method;

/// What an agent means to do.
#[derive(Clone, Copy)]
enum Chore {
    Delete(Pair, Spi),
    Settle(Pair, Spi),
}

/// A child as the kernel has it.
pub(super) struct Installed {
    pub(super) child: Box<NewChild>,
    pub(super) replaced: bool,
    /// The peer has said that it has installed it.
    heard: bool,
}

/// Says whether who has that mark is admitted, or leaves it waiting.
pub(super) type Judge = Box<dyn Fn(&[u8]) -> Option<bool>>;

/// Who has proven itself on a control IKE SA.
#[derive(Debug, Clone)]
pub(super) struct Introduced {
    pub(super) pair: Pair,
    pub(super) purpose: Purpose,
    pub(super) session: SessionKey,
    pub(super) key: PublicKey,
    pub(super) mark: Vec<u8>,
}

/// One host.
pub(super) struct Host {
    pub(super) engine: Engine,
    pub(super) address: IpAddr,
    pub(super) children: BTreeMap<Spi, Installed>,
    /// Inbound SAs that are there before their children are agreed.
    pub(super) ahead: BTreeMap<Spi, Box<NewInbound>>,
    pub(super) failures: Vec<FailureCode>,
    /// What happened, for tests to compare.
    pub(super) log: Vec<String>,
    /// What peers told of children.
    pub(super) words: Vec<(Spi, Vec<u8>)>,
    /// What peers told of themselves.
    pub(super) told: Vec<Vec<u8>>,
    /// What peers told on control IKE SAs.
    pub(super) said: Vec<Vec<u8>>,
    /// Who has proven itself on them.
    pub(super) introduced: Vec<Introduced>,
    /// Whether who says that mark is admitted; `None`: it is left waiting.
    pub(super) admits: Judge,
    /// Why they failed.
    pub(super) reasons: Vec<Reason>,
    /// How often none stood any more.
    pub(super) ended: usize,
    /// How often a peer had what it was told.
    pub(super) heard: usize,
    /// Answers "installed" with "seen".
    pub(super) answers: bool,
    /// Refuses this many children.
    pub(super) kernel_refuses: u32,
    pub(super) settles: bool,
    chores: Vec<(Instant, Chore)>,
}

/// All of them.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) hosts: Vec<Host>,
    pub(super) weather: Weather,
    /// Datagrams for which this says true are lost.
    pub(super) cut: Box<dyn Fn(&Transmit) -> bool>,
    /// What a middlebox makes of the addresses of datagrams.
    pub(super) middlebox: Box<dyn Fn(Transmit) -> Transmit>,
    /// Every datagram sent.
    pub(super) sent: Vec<Transmit>,
    dice: Dice,
    seed: u64,
    wire: BTreeMap<(Instant, u64), Transmit>,
    count: u64,
}

impl Drop for Net {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("seed {}", self.seed);
            for host in &self.hosts {
                println!("{}: {:#?}", host.address, host.log);
            }
        }
    }
}

pub(super) fn address(host: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(host + 1).unwrap()))
}

/// The pair of two hosts as the first one sees it.
pub(super) fn pair(host: usize, other: usize) -> Pair {
    Pair::new(address(host), address(other)).unwrap()
}

impl Net {
    /// Hosts 0, 1, … with these settings.
    pub(super) fn new(seed: u64, settings: impl IntoIterator<Item = Settings>) -> Self {
        let mut net = Self {
            now: Instant::now(),
            hosts: Vec::new(),
            weather: Weather::default(),
            cut: Box::new(|_| false),
            middlebox: Box::new(|transmit| transmit),
            sent: Vec::new(),
            dice: Dice(seed),
            seed,
            wire: BTreeMap::new(),
            count: 0,
        };
        for (at, settings) in settings.into_iter().enumerate() {
            let host = net.host(at, settings);
            net.hosts.push(host);
        }
        net
    }

    /// Two hosts that share a secret.
    pub(super) fn two(seed: u64) -> Self {
        Self::two_by(Method::Ike, seed)
    }

    /// Two hosts that share a secret and make keys by `method`.
    pub(super) fn two_by(method: Method, seed: u64) -> Self {
        Self::new(seed, [by(method, SECRET), by(method, SECRET)])
    }

    fn host(&mut self, at: usize, settings: Settings) -> Host {
        Host {
            engine: Engine::new(settings, Box::new(Dice(self.dice.roll()))),
            address: address(at),
            children: BTreeMap::new(),
            ahead: BTreeMap::new(),
            failures: Vec::new(),
            log: Vec::new(),
            words: Vec::new(),
            told: Vec::new(),
            said: Vec::new(),
            introduced: Vec::new(),
            admits: Box::new(|_| Some(true)),
            reasons: Vec::new(),
            ended: 0,
            heard: 0,
            kernel_refuses: 0,
            settles: true,
            answers: true,
            chores: Vec::new(),
        }
    }

    /// The agent of a host dies and starts anew, knowing nothing.
    pub(super) fn restart(&mut self, at: usize, settings: Settings) {
        self.hosts[at] = self.host(at, settings);
    }

    /// Both ends keep their pair.
    pub(super) fn keep(&mut self, a: usize, b: usize) {
        for (host, other) in [(a, b), (b, a)] {
            let now = self.now;
            self.hosts[host].engine.keep(now, pair(host, other), Posture::Active);
        }
        self.drain();
    }

    /// Calls an engine and drains it.
    pub(super) fn call(&mut self, host: usize, call: impl FnOnce(&mut Engine, Instant)) {
        call(&mut self.hosts[host].engine, self.now);
        self.drain();
    }

    /// Lets all hosts act on their events and sends what they have to send.
    pub(super) fn drain(&mut self) {
        for at in 0..self.hosts.len() {
            while let Some(event) = self.hosts[at].engine.poll_event() {
                self.hosts[at].act(self.now, event);
            }
            while let Some(transmit) = self.hosts[at].engine.poll_transmit() {
                self.carry(transmit);
            }
            assert!(self.hosts[at].engine.poll_event().is_none(), "flushing makes no events");
        }
    }

    fn carry(&mut self, transmit: Transmit) {
        self.sent.push(transmit.clone());
        if (self.cut)(&transmit) || self.dice.percent(self.weather.loss) {
            return;
        }
        let transmit = (self.middlebox)(transmit);
        let copies = 1 + u64::from(self.dice.percent(self.weather.duplication));
        for _ in 0..copies {
            let delay = Duration::from_micros(1000 + self.dice.below(1000 * self.weather.delay + 1));
            self.count += 1;
            self.wire.insert((self.now + delay, self.count), transmit.clone());
        }
    }

    /// The first message of host 0, and what host 1 answers. From now on nothing arrives.
    pub(super) fn hold_first_answer(&mut self) -> (Transmit, Transmit) {
        self.cut = Box::new(|_| true);
        self.hosts[1].engine.keep(self.now, pair(1, 0), Posture::Passive);
        self.hosts[0].engine.keep(self.now, pair(0, 1), Posture::Active);
        self.run(Duration::ZERO);
        let request = self.sent.last().unwrap().clone();
        self.inject(&request);
        let answer = self.sent.last().unwrap().clone();
        assert_eq!(answer.remote, Self::socket(0));
        (request, answer)
    }

    /// Delivers `transmit` at once, whoever made it.
    pub(super) fn inject(&mut self, transmit: &Transmit) {
        for host in &mut self.hosts {
            if host.address == transmit.remote.ip() {
                host.engine.handle_datagram(self.now, transmit.remote, transmit.local, &transmit.bytes);
            }
        }
        self.drain();
    }

    /// Delivers `recorded` 20,000 times with one octet changed, by chance from `seed`: the child that there is stays.
    pub(super) fn endure_flips(&mut self, recorded: &[Transmit], seed: u64) {
        let child = self.child_of(0);
        let mut dice = Dice(seed);
        for _ in 0..20_000 {
            let mut transmit = recorded[usize::try_from(dice.below(recorded.len() as u64)).unwrap()].clone();
            let at = usize::try_from(dice.below(transmit.bytes.len() as u64)).unwrap();
            transmit.bytes[at] ^= dice.roll().to_be_bytes()[0];
            self.inject(&transmit);
            self.sent.clear();
        }
        self.run(Duration::from_secs(30));
        self.assert_one_pair(0, 1);
        assert_eq!(self.child_of(0), child);
    }

    fn next(&self) -> Option<Instant> {
        let wire = self.wire.keys().next().map(|(at, _)| *at);
        let hosts = self.hosts.iter().flat_map(|host| {
            let chores = host.chores.iter().map(|(at, _)| *at);
            chores.chain(host.engine.poll_timeout().map(|(at, _)| at))
        });
        wire.into_iter().chain(hosts).min()
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_until(time, |_| false);
        self.now = end;
    }

    /// Lets time pass until `done`, at most `time`. Says whether it was.
    pub(super) fn run_until(&mut self, time: Duration, done: impl Fn(&Net) -> bool) -> bool {
        let end = self.now + time;
        loop {
            if done(self) {
                return true;
            }
            let Some(next) = self.next().filter(|next| *next <= end) else { return false };
            self.now = self.now.max(next);
            while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let transmit = entry.remove();
                self.inject(&transmit);
            }
            let now = self.now;
            for host in &mut self.hosts {
                host.do_chores(now);
                if host.engine.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    host.engine.handle_timeout(now);
                }
            }
            self.drain();
        }
    }

    /// Both ends have exactly one child, the same, with the keys crosswise, and one IKE SA.
    pub(super) fn assert_one_pair(&self, a: usize, b: usize) {
        let ends = [(a, b), (b, a)].map(|(host, other)| {
            let mut children =
                self.hosts[host].children.values().filter(|it| it.child.pair == pair(host, other));
            let child = children.next().expect("there is a child");
            assert!(children.next().is_none(), "host {host} has one child only");
            let summary = self.hosts[host].engine.summary(pair(host, other)).unwrap();
            assert_eq!(
                (summary.established, summary.sessions, summary.children),
                (true, 1, 1),
                "host {host}"
            );
            &child.child
        });
        let [x, y] = ends;
        assert_mirrored(x, y);
    }

    /// Whether [`Net::assert_one_pair`] would hold.
    pub(super) fn is_one_pair(&self, a: usize, b: usize) -> bool {
        [(a, b), (b, a)].into_iter().all(|(host, other)| {
            let summary = self.hosts[host].engine.summary(pair(host, other)).unwrap();
            (summary.sessions, summary.children) == (1, 1) && self.hosts[host].children.len() == 1
        })
    }

    /// The only child of a host.
    pub(super) fn child_of(&self, host: usize) -> Spi {
        assert_eq!(self.hosts[host].children.len(), 1, "host {host}");
        *self.hosts[host].children.keys().next().unwrap()
    }

    pub(super) fn socket(host: usize) -> SocketAddr {
        SocketAddr::new(address(host), 500)
    }
}

pub(super) fn assert_mirrored(x: &NewChild, y: &NewChild) {
    assert_eq!((x.in_spi, x.out_spi), (y.out_spi, y.in_spi));
    assert_eq!(x.suite, y.suite);
    assert_ne!(x.initiator, y.initiator);
    assert!(x.in_key.expose() == y.out_key.expose() && x.out_key.expose() == y.in_key.expose());
    assert!(x.in_key.expose() != x.out_key.expose());
    assert_eq!(x.in_key.expose().len(), usize::from(x.suite.key_bits / 8) + 4);
}

impl Host {
    fn act(&mut self, now: Instant, event: Event) {
        self.log.push(format!("{event:?}"));
        match event {
            Event::ChildAgreed { child, token, told, replaces } => {
                let (pair, in_spi) = (child.pair, child.in_spi);
                if let Some(ahead) = self.ahead.remove(&in_spi) {
                    assert!(ahead.key.expose() == child.in_key.expose() && ahead.suite == child.suite);
                }
                let ok = self.kernel_refuses == 0;
                self.kernel_refuses = self.kernel_refuses.saturating_sub(1);
                if ok {
                    self.install(now, child, replaces);
                }
                self.engine.child_installed(now, pair, in_spi, ok);
                self.engine.tell(now, pair, Topic::Child(in_spi), octets("installed"));
                if let Some(told) = told.filter(|told| told.len() != token.len()) {
                    self.hear(now, pair, in_spi, told);
                }
            }
            Event::InboundAhead(inbound) => drop(self.ahead.insert(inbound.spi, inbound)),
            Event::ForeignReady { pair, in_spi } => self.chores.push((now, Chore::Settle(pair, in_spi))),
            Event::ChildDoomed { .. } => {}
            Event::ChildClosed { in_spi, .. } => {
                self.children.remove(&in_spi);
                self.ahead.remove(&in_spi);
            }
            Event::Told { topic: Topic::Session, octets, .. } => self.told.push(octets),
            Event::Control { pair, purpose, event } => self.act_on_control(now, pair, purpose, event),
            Event::Told { topic: Topic::Child(in_spi), pair, octets } => {
                self.hear(now, pair, in_spi, octets);
            }
            Event::Told { octets, .. } => self.said.push(octets),
            Event::Failed { failure, .. } => {
                let words = explain::words(&failure.reason);
                assert!(!LEAKS.iter().any(|leak| words.contains(leak)), "{words}");
                self.log.push(words);
                self.failures.push(failure.code());
            }
        }
    }

    fn act_on_control(&mut self, now: Instant, pair: Pair, purpose: Purpose, event: ControlEvent) {
        match event {
            ControlEvent::Introduced { session, key, mark } => {
                let admits = (self.admits)(&mark);
                self.introduced.push(Introduced { pair, purpose, session, key, mark });
                match admits {
                    Some(true) => self.engine.admit(now, session),
                    Some(false) => self.engine.refuse(now, session),
                    None => {}
                }
            }
            ControlEvent::Heard => self.heard += 1,
            ControlEvent::Ended => self.ended += 1,
            ControlEvent::Failed { failure, .. } => {
                self.log.push(explain::words(&failure.reason));
                self.reasons.push(failure.reason);
            }
        }
    }

    fn install(&mut self, now: Instant, child: Box<NewChild>, replaces: Option<Spi>) {
        if let Some(old) = replaces.and_then(|spi| self.children.get_mut(&spi)) {
            old.replaced = true;
            if child.initiator {
                let delete = Chore::Delete(child.pair, old.child.in_spi);
                self.chores.push((now + Duration::from_millis(1200), delete));
            }
        }
        let before = self.children.insert(child.in_spi, Installed { child, replaced: false, heard: false });
        assert!(before.is_none(), "no SPI twice");
    }

    fn hear(&mut self, now: Instant, pair: Pair, in_spi: Spi, told: Vec<u8>) {
        self.words.push((in_spi, told));
        if let Some(child) = self.children.get_mut(&in_spi).filter(|it| !it.heard) {
            child.heard = true;
            if self.answers {
                self.engine.tell(now, pair, Topic::Child(in_spi), octets("seen"));
            }
            self.chores.push((now + Duration::from_millis(50), Chore::Settle(pair, in_spi)));
        }
    }

    fn do_chores(&mut self, now: Instant) {
        let (due, later) = std::mem::take(&mut self.chores).into_iter().partition(|(at, _)| *at <= now);
        self.chores = later;
        let due: Vec<(Instant, Chore)> = due;
        for (_, chore) in due {
            match chore {
                Chore::Delete(pair, in_spi) => self.engine.delete_child(now, pair, in_spi),
                Chore::Settle(pair, in_spi) if self.settles => self.engine.settled(now, pair, in_spi),
                Chore::Settle(..) => {}
            }
        }
    }
}
