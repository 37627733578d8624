//! Why members are not talked to, where somebody answers in their place.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::ike::reason::{Incompatible, Reason};
use crate::ike::{Failure, FailureCode};
use crate::roster::EntryId;

/// How long it is said that a member is in another cluster, after it was refused for that: who is there goes on trying, with
/// pauses of some minutes at most.
const ELSEWHERE_SHOWN: Duration = Duration::from_secs(15 * 60);

/// Those who have answered in the place of members, and were not taken for them.
#[derive(Debug, Default)]
pub(super) struct StandIns {
    /// The members whose keys somebody has who belongs to another cluster, and when that was seen last.
    elsewhere: BTreeMap<EntryId, Instant>,
    /// Why the last attempt to talk to a member has failed, where somebody has answered.
    unproven: BTreeMap<EntryId, Reason>,
}

impl StandIns {
    /// Whoever has the keys of this member says that it belongs to another cluster.
    pub(super) fn note_elsewhere(&mut self, now: Instant, line: EntryId) {
        self.elsewhere.insert(line, now);
    }

    /// An attempt to talk to this member has failed, of this end or of the other.
    pub(super) fn note_failure(&mut self, line: EntryId, failure: Failure) {
        let no_member = failure.reason == Incompatible::NoControl.into();
        if no_member || failure.code() == FailureCode::AuthFailed {
            self.unproven.insert(line, failure.reason);
        } else {
            self.unproven.remove(&line);
        }
    }

    /// The member is talked to.
    pub(super) fn forget(&mut self, line: EntryId) {
        self.elsewhere.remove(&line);
        self.unproven.remove(&line);
    }

    /// Only these are members still.
    pub(super) fn retain(&mut self, is_member: impl Fn(EntryId) -> bool) {
        self.elsewhere.retain(|line, _| is_member(*line));
        self.unproven.retain(|line, _| is_member(*line));
    }

    /// Whether whoever has the keys of this member has said lately that it belongs to another cluster.
    pub(super) fn is_elsewhere(&self, now: Instant, line: EntryId) -> bool {
        let lately = |at: &Instant| now.saturating_duration_since(*at) < ELSEWHERE_SHOWN;
        self.elsewhere.get(&line).is_some_and(lately)
    }

    /// Why whoever has answered last in the place of this member is not talked to.
    pub(super) fn unproven(&self, line: EntryId) -> Option<&Reason> {
        self.unproven.get(&line)
    }
}
