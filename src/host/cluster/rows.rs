//! What the members say of themselves becomes rows, with what is wrong and the command that mends it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::config::{ClusterKey, Config};
use crate::host::membership::{Annoyance, Membership, Nuisance};
use crate::ike::reason::Reason;
use crate::observe::cluster::{
    ClockSkew, ConflictRow, DesiredState, KeyProgress, MemberRow, MemberTrouble, OF_SETTINGS,
};
use crate::observe::status::Status;
use crate::observe::wrapping::WrapStage;
use crate::observe::{MemberReport, explain};
use crate::roster::{Conflict, EntryId, KeyStage, Matter, Member, Roster, RosterView};
use crate::store::settings_in_force;
use crate::types::generation::{VERSION, is_older};
use crate::types::units::listed;
use crate::types::{NodeName, Problem, ProblemCode, Protection, UnixTime, Unready};

/// For how long keys may be made without a wrapped secret that is in force: as long as the move to it takes, at most.
const MOVE_MOST: Duration = Duration::from_secs(60 * 60);

/// What this host knows of its cluster at one moment.
pub(super) struct ClusterSeen<'a> {
    pub(super) members: &'a Membership,
    /// When each member was heard.
    pub(super) heard: &'a BTreeMap<EntryId, UnixTime>,
    /// The name of this host's roster.
    pub(super) own_id: &'a str,
    /// What those that answer say of themselves, this host among them.
    pub(super) reports: &'a BTreeMap<EntryId, MemberReport>,
    /// The moment, by the clock that nobody sets and by the time of day.
    pub(super) now: (Instant, UnixTime),
    pub(super) desired: DesiredState,
}

impl ClusterSeen<'_> {
    /// A row for each member, by their names, and for each node that is held out.
    pub(super) fn rows(&self) -> Vec<MemberRow> {
        let view = self.members.roster().view();
        let held_out = view
            .held_out
            .iter()
            .map(|out| held_out(&out.site.name, &out.site.addresses, &out.why.to_string()));
        view.members.iter().map(|member| self.row(member)).chain(held_out).collect()
    }

    fn row(&self, member: &Member) -> MemberRow {
        let Self { members, heard, own_id, reports, now: (now, wall), desired } = *self;
        let (line, view) = (member.line, members.roster().view());
        let report = reports.get(&line);
        let (roster_id, heard) = if line == members.own() {
            (Some(own_id.to_owned()), Some(wall))
        } else {
            (members.has(line).map(|id| hex(id.octets())), heard.get(&line).copied())
        };
        let roster_id = roster_id.filter(|_| report.is_some());
        let duplicate = members.duplicates(now).any(|duplicate| duplicate == line);
        let keys = members.roster().key_stage(member);
        let annoys = members.annoyance(now, line);
        let (elsewhere, unproven) = (members.is_elsewhere(now, line), members.unproven(line));
        let seen = MemberSeen {
            member,
            report,
            roster_id,
            heard,
            keys,
            annoys,
            elsewhere,
            unproven,
            now: wall,
            desired,
        };
        seen.row(own_id, duplicate, disagreement(member, reports, view))
    }

    /// What sound members send for some time, and some go on with: it need not be them who do something wrong.
    pub(super) fn strange(&self) -> Vec<Problem> {
        let (members, now) = (self.members, self.now.0);
        let strange = |member: &Member| {
            let annoys = members.annoyance(now, member.line).filter(|it| it.what != Nuisance::Forges)?;
            Some(Problem::warning(ProblemCode::Other, Some(member.site.name.clone()), annoys.words()))
        };
        members.roster().view().members.iter().filter_map(strange).collect()
    }

    /// Members that go by something else than most with this roster.
    pub(super) fn skewed(&self) -> Vec<Problem> {
        skewed(self.reports, self.members.roster(), self.members.own())
    }
}

/// In hexadecimal digits.
pub(super) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// What is known of a member.
struct MemberSeen<'a> {
    member: &'a Member,
    report: Option<&'a MemberReport>,
    roster_id: Option<String>,
    heard: Option<UnixTime>,
    keys: Option<KeyStage>,
    annoys: Option<Annoyance>,
    elsewhere: bool,
    unproven: Option<&'a Reason>,
    now: UnixTime,
    desired: DesiredState,
}

