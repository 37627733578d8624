//! Who begins IKE with this host between addresses that are no pair. Nobody has proven anything: it is only counted,
//! in a table of a few, so that the operator hears of a host that the file forgot.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::types::Pair;

/// So many are remembered.
const UNLISTED_MAX: usize = 8;
/// Who has not come back for that long is forgotten.
const UNLISTED_LIFE: Duration = Duration::from_secs(600);

/// Somebody who began IKE between addresses that are no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnlistedInitiator {
    /// Our address.
    pub local: IpAddr,
    /// Theirs, as they say.
    pub remote: IpAddr,
    /// How many first requests came.
    pub requests: u64,
    /// When the last one came.
    pub last: Instant,
}

/// The table.
#[derive(Default)]
pub struct UnlistedInitiators(Vec<UnlistedInitiator>);

impl UnlistedInitiators {
    /// A first request came. It is not remembered where the table is full of others who came lately: whoever forges
    /// addresses pushes nobody out.
    pub(super) fn note(&mut self, now: Instant, local: IpAddr, remote: IpAddr) {
        if let Some(known) = self.0.iter_mut().find(|it| (it.local, it.remote) == (local, remote)) {
            (known.requests, known.last) = (known.requests.saturating_add(1), now);
            return;
        }
        self.0.retain(|it| is_recent(it, now));
        if self.0.len() < UNLISTED_MAX {
            self.0.push(UnlistedInitiator { local, remote, requests: 1, last: now });
        }
    }

    /// Forgets those between whose addresses there is a pair after all.
    pub fn retain(&mut self, is_unlisted: impl Fn(Pair) -> bool) {
        self.0.retain(|it| Pair::new(it.local, it.remote).is_none_or(&is_unlisted));
    }

    /// Those who came lately.
    pub(super) fn recent(&self, now: Instant) -> impl Iterator<Item = &UnlistedInitiator> {
        self.0.iter().filter(move |it| is_recent(it, now))
    }
}

fn is_recent(initiator: &UnlistedInitiator, now: Instant) -> bool {
    now.saturating_duration_since(initiator.last) < UNLISTED_LIFE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_remembered_for_a_while_whoever_forges_addresses() {
        let (now, local) = (Instant::now(), IpAddr::from([10, 0, 0, 1]));
        let mut table = UnlistedInitiators::default();
        table.note(now, local, [10, 0, 0, 2].into());
        for host in 0..=255 {
            table.note(now, local, [192, 0, 2, host].into());
        }
        table.note(now + Duration::from_secs(1), local, [10, 0, 0, 2].into());
        assert_eq!(table.recent(now).count(), UNLISTED_MAX);
        let first = table.recent(now).next().unwrap();
        assert_eq!((first.remote, first.requests), ([10, 0, 0, 2].into(), 2));
        let later = now + UNLISTED_LIFE;
        assert_eq!(table.recent(later).count(), 1);
        table.note(later, local, [10, 0, 0, 9].into());
        assert_eq!(table.recent(later).count(), 2, "room again");
    }
}
