//! Proofs of other members' pairs (`prove --cluster`): this host's operator has them made, one end of each is asked; and
//! this host makes those that others ask for.
//!
//! Any member may ask, an admin or not. Nothing is changed by a proof, and any member can have one made with itself
//! anyway. What others can cause is paced (`prover`): one for each member at a time, after those of commands here, and
//! each member rests after its own.

use std::time::{Duration, Instant};

use super::questions::{AskedMembers, OpenQuestion, Questions};
use super::{ClusterPart, Host};
use crate::control::{ClusterReply, ErrorCode, MemberProofReply, MemberProofRequest, ProveOrder, Reply};
use crate::host::ledger::Asker;
use crate::host::prover::{MEMBER_PATIENCE, ProofAsker, WAIT_PATIENCE};
use crate::host::proving::NotBegun;
use crate::observe::pair_proof::PairProof;
use crate::observe::{MemberProving, MemberWord};
use crate::roster::EntryId;

/// How long the others have to say that they can.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long one has to prove a pair, once it has waited for its turn; and for the words on their way.
const PROOF_PATIENCE: Duration =
    WAIT_PATIENCE.saturating_add(MEMBER_PATIENCE).saturating_add(Duration::from_secs(2));
/// The most questions at a time.
const QUESTIONS_MAX: usize = 32;

/// Questions of this host's operator. What is about all has no member.
pub(super) type ProofQuestions = Questions<Option<EntryId>, MemberProving>;

impl Host {
    /// Asks who can, or has one of the others prove a pair.
    pub(super) fn ask_proofs(&mut self, now: Instant, asker: Asker, request: MemberProofRequest) {
        let Some(ClusterPart { proofs, .. }) = &self.cluster else { return };
        if proofs.len() >= QUESTIONS_MAX {
            let message = "too many proofs of other nodes are under way here: try again".to_owned();
            return self.answer(now, asker, Reply::Error { code: ErrorCode::Failed, message });
        }
        let number = proofs.next();
        let (about, said, patience, asked) = match request {
            MemberProofRequest::WhoCan => (None, MemberProving::CanYou, PATIENCE, self.call_members(now)),
            MemberProofRequest::Prove { by, pair: ProveOrder { local, remote } } => {
                let member = self.roster().and_then(|(roster, _)| {
                    roster.view().members.iter().find(|member| member.site.name == by).map(|it| it.line)
                });
                let Some(line) = member else {
                    let message = format!("{by} is no node of this cluster");
                    return self.answer(now, asker, Reply::Error { code: ErrorCode::Cluster, message });
                };
                let asked = self.call_member(now, line);
                (Some(line), MemberProving::Prove { local, remote }, PROOF_PATIENCE, asked)
            }
        };
        let said = MemberWord::Prove(number, said).to_bytes();
        let Some(ClusterPart { proofs, .. }) = &mut self.cluster else { return };
        proofs.ask(now, (vec![asker], about), said, patience, asked);
        self.go_on_asking(now);
    }

    /// One member, which is called where it is far.
    fn call_member(&mut self, now: Instant, line: EntryId) -> AskedMembers {
        let near = self.near_members().only(line);
        if near.is_empty() { self.call_members(now).only(line) } else { near }
    }

    /// A member asks something about proofs, or answers.
    pub(in crate::host) fn hear_proving(
        &mut self,
        now: Instant,
        line: EntryId,
        number: u64,
        said: MemberProving,
    ) {
        let answer = match said {
            MemberProving::CanYou => MemberProving::Can,
            MemberProving::Prove { local, remote } => {
                let asker = ProofAsker::Member { line, number };
                match self.begin_proof(now, asker, ProveOrder { local, remote }) {
                    Ok(()) => return,
                    Err(NotBegun::Known(proof)) => MemberProving::found(*proof),
                    Err(NotBegun::Busy) => MemberProving::Busy,
                }
            }
            answer => {
                let proofs = self.cluster.as_mut().map(|cluster| &mut cluster.proofs);
                return proofs.into_iter().for_each(|proofs| proofs.note(number, line, answer.clone()));
            }
        };
        self.tell_proving(now, line, number, answer);
    }

    /// Tells a member what came of the proof that it has asked for.
    pub(in crate::host) fn tell_member_proof(
        &mut self,
        now: Instant,
        (line, number): (EntryId, u64),
        proof: PairProof,
    ) {
        self.tell_proving(now, line, number, MemberProving::found(proof));
    }

    /// Tells a member that what it has asked for is not made, as others had their turn for too long.
    pub(in crate::host) fn tell_member_busy(&mut self, now: Instant, (line, number): (EntryId, u64)) {
        self.tell_proving(now, line, number, MemberProving::Busy);
    }

    fn tell_proving(&mut self, now: Instant, line: EntryId, number: u64, answer: MemberProving) {
        let said = MemberWord::Prove(number, answer).to_bytes();
        self.core.iter_mut().for_each(|core| core.say_aside(now, line, said.clone()));
    }

    /// Answers those whose question was answered, or had the time to be.
    pub(super) fn answer_proofs(&mut self, now: Instant) {
        let Some(ClusterPart { proofs, .. }) = &mut self.cluster else { return };
        for OpenQuestion { askers, about, mut answers, .. } in proofs.take_due(now) {
            let reply = match about {
                Some(line) => MemberProofReply::Said(answers.remove(&line)),
                None => {
                    let Some((roster, _)) = self.roster() else { continue };
                    let can = |line| answers.get(line) == Some(&MemberProving::Can);
                    let members = roster.view().members.iter().filter(|member| can(&member.line));
                    MemberProofReply::Can(members.map(|member| member.site.name.clone()).collect())
                }
            };
            self.answer_all(now, askers, Reply::Cluster(ClusterReply::Proofs(reply)));
        }
    }
}
