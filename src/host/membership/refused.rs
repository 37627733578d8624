//! What members have sent and this one has not taken: how much of it, and who goes on with it.
//!
//! Who is named, and how, rests on what a sound member may do. It passes on what is in its own roster, which may be
//! another one than ours: it lags, was restored from an old backup, is full of something else, or is of another version.
//! So most of what is refused says nothing about who carries it ([`NotTaken::is_carriers_fault`]), and between sound
//! members it ends within seconds, as soon as their rosters agree.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::host::seldom::Seldom;
use crate::observe::cluster_figures::RefusedCounts;
use crate::roster::{Carried, EntryId, IgnoredBecause, NotTaken, Signer};
use crate::types::units::human_duration;

/// For so long a member is named after it has ended.
const OVER: Duration = Duration::from_secs(60);
/// How long it goes on at least before a member is named for what sound ones do for some seconds.
const LASTS: Duration = Duration::from_secs(60);
/// How long too many pages come without a pause before a member is named. What a page may hold and how many are taken
/// in a second let a sound one tell a whole roster in half a minute; and where rosters stay apart, it pauses in between.
const FLOODS: Duration = Duration::from_secs(120);
/// A member that brings more than so many entries that are taken has something to tell. Who is no admin can say less of itself.
const NEWS_A_SECOND: u64 = 1;
/// What comes no later than this after the last is no pause: of pages that are too many, and of entries that are refused.
/// Members whose rosters differ tell each other again after 16 s at most.
const FLOOD_PAUSE: Duration = Duration::from_secs(5);
const STRANGE_PAUSE: Duration = Duration::from_secs(20);

/// What a member goes on with, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nuisance {
    /// It sends entries that no sound member has.
    Forges,
    /// It sends more than is listened to. A sound one does so where it passes on what changes all the time.
    Floods,
    /// It sends what is refused here, as a sound one may do, but not for so long.
    Strange,
}

/// That a member goes on with something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Annoyance {
    /// With what.
    pub what: Nuisance,
    /// How many entries or pages.
    pub count: u64,
    /// For how long.
    pub time: Duration,
}

/// What was refused, by reason and by member. It knows of a member no longer than that goes on.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    counts: RefusedCounts,
    streaks: BTreeMap<(EntryId, Nuisance), Streak>,
    logged: Seldom<EntryId>,
}

/// The same again and again, without a long pause.
#[derive(Debug)]
struct Streak {
    begun: Instant,
    last: Instant,
    count: u64,
    /// How many entries of the member were taken meanwhile.
    taken: u64,
}

impl Annoyance {
    /// In words, after the name of the member.
    pub fn words(&self) -> String {
        let Self { what, count, time } = *self;
        let lately = match time.as_secs() {
            0 => String::new(),
            seconds => format!(" in {}", human_duration(Duration::from_secs(seconds))),
        };
        match what {
            Nuisance::Forges => format!(
                "sends entries that are forged or found another cluster ({count}{lately}): they count for nothing, and \
                 no sound member passes such entries on"
            ),
            Nuisance::Floods => format!(
                "sends more than this host listens to ({count} pages{lately} were ignored): nothing else suffers, but \
                 what is new may come late from it. A sound node does so while the roster changes all the time; if it \
                 goes on when nothing changes, restart its agent"
            ),
            Nuisance::Strange => format!(
                "goes on sending entries that this host does not take ({count}{lately}): they count for nothing. Either it \
                 has signed what it may not say, or it passes on what a later version has written, or what is too old or too \
                 much"
            ),
        }
    }
}

impl Refusals {
    /// Notes what came of a page of the member `line`. `is_own` says whether a key is one of its keys. Returns what is to be
    /// logged, with how often that was left out since the last time.
    pub(super) fn note(
        &mut self,
        now: Instant,
        line: EntryId,
        carried: &Carried,
        is_own: impl Fn(&Signer) -> bool,
    ) -> Option<(Annoyance, u64)> {
        let mut noted: BTreeMap<Nuisance, u64> = BTreeMap::new();
        for (why, how_many) in &carried.merged.refused {
            *self.of(*why) += *how_many as u64;
            let what = if why.is_carriers_fault() { Nuisance::Forges } else { Nuisance::Strange };
            *noted.entry(what).or_default() += *how_many as u64;
        }
        for (signer, how_many) in &carried.put_off {
            self.counts.put_off += *how_many as u64;
            // What others sign too often, sound members pass on.
            if is_own(signer) {
                *noted.entry(Nuisance::Strange).or_default() += *how_many as u64;
            }
        }
        match carried.ignored {
            Some(IgnoredBecause::TooMany) => {
                self.counts.pages_too_many += 1;
                noted.insert(Nuisance::Floods, 1);
            }
            // A later version says more, all the time.
            Some(IgnoredBecause::Unreadable) => self.counts.pages_unreadable += 1,
            None => {}
        }
        if let Some(flood) = self.streaks.get_mut(&(line, Nuisance::Floods)) {
            flood.taken = flood.taken.saturating_add(carried.merged.taken as u64);
        }
        if noted.is_empty() {
            return None;
        }
        self.streaks.retain(|(_, what), streak| !streak.is_over(now, *what));
        for (what, how_many) in &noted {
            let begun = Streak { begun: now, last: now, count: 0, taken: 0 };
            let streak = self.streaks.entry((line, *what)).or_insert(begun);
            (streak.last, streak.count) = (now, streak.count.saturating_add(*how_many));
        }
        let annoys = self.of_member(now, line).filter(|it| noted.contains_key(&it.what))?;
        let left_out = self.logged.note(now, line)?;
        Some((annoys, left_out))
    }

