//! The rows of a status: the most important first, each reason once, and as wide as there is room.

use std::time::Duration;

use super::columns::{Columns, Layout};
use super::layout::gist;
use super::term::{Style, harmless};
use super::{details, render::Extent};
use crate::observe::status::{Encapsulation, PeerRow, Status};
use crate::types::RowState;
use crate::types::units::{human_bytes, human_duration};

/// The columns of the table; the addresses are below where not all have room.
const COLUMNS: Columns<8> = Columns {
    names: ["NODE", "LOCAL", "REMOTE", "STATE", "SINCE", "CIPHER", "TX", "RX"],
    painted: 3,
    narrower: &[&[0, 3, 4, 5, 6, 7], &[0, 3, 4, 6, 7], &[0, 3, 4], &[0, 3]],
};

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
    let layout = COLUMNS.fitting(&cells, extent.width);
    let mut drawn = Vec::new();
    let mut cells = cells.iter();
    for alike in rows.chunk_by(|(a, a_key), (b, b_key)| rank(a) == rank(b) && a_key == b_key) {
        for (at, ((row, _), cells)) in alike.iter().zip(&mut cells).enumerate() {
            let mut lines = of_row(&layout, row, cells, style);
            let more = if extent.details { details::lines(row) } else { Vec::new() };
            lines.extend(more.iter().flat_map(|line| layout.below(line)));
            // The head tells of this host's own trial.
            if let Some(seconds) = row.try_ends_in_s.filter(|_| status.try_ends_in_s.is_none()) {
                let left = human_duration(Duration::from_secs(seconds));
                let words = "back to the clear unless it is confirmed there";
                lines.extend(layout.below(&format!("{} is on trial for {left} more: {words}", row.node)));
            }
            let reason = row.reason.as_ref().filter(|_| at == 0);
            let all = || alike.iter().map(|(row, _)| row.reason.as_deref());
            lines.extend(
                reason.iter().flat_map(|reason| layout.below(&harmless(&of_all(reason, all(), "rows")))),
            );
            drawn.push(lines);
        }
    }
    (style.bold(&layout.names()), drawn)
}

/// The first of these `reasons` of `rows` that are alike, and how many it stands for.
pub(super) fn of_all<'r>(
    reason: &str,
    reasons: impl ExactSizeIterator<Item = Option<&'r str>>,
    rows: &str,
) -> String {
    let count = reasons.len();
    match (count, reasons.into_iter().all(|other| other == Some(reason))) {
        (1, _) => reason.to_owned(),
        (2, true) => format!("both: {reason}"),
        (_, true) => format!("all {count}: {reason}"),
        (_, false) => format!("{count} {rows} alike: {reason}"),
    }
}

/// What rows have in common whose reasons are the same.
fn key(row: &PeerRow) -> String {
    let names = [row.remote.to_string(), row.local.to_string()];
    row.reason.as_ref().map_or_else(String::new, |reason| gist(reason, &names))
}

/// The line of a row, and its addresses below where they have no columns.
fn of_row(layout: &Layout<'_, 8>, row: &PeerRow, cells: &[String; 8], style: Style) -> Vec<String> {
    let shade = if row.is_silent() { RowState::Negotiating } else { row.state };
    let mut lines = vec![layout.line(cells, |cell| style.state(shade, cell))];
    if !layout.is_whole() {
        let (local, remote) = (&cells[1], &cells[2]);
        let one = format!("  {local} <-> {remote}");
        let two = [format!("  {local} <->"), format!("  {remote}")];
        match (layout.fits(&one), two.iter().all(|line| layout.fits(line))) {
            (true, _) => lines.push(one),
            (false, true) => lines.extend(two),
            (false, false) => lines.extend([local, remote].map(|address| format!(" {address}"))),
        }
    }
    lines
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
