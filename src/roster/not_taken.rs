//! Why an entry is not taken.

use std::fmt;

/// Why an entry is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotTaken {
    /// It is longer than an entry may be.
    TooLong,
    /// It cannot be read.
    Malformed,
    /// It founds another cluster.
    OtherCluster,
    /// Nobody that the roster knows has signed it.
    UnknownSigner,
    /// A signature does not hold: it was altered, or made for another cluster.
    NotSigned,
    /// Who signed it may not say that.
    NotEntitled,
    /// Who signed it has said that often enough.
    TooMany,
    /// The roster is full.
    Full,
}

impl NotTaken {
    /// Whether no sound member ever carries such an entry. A sound member carries what is in its own roster and nothing
    /// else, so it has checked it; but its roster may be another one than ours.
    ///
    /// - [`NotSigned`](Self::NotSigned) and [`OtherCluster`](Self::OtherCluster) follow from the entry and the cluster alone:
    ///   no roster of this cluster takes it, whatever else is in it. Whoever carries it has made it or has not checked it.
    /// - [`UnknownSigner`](Self::UnknownSigner) and [`NotEntitled`](Self::NotEntitled) follow from what else is known here. The
    ///   carrier may know what entitles the signer, while that page was lost on the way, was put off or does not fit any more.
    ///   Their signatures are not looked at, so they say nothing of whom they name, either.
    /// - [`TooLong`](Self::TooLong) and [`Malformed`](Self::Malformed) may be what a later version writes.
    /// - [`TooMany`](Self::TooMany) and [`Full`](Self::Full) were true once: an old backup brings them back, and rosters that are
    ///   full may differ for long.
    ///
    /// What a removed node has signed is no such thing: it is taken, does not count where that was taken back, and is passed
    /// on by all.
    pub fn is_carriers_fault(self) -> bool {
        match self {
            NotTaken::NotSigned | NotTaken::OtherCluster => true,
            NotTaken::TooLong
            | NotTaken::Malformed
            | NotTaken::UnknownSigner
            | NotTaken::NotEntitled
            | NotTaken::TooMany
            | NotTaken::Full => false,
        }
    }
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            NotTaken::TooLong => "it is too long",
            NotTaken::Malformed => "it is broken",
            NotTaken::OtherCluster => "it founds another cluster",
            NotTaken::UnknownSigner => "nobody of this cluster has signed it",
            NotTaken::NotSigned => "its signature does not hold: it was altered, or is of another cluster",
            NotTaken::NotEntitled => "who signed it may not say that",
            NotTaken::TooMany => "who signed it has said that too often",
            NotTaken::Full => "the roster is full",
        })
    }
}
