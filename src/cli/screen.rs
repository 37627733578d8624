//! The terminal, as `top` and `status --watch` have it for themselves: its alternate screen, so that what was there before
//! comes back, and its keys as they are pressed. It is as it was before on every way out.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, raise};
use rustix::termios::{
    InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use super::exit::CommandError;
use super::keyboard::{Key, keys};
use super::term::{Audience, write_out};

/// The alternate screen, no cursor, no wrapping.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// Back from there.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// A terminal that takes nothing any more keeps nobody from ending for longer than this.
const FAREWELL: Duration = Duration::from_secs(2);

/// What somebody does to the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gesture {
    /// A key is pressed.
    Press(Key),
    /// The window has another size.
    Redraw,
    /// It is to stop for a while (Ctrl-Z).
    Suspend,
    /// Somebody wants us to end, or the terminal is gone.
    End,
}

/// The alternate screen, until it is dropped.
pub(super) struct Screen {
    terminal: Arc<Terminal>,
    /// The lines that stand there.
    shown: Vec<String>,
}

/// The terminal, and how it is to be left.
struct Terminal {
    /// Where its keys come from, and its settings before; `None` where they cannot be read.
    keyboard: Option<(File, Termios)>,
    /// Whether it is taken over now.
    taken: AtomicBool,
}

impl Screen {
    /// Takes the terminal over. From now on `tell` hears of keys and of signals, and says whether somebody listens.
    pub(super) fn enter(
        tell: impl Fn(Gesture) -> bool + Clone + Send + 'static,
    ) -> Result<Self, CommandError> {
        let signals = blocked().map_err(|errno| CommandError::io("blocking signals", &errno.into()))?;
        let terminal = Arc::new(Terminal { keyboard: keyboard(), taken: AtomicBool::new(false) });
        let (heard, to_leave) = (tell.clone(), Arc::clone(&terminal));
        thread::spawn(move || wait_for_signals(&signals, heard, &to_leave));
        if let Some(keys) = terminal.keyboard.as_ref().and_then(|(file, _)| file.try_clone().ok()) {
            thread::spawn(move || read_keys(&keys, tell));
        }
        let on_panic = Arc::clone(&terminal);
        let say = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            // What is said on the alternate screen goes with it.
            on_panic.leave();
            say(panic);
        }));
        let mut screen = Self { terminal, shown: Vec::new() };
        screen.take()?;
        Ok(screen)
    }

    fn take(&mut self) -> Result<Audience, CommandError> {
        self.terminal.taken.store(true, Ordering::SeqCst);
        if let Some((file, before)) = &self.terminal.keyboard {
            // One that does not let us shows keys as they are pressed, and hands lines over.
            let _ = tcsetattr(file, OptionalActions::Now, &unbuffered(before.clone()));
        }
        self.forget();
        write(ENTER)
    }

    /// Forgets what stands on the screen: the next drawing is a whole one.
    pub(super) fn forget(&mut self) {
        self.shown.clear();
    }

    /// Shows `lines` and nothing else. Only lines that differ are written, each one whole.
    pub(super) fn draw(&mut self, lines: Vec<String>) -> Result<Audience, CommandError> {
        let anew = self.shown.is_empty();
        let mut text = if anew { "\x1b[2J".to_owned() } else { String::new() };
        let count = lines.len().max(self.shown.len());
        for at in 0..count {
            let (old, new) = (self.shown.get(at), lines.get(at));
            if anew || old != new {
                // The line is cleared before it is written: behind its last column, that column would be cleared too.
                text += &format!("\x1b[{};1H\x1b[2K{}", at + 1, new.map_or("", String::as_str));
            }
        }
        self.shown = lines;
        // The terminal shows all of it at once, if it can do that; others ignore it.
        if text.is_empty() { Ok(Audience::There) } else { write(&format!("\x1b[?2026h{text}\x1b[?2026l")) }
    }

    /// Gives the terminal back and stops, as others do, until the shell has us go on.
    pub(super) fn suspend(&mut self) -> Result<Audience, CommandError> {
        self.terminal.leave();
        raise(Signal::SIGSTOP).map_err(|errno| CommandError::io("stopping", &errno.into()))?;
        self.take()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.terminal.leave();
    }
}

impl Terminal {
    /// Leaves it as it was before. Where nobody reads any more there is nothing to restore.
    fn leave(&self) {
        if self.taken.swap(false, Ordering::SeqCst) {
            self.give_keys_back();
            let _ = write(LEAVE);
        }
    }

    fn give_keys_back(&self) {
        if let Some((file, before)) = &self.keyboard {
            let _ = tcsetattr(file, OptionalActions::Now, before);
        }
    }
}

/// Writes to the terminal. One that has vanished is nobody who reads (EIO).
fn write(text: &str) -> Result<Audience, CommandError> {
    match write_out(text) {
        Ok(()) => Ok(Audience::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Audience::Gone),
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => Ok(Audience::Gone),
        Err(error) => Err(CommandError::io("writing to the terminal", &error)),
    }
}

/// The signals that are waited for, from now on blocked in all threads.
fn blocked() -> nix::Result<SigSet> {
    let mut signals = SigSet::empty();
    for signal in
        [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTSTP, Signal::SIGWINCH]
    {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(signals)
}

fn wait_for_signals(signals: &SigSet, tell: impl Fn(Gesture) -> bool, terminal: &Terminal) {
    while let Ok(signal) = signals.wait() {
        let gesture = match signal {
            Signal::SIGWINCH => Gesture::Redraw,
            Signal::SIGTSTP => Gesture::Suspend,
            _ => Gesture::End,
        };
        let is_heard = tell(gesture);
        if gesture == Gesture::End {
            thread::sleep(FAREWELL);
            // Whoever is still here waits for a terminal that takes nothing.
            terminal.give_keys_back();
            std::process::exit(1);
        }
        if !is_heard {
            return;
        }
    }
}

/// The terminal's keys: standard input may be something else.
fn keyboard() -> Option<(File, Termios)> {
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let file = terminal.or_else(|_| io::stdout().as_fd().try_clone_to_owned().map(File::from)).ok()?;
    let before = tcgetattr(&file).ok()?;
    Some((file, before))
}

/// Keys as they are pressed, and not shown. Ctrl-S does not stop the output: it would keep us from ending. Ctrl-C and
/// Ctrl-Z still send signals.
fn unbuffered(mut settings: Termios) -> Termios {
    settings.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    settings.input_modes.remove(InputModes::IXON);
    settings.special_codes[SpecialCodeIndex::VMIN] = 1;
    settings.special_codes[SpecialCodeIndex::VTIME] = 0;
    settings
}

fn read_keys(mut keyboard: &File, tell: impl Fn(Gesture) -> bool) {
    let mut bytes = [0; 256];
    loop {
        match io::Read::read(&mut keyboard, &mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Standard output that nobody may read has no keys.
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EBADF as i32) => return,
            // It is gone.
            Ok(0) | Err(_) => {
                tell(Gesture::End);
                return;
            }
            Ok(count) => {
                if !keys(&bytes[..count]).into_iter().all(|key| tell(Gesture::Press(key))) {
                    return;
                }
            }
        }
    }
}
