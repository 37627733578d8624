//! What the lab shows to a person rather than to a test harness: the demo, the mixed cluster and the benchmarks.

use anyhow::Result;

use crate::bench::{counters, idle, mesh, program};
use crate::demo;
use crate::lab::session::Show;
use crate::scenarios::compat;

/// A function that runs inside the lab and writes to the terminal.
pub struct Entry {
    /// The name on the command line.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// Makes its own [`crate::lab::Lab`]; returns the exit status.
    pub body: fn(&Show) -> Result<i32>,
}

/// The benchmarks.
pub const ALL: &[Entry] = &[
    Entry {
        name: "program",
        about: "adding 1,000 and 10,000 pairs of SAs with policies, against ip -batch",
        body: program::show,
    },
    Entry {
        name: "counters",
        about: "reading the counters of 20,000 SAs, against ip -s xfrm state and the bare bytes",
        body: counters::show,
    },
    Entry {
        name: "mesh",
        about: "the time in which 16 hosts protect all 120 pairs, against strongSwan",
        body: mesh::show,
    },
    Entry {
        name: "idle",
        about: "memory and wake-ups of an idle agent with 3 and 1,000 peers, against strongSwan",
        body: idle::show,
    },
];

/// The demo, the mixed cluster or the benchmark of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    [&demo::ENTRY, &compat::ENTRY].into_iter().chain(ALL).find(|entry| entry.name == name)
}
