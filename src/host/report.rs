//! What the agent says of itself and its pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::core::{Core, SchemeChange, ToldReason};
use super::{absent, differs};
use crate::control::{Change, PlanLine};
use crate::observe::status::{AgentInfo, Encapsulation, IkeRow, PeerInfo, PeerRow, SaState, Status, Summary};
use crate::observe::{About, Progress, RowProgress, explain};
use crate::protect::{GUARDS_MOST, PairMachine, Plan};
use crate::types::units::{counted, human_duration, listed};
use crate::types::{NodeName, Pair, Problem, ProblemCode, Protection, ReasonCode, RowState, SaId, UnixTime};

/// The version of IKE that is spoken.
const IKE_VERSION: u8 = 2;

/// The agent's part of a status.
pub(super) struct Agent {
    /// When it started.
    pub started: Instant,
    /// What the operator wants.
    pub protection: Protection,
}

impl Agent {
    /// What the operator wants, and how far that has come.
    fn protection_with(&self, summary: &Summary) -> Protection {
        match self.protection {
            Protection::On if summary.negotiating > 0 => Protection::Enabling,
            protection => protection,
        }
    }
}

/// How far all pairs of `named` have come, with the rows of those that `changed`.
pub(super) fn progress(
    agent: &Agent,
    core: Option<&Core>,
    named: Vec<(NodeName, Pair)>,
    revision: u64,
    changed: impl Fn(Pair) -> bool,
) -> Progress {
    let machine = |pair: &Pair| core.and_then(|core| core.pairs().get(pair));
    let state = |pair: &Pair| machine(pair).map_or(RowState::Off, PairMachine::row_state);
    let why = |pair: &Pair| core?.why(machine(pair)?);
    let summary = Summary::of(named.iter().map(|(_, pair)| state(pair)));
    let changed = named.into_iter().filter(|(_, pair)| changed(*pair));
    let rows = changed.map(|(node, pair)| RowProgress {
        node,
        local: pair.local,
        remote: pair.remote,
        state: state(&pair),
        reason_code: why(&pair).map(|(code, _)| code),
        reason: why(&pair).map(|(_, words)| words),
        waiting: machine(&pair).is_some_and(PairMachine::is_waiting),
    });
    Progress { revision, protection: agent.protection_with(&summary), summary, rows: rows.collect() }
}

/// Adds what only the agent knows to what the kernel and the files say.
pub(super) fn complete(
    mut status: Status,
    agent: &Agent,
    pid: u32,
    core: Option<&Core>,
    about: Option<&About>,
    now: Instant,
) -> Status {
    status.agent = AgentInfo {
        running: true,
        answering: true,
        pid: Some(pid),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        uptime_s: Some((now - agent.started).as_secs()),
        drift: Some(core.map_or(0, Core::drift)),
        bounds: core.map(|core| core.engine().counters().into()),
    };
    let wall = status.time;
    for row in &mut status.peers {
        match core.and_then(|core| Some((core, core.pairs().get(&row.pair())?))) {
            Some((core, machine)) => {
                complete_row(row, core, machine, now, wall);
                complete_peer(row, core, now, wall);
            }
            None if agent.protection == Protection::Off => {
                (row.state, row.reason_code, row.reason) = (RowState::Off, None, None);
            }
            // The kernel goes on by itself until the secret can be read.
            None if row.reason.is_some() => {
                (row.reason_code, row.reason) = (Some(ReasonCode::Internal), status.config_error.clone());
            }
            None => {}
        }
    }
    status.try_ends_in_s = core.and_then(Core::trial).map(|end| seconds_until(end, now));
    status.summary = Summary::of_rows(&status.peers);
    let waiting = status.peers.iter().filter(|row| row.waiting).map(|row| row.node.clone());
    status.waiting_for = waiting.collect::<BTreeSet<_>>().into_iter().collect();
    status.protection = agent.protection_with(&status.summary);
    status.notes.extend(rotation(&status));
    status.notes.extend(unproven(&status, core, now));
    if let Some(unread) = core.map(Core::unread).filter(|unread| *unread > 0) {
        status.notes.push(format!(
            "another program removed {}: the totals lack what they counted after the last reading",
            counted(unread as usize, "SA")
        ));
    }
    status.problems.extend(unrenewed(&status, core, now));
    status.problems.extend(differing(&status, core, about));
    status.problems.extend(core.and_then(unguarded));
    status.problems.extend(narrow(&status, core));
    status.problems.extend(refused(&status, core));
    status.problems.extend(forgetful(&status, core));
    status.problems.sort();
    status
}

