//! `hostseal top` and `status --watch` in tmux, as an operator has them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};

use super::sealed_pair;
use crate::lab::agent::{hostseal, kill_agent};
use crate::lab::stream::Shape;
use crate::lab::{HOSTSEAL, Host, Lab, Stream, until};
use crate::tests::Test;

pub(super) const ALL: &[Test] = &[
    Test::new("top::shows_what_flows_and_takes_keys", 2, shows_what_flows_and_takes_keys),
    Test::new("top::prints_once_with_and_without_an_agent", 2, prints_once),
    Test::new("top::ends_with_its_terminal", 2, ends_with_its_terminal),
];

/// How long a screen may take to show something. It is no measure.
const SOON: Duration = Duration::from_secs(30);

/// A terminal on a host, in tmux.
struct Terminal<'h> {
    host: &'h Host,
}

impl<'h> Terminal<'h> {
    /// Runs a command of hostseal on a terminal of so many columns and lines. Behind it, a shell says how it ended.
    fn new(host: &'h Host, command: &str, (columns, lines): (u16, u16)) -> Result<Self> {
        let terminal = Self { host };
        let line = format!("{HOSTSEAL} {command}; echo ended with $?; exec sleep 600");
        terminal.tmux(&format!("new-session -d -x {columns} -y {lines} '{line}'"))?;
        terminal.tmux("set -g status off")?;
        Ok(terminal)
    }

    fn tmux(&self, command: &str) -> Result<String> {
        self.host.run(&format!("TERM=xterm tmux -u -f /dev/null -S /run/tmux {command}"))
    }

    fn press(&self, keys: &str) -> Result<()> {
        self.tmux(&format!("send-keys {keys}")).map(drop)
    }

    fn screen(&self) -> Result<String> {
        self.tmux("capture-pane -p")
    }

    /// Waits until the screen shows all of `parts`.
    fn await_parts(&self, what: &str, parts: &[&str]) -> Result<String> {
        until(what, SOON, || {
            let screen = self.screen()?;
            ensure!(parts.iter().all(|part| screen.contains(part)), "{parts:?} are not on\n{screen}");
            Ok(screen)
        })
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.tmux("kill-server");
    }
}

fn shows_what_flows_and_takes_keys(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let stream = Stream::start(&a, &b, Shape::default())?;
    let terminal = Terminal::new(&a, "top", (80, 24))?;
    terminal
        .await_parts("both pairs", &["2 pairs protected", "TX BIT/S", "b 10.99.0.2", "b fd99::2", "esp"])?;
    // Rates of the stream: a minute ago there were none.
    until("the rate of the stream", SOON, || {
        let screen = terminal.screen()?;
        let row = screen.lines().find(|line| line.contains("b 10.99.0.2 ")).context("no row")?;
        ensure!(row.contains('k') || row.contains('M'), "{screen}");
        ensure!(row.contains('█'), "no line of the minute: {screen}");
        Ok::<_, anyhow::Error>(())
    })?;
    println!("{}", terminal.screen()?);
    terminal.press("s")?;
    terminal.await_parts("another order", &["by node"])?;
    terminal.press("/ f d 9 9")?;
    let screen = terminal.await_parts("the filter", &["filter: fd99_"])?;
    ensure!(!screen.contains("b 10.99.0.2 "), "{screen}");
    terminal.press("Enter")?;
    terminal.await_parts("the kept filter", &["filter: fd99 "])?;
    terminal.press("Escape Down")?;
    terminal.await_parts("the second row", &["fd99::1 <-> fd99::2"])?;
    // Another size, while it runs.
    terminal.tmux("resize-window -x 40 -y 10")?;
    terminal.await_parts("a small screen", &["NODE       STATE       TX BIT/S RX BIT/S"])?;
    terminal.tmux("resize-window -x 80 -y 24")?;
    // An agent that dies, and one that comes.
    kill_agent(&a)?;
    terminal.await_parts("that no agent runs", &["no agent runs", "b fd99::2"])?;
    hostseal(&a, "enable")?.expect_code(0)?;
    terminal.await_parts("the new agent", &["agent up", "2 pairs protected"])?;
    terminal.press("q")?;
    let screen = terminal.await_parts("the shell again", &["ended with 0"])?;
    ensure!(!screen.contains("TX BIT/S"), "what was there before is back: {screen}");
    drop(stream);
    Ok(())
}

fn prints_once(lab: &mut Lab) -> Result<()> {
    let (a, b) = sealed_pair(lab)?;
    let stream = Stream::start(&a, &b, Shape::default())?;
    let frame = hostseal(&a, "top --once")?.expect_code(0)?.stdout;
    println!("{frame}");
    ensure!(
        frame.contains("2 pairs protected") && frame.contains("REMOTE") && !frame.contains('\x1b'),
        "{frame}"
    );
    ensure!(hostseal(&a, "top b --once")?.expect_code(0)?.stdout.contains("fd99::2"));
    kill_agent(&a)?;
    let frame = hostseal(&a, "top --once")?.expect_code(3)?.stdout;
    println!("{frame}");
    let row = frame.lines().find(|line| line.contains("10.99.0.2")).context("no row")?;
    ensure!(frame.contains("no agent runs") && row.contains("protected"), "{frame}");
    // The kernel's counters say what flows.
    ensure!(row.contains('k') || row.contains('M'), "{frame}");
    drop(stream);
    Ok(())
}

/// A terminal that vanishes, and signals, end it.
fn ends_with_its_terminal(lab: &mut Lab) -> Result<()> {
    let (a, _) = sealed_pair(lab)?;
    for command in ["top", "status --watch"] {
        let terminal = Terminal::new(&a, command, (80, 24))?;
        terminal.await_parts("the pairs", &["2 pairs protected"])?;
        let process = watcher(&a)?.context("it does not run")?;
        kill(nix::unistd::Pid::from_raw(process), Signal::SIGTERM)?;
        terminal.await_parts("the shell again", &["ended with 0"])?;
        drop(terminal);
        let terminal = Terminal::new(&a, command, (80, 24))?;
        terminal.await_parts("the pairs", &["2 pairs protected"])?;
        drop(terminal);
        until("it is gone", SOON, || {
            ensure!(watcher(&a)?.is_none(), "{command} goes on");
            Ok::<_, anyhow::Error>(())
        })?;
    }
    Ok(())
}

/// The process that watches on a host.
fn watcher(host: &Host) -> Result<Option<i32>> {
    let found = host.processes()?.into_iter().find(|process| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.starts_with(HOSTSEAL) && (line.contains("\0top\0") || line.contains("\0--watch\0"))
    });
    Ok(found.map(|process| process.as_raw()))
}