impl MemberSeen<'_> {
    fn row(self, own_id: &str, duplicate: bool, disagrees: Option<String>) -> MemberRow {
        let (trouble, unready) = (self.trouble(own_id, duplicate, disagrees), self.unready());
        let Self { member, report, roster_id, heard, keys, now, .. } = self;
        let skew = |report: &MemberReport| ClockSkew {
            ms: (i64::try_from(report.time.0).unwrap_or(i64::MAX))
                .saturating_sub(i64::try_from(now.0).unwrap_or(i64::MAX))
                .saturating_mul(1000),
        };
        let (reason_code, reason) = trouble.unzip();
        let keys = keys.map(|stage| match stage {
            KeyStage::Due => KeyProgress::Due,
            KeyStage::Offered => KeyProgress::Offered,
            KeyStage::Current => KeyProgress::Current,
        });
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
            config_id: report.and_then(|report| report.config_id.clone()),
            secret_id: report.and_then(|report| report.secret_id.clone()),
            keys,
            wrapped: report.and_then(|report| report.wrapped.clone()),
            clock_skew_s: report.map(skew),
            unready: unready.map(explain::unready),
            unready_code: unready,
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
        if let Some(trouble) = self.annoying() {
            return Some(trouble);
        }
        let Some(report) = self.report else { return Some(self.silent()) };
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
        if let Some(why) = self.unready() {
            return Some((MemberTrouble::Problems, explain::unready(why)));
        }
        if report.problems > 0 {
            return Some((
                MemberTrouble::Problems,
                "it has problems: run `hostseal status` there".to_owned(),
            ));
        }
        None
    }

    /// What keeps it from being protected.
    fn unready(&self) -> Option<Unready> {
        let report = self.report?;
        if report.is_stuck { Some(Unready::File) } else { report.unready }
    }
}

impl MemberSeen<'_> {
    /// Why it does not answer.
    fn silent(&self) -> (MemberTrouble, String) {
        let name = &self.member.site.name;
        if self.elsewhere {
            let words = format!(
                "the host with its keys is in another cluster: `hostseal status --cluster` there shows in which. \
                 `hostseal remove {name}` takes it out of this one; to bring it back, run `hostseal leave` there, and \
                 `hostseal join` with a new token"
            );
            return (MemberTrouble::OtherCluster, words);
        }
        let words = match self.unproven {
            None => "it does not answer: is its agent running, and does UDP 500 get through?".to_owned(),
            Some(reason) => format!(
                "it does not answer, and whoever has its address is not taken for it ({}). If that host was installed \
                 anew, or is in another cluster: `hostseal remove {name}`, and `hostseal join` there with a new token",
                explain::words(reason)
            ),
        };
        (MemberTrouble::NoAnswer, words)
    }

    /// What it goes on sending that no sound member sends.
    fn annoying(&self) -> Option<(MemberTrouble, String)> {
        let annoys = self.annoys.filter(|it| it.what == Nuisance::Forges)?;
        let (words, name) = (annoys.words(), &self.member.site.name);
        let remove = format!("If you do not trust it: `hostseal remove {name} --compromised`");
        Some((MemberTrouble::Forges, format!("it {words}. {remove}")))
    }
}

/// Members that go by something else than most, where all go by this roster. That can be meant: a PPK is replaced host by
/// host, and settings on trial end by the clock of each. So nothing but a warning comes of it.
fn skewed(all: &BTreeMap<EntryId, MemberReport>, roster: &Roster, own: EntryId) -> Vec<Problem> {
    let view = roster.view();
    // Those with a secret have pairs with these, and those without have none.
    if expecting_secret(view).next().is_some() {
        return Vec::new();
    }
    let roster_id = hex(roster.id().octets());
    let goes_by = |report: &MemberReport| report.roster_id.as_ref() == Some(&roster_id);
    let all: BTreeMap<EntryId, &MemberReport> =
        all.iter().filter(|(_, report)| goes_by(report)).map(|(line, report)| (*line, report)).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let ids = all.values().filter_map(|report| report.config_id.as_deref());
    ids.for_each(|id| *counts.entry(id).or_default() += 1);
    let here = all.get(&own).and_then(|report| report.config_id.as_deref());
    let most = counts.into_iter().max_by_key(|(id, count)| (*count, Some(*id) == here));
    let Some((usual, _)) = most else { return Vec::new() };
    let skewed = all.iter().filter_map(|(line, report)| {
        let words = skew(usual, report)?;
        let name = view.member(*line)?.site.name.clone();
        Some(Problem::warning(ProblemCode::ConfigDiffers, Some(name), words))
    });
    skewed.collect()
}

/// How a member differs from most. One whose files are not in force has a problem that says more.
fn skew(usual: &str, report: &MemberReport) -> Option<String> {
    let own = report.config_id.as_ref().filter(|id| *id != usual && !report.is_stuck)?;
    let version = match report.version.as_str() {
        VERSION => String::new(),
        other => format!(" (it runs hostseal {other}, the node that was asked {VERSION})"),
    };
    Some(format!(
        "it goes by something else than most, with the same roster: config id {own} there, {usual} elsewhere{version}. \
         That is so while a PPK is replaced host by host, and where settings are on trial. If neither is the case, compare \
         `[ppk]` in the files"
    ))
}

