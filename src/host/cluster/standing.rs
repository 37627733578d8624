//! How the members stand: each says it of itself, from its kernel, when it is asked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Host;
use super::questions::{AskedMembers, Questions};
use super::readiness::Readiness;
use super::rows::{ClusterSeen, conflict, hex, one_sided, problems};
use crate::control::{ClusterReply, ErrorCode, Reply};
use crate::host::answer::refusal;
use crate::host::ledger::Asker;
use crate::host::system::System;
use crate::observe::cluster::{ClusterStatus, ClusterSummary, ConflictRow, DesiredState};
use crate::observe::status::{SCHEMA, Status};
use crate::observe::{MemberReport, MemberWord};
use crate::roster::EntryId;
use crate::types::{Family, Problem, Protection, UnixTime};

/// How long the others have to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often this host looks at its kernel to tell others how it stands.
const FRESH: Duration = Duration::from_millis(250);
/// The most questions at a time: whoever asks one more gets the answer of the last.
const QUESTIONS_MAX: usize = 16;

/// Questions of this host's operator, and what this host said last.
#[derive(Default)]
pub(super) struct Standings {
    pub(super) questions: Questions<(), MemberReport>,
    /// What was said last of this host, and when.
    own: Option<(Instant, MemberReport)>,
    readiness: Readiness,
    /// What each member said last, and when this host heard it.
    heard: BTreeMap<EntryId, UnixTime>,
}

impl Host {
    /// Asks these members how they stand.
    pub(super) fn ask_members(&mut self, now: Instant, askers: Vec<Asker>, all: AskedMembers) {
        let Some(cluster) = &mut self.cluster else { return };
        let questions = &mut cluster.standings.questions;
        let all = if questions.len() >= QUESTIONS_MAX { AskedMembers::default() } else { all };
        let said = MemberWord::Ask(questions.next()).to_bytes();
        questions.ask(now, (askers, ()), said, PATIENCE, all);
        self.go_on_asking(now);
    }

    /// A member asks how this host stands.
    pub(super) fn tell_standing(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        line: EntryId,
        number: u64,
    ) {
        let report = self.own_report(now, system);
        if let (Ok(report), Some(core)) = (report, &mut self.core) {
            core.say_aside(now, line, MemberWord::Report(number, Box::new(report)).to_bytes());
        }
    }

    /// How this host stands. However often others ask, the kernel is read a few times a second.
    fn own_report(&mut self, now: Instant, system: &mut dyn System) -> anyhow::Result<MemberReport> {
        let last = self.cluster.as_ref().and_then(|cluster| cluster.standings.own.as_ref());
        if let Some((at, report)) = last
            && now < *at + FRESH
        {
            return Ok(report.clone());
        }
        let status = self.status(system)?;
        let report = self.report_of(now, &status, system);
        if let Some(cluster) = &mut self.cluster {
            cluster.standings.own = Some((now, report.clone()));
        }
        Ok(report)
    }

    /// What this host says of itself.
    fn report_of(&mut self, now: Instant, status: &Status, system: &mut dyn System) -> MemberReport {
        let families = Family::all_of(&self.setup.node.addresses);
        let unready = self.cluster.as_mut().and_then(|cluster| {
            cluster.standings.readiness.unready(now, status.protection, &families, system)
        });
        let opened = self.opened_mark();
        let wrapped =
            self.cluster.as_ref().map(|cluster| cluster.member_key(status, &self.setup.config, opened));
        let roster = self.roster().filter(|_| self.goes_by_roster());
        let roster_id = roster.map(|(roster, _)| hex(roster.id().octets()));
        MemberReport::of(status, self.overrides(), wrapped, unready, roster_id)
    }

    /// Whether nothing of the roster or the file is new that this host is about to go by.
    fn goes_by_roster(&self) -> bool {
        let changes = self.cluster.as_ref().and_then(|cluster| cluster.changes.deadline());
        changes.is_none() && self.reads.is_empty()
    }

    /// Answers those whose question all have answered, or have had the time to.
    pub(super) fn answer_standings(&mut self, now: Instant, system: &mut dyn System) {
        let Some(cluster) = &mut self.cluster else { return };
        for question in cluster.standings.questions.take_due(now) {
            let reply = match self.cluster_status(system, &question.answers) {
                Ok(status) => Reply::Cluster(ClusterReply::Status(Box::new(status))),
                Err(error) => refusal(ErrorCode::Failed, &error),
            };
            self.answer_all(now, question.askers, reply);
        }
    }

