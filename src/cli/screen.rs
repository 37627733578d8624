//! The screen of `status --watch`: the terminal's alternate one, so that what was there before comes back.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

use super::exit::CommandError;
use super::term::{Audience, print};

/// The alternate screen, no cursor, no wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// Back from there.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// What ends a wait early.
enum Wake {
    /// The window has another size.
    Redraw,
    /// Somebody wants us to end.
    End,
}

/// The alternate screen, until it is dropped.
pub(super) struct Screen {
    calls: Receiver<Wake>,
}

impl Screen {
    /// Takes the terminal over. Signals that end the process end [`Screen::wait`] from now on.
    pub(super) fn enter() -> Result<Self, CommandError> {
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGWINCH] {
            signals.add(signal);
        }
        signals.thread_block().map_err(|errno| CommandError::io("blocking signals", &errno.into()))?;
        let (sender, calls) = channel();
        std::thread::spawn(move || {
            while let Ok(signal) = signals.wait() {
                let call = if signal == Signal::SIGWINCH { Wake::Redraw } else { Wake::End };
                if sender.send(call).is_err() {
                    return;
                }
            }
        });
        print(ENTER)?;
        Ok(Self { calls })
    }

    /// Shows `lines` and nothing else.
    pub(super) fn draw(&self, lines: &[String]) -> Result<Audience, CommandError> {
        // All is cleared before it is written: behind the last column of a line, that column would be cleared too.
        print(&format!("\x1b[H\x1b[J{}", lines.join("\r\n")))
    }

    /// Waits for `time`, or until the window has another size. `false` when it is time to end.
    pub(super) fn wait(&self, time: Duration) -> bool {
        !matches!(self.calls.recv_timeout(time), Ok(Wake::End) | Err(RecvTimeoutError::Disconnected))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // Where nobody reads any more there is nothing to restore.
        let _ = print(LEAVE);
    }
}