/// What is to be said while a secret is being rotated.
fn rotation(status: &Status) -> Option<String> {
    let stale =
        status.peers.iter().filter(|row| row.secret_id.is_some() && row.secret_id != status.secret_id);
    let nodes: Vec<&str> = stale.map(|row| row.node.as_str()).collect::<BTreeSet<_>>().into_iter().collect();
    let words =
        || format!("the keys shared with {} still rest on another secret than this host's", nodes.join(", "));
    (!nodes.is_empty()).then(words)
}

/// A warning well before it happens: peers that the files no longer believe, whose keys end.
fn unproven(status: &Status, core: Option<&Core>, now: Instant) -> Vec<String> {
    let on_notice = |row: &PeerRow| {
        let summary = core?.engine().summary(row.pair())?;
        let left = summary.notice?.saturating_duration_since(now);
        let why = summary
            .unproven
            .map(|failure| format!(": {}", explain::words(&failure.reason)))
            .unwrap_or_default();
        Some(format!(
            "{} ({}) has not proven itself as the files have it now; its keys end in {}{why}",
            row.node,
            row.remote,
            human_duration(Duration::from_secs(left.as_secs()))
        ))
    };
    status.peers.iter().filter_map(on_notice).collect()
}

/// Peers that do not fit together with this host, as they say of themselves. Each once, however many addresses it has.
fn differing(status: &Status, core: Option<&Core>, about: Option<&About>) -> BTreeSet<Problem> {
    let told = |row: &PeerRow| Some(differs::problems(about?, row, core?.about(row.pair())?));
    status.peers.iter().filter_map(told).flatten().collect()
}

/// This host has more addresses than its guards name.
fn unguarded(core: &Core) -> Option<Problem> {
    let beyond = Some(core.beyond_guard()).filter(|beyond| !beyond.is_empty())?;
    let words = format!(
        "the guard does not block these addresses of this host, which have no pair: {}. It would need more than \
         {GUARDS_MOST} policies. Packets between them and sealed hosts pass in the clear. Remove addresses, or list \
         fewer hosts",
        listed(&beyond, 3)
    );
    Some(Problem::critical(ProblemCode::Hole, None, words))
}

/// Paths that lose large packets without a word.
fn narrow(status: &Status, core: Option<&Core>) -> Vec<Problem> {
    let problem = |row: &PeerRow| {
        let passes = core?.narrow(row.pair()).filter(|_| row.state == RowState::Protected)?;
        let (remote, mtu) = (row.remote, wire_size(row, passes));
        let words = format!(
            "packets of more than {passes} octets to {remote} are lost on the way, and nothing there says so: large \
             transfers hang. Lower the MTU of this host's route to {remote} to {mtu} (`ip route replace … mtu {mtu}`)"
        );
        Some(Problem::critical(ProblemCode::Mtu, Some(row.node.clone()), words))
    };
    status.peers.iter().filter_map(problem).collect()
}

/// Paths that forget pairs which are idle, and are reminded by this host.
fn forgetful(status: &Status, core: Option<&Core>) -> Vec<Problem> {
    let problem = |row: &PeerRow| {
        let pause = human_duration(core?.reminded_after(row.pair())?);
        let (node, remote) = (&row.node, row.remote);
        let what = match row.encapsulation {
            Encapsulation::Udp => "ESP in UDP",
            Encapsulation::None => "ESP (IP protocol 50)",
        };
        let words = format!(
            "a firewall on the path to {node} ({remote}) forgets {what} when no traffic flows: it dropped what this \
             host sent to {node} until {node} sent something. This host now sends a packet every {pause} without \
             traffic to prevent that. Allow {what} in both directions in the firewalls in between, or raise their \
             timeout"
        );
        Some(Problem::warning(ProblemCode::PathForgets, Some(node.clone()), words))
    };
    status.peers.iter().filter_map(problem).collect()
}

/// Octets of a packet as ESP that has `octets` before (kernel.md, Overhead; RFC 4303 section 2, RFC 4106 section 3).
fn wire_size(row: &PeerRow, octets: u16) -> u16 {
    const HEADER_IV_ICV: u16 = 8 + 8 + 16;
    let header: u16 = if row.remote.is_ipv4() { 20 } else { 40 };
    let padded = (octets.saturating_sub(header) + 2).next_multiple_of(4);
    header + HEADER_IV_ICV + padded + if row.encapsulation == Encapsulation::Udp { 8 } else { 0 }
}

