//! Lines that anybody can cause are logged seldom: once a minute for each kind, with the number of those that were left
//! out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long nothing more of a kind is said.
const PAUSE: Duration = Duration::from_secs(60);

/// When each kind was said last, and how many were left out since. There are few kinds for each peer.
#[derive(Debug)]
pub struct Seldom<K> {
    kinds: BTreeMap<K, (Instant, u64)>,
}

impl<K> Default for Seldom<K> {
    fn default() -> Self {
        Self { kinds: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Seldom<K> {
    /// One more of `kind`. If it is to be said: how many were left out before it.
    pub fn note(&mut self, now: Instant, kind: K) -> Option<u64> {
        match self.kinds.get_mut(&kind) {
            Some((said, left_out)) if now < *said + PAUSE => {
                *left_out += 1;
                None
            }
            _ => Some(self.kinds.insert(kind, (now, 0)).map_or(0, |(_, left_out)| left_out)),
        }
    }

    /// The kinds with some left out and none said for so long, with the number of those left out.
    pub fn due(&mut self, now: Instant) -> Vec<(K, u64)> {
        self.kinds.retain(|_, (said, left_out)| *left_out > 0 || now < *said + PAUSE);
        let due = |(said, left_out): &(Instant, u64)| *left_out > 0 && now >= *said + PAUSE;
        let due = self.kinds.iter_mut().filter(|(_, kind)| due(kind));
        due.map(|(kind, entry)| (*kind, std::mem::replace(entry, (now, 0)).1)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_minute_of_each_kind_is_said_and_none_goes_uncounted() {
        let (mut seldom, start) = (Seldom::default(), Instant::now());
        let (mut said, mut counted, mut noted) = (0, 0, 0);
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            for kind in (0..10).map(|count| count % 2) {
                noted += 1;
                if let Some(left_out) = seldom.note(now, kind) {
                    said += 1;
                    counted += 1 + left_out;
                }
            }
        }
        assert_eq!(said, 2 * 10);
        assert_eq!(seldom.due(start + Duration::from_secs(599)), []);
        let rest = seldom.due(start + Duration::from_secs(600));
        assert_eq!(counted + rest.iter().map(|(_, left_out)| left_out).sum::<u64>(), noted);
        assert_eq!(seldom.due(start + Duration::from_secs(900)), [], "it is said once");
    }
}
