//! What has the terminal for itself: `top` and `status --watch`, on a pseudoterminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hostseal::types::{Protection, RowState};
use nix::fcntl::{FcntlArg, OFlag};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::place::Place;

/// What is written when the terminal is given back.
const LEAVE: &str = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";
/// How long something may take. It is no measure: tests run beside others.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait before looking again.
const MOMENT: Duration = Duration::from_millis(5);

/// A command on a terminal that is nobody else's.
struct Terminal {
    master: Option<File>,
    /// Kept, so that its settings can be looked at when the command has ended.
    slave: File,
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
    /// Whether nobody reads any more.
    unplugged: Arc<AtomicBool>,
}

impl Terminal {
    fn new(place: &Place, line: &str) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let slave = File::options().read(true).write(true).open(path).unwrap();
        let plain = place.command(line);
        // It becomes the terminal of a new session, as a login has one.
        let mut command = Command::new("setsid");
        command.args(["--ctty"]).arg(plain.get_program()).args(plain.get_args());
        command.env("TERM", "xterm").env_remove("NO_COLOR");
        let stdio = || Stdio::from(OwnedFd::from(slave.try_clone().unwrap()));
        let child = command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap();
        let master = File::from(master);
        nix::fcntl::fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let (written, unplugged) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (mut from, sink, stop) =
            (master.try_clone().unwrap(), Arc::clone(&written), Arc::clone(&unplugged));
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !stop.load(Ordering::SeqCst) {
                match from.read(&mut bytes) {
                    Ok(count) => sink.lock().unwrap().extend_from_slice(&bytes[..count]),
                    Err(_) => thread::sleep(MOMENT),
                }
            }
        });
        Self { master: Some(master), slave, child, written, reader: Some(reader), unplugged }
    }

    /// Reads no more of what is written.
    fn stall(&mut self) {
        self.unplugged.store(true, Ordering::SeqCst);
        self.reader.take().unwrap().join().unwrap();
    }

    /// Closes the other end.
    fn unplug(&mut self) {
        self.stall();
        self.master = None;
    }

    fn resize(&self, lines: u16, columns: u16) {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(self.master.as_ref().unwrap(), size).unwrap();
    }

    fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    fn await_text(&self, text: &str) {
        self.await_that(text, |written| written.contains(text));
    }

    fn await_that(&self, what: &str, is_so: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&self.written()) {
            assert!(Instant::now() < deadline, "{what} is not in {}", self.written());
            thread::sleep(MOMENT);
        }
    }

    fn press(&mut self, keys: &str) {
        self.master.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// `setsid` has become it.
    fn process(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    fn await_end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it goes on: {}", self.written());
            thread::sleep(MOMENT);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A place with an agent of which all pairs are protected.
fn place() -> Place {
    let place = Place::new();
    let protected = place.status(Protection::On, RowState::Protected);
    drop(place.agent(vec![protected; 600]));
    place
}

#[test]
fn the_terminal_is_given_back() {
    let place = place();
    for line in ["top", "status --watch"] {
        for end in ["q", "\x03", "\x1c", "SIGTERM", "SIGHUP"] {
            let mut terminal = Terminal::new(&place, line);
            terminal.await_text("2 pairs protected");
            assert!(terminal.is_raw(), "keys are read as they are pressed");
            match end {
                "SIGTERM" => kill(terminal.process(), Signal::SIGTERM).unwrap(),
                "SIGHUP" => kill(terminal.process(), Signal::SIGHUP).unwrap(),
                keys => terminal.press(keys),
            }
            assert_eq!(terminal.await_end(), Some(0), "{line} {end:?}");
            terminal.await_that("the end", |written| written.ends_with(LEAVE));
            assert!(!terminal.is_raw(), "{line} {end:?}");
        }
    }
}

#[test]
fn a_terminal_that_vanishes_ends_it() {
    let place = place();
    for line in ["top", "status --watch"] {
        let mut terminal = Terminal::new(&place, line);
        terminal.await_text("2 pairs protected");
        terminal.unplug();
        terminal.await_end();
    }
}

#[test]
fn a_terminal_that_takes_nothing_does_not_keep_it() {
    let place = place();
    let mut terminal = Terminal::new(&place, "top");
    terminal.await_text("2 pairs protected");
    terminal.stall();
    // It draws until the terminal is full: then its first thread stays in write(2).
    let call = format!("/proc/{}/syscall", terminal.process());
    let write = format!("{} ", nix::libc::SYS_write);
    let deadline = Instant::now() + PATIENCE;
    let (mut lines, mut stuck) = (900, 0);
    while stuck < 50 {
        assert!(Instant::now() < deadline, "it writes on");
        stuck = if std::fs::read_to_string(&call).unwrap().starts_with(&write) { stuck + 1 } else { 0 };
        lines = if lines == 900 { 1000 } else { 900 };
        terminal.resize(lines, 80);
        thread::sleep(MOMENT);
    }
    kill(terminal.process(), Signal::SIGTERM).unwrap();
    assert_eq!(terminal.await_end(), Some(1));
    assert!(!terminal.is_raw());
}

#[test]
fn it_stops_and_goes_on_as_others_do() {
    let place = place();
    let mut terminal = Terminal::new(&place, "top");
    terminal.await_text("2 pairs protected");
    terminal.press("\x1a");
    terminal.await_that("the screen before", |written| written.ends_with(LEAVE));
    let stat = format!("/proc/{}/stat", terminal.process());
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&stat).unwrap().contains(") T ") {
        assert!(Instant::now() < deadline, "it does not stop");
        thread::sleep(MOMENT);
    }
    assert!(!terminal.is_raw());
    kill(terminal.process(), Signal::SIGCONT).unwrap();
    let again = |written: &str| written.rsplit(LEAVE).next().unwrap().contains("2 pairs protected");
    terminal.await_that("the picture again", again);
    assert!(terminal.is_raw());
    terminal.press("q");
    assert_eq!(terminal.await_end(), Some(0));
}

#[test]
fn keys_change_what_is_seen() {
    let place = place();
    let mut terminal = Terminal::new(&place, "top");
    terminal.await_text("by state");
    terminal.press("s");
    terminal.await_text("by node");
    terminal.press("/db8");
    terminal.await_text("filter: db8_");
    terminal.press("\r");
    terminal.await_text("filter: db8\x1b");
    // A window of another size is drawn anew.
    terminal.resize(10, 40);
    terminal.await_text("\x1b[10;1H\x1b[2K");
    terminal.press("q");
    assert_eq!(terminal.await_end(), Some(0));
}
