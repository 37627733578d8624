//! `hostseal prove --cluster`: has the pairs of all nodes proven, those of this node here, and each other one by one of its
//! ends, which is asked inside IKE.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::blame::{Blame, NoProof};
use super::course::{NotMade, prove_here};
use super::schedule::{ProofPlan, ProofTask, take_next};
use super::wire::ClearOnPurpose;
use crate::cli::client::Client;
use crate::cli::progress::{self, Medium};
use crate::config::{Config, Node};
use crate::control::{ClusterReply, ClusterRequest, MemberProofReply, MemberProofRequest, ProveOrder};
use crate::observe::MemberProving;
use crate::observe::pair_proof::{PairProof, ProofResult};
use crate::types::NodeName;

/// So many proofs are made at a time, of hosts that have none in common.
const AT_ONCE: usize = 16;
/// How long this host's agent may take to say what another node has said.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// How long a node may be busy with the proofs of others.
const BUSY_PATIENCE: Duration = Duration::from_secs(30);
/// After how long it is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// What it takes to have a pair proven.
struct ProofCourse<'c> {
    client: &'c Client,
    own: &'c NodeName,
    ground: Arc<ClearOnPurpose>,
    nat_port: u16,
}

/// A proof that is being made.
struct UnderWay<'s> {
    task: ProofTask,
    began: Instant,
    thread: ScopedJoinHandle<'s, Result<PairProof, NoProof>>,
}

/// Tells that a thread is done, also where it panics.
struct DoneBell(Sender<usize>, usize);

impl Drop for DoneBell {
    fn drop(&mut self) {
        // Whoever is told is gone only if it has panicked itself.
        let _ = self.0.send(self.1);
    }
}

/// Does all that is planned, and says what came of each pair.
pub(super) fn prove_all(
    (config, own): (&Config, &Node),
    client: &Client,
    plan: ProofPlan,
    quiet: bool,
) -> Vec<PairProof> {
    let course = ProofCourse {
        client,
        own: &own.name,
        ground: Arc::new(ClearOnPurpose::of(config, own)),
        nat_port: config.keying.nat_port,
    };
    let mut proofs = plan.open;
    proofs.extend(course.prove_all(plan.tasks, quiet));
    proofs.sort_by(|one, other| {
        let key = |proof: &PairProof| (proof.by.clone(), proof.node.clone(), proof.local, proof.remote);
        key(one).cmp(&key(other))
    });
    proofs
}

impl ProofCourse<'_> {
    /// Has all of them proven, so many at a time. None waits for another one but where they have a host in common.
    fn prove_all(&self, tasks: Vec<ProofTask>, quiet: bool) -> Vec<PairProof> {
        let (count, mut proofs) = (tasks.len(), Vec::new());
        let (mut waiting, mut busy) = (VecDeque::from(tasks), BTreeSet::new());
        let mut blame = Blame::new(Instant::now(), self.own.clone());
        let (medium, mut lines) = (Medium::of_stderr(quiet), Vec::new());
        let (done, is_done) = mpsc::channel();
        thread::scope(|scope| {
            let mut under_way: Vec<Option<UnderWay<'_>>> = (0..AT_ONCE).map(|_| None).collect();
            loop {
                while let Some(at) = under_way.iter().position(Option::is_none) {
                    let Some(task) = take_next(&mut waiting, &busy) else { break };
                    let began = Instant::now();
                    if let Some(refused) = blame.refuses(began, &task) {
                        proofs.push(refused);
                        continue;
                    }
                    busy.extend([task.by.clone(), task.node.clone()]);
                    let (this, bell) = (task.clone(), DoneBell(done.clone(), at));
                    let thread = scope.spawn(move || {
                        let _bell = bell;
                        self.prove(&this)
                    });
                    under_way[at] = Some(UnderWay { task, began, thread });
                }
                if under_way.iter().all(Option::is_none) {
                    return;
                }
                if matches!(medium, Medium::Drawing) {
                    progress::redraw(&mut lines, vec![progress_of(&proofs, count)]);
                }
                let ended = is_done.recv().ok().and_then(|at| under_way.get_mut(at)?.take());
                let Some(UnderWay { task, began, thread }) = ended else { continue };
                let failed = || NotMade { why: "a part of this command failed".to_owned(), ends: false };
                let made = thread.join().unwrap_or_else(|_| Err(NoProof::Here(failed())));
                busy.retain(|node| *node != task.by && *node != task.node);
                proofs.push(blame.note(&task, made, began.elapsed()));
            }
        });
        progress::redraw(&mut lines, Vec::new());
        proofs
    }

    fn prove(&self, task: &ProofTask) -> Result<PairProof, NoProof> {
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
}

/// How many are done, in words.
fn progress_of(proofs: &[PairProof], count: usize) -> String {
    let failed = proofs.iter().filter(|proof| proof.result == ProofResult::Failed).count();
    let failed = if failed > 0 { format!(", {failed} FAILED") } else { String::new() };
    format!("{} of {count} pairs are done{failed}", proofs.len())
}
