//! What a status of a cluster looks like: what all of it is to do, what is wrong, a row for each node.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use super::rotate;
use crate::cli::columns::{Columns, Layout};
use crate::cli::exit::Exit;
use crate::cli::layout::{gist, wrap};
use crate::cli::present::Shown;
use crate::cli::render::{Extent, MANY, problems};
use crate::cli::sheet::Sheet;
use crate::cli::table::of_all;
use crate::cli::term::Style;
use crate::observe::cluster::{ClusterStatus, DesiredState, MemberRow, MemberTrouble};
use crate::types::units::{counted, human_duration};
use crate::types::{Protection, RowState, UnixTime};

/// The columns of the table; the addresses are below where not all have room.
const COLUMNS: Columns<8> = Columns {
    names: ["NODE", "ADDRESSES", "ROLE", "PROTECTION", "PAIRS", "ROSTER", "VERSION", "HEARD"],
    painted: 3,
    narrower: &[
        &[0, 2, 3, 4, 5, 6, 7],
        &[0, 2, 3, 4, 5, 7],
        &[0, 2, 3, 4, 5],
        &[0, 3, 4, 5],
        &[0, 3, 4],
        &[0, 3],
    ],
};
/// Which of them are the addresses.
const ADDRESSES: usize = 1;
/// So many digits of an id are shown: they are for comparing.
const DIGITS: usize = 12;

/// A status of a cluster, and when it was asked for.
pub(super) struct Seen {
    pub(super) status: ClusterStatus,
    pub(super) now: UnixTime,
}

impl Seen {
    /// One that was asked for just now.
    pub(super) fn now(status: ClusterStatus) -> Self {
        Self { status, now: SystemTime::now().into() }
    }
}

impl Serialize for Seen {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.status.serialize(serializer)
    }
}

impl Shown for Seen {
    fn exit(&self) -> Exit {
        if self.status.is_healthy() { Exit::Done } else { Exit::Degraded }
    }

    fn sheet(&self, extent: Extent, style: Style) -> Sheet {
        let all = extent.all || self.status.nodes.len() <= MANY;
        let shown: Vec<&MemberRow> =
            self.status.nodes.iter().filter(|node| all || node.reason_code.is_some()).collect();
        let quiet = self.status.nodes.len() - shown.len();
        let (names, rows) = self.table(shown, extent, style);
        Sheet {
            head: head(&self.status, style).iter().flat_map(|line| wrap(line, extent.width)).collect(),
            names,
            rows,
            quiet,
            sum: sum(&self.status, style),
            whole: "hostseal status --cluster",
        }
    }
}

impl Seen {
    /// The line with the names of the columns, and the lines of each row, those that are not as they should be first. Of
    /// several with the same trouble the first says why.
    fn table(&self, nodes: Vec<&MemberRow>, extent: Extent, style: Style) -> (String, Vec<Vec<String>>) {
        let mut rows: Vec<(&MemberRow, String)> = nodes.into_iter().map(|node| (node, key(node))).collect();
        let rank = |node: &MemberRow| (node.reason_code.is_none(), node.reason_code);
        rows.sort_by(|(a, a_key), (b, b_key)| rank(a).cmp(&rank(b)).then_with(|| a_key.cmp(b_key)));
        let cells: Vec<[String; 8]> = rows.iter().map(|(node, _)| self.cells(node)).collect();
        let layout = COLUMNS.fitting(&cells, extent.width);
        let mut drawn = Vec::new();
        let mut cells = cells.iter();
        for alike in rows.chunk_by(|(a, a_key), (b, b_key)| rank(a) == rank(b) && a_key == b_key) {
            for (at, ((node, _), cells)) in alike.iter().zip(&mut cells).enumerate() {
                let mut lines = of_row(&layout, node, cells, style);
                let more = if extent.details { details(node) } else { Vec::new() };
                lines.extend(more.iter().flat_map(|line| layout.below(line)));
                let reason = node.reason.as_ref().filter(|_| at == 0);
                let all = || alike.iter().map(|(node, _)| node.reason.as_deref());
                lines.extend(reason.iter().flat_map(|reason| layout.below(&of_all(reason, all(), "nodes"))));
                drawn.push(lines);
            }
        }
        (style.bold(&layout.names()), drawn)
    }

    fn cells(&self, node: &MemberRow) -> [String; 8] {
        let none = || "-".to_owned();
        let role = match (node.admin, node.foreign) {
            (true, _) => "admin",
            (false, true) => "foreign",
            (false, false) => "node",
        };
        let protection = match (node.protection, node.local) {
            (Some(protection), Some(local)) if protection == local => format!("{protection} (own)"),
            (Some(protection), Some(local)) => format!("{protection} (own: {local})"),
            (Some(protection), None) => protection.to_string(),
            (None, _) => none(),
        };
        let roster =
            node.roster_id.as_ref().map(|id| if *id == self.status.roster_id { "same" } else { "differs" });
        let heard = match node.last_heard {
            _ if self.status.node.as_ref() == Some(&node.name) => "here".to_owned(),
            _ if node.answers => "now".to_owned(),
            Some(time) => format!("{} ago", human_duration(self.now.since(time))),
            None => none(),
        };
        [
            node.name.to_string(),
            addresses(node),
            role.to_owned(),
            protection,
            node.protected
                .zip(node.rows)
                .map_or_else(none, |(protected, rows)| format!("{protected}/{rows}")),
            roster.map_or_else(none, str::to_owned),
            node.version.clone().unwrap_or_else(none),
            heard,
        ]
    }
}

