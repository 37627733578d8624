//! The columns of a table: which of them have room, and how wide they are.

use super::layout::{width, wrap};

/// The columns of a kind of table.
pub(super) struct Columns<const N: usize> {
    /// What they are called.
    pub(super) names: [&'static str; N],
    /// Which of them is coloured.
    pub(super) painted: usize,
    /// Which of them are shown where not all have room, the most first. The last ones are shown in any case.
    pub(super) narrower: &'static [&'static [usize]],
}

/// The columns that are shown of a table, and how wide they are.
pub(super) struct Layout<'c, const N: usize> {
    kind: &'c Columns<N>,
    shown: Vec<usize>,
    widths: [usize; N],
    most: Option<usize>,
}

impl<const N: usize> Columns<N> {
    /// The layout that shows most of `cells` in `most` columns of a terminal.
    pub(super) fn fitting(&self, cells: &[[String; N]], most: Option<usize>) -> Layout<'_, N> {
        let column = |column: usize| {
            let widest = cells.iter().map(|cells| width(&cells[column])).max().unwrap_or(0);
            widest.max(self.names[column].len())
        };
        let widths: [usize; N] = std::array::from_fn(column);
        let fits = |columns: &[usize]| {
            let sum: usize = columns.iter().map(|column| widths[*column] + 2).sum();
            most.is_none_or(|most| sum <= most + 2)
        };
        let all: Vec<usize> = (0..N).collect();
        let least = || self.narrower.last().map_or_else(Vec::new, |least| least.to_vec());
        let shown = match fits(&all) {
            true => all,
            false => self.narrower.iter().find(|set| fits(set)).map_or_else(least, |set| set.to_vec()),
        };
        Layout { kind: self, shown, widths, most }
    }
}

impl<const N: usize> Layout<'_, N> {
    /// Whether all columns are shown.
    pub(super) fn is_whole(&self) -> bool {
        self.shown.len() == N
    }

    /// Whether a column is shown.
    pub(super) fn shows(&self, column: usize) -> bool {
        self.shown.contains(&column)
    }

    /// Whether a line has room.
    pub(super) fn fits(&self, line: &str) -> bool {
        self.most.is_none_or(|most| width(line) <= most)
    }

    /// The line with the names of the columns.
    pub(super) fn names(&self) -> String {
        self.line(&self.kind.names.map(str::to_owned), str::to_owned)
    }

    /// A line of cells. They are padded first and painted then: colours have no width.
    pub(super) fn line(&self, cells: &[String; N], paint: impl Fn(&str) -> String) -> String {
        let padded = self.shown.iter().map(|column| {
            let (cell, width) = (&cells[*column], self.widths[*column]);
            let cell = format!("{cell:<width$}");
            if *column == self.kind.painted { paint(&cell) } else { cell }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }

    /// What is said below a row.
    pub(super) fn below(&self, text: &str) -> Vec<String> {
        let indent = if self.is_whole() { self.widths[0] + 2 } else { 2 };
        wrap(&format!("{:indent$}{text}", ""), self.most)
    }
}
