//! Shows what `enable` and `disable` wait for: redrawn in place on a terminal, else a line a change. It
//! goes to standard error, so that results can be piped.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};

use super::layout::{gist, wrap};
use super::render;
use super::table::urgency;
use super::term::{self, Style, tell};
use crate::observe::status::Summary;
use crate::observe::{Progress, RowProgress};
use crate::types::units::{counted, listed};
use crate::types::{NodeName, Pair, RowState};

/// The columns and lines of a terminal that does not say how large it is.
const USUAL: (usize, usize) = (80, 24);
/// So many rows that changed in the same way at once get a line each.
const LINES_ALIKE: usize = 3;
/// So many hosts of those that stand alike are named.
const NAMED: usize = 3;

/// What standard error is good for.
pub(super) enum Medium {
    /// Nothing (`--quiet`).
    Nothing,
    /// Lines that are redrawn in place.
    Drawing,
    /// A line for each change.
    Lines,
}

impl Medium {
    /// What suits standard error.
    pub(super) fn of_stderr(quiet: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        match (quiet, io::stderr().is_terminal() && !dumb) {
            (true, _) => Self::Nothing,
            (false, true) => Self::Drawing,
            (false, false) => Self::Lines,
        }
    }
}

/// The columns and lines of the terminal that standard error is.
pub(super) fn size() -> (usize, usize) {
    term::size_of(io::stderr()).unwrap_or(USUAL)
}

/// Puts a `drawing` in the place of the `lines` that stand there.
pub(super) fn redraw(lines: &mut Vec<String>, drawing: Vec<String>) {
    if drawing != *lines {
        let draw = |line: &String| format!("\x1b[?7l{line}\x1b[?7h\n");
        let text: String = drawing.iter().map(draw).collect();
        write(&format!("{}{text}", erase(lines.len())));
        *lines = drawing;
    }
}

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
        match Medium::of_stderr(quiet) {
            Medium::Nothing => Self::Silent,
            Medium::Drawing => Self::Drawn { rows: BTreeMap::new(), lines: Vec::new() },
            Medium::Lines => Self::Lines { said: BTreeMap::new() },
        }
    }

    /// Shows what has changed.
    pub(super) fn update(&mut self, progress: Progress, settled: RowState) {
        match self {
            Self::Silent => {}
            Self::Drawn { rows, lines } => {
                rows.extend(progress.rows.into_iter().map(|row| (row.pair(), row)));
                redraw(lines, drawing(&progress.summary, rows, settled, size()));
            }
            Self::Lines { said } => {
                let is_news = |row: &&RowProgress| said.get(&row.pair()) != Some(&words(row));
                let news: Vec<&RowProgress> = progress.rows.iter().filter(is_news).collect();
                lines(&news).iter().for_each(|line| tell(line));
                said.extend(progress.rows.iter().map(|row| (row.pair(), words(row))));
            }
        }
    }

    /// Takes the drawing away, to make room for the result.
    pub(super) fn clear(&mut self) {
        if let Self::Drawn { lines, .. } = self {
            redraw(lines, Vec::new());
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

/// A line that sums up, and lines about the rows that are not settled, the most important first, in a terminal of so
/// many columns and lines. Lines that scrolled out of it could not be replaced.
fn drawing(
    summary: &Summary,
    rows: &BTreeMap<Pair, RowProgress>,
    settled: RowState,
    (columns, height): (usize, usize),
) -> Vec<String> {
    let waiting: Vec<&RowProgress> = rows.values().filter(|row| row.state != settled).collect();
    let mut drawn = wrap(&render::sum(summary, Style::PLAIN), Some(columns));
    // The cursor stands on the line below.
    let most = height.saturating_sub(2).max(1);
    let mut unseen = waiting.len();
    for group in alike(&waiting) {
        let lines = wrap(&format!("  {}", group_words(&group)), Some(columns));
        let last = usize::from(unseen > group.len());
        if drawn.len() + lines.len() + last > most {
            break;
        }
        drawn.extend(lines);
        unseen -= group.len();
    }
    if unseen > 0 {
        drawn.push(format!("  and {unseen} more"));
    }
    drawn.truncate(most);
    drawn
}

/// What is said of rows that have changed at the same time.
fn lines(rows: &[&RowProgress]) -> Vec<String> {
    let each = |group: Vec<&RowProgress>| match group.len() {
        ..=LINES_ALIKE => group.into_iter().map(words).collect(),
        _ => vec![group_words(&group)],
    };
    alike(rows).into_iter().flat_map(each).collect()
}

/// The rows in groups of those that stand alike, the most important first.
fn alike<'a>(rows: &[&'a RowProgress]) -> Vec<Vec<&'a RowProgress>> {
    let mut groups: BTreeMap<(u8, String), Vec<&RowProgress>> = BTreeMap::new();
    for row in rows {
        let names = [row.node.to_string(), row.remote.to_string(), row.local.to_string()];
        let reason = row.reason.as_ref().map_or_else(String::new, |reason| gist(reason, &names));
        groups.entry((urgency(row.state), reason)).or_default().push(row);
    }
    groups.into_values().collect()
}

