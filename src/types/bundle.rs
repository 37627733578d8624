//! The SAs of one pair and one direction that serve together: packets are switched to all of them at once.

use std::fmt;

use super::{Reqid, Sa, SaId, Spi};

/// The SAs of one direction of a child. Each has one for now; several (one a CPU, RFC 9611) will have a reqid in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bundle(Sa);

impl Bundle {
    /// One SA.
    pub fn new(sa: Sa) -> Self {
        Self(sa)
    }

    /// All of them.
    pub fn sas(&self) -> impl Iterator<Item = &Sa> {
        [&self.0].into_iter()
    }

    /// What identifies them in the kernel.
    pub fn ids(&self) -> impl Iterator<Item = SaId> {
        self.sas().map(Sa::id)
    }

    /// Whether an SA is one of them.
    pub fn has(&self, id: SaId) -> bool {
        self.ids().any(|own| own == id)
    }

    /// The one that takes packets on any CPU: the child is named by it, and proven through it.
    pub fn lead(&self) -> &Sa {
        &self.0
    }

    /// How an outbound policy names them: one by its SPI, so that switching is exact whatever the clock does
    /// (docs/kernel.md, fact 3). Several it will name by their reqid (fact 27).
    pub fn through(&self) -> Through {
        Through::Sa(self.0.spi)
    }
}

/// Which outbound SAs of a pair a policy sends through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Through {
    /// Exactly this one.
    Sa(Spi),
    /// Any that has this reqid.
    Set(Reqid),
}

impl Through {
    /// Whether the outbound SA of this index and reqid is one of them.
    pub fn names(self, spi: Spi, reqid: Reqid) -> bool {
        match self {
            Through::Sa(named) => named == spi,
            Through::Set(named) => named == reqid,
        }
    }
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Through::Sa(spi) => write!(f, "SA {spi}"),
            Through::Set(reqid) => write!(f, "SAs of reqid {reqid}"),
        }
    }
}
