//! DECIDES: how two hosts prove to each other that their pair is sealed (`hostseal prove`).
//!
//! The end that was told to, the asker, asks the other inside IKE for a UDP port ([`word`]). Then each sends the other
//! random numbers ([`Nonce`](crate::types::Nonce)) in datagrams of both kinds, the asker first: past all policies, and as
//! any program does. Each says what came to it and what its kernel has counted. The asker puts that together
//! ([`ProofFigures`]); `observe::pair_proof` says what it shows.
//!
//! ```text
//! asking     the end that was told to prove a pair
//! answering  the other one
//! stand      what both have on their host: a port, nonces, what has come
//! counted    what a kernel has counted meanwhile
//! word       what they say to each other
//! queue      who waits for one
//! turns      whose turn it is
//! ```
//! **One proof at a time on a host.** The kernel's count of refused packets is of the whole host: with two proofs at once
//! each would take what the other has caused for its own. A host that is busy says so, and the asker tries again.
//!
//! A proof is made for a command on this host, or because a member of the cluster asks for it (`prove --cluster`). Those
//! for members wait until no command does, one for each member at a time, and each rests after its own (`queue`).
//!
//! Nothing that is said or sent here changes what is protected, and none of it is kept. It is bounded: one place, at most
//! [`NONCES_MOST`](crate::types::NONCES_MOST) packets of a kind in at most [`ROUNDS_MOST`](crate::types::ROUNDS_MOST) rounds, and an end that does
//! not answer.

mod answering;
mod asking;
mod counted;
mod queue;
mod stand;
#[cfg(test)]
mod tests;
mod turns;
pub mod word;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use self::answering::ProofAnswering;
use self::asking::ProofAsking;
use self::queue::ProofQueue;
use self::turns::{PeerTurns, ProofPace};
use self::word::{Gauges, ProofPorts, ProofWord, Says};
use super::ledger::Asker;
use crate::ike::Entropy;
use crate::observe::pair_proof::{Doubt, ProofFigures};
use crate::roster::EntryId;
use crate::types::{NodeName, Nonce, NonceKind, Pair};

/// How long an answer inside IKE may take.
pub const ANSWER_PATIENCE: Duration = Duration::from_secs(6);
/// How long all of it may take, also where the peer is busy.
pub const PROOF_PATIENCE: Duration = Duration::from_secs(25);
/// The same for a member: many may wait for it.
pub const MEMBER_PATIENCE: Duration = Duration::from_secs(12);
/// How long a member may wait for its turn: there is time for the proof of another one, and its own rest.
pub const WAIT_PATIENCE: Duration = MEMBER_PATIENCE.saturating_mul(2);
/// After how long the answerer gives up an asker that says nothing.
const IDLE_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked what has come, until all is there.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long it is looked at most.
const LOOK_MOST: Duration = Duration::from_millis(500);
/// How long it is waited for more after that: for what should not come.
const SETTLE: Duration = Duration::from_millis(40);
/// For so long after a proof that was asked for here no other is answered: whoever has watched the wire takes stock.
const QUIET: Duration = Duration::from_millis(250);
/// Of so many proofs it is remembered what was sent past all policies.
const REMEMBERED: usize = 128;

/// Datagrams of both kinds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NonceSet {
    /// Past all policies.
    pub clear: Vec<Nonce>,
    /// As any program's.
    pub sealed: Vec<Nonce>,
}

/// A nonce that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NonceArrival {
    /// From which UDP port.
    pub port: u16,
    /// How it says that it was sent.
    pub kind: NonceKind,
    /// Which one.
    pub nonce: Nonce,
}

/// What is there of a proof on this host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    /// What has come from the peer's address since the last look.
    pub came: Vec<NonceArrival>,
    /// What the kernel has counted by now.
    pub gauges: Gauges,
}

/// For whom a proof is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofAsker {
    /// Somebody on this host.
    Here(Asker),
    /// A member of its cluster.
    Member {
        /// Its first entry.
        line: EntryId,
        /// That of its question.
        number: u64,
    },
}

