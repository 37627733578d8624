//! Shows what `enable` and `disable` wait for: redrawn in place on a terminal, else a line a change. It
//! goes to standard error, so that results can be piped.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use super::render;
use super::term::{Style, tell};
use crate::model::status::{RowState, Summary};
use crate::model::{Pair, Progress, RowProgress};

/// More rows than these are counted, not drawn.
const DRAWN: usize = 15;

/// What has been shown so far.
pub(super) enum View {
    /// Nothing is shown (`--quiet`).
    Silent,
    /// Redrawn in place.
    Drawn {
        /// How each pair stands.
        rows: BTreeMap<Pair, RowProgress>,
        /// The lines that stand there, to be replaced.
        lines: Vec<String>,
    },
    /// A line for each change.
    Lines {
        /// What was last said of each pair.
        said: BTreeMap<Pair, String>,
    },
}

impl View {
    /// What suits standard error.
    pub(super) fn new(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match (quiet, io::stderr().is_terminal() && !dumb) {
            (true, _) => Self::Silent,
            (false, true) => Self::Drawn { rows: BTreeMap::new(), lines: Vec::new() },
            (false, false) => Self::Lines { said: BTreeMap::new() },
        }
    }

    /// Shows what has changed.
    pub(super) fn update(&mut self, progress: Progress, settled: RowState) {
        match self {
            Self::Silent => {}
            Self::Drawn { rows, lines } => {
                rows.extend(progress.rows.into_iter().map(|row| (row.pair(), row)));
                let drawing = drawing(&progress.summary, rows, settled);
                if drawing != *lines {
                    write(&format!("{}{}", erase(lines.len()), drawing.join("")));
                    *lines = drawing;
                }
            }
            Self::Lines { said } => {
                for row in &progress.rows {
                    let words = words(row);
                    if said.get(&row.pair()) != Some(&words) {
                        tell(&words);
                        said.insert(row.pair(), words);
                    }
                }
            }
        }
    }

    /// Takes the drawing away, to make room for the result.
    pub(super) fn clear(&mut self) {
        if let Self::Drawn { lines, .. } = self {
            write(&erase(lines.len()));
            lines.clear();
        }
    }
}

/// Where standard error is closed there is nobody to show it to.
fn write(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Goes up `lines` lines and clears from there on.
fn erase(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\x1b[{lines}A\x1b[J") }
}

/// A line a row that is not settled, and one that sums up. Wrapping is off meanwhile: a line that took two
/// could not be replaced as one.
fn drawing(summary: &Summary, rows: &BTreeMap<Pair, RowProgress>, settled: RowState) -> Vec<String> {
    let waiting: Vec<&RowProgress> = rows.values().filter(|row| row.state != settled).collect();
    let mut lines = vec![render::sum(summary, Style::PLAIN)];
    lines.extend(waiting.iter().take(DRAWN).map(|row| format!("  {}", words(row))));
    if waiting.len() > DRAWN {
        lines.push(format!("  and {} more", waiting.len() - DRAWN));
    }
    lines.into_iter().map(|line| format!("\x1b[?7l{line}\x1b[?7h\n")).collect()
}

fn words(row: &RowProgress) -> String {
    let reason = row.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{} {} {}{reason}", row.node, row.remote, row.state)
}
