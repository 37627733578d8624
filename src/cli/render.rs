//! Shows a status as text: a few lines about the host, the table, a line that sums up.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::time::Duration;

use super::exit::Exit;
use super::layout::{gist, wrap};
use super::present::Shown;
use super::sheet::Sheet;
use super::table::{rank, table};
use super::term::{self, Style, harmless};
use crate::control::{Change, Preview};
use crate::observe::status::{AgentInfo, PeerRow, Status, Summary};
use crate::types::units::{counted, human_duration, listed};
use crate::types::{NodeName, Problem, Protection, RowState, Severity};

/// Above this many rows, only those that are not as they should be are shown.
pub(super) const MANY: usize = 50;

/// How much of a status is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    /// All rows, however many there are.
    pub(super) all: bool,
    /// How the keys of each row were made, and its SAs.
    pub(super) details: bool,
    /// How many columns a line may have; `None` where the output is no terminal.
    pub(super) width: Option<usize>,
}

impl Extent {
    /// What suits standard output.
    pub(super) fn of_stdout() -> Self {
        Self { width: term::size().map(|(columns, _)| columns), ..Self::default() }
    }
}

impl Shown for Status {
    fn exit(&self) -> Exit {
        if self.is_healthy() { Exit::Done } else { Exit::Degraded }
    }

    fn is_answered(&self) -> bool {
        self.agent.answering
    }

    fn sheet(&self, extent: Extent, style: Style) -> Sheet {
        let shown = shown(self, extent);
        let (names, rows) = table(&shown, self, extent, style);
        Sheet {
            head: head(self, extent.width, style),
            names,
            rows,
            quiet: self.peers.len() - shown.len(),
            sum: sum(&self.summary, style),
            whole: "hostseal status",
        }
    }
}

/// The rows that are shown: of many, those that somebody may have to look at.
fn shown(status: &Status, extent: Extent) -> Vec<&PeerRow> {
    let all = extent.all || status.peers.len() <= MANY;
    status.peers.iter().filter(|row| all || rank(row) < 4).collect()
}

/// The lines about the host.
fn head(status: &Status, width: Option<usize>, style: Style) -> Vec<String> {
    let (protection, rest) = headline(status);
    let mut lines = vec![format!("{}{rest}", style.bold(&protection))];
    if let Some(seconds) = status.try_ends_in_s {
        let left = human_duration(Duration::from_secs(seconds));
        lines.push(format!("on trial for {left} more, then back to the clear: `hostseal confirm` keeps it"));
    }
    let secret = status.secret_id.as_deref().unwrap_or("none");
    lines.push(format!("config id {} · secret id {secret}", status.config_id));
    if let Some(drift @ 1..) = status.agent.drift {
        let objects = counted(drift as usize, "object");
        lines.push(format!(
            "another program changed {objects} of hostseal's in the kernel; the agent restored them"
        ));
    }
    if !status.kernel.is_empty() {
        let counters: Vec<String> =
            status.kernel.iter().map(|(name, count)| format!("{name} {count}")).collect();
        lines.push(format!("the kernel dropped packets: {}", counters.join(", ")));
    }
    if let Some(error) = &status.config_error {
        lines.push(style.state(RowState::Clear, "the files are not in force:"));
        lines.extend(error.lines().map(|line| format!("  {}", harmless(line))));
    }
    lines.extend(problems(&status.problems, style));
    lines.extend(status.notes.iter().map(|note| format!("note: {}", harmless(note))));
    if !status.waiting_for.is_empty() {
        lines.push(format!(
            "waiting for {}: not enabled there yet, or out of reach",
            names(&status.waiting_for)
        ));
    }
    lines.iter().flat_map(|line| wrap(line, width)).collect()
}

/// The first line: what protection is, and the rest of it.
pub(super) fn headline(status: &Status) -> (String, String) {
    let node = status.node.as_ref().map_or("(not known yet)", |node| node.as_str());
    let mode = match status.protection {
        Protection::Off => String::new(),
        _ => format!(" ({})", status.mode),
    };
    let (cluster, agent) = (&status.cluster, agent(&status.agent));
    let rest = format!("{mode} · cluster {cluster} · node {node} · {agent}");
    (format!("protection {}", status.protection), rest)
}

/// A line for each problem; those that differ in their hosts and figures alone have one.
pub(super) fn problems(problems: &[Problem], style: Style) -> Vec<String> {
    let line = |alike: AlikeProblems<'_>| {
        let (state, word) = match alike.first.severity {
            Severity::Critical => (RowState::Blocked, "problem:"),
            Severity::Warning => (RowState::Clear, "warning:"),
            Severity::Info => (RowState::Off, "note:"),
        };
        format!("{} {}{}", style.state(state, word), alike.about, harmless(&alike.first.message))
    };
    alike(problems).into_iter().map(line).collect()
}

