//! Two IKE engines and what lies between them, which does what the input says: loses, repeats, replays, garbles
//! and forges datagrams, lets time pass, asks for rekeys and deletes, and changes what an end says before it is
//! encrypted, as if that end were not hostseal but somebody with its keys.
//!
//! Nothing panics and no table grows beyond its bound. What nobody has authenticated ends no session that is
//! there, and brings no SA about: an end that is not told that it may takes none ahead of a proof. And whatever has
//! happened, two honest ends agree on a child afterwards.
//!
//! Some ends have control IKE SAs beside those of the pair's traffic, and some have these alone: then no child comes
//! about, whatever is said.
//!
//! With `$STEPS` set, each step of the input is printed.

#![no_main]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use hostseal::identity::{Credentials, Ppk, PpkRule, PrivateKey, Secret};
use hostseal::ike::{
    ControlEvent, ControlSettings, Draft, Engine, Entropy, Event, Posture, Purpose, Settings, Topic,
    Transmit, forget_early_ppks, stop_tampering, tamper,
};
use hostseal::types::{EncapsulationMode, IkeProposal, Inside, Method, Pair, Proposals, Spi};
use libfuzzer_sys::fuzz_target;

/// More sessions of one pair than this means that a bound does not hold: established ones, those whose initiator has not
/// proven itself, an attempt, and attempts that have failed and listen on.
const SESSIONS: u64 = 8 + 16 + 1 + 4;
/// The same of control IKE SAs, whose initiators share the bound of the pair.
const CONTROL_SESSIONS: u64 = 8 + 1 + 4;
/// The same of children: of each established session and of one that is being made.
const CHILDREN: usize = (8 + 1) * 8;
/// The same of datagrams that one datagram makes an end send: an answer in fragments, and a request.
const ANSWERS: usize = 64;
/// Datagrams on their way; more are lost.
const FLYING: usize = 256;
/// How long two honest ends may take to agree on a child.
const PATIENCE: Duration = Duration::from_secs(200);

/// What happens next.
#[derive(Arbitrary, Debug)]
enum Step {
    /// The oldest datagram arrives.
    Deliver,
    /// All arrive, and what they lead to.
    Settle,
    /// It is lost.
    Lose,
    /// It arrives, and will again.
    Repeat,
    /// A datagram behind it overtakes it.
    Overtake,
    /// One that was sent before arrives once more.
    Replay { which: u8 },
    /// A copy of it arrives first, with a byte changed.
    Garble { at: u16, by: u8 },
    /// A copy of it arrives first, cut short.
    Truncate { at: u16, honest_length: bool },
    /// A copy of it arrives from another port.
    Move { port: u16 },
    /// Something arrives that nobody sent; with SPIs that were seen last or its own.
    Forge { to: bool, spis: bool, bytes: Vec<u8> },
    /// The next message that an end encrypts is changed first.
    Tamper(Vec<Edit>),
    /// Time passes until somebody's deadline.
    Wait,
    /// Milliseconds pass.
    Pass { milliseconds: u16 },
    /// An end asks for something.
    Ask { of: bool, what: Wish },
}

/// A change of what is about to be encrypted.
#[derive(Arbitrary, Debug, Clone)]
enum Edit {
    First(u8),
    Set { at: u16, to: u8 },
    Insert { at: u16, bytes: Vec<u8> },
    Cut { at: u16, octets: u8 },
    Truncate { at: u16 },
    Twice { at: u16, octets: u8 },
}

/// What an end can be asked for.
#[derive(Arbitrary, Debug)]
enum Wish {
    RekeyChild,
    DeleteChild,
    Settle,
    Tell(bool, u8),
    Hold(u16),
    RekeyIke,
    CheckLiveness,
    PathIsBack,
    Encapsulate,
    Forget,
    Keep,
    TellControl(u8),
    RekeyControl,
    CheckControl,
    EndControl,
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

/// A child as the kernel would have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Child {
    in_spi: Spi,
    out_spi: Spi,
}

