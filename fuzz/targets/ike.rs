//! Two IKE engines and a network between them that does what the input says: delivers, loses, repeats,
//! garbles and forges datagrams, lets time pass, and asks for rekeys and deletes in between.

#![no_main]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use hostseal::ike::{Engine, Entropy, Event, Posture, Settings, Transmit};
use hostseal::model::config::Method;
use hostseal::model::{IkeProposal, Pair, Proposals, Secret, Spi};
use libfuzzer_sys::fuzz_target;

/// More sessions of one pair than this means that a bound does not hold: established and half open ones.
const SESSIONS: u64 = 8 + 16;
/// Datagrams on their way; more are lost.
const FLYING: usize = 256;

/// What happens next.
#[derive(Arbitrary, Debug)]
enum Step {
    /// The oldest datagram arrives.
    Deliver,
    /// It is lost.
    Lose,
    /// It arrives, and will again.
    Repeat,
    /// A datagram behind it overtakes it.
    Overtake,
    /// A byte of it is changed.
    Garble { at: u16, by: u8 },
    /// It arrives cut short.
    Truncate { at: u16 },
    /// Something arrives that nobody sent; with SPIs that were seen last or its own.
    Forge { to: bool, spis: bool, bytes: Vec<u8> },
    /// Time passes until somebody's deadline.
    Wait,
    /// Milliseconds pass.
    Pass { milliseconds: u16 },
    /// An end asks for something.
    Ask { of: bool, what: Wish },
}

/// What an end can be asked for.
#[derive(Arbitrary, Debug)]
enum Wish {
    RekeyChild,
    DeleteChild,
    Settle,
    RekeyIke,
    CheckLiveness,
    Forget,
    Keep,
}

/// Numbers that are as good as random and the same every time (splitmix64).
struct Seeded(u64);

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            *byte = (mixed.wrapping_mul(0x94d0_49bb_1331_11eb) >> 56) as u8;
        }
    }
}

struct End {
    engine: Engine,
    pair: Pair,
    children: Vec<Spi>,
}

struct World {
    now: Instant,
    ends: [End; 2],
    flying: VecDeque<Transmit>,
    last: Vec<u8>,
}

/// What the ends may list: everything, and single suites that differ. The same byte chooses the method of
/// keying, and whether the other one is accepted too.
const LISTS: [&[&str]; 5] = [
    &["aes256gcm16-prfsha384-x25519-ke1_mlkem768", "aes256gcm16-prfsha384-x25519"],
    &["aes256gcm16-prfsha384-x25519-ecp256", "aes256-sha256-ecp384"],
    &["aes256-sha256-ecp384"],
    &["aes128gcm16-prfsha256-ecp256"],
    &["aes256gcm16-prfsha384-ecp256-x25519"],
];

/// One of the lists.
fn listed(choice: u8) -> Proposals<IkeProposal> {
    let list = LISTS[usize::from(choice) % LISTS.len()];
    Proposals::new(list.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
}

impl End {
    fn new(local: IpAddr, remote: IpAddr, seed: u64, choice: u8) -> Self {
        let method = Method::ALL[usize::from(choice) / LISTS.len() % 2];
        let settings = Settings {
            credentials: Arc::default(),
            secret: Some(Arc::new(Secret::new([7; 32]))),
            previous: None,
            cluster: "fuzzed".to_owned(),
            method,
            accept: if choice < 128 { vec![method] } else { Method::ALL.to_vec() },
            port: 500,
            nat_port: 4500,
            encapsulation: hostseal::model::EncapsulationMode::Auto,
            ike_proposals: listed(choice),
            esp_proposals: Proposals::default(),
            rekey_after: Duration::from_secs(60),
            initial_contact: false,
            jitter: Duration::ZERO,
        };
        let engine = Engine::new(settings, Box::new(Seeded(seed)));
        Self { engine, pair: Pair { local, remote }, children: Vec::new() }
    }

    /// Takes what happened, and says yes to every child.
    fn events(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::ChildAgreed(child, ..) => {
                    self.children.push(child.in_spi);
                    self.engine.child_installed(now, child.pair, child.in_spi, true);
                }
                Event::ChildClosed { in_spi, .. } => self.children.retain(|spi| *spi != in_spi),
                _ => {}
            }
        }
        let sessions = self.engine.counters().sessions;
        assert!(sessions <= SESSIONS, "{sessions} sessions of one pair");
    }

    fn ask(&mut self, now: Instant, what: &Wish) {
        let (engine, pair) = (&mut self.engine, self.pair);
        match (what, self.children.last()) {
            (Wish::RekeyChild, Some(child)) => engine.rekey_child(now, pair, *child),
            (Wish::DeleteChild, Some(child)) => engine.delete_child(now, pair, *child),
            (Wish::Settle, Some(child)) => engine.settled(now, pair, *child),
            (Wish::RekeyIke, _) => engine.rekey_ike(now, pair),
            (Wish::CheckLiveness, _) => engine.check_liveness(now, pair),
            (Wish::Forget, _) => engine.forget(now, pair),
            (Wish::Keep, _) => engine.keep(now, pair, Posture::Active),
            (_, None) => {}
        }
    }
}

