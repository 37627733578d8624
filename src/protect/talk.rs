//! What the peer is told of a child, what it has told, and when it is told next.
//!
//! What the peer sends unasked through, and about, a new child: a probe, once it knows that we have installed
//! the child. Between peers that heed what probes say, whoever asked for the child begins; the other end answers with
//! a probe that says so, and waits for the first word.
//! ```text
//! initiator  --- probe --------------------->  responder
//!            <-- probe: seen ----------------
//!            --- word: seen, sending ------->
//!            <-- word: seen, sending --------
//! ```
//! What comes is waited for, and one word then says that it came, too.

use std::time::Instant;

use super::clock::Clock;
use super::timing::PROBE_PATIENCE;
use super::word::{Flags, Word};

/// The peer's first probe or word.
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
    word: Word,
    /// The same as it was handed on, and until when it waits.
    handed: (u16, Option<Instant>),
    /// The revision of the peer's word that was heard last.
    heard: Option<u16>,
    /// The peer has told that it has installed the child.
    peer_installed: bool,
    /// The peer takes from a probe what a word would say.
    peer_heeds: bool,
    /// Whether this end asked for the child.
    asked: bool,
    first: First,
}

impl Talk {
    /// Of a new child. `asked`: this end asked for it, or was asked for it.
    pub(super) fn new(token: [u8; 16], asked: bool) -> Self {
        Self {
            word: Word::first(token),
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
        &self.word.token
    }

    /// What we said last.
    pub(super) fn said(&self) -> Flags {
        self.word.flags
    }

    /// The peer has said `word`. `false` where we have heard a newer one.
    #[must_use]
    pub(super) fn hear(&mut self, word: &Word) -> bool {
        let news = word.is_news(self.heard);
        if news {
            self.heard = Some(word.revision);
            self.peer_installed |= word.flags.installed;
            self.peer_heeds = word.flags.heeds;
        }
        news
    }

    /// What there is to say now that we have done `flags`, and until when that waits; `None` where that is known.
    pub(super) fn news(&mut self, clock: &mut Clock, flags: Flags) -> Option<(Word, Option<Instant>)> {
        if flags != self.word.flags {
            self.word.flags = flags;
            self.word.revision = self.word.revision.wrapping_add(1);
        }
        let (word, waits) = (self.word, self.awaits(clock));
        let before = std::mem::replace(&mut self.handed, (word.revision, waits));
        (before != self.handed).then_some((word, waits))
    }

    /// Until when the peer's first probe or word is waited for, if it is on its way.
    fn awaits(&mut self, clock: &mut Clock) -> Option<Instant> {
        let (seen, said) = (self.word.flags.seen, self.peer_installed);
        let both_told = self.word.flags.installed && said;
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
            // What waited until then goes without another word of ours.
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
        let (word, waits) = talk.news(&mut Clock::new(now), flags)?;
        Some((word.flags, waits.map(|until| until - now)))
    }

    /// When `talk` is to be asked again.
    fn wakes(talk: &mut Talk, now: Instant, flags: Flags) -> Option<Instant> {
        let mut clock = Clock::new(now);
        assert_eq!(talk.news(&mut clock, flags), None, "nothing is said twice");
        clock.next
    }

    impl Ends {
        /// The request told whoever answers, and the answer the other, who has installed the child last.
        fn new() -> Self {
            let (asked, other) = (Talk::new([1; 16], true), Talk::new([2; 16], false));
            let mut ends = Self { now: Instant::now(), asked, other };
            assert!(ends.other.hear(&Word::first([1; 16])));
            assert_eq!(says(&mut ends.other, ends.now, INSTALLED), Some((INSTALLED, None)), "in the answer");
            let answer = ends.other.word;
            assert!(ends.asked.hear(&answer));
            ends
        }
    }

    /// ```text
    /// asked  --- probe --->  other
    /// asked  <-- probe ----  other
    /// asked  --- word: seen, sending --->  other
    /// asked  <-- word: seen, sending ----  other
    /// ```
    #[test]
    fn one_exchange_of_words_follows_the_probes() {
        let Ends { now, mut asked, mut other } = Ends::new();
        let patience = Some(PROBE_PATIENCE);
        assert_eq!(says(&mut asked, now, INSTALLED), Some((INSTALLED, patience)), "the probe comes first");
        assert_eq!(says(&mut other, now, SEEN), Some((SEEN, patience)), "the word comes next");
        assert_eq!(wakes(&mut asked, now, INSTALLED), Some(now + PROBE_PATIENCE));
        assert_eq!(wakes(&mut other, now, SEEN), Some(now + PROBE_PATIENCE));
        assert_eq!(says(&mut asked, now, SENDING), Some((SENDING, None)));
        assert!(other.hear(&asked.word));
        assert_eq!(says(&mut other, now, SENDING), Some((SENDING, None)), "the answer");
        assert!(asked.hear(&other.word));
        assert_eq!((wakes(&mut asked, now, SENDING), wakes(&mut other, now, SENDING)), (None, None));
    }

    /// The word overtakes the probe that was sent before it: its answer waits for that.
    #[test]
    fn an_answer_waits_a_moment_for_the_probe() {
        for comes in [true, false] {
            let Ends { now, mut asked, mut other } = Ends::new();
            assert_eq!(says(&mut asked, now, SEEN), Some((SEEN, None)));
            assert!(other.hear(&asked.word));
            let waits = says(&mut other, now, INSTALLED);
            assert_eq!(waits, Some((INSTALLED, Some(PROBE_PATIENCE))), "no news, but the answer waits");
            let later = now + PROBE_PATIENCE - MILLISECOND;
            if comes {
                assert_eq!(says(&mut other, later, SEEN), Some((SEEN, None)));
            } else {
                assert_eq!(says(&mut other, later, INSTALLED), None);
            }
            assert_eq!(wakes(&mut other, later + MILLISECOND, if comes { SEEN } else { INSTALLED }), None);
            assert!(other.hear(&asked.word), "it comes again");
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
            let before = Word { revision: 3, flags: Flags { heeds: false, ..INSTALLED }, token: [2; 16] };
            assert!(talk.hear(&before));
            assert_eq!(says(&mut talk, now, SEEN), Some((SEEN, None)), "an earlier agent heeds no probe");
        }
    }

    #[test]
    fn the_newest_word_counts() {
        let mut talk = Talk::new([1; 16], true);
        let word = |revision: u16| Word { revision, ..Word::first([2; 16]) };
        assert!(talk.hear(&word(u16::MAX)) && talk.hear(&word(u16::MAX)));
        assert!(talk.hear(&word(1)) && !talk.hear(&word(0)) && !talk.hear(&word(u16::MAX)));
    }
}