struct End {
    engine: Engine,
    pair: Pair,
    children: Vec<Child>,
    /// The pair takes clear packets, and an SA ahead of a proof with them.
    takes_ahead: bool,
    /// It has control IKE SAs.
    has_control: bool,
    /// And none for the pair's traffic.
    only_control: bool,
}

struct World {
    now: Instant,
    ends: [End; 2],
    flying: VecDeque<Transmit>,
    sent: Vec<Transmit>,
    /// What is to be done to the next message that is encrypted.
    edits: Rc<RefCell<Vec<Edit>>>,
    /// Nothing was lost, asked for or changed behind the authentication.
    undisturbed: bool,
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

/// What an end has for control IKE SAs. Both ends have the same key. Some marks are refused.
fn control(local: IpAddr, remote: IpAddr, choice: u8) -> ControlSettings {
    let key = Arc::new(PrivateKey::from_pem(KEY).unwrap());
    let keys = vec![key.public().clone()];
    let members = [local, remote].into_iter().map(|address| (address, keys.clone())).collect();
    ControlSettings { key, members, invites: Vec::new(), mark: Arc::from([choice]), welcome: Arc::default() }
}

/// Some ends have a PPK, without which they go on with who has none.
fn credentials(remote: IpAddr, choice: u8) -> Credentials {
    let ppk = || Arc::new(Ppk::new("fuzzed".to_owned(), Secret::new([9; 32])));
    let rule = (choice % 3 == 0).then(|| PpkRule { keys: vec![ppk()], required: false });
    Credentials { ppks: rule.map(|rule| (remote, rule)).into_iter().collect(), ..Credentials::default() }
}

/// RFC 8410 section 10.3.
const KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

/// One of the lists.
fn listed(choice: u8) -> Proposals<IkeProposal> {
    let list = LISTS[usize::from(choice) % LISTS.len()];
    Proposals::new(list.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
}

impl Edit {
    fn apply(&self, draft: &mut Draft) {
        let text = &mut draft.text;
        let index = |at: u16| usize::from(at) % (text.len() + 1);
        let range = |at: u16, octets: u8| index(at)..(index(at) + usize::from(octets)).min(text.len());
        match self {
            Edit::First(first) => draft.first = *first,
            Edit::Set { at, to } => {
                let at = index(*at);
                text.iter_mut().skip(at).take(1).for_each(|byte| *byte = *to);
            }
            Edit::Insert { at, bytes } => drop(text.splice(index(*at)..index(*at), bytes.iter().copied())),
            Edit::Cut { at, octets } => drop(text.drain(range(*at, *octets))),
            Edit::Truncate { at } => text.truncate(index(*at)),
            Edit::Twice { at, octets } => text.extend_from_within(range(*at, *octets)),
        }
    }
}

impl End {
    fn new(local: IpAddr, remote: IpAddr, seed: u64, choice: u8, only_control: bool) -> Self {
        let has_control = only_control || choice % 8 >= 4;
        let method = Method::ALL[usize::from(choice) / LISTS.len() % 2];
        let settings = Settings {
            credentials: Arc::new(credentials(remote, choice)),
            secret: Some(Arc::new(Secret::new([7; 32]))),
            previous: None,
            cluster: "fuzzed".to_owned(),
            inside: Inside::default(),
            method,
            accept: if choice < 128 { vec![method] } else { Method::ALL.to_vec() },
            port: 500,
            nat_port: 4500,
            encapsulation: EncapsulationMode::Auto,
            ike_proposals: listed(choice),
            esp_proposals: Proposals::default(),
            rekey_after: Duration::from_secs(60),
            initial_contact: false,
            jitter: Duration::ZERO,
            about: Arc::default(),
            first: |token, _| token.to_vec(),
            control: has_control.then(|| control(local, remote, choice)),
        };
        let mut engine = Engine::new(settings, Box::new(Seeded(seed)));
        let (pair, takes_ahead) = (Pair { local, remote }, choice % 2 == 1);
        engine.allow_ahead(pair, takes_ahead);
        if choice % 4 >= 2 {
            engine.pass_for_foreign();
        }
        Self { engine, pair, children: Vec::new(), takes_ahead, has_control, only_control }
    }

    /// Takes what happened, says yes to every child, and deletes what a child of its own replaces.
    fn events(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::ChildAgreed { child, replaces, .. } => {
                    assert!(!self.only_control, "a child of a control IKE SA");
                    let (pair, in_spi, out_spi) = (child.pair, child.in_spi, child.out_spi);
                    self.children.push(Child { in_spi, out_spi });
                    self.engine.child_installed(now, pair, in_spi, true);
                    if let Some(old) = replaces.filter(|_| child.initiator) {
                        self.engine.delete_child(now, pair, old);
                    }
                }
                Event::InboundAhead(_) => {
                    assert!(self.takes_ahead && !self.only_control, "an SA before any proof");
                }
                Event::Control { event: ControlEvent::Introduced { session, mark, .. }, .. } => {
                    match mark.first() {
                        Some(mark) if mark % 16 == 5 => self.engine.refuse(now, session),
                        _ => self.engine.admit(now, session),
                    }
                }
                Event::ChildClosed { in_spi, .. } => self.children.retain(|child| child.in_spi != in_spi),
                _ => {}
            }
        }
        let sessions = self.engine.counters().sessions;
        let most = SESSIONS + if self.has_control { CONTROL_SESSIONS } else { 0 };
        assert!(sessions <= most, "{sessions} sessions of one pair");
        assert!(self.children.len() <= CHILDREN, "{} children of one pair", self.children.len());
    }

