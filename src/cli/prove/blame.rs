//! Which nodes keep the others waiting while the pairs of a cluster are proven: nothing more is tried with them.
//!
//! What a proof takes longer than usual is charged to the one end that did not answer, and what it takes less is given
//! back to it. So a node that is kept busy by another one now and then is not given up, and one that never answers is. A
//! node gone bad can say that the other end did not answer: that costs the other end little.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::course::NotMade;
use super::schedule::ProofTask;
use crate::observe::pair_proof::{Doubt, PairProof, ProofCode};
use crate::types::NodeName;

/// What a proof may take without being held against anybody, and how much more than that those with a node may take.
const USUAL: Duration = Duration::from_secs(5);
const NODE_PATIENCE: Duration = Duration::from_secs(60);
/// What of a proof is charged at most to a node of which its prover says that it did not answer.
const BY_HEARSAY: Duration = Duration::from_secs(12);
/// All of it takes no longer, but for what was begun.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// Why a pair was not proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoProof {
    /// This host did not go through with it.
    Here(NotMade),
    /// The node that was to prove it does not answer.
    Silent,
    /// It has its hands full.
    Busy,
    /// It answers something else.
    Strange,
}

/// Who is charged with what.
pub(super) struct Blame {
    own: NodeName,
    /// How much longer than usual the proofs with each node took.
    spent: BTreeMap<NodeName, Duration>,
    /// Nodes with which nothing is tried any more, and what is said of their pairs.
    lost: BTreeMap<NodeName, Doubt>,
    /// Why nothing is tried any more at all.
    ended: Option<NotMade>,
    end: Instant,
}

impl Blame {
    pub(super) fn new(now: Instant, own: NodeName) -> Self {
        Self { own, spent: BTreeMap::new(), lost: BTreeMap::new(), ended: None, end: now + LONGEST }
    }

    /// What is said of a pair with which nothing is tried any more; `None` for one that is.
    pub(super) fn refuses(&self, now: Instant, task: &ProofTask) -> Option<PairProof> {
        if let Some(ended) = &self.ended {
            return Some(task.without_proof(ended.doubt()));
        }
        if now >= self.end {
            let why = format!("all pairs together take longer than {} minutes", LONGEST.as_secs() / 60);
            return Some(task.without_proof(NotMade { why, ends: false }.doubt()));
        }
        let doubt = [&task.by, &task.node].into_iter().find_map(|node| self.lost.get(node));
        doubt.map(|doubt| task.without_proof(doubt.clone()))
    }

    /// That came of a pair, and it took so long. Says what is reported.
    pub(super) fn note(
        &mut self,
        task: &ProofTask,
        made: Result<PairProof, NoProof>,
        took: Duration,
    ) -> PairProof {
        let ProofTask { by, node, pair } = task;
        match made {
            Ok(proof) => {
                match proof.reason_code {
                    Some(code @ (ProofCode::NoAnswer | ProofCode::Busy)) => {
                        let words = format!(
                            "nothing more was tried with {node}: it is busy or does not answer, again and again"
                        );
                        self.charge(node, took.min(BY_HEARSAY), Doubt::inconclusive(code, words));
                        self.charge_slow(by, took.saturating_sub(BY_HEARSAY));
                    }
                    _ => self.charge_slow(by, took),
                }
                proof
            }
            Err(NoProof::Here(not_made)) => {
                let proof = task.without_proof(not_made.doubt());
                if not_made.ends && self.ended.is_none() {
                    self.ended = Some(not_made.ended_at(node, *pair));
                }
                proof
            }
            Err(NoProof::Silent) => {
                let words =
                    format!("{by}, which was asked to prove pairs, did not say in time what came of it");
                let doubt = Doubt::inconclusive(ProofCode::NoAnswer, words);
                self.charge(by, took, doubt.clone());
                task.without_proof(doubt)
            }
            Err(NoProof::Busy) => {
                let words = format!("{by} is busy with the proofs of others: try again later");
                let doubt = Doubt::inconclusive(ProofCode::Busy, words);
                self.charge(by, took, doubt.clone());
                task.without_proof(doubt)
            }
            Err(NoProof::Strange) => {
                self.charge_slow(by, took);
                let words = format!("{by} has answered something else than what it was asked");
                task.without_proof(Doubt::inconclusive(ProofCode::NotMade, words))
            }
        }
    }

    /// A node has answered; it may have taken its time.
    fn charge_slow(&mut self, node: &NodeName, took: Duration) {
        let words = format!("nothing more was tried with {node}: proofs with it take too long");
        let spent = self.spent.entry(node.clone()).or_default();
        *spent = (*spent + took).saturating_sub(USUAL);
        self.give_up(node, Doubt::inconclusive(ProofCode::NoAnswer, words));
    }

    /// A node has not answered for so long.
    fn charge(&mut self, node: &NodeName, took: Duration, doubt: Doubt) {
        *self.spent.entry(node.clone()).or_default() += took;
        self.give_up(node, doubt);
    }

