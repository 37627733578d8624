//! How the members stand: each says it of itself, from its kernel, when it is asked.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::Host;
use crate::control::{ClusterReply, Reply};
use crate::host::ledger::Asker;
use crate::host::system::System;
use crate::observe::cluster::{
    ClockSkew, ClusterStatus, ClusterSummary, ConflictRow, DesiredState, MemberRow, MemberTrouble,
};
use crate::observe::status::{SCHEMA, Status};
use crate::observe::{MemberReport, MemberWord};
use crate::roster::{Conflict, EntryId, Matter, Member, RosterView};
use crate::types::{NodeName, Problem, ProblemCode, Protection, UnixTime};

/// How long the others have to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often this host looks at its kernel to tell others how it stands.
const FRESH: Duration = Duration::from_millis(250);
/// The most questions at a time: whoever asks one more gets the answer of the last.
const QUESTIONS_MAX: usize = 16;

/// Questions of this host's operator, and what this host said last.
#[derive(Default)]
pub(super) struct Standings {
    questions: Vec<StandingQuestion>,
    asked: u64,
    /// What was said last of this host, and when.
    own: Option<(Instant, MemberReport)>,
    /// What each member said last, and when this host heard it.
    heard: BTreeMap<EntryId, UnixTime>,
}

/// Somebody wants to know how all stand.
struct StandingQuestion {
    asker: Asker,
    number: u64,
    deadline: Instant,
    waits_for: BTreeSet<EntryId>,
    reports: BTreeMap<EntryId, MemberReport>,
}

impl Standings {
    /// A member says how it stands.
    pub(super) fn note(&mut self, number: u64, line: EntryId, report: &MemberReport) {
        for question in self.questions.iter_mut().filter(|question| question.number == number) {
            if question.waits_for.remove(&line) {
                question.reports.insert(line, report.clone());
            }
        }
    }

    /// When an answer is due, whoever is still silent.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.questions.iter().map(|question| question.deadline).min()
    }
}

impl Host {
    /// Asks all members that can be talked to.
    pub(super) fn ask_members(&mut self, now: Instant, asker: Asker) {
        let reached: BTreeSet<EntryId> =
            self.membership().map(|members| members.reached().collect()).unwrap_or_default();
        let Some(cluster) = &mut self.cluster else { return };
        let standings = &mut cluster.standings;
        standings.asked += 1;
        let number = standings.asked;
        let many = standings.questions.len() >= QUESTIONS_MAX;
        let deadline = if many { now } else { now + PATIENCE };
        let (waits_for, reports) = (reached.clone(), BTreeMap::new());
        standings.questions.push(StandingQuestion { asker, number, deadline, waits_for, reports });
        let said = MemberWord::Ask(number).to_bytes();
        for line in reached.into_iter().filter(|_| !many) {
            self.core.iter_mut().for_each(|core| core.say_aside(now, line, said.clone()));
        }
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
            core.say_aside(now, line, MemberWord::Report(number, report).to_bytes());
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
        let report = MemberReport::of(&self.status(system)?, self.overrides());
        if let Some(cluster) = &mut self.cluster {
            cluster.standings.own = Some((now, report.clone()));
        }
        Ok(report)
    }

    /// Answers those whose question all have answered, or have had the time to.
    pub(super) fn answer_standings(&mut self, now: Instant, system: &mut dyn System) {
        let Some(cluster) = &mut self.cluster else { return };
        let is_due =
            |question: &mut StandingQuestion| question.waits_for.is_empty() || question.deadline <= now;
        let due: Vec<StandingQuestion> = cluster.standings.questions.extract_if(.., is_due).collect();
        for question in due {
            let reply = match self.cluster_status(system, &question.reports) {
                Ok(status) => Reply::Cluster(ClusterReply::Status(Box::new(status))),
                Err(error) => crate::host::answer::refusal(crate::control::ErrorCode::Failed, &error),
            };
            self.answer(now, question.asker, reply);
        }
    }

    /// Whether this host's operator wants something else here than what the cluster is to do.
    fn overrides(&self) -> bool {
        let Some((roster, _)) = self.roster() else { return false };
        let desired = roster.view().desired.as_ref();
        let followed = desired.is_none_or(|desired| self.saved.followed == Some(desired.id));
        let wanted = self.desired_now() == DesiredState::On;
        followed && desired.is_some() && wanted != (self.saved.protection == Protection::On)
    }

