//! The terminal: what may be written to it, and in which colours.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use ratatui::buffer::Buffer;
use ratatui::style::{Color, Modifier, Style as Look};
use ratatui::text::Span;
use serde::Serialize;

use super::exit::CommandError;
use super::layout::wrap;
use crate::observe::doctor::CheckResult;
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
    match write_out(text) {
        Ok(()) => Ok(Audience::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Audience::Gone),
        Err(error) => Err(CommandError::io("writing to standard output", &error)),
    }
}

/// The same for one who knows what a failure means.
pub(super) fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
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
        self.paint(shade(state), text)
    }

    /// `text` in the colour of what came of a check.
    pub(super) fn check(self, result: CheckResult, text: &str) -> String {
        let look = match result {
            CheckResult::Ok => Look::new().fg(Color::Green),
            CheckResult::Warn => Look::new().fg(Color::Yellow),
            CheckResult::Fail => Look::new().fg(Color::Red).add_modifier(Modifier::BOLD),
            CheckResult::Unknown => Look::new(),
        };
        self.paint(look, text)
    }

    /// `text` in bold.
    pub(super) fn bold(self, text: &str) -> String {
        self.paint(bold(), text)
    }

    /// `text` as `look` says it. Without colours, only what is reversed is different: that is no colour, and shows where
    /// one is.
    pub(super) fn paint(self, look: Look, text: &str) -> String {
        let look = if self.colours { look } else { only_reversed(look) };
        match codes(look) {
            codes if codes.is_empty() => text.to_owned(),
            codes => format!("\x1b[{codes}m{text}\x1b[0m"),
        }
    }
}

/// What a state looks like.
pub(super) fn shade(state: RowState) -> Look {
    match state {
        RowState::Protected => Look::new().fg(Color::Green),
        RowState::Negotiating => Look::new().fg(Color::Yellow),
        RowState::Clear => Look::new().fg(Color::Red).add_modifier(Modifier::BOLD),
        RowState::Blocked => Look::new().fg(Color::Red),
        RowState::Off => Look::new(),
    }
}

/// What matters most.
pub(super) fn bold() -> Look {
    Look::new().add_modifier(Modifier::BOLD)
}

fn only_reversed(look: Look) -> Look {
    match look.add_modifier.contains(Modifier::REVERSED) {
        true => Look::new().add_modifier(Modifier::REVERSED),
        false => Look::new(),
    }
}

/// The parameters of "select graphic rendition" for this (ECMA-48 8.3.117).
fn codes(look: Look) -> String {
    let mut codes = Vec::new();
    for (modifier, code) in [(Modifier::BOLD, "1"), (Modifier::REVERSED, "7")] {
        codes.extend(look.add_modifier.contains(modifier).then_some(code));
    }
    codes.extend(match look.fg {
        Some(Color::Red) => Some("31"),
        Some(Color::Green) => Some("32"),
        Some(Color::Yellow) => Some("33"),
        _ => None,
    });
    codes.join(";")
}

/// `text` without what would steer a terminal or turn the direction of what follows: it may come from elsewhere.
pub(super) fn harmless(text: &str) -> String {
    text.chars().filter(|c| !is_steering(*c)).collect()
}

/// Whether a character steers how others are shown.
pub(super) fn is_steering(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The lines of a frame.
pub(super) fn lines(frame: &Buffer, style: Style) -> Vec<String> {
    (frame.area.top()..frame.area.bottom()).map(|line| self::line(frame, line, style)).collect()
}

/// One of them: what looks the same is painted at once, and blanks at its end are left out.
fn line(frame: &Buffer, line: u16, style: Style) -> String {
    let mut runs: Vec<(Look, String)> = Vec::new();
    let mut column = frame.area.left();
    while let Some(cell) = frame.cell((column, line)) {
        let symbol = harmless(cell.symbol());
        let look = Look { fg: Some(cell.fg), add_modifier: cell.modifier, ..Look::new() };
        match runs.last_mut() {
            Some((last, text)) if *last == look => text.push_str(&symbol),
            _ => runs.push((look, symbol.clone())),
        }
        // Behind a wide character is a cell that it covers.
        column += u16::try_from(Span::raw(symbol).width()).unwrap_or(1).max(1);
    }
    if let Some((look, text)) = runs.last_mut()
        && !look.add_modifier.contains(Modifier::REVERSED)
    {
        text.truncate(text.trim_end().len());
    }
    runs.into_iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(look, text)| style.paint(look, &text))
        .collect()
}