    /// Nothing more is tried with a node that has spent too much, but for the own one.
    fn give_up(&mut self, node: &NodeName, doubt: Doubt) {
        if *node != self.own && self.spent.get(node) > Some(&NODE_PATIENCE) {
            self.lost.entry(node.clone()).or_insert(doubt);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Pair;

    const SECOND: Duration = Duration::from_secs(1);

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    fn task(by: &str, node: &str) -> ProofTask {
        let pair = Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap();
        ProofTask { by: name(by), node: name(node), pair }
    }

    fn blame() -> (Blame, Instant) {
        let now = Instant::now();
        (Blame::new(now, name("a")), now)
    }

    fn proven(task: &ProofTask) -> Result<PairProof, NoProof> {
        Ok(PairProof::proven(task.node.clone(), task.pair))
    }

    fn unanswered(task: &ProofTask) -> Result<PairProof, NoProof> {
        Ok(task.without_proof(Doubt::inconclusive(ProofCode::NoAnswer, "")))
    }

    #[test]
    fn only_the_one_that_does_not_answer_is_given_up() {
        // Who is asked says nothing, or says that the other end says nothing.
        type Made = fn(&ProofTask) -> Result<PairProof, NoProof>;
        let cases: [(Made, &str, &str, ProofCode, u64); 5] = [
            (|_| Err(NoProof::Silent), "b", "c", ProofCode::NoAnswer, 38),
            (|_| Err(NoProof::Busy), "b", "c", ProofCode::Busy, 30),
            (|_| Err(NoProof::Strange), "b", "c", ProofCode::NoAnswer, 36),
            (proven, "b", "c", ProofCode::NoAnswer, 36),
            (unanswered, "c", "b", ProofCode::NoAnswer, 6),
        ];
        for (made, lost, other, code, seconds) in cases {
            let (mut blame, now) = blame();
            let mut tries = 0;
            while blame.refuses(now, &task("b", "c")).is_none() {
                blame.note(&task("b", "c"), made(&task("b", "c")), SECOND * seconds as u32);
                tries += 1;
            }
            assert!((2..=11).contains(&tries), "{tries}");
            for of_lost in [task(lost, "d"), task("d", lost)] {
                let refused = blame.refuses(now, &of_lost).unwrap();
                assert_eq!(refused.reason_code, Some(code));
                assert!(refused.reason.unwrap().contains(lost));
            }
            assert_eq!(blame.refuses(now, &task(other, "d")), None, "{other} has answered");
        }
    }

    /// Somebody else has it prove a pair all the time that takes 12 seconds, and that rests as long.
    #[test]
    fn a_node_that_another_one_keeps_busy_is_not_given_up() {
        let (mut blame, now) = blame();
        for at in 0..1000 {
            let took = if at % 20 == 0 { SECOND * 13 } else { SECOND / 2 };
            blame.note(&task("b", "c"), proven(&task("b", "c")), took);
        }
        assert_eq!(blame.refuses(now, &task("b", "c")), None);
    }

    /// A node gone bad says of all others that they do not answer. Each has four pairs with it.
    #[test]
    fn what_one_node_says_of_another_costs_that_little() {
        let (mut blame, now) = blame();
        for _ in 0..4 {
            blame.note(&task("bad", "c"), unanswered(&task("bad", "c")), SECOND * 36);
        }
        assert_eq!(blame.refuses(now, &task("b", "c")), None);
        assert!(blame.refuses(now, &task("bad", "d")).is_some(), "it took its time");
    }

    #[test]
    fn what_would_be_so_with_all_others_ends_the_run() {
        let (mut blame, now) = blame();
        let here = |ends| Err(NoProof::Here(NotMade { why: "no agent runs".to_owned(), ends }));
        let first = blame.note(&task("a", "b"), here(false), SECOND);
        assert_eq!(first.reason.unwrap(), "the proof was not made: no agent runs");
        assert_eq!(blame.refuses(now, &task("b", "c")), None);
        blame.note(&task("a", "b"), here(true), SECOND);
        let refused = blame.refuses(now, &task("b", "c")).unwrap();
        assert_eq!(refused.reason_code, Some(ProofCode::NotMade));
        let words = "the proof was not made: the run ended at b (10.0.0.2): no agent runs";
        assert_eq!(refused.reason.unwrap(), words);
        assert_eq!(refused.by, Some(name("b")));
    }

    #[test]
    fn it_ends_in_time_and_the_own_node_is_never_given_up() {
        let (mut blame, now) = blame();
        for _ in 0..9 {
            blame.note(&task("a", "b"), proven(&task("a", "b")), SECOND * 25);
        }
        assert_eq!(blame.refuses(now, &task("a", "b")), None);
        let refused = blame.refuses(now + LONGEST, &task("a", "b")).unwrap();
        assert!(refused.reason.unwrap().contains("15 minutes"));
    }
}