/// What is said of rows that stand alike.
fn group_words(group: &[&RowProgress]) -> String {
    let [first, others @ ..] = group else { return String::new() };
    if others.is_empty() {
        return words(first);
    }
    let nodes: BTreeSet<&NodeName> = group.iter().map(|row| &row.node).collect();
    let names = listed(nodes, NAMED);
    let reason = match &first.reason {
        None => String::new(),
        Some(reason) if others.iter().all(|row| row.reason.as_ref() == Some(reason)) => format!(": {reason}"),
        Some(reason) => format!(", such as {}: {reason}", first.node),
    };
    format!("{} {} ({names}){reason}", counted(group.len(), "pair"), first.state)
}

fn words(row: &RowProgress) -> String {
    let reason = row.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{} {} {}{reason}", row.node, row.remote, row.state)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    /// Rows of hosts with long names and IPv6 addresses: a quarter protected, a quarter in each other state.
    fn crowd(count: u16) -> BTreeMap<Pair, RowProgress> {
        let row = |at: u16| {
            let remote = IpAddr::from([0x2001, 0xdb8, 0xffff, 0xeeee, 0xdddd, 0xcccc, 0xbbbb, at]);
            let states = [RowState::Protected, RowState::Negotiating, RowState::Clear, RowState::Blocked];
            let state = states[usize::from(at % 4)];
            let reason = (state != RowState::Protected).then(|| {
                format!("{remote} agrees on keys, but ESP (IP protocol 50) does not get through: open it in between")
            });
            let node = format!("storage-node-{at}.rack-17.example.net");
            RowProgress {
                node: serde_json::from_value(node.into()).unwrap(),
                local: [0x2001, 0xdb8, 0xffff, 0xeeee, 0xdddd, 0xcccc, 0xbbbb, 0xffff].into(),
                remote,
                state,
                reason_code: None,
                reason,
                waiting: false,
            }
        };
        (0..count).map(row).map(|row| (row.pair(), row)).collect()
    }

    #[test]
    fn a_drawing_fits_its_terminal_and_says_what_it_leaves_out() {
        for count in [1, 3, 80, 1000] {
            for (columns, height) in [(80, 24), (200, 50), (48, 10), (80, 3)] {
                let rows = crowd(count);
                let summary = Summary::of(rows.values().map(|row| row.state));
                let drawn = drawing(&summary, &rows, RowState::Protected, (columns, height));
                let text = drawn.join("\n");
                assert!(drawn.len() < height, "{columns}x{height}\n{text}");
                assert!(drawn.iter().all(|line| line.chars().count() <= columns), "{columns}\n{text}");
                if count >= 80 && height >= 24 {
                    let states = ["20 pairs blocked", "250 pairs blocked"];
                    assert!(states.iter().any(|state| text.contains(state)), "{text}");
                    let at = |state: &str| text.find(&format!("pairs {state} (")).unwrap();
                    assert!(at("blocked") < at("clear") && at("clear") < at("negotiating"), "{text}");
                }
            }
        }
        let rows = crowd(80);
        let summary = Summary::of(rows.values().map(|row| row.state));
        let drawn = drawing(&summary, &rows, RowState::Protected, (80, 10));
        assert_eq!(drawn.last().map(String::as_str), Some("  and 40 more"), "{drawn:#?}");
    }

    #[test]
    fn what_changes_alike_is_said_once() {
        let rows = crowd(80);
        let said = lines(&rows.values().collect::<Vec<_>>());
        assert_eq!(said.len(), 4, "{said:#?}");
        assert!(
            said[0].starts_with("20 pairs blocked (storage-node-11.rack-17.example.net, "),
            "{}",
            said[0]
        );
        assert!(said[0].contains(" and 17 more), such as storage-node-3.rack-17.example.net: 2001:db8:"));
        let few = crowd(4);
        let few: Vec<&RowProgress> = few.values().collect();
        assert_eq!(lines(&few), [few[3], few[2], few[1], few[0]].map(words));
    }
}
