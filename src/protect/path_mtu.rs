//! How large a packet gets through an SA to the other end: by packets of different sizes that it answers.
//!
//! First this host's own kernel is asked, which knows the MTU of its interfaces and what routers have told it: it
//! refuses what is larger at once. What it lets out and no answer comes for is lost on the way, where nobody says
//! so: then the largest size that passes is looked for by halving.
//!
//! An answer that is late is no loss: one of the ends may be busy, and packets wait there. So before anything is said of
//! what was lost, one more packet asks, and its answer has to come: where that came through after them, they do not wait
//! anywhere any more.
//! ```text
//! 8192 refused, 4736 refused, … 1466 sent, 1467 refused     the kernel lets out 1466
//! 1466 answered                                             fine
//! 1466 not answered: 1373 answered, 1419 not, …, 1365       what is larger than 1366 is lost on the way
//! ```

use std::collections::BTreeSet;
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
/// How often the last one is, whose answer says that those before it were lost.
const TRIES_QUESTION: u32 = 20;
/// A search that has sent so many packets ends: the other end answers in such a way that it never would.
const PACKETS_MOST: u32 = 200;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathMtu {
    /// All that the kernel lets out gets through.
    Fine,
    /// Nothing: the other end does not answer.
    Nothing,
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
    /// All sizes that were tried.
    tried: BTreeSet<u16>,
    /// How many packets were sent.
    sent: u32,
    /// The size of the packet that was sent when all that was lost had been, and whether it was answered.
    question: Option<(u16, bool)>,
    found: Option<PathMtu>,
}

impl Default for Sizing {
    fn default() -> Self {
        Self {
            let_out: 0,
            refused: LARGEST + 1,
            passed: 0,
            lost: None,
            waiting: None,
            tried: BTreeSet::new(),
            sent: 0,
            question: None,
            found: None,
        }
    }
}

impl Sizing {
    /// What was found, once the search is over.
    pub fn found(&self) -> Option<PathMtu> {
        self.found
    }

    /// The largest size that was answered.
    pub fn passed(&self) -> u16 {
        self.passed
    }

    /// The size of a packet that is to be sent now.
    pub fn poll(&mut self, clock: &mut Clock) -> Option<u16> {
        if self.found.is_some() {
            return None;
        }
        if self.sent >= PACKETS_MOST {
            self.waiting = None;
            self.found.get_or_insert(PathMtu::Nothing);
            return None;
        }
        if let Some((size, tries, until)) = self.waiting {
            if !clock.due(until) {
                return None;
            }
            if tries < self.most(size) {
                return Some(self.send(size, tries + 1, clock));
            }
            self.waiting = None;
            match self.question {
                Some(_) => self.found = Some(PathMtu::Nothing),
                None => self.lost = Some(size),
            }
        }
        match self.next() {
            Some(size) => Some(self.send(size, 1, clock)),
            None => {
                self.waiting = None;
                self.found.get_or_insert(match (self.passed, self.lost) {
                    (0, _) => PathMtu::Nothing,
                    (passes, Some(_)) => PathMtu::Narrow { passes },
                    (_, None) => PathMtu::Fine,
                });
                None
            }
        }
    }

    /// How often a packet of this size is sent.
    fn most(&self, size: u16) -> u32 {
        match self.question {
            Some((question, _)) if question == size => TRIES_QUESTION,
            _ if self.lost.is_none() => TRIES_LARGEST,
            _ => TRIES,
        }
    }

    fn send(&mut self, size: u16, tries: u32, clock: &mut Clock) -> u16 {
        let until = clock.now + PATIENCE;
        clock.due(until);
        self.waiting = Some((size, tries, until));
        self.tried.insert(size);
        self.sent += 1;
        size
    }

