//! The rows of a status: the most important first, each reason once, and as wide as there is room.

use std::time::Duration;

use super::layout::{gist, width, wrap};
use super::term::Style;
use super::{details, render::Extent};
use crate::observe::status::{Encapsulation, PeerRow, Status};
use crate::types::RowState;
use crate::types::units::{human_bytes, human_duration};

/// The columns of the table.
const COLUMNS: [&str; 8] = ["NODE", "LOCAL", "REMOTE", "STATE", "SINCE", "CIPHER", "TX", "RX"];
/// Which of them is the state.
const STATE: usize = 3;
/// What is shown of them where not all have room, the most first; the addresses are below then.
const NARROWER: [&[usize]; 4] = [&[0, 3, 4, 5, 6, 7], &[0, 3, 4, 6, 7], &[0, 3, 4], &[0, 3]];

/// What the table shows first.
pub(super) fn rank(row: &PeerRow) -> u8 {
    if row.is_silent() { 3 } else { urgency(row.state) }
}

/// How soon somebody has to look at a row in such a state, soonest first.
pub(super) fn urgency(state: RowState) -> u8 {
    match state {
        RowState::Blocked => 0,
        RowState::Clear => 1,
        RowState::Negotiating => 2,
        RowState::Protected => 4,
        RowState::Off => 5,
    }
}

/// The line with the names of the columns, and the lines of each row; those of the first row of several that are alike
/// say why, so that a screen that has no room for all rows says it, too.
pub(super) fn table(
    rows: &[&PeerRow],
    status: &Status,
    extent: Extent,
    style: Style,
) -> (String, Vec<Vec<String>>) {
    let mut rows: Vec<(&PeerRow, String)> = rows.iter().map(|row| (*row, key(row))).collect();
    rows.sort_by(|(a, a_key), (b, b_key)| rank(a).cmp(&rank(b)).then_with(|| a_key.cmp(b_key)));
    let cells: Vec<[String; 8]> = rows.iter().map(|(row, _)| cells(row, status)).collect();
    let layout = Layout::fitting(&cells, extent.width);
    let mut drawn = Vec::new();
    let mut cells = cells.iter();
    for alike in rows.chunk_by(|(a, a_key), (b, b_key)| rank(a) == rank(b) && a_key == b_key) {
        for (at, ((row, _), cells)) in alike.iter().zip(&mut cells).enumerate() {
            let mut lines = layout.row(row, cells, style);
            let more = if extent.details { details::lines(row) } else { Vec::new() };
            lines.extend(more.iter().flat_map(|line| layout.below(line)));
            // The head tells of this host's own trial.
            if let Some(seconds) = row.try_ends_in_s.filter(|_| status.try_ends_in_s.is_none()) {
                let left = human_duration(Duration::from_secs(seconds));
                let words = "back to the clear unless it is confirmed there";
                lines.extend(layout.below(&format!("{} is on trial for {left} more: {words}", row.node)));
            }
            let reason = row.reason.as_ref().filter(|_| at == 0);
            lines.extend(reason.iter().flat_map(|reason| layout.below(&of_all(reason, alike))));
            drawn.push(lines);
        }
    }
    (style.bold(&layout.names()), drawn)
}

/// The reason of the first of these rows, and how many rows it stands for.
fn of_all(reason: &str, alike: &[(&PeerRow, String)]) -> String {
    let same = alike.iter().all(|(row, _)| row.reason.as_deref() == Some(reason));
    match (alike.len(), same) {
        (1, _) => reason.to_owned(),
        (2, true) => format!("both: {reason}"),
        (rows, true) => format!("all {rows}: {reason}"),
        (rows, false) => format!("{rows} rows alike: {reason}"),
    }
}

/// What rows have in common whose reasons are the same.
fn key(row: &PeerRow) -> String {
    let names = [row.remote.to_string(), row.local.to_string()];
    row.reason.as_ref().map_or_else(String::new, |reason| gist(reason, &names))
}

/// Which columns there are, and how wide.
struct Layout {
    columns: &'static [usize],
    widths: [usize; 8],
    most: Option<usize>,
}

impl Layout {
    /// The one that shows most in `most` columns of a terminal.
    fn fitting(cells: &[[String; 8]], most: Option<usize>) -> Self {
        let column = |column: usize| {
            let widest = cells.iter().map(|cells| width(&cells[column])).max().unwrap_or(0);
            widest.max(COLUMNS[column].len())
        };
        let widths: [usize; 8] = std::array::from_fn(column);
        let takes = |columns: &&[usize]| {
            let sum: usize = columns.iter().map(|column| widths[*column] + 2).sum();
            most.is_none_or(|most| sum - 2 <= most)
        };
        let all: &'static [usize] = &[0, 1, 2, 3, 4, 5, 6, 7];
        let columns = std::iter::once(all).chain(NARROWER).find(takes).unwrap_or(NARROWER[3]);
        Self { columns, widths, most }
    }

    fn names(&self) -> String {
        self.aligned(&COLUMNS.map(str::to_owned), str::to_owned)
    }

    fn row(&self, row: &PeerRow, cells: &[String; 8], style: Style) -> Vec<String> {
        let shade = if row.is_silent() { RowState::Negotiating } else { row.state };
        let mut lines = vec![self.aligned(cells, |cell| style.state(shade, cell))];
        if self.columns.len() < COLUMNS.len() {
            let (local, remote) = (&cells[1], &cells[2]);
            let fits = |line: &String| self.most.is_none_or(|most| width(line) <= most);
            let one = format!("  {local} <-> {remote}");
            let two = [format!("  {local} <->"), format!("  {remote}")];
            match (fits(&one), two.iter().all(fits)) {
                (true, _) => lines.push(one),
                (false, true) => lines.extend(two),
                (false, false) => lines.extend([local, remote].map(|address| format!(" {address}"))),
            }
        }
        lines
    }

    /// What is said below a row.
    fn below(&self, text: &str) -> Vec<String> {
        let indent = if self.columns.len() < COLUMNS.len() { 2 } else { self.widths[0] + 2 };
        wrap(&format!("{:indent$}{text}", ""), self.most)
    }

    /// A line of cells. They are padded first and painted then: colours have no width.
    fn aligned(&self, cells: &[String; 8], paint_state: impl Fn(&str) -> String) -> String {
        let padded = self.columns.iter().map(|column| {
            let (cell, width) = (&cells[*column], self.widths[*column]);
            if *column == STATE { paint_state(&format!("{cell:<width$}")) } else { format!("{cell:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
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
