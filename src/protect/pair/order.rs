//! What a pair wants done by others.

use std::time::Instant;

use crate::protect::report::{Probe, Report};
use crate::types::{Sa, Spi};

/// What a pair asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Keep the pair keyed, or only answer.
    Ike(IkeOrder),
    /// Begin anew: no earlier session is known any more.
    BeginAnew,
    /// Begin without a pause: the peer does not know that anything is lacking.
    Hurry,
    /// The SAs of this child are in the kernel, or were refused.
    Installed {
        /// Our name of the child.
        in_spi: Spi,
        /// Whether both are there.
        ok: bool,
    },
    /// Send the peer this report on a child, instead of an earlier one that still waits.
    Tell {
        /// Our name of the child.
        in_spi: Spi,
        /// What there is to tell.
        report: Report,
        /// Until then it waits for what may follow, and answers to the peer with it.
        waits: Option<Instant>,
    },
    /// Send a probe through this outbound SA.
    Probe {
        /// The SA.
        sa: Sa,
        /// What it says.
        probe: Probe,
    },
    /// Make a successor of this child.
    Rekey {
        /// Our name of the child.
        in_spi: Spi,
    },
    /// Delete this child.
    Delete {
        /// Our name of the child.
        in_spi: Spi,
    },
    /// Ask whether the peer still knows what we think it does.
    CheckLiveness,
    /// ESP by itself does not get through: try it in UDP.
    Encapsulate,
    /// Traffic flows both ways on this child: what stands beside it can go.
    Settled {
        /// Our name of the child.
        in_spi: Spi,
    },
    /// Read whether a packet has met the inbound policies since they were written.
    ReadUse,
    /// The pair became sealed, or is not any more: to be persisted.
    Persist,
}

/// What is wanted from the key exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IkeOrder {
    /// Initiate, and initiate again.
    Active,
    /// Answer only: the peer went back to clear.
    Passive,
    /// Close all sessions.
    Forget,
    /// Drop what there is silently: the address is at another host now, which speaks for it.
    Abandon,
    /// Initiate at once, and say that there is nothing else: the address has come to this host.
    Arrive,
}
