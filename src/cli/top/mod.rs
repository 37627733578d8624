//! `hostseal top`: how much flows over each pair, on a screen that is refreshed, or printed once.

mod columns;
mod model;
mod rates;
mod spark;
#[cfg(test)]
mod tests;
mod view;

use std::io::IsTerminal as _;
use std::thread;
use std::time::Instant;

use self::model::{Model, Onward};
use super::args::{Invocation, TopArgs};
use super::exit::{CommandError, Exit};
use super::keyboard::Key;
use super::live::{self, Live, REFRESH, timed};
use super::present::Shown as _;
use super::status::{ask_for_root, following};
use super::term::{self, Style, lines, print};
use crate::observe::status::Status;

/// As wide as a frame is that no terminal limits.
const WIDTH: usize = 200;

pub(super) fn run(invocation: &Invocation, args: &TopArgs) -> Result<Exit, CommandError> {
    follow(invocation, args).map_err(|failure| ask_for_root("hostseal top", failure))
}

fn follow(invocation: &Invocation, args: &TopArgs) -> Result<Exit, CommandError> {
    if !args.once && !std::io::stdout().is_terminal() {
        return Err(CommandError::new(Exit::Usage, "standard output is no terminal: `hostseal top --once`"));
    }
    let (look, mut news) = following(invocation, &args.nodes)?;
    let (status, at, took) = timed(&look);
    let mut model = Model::new(status?, at);
    if args.once {
        thread::sleep(REFRESH.saturating_sub(took));
        let (status, at, _) = timed(&look);
        model.note(status?, at);
        print_frame(&mut model)?;
    } else {
        live::run(&mut model, look, move |left, answered| news.wait(left, answered))?;
    }
    Ok(model.status().exit())
}

/// Prints what a terminal has room for, and all of it where there is none.
fn print_frame(model: &mut Model) -> Result<(), CommandError> {
    let size = term::size();
    let width = size.map_or(WIDTH, |(columns, _)| columns);
    // The prompt has a line.
    let height = size.map(|(_, lines)| clamped(lines.saturating_sub(1)));
    let frame = view::printed(model, clamped(width), height);
    print(&(lines(&frame, Style::of_stdout()).join("\n") + "\n")).map(drop)
}

impl Live for Model {
    type Found = Status;

    fn note(&mut self, found: Status, at: Instant) {
        Self::note(self, found, at);
    }

    fn press(&mut self, key: Key) -> bool {
        Self::press(self, key) == Onward::Yes
    }

    fn lines(&mut self, (columns, height): (usize, usize), style: Style) -> Vec<String> {
        lines(&view::screen(self, clamped(columns), clamped(height)), style)
    }
}

/// No terminal is larger; one that says so is not given the memory.
fn clamped(count: usize) -> u16 {
    const LARGEST: u16 = 1000;
    u16::try_from(count).unwrap_or(LARGEST).min(LARGEST)
}