impl ProofAsker {
    fn patience(self) -> Duration {
        match self {
            Self::Here(_) => PROOF_PATIENCE,
            Self::Member { .. } => MEMBER_PATIENCE,
        }
    }

    fn line(self) -> Option<EntryId> {
        match self {
            Self::Here(_) => None,
            Self::Member { line, .. } => Some(line),
        }
    }
}

/// The sockets and counters of this host for one proof at a time.
pub trait ProvingGround {
    /// Which node the peer of a pair is.
    fn node(&self, pair: Pair) -> NodeName;

    /// Opens them; says their ports.
    ///
    /// # Errors
    /// In words.
    fn open(&mut self, pair: Pair) -> Result<ProofPorts, String>;

    /// Closes them.
    fn close(&mut self);

    /// Sends all of `nonces`. Returns what has left, and why the rest has not.
    fn send(&mut self, to: SocketAddr, nonces: &NonceSet) -> (NonceSet, Option<String>);

    /// Looks what is there.
    ///
    /// # Errors
    /// In words: the kernel does not count.
    fn look(&mut self, pair: Pair) -> Result<Sight, String>;
}

/// What came of a proof that was asked for here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofOutcome {
    /// Who asked.
    pub asker: ProofAsker,
    /// For which pair.
    pub pair: Pair,
    /// What was measured, or why it did not come to that.
    pub found: Result<ProofFigures, Doubt>,
    /// The ports that both ends have sent to.
    pub ports: Option<[u16; 2]>,
    /// What both ends have sent past all policies, in other proofs of this pair that were made lately, too: it is seen on
    /// the wire.
    pub clear: Vec<Nonce>,
}

/// The proofs of a host.
#[derive(Default)]
pub struct Prover {
    queue: ProofQueue,
    asking: Option<ProofAsking>,
    answering: Option<ProofAnswering>,
    turns: PeerTurns,
    pace: ProofPace,
    /// What was sent past all policies lately.
    clear: VecDeque<(Pair, Vec<Nonce>)>,
    words: VecDeque<(Pair, ProofWord)>,
    outcomes: VecDeque<ProofOutcome>,
    late: VecDeque<(EntryId, u64)>,
}

/// Inputs.
impl Prover {
    /// A pair is to be proven. `false`: too many commands wait, or that member has another one made.
    pub fn prove(&mut self, now: Instant, asker: ProofAsker, pair: Pair) -> bool {
        let has_one = |line| self.asking.as_ref().is_some_and(|asking| asking.asker().line() == Some(line));
        !asker.line().is_some_and(has_one) && self.queue.push(now, asker, pair)
    }

    /// Whoever asked does not wait any more.
    pub fn forget(&mut self, gone: Asker) {
        self.queue.forget(gone);
    }

    /// The peer of `pair` has said something. What cannot be read says nothing.
    pub fn handle_word(
        &mut self,
        now: Instant,
        ground: &mut dyn ProvingGround,
        entropy: &mut dyn Entropy,
        pair: Pair,
        octets: &[u8],
    ) {
        let Some(word) = ProofWord::from_octets(octets) else { return };
        if !word.says.answers() {
            self.handle_question(now, ground, entropy, pair, word);
        } else if let Some(asking) = self.asking.as_mut().filter(|asking| asking.is_answered_by(pair, &word))
        {
            asking.handle_answer(now, ground, entropy, word.says);
        }
        self.go_on(now, ground, entropy);
    }