/// Keys of protected pairs end, and attempts to agree new ones have failed.
fn unrenewed(status: &Status, core: Option<&Core>, now: Instant) -> Vec<Problem> {
    let problem = |row: &PeerRow| {
        let core = core?;
        let machine = core.pairs().get(&row.pair())?;
        let (code, why) = core.why_unrenewed(machine)?;
        let since =
            if code == ReasonCode::NoAnswer { since(machine, now, status.time) } else { String::new() };
        let active = row.sas.iter().filter(|sa| sa.state == SaState::Active);
        let left = human_duration(Duration::from_secs(active.filter_map(|sa| sa.expires_in_s).min()?));
        let node = &row.node;
        let words = format!(
            "cannot renew keys; traffic with {node} ({}) stops in {left}. Cause: {why}{since}",
            row.remote
        );
        Some(Problem::critical(ProblemCode::KeysNotRenewed, Some(node.clone()), words))
    };
    status.peers.iter().filter_map(problem).collect()
}

/// Since when nobody answers, to be put behind the reason.
fn since(machine: &PairMachine, now: Instant, wall: UnixTime) -> String {
    let age = machine.failing_since().map(|at| now.saturating_duration_since(at));
    age.map(|age| format!(" No answer since {}.", wall.before(age))).unwrap_or_default()
}

/// What the kernel refused about pairs that are protected all the same, as its policies and SAs say.
fn refused(status: &Status, core: Option<&Core>) -> Vec<Problem> {
    let problem = |row: &PeerRow| {
        let core = core?;
        let machine = core.pairs().get(&row.pair())?;
        let (_, words) = core.why(machine).filter(|(code, _)| *code == ReasonCode::KernelError)?;
        let words =
            format!("the kernel refuses a change for {}: {words}. It is tried again by itself", row.remote);
        Some(Problem::critical(ProblemCode::KernelRefuses, Some(row.node.clone()), words))
    };
    status.peers.iter().filter(|row| row.state == RowState::Protected).filter_map(problem).collect()
}

/// Why a row is not as the agent would have it.
const OVERRULED: &str =
    "the kernel's policies or SAs are not those that hostseal wrote, or another's come before them";

/// How a row stands, and why, of which the agent says `own` and the kernel `kernel`: as the agent does, who knows why
/// and what the path does, but never better than the kernel's policies are, nor worse.
fn agreed(own: (RowState, Option<ToldReason>), kernel: RowState) -> (RowState, Option<ToldReason>) {
    let refused = own.1.as_ref().is_some_and(|(code, _)| *code == ReasonCode::KernelError);
    match (own.0, kernel) {
        // What it refused opens nothing, and `refused` tells of it.
        (RowState::Clear, RowState::Protected) if refused => (kernel, None),
        (RowState::Protected, RowState::Clear | RowState::Blocked)
        | (RowState::Blocked, RowState::Clear)
        | (RowState::Clear, RowState::Blocked) => {
            let overruled = || Some((ReasonCode::KernelError, OVERRULED.to_owned()));
            (kernel, own.1.filter(|_| refused).or_else(overruled))
        }
        _ => own,
    }
}

fn complete_row(row: &mut PeerRow, core: &Core, machine: &PairMachine, now: Instant, wall: UnixTime) {
    let (state, reason) = agreed((machine.row_state(), core.why(machine)), row.state);
    row.state = state;
    (row.reason_code, row.reason) = reason.unzip();
    if let (Some(ReasonCode::NoAnswer), Some(reason)) = (row.reason_code, &mut row.reason) {
        reason.push_str(&since(machine, now, wall));
    }
    row.waiting = machine.is_waiting();
    row.try_ends_in_s = machine.trial_end().map(|end| seconds_until(end, now));
    let pair = row.pair();
    let secret = machine.settled_child().and_then(|in_spi| core.engine().secret_of(pair, in_spi));
    row.secret_id = secret.map(|id| id.to_string());
    row.authentication = machine.settled_child().and_then(|in_spi| core.engine().proof_of(pair, in_spi));
    let ike = machine.settled_child().and_then(|in_spi| core.engine().ike_of(pair, in_spi));
    row.ike = ike.map(|(proposal, since)| IkeRow {
        version: IKE_VERSION,
        proposal: proposal.to_string(),
        group: proposal.key_exchange(),
        age_s: now.saturating_duration_since(since).as_secs(),
    });
    let own = machine.settled_child().and_then(|in_spi| core.engine().key_exchange_of(pair, in_spi));
    row.esp_group = own.map(|exchange| exchange.to_string());
    let method = machine.settled_child().and_then(|in_spi| core.engine().method_of(pair, in_spi));
    row.keying = method.unwrap_or(row.keying);
    for sa in &mut row.sas {
        let child = machine.child_of(SaId::of(pair, sa.direction, sa.spi));
        let due = child.and_then(|in_spi| core.engine().rekey_at(pair, in_spi));
        sa.rekey_in_s = due.map(|at| at.saturating_duration_since(now).as_secs());
    }
}

