//! Shows a status as text: a few lines about the host, a row a pair, a line that sums up.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::details;
use super::term::Style;
use crate::model::control::{Change, PlanLine};
use crate::model::status::{AgentInfo, Encapsulation, PeerRow, Protection, RowState, Status, Summary};
use crate::model::units::{human_bytes, human_duration};

/// Above this many rows, only those that are not protected are shown.
const MANY: usize = 50;

/// The columns of the table.
const COLUMNS: [&str; 8] = ["NODE", "LOCAL", "REMOTE", "STATE", "SINCE", "CIPHER", "TX", "RX"];
/// Which of them is the state.
const STATE: usize = 3;

/// How much of a status is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Extent {
    /// All rows, however many there are.
    pub(super) all: bool,
    /// How the keys of each row were made, and its SAs.
    pub(super) details: bool,
}

/// A status as text.
pub(super) fn status(status: &Status, extent: Extent, style: Style) -> String {
    let mut text = head(status, style);
    let shown: Vec<&PeerRow> = match extent.all || status.peers.len() <= MANY {
        true => status.peers.iter().collect(),
        false => status.peers.iter().filter(|row| needs_attention(row)).collect(),
    };
    if !shown.is_empty() {
        text.push('\n');
        text.push_str(&table(&shown, status, extent, style));
    }
    text.push('\n');
    text.push_str(&sum(&status.summary, style));
    let hidden = status.peers.len() - shown.len();
    if hidden > 0 {
        let _ = write!(text, " ({hidden} of them not shown: --all shows them)");
    }
    text.push('\n');
    text
}

fn needs_attention(row: &PeerRow) -> bool {
    row.is_silent() || !matches!(row.state, RowState::Protected | RowState::Off)
}

