//! What a status looks like: lines about the whole, a table, a line that sums up. It is printed, or fits a screen.

use super::layout::wrap;
use super::term::Style;

/// A status, ready to be shown.
pub(super) struct Sheet {
    /// The lines about the whole.
    pub(super) head: Vec<String>,
    /// The names of the table's columns.
    pub(super) names: String,
    /// The lines of each row that is shown.
    pub(super) rows: Vec<Vec<String>>,
    /// How many rows are as they should be and are not shown.
    pub(super) quiet: usize,
    /// The line that sums up.
    pub(super) sum: String,
    /// The command that shows all of the head.
    pub(super) whole: &'static str,
}

impl Sheet {
    /// All of it, in lines of `width` columns.
    pub(super) fn text(self, width: Option<usize>) -> String {
        let mut lines = self.head;
        if !self.rows.is_empty() {
            lines.extend([String::new(), self.names]);
            lines.extend(self.rows.into_iter().flatten());
        }
        lines.push(String::new());
        let hidden = match self.quiet {
            0 => String::new(),
            hidden => format!(" ({hidden} of them not shown: --all shows them)"),
        };
        lines.extend(wrap(&format!("{}{hidden}", self.sum), width));
        lines.join("\n") + "\n"
    }

    /// As much as has room on a screen of so many lines: the head stays, and the last line says how much has no room.
    pub(super) fn screen(self, (width, height): (Option<usize>, usize), style: Style) -> Vec<String> {
        // A small one is for the rows above all.
        let small = height < 16;
        let most = (height / if small { 4 } else { 2 }).max(1);
        let mut lines = self.head;
        if lines.len() > most {
            lines.truncate((most - 1).max(1));
            lines.extend((most > 1).then(|| format!("… (`{}` shows it all)", self.whole)));
        }
        let foot = |unseen: usize| {
            let mut parts = Vec::new();
            parts.extend((unseen > 0).then(|| style.bold(&format!("{unseen} out of view"))));
            parts.push(self.sum.clone());
            parts.extend((self.quiet > 0).then(|| format!("{} not shown (--all)", self.quiet)));
            let mut foot = wrap(&parts.join(" · "), width);
            foot.truncate(if small { 2 } else { usize::MAX });
            foot
        };
        let gap = !small;
        if !self.rows.is_empty() {
            lines.extend(gap.then(String::new));
            lines.push(self.names);
        }
        let shown = self.rows.len();
        let mut room = height.saturating_sub(lines.len() + usize::from(gap) + foot(shown).len());
        let mut drawn = 0;
        for row in self.rows {
            let Some(left) = room.checked_sub(row.len()) else { break };
            (room, drawn) = (left, drawn + 1);
            lines.extend(row);
        }
        lines.extend(gap.then(String::new));
        lines.extend(foot(shown - drawn));
        lines.truncate(height.max(1));
        lines
    }
}