/// What was heard of the peer, and what it told.
fn complete_peer(row: &mut PeerRow, core: &Core, now: Instant, wall: UnixTime) {
    let time = |at: Instant| wall.before(now.saturating_duration_since(at));
    let pair = row.pair();
    row.peer = core.about(pair).map(|about| PeerInfo {
        config_id: about.config_id.clone(),
        secret_id: about.secret_id.clone(),
        version: about.version.clone(),
    });
    let Some(silence) = core.silence(pair) else { return };
    let esp = silence.last_heard_esp().map(time);
    row.last_heard_esp = esp.or(row.last_heard_esp);
    row.last_heard = silence.last_heard().map(time).max(row.last_heard_esp);
    if row.state == RowState::Protected && silence.is_silent(now) {
        let heard = row.last_heard.map_or_else(
            || "nothing was heard since the agent started".to_owned(),
            |at| format!("nothing was heard for {}", human_duration(wall.since(at))),
        );
        let words = format!(
            "silent: {heard}, and {} does not answer: is it up, and its link? Its packets stay protected or dropped",
            row.remote
        );
        (row.reason_code, row.reason) = (Some(ReasonCode::Silent), Some(words));
    }
}

/// Whole seconds, of which the last one counts as a whole.
fn seconds_until(end: Instant, now: Instant) -> u64 {
    end.saturating_duration_since(now).as_secs() + 1
}

/// The hosts that do not answer, in one line.
pub(super) fn log_absent(named: Vec<(NodeName, Pair)>, absent: &BTreeMap<Pair, RowState>) {
    let rows = named.into_iter().filter_map(|(node, pair)| Some((node, *absent.get(&pair)?)));
    tracing::warn!("{}", absent::line(&rows.collect::<Vec<_>>()));
}

/// What would change, as lines: first what is replaced, then the rest.
pub(super) fn preview(change: &SchemeChange) -> Vec<PlanLine> {
    let replaced = change
        .replaced
        .iter()
        .map(|id| PlanLine { change: Change::Update, object: format!("{id}: a successor takes over") });
    replaced.chain(lines(&change.plan)).collect()
}

/// A plan as lines.
fn lines(plan: &Plan) -> Vec<PlanLine> {
    plan.ops.iter().map(PlanLine::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(code: ReasonCode) -> Option<ToldReason> {
        Some((code, "words".to_owned()))
    }

    #[test]
    fn the_agent_is_believed_where_the_kernel_is_as_it_says() {
        for state in
            [RowState::Off, RowState::Negotiating, RowState::Clear, RowState::Blocked, RowState::Protected]
        {
            let own = (state, why(ReasonCode::NoAnswer));
            assert_eq!(agreed(own.clone(), state), own);
        }
        let agreeing = (RowState::Negotiating, why(ReasonCode::InProgress));
        assert_eq!(agreed(agreeing.clone(), RowState::Clear), agreeing);
    }

    #[test]
    fn where_the_kernel_is_otherwise_that_is_the_cause_and_no_other() {
        for (own, kernel) in [
            (RowState::Protected, RowState::Clear),
            (RowState::Protected, RowState::Blocked),
            (RowState::Blocked, RowState::Clear),
            (RowState::Clear, RowState::Blocked),
        ] {
            let overruled = (kernel, Some((ReasonCode::KernelError, OVERRULED.to_owned())));
            assert_eq!(agreed((own, None), kernel), overruled);
            assert_eq!(agreed((own, why(ReasonCode::NoAnswer)), kernel), overruled);
            let refused = why(ReasonCode::KernelError);
            assert_eq!(agreed((own, refused.clone()), kernel), (kernel, refused), "its own words say more");
        }
    }

    #[test]
    fn what_the_kernel_refused_makes_nothing_clear_that_it_protects() {
        assert_eq!(
            agreed((RowState::Clear, why(ReasonCode::KernelError)), RowState::Protected),
            (RowState::Protected, None)
        );
        let unsealed = (RowState::Clear, why(ReasonCode::PeerDisabled));
        assert_eq!(agreed(unsealed.clone(), RowState::Protected), unsealed);
    }
}