/// The nodes that were listed and have not joined: the secret that the hosts had before there was a roster proves them.
fn expecting_secret(view: &RosterView) -> impl Iterator<Item = &Member> {
    view.members.iter().filter(|member| member.keys.is_none() && member.listed_key.is_none())
}

/// How many rows are called protected at one end alone, where both answer: the other end says otherwise. A pair of which
/// both ends say how many rows are down is not protected in as many as the one says that names more.
pub(super) fn one_sided(all: &BTreeMap<EntryId, MemberReport>, view: &RosterView) -> u64 {
    let ends = all.iter().filter_map(|(line, report)| {
        let end = PairEnd::of(view, view.member(*line)?, report);
        Some((end.names.first().copied()?, end))
    });
    let ends: BTreeMap<&NodeName, PairEnd<'_>> = ends.collect();
    let mut one_sided: BTreeMap<&NodeName, u64> = BTreeMap::new();
    for end in ends.values() {
        for other in &end.report.unprotected {
            let Some((other, theirs)) = ends.get_key_value(other) else { continue };
            let of_other = one_sided.entry(other).or_default();
            *of_other = of_other.saturating_add(end.more_than(theirs)).min(theirs.report.protected);
        }
    }
    one_sided.into_values().fold(0, u64::saturating_add)
}

/// A member as an end of pairs, with what it says.
struct PairEnd<'a> {
    report: &'a MemberReport,
    /// Under which names others have pairs with it: first its name, then those of what floats and may be at it.
    names: Vec<&'a NodeName>,
    addresses: Vec<IpAddr>,
}

impl<'a> PairEnd<'a> {
    fn of(view: &'a RosterView, member: &'a Member, report: &'a MemberReport) -> Self {
        let floating = view.floating.iter().map(|floating| &floating.says);
        let here = floating.filter(|floating| floating.nodes.contains(&member.line));
        let sites = here.map(|floating| (&floating.name, &floating.addresses));
        let sites = std::iter::once((&member.site.name, &member.site.addresses)).chain(sites);
        let (names, addresses): (Vec<&NodeName>, Vec<&Vec<IpAddr>>) = sites.unzip();
        Self { report, names, addresses: addresses.into_iter().flatten().copied().collect() }
    }

    /// In how many of the pairs with `other` it says more often than `other` that they are not protected. However much one
    /// end says, there are no more than these pairs. Where `other` names an address that floats, it means this end or another
    /// one: nothing is made of that.
    fn more_than(&self, other: &Self) -> u64 {
        let here = other.names.first().and_then(|name| self.report.unprotected_with(name));
        let mut there = self.names.iter().map(|name| other.report.unprotected_with(name));
        let there = there.try_fold(0, |sum: u64, count| Some(sum.saturating_add(count?)));
        match (here, there) {
            (Some(here), Some(there)) => here.min(self.pairs_with(other)).saturating_sub(there),
            (None, Some(0)) => 1,
            // Both name each other, and one does not say how many it means.
            _ => 0,
        }
    }

    /// How many pairs both may have.
    fn pairs_with(&self, other: &Self) -> u64 {
        let all = self.addresses.iter().flat_map(|local| other.addresses.iter().map(move |it| (local, it)));
        all.filter(|(local, remote)| local.is_ipv4() == remote.is_ipv4()).count() as u64
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
        format!(
            "{other} says that the pair with it is not protected, and either may be wrong: run `hostseal status` on both"
        )
    })
}

fn held_out(name: &NodeName, addresses: &[IpAddr], why: &str) -> MemberRow {
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
        config_id: None,
        secret_id: None,
        keys: None,
        wrapped: None,
        clock_skew_s: None,
        unready: None,
        unready_code: None,
        reason_code: Some(MemberTrouble::HeldOut),
        reason: Some(format!(
            "it is no member until an admin decides: {why}. `hostseal remove {name}` takes it out"
        )),
    }
}

pub(super) fn conflict(roster: &Roster, conflict: &Conflict) -> ConflictRow {
    let signer = |id: EntryId| {
        let by = roster.get(id).and_then(|entry| roster.line_of(&entry.statement().by));
        let member = by.and_then(|line| roster.view().member(line));
        member.map_or_else(|| "a node that is gone".to_owned(), |member| member.site.name.to_string())
    };
    let (about, mends) = match &conflict.about {
        Matter::Desired => {
            ("whether the cluster is protected", "hostseal enable --cluster or disable --cluster")
        }
        Matter::Settings => (OF_SETTINGS, "hostseal settings set"),
        _ => ("a node", "hostseal add or remove"),
    };
    let (winner, loser) = (signer(conflict.winner), signer(conflict.loser));
    let message = format!(
        "{winner} and {loser} have changed {about} at once; what {winner} said counts. An admin settles it: {mends}"
    );
    ConflictRow { about: about.to_owned(), winner, loser, message }
}

