//! The end of a proof that was told to prove a pair.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::counted::ProofCount;
use super::stand::Stand;
use super::word::{Gauges, ProofPorts, ProofWord, RoundReport, Says};
use super::{ANSWER_PATIENCE, LOOK_EVERY, LOOK_MOST, ProofAsker, ProofOutcome, ProvingGround, SETTLE};
use crate::ike::Entropy;
use crate::observe::pair_proof::{ClearCount, Doubt, ProofCode, ProofFigures, SealedCount, WayProof};
use crate::types::{Direction, NONCES_LEAST, Nonce, Pair, ROUNDS_MOST};

/// After how long it is told again: another IKE SA may have taken over, which knows nothing of it.
const TELL_AGAIN: Duration = Duration::from_secs(2);
/// How much later a busy peer is asked again, at least and at most.
const BUSY_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));
/// So many packets may be counted more at one end than at the other, as they were under way when that began.
const UNDER_WAY: u64 = 8;

/// A proof that was asked for here.
pub(super) struct ProofAsking {
    asker: ProofAsker,
    pair: Pair,
    proof: u64,
    step: u32,
    began: Instant,
    /// When it has taken too long.
    end: Instant,
    stand: Option<Stand>,
    /// The peer, once it is ready.
    peer: Option<PeerEnd>,
    phase: AskingPhase,
    /// What was said last, and whether it is to be told, or told again.
    said: Says,
    untold: bool,
    outcome: Option<ProofOutcome>,
    /// So many packets have left this host past all policies.
    clear_sent: u32,
}

/// What the peer has said of itself.
struct PeerEnd {
    ports: ProofPorts,
    /// What its kernel has counted.
    counted: ProofCount,
    /// So many packets it had refused when it reported last. It has heard since how many it should have.
    refused: u64,
    /// What it has sent, and seen, in the last round that it has told of.
    report: Option<RoundReport>,
    /// So many packets that it has sent as any program does, at least.
    sealed_sent: u64,
    /// How often packets were sent.
    rounds: u32,
    /// What it said that cannot be.
    contradiction: Option<String>,
}

/// Where it is.
enum AskingPhase {
    /// The peer was busy, and is asked again.
    Busy { again: Instant },
    /// The peer is to answer.
    Awaits { until: Instant, again: Instant },
    /// The peer has sent: what comes is looked at.
    Looks { until: Instant, next: Instant, settled: bool },
    /// Its outcome is known.
    Over,
}

impl ProofAsking {
    /// Begins: opens a port here, and asks the peer for one.
    pub(super) fn begin(
        now: Instant,
        ground: &mut dyn ProvingGround,
        entropy: &mut dyn Entropy,
        asker: ProofAsker,
        pair: Pair,
    ) -> Self {
        let mut number = [0; 8];
        entropy.fill(&mut number);
        let mut asking = Self {
            asker,
            pair,
            proof: u64::from_be_bytes(number),
            step: 0,
            began: now,
            end: now + asker.patience(),
            stand: None,
            peer: None,
            phase: AskingPhase::Over,
            said: Says::Busy {},
            untold: false,
            outcome: None,
            clear_sent: 0,
        };
        asking.ask(now, ground, entropy);
        asking
    }

    fn ask(&mut self, now: Instant, ground: &mut dyn ProvingGround, entropy: &mut dyn Entropy) {
        match Stand::open(ground, entropy, self.pair) {
            Ok(stand) => {
                let ports = stand.ports();
                self.stand = Some(stand);
                self.say(now, Says::Begin { ports });
            }
            Err(why) => {
                let words = format!("this host cannot begin: {why}");
                self.finish(ground, Some(Doubt::inconclusive(ProofCode::CannotBegin, words)));
            }
        }
    }

    fn say(&mut self, now: Instant, says: Says) {
        self.step += 1;
        (self.said, self.untold) = (says, true);
        self.phase =
            AskingPhase::Awaits { until: (now + ANSWER_PATIENCE).min(self.end), again: now + TELL_AGAIN };
    }

    /// Whether a word answers what was asked last.
    pub(super) fn is_answered_by(&self, pair: Pair, word: &ProofWord) -> bool {
        let awaits = matches!(self.phase, AskingPhase::Awaits { .. });
        awaits && (self.pair, self.proof, self.step) == (pair, word.proof, word.step)
    }

