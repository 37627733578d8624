//! The one test "is it ours?". Nothing is listed, changed or deleted without it.

use std::ffi::CStr;

use super::{PolicyDirection, PolicyReading};

/// The name of the process that keeps an agent's sockets for the next one.
pub const KEEPER_NAME: &CStr = c"hostseal-keeper";

/// The reqid of every SA and every template of ours.
pub const REQID: u32 = 0x6873_0001;

/// The first index of a policy of ours. The kernel keeps the direction in the low three bits and counts
/// its own indexes up from there, so it does not reach this range by itself.
const INDEX_FIRST: u32 = 0x6800_0000;
/// The last index of a policy of ours.
const INDEX_LAST: u32 = 0x6fff_ffff;
/// How many indexes of ours there are in each direction.
pub const INDEX_SLOTS: u32 = (INDEX_LAST - INDEX_FIRST + 1) >> 3;

/// Priorities of ours, smallest first: the range in front of what other IPsec software uses.
pub mod priority {
    /// What stays in the clear: neighbour discovery and the operator's exemptions.
    pub const EXEMPT: u32 = 1000;
    /// The policies of a pair.
    pub const PAIR: u32 = 1100;
    /// What blocks the rest between this host and a sealed peer.
    pub const GUARD: u32 = 1200;
    /// All of ours.
    pub(super) const RANGE: std::ops::RangeInclusive<u32> = 1000..=1299;
}

/// The index of our policy number `slot` in `direction`. `slot` is below [`INDEX_SLOTS`].
pub fn policy_index(direction: PolicyDirection, slot: u32) -> u32 {
    let low = match direction {
        PolicyDirection::In => 0,
        PolicyDirection::Out => 1,
        PolicyDirection::Forward => 2,
    };
    INDEX_FIRST | (slot << 3) | low
}

/// The slot of a policy of ours.
pub fn policy_slot(index: u32) -> u32 {
    (index - INDEX_FIRST) >> 3
}

/// Whether a policy is ours: by its index and its priority.
pub fn is_our_policy(policy: &PolicyReading) -> bool {
    (INDEX_FIRST..=INDEX_LAST).contains(&policy.index) && priority::RANGE.contains(&policy.priority)
}

/// Whether an SA is ours: by its reqid.
pub fn is_our_sa(reqid: u32) -> bool {
    reqid == REQID
}