    fn has_standing_control(&self) -> bool {
        self.engine.control(self.pair, Purpose::Control).is_some_and(|control| control.sessions > 0)
    }

    fn ask(&mut self, now: Instant, what: &Wish) {
        let (engine, pair) = (&mut self.engine, self.pair);
        match (what, self.children.last().map(|child| child.in_spi)) {
            (Wish::RekeyChild, Some(child)) => engine.rekey_child(now, pair, child),
            (Wish::DeleteChild, Some(child)) => engine.delete_child(now, pair, child),
            (Wish::Settle, Some(child)) => engine.settled(now, pair, child),
            (Wish::Tell(of_child, octet), Some(child)) => {
                let (topic, octets) =
                    (if *of_child { Topic::Child(child) } else { Topic::Session }, [*octet; 4]);
                engine.tell(now, pair, topic, Arc::new(move |_| octets.to_vec()));
            }
            (Wish::Hold(milliseconds), Some(child)) => {
                let until = now + Duration::from_millis((*milliseconds).into());
                engine.hold(now, pair, child, Some(until));
            }
            (Wish::RekeyIke, _) => engine.rekey_ike(now, pair),
            (Wish::CheckLiveness, _) => engine.check_liveness(now, pair),
            (Wish::PathIsBack, _) => engine.path_is_back(now, pair),
            (Wish::Encapsulate, _) => drop(engine.encapsulate(now, pair)),
            (Wish::Forget, _) => engine.forget(now, pair),
            (Wish::Keep, _) if self.only_control => engine.keep_control(now, pair, Posture::Active),
            (Wish::Keep, _) => engine.keep(now, pair, Posture::Active),
            (Wish::TellControl(octet), _) => {
                let octets = [*octet; 4];
                engine.tell(now, pair, Topic::Control, Arc::new(move |_| octets.to_vec()));
            }
            (Wish::RekeyControl, _) => engine.rekey_control(now, pair),
            (Wish::CheckControl, _) => engine.check_control(now, pair),
            (Wish::EndControl, _) => engine.end_control(now, pair),
            (_, None) => {}
        }
    }
}

