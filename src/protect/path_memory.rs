//! Whether something on the path forgets a pair that is idle, as stateful firewalls do with ESP, and what reminds it.
//!
//! Such a firewall lets one end begin and the other only answer. After a pause it has forgotten the flow, and drops
//! what the other end sends, until the first one sends again. So where packets leave after a pause and nothing comes
//! back, the peer is asked through the SA alone first. If it does not answer, it is asked inside IKE, and both ends
//! prove the SA once more: the peer's own probe reminds the firewall. If ESP gets through at once then, the path had
//! forgotten the pair.
//! ```text
//! a pause; packets leave, nothing for 5 s      --- echo, 8 times --->  no answer  --- report --->  ESP gets through
//! the same again within an hour                an echo after each pause, from now on
//! such an echo has no answer                   a report at once, and shorter pauses
//! ```

use std::time::{Duration, Instant};

use super::clock::Clock;
use super::silence::LISTEN_EVERY;

/// How long nothing must have moved on a pair before it counts as idle: counters are read so often that two
/// readings lie in between.
const PAUSE: Duration = LISTEN_EVERY.saturating_mul(2);
/// How long nothing comes back for what was sent after a pause, until the peer is asked.
const ASK_AFTER: Duration = LISTEN_EVERY;
/// How often the peer is asked through the SA before it is asked inside IKE: mere loss is no firewall. Where three packets
/// in ten are lost each way, half of the echoes have no answer.
const ECHOES: u32 = 8;
/// How long the answer to the last of them is waited for, and how long after each the next one goes.
const ECHO_EVERY: Duration = Duration::from_millis(250);
/// How soon ESP gets through once the peer was asked inside IKE, where only the path's memory was in the way.
const PASSES_WITHIN: Duration = Duration::from_secs(3);
/// What happens again within that time was no accident.
const AGAIN_WITHIN: Duration = Duration::from_secs(3600);
/// The longest pause on a pair that is kept in memory: as long as NATs are reminded after (RFC 3948 section 4).
const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// The shortest one.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathOrder {
    /// Ask the peer through the SA.
    Echo,
    /// Ask it inside IKE, and prove the SA once more.
    AskInIke,
    /// The path forgets: from now on it is reminded. For the log.
    Reminds,
}

/// A question to the peer that goes on.
#[derive(Debug, Clone, Copy)]
enum Question {
    /// Through the SA: sent so often, and when the answer to the last is given up.
    Echo { sent: u32, until: Instant },
    /// Inside IKE, and until when the SA is to be proven.
    InIke { until: Instant },
}

/// What is known of the memory of a pair's path.
#[derive(Debug)]
pub struct PathMemory {
    /// When packets of the pair were known to move last, either way.
    moved: Instant,
    /// How long the pair was idle before those that nothing has come back for, and when they were seen to leave.
    pause: Option<(Duration, Instant)>,
    question: Option<Question>,
    /// When the path was found to have forgotten the pair last.
    forgot: Option<Instant>,
    /// The longest pause from now on.
    reminded: Option<Duration>,
    /// The peer did not answer inside IKE either: that is another matter, until it is heard.
    gone: bool,
}

impl PathMemory {
    /// Nothing is known yet.
    pub fn new(now: Instant) -> Self {
        Self { moved: now, pause: None, question: None, forgot: None, reminded: None, gone: false }
    }

    /// Packets of traffic have left, and nothing has come.
    pub fn note_sent(&mut self, now: Instant) {
        let pause = now.saturating_duration_since(std::mem::replace(&mut self.moved, now));
        self.pause = if pause >= PAUSE { Some((pause, now)) } else { self.pause };
    }

    /// An inbound SA took a packet at `at`.
    pub fn note_heard(&mut self, at: Instant) {
        self.moved = self.moved.max(at);
        (self.pause, self.gone) = (None, false);
        // While the peer proves the SA once more, its own packets say nothing of ours.
        self.question.take_if(|question| matches!(question, Question::Echo { .. }));
    }

    /// The peer has answered an echo.
    pub fn note_answer(&mut self, now: Instant) {
        self.note_heard(now);
        self.question = None;
    }

