//! The one test "is it ours?". Nothing is listed, changed or deleted without it.

use std::ffi::CStr;
use std::fmt;

use super::{PolicyDirection, PolicyReading};

/// The name of the process that keeps an agent's sockets for the next one.
pub const KEEPER_NAME: &CStr = c"hostseal-keeper";

/// A reqid of ours: SAs that share one are a set, and a template that names it takes any of them.
///
/// Every SA and every template that this version writes has [`Reqid::COMMON`]. The rest of the range is for outbound
/// SAs, whose reqid will tell the generation that they belong to: several SAs of one pair (one a CPU, RFC 9611) are then
/// switched at once. This version takes such SAs and templates for ours, and writes none: agents before it know the
/// common reqid alone, and one that takes over would take no such SA for its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reqid(u32);

impl Reqid {
    /// The reqid of every inbound SA and every template for inbound packets, and for now of all others.
    pub const COMMON: Self = Self(0x6873_0001);
    /// The first one of ours.
    const FIRST: u32 = 0x6873_0000;
    /// The last one of ours.
    const LAST: u32 = 0x6873_00ff;

    /// The reqid that a kernel knows by this number; `None` for a stranger's.
    pub fn new(number: u32) -> Option<Self> {
        (Self::FIRST..=Self::LAST).contains(&number).then_some(Self(number))
    }

    /// The number by which a kernel knows it.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Reqid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// The first index of a policy of ours. The kernel keeps the direction in the low three bits and counts
/// its own indexes up from there, so it does not reach this range by itself.
const INDEX_FIRST: u32 = 0x6800_0000;
/// The last index of a policy of ours.
const INDEX_LAST: u32 = 0x6fff_ffff;
/// A mask, and what it leaves of our indexes and of no others.
pub const INDEX_MARK: (u32, u32) = (!(INDEX_LAST - INDEX_FIRST), INDEX_FIRST);
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
    Reqid::new(reqid).is_some()
}