impl World {
    fn new(choices: [u8; 2]) -> Self {
        let [a, b] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 99, 0, last)));
        let ends = [End::new(a, b, 1, choices[0]), End::new(b, a, 2, choices[1])];
        let mut world = Self { now: Instant::now(), ends, flying: VecDeque::new(), last: Vec::new() };
        for end in &mut world.ends {
            end.engine.keep(world.now, end.pair, Posture::Active);
        }
        world.drain();
        world
    }

    fn drain(&mut self) {
        for end in &mut self.ends {
            end.events(self.now);
            while let Some(datagram) = end.engine.poll_transmit() {
                self.last.clone_from(&datagram.bytes);
                self.flying.push_back(datagram);
            }
        }
        self.flying.truncate(FLYING);
    }

    fn arrive(&mut self, datagram: &Transmit) {
        for end in self.ends.iter_mut().filter(|end| end.pair.local == datagram.remote.ip()) {
            end.engine.handle_datagram(self.now, datagram.remote, datagram.local, &datagram.bytes);
        }
    }

    fn forge(&mut self, to: bool, spis: bool, mut bytes: Vec<u8>) {
        if let (true, Some(own), Some(seen)) = (spis, bytes.get_mut(..16), self.last.get(..16)) {
            own.copy_from_slice(seen);
        }
        let pair = self.ends[usize::from(to)].pair;
        let [local, remote] = [pair.remote, pair.local].map(|address| SocketAddr::new(address, 500));
        self.arrive(&Transmit { local, remote, bytes });
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for end in &mut self.ends {
            if end.engine.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                end.engine.handle_timeout(self.now);
            }
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Forge { to, spis, bytes } => self.forge(to, spis, bytes),
            Step::Wait => {
                let deadlines = self.ends.iter().filter_map(|end| end.engine.poll_timeout());
                let next = deadlines.map(|(at, _)| at).min().unwrap_or(self.now);
                self.pass(next.saturating_duration_since(self.now));
            }
            Step::Pass { milliseconds } => self.pass(Duration::from_millis(milliseconds.into())),
            Step::Ask { of, what } => self.ends[usize::from(of)].ask(self.now, &what),
            _ => {
                let at = usize::from(matches!(step, Step::Overtake) && self.flying.len() > 1);
                let Some(mut datagram) = self.flying.remove(at) else { return };
                match step {
                    Step::Lose => return,
                    Step::Repeat => self.flying.push_back(datagram.clone()),
                    Step::Garble { at, by } => {
                        let at = usize::from(at) % datagram.bytes.len().max(1);
                        datagram.bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= by);
                    }
                    Step::Truncate { at } => datagram.bytes.truncate(at.into()),
                    _ => {}
                }
                self.arrive(&datagram);
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok(choices) = <[u8; 2]>::arbitrary(&mut input) else { return };
    let mut world = World::new(choices);
    while !input.is_empty() {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        world.step(step);
        world.drain();
    }
});
