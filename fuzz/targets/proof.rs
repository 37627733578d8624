//! Two hosts that make proofs of a pair, whose words get lost, come twice, late or garbled, and a member gone bad that says
//! what it likes: none panics, each has at most one proof at a time, sends no more than it may, and is done in the end.

#![no_main]

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use hostseal::host::ledger::Asker;
use hostseal::host::prover::word::{Gauges, ProofPorts, ProofWord, RoundReport, SaGauge, Says};
use hostseal::host::prover::{
    NonceArrival, NonceSet, PROOF_PATIENCE, ProofAsker, Prover, ProvingGround, Sight,
};
use hostseal::ike::Entropy;
use hostseal::observe::pair_proof::PairProof;
use hostseal::types::{Direction, NONCES_MOST, NodeName, Nonce, NonceKind, Pair, ROUNDS_MOST, Spi};
use libfuzzer_sys::fuzz_target;

/// The most steps of an input.
const STEPS: usize = 64;

/// What happens.
#[derive(Debug, Arbitrary)]
enum Step {
    /// Somebody on one of both hosts wants the pair proven.
    Prove(bool),
    /// The oldest word on its way to a host arrives; it may stay on its way, too.
    Deliver { to: bool, stays: bool },
    /// It is lost.
    Lose(bool),
    /// One of its octets is another one.
    Garble { to: bool, at: u16, octet: u8 },
    /// The other end says this, of the proof that the host is in, or of another one.
    Say { to: bool, known: bool, step: u8, what: Word },
    /// Octets come that may be anything.
    Octets { to: bool, octets: Vec<u8> },
    /// Datagrams come to the socket of a host.
    Datagrams { to: bool, port: u16, clear: bool, nonces: Vec<[u8; 8]> },
    /// Its kernel counts.
    Count { at: bool, refused: u16, spi: u8, packets: u16 },
    /// One of its SAs ends.
    End { at: bool, spi: u8 },
    /// Time passes.
    Wait(u16),
}

/// What a member gone bad says.
#[derive(Debug, Arbitrary)]
enum Word {
    Begin(u16, u16),
    Sent(u16),
    Over(Vec<[u8; 8]>),
    Ready(u16, u16, Vec<(u8, bool, u64)>),
    Busy,
    Report {
        clear: Vec<[u8; 8]>,
        sealed: Vec<[u8; 8]>,
        echoes: bool,
        refused: u64,
        sas: Vec<(u8, bool, u64)>,
    },
    Closed {
        echoes: bool,
        refused: u64,
        sas: Vec<(u8, bool, u64)>,
    },
}

struct Counting(u64);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 33) as u8;
        }
    }
}

/// The sockets and counters of a host.
#[derive(Default)]
struct Ground {
    open: bool,
    came: Vec<NonceArrival>,
    refused: u64,
    sas: BTreeMap<(u8, bool), u64>,
    sent: Vec<(SocketAddr, NonceSet)>,
    sends: u32,
}

impl Ground {
    fn gauges(&self) -> Gauges {
        gauges(self.refused, self.sas.iter().map(|((spi, out), packets)| (*spi, *out, *packets)))
    }
}

fn gauges(refused: u64, sas: impl IntoIterator<Item = (u8, bool, u64)>) -> Gauges {
    let sa = |(spi, out, packets): (u8, bool, u64)| {
        let direction = if out { Direction::Out } else { Direction::In };
        SaGauge { spi: Spi(spi.into()), direction, packets }
    };
    Gauges { refused, sas: sas.into_iter().take(12).map(sa).collect() }
}

impl ProvingGround for Ground {
    fn node(&self, pair: Pair) -> NodeName {
        pair.remote.to_string().parse().unwrap_or_default()
    }

    fn open(&mut self, _: Pair) -> Result<ProofPorts, String> {
        assert!(!std::mem::replace(&mut self.open, true), "one at a time");
        self.sends = 0;
        Ok(ProofPorts { ordinary: 40_000, past: 40_001 })
    }

    fn close(&mut self) {
        self.open = false;
    }

