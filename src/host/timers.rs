//! One deadline per key, the nearest first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// Deadlines by key.
#[derive(Debug)]
pub struct Timers<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_key: BTreeMap<K, Instant>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Replaces the deadline of `key`.
    pub fn set(&mut self, key: K, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.by_key.insert(key, at),
            None => self.by_key.remove(&key),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, key));
        }
        if let Some(at) = at {
            self.by_time.insert((at, key));
        }
    }

    /// Takes out a key whose deadline has come.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        let (_, key) = self.by_time.first().copied().filter(|(at, _)| *at <= now)?;
        self.set(key, None);
        Some(key)
    }

    /// The nearest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn due_keys_come_out_once_in_order() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut timers = Timers::default();
        timers.set('b', Some(at(2)));
        timers.set('a', Some(at(1)));
        timers.set('c', Some(at(3)));
        timers.set('c', None);
        timers.set('b', Some(at(4)));
        assert_eq!(timers.next(), Some(at(1)));
        assert_eq!(timers.pop_due(at(3)), Some('a'));
        assert_eq!(timers.pop_due(at(3)), None);
        assert_eq!(timers.pop_due(at(4)), Some('b'));
        assert_eq!(timers.next(), None);
    }
}
