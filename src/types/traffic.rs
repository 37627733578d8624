//! What went through SAs.

use serde::{Deserialize, Serialize};

use super::SaReading;

/// Bytes and packets as the kernel counts them: without the IP header and ESP's own overhead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Payload bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

impl Traffic {
    /// The sum, which stays at the largest number rather than start again.
    pub fn plus(self, other: Traffic) -> Traffic {
        Traffic {
            bytes: self.bytes.saturating_add(other.bytes),
            packets: self.packets.saturating_add(other.packets),
        }
    }

    /// The difference, never below zero.
    pub fn minus(self, other: Traffic) -> Traffic {
        Traffic {
            bytes: self.bytes.saturating_sub(other.bytes),
            packets: self.packets.saturating_sub(other.packets),
        }
    }
}

impl From<&SaReading> for Traffic {
    fn from(sa: &SaReading) -> Self {
        Traffic { bytes: sa.bytes, packets: sa.packets }
    }
}
