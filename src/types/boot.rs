//! The start of the system.

use std::time::Duration;

/// When the system was started, and how long ago that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// Another one for each start.
    pub id: String,
    /// The time since then.
    pub uptime: Duration,
}