    /// What the cluster is to do, as far as this host knows: a trial that is over is no more.
    fn desired_now(&self) -> DesiredState {
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
        let (overrides, desired) = (self.overrides(), self.desired_now());
        let own = MemberReport::of(&status, overrides);
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
        let rows: Vec<MemberRow> = view
            .members
            .iter()
            .map(|member| {
                let is_own = member.line == members.own();
                let id = if is_own {
                    Some(own_id.clone())
                } else {
                    members.has(member.line).map(|id| hex(id.octets()))
                };
                let seen = MemberSeen {
                    member,
                    report: all.get(&member.line),
                    roster_id: id.filter(|_| all.contains_key(&member.line)),
                    heard: if is_own { Some(status.time) } else { heard.get(&member.line).copied() },
                    now: status.time,
                    desired,
                };
                let disagrees = all.get(&member.line).and_then(|_| disagreement(member, &all, view));
                seen.row(
                    &own_id,
                    members.duplicates(self.moment.now).any(|line| line == member.line),
                    disagrees,
                )
            })
            .chain(
                view.held_out
                    .iter()
                    .map(|out| held_out(&out.site.name, &out.site.addresses, &out.why.to_string())),
            )
            .collect();
        let conflicts: Vec<ConflictRow> = view.conflicts.iter().map(|it| conflict(roster, it)).collect();
        let answering = rows.iter().filter(|row| row.answers).count();
        let same = rows.iter().filter(|row| row.answers).all(|row| row.roster_id.as_ref() == Some(&own_id));
        let summary = ClusterSummary {
            nodes: rows.len(),
            answering,
            rows: rows.iter().filter_map(|row| row.rows).fold(0, u64::saturating_add),
            protected: rows.iter().filter_map(|row| row.protected).fold(0, u64::saturating_add),
        };
        let own_member = view.member(members.own());
        Ok(ClusterStatus {
            schema: SCHEMA,
            cluster: view.cluster.clone(),
            cluster_id: hex(roster.cluster().octets()),
            roster_id: own_id,
            node: own_member.map(|member| member.site.name.clone()),
            desired,
            try_ends_in_s: status.try_ends_in_s,
            consistent: same && conflicts.is_empty(),
            summary,
            conflicts,
            problems: problems(&status, own_member.is_some()),
            nodes: rows,
        })
    }
}

/// In hexadecimal digits.
fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// What is known of a member.
struct MemberSeen<'a> {
    member: &'a Member,
    report: Option<&'a MemberReport>,
    roster_id: Option<String>,
    heard: Option<UnixTime>,
    now: UnixTime,
    desired: DesiredState,
}

impl MemberSeen<'_> {
    fn row(self, own_id: &str, duplicate: bool, disagrees: Option<String>) -> MemberRow {
        let trouble = self.trouble(own_id, duplicate, disagrees);
        let Self { member, report, roster_id, heard, now, .. } = self;
        let skew = |report: &MemberReport| ClockSkew {
            ms: (i64::try_from(report.time.0).unwrap_or(i64::MAX))
                .saturating_sub(i64::try_from(now.0).unwrap_or(i64::MAX))
                .saturating_mul(1000),
        };
        let (reason_code, reason) = trouble.unzip();
        MemberRow {
            name: member.site.name.clone(),
            addresses: member.site.addresses.clone(),
            admin: member.admin,
            foreign: member.foreign,
            answers: report.is_some(),
            last_heard: heard,
            version: report.map(|report| report.version.clone()),
            protection: report.map(|report| report.protection),
            local: report.filter(|report| report.overridden).map(|report| report.protection),
            rows: report.map(|report| report.rows),
            protected: report.map(|report| report.protected),
            under_way: report.and_then(|report| report.under_way),
            waiting: report.and_then(|report| report.waiting),
            roster_id,
            secret_id: report.and_then(|report| report.secret_id.clone()),
            clock_skew_s: report.map(skew),
            reason_code,
            reason,
        }
    }

    fn trouble(
        &self,
        own_id: &str,
        duplicate: bool,
        disagrees: Option<String>,
    ) -> Option<(MemberTrouble, String)> {
        let name = &self.member.site.name;
        if self.member.foreign {
            return None;
        }
        if self.member.keys.is_none() {
            let words = format!("it has not joined: `hostseal token create {name}` makes a token for it");
            return Some((MemberTrouble::NotJoined, words));
        }
        if duplicate {
            let words = "two machines use its keys: one of them has a copy. Remove the node and let each machine join \
                         with a token for its name";
            return Some((MemberTrouble::DuplicateNode, words.to_owned()));
        }
        let Some(report) = self.report else {
            let words = "it does not answer: is its agent running, and does UDP 500 get through?";
            return Some((MemberTrouble::NoAnswer, words.to_owned()));
        };
        if self.roster_id.as_deref() != Some(own_id) {
            return Some((
                MemberTrouble::RosterDiffers,
                "it has another roster; they are being merged".to_owned(),
            ));
        }
        if report.overridden {
            let command = if self.desired == DesiredState::On { "enable" } else { "disable" };
            let words = format!("its operator wants otherwise: `hostseal {command}` there ends that");
            return Some((MemberTrouble::Overridden, words));
        }
        if self.desired == DesiredState::On && report.protected < report.rows {
            let names: Vec<&str> = report.unprotected.iter().take(4).map(NodeName::as_str).collect();
            let words = format!("not protected with {}: run `hostseal status` there", names.join(", "));
            return Some((MemberTrouble::NotProtected, words));
        }
        if let Some(words) = disagrees {
            return Some((MemberTrouble::PairDisagrees, words));
        }
        if report.problems > 0 || report.is_stuck {
            return Some((
                MemberTrouble::Problems,
                "it has problems: run `hostseal status` there".to_owned(),
            ));
        }
        None
    }
}

