//! Shows a status: once, refreshed, as soon as all is as it should be, or on a screen until somebody ends it.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::StatusArgs;
use super::exit::{CommandError, Exit};
use super::render::Extent;
use super::screen::Screen;
use super::sheet::Sheet;
use super::term::{self, Audience, Style, print, print_json};

/// How often `--watch` looks.
const REFRESH: Duration = Duration::from_secs(1);

/// What is shown.
pub(super) trait Shown: Serialize {
    /// The exit status that it means.
    fn exit(&self) -> Exit;
    /// What it looks like.
    fn sheet(&self, extent: Extent, style: Style) -> Sheet;

    /// The same as text.
    fn text(&self, extent: Extent, style: Style) -> String {
        self.sheet(extent, style).text(extent.width)
    }
}

/// Shows what `look` finds as `args` say. While it waits for all to be as it should be, `pause` waits for news, but no
/// longer than it is told.
pub(super) fn present<S: Shown>(
    args: &StatusArgs,
    look: impl Fn() -> Result<S, CommandError>,
    mut pause: impl FnMut(Duration, &S),
) -> Result<Exit, CommandError> {
    if args.watch && !args.json && std::io::stdout().is_terminal() {
        return watch(look, args);
    }
    let deadline = args.wait.map(|wait| Instant::now() + wait);
    loop {
        let status = look()?;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero() && status.exit() != Exit::Done) {
            pause(left.min(REFRESH), &status);
            continue;
        }
        if show(&status, args)? == Audience::Gone || !args.watch {
            return Ok(status.exit());
        }
        std::thread::sleep(REFRESH);
    }
}

/// Follows the status on a terminal, until somebody ends it.
fn watch<S: Shown>(
    look: impl Fn() -> Result<S, CommandError>,
    args: &StatusArgs,
) -> Result<Exit, CommandError> {
    // Errors at the start are said on the main screen, where they stay.
    let mut status = look()?;
    let screen = Screen::enter()?;
    loop {
        let (columns, height) = term::size().unwrap_or((80, 24));
        let extent = Extent { width: Some(columns), ..extent(args) };
        let style = Style::of_stdout();
        let lines = status.sheet(extent, style).screen((extent.width, height), style);
        if screen.draw(&lines)? == Audience::Gone || !screen.wait(REFRESH) {
            return Ok(status.exit());
        }
        status = look()?;
    }
}

/// How much is shown.
fn extent(args: &StatusArgs) -> Extent {
    Extent { all: args.all, details: !args.nodes.is_empty(), ..Extent::of_stdout() }
}

fn show<S: Shown>(status: &S, args: &StatusArgs) -> Result<Audience, CommandError> {
    match (args.json, args.watch) {
        (true, false) => print_json(status),
        (true, true) => print(&(serde_json::to_string(status).unwrap_or_default() + "\n")),
        (false, watch) => {
            let after = if watch { "\n" } else { "" };
            print(&(status.text(extent(args), Style::of_stdout()) + after))
        }
    }
}

/// Shows a result as JSON, or as text.
pub(super) fn result<S: Shown>(status: &S, json: bool) -> Result<Audience, CommandError> {
    match json {
        true => print_json(status),
        false => print(&status.text(Extent::of_stdout(), Style::of_stdout())),
    }
}