    /// The next size; `None` when all is known.
    fn next(&mut self) -> Option<u16> {
        if self.found.is_some() {
            return None;
        }
        if let Some(lost) = self.lost {
            let low = self.passed.max(SMALLEST);
            return match self.passed {
                // Not even the smallest: that says nothing of sizes.
                0 if lost <= SMALLEST => None,
                0 => Some(SMALLEST),
                _ if lost > low + EXACT => Some(low + (lost - low) / 2),
                _ => self.ask(),
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

    /// The size of the question. An answer to it is one to no packet before it.
    fn ask(&mut self) -> Option<u16> {
        if self.question.is_some_and(|(_, answered)| answered) {
            return None;
        }
        let question = (0..=self.passed).rev().find(|size| !self.tried.contains(size))?;
        self.question = Some((question, false));
        Some(question)
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
        // A router has told the kernel meanwhile: the loss has a known reason.
        self.lost.take_if(|lost| *lost >= size);
        self.waiting.take_if(|_| self.question.take().is_some());
    }

    /// A packet of that size has not left: there was no room for it here. It does not count as a try.
    pub fn handle_unsent(&mut self, size: u16) {
        if let Some((waiting, tries, _)) = &mut self.waiting
            && *waiting == size
        {
            *tries = tries.saturating_sub(1);
        }
    }

    /// The other end got a packet of that size.
    pub fn handle_answer(&mut self, size: u16) {
        if size <= self.let_out {
            self.passed = self.passed.max(size);
            self.waiting
                .take_if(|(waiting, ..)| *waiting == size || self.question.is_none() && *waiting <= size);
            if self.lost.take_if(|lost| *lost <= size).is_some() {
                // It was late.
                (self.question, self.waiting) = (None, None);
            }
            self.question =
                self.question.map(|(question, answered)| (question, answered || question == size));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Searches on a path that the kernel lets `kernel` octets out to, and that passes `path` of them. Each
    /// `loss`th answer is lost. Returns what was found, how many packets left, and how long it took.
    fn search(kernel: u16, path: u16, loss: u32) -> (PathMtu, u32, Duration) {
        search_late(kernel, path, loss, |now| now)
    }

    /// The same; the other end reads at `reads(t)` what was sent at `t`.
    fn search_late(
        kernel: u16,
        path: u16,
        loss: u32,
        reads: impl Fn(Duration) -> Duration,
    ) -> (PathMtu, u32, Duration) {
        let start = Instant::now();
        let (mut now, mut sizing, mut sent) = (start, Sizing::default(), 0);
        let mut answers: VecDeque<(Instant, u16)> = VecDeque::new();
        for _ in 0..2000 {
            while let Some((_, size)) = answers.pop_front_if(|(at, _)| *at <= now) {
                sizing.handle_answer(size);
            }
            let mut clock = Clock::new(now);
            while let Some(size) = sizing.poll(&mut clock) {
                assert!((SMALLEST - EXACT..=LARGEST).contains(&size));
                if size > kernel {
                    sizing.handle_refused(size);
                    continue;
                }
                sizing.handle_sent(size);
                sent += 1;
                if size <= path && (loss == 0 || sent % loss != 0) {
                    match start + reads(now - start) {
                        at if at <= now => sizing.handle_answer(size),
                        at => answers.push_back((at, size)),
                    }
                }
            }
            if let Some(found) = sizing.found() {
                return (found, sent, now - start);
            }
            let next = answers.front().map(|(at, _)| *at).into_iter().chain(clock.next).min();
            now = next.expect("it waits for something");
        }
        panic!("no end: {sizing:?}")
    }

    #[test]
    fn a_path_that_passes_what_the_kernel_lets_out_is_fine_at_once() {
        for kernel in [576, 1280, 1446, 1466, 4000, 8192, 9000] {
            let (found, sent, took) = search(kernel, u16::MAX, 0);
            assert_eq!((found, took), (PathMtu::Fine, Duration::ZERO), "{kernel}");
            assert!(sent <= 15, "{sent}");
        }
    }

    #[test]
    fn a_path_that_loses_large_packets_is_measured() {
        for (kernel, path) in
            [(1466, 1400), (1466, 1366), (1466, 1280), (1466, 600), (8192, 1450), (1466, 1460)]
        {
            let (found, sent, took) = search(kernel, path, 0);
            let PathMtu::Narrow { passes } = found else { panic!("{kernel} {path}: {found:?}") };
            assert!(passes <= path && passes + EXACT >= path, "{passes} of {path}");
            assert!(sent < 60 && took < Duration::from_secs(25), "{sent} packets, {took:?}");
        }
    }

    #[test]
    fn loss_is_no_bound() {
        for loss in [2, 3, 5] {
            assert_eq!(search(1466, u16::MAX, loss).0, PathMtu::Fine, "each {loss}th is lost");
        }
    }

    /// The other end reads in turns, each so long after the one before.
    #[test]
    fn an_answer_that_is_late_is_no_loss() {
        let late = |path, turn: u32| {
            let turn = Duration::from_millis(turn.into());
            search_late(1466, path, 0, |now| turn * (1 + (now.as_millis() / turn.as_millis()) as u32)).0
        };
        for turn in (50..9_000).step_by(70) {
            assert!(matches!(late(u16::MAX, turn), PathMtu::Fine | PathMtu::Nothing), "{turn} ms");
            for path in [1400, 1460, 600] {
                let found = late(path, turn);
                let right = |passes| passes <= path && passes + EXACT >= path;
                assert!(
                    matches!(found, PathMtu::Narrow { passes } if right(passes)) || found == PathMtu::Nothing,
                    "{turn} ms: {found:?} of {path}"
                );
            }
        }
        for turn in [50, 400, 1_000] {
            assert_eq!(late(u16::MAX, turn), PathMtu::Fine, "{turn} ms");
            assert!(matches!(late(1400, turn), PathMtu::Narrow { .. }), "{turn} ms");
        }
    }

    /// It was busy for a time, and then not any more.
    #[test]
    fn a_busy_moment_of_the_other_end_is_no_loss() {
        for until in (100..20_000).step_by(100).map(Duration::from_millis) {
            let found = search_late(1466, u16::MAX, 0, |now| now.max(until)).0;
            assert!(matches!(found, PathMtu::Fine | PathMtu::Nothing), "{until:?}: {found:?}");
        }
    }

    #[test]
    fn what_finds_no_room_here_is_not_lost() {
        let (mut now, mut sizing) = (Instant::now(), Sizing::default());
        for _ in 0..100 {
            let mut clock = Clock::new(now);
            while let Some(size) = sizing.poll(&mut clock) {
                match size {
                    1467.. => sizing.handle_refused(size),
                    1000.. => sizing.handle_unsent(size),
                    _ => sizing.handle_sent(size),
                }
            }
            now = clock.next.expect("it goes on");
        }
        assert_eq!((sizing.found(), sizing.lost), (None, None));
    }

    #[test]
    fn where_nothing_is_answered_nothing_is_said_of_sizes() {
        let (found, sent, _) = search(1466, 0, 0);
        assert_eq!(found, PathMtu::Nothing);
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
        assert_eq!(sizing.found(), Some(PathMtu::Nothing));
    }

    /// The other end answers each size but the largest only when it counts as lost.
    #[test]
    fn a_search_ends_whatever_the_other_end_answers() {
        let (mut now, mut sizing) = (Instant::now(), Sizing::default());
        for _ in 0..10_000 {
            let mut clock = Clock::new(now);
            while let Some(size) = sizing.poll(&mut clock) {
                if size > 1466 { sizing.handle_refused(size) } else { sizing.handle_sent(size) }
            }
            if sizing.found().is_some() {
                return assert!(sizing.sent <= PACKETS_MOST);
            }
            if let Some(lost) = sizing.lost.filter(|lost| *lost < sizing.let_out) {
                sizing.handle_answer(lost);
            }
            now = clock.next.unwrap_or(now + PATIENCE);
        }
        panic!("no end: {sizing:?}");
    }
}
