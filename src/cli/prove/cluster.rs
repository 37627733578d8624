//! `hostseal prove --cluster`: has the pairs of all nodes proven, those of this node here, and each other one by one of its
//! ends, which is asked inside IKE.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::course::{NotMade, prove_here};
use super::schedule::{ProofPlan, ProofTask, next_round};
use super::wire::ClearOnPurpose;
use crate::cli::client::Client;
use crate::cli::progress::{self, Medium};
use crate::config::{Config, Node};
use crate::control::{ClusterReply, ClusterRequest, MemberProofReply, MemberProofRequest, ProveOrder};
use crate::observe::MemberProving;
use crate::observe::pair_proof::{Doubt, PairProof, ProofCode, ProofResult};
use crate::types::NodeName;

/// So many proofs are made at a time, of hosts that have none in common.
const AT_ONCE: usize = 16;
/// How long this host's agent may take to say what another node has said.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may be busy with the proofs of others.
const BUSY_PATIENCE: Duration = Duration::from_secs(30);
/// After how long it is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// What a proof may take without being held against both ends, and how much more than that all those of a node may take.
const USUAL: Duration = Duration::from_secs(5);
const NODE_PATIENCE: Duration = Duration::from_secs(120);
/// All of it takes no longer, but for what was begun.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// How the pairs of other nodes are proven.
struct ProofCourse<'c> {
    client: &'c Client,
    own: &'c NodeName,
    ground: Arc<ClearOnPurpose>,
    nat_port: u16,
    /// Nodes that do not answer, or keep others waiting: nothing is tried with them any more.
    lost: BTreeMap<NodeName, String>,
    /// How much longer than usual the proofs with each node took.
    spent: BTreeMap<NodeName, Duration>,
    end: Instant,
}

/// Why a pair of another node was not proven.
enum NoProof {
    Here(NotMade),
    /// The node that was to prove it does not answer.
    Silent,
    /// It has its hands full.
    Busy,
    /// Why nothing is tried with one of both nodes any more.
    Lost(String),
    /// It answers something else.
    Strange,
}

/// Does all that is planned, and says what came of each pair.
pub(super) fn prove_all(
    (config, own): (&Config, &Node),
    client: &Client,
    plan: ProofPlan,
    quiet: bool,
) -> Vec<PairProof> {
    let mut course = ProofCourse {
        client,
        own: &own.name,
        ground: Arc::new(ClearOnPurpose::of(config, own)),
        nat_port: config.keying.nat_port,
        lost: BTreeMap::new(),
        spent: BTreeMap::new(),
        end: Instant::now() + LONGEST,
    };
    let (count, mut proofs, mut waiting) = (plan.tasks.len(), plan.open, VecDeque::from(plan.tasks));
    let (medium, mut lines) = (Medium::of_stderr(quiet), Vec::new());
    while !waiting.is_empty() {
        if matches!(medium, Medium::Drawing) {
            let failed = proofs.iter().filter(|proof| proof.result == ProofResult::Failed).count();
            let failed = if failed > 0 { format!(", {failed} FAILED") } else { String::new() };
            let done = format!("{} of {count} pairs are done{failed}", count - waiting.len());
            progress::redraw(&mut lines, vec![done]);
        }
        let round = next_round(&mut waiting, AT_ONCE);
        proofs.extend(course.prove(&round));
    }
    progress::redraw(&mut lines, Vec::new());
    proofs.sort_by(|one, other| {
        let key = |proof: &PairProof| (proof.by.clone(), proof.node.clone(), proof.local, proof.remote);
        key(one).cmp(&key(other))
    });
    proofs
}

