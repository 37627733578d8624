//! How full the tables are that others can fill, and what was refused or dropped to keep them so.

use serde::{Deserialize, Serialize};

/// What `status` says of the bounds of IKE and of the roster. All but the first four grow from the start of the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Bounds {
    /// Sessions of all kinds, now.
    pub sessions: u64,
    /// Their IKE SAs, now.
    pub ike_sas: u64,
    /// Octets of messages that have not come as a whole yet, now.
    pub fragment_octets: u64,
    /// Sessions whose initiator has not proven itself, now.
    pub half_open: u64,
    /// Cookies asked for: initiators had to show that they receive at their address.
    pub cookies: u64,
    /// First requests that were not answered with a cookie, as they had waited for too long.
    pub first_requests_late: u64,
    /// Sessions dropped whose initiator had not proven itself.
    pub half_open_dropped: u64,
    /// Sessions with a proven peer dropped because it made too many.
    pub sessions_dropped: u64,
    /// Answers to our own first messages that were not followed up.
    pub answers_refused: u64,
    /// Successors of IKE SAs refused.
    pub ike_sas_refused: u64,
    /// Children refused.
    pub children_refused: u64,
    /// Fragments refused.
    pub fragments_refused: u64,
    /// Datagrams not sent.
    pub transmits_dropped: u64,
    /// Failures of unproven parties that were not told, as they concern pairs with a proven peer.
    pub hearsay: u64,
    /// Entries and pages of members that were not taken.
    pub entries_refused: u64,
}
