//! When the state is written, and what is told only afterwards.
//!
//! Wishes of the operator and seals are written at once, and nobody is told before they are on the disk.
//! The counters of SAs are written now and then: however many SAs there are and however often they are replaced,
//! it costs no more than [`FIGURES_RATE`]. While thousands of pairs are being sealed, each write has all of them: those
//! follow each other no faster than [`SEALS_RATE`], unless somebody waits, and within [`CALM_MOST`] in any case.

use std::time::{Duration, Instant};

use super::core::Persist;

/// How long changes are gathered before they are written.
const GATHER: Duration = Duration::from_millis(200);
/// The same where only figures have changed.
const GATHER_FIGURES: Duration = Duration::from_secs(1);
/// How many octets a second figures may cost, on the average.
const FIGURES_RATE: u64 = 4096;
/// The same for seals, while nobody asks.
const SEALS_RATE: u64 = 1 << 20;
/// But seals are written after that time at the latest.
const CALM_MOST: Duration = Duration::from_secs(2);

/// A write, by its number: they end in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Write(u64);

/// When the next write is due.
#[derive(Debug, Default)]
pub struct WriteTimes {
    seals: Option<Instant>,
    figures: Option<Instant>,
    /// Figures are written no earlier than that.
    quiet: Option<Instant>,
    /// And seals no earlier than that.
    calm: Option<Instant>,
    begun: u64,
    ended: u64,
    /// The last write that was begun with more than figures.
    sealing: Write,
    /// The last write failed.
    failed: bool,
    /// When the last write was begun.
    began: Option<Instant>,
}

impl WriteTimes {
    /// Something is to be remembered.
    pub fn note(&mut self, now: Instant, what: Persist) {
        match what {
            Persist::Seals => {
                let at = (now + GATHER).max(self.calm.unwrap_or(now));
                self.seals.get_or_insert(at);
            }
            Persist::Figures => {
                let at = self.quiet.map_or(now, |quiet| quiet.max(now)).max(now + GATHER_FIGURES);
                self.figures.get_or_insert(at);
            }
        }
    }

    /// Writes at that time, or after the write that is under way. Returns the write that will have all of now.
    pub fn hurry(&mut self, at: Instant) -> Write {
        self.seals = Some(self.seals.map_or(at, |seals| seals.min(at)));
        Write(self.begun + 1)
    }

    /// Which write must end before anybody is told of now; `None` where there is none, and where nothing can be
    /// written: then `status` says so. Whoever is `patient` will be told again and again.
    pub fn before_telling(&mut self, now: Instant, patient: bool) -> Option<Write> {
        if self.failed {
            None
        } else if self.seals.is_some() {
            let soonest = if patient { self.calm.unwrap_or(now).max(now) } else { now };
            Some(self.hurry(soonest))
        } else {
            Some(self.sealing).filter(|write| !self.is_over(*write))
        }
    }

    /// Whether a write has ended, or whoever waits for it would wait in vain.
    pub fn is_over(&self, write: Write) -> bool {
        self.failed || write <= Write(self.ended)
    }

    /// Whether a write is the one that is being written.
    pub fn is_under_way(&self, write: Write) -> bool {
        self.is_busy() && write == Write(self.begun)
    }

    /// When a write is to be begun. One that is being written keeps the next from that.
    pub fn deadline(&self) -> Option<Instant> {
        [self.seals, self.figures].into_iter().flatten().min().filter(|_| !self.is_busy())
    }

    /// Whether a write was begun and has not ended.
    pub fn is_busy(&self) -> bool {
        self.ended < self.begun
    }

    /// A write begins, which has everything that is known now.
    pub fn begin(&mut self, now: Instant) {
        self.begun += 1;
        self.began = Some(now);
        self.figures = None;
        if self.seals.take().is_some() {
            self.sealing = Write(self.begun);
        }
    }

