//! What others make this end hold, counted by origin (a pair, or all joiners) and in all: whether there is room for more, and who goes first
//! where there is none. Nothing here takes longer the more there is.

use std::collections::{BTreeSet, HashMap};

use super::table::SessionKey;
use crate::ike::limits::{FRAGMENTS_HELD_MAX, FRAGMENTS_HELD_MAX_PAIR};
use crate::ike::path::Origin;

/// What one session holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Its initiator has not proven itself.
    pub unproven: bool,
    /// It was refused, and is kept for its answer alone.
    pub refused: bool,
    /// Octets of messages that have not come as a whole.
    pub octets: usize,
}

/// What the sessions of one origin hold, or those of all. Their keys grow: the first is the oldest.
#[derive(Debug, Default)]
struct Account {
    unproven: BTreeSet<SessionKey>,
    refused: BTreeSet<SessionKey>,
    octets: usize,
}

impl Account {
    fn add(&mut self, key: SessionKey, load: Load) {
        self.unproven.extend(load.unproven.then_some(key));
        self.refused.extend(load.refused.then_some(key));
        self.octets += load.octets;
    }

    fn remove(&mut self, key: SessionKey, load: Load) {
        self.unproven.remove(&key);
        self.refused.remove(&key);
        self.octets -= load.octets;
    }

    fn is_empty(&self) -> bool {
        self.unproven.is_empty() && self.octets == 0
    }

    /// The session to go first: one that is kept for its answer alone, and then the oldest.
    fn least_wanted(&self) -> Option<SessionKey> {
        self.refused.first().or(self.unproven.first()).copied()
    }
}

/// The books of all. Origins that hold nothing are not in them.
#[derive(Debug, Default)]
pub struct Budget {
    all: Account,
    origins: HashMap<Origin, Account>,
}

impl Budget {
    /// A session of `origin` that held `before` holds `now`.
    pub fn change(&mut self, origin: impl Into<Origin>, key: SessionKey, before: Load, now: Load) {
        if before == now {
            return;
        }
        let origin = origin.into();
        let of_origin = self.origins.entry(origin).or_default();
        for account in [&mut self.all, of_origin] {
            account.remove(key, before);
            account.add(key, now);
        }
        if of_origin.is_empty() {
            self.origins.remove(&origin);
        }
    }

    /// Sessions whose initiator has not proven itself: of an origin, and in all.
    pub fn unproven(&self, origin: impl Into<Origin>) -> (usize, usize) {
        let of_origin = self.origins.get(&origin.into()).map_or(0, |account| account.unproven.len());
        (of_origin, self.all.unproven.len())
    }

    /// Sessions whose initiator has not proven itself, in all.
    pub(super) fn all_unproven(&self) -> usize {
        self.all.unproven.len()
    }

    /// The session of an origin to go first.
    pub(super) fn least_wanted_of(&self, origin: impl Into<Origin>) -> Option<SessionKey> {
        self.origins.get(&origin.into())?.least_wanted()
    }

    /// The session of all to go first.
    pub(super) fn least_wanted(&self) -> Option<SessionKey> {
        self.all.least_wanted()
    }

    /// So many more octets may be held of messages of an origin that have not come as a whole.
    pub fn fragment_room(&self, origin: impl Into<Origin>) -> usize {
        let of_origin = self.origins.get(&origin.into()).map_or(0, |account| account.octets);
        let of_origin = FRAGMENTS_HELD_MAX_PAIR.saturating_sub(of_origin);
        of_origin.min(FRAGMENTS_HELD_MAX.saturating_sub(self.all.octets))
    }

    /// Octets that are held of messages that have not come as a whole.
    pub fn octets(&self) -> usize {
        self.all.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Pair;

    fn pair(at: u8) -> Pair {
        Pair::new([10, 0, 0, 1].into(), [10, 0, 1, at].into()).unwrap()
    }

    #[test]
    fn who_holds_nothing_is_not_in_the_books() {
        let mut budget = Budget::default();
        let half_open = Load { unproven: true, refused: false, octets: 1000 };
        let refused = Load { unproven: true, refused: true, octets: 0 };
        for at in 0..10 {
            budget.change(pair(at % 2), SessionKey::numbered(at.into()), Load::default(), half_open);
        }
        assert_eq!((budget.unproven(pair(0)), budget.all_unproven(), budget.octets()), ((5, 10), 10, 10_000));
        assert_eq!(budget.fragment_room(pair(0)), FRAGMENTS_HELD_MAX_PAIR - 5_000);
        assert_eq!(budget.least_wanted(), Some(SessionKey::numbered(0)), "the oldest");
        budget.change(pair(1), SessionKey::numbered(7), half_open, refused);
        assert_eq!(budget.least_wanted(), Some(SessionKey::numbered(7)), "what has had its answer");
        assert_eq!(budget.least_wanted_of(pair(0)), Some(SessionKey::numbered(0)));
        for at in 0..10 {
            let load = if at == 7 { refused } else { half_open };
            budget.change(pair(at % 2), SessionKey::numbered(at.into()), load, Load::default());
        }
        assert!(budget.origins.is_empty() && budget.all.is_empty() && budget.least_wanted().is_none());
    }
}