    /// Packets of the pair cannot be expected to get through. What was found out stays.
    pub fn rest(&mut self, now: Instant) {
        (self.moved, self.pause, self.question) = (now, None, None);
    }

    /// The peer cannot be asked: nothing is found out.
    pub fn give_up(&mut self) {
        (self.pause, self.question) = (None, None);
    }

    /// What is to be done now. `proven`: the SA is proven both ways, as far as that was asked for.
    pub fn poll(&mut self, clock: &mut Clock, proven: bool) -> Option<PathOrder> {
        match self.question {
            Some(Question::Echo { sent, until }) if clock.due(until) => Some(self.go_on(sent, clock)),
            Some(Question::InIke { until }) if clock.due(until) => {
                let pause = self.pause.take().map_or(LONGEST_PAUSE, |(pause, _)| pause);
                (self.question, self.gone) = (None, !proven);
                (proven && self.note_forgotten(clock.now, pause)).then_some(PathOrder::Reminds)
            }
            Some(_) => None,
            None => {
                let asks = self.pause.map(|(_, sent)| sent + ASK_AFTER);
                let reminds = self.reminded.filter(|_| !self.gone).map(|pause| self.moved + pause);
                clock.due(asks.or(reminds)?).then(|| self.go_on(0, clock))
            }
        }
    }

    fn go_on(&mut self, sent: u32, clock: &mut Clock) -> PathOrder {
        let (question, until, step) = if sent < ECHOES {
            let until = clock.now + ECHO_EVERY;
            (Question::Echo { sent: sent + 1, until }, until, PathOrder::Echo)
        } else {
            let until = clock.now + PASSES_WITHIN;
            self.moved = clock.now;
            (Question::InIke { until }, until, PathOrder::AskInIke)
        };
        clock.due(until);
        self.question = Some(question);
        step
    }

    /// The path had forgotten the pair after this pause. Says whether it is reminded from now on and was not before.
    fn note_forgotten(&mut self, now: Instant, pause: Duration) -> bool {
        let again = self.forgot.replace(now).is_some_and(|before| now - before < AGAIN_WITHIN);
        let begins = self.reminded.is_none() && again;
        if begins || self.reminded.is_some() {
            let longest = self.reminded.unwrap_or(LONGEST_PAUSE).min(pause);
            self.reminded = Some((longest / 2).max(SHORTEST_PAUSE));
        }
        begins
    }

    /// The longest pause of a pair whose path is reminded of it.
    pub fn reminded_after(&self) -> Option<Duration> {
        self.reminded
    }

    /// Whether it is being found out if the path has forgotten the pair: nothing else is to remind it meanwhile.
    pub fn is_asking(&self) -> bool {
        self.question.is_some() || self.pause.is_some()
    }