    /// For whom it is made.
    pub(super) fn asker(&self) -> ProofAsker {
        self.asker
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// So many packets have left this host past all policies.
    pub(super) fn clear_sent(&self) -> u32 {
        self.clear_sent
    }

    /// Whether it has sockets open and may be sent to.
    pub(super) fn is_at_work(&self) -> bool {
        self.stand.is_some()
    }

    /// The peer answers.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        ground: &mut dyn ProvingGround,
        entropy: &mut dyn Entropy,
        says: Says,
    ) {
        match (&self.said, says, &mut self.peer) {
            (Says::Begin { .. }, Says::Ready { ports, gauges }, None) => {
                self.stand.iter_mut().for_each(|stand| stand.meet(ports));
                self.peer = Some(PeerEnd::new(ports, gauges));
                self.send(now, ground);
            }
            (Says::Begin { .. }, Says::Busy {}, None) => {
                // Whoever waits can be asked.
                ground.close();
                self.stand = None;
                self.phase = AskingPhase::Busy { again: (now + pause(entropy)).min(self.end) };
            }
            (Says::Begin { .. }, Says::Cannot { why }, None) => {
                let words = format!("the peer cannot begin: {why}");
                self.finish(ground, Some(Doubt::inconclusive(ProofCode::CannotBegin, words)));
            }
            (Says::Sent { .. }, Says::Report(report), Some(peer)) => {
                peer.handle_report(report);
                let until = now + LOOK_MOST;
                self.phase = AskingPhase::Looks { until, next: now, settled: false };
                self.look(now, ground);
            }
            (Says::Over { .. }, Says::Closed { seen, gauges }, Some(peer)) => {
                peer.handle_closed(seen, gauges);
                self.finish(ground, None);
            }
            (said, answer, _) => {
                let words = format!("the peer answered \"{}\" to \"{}\"", answer.name(), said.name());
                self.finish(ground, Some(Doubt::failed(ProofCode::Contradiction, words)));
            }
        }
    }

    /// Sends all, and has the peer look.
    fn send(&mut self, now: Instant, ground: &mut dyn ProvingGround) {
        let Some((stand, peer)) = self.stand.as_mut().zip(self.peer.as_mut()) else { return };
        peer.rounds += 1;
        stand.send(ground);
        let sealed = u16::try_from(stand.sent().sealed.len()).unwrap_or(u16::MAX);
        self.say(now, Says::Sent { sealed });
    }

