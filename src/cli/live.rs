//! Follows something on a screen: looks again and again, shows what it finds, takes keys, until somebody ends it.

use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::exit::CommandError;
use super::keyboard::Key;
use super::present::Shown;
use super::screen::{Gesture, Screen};
use super::term::{self, Audience, Style};

/// How often it looks at most.
pub(super) const REFRESH: Duration = Duration::from_secs(1);
/// How many times longer than a look it rests after it. A status of thousands of pairs costs the agent much.
const REST: u32 = 9;
/// It never rests for longer.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// The columns and lines of a terminal that does not say how large it is.
const USUAL: (usize, usize) = (80, 24);

/// What is shown on a screen.
pub(super) trait Live {
    /// What a look finds.
    type Found: Shown + Send + 'static;

    /// Takes what a look at `at` has found.
    fn note(&mut self, found: Self::Found, at: Instant);

    /// Does what a key is for. `false` when it is time to end.
    fn press(&mut self, key: Key) -> bool;

    /// What it looks like in so many columns and lines.
    fn lines(&mut self, size: (usize, usize), style: Style) -> Vec<String>;
}

/// What happens while something is shown.
enum Happening {
    Made(Gesture),
    /// There is something that a look has found.
    Found,
}

/// What a look has found, and when.
type Finding<F> = (Result<F, CommandError>, Instant);

/// Follows what `look` finds, until somebody ends it. After a long look, `pause` waits for news, no longer than it is
/// told; it hears whether an agent has answered.
pub(super) fn run<L: Live>(
    live: &mut L,
    look: impl Fn() -> Result<L::Found, CommandError> + Send + 'static,
    pause: impl FnMut(Duration, bool) + Send + 'static,
) -> Result<(), CommandError> {
    // Whoever tells of signals never waits: the terminal may be stuck.
    let (sender, happenings) = channel();
    // Whoever looks waits for who draws.
    let (put, findings) = sync_channel(1);
    let gestures = sender.clone();
    let mut screen = Screen::enter(move |gesture| gestures.send(Happening::Made(gesture)).is_ok())?;
    thread::spawn(move || look_again(look, pause, &put, &Looker(sender)));
    loop {
        let lines = live.lines(term::size().unwrap_or(USUAL), Style::of_stdout());
        if screen.draw(lines)? == Audience::Gone {
            return Ok(());
        }
        let Ok(happening) = happenings.recv() else { return Ok(()) };
        match happening {
            Happening::Found => {
                let Ok((found, at)) = findings.recv() else { return Ok(()) };
                live.note(found?, at);
            }
            Happening::Made(Gesture::Press(key)) if live.press(key) => {}
            Happening::Made(Gesture::Redraw) => screen.forget(),
            Happening::Made(Gesture::Suspend) => drop(screen.suspend()?),
            Happening::Made(Gesture::Press(_) | Gesture::End) => return Ok(()),
        }
    }
}

/// Who looks. However that ends, so does what is shown: nobody takes an old picture for a new one.
struct Looker(Sender<Happening>);

impl Drop for Looker {
    fn drop(&mut self) {
        // Where nobody is there any more, nobody needs to hear it.
        let _ = self.0.send(Happening::Made(Gesture::End));
    }
}

/// Looks until nobody is there any more, or something is wrong.
fn look_again<F: Shown>(
    look: impl Fn() -> Result<F, CommandError>,
    mut pause: impl FnMut(Duration, bool),
    put: &SyncSender<Finding<F>>,
    looker: &Looker,
) {
    thread::sleep(REFRESH);
    loop {
        let (found, at, took) = timed(&look);
        let answered = found.as_ref().ok().map(Shown::is_answered);
        if put.send((found, at)).is_err() || looker.0.send(Happening::Found).is_err() {
            return;
        }
        let Some(answered) = answered else { return };
        thread::sleep(REFRESH.saturating_sub(took));
        match rest(took) {
            Duration::ZERO => {}
            left => pause(left, answered),
        }
    }
}

/// What a look finds, when that was so, and how long it took.
pub(super) fn timed<F>(look: impl Fn() -> F) -> (F, Instant, Duration) {
    let started = Instant::now();
    let found = look();
    let took = started.elapsed();
    (found, started + took / 2, took)
}

/// How long to rest beyond [`REFRESH`] after a look that took so long.
fn rest(took: Duration) -> Duration {
    (took * REST).min(LONGEST_REST).saturating_sub(REFRESH.saturating_sub(took))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::status::Status;

    #[test]
    fn a_looker_that_dies_ends_the_picture() {
        let ((sender, happenings), (put, _findings)) = (channel(), sync_channel::<Finding<Status>>(1));
        let look = || -> Result<Status, CommandError> { panic!("as if something were wrong") };
        thread::spawn(move || look_again(look, |_, _| {}, &put, &Looker(sender))).join().unwrap_err();
        assert!(matches!(happenings.recv(), Ok(Happening::Made(Gesture::End))));
    }

    #[test]
    fn long_looks_are_rare() {
        let rest = |ms| rest(Duration::from_millis(ms)).as_millis();
        assert_eq!((rest(0), rest(20), rest(100)), (0, 0, 0));
        assert_eq!((rest(200), rest(500), rest(5000)), (1000, 4000, 10_000));
    }
}