    /// Whether this host's operator wants something else here than what the cluster is to do.
    pub(super) fn overrides(&self) -> bool {
        let Some((roster, _)) = self.roster() else { return false };
        let desired = roster.view().desired.as_ref();
        let followed = desired.is_none_or(|desired| self.saved.followed == Some(desired.id));
        let wanted = self.desired_now() == DesiredState::On;
        followed && desired.is_some() && wanted != (self.saved.protection == Protection::On)
    }

    /// What the cluster is to do, as far as this host knows: a trial that is over is no more.
    pub(super) fn desired_now(&self) -> DesiredState {
        let Some((roster, _)) = self.roster() else { return DesiredState::Unset };
        let Some(desired) = &roster.view().desired else { return DesiredState::Unset };
        let lapsed = desired.says.trial.is_some() && self.cluster_trial().is_none();
        let on = if lapsed { desired.says.lapses_to() } else { desired.says.on };
        if on { DesiredState::On } else { DesiredState::Off }
    }

    fn cluster_status(
        &mut self,
        system: &mut dyn System,
        reports: &BTreeMap<EntryId, MemberReport>,
    ) -> anyhow::Result<ClusterStatus> {
        let status = self.status(system)?;
        let desired = self.desired_now();
        let own = self.report_of(self.moment.now, &status, system);
        if let Some(cluster) = &mut self.cluster {
            cluster.standings.heard.extend(reports.keys().map(|line| (*line, status.time)));
        }
        let members = self.membership().ok_or_else(|| anyhow::anyhow!("this host is no member"))?;
        let cluster = self.cluster.as_ref();
        let heard = cluster.map(|cluster| cluster.standings.heard.clone()).unwrap_or_default();
        let roster = members.roster();
        let view = roster.view();
        let own_id = hex(roster.id().octets());
        let mut all = reports.clone();
        all.insert(members.own(), own);
        let seen = ClusterSeen {
            members,
            heard: &heard,
            own_id: &own_id,
            reports: &all,
            now: (self.moment.now, status.time),
            desired,
        };
        let rows = seen.rows();
        let beside: Vec<Problem> = seen.strange().into_iter().chain(seen.skewed()).collect();
        let conflicts: Vec<ConflictRow> = view.conflicts.iter().map(|it| conflict(roster, it)).collect();
        let answering = rows.iter().filter(|row| row.answers).count();
        let same = rows.iter().filter(|row| row.answers).all(|row| row.roster_id.as_ref() == Some(&own_id));
        let claimed = rows.iter().filter_map(|row| row.protected).fold(0, u64::saturating_add);
        let summary = ClusterSummary {
            nodes: rows.len(),
            answering,
            rows: rows.iter().filter_map(|row| row.rows).fold(0, u64::saturating_add),
            protected: claimed.saturating_sub(one_sided(&all, view)),
        };
        let own_member = view.member(members.own());
        let settings_end = cluster.and_then(|cluster| cluster.tried.deadline());
        let optional_since = cluster.and_then(|cluster| cluster.optional_since);
        let optional_for = optional_since.map(|since| self.moment.now.saturating_duration_since(since));
        let mut problems =
            problems(&status, (roster, &rows), members.own(), &self.setup.config, optional_for);
        problems.extend(beside);
        Ok(ClusterStatus {
            schema: SCHEMA,
            cluster: view.cluster.clone(),
            cluster_id: hex(roster.cluster().octets()),
            roster_id: own_id,
            node: own_member.map(|member| member.site.name.clone()),
            desired,
            try_ends_in_s: status.try_ends_in_s,
            settings_try_end_in_s: settings_end.map(|end| seconds_until(end, self.moment.now)),
            consistent: same && conflicts.is_empty(),
            summary,
            conflicts,
            problems,
            nodes: rows,
        })
    }
}

/// As a status says it: a trial that is about to end has a second.
fn seconds_until(end: Instant, now: Instant) -> u64 {
    end.saturating_duration_since(now).as_secs() + 1
}
