//! What went through SAs, and what they refused.

use serde::{Deserialize, Serialize};

use super::{Direction, SaReading};

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

    /// Each of them, the larger one out of two.
    pub fn at_least(self, other: Traffic) -> Traffic {
        Traffic { bytes: self.bytes.max(other.bytes), packets: self.packets.max(other.packets) }
    }

    /// The difference, never below zero.
    pub fn minus(self, other: Traffic) -> Traffic {
        Traffic {
            bytes: self.bytes.saturating_sub(other.bytes),
            packets: self.packets.saturating_sub(other.packets),
        }
    }
}

/// Inbound packets that SAs refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SaErrors {
    /// Replays.
    pub replay: u64,
    /// Older than the replay window.
    pub replay_window: u64,
    /// Failed the integrity check.
    pub integrity: u64,
}

impl SaErrors {
    /// Each of them, out of two.
    fn each(self, other: SaErrors, of: fn(u64, u64) -> u64) -> SaErrors {
        SaErrors {
            replay: of(self.replay, other.replay),
            replay_window: of(self.replay_window, other.replay_window),
            integrity: of(self.integrity, other.integrity),
        }
    }

    /// The sum, which stays at the largest number rather than start again.
    pub fn plus(self, other: SaErrors) -> SaErrors {
        self.each(other, u64::saturating_add)
    }

    /// The difference, never below zero.
    pub fn minus(self, other: SaErrors) -> SaErrors {
        self.each(other, u64::saturating_sub)
    }
}

/// All that went through SAs, and what they refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Volume {
    /// Sent.
    pub tx: Traffic,
    /// Received.
    pub rx: Traffic,
    /// Refused.
    pub errors: SaErrors,
}

impl Volume {
    /// What went through an SA of this direction, and what it refused.
    pub fn of(direction: Direction, traffic: Traffic, errors: SaErrors) -> Volume {
        match direction {
            Direction::In => Volume { rx: traffic, errors, ..Volume::default() },
            Direction::Out => Volume { tx: traffic, errors, ..Volume::default() },
        }
    }

    /// The sum.
    pub fn plus(self, other: Volume) -> Volume {
        Volume {
            tx: self.tx.plus(other.tx),
            rx: self.rx.plus(other.rx),
            errors: self.errors.plus(other.errors),
        }
    }

    /// The difference, never below zero.
    pub fn minus(self, other: Volume) -> Volume {
        Volume {
            tx: self.tx.minus(other.tx),
            rx: self.rx.minus(other.rx),
            errors: self.errors.minus(other.errors),
        }
    }
}

impl From<&SaReading> for SaErrors {
    fn from(sa: &SaReading) -> Self {
        SaErrors {
            replay: sa.replay.into(),
            replay_window: sa.replay_window.into(),
            integrity: sa.integrity.into(),
        }
    }
}

impl From<&SaReading> for Traffic {
    fn from(sa: &SaReading) -> Self {
        Traffic { bytes: sa.bytes, packets: sa.packets }
    }
}
