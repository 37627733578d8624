//! Questions of `doctor --cluster`: each member says what its own checks find.

use std::time::{Duration, Instant};

use super::questions::{AskedMembers, OpenQuestion, Questions};
use super::{ClusterPart, Host};
use crate::control::{ClusterReply, NodeChecks, Reply};
use crate::host::ledger::Asker;
use crate::host::system::System;
use crate::observe::MemberWord;
use crate::observe::doctor::MemberChecks;
use crate::roster::EntryId;

/// How long the others have to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often this host looks at its kernel to tell others what its checks find.
const PAUSE: Duration = Duration::from_millis(250);
/// The most questions at a time.
const QUESTIONS_MAX: usize = 4;

/// Questions of this host's operator, and what this host said last.
#[derive(Default)]
pub(super) struct CheckQuestions {
    pub(super) questions: Questions<(), MemberChecks>,
    own: Option<(Instant, MemberChecks)>,
}

impl Host {
    /// Asks all members.
    pub(super) fn ask_checks(&mut self, now: Instant, asker: Asker) {
        let Some(ClusterPart { checks, .. }) = &mut self.cluster else { return };
        let all = match checks.questions.len() < QUESTIONS_MAX {
            true => self.call_members(now),
            false => AskedMembers::default(),
        };
        let Some(ClusterPart { checks, .. }) = &mut self.cluster else { return };
        let said = MemberWord::AskChecks(checks.questions.next()).to_bytes();
        checks.questions.ask(now, (vec![asker], ()), said, PATIENCE, all);
        self.go_on_asking(now);
    }

    /// A member asks what the checks of this host find. However often others ask, the kernel is read a few times a
    /// second.
    pub(super) fn tell_checks(&mut self, now: Instant, system: &mut dyn System, line: EntryId, number: u64) {
        let last = self.cluster.as_ref().and_then(|cluster| cluster.checks.own.as_ref());
        if last.is_none_or(|(at, _)| now >= *at + PAUSE) {
            let Ok(status) = self.status(system) else { return };
            let own = MemberChecks::of(&self.setup.config, &self.setup.node, &status);
            self.cluster.iter_mut().for_each(|cluster| cluster.checks.own = Some((now, own.clone())));
        }
        let own = self.cluster.as_ref().and_then(|cluster| cluster.checks.own.clone());
        if let (Some((_, own)), Some(core)) = (own, &mut self.core) {
            core.say_aside(now, line, MemberWord::Checks(number, own).to_bytes());
        }
    }

    /// Answers those whose question all have answered, or have had the time to.
    pub(super) fn answer_checks(&mut self, now: Instant) {
        let Some(ClusterPart { checks, .. }) = &mut self.cluster else { return };
        for OpenQuestion { askers, answers, .. } in checks.questions.take_due(now) {
            let Some((roster, _)) = self.roster() else { continue };
            let said = roster.view().members.iter().filter_map(|member| {
                let checks = answers.get(&member.line)?.clone();
                Some(NodeChecks { node: member.site.name.clone(), checks })
            });
            let reply = Reply::Cluster(ClusterReply::Checks(said.collect()));
            self.answer_all(now, askers, reply);
        }
    }
}