    /// Whether [`PathMemory::poll`] has anything to do, now or later.
    pub fn is_busy(&self) -> bool {
        self.is_asking() || self.reminded.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A path to a peer, and what this host does with it.
    struct Path {
        now: Instant,
        memory: PathMemory,
        /// What it forgets the pair after.
        forgets: Duration,
        /// When it last let a packet through.
        passed: Instant,
        /// Whether the peer answers at all.
        alive: bool,
        echoes: u32,
        reports: u32,
        reminds: u32,
    }

    impl Path {
        fn new(forgets: Duration) -> Self {
            let now = Instant::now();
            let memory = PathMemory::new(now);
            Self { now, memory, forgets, passed: now, alive: true, echoes: 0, reports: 0, reminds: 0 }
        }

        /// Lets `time` pass; `sends` says whether traffic leaves. Returns for how long it was dropped.
        fn run(&mut self, time: Duration, sends: bool) -> Duration {
            const STEP: Duration = Duration::from_millis(500);
            let mut dropped = Duration::ZERO;
            for step in 1..=time.as_millis() / STEP.as_millis() {
                self.now += STEP;
                if sends {
                    dropped += if self.passes() { Duration::ZERO } else { STEP };
                }
                if step % 10 == 0 && sends {
                    self.memory.note_sent(self.now);
                }
                while let Some(step) = self.memory.poll(&mut Clock::new(self.now), self.alive) {
                    match step {
                        PathOrder::Echo => {
                            self.echoes += 1;
                            if self.passes() && self.alive {
                                self.memory.note_answer(self.now);
                            }
                        }
                        PathOrder::AskInIke => {
                            self.reports += 1;
                            self.passed = if self.alive { self.now } else { self.passed };
                        }
                        PathOrder::Reminds => self.reminds += 1,
                    }
                }
            }
            dropped
        }

        fn passes(&mut self) -> bool {
            let passes = self.now - self.passed < self.forgets;
            self.passed = if passes { self.now } else { self.passed };
            passes
        }
    }

    #[test]
    fn a_path_that_forgets_twice_is_reminded_and_forgets_no_more() {
        for forgets in [6, 12, 30, 300] {
            let mut path = Path::new(seconds(forgets));
            for time in 0..2 {
                assert_eq!(path.memory.reminded_after(), None);
                path.run(seconds(600), false);
                let dropped = path.run(seconds(60), true);
                assert!(dropped > seconds(1) && dropped < seconds(20), "{forgets} s, {time}: {dropped:?}");
            }
            assert_eq!((path.reports, path.reminds), (2, 1));
            // It finds out by itself how long a pause may be.
            path.run(seconds(100), false);
            for _ in 0..5 {
                path.run(seconds(600), false);
                assert_eq!(path.run(seconds(60), true), Duration::ZERO, "{forgets} s");
            }
            assert_eq!(path.reminds, 1);
        }
    }

    #[test]
    fn a_path_that_forgets_nothing_is_left_alone() {
        let mut path = Path::new(Duration::MAX);
        for _ in 0..10 {
            path.run(seconds(600), false);
            assert_eq!(path.run(seconds(60), true), Duration::ZERO);
        }
        assert_eq!((path.reports, path.reminds), (0, 0));
        assert!(path.echoes > 0 && !path.memory.is_busy());
    }

    /// The other end sees to that.
    #[test]
    fn a_peer_that_is_gone_is_another_matter() {
        let mut path = Path::new(Duration::ZERO);
        path.alive = false;
        for _ in 0..5 {
            path.run(seconds(600), false);
            path.run(seconds(60), true);
        }
        assert_eq!(path.memory.reminded_after(), None);
        let mut path = Path::new(seconds(12));
        for _ in 0..2 {
            path.run(seconds(600), false);
            path.run(seconds(60), true);
        }
        assert!(path.memory.reminded_after().is_some());
        path.alive = false;
        path.run(seconds(60), false);
        let asked = (path.echoes, path.reports);
        path.run(seconds(3600), false);
        assert_eq!((path.echoes, path.reports), asked, "nobody is asked on and on who is not there");
        path.alive = true;
        path.memory.note_heard(path.now);
        path.run(seconds(60), false);
        assert!(path.echoes > asked.0);
    }

    #[test]
    fn a_slow_answer_is_an_answer_and_an_accident_happens_once() {
        let (start, ask) = (Instant::now(), seconds(30));
        let forgets = |memory: &mut PathMemory, now: Instant, answers: bool| {
            memory.note_sent(now);
            let mut poll = |after| memory.poll(&mut Clock::new(now + ASK_AFTER + after), true);
            for step in 0..ECHOES {
                assert_eq!(poll(ECHO_EVERY * step), Some(PathOrder::Echo));
            }
            assert_eq!(poll(ECHO_EVERY * ECHOES), Some(PathOrder::AskInIke));
            if answers {
                memory.note_answer(now + seconds(8));
            }
            memory.poll(&mut Clock::new(now + seconds(11)), true)
        };
        let mut memory = PathMemory::new(start);
        for again in 1..10 {
            assert_eq!(forgets(&mut memory, start + ask * again, true), None);
        }
        let mut memory = PathMemory::new(start);
        for again in 1..10 {
            assert_eq!(forgets(&mut memory, start + 2 * AGAIN_WITHIN * again, false), None);
        }
        assert!(!memory.is_busy());
        let mut memory = PathMemory::new(start);
        memory.note_sent(start + seconds(5));
        assert!(!memory.is_busy(), "it was not idle before");
    }
}