/// What is wrong with the cluster as this host sees it, beside what the rows say.
pub(super) fn problems(
    status: &Status,
    (roster, rows): (&Roster, &[MemberRow]),
    own: EntryId,
    config: &Config,
    optional_for: Option<Duration>,
) -> Vec<Problem> {
    let view = roster.view();
    let mut problems = Vec::new();
    if view.member(own).is_some() {
        problems.extend(secret(view, config));
    } else {
        let words = "this node was removed from the cluster, or is held out: what is shown may be old. \
                     `hostseal status --cluster` on another node shows why; with a new token it can join again";
        problems.push(Problem::critical(ProblemCode::Other, None, words));
    }
    let key = ClusterKey::of(settings_in_force(view, None)).at(status.time);
    problems.extend(wrapping(&key, rows, optional_for));
    problems.extend(later(roster));
    problems.extend(versions(rows));
    if let Some(trouble) = &status.config_error {
        problems.push(Problem::critical(ProblemCode::Other, status.node.clone(), trouble.clone()));
    }
    let of_store = [ProblemCode::StoreAway, ProblemCode::StoreRefuses, ProblemCode::StoreStrange];
    let of_store = status.problems.iter().filter(|problem| of_store.contains(&problem.code));
    problems.extend(of_store.cloned());
    problems
}

/// How far it is with a wrapped secret, as long as something is to be done. `optional_for` so long, hosts make keys without it.
fn wrapping(key: &ClusterKey, rows: &[MemberRow], optional_for: Option<Duration>) -> Option<Problem> {
    let words = WrapStage::of(key, rows).in_words(key)?;
    let code = ProblemCode::WrapUnfinished;
    if optional_for.is_none_or(|time| time < MOVE_MOST) {
        return Some(Problem::warning(code, None, words));
    }
    let fix = "Until then hosts can make keys without the KMS. If somebody is waited for who is not coming: `hostseal remove` \
               takes that host out, `hostseal settings set ppk.required=` goes on without it, and `hostseal settings set \
               secret.wrapped=` ends the use of the secret"
        .to_owned();
    Some(Problem::critical(code, None, words).mended_by(fix))
}

/// Nodes that do not know what this one does, and those that know more.
fn versions(rows: &[MemberRow]) -> Vec<Problem> {
    let those = |is: &dyn Fn(&str) -> bool| {
        let version = |row: &MemberRow| row.version.clone().filter(|version| is(version));
        let named = rows.iter().filter_map(|row| Some(format!("{} ({})", row.name, version(row)?)));
        let named: Vec<String> = named.collect();
        (!named.is_empty()).then(|| listed(named, 4))
    };
    let older = those(&|version| is_older(version, VERSION)).map(|named| {
        format!(
            "older than hostseal {VERSION} here: {named}. Update them; until then `enable --cluster` and `rotate` need \
             `--partial`"
        )
    });
    let newer = those(&|version| is_older(VERSION, version)).map(|named| {
        format!("hostseal {VERSION} on this host is older than on others: {named}. Update this host")
    });
    let problem = |words| Problem::warning(ProblemCode::VersionDiffers, None, words);
    older.into_iter().chain(newer).map(problem).collect()
}

/// What only a later version knows: somebody uses what it brings.
fn later(roster: &Roster) -> Option<Problem> {
    let view = roster.view();
    let by = |signer| roster.line_of(signer).and_then(|line| view.member(line));
    let named = view.later.iter().map(|(kind, signer)| match by(signer) {
        Some(member) => format!("{kind} by {}", member.site.name),
        None => kind.to_string(),
    });
    let named: Vec<String> = named.collect();
    let words = || {
        format!(
            "the roster holds what this version does not know ({}): it is kept and passed on, and this host does not go \
             by it. If those nodes run a later version of hostseal, update this host",
            listed(&named, 4)
        )
    };
    (!named.is_empty()).then(|| Problem::warning(ProblemCode::Other, None, words()))
}

/// Whether this host has the secret as long as others are proven by it, and no longer.
fn secret(view: &RosterView, config: &Config) -> Option<Problem> {
    let unknown: Vec<&NodeName> = expecting_secret(view)
        .map(|member| &member.site.name)
        .filter(|name| config.node_named(name.as_str()).is_none())
        .collect();
    if !unknown.is_empty() {
        let words = format!(
            "this host has no secret (`[secret]` in its file), by which {} are proven until they join: it has no keys with \
             them",
            listed(unknown, 4)
        );
        return Some(Problem::warning(ProblemCode::Other, None, words));
    }
    let file = config.idle_secret()?;
    let words = format!(
        "the secret is not needed any more, as all nodes have keys: remove `[secret]` from the file of this host, and {}. \
         Do so on each node",
        file.display()
    );
    Some(Problem::info(ProblemCode::Other, None, words))
}

#[cfg(test)]
mod tests;