    /// It has ended, and had so many octets. Where it failed, it is tried `again` at that time.
    pub fn end(&mut self, octets: usize, again: Option<Instant>) {
        self.ended = self.begun;
        self.failed = again.is_some();
        self.seals = self.seals.or(again);
        let pause = |rate| Duration::from_millis(octets as u64 * 1000 / rate);
        self.quiet = self.began.map(|began| began + pause(FIGURES_RATE));
        self.calm = self.began.map(|began| began + pause(SEALS_RATE).min(CALM_MOST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How often a state of so many octets is written in an hour in which SAs end `every` so often.
    fn writes(octets: usize, every: Duration) -> u64 {
        let (mut due, start) = (WriteTimes::default(), Instant::now());
        let mut now = start;
        while now < start + 3600 * SECOND {
            due.note(now, Persist::Figures);
            now += every;
            if due.deadline().is_some_and(|at| at <= now) {
                due.begin(now);
                due.end(octets, None);
            }
        }
        due.begun
    }

    /// 64 pairs at 216 rekeys a minute were 119 rewrites in a minute; 5,000 pairs that rekey each hour 250 GB a day.
    #[test]
    fn figures_cost_no_more_however_many_there_are_and_however_often_they_change() {
        let of_pair = 400;
        for (pairs, rekeys_a_minute) in [(1, 1), (64, 216), (5_000, 83), (5_000, 10_000)] {
            let octets = pairs * of_pair;
            let writes = writes(octets, 60 * SECOND / rekeys_a_minute);
            println!("{pairs} pairs, {rekeys_a_minute} rekeys a minute: {writes} writes an hour");
            assert!(writes <= 3600 && writes > 0);
            let budget = 3600 * FIGURES_RATE + octets as u64;
            assert!(writes * octets as u64 <= budget, "{writes} of {octets}");
        }
    }

    #[test]
    fn what_is_told_is_on_the_disk() {
        let (mut due, now) = (WriteTimes::default(), Instant::now());
        assert_eq!(due.before_telling(now, false), None, "nothing has changed");
        due.note(now, Persist::Figures);
        assert_eq!(due.before_telling(now, false), None, "figures are no promise");
        due.note(now, Persist::Seals);
        assert_eq!(due.deadline(), Some(now + GATHER));
        let first = due.before_telling(now, false).unwrap();
        assert_eq!(due.deadline(), Some(now), "somebody waits");
        due.begin(now);
        assert_eq!(due.before_telling(now, false), Some(first), "it is under way");
        due.note(now, Persist::Seals);
        let second = due.before_telling(now, false).unwrap();
        assert!(second > first && !due.is_over(first) && due.deadline().is_none());
        due.end(100, None);
        assert!(due.is_over(first) && !due.is_over(second), "the first has nothing of the second");
        due.note(now, Persist::Figures);
        due.begin(now);
        due.end(100, None);
        assert!(due.is_over(second) && due.before_telling(now, false).is_none() && due.deadline().is_none());
        due.note(now, Persist::Figures);
        due.begin(now);
        assert_eq!(due.before_telling(now, false), None, "a disk that is slow to take figures keeps nobody");
    }

    #[test]
    fn where_nothing_can_be_written_nobody_waits_and_it_is_tried_again() {
        let (mut due, now) = (WriteTimes::default(), Instant::now());
        due.note(now, Persist::Seals);
        let write = due.before_telling(now, false).unwrap();
        due.begin(now);
        due.end(0, Some(now + 5 * SECOND));
        assert!(due.is_over(write) && due.before_telling(now, false).is_none());
        due.note(now, Persist::Seals);
        assert_eq!(due.deadline(), Some(now + 5 * SECOND));
        let wish = due.hurry(now);
        assert_eq!(due.deadline(), Some(now), "an order is tried at once");
        due.begin(now);
        assert!(due.is_under_way(wish));
        due.end(100, None);
        assert!(due.is_over(wish) && due.deadline().is_none());
    }

    /// Thousands of pairs are being sealed, and somebody follows that.
    #[test]
    fn a_large_state_is_written_no_faster_than_it_may_be_unless_somebody_waits() {
        let (mut due, now, octets) = (WriteTimes::default(), Instant::now(), 3 << 19);
        due.note(now, Persist::Seals);
        assert_eq!(due.deadline(), Some(now + GATHER), "the first is not put off");
        due.begin(now);
        due.end(octets, None);
        due.note(now, Persist::Seals);
        assert_eq!(due.deadline(), Some(now + 3 * SECOND / 2));
        let told = due.before_telling(now, true).unwrap();
        assert_eq!(due.deadline(), Some(now + 3 * SECOND / 2));
        assert_eq!(due.before_telling(now, false), Some(told));
        assert_eq!(due.deadline(), Some(now));
        assert_eq!(due.before_telling(now, true), Some(told));
        assert_eq!(due.deadline(), Some(now), "whoever is patient keeps nobody else waiting");
        due.begin(now);
        due.end(100 << 20, None);
        due.note(now, Persist::Seals);
        assert_eq!(due.deadline(), Some(now + CALM_MOST), "however large it is");
    }
}
