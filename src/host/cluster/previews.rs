//! What other settings would change: each member says it of itself, from its kernel, before anything is signed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::questions::{AskedMembers, OpenQuestion, Questions};
use super::{ClusterPart, Host};
use crate::config::own_part;
use crate::control::{ClusterReply, ErrorCode, NodePlan, PlanLine, Preview, Reply};
use crate::host::ledger::Asker;
use crate::host::system::System;
use crate::observe::{MemberPlan, MemberWord, causes};
use crate::roster::{ASIDE_MAX, EntryId};
use crate::store::{config_with, shared};

/// How long the others have to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often this host looks at its kernel to tell others what would change.
const PAUSE: Duration = Duration::from_millis(250);
/// The most questions at a time.
const QUESTIONS_MAX: usize = 4;

/// Questions of this host's operator.
#[derive(Default)]
pub(super) struct Previews {
    pub(super) questions: Questions<String, MemberPlan>,
    /// When each member was told last, of those that were lately.
    told_at: BTreeMap<EntryId, Instant>,
}

impl Host {
    /// Asks all members.
    pub(super) fn ask_previews(&mut self, now: Instant, asker: Asker, settings: String) {
        let Some(ClusterPart { previews, .. }) = &mut self.cluster else { return };
        let said = MemberWord::Preview(previews.questions.next(), settings.clone()).to_bytes();
        if said.len() > ASIDE_MAX {
            let message = format!(
                "the settings are too long: {} octets where {ASIDE_MAX} fit into the roster",
                said.len()
            );
            return self.answer(now, asker, Reply::Error { code: ErrorCode::Cluster, message });
        }
        // When too many ask, this host alone says.
        let all = match previews.questions.len() < QUESTIONS_MAX {
            true => self.call_members(now),
            false => AskedMembers::default(),
        };
        let Some(ClusterPart { previews, .. }) = &mut self.cluster else { return };
        previews.questions.ask(now, (vec![asker], settings), said, PATIENCE, all);
        self.go_on_asking(now);
    }

    /// A member asks what these settings would change here.
    pub(super) fn tell_preview(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        line: EntryId,
        (number, settings): (u64, &str),
    ) {
        let Some(ClusterPart { previews, .. }) = &mut self.cluster else { return };
        previews.told_at.retain(|_, at| now < *at + PAUSE);
        if previews.told_at.insert(line, now).is_some() {
            return;
        }
        let said = MemberWord::Plan(number, self.plan_of(now, system, settings)).to_bytes();
        self.core.iter_mut().for_each(|core| core.say_aside(now, line, said.clone()));
    }

    /// Answers those whose question all have answered, or have had the time to.
    pub(super) fn answer_previews(&mut self, now: Instant, system: &mut dyn System) {
        let Some(ClusterPart { previews, .. }) = &mut self.cluster else { return };
        for OpenQuestion { askers, about: settings, answers: mut plans, .. } in
            previews.questions.take_due(now)
        {
            let own = self.plan_of(now, system, &settings);
            let Some((roster, (line, _))) = self.roster() else { continue };
            plans.insert(line, own);
            let members = roster.view().members.iter().filter(|member| member.keys.is_some());
            let all = members.map(|member| NodePlan {
                node: member.site.name.clone(),
                plan: plans.get(&member.line).cloned(),
            });
            let reply = Reply::Cluster(ClusterReply::Plans(all.collect()));
            self.answer_all(now, askers, reply);
        }
    }

    /// What these settings would change on this host.
    fn plan_of(&self, now: Instant, system: &mut dyn System, settings: &str) -> MemberPlan {
        match self.try_plan(now, system, settings) {
            Ok(plan) => plan,
            Err(error) => MemberPlan::refused(&causes::words(error.as_ref())),
        }
    }

    fn try_plan(&self, now: Instant, system: &mut dyn System, settings: &str) -> anyhow::Result<MemberPlan> {
        let (roster, (own, key)) = self.roster().context("this host is no member")?;
        let local = own_part(&self.setup.config);
        shared(roster.view(), own, self.tried_settings()).check_settings(settings, &local)?;
        let config = config_with(roster, (own, key), settings, (&local, "the settings"))?;
        let Preview { file, kernel } = self.preview_of(now, system, config)?;
        Ok(MemberPlan::of(file, kernel.iter().map(PlanLine::in_words).collect()))
    }
}