impl ProofCourse<'_> {
    /// Has those proven at the same time.
    fn prove(&mut self, round: &[ProofTask]) -> Vec<PairProof> {
        let this = &*self;
        let timed = |task| {
            let began = Instant::now();
            (this.prove_one(task), began.elapsed())
        };
        let made: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = round.iter().map(|task| scope.spawn(move || timed(task))).collect();
            let failed = || (Err(NoProof::Strange), Duration::ZERO);
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| failed())).collect()
        });
        let mut proofs = Vec::new();
        for (task, (made, took)) in round.iter().zip(made) {
            self.charge(task, took);
            proofs.push(made.unwrap_or_else(|why| self.note(task, why)));
        }
        proofs
    }

    /// A proof took so long. A node gone bad could keep all others waiting.
    fn charge(&mut self, task: &ProofTask, took: Duration) {
        for node in [&task.by, &task.node].into_iter().filter(|node| *node != self.own) {
            let spent = self.spent.entry(node.clone()).or_default();
            *spent += took.saturating_sub(USUAL);
            if *spent > NODE_PATIENCE {
                let why = || format!("nothing more was tried with {node}: proofs with it take too long");
                self.lost.entry(node.clone()).or_insert_with(why);
            }
        }
    }

    fn prove_one(&self, task: &ProofTask) -> Result<PairProof, NoProof> {
        if Instant::now() >= self.end {
            let why = format!("all pairs together take longer than {} minutes", LONGEST.as_secs() / 60);
            return Err(NoProof::Here(NotMade { why, ends: false }));
        }
        if let Some(why) = [&task.by, &task.node].into_iter().find_map(|node| self.lost.get(node)) {
            return Err(NoProof::Lost(why.clone()));
        }
        if task.by == *self.own {
            let made = prove_here(self.client, &self.ground, task.pair, self.nat_port);
            return made.map(|proof| PairProof { by: Some(task.by.clone()), ..proof }).map_err(NoProof::Here);
        }
        self.ask(task)
    }

    /// Asks the end that is to prove it.
    fn ask(&self, task: &ProofTask) -> Result<PairProof, NoProof> {
        let ProofTask { by, node, pair } = task;
        let order = ProveOrder { local: pair.local, remote: pair.remote };
        let request = ClusterRequest::Proofs(MemberProofRequest::Prove { by: by.clone(), pair: order });
        let until = Instant::now() + BUSY_PATIENCE;
        loop {
            let reply = self.client.cluster_within(request.clone(), ANSWER_PATIENCE);
            match reply.map_err(|error| NoProof::Here(error.into()))? {
                ClusterReply::Proofs(MemberProofReply::Said(Some(MemberProving::Busy))) => {
                    if Instant::now() + AGAIN >= until {
                        return Err(NoProof::Busy);
                    }
                    thread::sleep(AGAIN);
                }
                ClusterReply::Proofs(MemberProofReply::Said(Some(said))) => {
                    return said.proof_of(by, node, *pair).ok_or(NoProof::Strange);
                }
                ClusterReply::Proofs(MemberProofReply::Said(None)) => return Err(NoProof::Silent),
                _ => return Err(NoProof::Strange),
            }
        }
    }

    /// What is said of a pair that was not proven.
    fn note(&mut self, task: &ProofTask, why: NoProof) -> PairProof {
        let ProofTask { by, node, pair } = task;
        let doubt = |code, words| task.without_proof(Doubt::inconclusive(code, words));
        match why {
            NoProof::Here(not_made) => {
                PairProof { by: Some(by.clone()), ..not_made.proof(node.clone(), *pair) }
            }
            NoProof::Busy => {
                let words = format!("{by} is busy with the proofs of others: try again later");
                self.lost.insert(by.clone(), words.clone());
                doubt(ProofCode::Busy, words)
            }
            NoProof::Strange => {
                doubt(ProofCode::NotMade, format!("{by} has answered something else than what it was asked"))
            }
            NoProof::Silent => {
                let words =
                    format!("{by}, which was asked to prove pairs, did not say in time what came of it");
                self.lost.insert(by.clone(), words.clone());
                doubt(ProofCode::NoAnswer, words)
            }
            NoProof::Lost(why) => doubt(ProofCode::NoAnswer, why),
        }
    }
}