/// A pair that this member calls protected and the other end does not.
fn disagreement(member: &Member, all: &BTreeMap<EntryId, MemberReport>, view: &RosterView) -> Option<String> {
    let own = all.get(&member.line)?;
    let calls = |report: &MemberReport, name: &NodeName| report.unprotected.contains(name);
    let others = all.iter().filter(|(line, _)| **line != member.line);
    let mut against =
        others.filter(|(_, report)| calls(report, &member.site.name)).filter_map(|(line, _)| {
            let other = &view.member(*line)?.site.name;
            (own.protection == Protection::On && !calls(own, other)).then_some(other)
        });
    against.next().map(|other| {
        format!("{other} says that the pair with it is not protected: run `hostseal status` on {other}")
    })
}

fn held_out(name: &NodeName, addresses: &[std::net::IpAddr], why: &str) -> MemberRow {
    MemberRow {
        name: name.clone(),
        addresses: addresses.to_vec(),
        admin: false,
        foreign: false,
        answers: false,
        last_heard: None,
        version: None,
        protection: None,
        local: None,
        rows: None,
        protected: None,
        under_way: None,
        waiting: None,
        roster_id: None,
        secret_id: None,
        clock_skew_s: None,
        reason_code: Some(MemberTrouble::HeldOut),
        reason: Some(format!(
            "it is no member until an admin decides: {why}. `hostseal remove {name}` takes it out"
        )),
    }
}

fn conflict(roster: &crate::roster::Roster, conflict: &Conflict) -> ConflictRow {
    let signer = |id: EntryId| {
        let by = roster.get(id).and_then(|entry| roster.line_of(&entry.statement().by));
        let member = by.and_then(|line| roster.view().member(line));
        member.map_or_else(|| "a node that is gone".to_owned(), |member| member.site.name.to_string())
    };
    let (about, mends) = match &conflict.about {
        Matter::Desired => {
            ("whether the cluster is protected", "hostseal enable --cluster or disable --cluster")
        }
        Matter::Settings => ("the settings", "hostseal settings set"),
        Matter::Secret => ("the secret", "hostseal rotate"),
        _ => ("a node", "hostseal add or remove"),
    };
    let (winner, loser) = (signer(conflict.winner), signer(conflict.loser));
    let message = format!(
        "{winner} and {loser} have changed {about} at once; what {winner} said counts. An admin settles it: {mends}"
    );
    ConflictRow { about: about.to_owned(), winner, loser, message }
}

/// What is wrong with the cluster as this host sees it, beside what the rows say.
fn problems(status: &Status, is_member: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    if !is_member {
        let words = "this node was removed from the cluster, or is held out: what is shown may be old. \
                     `hostseal status --cluster` on another node shows why; with a new token it can join again";
        problems.push(Problem::critical(ProblemCode::Other, None, words));
    }
    if let Some(trouble) = &status.config_error {
        problems.push(Problem::critical(ProblemCode::Other, status.node.clone(), trouble.clone()));
    }
    problems
}