    /// Time has passed. `free`: nobody else uses the ground.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        ground: &mut dyn ProvingGround,
        entropy: &mut dyn Entropy,
        free: bool,
    ) {
        match &mut self.phase {
            AskingPhase::Busy { .. } if self.end <= now => {
                let words = "the peer is busy with the proofs of others: try again later";
                self.finish(ground, Some(Doubt::inconclusive(ProofCode::Busy, words)));
            }
            AskingPhase::Busy { again } if *again <= now && !free => {
                *again = (now + pause(entropy)).min(self.end)
            }
            AskingPhase::Busy { again } if *again <= now => self.ask(now, ground, entropy),
            AskingPhase::Awaits { until, .. } if *until <= now => self.finish(ground, Some(no_answer())),
            AskingPhase::Awaits { again, .. } if *again <= now => {
                *again = now + TELL_AGAIN;
                self.untold = true;
            }
            AskingPhase::Looks { .. } => self.look(now, ground),
            _ => {}
        }
    }

    /// Looks whether all has come; goes on then, or when that has taken too long.
    fn look(&mut self, now: Instant, ground: &mut dyn ProvingGround) {
        let AskingPhase::Looks { until, next, settled } = self.phase else { return };
        let Some((stand, peer)) = self.stand.as_mut().zip(self.peer.as_ref()).filter(|_| next <= now) else {
            return;
        };
        stand.look(ground);
        let all = peer.has_all_come_to(stand);
        if (all && settled) || until <= now {
            let whole = all && peer.has_all_of(stand);
            return match peer.rounds < ROUNDS_MOST && !whole && !peer.is_spoilt(stand) {
                true => self.send(now, ground),
                false => {
                    let clear = stand.sent().clear.clone();
                    self.say(now, Says::Over { clear });
                }
            };
        }
        let next = (now + if all { SETTLE } else { LOOK_EVERY }).min(until);
        self.phase = AskingPhase::Looks { until, next, settled: all };
    }

    /// It is over; `broken_off` says why, where it was not gone through with.
    fn finish(&mut self, ground: &mut dyn ProvingGround, broken_off: Option<Doubt>) {
        let mut stand = self.stand.take();
        if let Some(stand) = &mut stand {
            self.clear_sent = stand.clear_sent();
            stand.look(ground);
            ground.close();
        }
        let ends = stand.as_ref().zip(self.peer.as_ref());
        // Before the first report nothing is known of what came to the peer.
        let measured = ends.filter(|(_, peer)| peer.report.is_some());
        let clear = ends.map(|(stand, peer)| [&stand.sent().clear[..], peer.clear()].concat());
        self.outcome = Some(ProofOutcome {
            asker: self.asker,
            pair: self.pair,
            found: match measured {
                Some((stand, peer)) => Ok(ProofFigures { broken_off, ..peer.figures(stand) }),
                None => Err(broken_off.unwrap_or_else(no_answer)),
            },
            ports: ends.map(|(stand, peer)| [stand.ports().ordinary, peer.ports.ordinary]),
            clear: clear.unwrap_or_default(),
        });
        self.phase = AskingPhase::Over;
    }

    /// What there is to say.
    pub(super) fn poll_word(&mut self) -> Option<(Pair, ProofWord)> {
        let word = || (self.pair, ProofWord::new(self.proof, self.step, self.said.clone()));
        std::mem::take(&mut self.untold).then(word)
    }

    pub(super) fn poll_outcome(&mut self) -> Option<ProofOutcome> {
        self.outcome.take()
    }

    pub(super) fn deadline(&self) -> Instant {
        match self.phase {
            AskingPhase::Busy { again } => again,
            AskingPhase::Awaits { until, again } => until.min(again),
            AskingPhase::Looks { next, .. } => next,
            AskingPhase::Over => self.end,
        }
    }
}

impl PeerEnd {
    fn new(ports: ProofPorts, before: Gauges) -> Self {
        Self {
            ports,
            counted: ProofCount::since(before),
            refused: 0,
            report: None,
            sealed_sent: 0,
            rounds: 0,
            contradiction: None,
        }
    }

    fn handle_report(&mut self, report: RoundReport) {
        let few = |nonces: &[Nonce]| nonces.len() < NONCES_LEAST.into();
        if report.unsent.is_none() && (few(&report.clear) || few(&report.sealed)) {
            self.contradict("it sent fewer packets than it must");
        }
        let all = || report.clear.iter().chain(&report.sealed);
        if all().collect::<BTreeSet<_>>().len() < all().count() {
            self.contradict("it sent the same number twice");
        }
        self.note_seen(&report.seen);
        self.note_gauges(report.gauges.clone());
        self.refused = self.counted.refused();
        // It tells what has left in any round. In one in which nothing failed that was all of it, else what is new at least.
        let sent = report.sealed.len() as u64;
        let before = self.report.as_ref().map_or(0, |before| before.sealed.len() as u64);
        self.sealed_sent += if report.unsent.is_none() { sent } else { sent.saturating_sub(before) };
        self.report = Some(report);
    }

    fn handle_closed(&mut self, seen: Vec<Nonce>, gauges: Gauges) {
        self.note_seen(&seen);
        self.note_gauges(gauges);
        self.report.iter_mut().for_each(|report| report.seen.clone_from(&seen));
    }

    /// What was seen stays seen.
    fn note_seen(&mut self, seen: &[Nonce]) {
        if self.seen().iter().any(|nonce| !seen.contains(nonce)) {
            self.contradict("packets that had come to it have not");
        }
    }

    /// Counters never fall.
    fn note_gauges(&mut self, gauges: Gauges) {
        if self.counted.note(gauges) {
            self.contradict("a counter fell");
        }
    }

    /// What has come to it.
    fn seen(&self) -> &[Nonce] {
        self.report.as_ref().map_or(&[], |report| &report.seen)
    }

    /// What it has sent past all policies.
    fn clear(&self) -> &[Nonce] {
        self.report.as_ref().map_or(&[], |report| &report.clear)
    }

