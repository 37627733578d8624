//! The end of a proof that was asked.

use std::time::Instant;

use super::stand::Stand;
use super::word::{ProofPorts, ProofWord, RoundReport, Says, plain};
use super::{IDLE_PATIENCE, LOOK_EVERY, LOOK_MOST, PROOF_PATIENCE, ProvingGround, SETTLE};
use crate::ike::Entropy;
use crate::types::{NodeName, Nonce, Pair, ROUNDS_MOST};

/// A proof that the peer of a pair has asked for.
pub(super) struct ProofAnswering {
    pair: Pair,
    /// Whose turn it is.
    node: NodeName,
    proof: u64,
    began: Instant,
    stand: Option<Stand>,
    /// What was answered last, and to which step.
    step: u32,
    said: Says,
    /// It is to be told, or told again.
    untold: bool,
    looking: Option<Looking>,
    /// What the asker has sent past all policies, once it has said that it is over.
    clear: Vec<Nonce>,
    /// How often the asker had it look, and send.
    rounds: u32,
    /// When the asker is given up.
    idle: Instant,
    over: bool,
}

/// What it waits for before it reports.
struct Looking {
    /// So many that should be encrypted are to come.
    sealed: u16,
    until: Instant,
    next: Instant,
    /// All have come; it is waited for what should not.
    settled: bool,
}

impl ProofAnswering {
    /// The peer asks to begin, and has these ports.
    pub(super) fn begin(
        now: Instant,
        ground: &mut dyn ProvingGround,
        entropy: &mut dyn Entropy,
        pair: Pair,
        (node, proof, step, ports): (NodeName, u64, u32, ProofPorts),
    ) -> Self {
        let (stand, said) = match Stand::open(ground, entropy, pair) {
            Ok(mut stand) => {
                stand.meet(ports);
                let said = ready(&stand);
                (Some(stand), said)
            }
            Err(why) => (None, Says::Cannot { why: plain(&why) }),
        };
        Self {
            pair,
            node,
            proof,
            began: now,
            over: stand.is_none(),
            stand,
            step,
            said,
            untold: true,
            looking: None,
            clear: Vec::new(),
            rounds: 0,
            idle: now + IDLE_PATIENCE,
        }
    }

    pub(super) fn pair(&self) -> Pair {
        self.pair
    }

    /// Whose turn it is.
    pub(super) fn node(&self) -> &NodeName {
        &self.node
    }

    /// What both ends have sent past all policies, as far as this one knows: of an asker that has not said that it is over,
    /// nothing.
    pub(super) fn take_clear(&mut self) -> Vec<Nonce> {
        let own = self.stand.iter().flat_map(|stand| &stand.sent().clear);
        own.copied().chain(std::mem::take(&mut self.clear)).collect()
    }

    /// So many packets have left this host past all policies.
    pub(super) fn clear_sent(&self) -> u32 {
        self.stand.as_ref().map_or(0, Stand::clear_sent)
    }

    /// Whether it is this one.
    pub(super) fn is_of(&self, pair: Pair, proof: u64) -> bool {
        self.pair == pair && self.proof == proof
    }

    /// The asker says something. What it has said before is answered as before.
    pub(super) fn handle_question(
        &mut self,
        now: Instant,
        ground: &mut dyn ProvingGround,
        step: u32,
        says: Says,
    ) {
        // What is looked at now is answered later.
        if step <= self.step || self.looking.is_some() {
            self.untold |= step == self.step && self.looking.is_none();
            return;
        }
        self.idle = (now + IDLE_PATIENCE).min(self.began + PROOF_PATIENCE);
        match (says, &mut self.stand) {
            // What came twice was answered twice: that it is busy, and then, when it was not any more, that it is ready.
            (Says::Begin { ports }, Some(stand)) => {
                stand.meet(ports);
                stand.renew(ground);
                self.step = step;
                (self.said, self.untold) = (ready(stand), true);
            }
            (Says::Sent { sealed }, Some(_)) if self.rounds < ROUNDS_MOST => {
                (self.step, self.rounds) = (step, self.rounds + 1);
                self.looking = Some(Looking { sealed, until: now + LOOK_MOST, next: now, settled: false });
                self.look(now, ground);
            }
            (Says::Over { clear }, Some(stand)) => {
                self.clear = clear;
                stand.look(ground);
                self.step = step;
                let (seen, gauges) = (stand.seen().into_iter().collect(), stand.counted().last().clone());
                (self.said, self.untold) = (Says::Closed { seen, gauges }, true);
                self.over = true;
            }
            _ => {}
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, ground: &mut dyn ProvingGround) {
        self.look(now, ground);
        self.over |= self.idle <= now;
    }

    /// Looks whether all has come; sends and reports then, or when that has taken too long.
    fn look(&mut self, now: Instant, ground: &mut dyn ProvingGround) {
        let Some((looking, stand)) = self.looking.as_mut().zip(self.stand.as_mut()) else { return };
        if looking.next > now {
            return;
        }
        stand.look(ground);
        let all = stand.sealed_came() >= looking.sealed.into();
        if (all && looking.settled) || looking.until <= now {
            self.looking = None;
            stand.send(ground);
            let report = RoundReport {
                clear: stand.sent().clear.clone(),
                sealed: stand.sent().sealed.clone(),
                unsent: stand.unsent().map(plain),
                seen: stand.seen().into_iter().collect(),
                gauges: stand.counted().last().clone(),
            };
            (self.said, self.untold) = (Says::Report(report), true);
            return;
        }
        let wait = if all { SETTLE } else { LOOK_EVERY };
        (looking.settled, looking.next) = (all, (now + wait).min(looking.until));
    }

    /// What there is to say.
    pub(super) fn poll_word(&mut self) -> Option<(Pair, ProofWord)> {
        let word = || (self.pair, ProofWord::new(self.proof, self.step, self.said.clone()));
        std::mem::take(&mut self.untold).then(word)
    }

    /// When it began, where it is over.
    pub(super) fn over_since(&self) -> Option<Instant> {
        self.over.then_some(self.began)
    }

    pub(super) fn deadline(&self) -> Instant {
        self.looking.as_ref().map_or(self.idle, |looking| looking.next.min(self.idle))
    }
}

fn ready(stand: &Stand) -> Says {
    Says::Ready { ports: stand.ports(), gauges: stand.counted().before().clone() }
}
