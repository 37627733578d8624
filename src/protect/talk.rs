//! What both ends tell each other of a child, and when this end tells more.
//!
//! Unasked, the peer sends a probe through a new child once it knows that we have installed it. Between peers that
//! heed what probes say, whoever asked for the child begins; the other end answers with a probe that says so, and
//! waits for the first report.
//! ```text
//! initiator  --- probe --------------------->  responder
//!            <-- probe: seen ----------------
//!            --- report: seen, sending ------->
//!            <-- report: seen, sending --------
//! ```
//! An end waits for what is to come, so that one report says that it came, too.

use std::time::Instant;

use super::clock::Clock;
use super::report::{Flags, Report};
use super::timing::PROBE_PATIENCE;

/// The peer's first probe or report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// The peer does not send it yet.
    Unsent,
    /// It is on its way, and until this time what we have to say waits for it.
    Awaited(Instant),
    /// It came, or is late.
    Over,
}

/// What the ends have told each other of a child.
#[derive(Debug)]
pub(super) struct Talk {
    /// What we say last, or shall when it is waited for no longer.
    report: Report,
    /// The same as it was handed on, and until when it waits.
    handed: (u16, Option<Instant>),
    /// The revision of the peer's report that was heard last.
    heard: Option<u16>,
    /// The peer has told that it has installed the child.
    peer_installed: bool,
    /// The peer takes from a probe what a report would say.
    peer_heeds: bool,
    /// Whether this end asked for the child.
    asked: bool,
    first: First,
}

impl Talk {
    /// About a new child. `asked`: this end asked for it, or was asked for it.
    pub(super) fn new(token: [u8; 16], asked: bool) -> Self {
        Self {
            report: Report::first(token),
            handed: (0, None),
            heard: None,
            peer_installed: false,
            peer_heeds: false,
            asked,
            first: First::Unsent,
        }
    }

    /// What a probe through our inbound SA must carry.
    pub(super) fn token(&self) -> &[u8; 16] {
        &self.report.token
    }

    /// What we said last.
    pub(super) fn said(&self) -> Flags {
        self.report.flags
    }

    /// The peer has said `report`. `false` where we have heard a newer one.
    #[must_use]
    pub(super) fn hear(&mut self, report: &Report) -> bool {
        let news = report.is_news(self.heard);
        if news {
            self.heard = Some(report.revision);
            self.peer_installed |= report.flags.installed;
            self.peer_heeds = report.flags.heeds;
        }
        news
    }

    /// What there is to say now that we have done `flags`, and until when that waits; `None` where that is known.
    pub(super) fn news(&mut self, clock: &mut Clock, flags: Flags) -> Option<(Report, Option<Instant>)> {
        if flags != self.report.flags {
            self.report.flags = flags;
            self.report.revision = self.report.revision.wrapping_add(1);
        }
        let (report, waits) = (self.report, self.awaits(clock));
        let before = std::mem::replace(&mut self.handed, (report.revision, waits));
        (before != self.handed).then_some((report, waits))
    }

    /// Until when the peer's first probe or report is waited for, if it is on its way.
    fn awaits(&mut self, clock: &mut Clock) -> Option<Instant> {
        let (seen, said) = (self.report.flags.seen, self.peer_installed);
        let both_told = self.report.flags.installed && said;
        let (comes, over) = match (self.peer_heeds, self.asked) {
            (true, true) => (both_told, seen),
            (true, false) => (seen || both_told, seen && said),
            // An earlier agent says one thing after the other.
            (false, _) => (false, false),
        };
        if over {
            self.first = First::Over;
        } else if self.first == First::Unsent && comes {
            self.first = First::Awaited(clock.now + PROBE_PATIENCE);
        }
        let First::Awaited(until) = self.first else { return None };
        if clock.due(until) {
            self.first = First::Over;
            // What waited until then goes without another report of ours.
            self.handed.1 = None;
            return None;
        }
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);
    const INSTALLED: Flags = Flags {
        installed: true,
        seen: false,
        sending: false,
        open: false,
        unheard: false,
        heeds: true,
        trial: None,
        rounds: None,
    };
    const SEEN: Flags = Flags { seen: true, ..INSTALLED };
    const SENDING: Flags = Flags { sending: true, ..SEEN };

    /// Both ends of a child, and who asked for it.
    struct Ends {
        now: Instant,
        asked: Talk,
        other: Talk,
    }

