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
