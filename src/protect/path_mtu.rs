//! How large a packet gets through an SA to the other end: by packets of different sizes that it answers.
//!
//! First this host's own kernel is asked, which knows the MTU of its interfaces and what routers have told it: it
//! refuses what is larger at once. What it lets out and no answer comes for is lost on the way, where nobody says
//! so: then the largest size that passes is looked for by halving.
//! ```text
//! 8192 refused, 4736 refused, … 1466 sent, 1467 refused     the kernel lets out 1466
//! 1466 answered                                             fine
//! 1466 not answered: 1373 answered, 1419 not, …             what is larger than 1366 is lost on the way
//! ```

use std::time::{Duration, Instant};

use super::clock::Clock;

/// The largest packet that is tried, in octets with its IP header and before ESP.
pub const LARGEST: u16 = 8192;
/// The smallest: what gets less than this through is not usable anyway.
const SMALLEST: u16 = 576;
/// Between a size that passes and one that does not, the rest does not matter.
const EXACT: u16 = 8;
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(500);
/// How often the largest size is sent before it counts as lost on the way: mere loss is no bound.
const TRIES_LARGEST: u32 = 6;
/// How often another one is.
const TRIES: u32 = 3;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// All that the kernel lets out gets through, or nothing can be said.
    Fine,
    /// What is larger is lost on the way.
    Narrow {
        /// Octets of the largest packet that passes, with its IP header and before ESP.
        passes: u16,
    },
}

/// A search.
#[derive(Debug)]
pub struct Sizing {
    /// The largest size that the kernel let out, and the smallest that it refused.
    let_out: u16,
    refused: u16,
    /// The largest size that was answered, and the smallest that was not.
    passed: u16,
    lost: Option<u16>,
    /// What is waited for: its size, how often it was sent, and until when.
    waiting: Option<(u16, u32, Instant)>,
    found: Option<Found>,
}

impl Default for Sizing {
    fn default() -> Self {
        Self { let_out: 0, refused: LARGEST + 1, passed: 0, lost: None, waiting: None, found: None }
    }
}

impl Sizing {
    /// What was found, once the search is over.
    pub fn found(&self) -> Option<Found> {
        self.found
    }

    /// The size of a packet that is to be sent now.
    pub fn poll(&mut self, clock: &mut Clock) -> Option<u16> {
        if self.found.is_some() {
            return None;
        }
        if let Some((size, tries, until)) = self.waiting {
            if !clock.due(until) {
                return None;
            }
            let most = if self.lost.is_none() { TRIES_LARGEST } else { TRIES };
            if tries < most {
                return Some(self.send(size, tries + 1, clock));
            }
            self.waiting = None;
            self.lost = Some(size);
        }
        match self.next() {
            Some(size) => Some(self.send(size, 1, clock)),
            None => {
                self.waiting = None;
                self.found = Some(match self.lost {
                    Some(_) if self.passed > 0 => Found::Narrow { passes: self.passed },
                    _ => Found::Fine,
                });
                None
            }
        }
    }

    fn send(&mut self, size: u16, tries: u32, clock: &mut Clock) -> u16 {
        let until = clock.now + PATIENCE;
        clock.due(until);
        self.waiting = Some((size, tries, until));
        size
    }

    /// The next size; `None` when all is known.
    fn next(&self) -> Option<u16> {
        if let Some(lost) = self.lost {
            let low = self.passed.max(SMALLEST);
            return match self.passed {
                // Not even the smallest: that says nothing of sizes.
                0 if lost <= SMALLEST => None,
                0 => Some(SMALLEST),
                _ => (lost > low + EXACT).then(|| low + (lost - low) / 2),
            };
        }
        // Only what the kernel refuses at once is looked for in this way: each step is over in a moment.
        if self.refused > self.let_out + 1 && self.let_out >= SMALLEST {
            return Some(self.let_out + (self.refused - self.let_out) / 2);
        }
        match self.let_out {
            0 if self.refused > SMALLEST => Some(SMALLEST),
            0 => None,
            largest => (self.passed < largest).then_some(largest),
        }
    }