impl World {
    fn new(choices: [u8; 2]) -> Self {
        let [a, b] = [1, 2].map(|last| IpAddr::V4(Ipv4Addr::new(10, 99, 0, last)));
        let only_control = choices.iter().all(|choice| *choice >= 192);
        // Some know nothing of PPKs in IKE_INTERMEDIATE.
        forget_early_ppks([a, b].into_iter().zip(choices).filter_map(|(end, choice)| (choice % 16 >= 12).then_some(end)));
        let ends = [End::new(a, b, 1, choices[0], only_control), End::new(b, a, 2, choices[1], only_control)];
        let mut world = Self {
            now: Instant::now(),
            ends,
            flying: VecDeque::new(),
            sent: Vec::new(),
            edits: Rc::default(),
            undisturbed: true,
        };
        world.keep();
        world
    }

    fn keep(&mut self) {
        for End { engine, pair, has_control, only_control, .. } in &mut self.ends {
            if !*only_control {
                engine.keep(self.now, *pair, Posture::Active);
            }
            if *has_control {
                engine.keep_control(self.now, *pair, Posture::Active);
            }
        }
        self.drain();
    }

    /// Lets both ends act on what happened and takes what they send. Says how much that is.
    fn drain(&mut self) -> usize {
        let before = self.sent.len();
        for end in &mut self.ends {
            end.events(self.now);
            while let Some(datagram) = end.engine.poll_transmit() {
                self.sent.push(datagram.clone());
                self.flying.push_back(datagram);
            }
            end.events(self.now);
        }
        self.undisturbed &= self.flying.len() <= FLYING;
        self.flying.truncate(FLYING);
        self.sent.len() - before
    }

    fn arrive(&mut self, datagram: &Transmit) {
        for end in self.ends.iter_mut().filter(|end| end.pair.local == datagram.remote.ip()) {
            end.engine.handle_datagram(self.now, datagram.remote, datagram.local, &datagram.bytes);
        }
        let answers = self.drain();
        assert!(answers <= ANSWERS, "{answers} datagrams for one");
    }

    fn forge(&mut self, to: bool, spis: bool, mut bytes: Vec<u8>) {
        let seen = self.sent.last().and_then(|datagram| datagram.bytes.get(..16));
        if let (true, Some(own), Some(seen)) = (spis, bytes.get_mut(..16), seen) {
            own.copy_from_slice(seen);
        }
        let pair = self.ends[usize::from(to)].pair;
        let [local, remote] = [pair.remote, pair.local].map(|address| SocketAddr::new(address, 500));
        self.arrive(&Transmit { local, remote, bytes });
    }

