//! The terminal: what may be written to it, and in which colours.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use serde::Serialize;

use super::exit::CommandError;
use super::layout::wrap;
use crate::types::RowState;

/// Whether whoever reads standard output is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Yes.
    There,
    /// No (`hostseal status --watch | head`): nothing more needs to be written, and that is no failure.
    Gone,
}

/// Writes results to standard output.
///
/// # Errors
/// The system refused, for another reason than that nobody reads any more.
pub fn print(text: &str) -> Result<Audience, CommandError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Audience::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Audience::Gone),
        Err(error) => Err(CommandError::io("writing to standard output", &error)),
    }
}

/// Writes a result as JSON, on several lines.
pub(super) fn print_json(value: &impl Serialize) -> Result<Audience, CommandError> {
    // Plain data with string keys: writing it to memory has nothing to fail at.
    let json = serde_json::to_string_pretty(value).unwrap_or_default();
    print(&(json + "\n"))
}

/// Tells the operator something that is no result, in lines as long as a terminal's. Where standard error is closed
/// there is nobody to tell.
pub(super) fn tell(text: &str) {
    let columns = size_of(io::stderr()).map(|(columns, _)| columns);
    for line in text.lines().flat_map(|line| wrap(line, columns)) {
        let _ = writeln!(io::stderr(), "{line}");
    }
}

/// The columns and lines of the terminal that standard output is.
pub(super) fn size() -> Option<(usize, usize)> {
    size_of(io::stdout())
}

/// The same of the terminal that `output` is.
pub(super) fn size_of(output: impl AsFd) -> Option<(usize, usize)> {
    let (terminal_size::Width(columns), terminal_size::Height(lines)) =
        terminal_size::terminal_size_of(output)?;
    // A terminal that does not know says 0.
    (columns > 0 && lines > 0).then_some((columns.into(), lines.into()))
}

/// Whether what is written is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    colours: bool,
}

impl Style {
    /// No colours.
    pub(super) const PLAIN: Self = Self { colours: false };
    /// Colours.
    #[cfg(test)]
    pub(super) const COLOURED: Self = Self { colours: true };

    /// What suits standard output: colours on a terminal that has them, unless `NO_COLOR` is set
    /// (no-color.org).
    pub(super) fn of_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { colours: io::stdout().is_terminal() && !dumb && !set("NO_COLOR") }
    }

    /// `text` in the colour of `state`.
    pub(super) fn state(self, state: RowState, text: &str) -> String {
        let colour = match state {
            RowState::Protected => "32",   // green
            RowState::Negotiating => "33", // yellow
            RowState::Clear => "1;31",     // bold red
            RowState::Blocked => "31",     // red
            RowState::Off => return text.to_owned(),
        };
        self.paint(colour, text)
    }

    /// `text` in bold.
    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