    /// A packet of that size has left. While the kernel's own bound is looked for nothing is waited for.
    pub fn handle_sent(&mut self, size: u16) {
        self.let_out = self.let_out.max(size);
        if self.lost.is_none() && self.refused > self.let_out + 1 {
            self.waiting = None;
        }
    }

    /// The kernel refuses packets of that size.
    pub fn handle_refused(&mut self, size: u16) {
        self.refused = self.refused.min(size);
        self.let_out = self.let_out.min(self.refused.saturating_sub(1));
        self.waiting.take_if(|(waiting, ..)| *waiting >= size);
        // A router has told the kernel meanwhile: what was lost before was no secret.
        self.lost.take_if(|lost| *lost >= size);
    }

    /// The other end got a packet of that size.
    pub fn handle_answer(&mut self, size: u16) {
        if size <= self.let_out {
            self.passed = self.passed.max(size);
            self.waiting.take_if(|(waiting, ..)| *waiting <= size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches on a path that the kernel lets `kernel` octets out to, and that passes `path` of them. Of answers,
    /// each `loss`th is lost. Returns what was found, how many packets left, and how long it took.
    fn search(kernel: u16, path: u16, loss: u32) -> (Found, u32, Duration) {
        let start = Instant::now();
        let (mut now, mut sizing, mut sent) = (start, Sizing::default(), 0);
        for _ in 0..500 {
            let mut clock = Clock::new(now);
            while let Some(size) = sizing.poll(&mut clock) {
                assert!((SMALLEST..=LARGEST).contains(&size));
                if size > kernel {
                    sizing.handle_refused(size);
                    continue;
                }
                sizing.handle_sent(size);
                sent += 1;
                if size <= path && (loss == 0 || sent % loss != 0) {
                    sizing.handle_answer(size);
                }
            }
            if let Some(found) = sizing.found() {
                return (found, sent, now - start);
            }
            now = clock.next.expect("it waits for something");
        }
        panic!("no end: {sizing:?}")
    }

    #[test]
    fn a_path_that_passes_what_the_kernel_lets_out_is_fine_at_once() {
        for kernel in [576, 1280, 1446, 1466, 4000, 8192, 9000] {
            let (found, sent, took) = search(kernel, u16::MAX, 0);
            assert_eq!((found, took), (Found::Fine, Duration::ZERO), "{kernel}");
            assert!(sent <= 15, "{sent}");
        }
    }

    #[test]
    fn a_path_that_loses_large_packets_is_measured() {
        for (kernel, path) in
            [(1466, 1400), (1466, 1366), (1466, 1280), (1466, 600), (8192, 1450), (1466, 1460)]
        {
            let (found, sent, took) = search(kernel, path, 0);
            let Found::Narrow { passes } = found else { panic!("{kernel} {path}: {found:?}") };
            assert!(passes <= path && passes + EXACT >= path, "{passes} of {path}");
            assert!(sent < 60 && took < Duration::from_secs(25), "{sent} packets, {took:?}");
        }
    }

    #[test]
    fn loss_is_no_bound() {
        for loss in [2, 3, 5] {
            assert_eq!(search(1466, u16::MAX, loss).0, Found::Fine, "each {loss}th is lost");
        }
    }

    #[test]
    fn where_nothing_is_answered_nothing_is_said_of_sizes() {
        let (found, sent, _) = search(1466, 0, 0);
        assert_eq!(found, Found::Fine);
        assert!(sent < 30, "{sent}");
    }

    #[test]
    fn nothing_that_comes_can_confuse_it() {
        let mut sizing = Sizing::default();
        sizing.handle_answer(u16::MAX);
        sizing.handle_answer(0);
        sizing.handle_refused(0);
        sizing.handle_sent(0);
        assert_eq!(sizing.poll(&mut Clock::new(Instant::now())), None);
        assert_eq!(sizing.found(), Some(Found::Fine));
    }
}