    fn handle_question(
        &mut self,
        now: Instant,
        ground: &mut dyn ProvingGround,
        entropy: &mut dyn Entropy,
        pair: Pair,
        word: ProofWord,
    ) {
        let known = self.answering.as_mut().filter(|answering| answering.is_of(pair, word.proof));
        let ProofWord { proof, step, says, .. } = word;
        match (known, says) {
            (Some(answering), says) => answering.handle_question(now, ground, step, says),
            (None, Says::Begin { ports }) => {
                let busy = self.answering.is_some()
                    || self.asking.as_ref().is_some_and(ProofAsking::is_at_work)
                    || self.pace.is_quiet(now);
                if !self.turns.ask(now, &ground.node(pair), !busy) {
                    self.words.push_back((pair, ProofWord::new(proof, step, Says::Busy {})));
                    return;
                }
                let asked = (ground.node(pair), proof, step, ports);
                self.answering = Some(ProofAnswering::begin(now, ground, entropy, pair, asked));
            }
            // It was given up here, or is over: who asks learns so by the silence.
            (None, _) => {}
        }
    }

    /// Time has passed.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        ground: &mut dyn ProvingGround,
        entropy: &mut dyn Entropy,
    ) {
        let free = self.answering.is_none();
        self.asking.iter_mut().for_each(|asking| asking.handle_timeout(now, ground, entropy, free));
        self.answering.iter_mut().for_each(|answering| answering.handle_timeout(now, ground));
        self.go_on(now, ground, entropy);
    }

    /// Takes what there is to say, ends what is over and begins what waits.
    pub fn go_on(&mut self, now: Instant, ground: &mut dyn ProvingGround, entropy: &mut dyn Entropy) {
        if let Some(answering) = &mut self.answering {
            self.words.extend(answering.poll_word());
            if let Some(began) = answering.over_since() {
                let (pair, clear) = (answering.pair(), answering.take_clear());
                self.turns.end(now, answering.node(), began);
                self.pace.note(now, answering.clear_sent());
                self.clear.push_back((pair, clear));
                ground.close();
                self.answering = None;
            }
        }
        self.late.extend(std::iter::from_fn(|| self.queue.take_late(now)));
        loop {
            self.take_outcome(now);
            let free = self.asking.is_none() && self.answering.is_none();
            let next = free.then(|| self.queue.take(now, &self.pace)).flatten();
            let Some((asker, pair)) = next else { break };
            self.asking = Some(ProofAsking::begin(now, ground, entropy, asker, pair));
        }
        self.clear.drain(..self.clear.len().saturating_sub(REMEMBERED));
    }

    /// Takes what the one that is being made has to say, and what came of it.
    fn take_outcome(&mut self, now: Instant) {
        let Some(asking) = &mut self.asking else { return };
        self.words.extend(asking.poll_word());
        let Some(mut outcome) = asking.poll_outcome() else { return };
        if let Some(line) = outcome.asker.line() {
            self.queue.end(now, line, asking.began());
            self.pace.note(now, asking.clear_sent());
        }
        self.asking = None;
        self.clear.push_back((outcome.pair, outcome.clear));
        let of_pair = self.clear.iter().filter(|(pair, _)| *pair == outcome.pair);
        outcome.clear = of_pair.flat_map(|(_, clear)| clear).copied().collect();
        self.pace.hush(now + QUIET);
        self.outcomes.push_back(outcome);
    }
}

/// Outputs.
impl Prover {
    /// The next word to tell, and on which pair.
    pub fn poll_word(&mut self) -> Option<(Pair, ProofWord)> {
        self.words.pop_front()
    }

    /// What came of the next proof that was asked for here.
    pub fn poll_outcome(&mut self) -> Option<ProofOutcome> {
        self.outcomes.pop_front()
    }

    /// The next member that has waited for its turn for too long, and the number of its question.
    pub fn poll_late(&mut self) -> Option<(EntryId, u64)> {
        self.late.pop_front()
    }

    /// When [`Prover::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let asking = self.asking.as_ref().map(ProofAsking::deadline);
        let under_way = asking.into_iter().chain(self.answering.as_ref().map(ProofAnswering::deadline)).min();
        under_way.or_else(|| self.queue.due(&self.pace)).into_iter().chain(self.queue.late_at()).min()
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.asking.is_none() && self.answering.is_none() && self.queue.is_empty()
    }
}
