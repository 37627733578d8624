//! Commands that follow the agent: a question is held until something has changed, or its time is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ledger::Asker;
use crate::types::{Pair, RowState};

/// While pairs are on their way, changes are gathered for so long before they are told: telling each of
/// them would keep the agent from its work.
const GATHER: Duration = Duration::from_millis(250);
/// The longest that a question is held.
const HOLD_MOST: Duration = Duration::from_secs(5);
/// So many questions are held at a time; one more, and the oldest is answered at once.
const HELD_MOST: usize = 16;

/// A question that waits for its answer.
pub struct HeldQuestion {
    /// The revision that whoever asks knows.
    pub after: u64,
    /// Where the answer goes.
    pub asker: Asker,
    asked: Instant,
    until: Instant,
}

/// What has changed and when, and who wants to know.
pub struct Followers {
    /// Counts the changes, from 1: whoever knows nothing asks for what came after 0.
    revision: u64,
    /// The state of each pair that was ever told of, and the revision of its last change.
    rows: BTreeMap<Pair, (RowState, u64)>,
    /// How many of them are being agreed.
    moving: usize,
    held: Vec<HeldQuestion>,
}

impl Default for Followers {
    /// Nobody asks, and no pair is known.
    fn default() -> Self {
        Self { revision: 1, rows: BTreeMap::new(), moving: 0, held: Vec::new() }
    }
}

impl Followers {
    /// Counts the changes.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Something changed that concerns no pair alone.
    pub fn note_change(&mut self) {
        self.revision += 1;
    }

    /// A pair changed, and is in this state now.
    pub fn note_row(&mut self, pair: Pair, state: RowState) {
        self.revision += 1;
        let before = self.rows.insert(pair, (state, self.revision));
        let is_moving = |state| usize::from(state == RowState::Negotiating);
        self.moving += is_moving(state);
        self.moving -= before.map_or(0, |(before, _)| is_moving(before));
    }

    /// Whether a pair changed after `revision`. At revision 0 nothing is known yet.
    pub fn has_changed(&self, pair: Pair, revision: u64) -> bool {
        revision == 0 || self.rows.get(&pair).is_some_and(|(_, at)| *at > revision)
    }

    /// Holds a question of one who knows what was at revision `after`, for `time` at most.
    pub fn hold(&mut self, now: Instant, after: u64, time: Duration, asker: Asker) {
        self.held.push(HeldQuestion { after, asker, asked: now, until: now + time.min(HOLD_MOST) });
        let beyond = self.held.len().saturating_sub(HELD_MOST);
        self.held[..beyond].iter_mut().for_each(|held| held.until = now);
    }

    /// Nobody waits for this answer any more.
    pub fn forget(&mut self, gone: Asker) {
        self.held.retain(|held| held.asker != gone);
    }

    /// When [`Followers::take_due`] has something next.
    pub fn deadline(&self) -> Option<Instant> {
        self.held.iter().map(|held| self.due(held)).min()
    }

    /// The questions that are to be answered now.
    pub fn take_due(&mut self, now: Instant) -> Vec<HeldQuestion> {
        let (due, held) = std::mem::take(&mut self.held).into_iter().partition(|held| self.due(held) <= now);
        self.held = held;
        due
    }

    /// When a question is answered: soon after a change, and at once when nothing else is on its way.
    fn due(&self, held: &HeldQuestion) -> Instant {
        let news = held.after != self.revision;
        match (news, self.moving) {
            (true, 0) => held.asked,
            (true, _) => held.until.min(held.asked + GATHER),
            (false, _) => held.until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn pair(host: u8) -> Pair {
        Pair::new([10, 0, 0, 1].into(), [10, 0, 0, host].into()).unwrap()
    }

    fn ask(followers: &mut Followers, now: Instant, after: u64, time: Duration) {
        followers.hold(now, after, time, Asker(1));
    }

    fn count_due(followers: &mut Followers, now: Instant) -> usize {
        followers.take_due(now).len()
    }

    #[test]
    fn nothing_is_told_until_something_changes_or_time_is_over() {
        let (mut followers, now) = (Followers::default(), Instant::now());
        followers.note_row(pair(2), RowState::Protected);
        let known = followers.revision();
        ask(&mut followers, now, known, 800 * MILLISECOND);
        assert_eq!(followers.deadline(), Some(now + 800 * MILLISECOND));
        assert_eq!(count_due(&mut followers, now + 799 * MILLISECOND), 0);
        followers.note_change();
        assert_eq!(count_due(&mut followers, now + 799 * MILLISECOND), 1);
        assert_eq!(followers.deadline(), None);
        let known = followers.revision();
        ask(&mut followers, now, known, HOLD_MOST * 2);
        assert_eq!(count_due(&mut followers, now + HOLD_MOST), 1, "nothing is held for longer");
    }

    #[test]
    fn what_one_does_not_know_yet_is_told_at_once() {
        let (mut followers, now) = (Followers::default(), Instant::now());
        followers.note_row(pair(2), RowState::Protected);
        ask(&mut followers, now, 0, HOLD_MOST);
        assert_eq!(count_due(&mut followers, now), 1);
        assert!(followers.has_changed(pair(2), 0) && followers.has_changed(pair(3), 0));
        assert!(!followers.has_changed(pair(2), followers.revision()));
    }

    #[test]
    fn changes_are_gathered_while_pairs_are_on_their_way() {
        let (mut followers, now) = (Followers::default(), Instant::now());
        followers.note_row(pair(2), RowState::Negotiating);
        followers.note_row(pair(3), RowState::Negotiating);
        let known = followers.revision();
        ask(&mut followers, now, known, HOLD_MOST);
        followers.note_row(pair(2), RowState::Protected);
        assert_eq!(count_due(&mut followers, now + MILLISECOND), 0, "the other one is on its way");
        assert_eq!(followers.deadline(), Some(now + GATHER));
        followers.note_row(pair(3), RowState::Clear);
        assert_eq!(count_due(&mut followers, now + MILLISECOND), 1, "nothing more is to be expected");
        assert!(followers.has_changed(pair(2), known) && followers.has_changed(pair(3), known));
    }

    #[test]
    fn a_crowd_does_not_grow_without_bound() {
        let (mut followers, now) = (Followers::default(), Instant::now());
        let known = followers.revision();
        (0..HELD_MOST + 5).for_each(|_| ask(&mut followers, now, known, HOLD_MOST));
        assert_eq!(count_due(&mut followers, now), 5);
        followers.forget(Asker(1));
        assert_eq!(followers.deadline(), None, "they have gone");
    }
}