    fn pass(&mut self, time: Duration) {
        // What is long under way is as good as lost.
        self.undisturbed &= self.flying.is_empty();
        self.now += time;
        for end in &mut self.ends {
            if end.engine.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                end.engine.handle_timeout(self.now);
            }
        }
        self.drain();
    }

    /// Until somebody's deadline.
    fn wait(&mut self) {
        let deadlines = self.ends.iter().filter_map(|end| end.engine.poll_timeout());
        let next = deadlines.map(|(at, _)| at).min().unwrap_or(self.now);
        self.pass(next.saturating_duration_since(self.now));
    }

    /// All datagrams arrive, and what they lead to, within bounds.
    fn settle(&mut self) {
        for _ in 0..FLYING {
            let Some(datagram) = self.flying.pop_front() else { return };
            self.arrive(&datagram);
        }
    }

    /// All that they have begun comes to its end.
    fn rest(&mut self) {
        let end = self.now + Duration::from_secs(10);
        while self.now < end {
            self.settle();
            self.wait();
        }
        self.settle();
    }

    fn is_mutual(&self) -> bool {
        let [a, b] = &self.ends;
        if a.only_control {
            return self.ends.iter().all(End::has_standing_control);
        }
        let mirrored = |child: &Child| Child { in_spi: child.out_spi, out_spi: child.in_spi };
        a.children.iter().any(|child| b.children.contains(&mirrored(child)))
    }

    /// Nothing is in the way of the two for a while. Says whether both have the same child then.
    fn agrees(&mut self) -> bool {
        let end = self.now + PATIENCE;
        while self.now < end && !self.is_mutual() {
            self.settle();
            if self.flying.is_empty() {
                self.wait();
            }
        }
        self.is_mutual()
    }

    fn step(&mut self, step: Step) {
        self.undisturbed &= !matches!(step, Step::Lose | Step::Tamper(_) | Step::Ask { .. });
        match step {
            Step::Settle => self.settle(),
            Step::Forge { to, spis, bytes } => self.forge(to, spis, bytes),
            Step::Tamper(edits) => *self.edits.borrow_mut() = edits,
            Step::Wait => self.wait(),
            Step::Pass { milliseconds } => self.pass(Duration::from_millis(milliseconds.into())),
            Step::Ask { of, what } => {
                self.ends[usize::from(of)].ask(self.now, &what);
                self.drain();
            }
            Step::Replay { which } => {
                let at = usize::from(which) % self.sent.len().max(1);
                if let Some(datagram) = self.sent.get(at).cloned() {
                    self.arrive(&datagram);
                }
            }
            Step::Deliver | Step::Lose | Step::Repeat | Step::Overtake => {
                let at = usize::from(matches!(step, Step::Overtake) && self.flying.len() > 1);
                let Some(datagram) = self.flying.remove(at) else { return };
                match step {
                    Step::Lose => return,
                    Step::Repeat => self.flying.push_back(datagram.clone()),
                    _ => {}
                }
                self.arrive(&datagram);
            }
            Step::Garble { .. } | Step::Truncate { .. } | Step::Move { .. } => {
                let Some(mut copy) = self.flying.front().cloned() else { return };
                spoil(&mut copy, &step);
                self.arrive(&copy);
            }
        }
    }
}

/// What becomes of a copy of a datagram.
fn spoil(copy: &mut Transmit, step: &Step) {
    match step {
        Step::Garble { at, by } => {
            let at = usize::from(*at) % copy.bytes.len().max(1);
            copy.bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= by);
        }
        Step::Truncate { at, honest_length } => {
            copy.bytes.truncate(usize::from(*at));
            let length = (copy.bytes.len() as u32).to_be_bytes();
            if let Some(said) = copy.bytes.get_mut(24..28).filter(|_| *honest_length) {
                said.copy_from_slice(&length);
            }
        }
        Step::Move { port } => copy.local.set_port(*port),
        _ => {}
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Unstructured::new(input);
    let Ok((choices, begun)) = <([u8; 2], bool)>::arbitrary(&mut input) else { return };
    let mut world = World::new(choices);
    let established = begun && world.agrees();
    if established {
        world.rest();
    }
    let edits = world.edits.clone();
    tamper(move |draft| edits.borrow_mut().drain(..).for_each(|edit| edit.apply(draft)));
    let children = world.ends.each_ref().map(|end| end.children.clone());
    let start = world.now;
    let print = std::env::var_os("STEPS").is_some();
    while !input.is_empty() {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        if print {
            eprintln!("{:?} {step:?}", world.now - start);
        }
        world.step(step);
    }
    stop_tampering();
    // Before the first rekey is due; and two that differ in their settings go on trying to do better.
    let same = choices[0] == choices[1];
    if established && same && world.undisturbed && world.now < start + Duration::from_secs(30) {
        for (end, before) in world.ends.iter().zip(&children) {
            let kept = before.iter().all(|child| end.children.contains(child));
            assert!(kept, "what nobody has authenticated ends a child");
        }
    }
    if established {
        for end in &mut world.ends {
            end.engine.forget(world.now, end.pair);
            end.engine.end_control(world.now, end.pair);
            end.children.clear();
        }
        world.drain();
        world.settle();
        world.keep();
        assert!(world.agrees(), "two honest ends do not find to each other");
    }
});