/// The lines about the host.
fn head(status: &Status, style: Style) -> String {
    let mut text = String::new();
    let node = status.node.as_ref().map_or("(not known yet)", |node| node.as_str());
    let protection = style.bold(&format!("protection {}", status.protection));
    let mode = match status.protection {
        Protection::Off => String::new(),
        _ => format!(" ({})", status.mode),
    };
    let (cluster, agent) = (&status.cluster, agent(&status.agent));
    let _ = writeln!(text, "{protection}{mode} · cluster {cluster} · node {node} · {agent}");
    if let Some(seconds) = status.try_ends_in_s {
        let left = human_duration(Duration::from_secs(seconds));
        let _ =
            writeln!(text, "on trial for {left} more, then back to the clear: `hostseal confirm` keeps it");
    }
    let secret = status.secret_id.as_deref().unwrap_or("none");
    let _ = writeln!(text, "config id {} · secret id {secret}", status.config_id);
    if let Some(drift @ 1..) = status.agent.drift {
        let _ = writeln!(
            text,
            "somebody else changed {} in the kernel; put right",
            plural(drift, "object", "of ours")
        );
    }
    if !status.kernel.is_empty() {
        let counters: Vec<String> =
            status.kernel.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let _ = writeln!(text, "the kernel dropped packets: {}", counters.join(", "));
    }
    if let Some(error) = &status.config_error {
        let _ = writeln!(text, "{}", style.state(RowState::Clear, "the files are not in force:"));
        for line in error.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    for problem in &status.problems {
        let about = problem.node.as_ref().map(|node| format!("{node}: ")).unwrap_or_default();
        let line = format!("{about}{}", problem.message);
        let state = if problem.is_critical() { RowState::Blocked } else { RowState::Clear };
        let word = if problem.is_critical() { "problem:" } else { "warning:" };
        let _ = writeln!(text, "{} {line}", style.state(state, word));
    }
    for note in &status.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
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

/// The rows under their column heads, aligned, and the reason of a row below it: it can be long.
fn table(rows: &[&PeerRow], status: &Status, extent: Extent, style: Style) -> String {
    let cells: Vec<[String; 8]> = rows.iter().map(|row| cells(row, status)).collect();
    let width = |column: usize| {
        let widest = cells.iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        widest.max(COLUMNS[column].len())
    };
    let widths: [usize; 8] = std::array::from_fn(width);
    let mut text = style.bold(&aligned(&COLUMNS.map(str::to_owned), &widths, str::to_owned));
    text.push('\n');
    for (row, cells) in rows.iter().zip(&cells) {
        let shade = if row.is_silent() { RowState::Negotiating } else { row.state };
        text.push_str(&aligned(cells, &widths, |cell| style.state(shade, cell)));
        text.push('\n');
        if let Some(reason) = &row.reason {
            let _ = writeln!(text, "{:1$}  {reason}", "", widths[0]);
        }
        let details = if extent.details { details::lines(row) } else { Vec::new() };
        for line in details {
            let _ = writeln!(text, "{:1$}  {line}", "", widths[0]);
        }
        // Of this host's own trial the head tells.
        if let Some(seconds) = row.try_ends_in_s.filter(|_| status.try_ends_in_s.is_none()) {
            let left = human_duration(Duration::from_secs(seconds));
            let words = "back to the clear unless it is confirmed there";
            let _ = writeln!(text, "{:2$}  {} is on trial for {left} more: {words}", "", row.node, widths[0]);
        }
    }
    text
}

/// A line of cells. They are padded first and painted then: colours have no width.
fn aligned(cells: &[String; 8], widths: &[usize; 8], paint_state: impl Fn(&str) -> String) -> String {
    let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| match column {
        STATE => paint_state(&format!("{cell:<width$}")),
        _ => format!("{cell:<width$}"),
    });
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn cells(row: &PeerRow, status: &Status) -> [String; 8] {
    let none = || "-".to_owned();
    [
        row.node.to_string(),
        row.local.to_string(),
        row.remote.to_string(),
        if row.is_silent() { "silent".to_owned() } else { row.state.to_string() },
        row.since.map_or_else(none, |since| human_duration(status.time.since(since))),
        row.key_bits.map_or_else(none, |bits| {
            let carrier = if row.encapsulation == Encapsulation::Udp { " in udp" } else { "" };
            format!("aes-gcm-{bits}{carrier}")
        }),
        human_bytes(row.tx.bytes),
        human_bytes(row.rx.bytes),
    ]
}

/// How many rows are how, in words.
pub(super) fn sum(summary: &Summary, style: Style) -> String {
    if summary.peers == 0 {
        return "no pairs".to_owned();
    }
    if summary.off == summary.peers {
        return format!("{} in the clear, on purpose", plural(summary.peers, "pair", ""));
    }
    let all = plural(summary.peers, "pair", "");
    let mut parts = vec![match summary.protected {
        protected if protected == summary.peers => {
            style.state(RowState::Protected, &format!("{all} protected"))
        }
        protected => format!("{protected} of {all} protected"),
    }];
    if summary.silent > 0 {
        parts.push(style.state(RowState::Negotiating, &format!("{} of them silent", summary.silent)));
    }
    for (count, state) in [
        (summary.negotiating, RowState::Negotiating),
        (summary.clear, RowState::Clear),
        (summary.blocked, RowState::Blocked),
        (summary.off, RowState::Off),
    ] {
        if count > 0 {
            parts.push(style.state(state, &format!("{count} {state}")));
        }
    }
    parts.join(", ")
}

/// Names, of which many are counted.
pub(super) fn names<N: fmt::Display>(names: &[N]) -> String {
    /// So many are listed.
    const LISTED: usize = 8;
    let listed: Vec<String> = names.iter().take(LISTED).map(N::to_string).collect();
    match names.len() - listed.len() {
        0 => listed.join(", "),
        more => format!("{} and {more} more", listed.join(", ")),
    }
}

/// `1 pair`, `2 pairs`, with `suffix` behind it.
fn plural(count: u64, noun: &str, suffix: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    let space = if suffix.is_empty() { "" } else { " " };
    format!("{count} {noun}{s}{space}{suffix}")
}

/// A plan as a diff.
pub(super) fn plan(lines: &[PlanLine]) -> String {
    if lines.is_empty() {
        return "nothing would change\n".to_owned();
    }
    let mut text = String::new();
    let mut counts = [0u64; 3];
    for line in lines {
        let (sign, count) = match line.change {
            Change::Add => ('+', 0),
            Change::Update => ('~', 1),
            Change::Delete => ('-', 2),
        };
        counts[count] += 1;
        let _ = writeln!(text, "{sign} {}", line.object);
    }
    let [add, update, delete] = counts;
    let _ = writeln!(text, "\n{add} to add, {update} to update, {delete} to delete");
    text
}