    /// What it has sent as any program does.
    fn sealed(&self) -> &[Nonce] {
        self.report.as_ref().map_or(&[], |report| &report.sealed)
    }

    fn contradict(&mut self, what: &str) {
        self.contradiction.get_or_insert_with(|| what.to_owned());
    }

    /// Whether all that the peer has sent has come, or was refused where it should be.
    fn has_all_come_to(&self, stand: &Stand) -> bool {
        let seen = stand.seen();
        self.sealed().iter().all(|nonce| seen.contains(nonce))
            && stand.counted().refused() >= self.clear().len() as u64
    }

    /// Whether all that this host has sent came to the peer, or was refused there where it should be.
    fn has_all_of(&self, stand: &Stand) -> bool {
        stand.sent().sealed.iter().all(|nonce| self.seen().contains(nonce))
            && self.refused >= stand.sent().clear.len() as u64
    }

    /// Whether no further round makes it better.
    fn is_spoilt(&self, stand: &Stand) -> bool {
        let seen = stand.seen();
        self.contradiction.is_some()
            || self.clear().iter().any(|nonce| seen.contains(nonce))
            || stand.sent().clear.iter().any(|nonce| self.seen().contains(nonce))
    }

    /// What both ends have measured.
    fn figures(&self, stand: &Stand) -> ProofFigures {
        let count = |nonces: &[Nonce], seen: &BTreeSet<Nonce>| {
            nonces.iter().filter(|nonce| seen.contains(nonce)).count() as u64
        };
        let here = stand.seen();
        let there: BTreeSet<Nonce> = self.seen().iter().copied().collect();
        let of_clear = |nonces: &[Nonce], seen, refused| ClearCount {
            sent: nonces.len() as u64,
            delivered: count(nonces, seen),
            refused,
        };
        let of_sealed = |nonces: &[Nonce], packets, seen, from: &ProofCount, to: &ProofCount| SealedCount {
            sent: nonces.len() as u64,
            packets,
            delivered: count(nonces, seen),
            outbound: from.rise(Direction::Out),
            inbound: to.rise(Direction::In),
        };
        let whole =
            |from: &ProofCount, to: &ProofCount| from.is_whole(Direction::Out) && to.is_whole(Direction::In);
        let (sent, own, theirs) = (stand.sent(), stand.counted(), &self.counted);
        let out = WayProof {
            clear: of_clear(&sent.clear, &there, self.refused),
            sealed: of_sealed(&sent.sealed, stand.sealed_sent(), &there, own, theirs),
        };
        let incoming = WayProof {
            clear: of_clear(self.clear(), &here, own.refused()),
            sealed: of_sealed(self.sealed(), self.sealed_sent, &here, theirs, own),
        };
        let invented = there.iter().any(|nonce| !sent.clear.contains(nonce) && !sent.sealed.contains(nonce));
        // Where nothing but the proof went through the SA, nothing else came out of it. With other traffic that cannot be
        // told: a kernel may count a large packet once that leaves in many parts.
        let alone = whole(own, theirs) && out.sealed.outbound == stand.sealed_sent();
        let inflated = alone && out.sealed.inbound > out.sealed.outbound.saturating_add(UNDER_WAY);
        let found = match (invented, inflated) {
            (true, _) => Some("packets came to it that nobody sent".to_owned()),
            (_, true) => Some(format!(
                "{} packets came through its SA of which {} had left",
                out.sealed.inbound, out.sealed.outbound
            )),
            _ => None,
        };
        ProofFigures {
            out,
            incoming,
            rekeyed: [!whole(own, theirs), !whole(theirs, own)],
            rounds: self.rounds,
            unsent: stand.unsent().map(str::to_owned),
            peer_unsent: self.report.as_ref().and_then(|report| report.unsent.clone()),
            contradiction: self.contradiction.clone().or(found),
            exemption: None,
            broken_off: None,
        }
    }
}

fn no_answer() -> Doubt {
    Doubt::inconclusive(ProofCode::NoAnswer, "the peer did not answer inside IKE in time")
}

/// A pause of random length.
fn pause(entropy: &mut dyn Entropy) -> Duration {
    let mut octets = [0; 2];
    entropy.fill(&mut octets);
    let (least, most) = BUSY_PAUSE;
    least + (most - least) * u32::from(u16::from_be_bytes(octets)) / u32::from(u16::MAX)
}
