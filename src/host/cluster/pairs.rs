//! How the pairs of all members stand: each tells of those that it has. Many may look at that all the time, so the members are
//! asked once in a while for all of them, and nobody is called for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::questions::{AskedMembers, OpenQuestion, Questions};
use super::{ClusterPart, Host};
use crate::control::{ClusterReply, ErrorCode, Reply};
use crate::host::answer::refusal;
use crate::host::ledger::Asker;
use crate::host::system::System;
use crate::observe::MemberWord;
use crate::observe::member_pairs::{ClusterPairs, MemberPairs, NODES_MAX, NodePairs, NodeVoice, pairs_of};
use crate::roster::EntryId;
use crate::types::UnixTime;

/// How long the others have to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often at most the members are asked.
const PACE: Duration = Duration::from_secs(10);
/// How often this host looks at its kernel to tell others how its pairs stand.
const FRESH: Duration = Duration::from_secs(1);

/// Questions of those who look, and what came of the last one.
#[derive(Default)]
pub(super) struct PairQuestions {
    pub(super) questions: Questions<UnixTime, MemberPairs>,
    /// When the members were asked last, and what they said.
    asked_at: Option<Instant>,
    last: Option<ClusterPairs>,
    /// What was said last of this host, and when.
    own: Option<(Instant, Vec<MemberPairs>)>,
}

impl PairQuestions {
    /// What is fresh enough for everybody.
    fn fresh(&self, now: Instant) -> Option<ClusterPairs> {
        self.last.clone().filter(|_| self.asked_at.is_some_and(|at| now < at + PACE))
    }
}

impl Host {
    /// Asks all members that can be talked to, or tells what they said lately.
    pub(super) fn ask_pairs(&mut self, now: Instant, mut askers: Vec<Asker>) {
        let wall = self.moment.wall;
        let few = self.roster().is_some_and(|(roster, _)| roster.view().members.len() <= NODES_MAX);
        let all = if few { self.near_members() } else { AskedMembers::default() };
        let Some(ClusterPart { pairs, .. }) = &mut self.cluster else { return };
        if let Some(fresh) = pairs.fresh(now) {
            let reply = Reply::Cluster(ClusterReply::Pairs(Box::new(fresh)));
            return self.answer_all(now, askers, reply);
        }
        if !pairs.questions.wait_too(&mut askers) {
            let said = MemberWord::AskPairs(pairs.questions.next()).to_bytes();
            pairs.asked_at = Some(now);
            pairs.questions.ask(now, (askers, wall), said, PATIENCE, all);
            self.go_on_asking(now);
        }
    }

    /// A member asks how the pairs of this host stand. However often others ask, the kernel is read once a second.
    pub(super) fn tell_pairs(&mut self, now: Instant, system: &mut dyn System, line: EntryId, number: u64) {
        let last = self.cluster.as_ref().and_then(|cluster| cluster.pairs.own.as_ref());
        if last.is_none_or(|(at, _)| now >= *at + FRESH) {
            let Ok(status) = self.status(system) else { return };
            self.cluster.iter_mut().for_each(|it| it.pairs.own = Some((now, MemberPairs::of(&status))));
        }
        let own = self.cluster.as_ref().and_then(|cluster| cluster.pairs.own.clone());
        for part in own.into_iter().flat_map(|(_, parts)| parts) {
            let said = MemberWord::Pairs(number, part).to_bytes();
            self.core.iter_mut().for_each(|core| core.say_aside(now, line, said.clone()));
        }
    }

    /// A member says how its pairs stand, or some of them.
    pub(super) fn hear_pairs(&mut self, line: EntryId, number: u64, part: &MemberPairs) {
        let Some(ClusterPart { pairs, .. }) = &mut self.cluster else { return };
        pairs.questions.note_part(number, line, !part.more, |answers| {
            answers.entry(line).or_default().join(part.clone());
        });
    }

    /// Answers those whose question all have answered, or have had the time to.
    pub(super) fn answer_pairs(&mut self, now: Instant, system: &mut dyn System) {
        let Some(ClusterPart { pairs, .. }) = &mut self.cluster else { return };
        for mut question in pairs.questions.take_due(now) {
            let askers = std::mem::take(&mut question.askers);
            let reply = match self.cluster_pairs(system, question) {
                Ok(pairs) => {
                    self.cluster.iter_mut().for_each(|cluster| cluster.pairs.last = Some(pairs.clone()));
                    Reply::Cluster(ClusterReply::Pairs(Box::new(pairs)))
                }
                Err(error) => refusal(ErrorCode::Failed, &error),
            };
            self.answer_all(now, askers, reply);
        }
    }

    fn cluster_pairs(
        &mut self,
        system: &mut dyn System,
        question: OpenQuestion<UnixTime, MemberPairs>,
    ) -> anyhow::Result<ClusterPairs> {
        // Whoever is not reached any more would not have heard the question.
        let mute: BTreeSet<EntryId> = question.mute().intersection(&self.reached()).copied().collect();
        let OpenQuestion { about: time, mut answers, .. } = question;
        let own = pairs_of(&self.status(system)?);
        let members = self.membership().ok_or_else(|| anyhow::anyhow!("this host is no member"))?;
        answers.insert(members.own(), MemberPairs { pairs: own, ..MemberPairs::default() });
        let view = members.roster().view();
        let listed = if view.members.len() > NODES_MAX { &[] } else { &view.members[..] };
        let nodes = listed.iter().map(|member| {
            let said = answers.remove(&member.line);
            NodePairs {
                node: member.site.name.clone(),
                addresses: member.site.addresses.clone(),
                voice: match (member.foreign, &member.keys) {
                    (true, _) => NodeVoice::Foreign,
                    (false, None) => NodeVoice::NotJoined,
                    (false, Some(_)) if mute.contains(&member.line) => NodeVoice::Mute,
                    (false, Some(_)) => NodeVoice::Member,
                },
                is_partial: said.as_ref().is_some_and(|said| !said.is_whole()),
                said: said.map(|said| said.pairs),
            }
        });
        Ok(ClusterPairs {
            time,
            cluster: view.cluster.clone(),
            desired: self.desired_now(),
            total: view.members.len(),
            nodes: nodes.collect(),
        })
    }
}