/// The line of a node, and its addresses below where they have no column.
fn of_row(layout: &Layout<'_, 8>, node: &MemberRow, cells: &[String; 8], style: Style) -> Vec<String> {
    let shade = match (node.reason_code, node.protection) {
        (None, Some(Protection::On)) => RowState::Protected,
        (None, _) => RowState::Off,
        (Some(MemberTrouble::NotJoined | MemberTrouble::RosterDiffers | MemberTrouble::Problems), _) => {
            RowState::Negotiating
        }
        (Some(_), _) => RowState::Clear,
    };
    let mut lines = vec![layout.line(cells, |cell| style.state(shade, cell))];
    if !layout.shows(ADDRESSES) {
        lines.extend(layout.below(&addresses(node)));
    }
    lines
}

fn addresses(node: &MemberRow) -> String {
    match node.addresses.as_slice() {
        [] => "-".to_owned(),
        addresses => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// What nodes have in common whose reasons are the same.
fn key(node: &MemberRow) -> String {
    let names: Vec<String> = std::iter::once(node.name.to_string())
        .chain(node.addresses.iter().map(ToString::to_string))
        .collect();
    node.reason.as_ref().map_or_else(String::new, |reason| gist(reason, &names))
}

/// What is said of a node that was asked for by name.
fn details(node: &MemberRow) -> Vec<String> {
    let roster = node.roster_id.as_ref().map(|id| format!("roster id {id}"));
    let config = node.config_id.as_ref().map(|id| format!("config id {id}"));
    let secret = node.secret_id.as_ref().map(|id| format!("secret id {id}"));
    let skew = node.clock_skew_s.map(|skew| {
        let seconds = f64::from(skew);
        let side = if seconds < 0.0 { "behind" } else { "ahead" };
        format!("its clock is {:.3} s {side}", seconds.abs())
    });
    [roster, config, secret, skew].into_iter().flatten().collect()
}

/// The lines about the cluster.
fn head(status: &ClusterStatus, style: Style) -> Vec<String> {
    let desired = match status.desired {
        DesiredState::On => "protection on",
        DesiredState::Off => "protection off",
        DesiredState::Unset => "not enabled yet",
    };
    let mut lines = vec![format!(
        "{} · {} · {}",
        style.bold(&format!("cluster {}", status.cluster)),
        style.bold(desired),
        counts(status, style)
    )];
    if let Some(seconds) = status.try_ends_in_s {
        let left = human_duration(Duration::from_secs(seconds));
        lines.push(format!(
            "on trial for {left} more, then back to what was before: `hostseal confirm --cluster` keeps it"
        ));
    }
    if let Some(seconds) = status.settings_try_end_in_s {
        let left = human_duration(Duration::from_secs(seconds));
        lines.push(format!(
            "settings on trial for {left} more, then back to those before: `hostseal confirm --cluster` on an admin node keeps \
             them"
        ));
    }
    if !status.has_current_keys() {
        lines.push(format!("new keys: {}", rotate::line(status)));
    }
    let seen = status
        .node
        .as_ref()
        .map_or_else(|| "seen from a node that was removed".to_owned(), |node| format!("seen from {node}"));
    lines.push(format!(
        "cluster id {} · roster id {} · {seen}",
        short(&status.cluster_id),
        short(&status.roster_id)
    ));
    let problem = style.state(RowState::Blocked, "problem:");
    lines.extend(status.conflicts.iter().map(|conflict| format!("{problem} {}", conflict.message)));
    lines.extend(problems(&status.problems, style));
    lines
}

/// How many nodes and rows there are, and how many of them are well.
pub(super) fn counts(status: &ClusterStatus, style: Style) -> String {
    let summary = &status.summary;
    let nodes = counted(summary.nodes, "node");
    let answering = match summary.answering {
        1 if summary.nodes == 1 => nodes,
        answering if answering == summary.nodes => format!("{nodes}, all answer"),
        answering => format!("{nodes}, {answering} answer"),
    };
    let rows = match (summary.protected, summary.rows) {
        (_, 0) => "no pairs".to_owned(),
        (protected, rows) => {
            let all = counted(usize::try_from(rows).unwrap_or(usize::MAX), "row");
            match protected == rows {
                true => style.state(RowState::Protected, &format!("{all} protected")),
                false => format!("{protected} of {all} protected"),
            }
        }
    };
    format!("{answering} · {rows}")
}

/// How many nodes are as they should be.
fn sum(status: &ClusterStatus, style: Style) -> String {
    let all = status.nodes.len();
    let well = status.nodes.iter().filter(|node| node.reason_code.is_none()).count();
    match (well, all) {
        (_, 0) => "no nodes".to_owned(),
        (1, 1) => "the node is as it should be".to_owned(),
        (well, all) if well == all => format!("all {all} nodes are as they should be"),
        (well, all) => {
            let wrong = all - well;
            let is = if wrong == 1 { "is" } else { "are" };
            format!(
                "{well} of {} as they should be, {}",
                counted(all, "node"),
                style.state(RowState::Clear, &format!("{wrong} {is} not"))
            )
        }
    }
}

/// An id for people.
fn short(id: &str) -> &str {
    id.get(..DIGITS).unwrap_or(id)
}