/// Problems that differ in their hosts and figures alone.
pub(super) struct AlikeProblems<'a> {
    /// One of them.
    pub(super) first: &'a Problem,
    /// How many there are and which hosts they are about, where they are about hosts.
    pub(super) about: String,
}

/// Puts those together that differ in their hosts and figures alone.
pub(super) fn alike(problems: &[Problem]) -> Vec<AlikeProblems<'_>> {
    let mut alike: Vec<(String, Vec<&Problem>)> = Vec::new();
    for problem in problems {
        let names: Vec<String> = problem.node.iter().map(NodeName::to_string).collect();
        let key = gist(&problem.message, &names);
        let is_same = |(other, group): &&mut (String, Vec<&Problem>)| {
            *other == key && (group[0].severity, group[0].code) == (problem.severity, problem.code)
        };
        match alike.iter_mut().find(is_same) {
            Some((_, group)) => group.push(problem),
            None => alike.push((key, vec![problem])),
        }
    }
    alike.into_iter().map(|(_, group)| AlikeProblems::of(&group)).collect()
}

impl<'a> AlikeProblems<'a> {
    /// These, of which there is one at least.
    fn of(group: &[&'a Problem]) -> Self {
        let nodes: BTreeSet<&NodeName> = group.iter().filter_map(|problem| problem.node.as_ref()).collect();
        let about = match (nodes.first(), group.len()) {
            (None, _) => String::new(),
            (Some(node), 1) => format!("{node}: "),
            (Some(node), count) => {
                let all = names(&nodes.iter().collect::<Vec<_>>());
                format!("{count} times ({all}), such as {node}: ")
            }
        };
        Self { first: group[0], about }
    }
}

fn agent(agent: &AgentInfo) -> String {
    match (agent.running, agent.pid, agent.uptime_s) {
        (true, ..) if !agent.answering => "agent does not answer".to_owned(),
        (false, ..) => "no agent runs".to_owned(),
        (true, Some(pid), Some(uptime)) => {
            format!("agent up {} (pid {pid})", human_duration(Duration::from_secs(uptime)))
        }
        (true, ..) => "agent runs".to_owned(),
    }
}

/// How many rows are how, in words.
pub(super) fn sum(summary: &Summary, style: Style) -> String {
    let paint = |(shade, words): (Option<RowState>, String)| {
        shade.map_or_else(|| words.clone(), |state| style.state(state, &words))
    };
    parts(summary).into_iter().map(paint).collect::<Vec<_>>().join(", ")
}

/// The parts of that, each in the colour of a state.
pub(super) fn parts(summary: &Summary) -> Vec<(Option<RowState>, String)> {
    let all = counted(summary.peers as usize, "pair");
    if summary.peers == 0 {
        return vec![(None, "no pairs".to_owned())];
    }
    if summary.off == summary.peers {
        return vec![(None, format!("{all} in the clear, on purpose"))];
    }
    let mut parts = vec![match summary.protected {
        protected if protected == summary.peers => (Some(RowState::Protected), format!("{all} protected")),
        protected => (None, format!("{protected} of {all} protected")),
    }];
    if summary.silent > 0 {
        parts.push((Some(RowState::Negotiating), format!("{} of them silent", summary.silent)));
    }
    for (count, state) in [
        (summary.negotiating, RowState::Negotiating),
        (summary.clear, RowState::Clear),
        (summary.blocked, RowState::Blocked),
        (summary.off, RowState::Off),
    ] {
        if count > 0 {
            parts.push((Some(state), format!("{count} {state}")));
        }
    }
    parts
}

/// Names; many are counted.
pub(super) fn names<N: fmt::Display>(names: &[N]) -> String {
    /// So many are listed.
    const LISTED: usize = 8;
    listed(names, LISTED)
}

/// A plan: what another file says, and what changes in the kernel as a diff.
pub(super) fn plan(plan: &Preview) -> String {
    let mut text: String = plan.file.iter().map(|change| format!("{change}\n")).collect();
    if plan.kernel.is_empty() {
        return match plan.file.is_empty() {
            true => "nothing would change\n".to_owned(),
            false => text + "\nnothing changes in the kernel now; new pairs change it when they agree keys\n",
        };
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let mut counts = [0u64; 3];
    for line in &plan.kernel {
        let count = match line.change {
            Change::Add => 0,
            Change::Update => 1,
            Change::Delete => 2,
        };
        counts[count] += 1;
        let _ = writeln!(text, "{}", line.in_words());
    }
    let [add, update, delete] = counts;
    let _ = writeln!(text, "\n{add} to add, {update} to update, {delete} to delete");
    text
}