    /// What `talk` says at `now`: what it has done, and how long that waits.
    fn says(talk: &mut Talk, now: Instant, flags: Flags) -> Option<(Flags, Option<Duration>)> {
        let (report, waits) = talk.news(&mut Clock::new(now), flags)?;
        Some((report.flags, waits.map(|until| until - now)))
    }

    /// When `talk` is to be asked again.
    fn wakes(talk: &mut Talk, now: Instant, flags: Flags) -> Option<Instant> {
        let mut clock = Clock::new(now);
        assert_eq!(talk.news(&mut clock, flags), None, "nothing is said twice");
        clock.next
    }

    impl Ends {
        /// The request told the responder, and the answer the initiator, which has installed the child last.
        fn new() -> Self {
            let (asked, other) = (Talk::new([1; 16], true), Talk::new([2; 16], false));
            let mut ends = Self { now: Instant::now(), asked, other };
            assert!(ends.other.hear(&Report::first([1; 16])));
            assert_eq!(says(&mut ends.other, ends.now, INSTALLED), Some((INSTALLED, None)), "in the answer");
            let answer = ends.other.report;
            assert!(ends.asked.hear(&answer));
            ends
        }
    }

    /// ```text
    /// asked  --- probe --->  other
    /// asked  <-- probe ----  other
    /// asked  --- report: seen, sending --->  other
    /// asked  <-- report: seen, sending ----  other
    /// ```
    #[test]
    fn one_exchange_of_reports_follows_the_probes() {
        let Ends { now, mut asked, mut other } = Ends::new();
        let patience = Some(PROBE_PATIENCE);
        assert_eq!(says(&mut asked, now, INSTALLED), Some((INSTALLED, patience)), "the probe comes first");
        assert_eq!(says(&mut other, now, SEEN), Some((SEEN, patience)), "the report comes next");
        assert_eq!(wakes(&mut asked, now, INSTALLED), Some(now + PROBE_PATIENCE));
        assert_eq!(wakes(&mut other, now, SEEN), Some(now + PROBE_PATIENCE));
        assert_eq!(says(&mut asked, now, SENDING), Some((SENDING, None)));
        assert!(other.hear(&asked.report));
        assert_eq!(says(&mut other, now, SENDING), Some((SENDING, None)), "the answer");
        assert!(asked.hear(&other.report));
        assert_eq!((wakes(&mut asked, now, SENDING), wakes(&mut other, now, SENDING)), (None, None));
    }

    /// The report overtakes the probe that was sent before it: its answer waits for that.
    #[test]
    fn an_answer_waits_a_moment_for_the_probe() {
        for comes in [true, false] {
            let Ends { now, mut asked, mut other } = Ends::new();
            assert_eq!(says(&mut asked, now, SEEN), Some((SEEN, None)));
            assert!(other.hear(&asked.report));
            let waits = says(&mut other, now, INSTALLED);
            assert_eq!(waits, Some((INSTALLED, Some(PROBE_PATIENCE))), "no news, but the answer waits");
            let later = now + PROBE_PATIENCE - MILLISECOND;
            if comes {
                assert_eq!(says(&mut other, later, SEEN), Some((SEEN, None)));
            } else {
                assert_eq!(says(&mut other, later, INSTALLED), None);
            }
            assert_eq!(wakes(&mut other, later + MILLISECOND, if comes { SEEN } else { INSTALLED }), None);
            assert!(other.hear(&asked.report), "it comes again");
            let late = if comes { SEEN } else { INSTALLED };
            assert_eq!(wakes(&mut other, later + MILLISECOND, late), None, "nothing is waited for twice");
        }
    }

    /// Before the other end can know of the child nothing waits.
    #[test]
    fn what_comes_from_nobody_is_not_waited_for() {
        let now = Instant::now();
        for asked in [true, false] {
            let mut talk = Talk::new([1; 16], asked);
            assert_eq!(says(&mut talk, now, INSTALLED), Some((INSTALLED, None)));
            let before = Report { revision: 3, flags: Flags { heeds: false, ..INSTALLED }, token: [2; 16] };
            assert!(talk.hear(&before));
            assert_eq!(says(&mut talk, now, SEEN), Some((SEEN, None)), "an earlier agent heeds no probe");
        }
    }

    #[test]
    fn the_newest_word_counts() {
        let mut talk = Talk::new([1; 16], true);
        let report = |revision: u16| Report { revision, ..Report::first([2; 16]) };
        assert!(talk.hear(&report(u16::MAX)) && talk.hear(&report(u16::MAX)));
        assert!(talk.hear(&report(1)) && !talk.hear(&report(0)) && !talk.hear(&report(u16::MAX)));
    }
}