    fn send(&mut self, to: SocketAddr, nonces: &NonceSet) -> (NonceSet, Option<String>) {
        assert!(self.open, "nothing is sent without a socket");
        self.sends += 1;
        assert!(self.sends <= ROUNDS_MOST);
        assert!(nonces.clear.len() <= NONCES_MOST.into() && nonces.sealed.len() <= NONCES_MOST.into());
        self.sent.push((to, nonces.clone()));
        *self.sas.entry((1, true)).or_default() += nonces.sealed.len() as u64;
        (nonces.clone(), None)
    }

    fn look(&mut self, _: Pair) -> Result<Sight, String> {
        Ok(Sight { came: std::mem::take(&mut self.came), gauges: self.gauges() })
    }
}

/// One end.
struct End {
    pair: Pair,
    prover: Prover,
    ground: Ground,
    entropy: Counting,
    /// Words on their way to it.
    words: VecDeque<Vec<u8>>,
    /// The proof and the step of the last word that it has said.
    last: (u64, u32),
    asked: u64,
    ended: u64,
}

struct Scene {
    now: Instant,
    ends: [End; 2],
}

impl Scene {
    fn new() -> Self {
        let pair = Pair { local: [10, 0, 0, 1].into(), remote: [10, 0, 0, 2].into() };
        let end = |pair, seed| End {
            pair,
            prover: Prover::default(),
            ground: Ground::default(),
            entropy: Counting(seed),
            words: VecDeque::new(),
            last: (0, 0),
            asked: 0,
            ended: 0,
        };
        Self { now: Instant::now(), ends: [end(pair, 1), end(pair.mirrored(), 2)] }
    }

    fn hear(&mut self, to: usize, octets: &[u8]) {
        let (now, End { pair, prover, ground, entropy, .. }) = (self.now, &mut self.ends[to]);
        prover.handle_word(now, ground, entropy, *pair, octets);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Prove(at) => {
                let end = &mut self.ends[usize::from(at)];
                end.asked += u64::from(end.prover.prove(self.now, ProofAsker::Here(Asker(1)), end.pair));
                end.prover.go_on(self.now, &mut end.ground, &mut end.entropy);
            }
            Step::Deliver { to, stays } => {
                let to = usize::from(to);
                let word = if stays {
                    self.ends[to].words.front().cloned()
                } else {
                    self.ends[to].words.pop_front()
                };
                word.into_iter().for_each(|word| self.hear(to, &word));
            }
            Step::Lose(to) => drop(self.ends[usize::from(to)].words.pop_front()),
            Step::Garble { to, at, octet } => {
                if let Some(word) = self.ends[usize::from(to)].words.front_mut() {
                    let length = word.len();
                    word.get_mut(usize::from(at) % length.max(1)).into_iter().for_each(|it| *it = octet);
                }
            }
            Step::Say { to, known, step, what } => {
                let to = usize::from(to);
                let (proof, last) = self.ends[to].last;
                let seen: Vec<Nonce> =
                    self.ends[to].ground.sent.last().map(|(_, set)| set.sealed.clone()).unwrap_or_default();
                let word = ProofWord::new(
                    if known { proof } else { u64::from(step) },
                    if known { last.wrapping_add(u32::from(step % 3)) } else { step.into() },
                    what.says(seen),
                );
                self.hear(to, &word.to_octets());
            }
            Step::Octets { to, octets } => self.hear(usize::from(to), &octets),
            Step::Datagrams { to, port, clear, nonces } => {
                let kind = if clear { NonceKind::Clear } else { NonceKind::Sealed };
                let arrival = |nonce| NonceArrival { port, kind, nonce: Nonce(nonce) };
                self.ends[usize::from(to)].ground.came.extend(nonces.into_iter().map(arrival));
            }
            Step::Count { at, refused, spi, packets } => {
                let ground = &mut self.ends[usize::from(at)].ground;
                ground.refused += u64::from(refused);
                *ground.sas.entry((spi % 8, packets % 2 == 0)).or_default() += u64::from(packets);
            }
            Step::End { at, spi } => {
                self.ends[usize::from(at)].ground.sas.retain(|(it, _), _| *it != spi % 8);
            }
            Step::Wait(ms) => self.wait(Duration::from_millis(ms.into())),
        }
        self.drain();
    }

    /// Time passes; what is due is done in its time.
    fn wait(&mut self, by: Duration) {
        let end = self.now + by;
        loop {
            let due = self.ends.iter().filter_map(|end| end.prover.poll_timeout()).min();
            let Some(due) = due.filter(|due| *due <= end) else { break };
            self.now = self.now.max(due) + Duration::from_micros(1);
            for End { prover, ground, entropy, .. } in &mut self.ends {
                if prover.poll_timeout().is_some_and(|at| at <= self.now) {
                    prover.handle_timeout(self.now, ground, entropy);
                }
            }
            self.drain();
        }
        self.now = self.now.max(end);
    }

    fn drain(&mut self) {
        for at in 0..2 {
            let other = 1 - at;
            while let Some((_, word)) = self.ends[at].prover.poll_word() {
                self.ends[at].last = (word.proof, word.step);
                let octets = word.to_octets();
                assert_eq!(
                    ProofWord::from_octets(&octets).as_ref(),
                    Some(&word),
                    "what is said can be heard"
                );
                self.ends[other].words.push_back(octets);
            }
            for (to, set) in std::mem::take(&mut self.ends[at].ground.sent) {
                let sealed = set.sealed.iter().map(|nonce| NonceArrival {
                    port: 40_000,
                    kind: NonceKind::Sealed,
                    nonce: *nonce,
                });
                let ground = &mut self.ends[other].ground;
                if to.port() == 40_000 && ground.open {
                    ground.refused += set.clear.len() as u64;
                    *ground.sas.entry((1, false)).or_default() += set.sealed.len() as u64;
                    ground.came.extend(sealed);
                }
                self.ends[at].ground.sent = vec![(to, set)];
            }
            self.ends[at].ground.sent.truncate(1);
            while let Some(outcome) = self.ends[at].prover.poll_outcome() {
                self.ends[at].ended += 1;
                if let Ok(figures) = outcome.found {
                    let proof = PairProof::of(NodeName::default(), outcome.pair, &figures);
                    assert!(proof.adds_up() && proof.is_possible());
                }
            }
        }
    }
}