    /// What this member goes on with: the gravest of it.
    pub(super) fn of_member(&self, now: Instant, line: EntryId) -> Option<Annoyance> {
        let of_it = self.streaks.range((line, Nuisance::Forges)..=(line, Nuisance::Strange));
        let mut named = of_it.filter(|((_, what), streak)| streak.is_named(now, *what));
        named.next().map(|((_, what), streak)| Annoyance {
            what: *what,
            count: streak.count,
            time: streak.last.saturating_duration_since(streak.begun),
        })
    }

    /// How much was refused, by reason.
    pub(super) fn counts(&self) -> &RefusedCounts {
        &self.counts
    }

    /// What was left out in the log, and was not repeated since.
    pub(super) fn left_out(&mut self, now: Instant) -> Vec<(EntryId, u64)> {
        self.logged.due(now)
    }

    fn of(&mut self, why: NotTaken) -> &mut u64 {
        let counts = &mut self.counts;
        match why {
            NotTaken::TooLong => &mut counts.too_long,
            NotTaken::Malformed => &mut counts.malformed,
            NotTaken::OtherCluster => &mut counts.other_cluster,
            NotTaken::UnknownSigner => &mut counts.unknown_signer,
            NotTaken::NotSigned => &mut counts.not_signed,
            NotTaken::NotEntitled => &mut counts.not_entitled,
            NotTaken::TooMany => &mut counts.too_many,
            NotTaken::Full => &mut counts.full,
        }
    }
}

impl Streak {
    /// Whether it is too long ago to be the same still.
    fn is_over(&self, now: Instant, what: Nuisance) -> bool {
        let pause = match what {
            _ if self.is_named(self.last, what) => OVER,
            Nuisance::Forges => OVER,
            Nuisance::Floods => FLOOD_PAUSE,
            Nuisance::Strange => STRANGE_PAUSE,
        };
        now.saturating_duration_since(self.last) > pause
    }

