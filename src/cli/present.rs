//! Shows a status: once, refreshed, as soon as all is as it should be, or on a screen until somebody ends it.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::args::StatusArgs;
use super::exit::{CommandError, Exit};
use super::keyboard::Key;
use super::live::{self, Live, REFRESH};
use super::render::Extent;
use super::sheet::Sheet;
use super::term::{Audience, Style, print, print_json};

/// What is shown.
pub(super) trait Shown: Serialize {
    /// The exit status that it means.
    fn exit(&self) -> Exit;
    /// Whether an agent told it.
    fn is_answered(&self) -> bool {
        true
    }

    /// What it looks like.
    fn sheet(&self, extent: Extent, style: Style) -> Sheet;

    /// The same as text.
    fn text(&self, extent: Extent, style: Style) -> String {
        self.sheet(extent, style).text(extent.width)
    }
}

/// Shows what `look` finds as `args` say. While it waits for all to be as it should be, `pause` waits for news, but no
/// longer than it is told; it hears whether an agent has answered.
pub(super) fn present<S: Shown + Send + 'static>(
    args: &StatusArgs,
    look: impl Fn() -> Result<S, CommandError> + Send + 'static,
    mut pause: impl FnMut(Duration, bool) + Send + 'static,
) -> Result<Exit, CommandError> {
    if args.watch && !args.json && std::io::stdout().is_terminal() {
        // Errors at the start are said on the main screen, where they stay.
        let mut watched = Watched { status: look()?, args };
        live::run(&mut watched, look, pause)?;
        return Ok(watched.status.exit());
    }
    let deadline = args.wait.map(|wait| Instant::now() + wait);
    loop {
        let status = look()?;
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if let Some(left) = left.filter(|left| !left.is_zero() && status.exit() != Exit::Done) {
            pause(left.min(REFRESH), status.is_answered());
            continue;
        }
        if show(&status, args)? == Audience::Gone || !args.watch {
            return Ok(status.exit());
        }
        std::thread::sleep(REFRESH);
    }
}

/// A status on a screen.
struct Watched<'a, S> {
    status: S,
    args: &'a StatusArgs,
}

impl<S: Shown + Send + 'static> Live for Watched<'_, S> {
    type Found = S;

    fn note(&mut self, found: S, _: Instant) {
        self.status = found;
    }

    fn press(&mut self, key: Key) -> bool {
        key != Key::Character('q')
    }

    fn lines(&mut self, (columns, height): (usize, usize), style: Style) -> Vec<String> {
        let extent = Extent { width: Some(columns), ..extent(self.args) };
        self.status.sheet(extent, style).screen((extent.width, height), style)
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