impl Word {
    fn says(self, seen: Vec<Nonce>) -> Says {
        let all = |nonces: Vec<[u8; 8]>| -> Vec<Nonce> { nonces.into_iter().take(64).map(Nonce).collect() };
        let seen = |echoes: bool| if echoes { seen } else { Vec::new() };
        match self {
            Self::Begin(ordinary, past) => Says::Begin { ports: ProofPorts { ordinary, past } },
            Self::Sent(sealed) => Says::Sent { sealed },
            Self::Over(clear) => Says::Over { clear: all(clear) },
            Self::Ready(ordinary, past, sas) => {
                Says::Ready { ports: ProofPorts { ordinary, past }, gauges: gauges(0, sas) }
            }
            Self::Busy => Says::Busy {},
            Self::Report { clear, sealed, echoes, refused, sas } => Says::Report(RoundReport {
                clear: all(clear),
                sealed: all(sealed),
                unsent: None,
                seen: seen(echoes),
                gauges: gauges(refused, sas),
            }),
            Self::Closed { echoes, refused, sas } => {
                Says::Closed { seen: seen(echoes), gauges: gauges(refused, sas) }
            }
        }
    }
}

fuzz_target!(|octets: &[u8]| {
    let mut input = Unstructured::new(octets);
    let mut scene = Scene::new();
    for _ in 0..STEPS {
        let Ok(step) = Step::arbitrary(&mut input) else { break };
        scene.take(step);
        if input.is_empty() {
            break;
        }
    }
    // Whatever was said, each is done when all have had their time, and nothing is open.
    for _ in 0..40 {
        scene.wait(PROOF_PATIENCE);
    }
    for End { prover, ground, asked, ended, .. } in &scene.ends {
        assert!(prover.is_idle() && !ground.open);
        assert_eq!(asked, ended);
    }
});