    /// Whether a member is named for it.
    fn is_named(&self, now: Instant, what: Nuisance) -> bool {
        let lasts = match what {
            Nuisance::Forges => Duration::ZERO,
            Nuisance::Floods => FLOODS,
            Nuisance::Strange => LASTS,
        };
        let time = self.last.saturating_duration_since(self.begun);
        // Who brings so much that is new has it from an admin that does not stop.
        let tells = what == Nuisance::Floods && self.taken > time.as_secs() * NEWS_A_SECOND;
        time >= lasts && !tells && now.saturating_duration_since(self.last) <= OVER
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Merged;

    const SECOND: Duration = Duration::from_secs(1);

    fn line(at: u8) -> EntryId {
        EntryId::new([at; 32])
    }

    fn refused(why: NotTaken) -> Carried {
        let merged = Merged { taken: 0, refused: [(why, 2)].into() };
        Carried { merged, ..Carried::default() }
    }

    /// Each second so much comes; says what the member is named for in the end, and how often the log said something.
    fn after(seconds: u32, refusals: &mut Refusals, carried: &Carried) -> (Option<Annoyance>, usize) {
        let begin = Instant::now();
        let mut said = 0;
        for second in 0..seconds {
            said +=
                usize::from(refusals.note(begin + SECOND * second, line(1), carried, |_| false).is_some());
        }
        let named = refusals.of_member(begin + SECOND * seconds, line(1));
        assert_eq!(refusals.of_member(begin + SECOND * seconds, line(2)), None, "others are not named");
        assert_eq!(
            refusals.of_member(begin + SECOND * (seconds + 61), line(1)),
            None,
            "it is over some time"
        );
        (named, said)
    }

    #[test]
    fn who_forges_is_named_at_once_and_logged_once_a_minute() {
        for why in [NotTaken::NotSigned, NotTaken::OtherCluster] {
            let mut refusals = Refusals::default();
            let (named, said) = after(1, &mut refusals, &refused(why));
            assert_eq!((named.map(|it| (it.what, it.count)), said), (Some((Nuisance::Forges, 2)), 1));
            let (named, said) = after(600, &mut Refusals::default(), &refused(why));
            assert_eq!(named.map(|it| it.count), Some(1200));
            assert_eq!(said, 10);
        }
    }

    /// A lagging member, one that was restored from an old backup, one of a later version: each does it for a while.
    #[test]
    fn what_sound_members_may_send_is_counted_and_named_only_where_it_lasts() {
        use NotTaken::{Full, Malformed, NotEntitled, TooLong, TooMany, UnknownSigner};
        for why in [Full, Malformed, NotEntitled, TooLong, TooMany, UnknownSigner] {
            let mut refusals = Refusals::default();
            assert_eq!(after(30, &mut refusals, &refused(why)), (None, 0), "{why}");
            assert_eq!(*refusals.of(why), 60);
            let (named, said) = after(120, &mut Refusals::default(), &refused(why));
            assert_eq!(
                named.map(|it| it.what),
                Some(Nuisance::Strange),
                "{why}: and it is not called forged"
            );
            assert_eq!(said, 1);
        }
    }

    #[test]
    fn who_signs_too_often_is_named_and_who_passes_that_on_is_not() {
        let signer = Signer::new([7; 32]);
        let carried = Carried { put_off: [(signer, 5)].into(), ..Carried::default() };
        let (mut refusals, begin) = (Refusals::default(), Instant::now());
        for second in 0..100 {
            let now = begin + SECOND * second;
            refusals.note(now, line(1), &carried, |by| *by == signer);
            refusals.note(now, line(2), &carried, |_| false);
        }
        let named = |of| refusals.of_member(begin + 100 * SECOND, line(of)).map(|it| it.what);
        assert_eq!((named(1), named(2)), (Some(Nuisance::Strange), None));
        assert_eq!(refusals.counts().put_off, 1000);
    }

    #[test]
    fn a_later_version_may_say_more_all_the_time() {
        let carried = Carried { ignored: Some(IgnoredBecause::Unreadable), ..Carried::default() };
        let mut refusals = Refusals::default();
        assert_eq!(after(600, &mut refusals, &carried), (None, 0));
        assert_eq!(refusals.counts().pages_unreadable, 600);
    }

    /// Whoever has a whole roster to tell sends more than is taken, and pauses or ends some time.
    #[test]
    fn too_many_pages_are_a_flood_where_they_do_not_end() {
        let carried = Carried { ignored: Some(IgnoredBecause::TooMany), ..Carried::default() };
        assert_eq!(after(100, &mut Refusals::default(), &carried), (None, 0));
        let (named, said) = after(130, &mut Refusals::default(), &carried);
        assert_eq!((named.map(|it| it.what), said), (Some(Nuisance::Floods), 1));
        let (mut refusals, begin) = (Refusals::default(), Instant::now());
        for second in (0..3600).filter(|second| second % 16 < 8) {
            refusals.note(begin + SECOND * second, line(1), &carried, |_| false);
        }
        assert_eq!(refusals.of_member(begin + SECOND * 3600, line(1)), None, "rosters that stay apart");
    }

    /// An admin that has gone bad changes the settings all the time, and sound members pass that on.
    #[test]
    fn who_passes_on_a_flood_of_news_is_not_named_for_it() {
        let (mut refusals, begin) = (Refusals::default(), Instant::now());
        let too_many = Carried { ignored: Some(IgnoredBecause::TooMany), ..Carried::default() };
        let merged = Merged { taken: 2, refused: BTreeMap::new() };
        let news = Carried { merged, ..Carried::default() };
        for second in 0..600 {
            refusals.note(begin + SECOND * second, line(1), &too_many, |_| false);
            refusals.note(begin + SECOND * second, line(1), &news, |_| false);
        }
        assert_eq!(refusals.of_member(begin + SECOND * 600, line(1)), None);
        assert_eq!(refusals.counts().pages_too_many, 600);
    }

    /// What any number of members do leaves nothing behind.
    #[test]
    fn nothing_is_kept_of_who_has_stopped() {
        let (mut refusals, begin) = (Refusals::default(), Instant::now());
        for at in 0..200 {
            refusals.note(begin, line(at), &refused(NotTaken::NotSigned), |_| false);
        }
        assert_eq!(refusals.streaks.len(), 200);
        let later = begin + OVER + SECOND;
        refusals.note(later, line(1), &refused(NotTaken::NotSigned), |_| false);
        assert_eq!(refusals.streaks.len(), 1);
        refusals.left_out(later + OVER);
        refusals.left_out(later + 2 * OVER);
        assert_eq!(refusals.logged.due(later + 2 * OVER), []);
    }
}
