//! What the lab shows to a person rather than to a test harness: the demo, the pictures, the mixed cluster, the benchmarks and
//! the campaigns.

use anyhow::Result;

use crate::bench::{cluster, counters, dead, grid, idle, members, mesh, metrics, program, roster, scrapes};
use crate::campaign::{faults, interop, kms, soak, transitions};
use crate::demo;
use crate::lab::session::Show;
use crate::scenarios::{alerts, compat, etcd, page, rotation};

/// A function that runs inside the lab and writes to the terminal.
pub struct Entry {
    /// The name on the command line.
    pub name: &'static str,
    /// What it is about, in a line.
    pub about: &'static str,
    /// It needs agents that can be made to die.
    pub mortal: bool,
    /// It asks ministack in the place of AWS.
    pub aws: bool,
    /// Makes its own [`crate::lab::Lab`]; returns the exit status.
    pub body: fn(&Show) -> Result<i32>,
}

/// The benchmarks.
pub const ALL: &[Entry] = &[
    Entry {
        name: "program",
        about: "adding 1,000 and 10,000 pairs of SAs with policies, against ip -batch",
        mortal: false,
        aws: false,
        body: program::show,
    },
    Entry {
        name: "counters",
        about: "reading the counters of 20,000 SAs, against ip -s xfrm state and the bare bytes",
        mortal: false,
        aws: false,
        body: counters::show,
    },
    Entry {
        name: "mesh",
        about: "the time in which 16 hosts protect all 120 pairs, against strongSwan",
        mortal: false,
        aws: false,
        body: mesh::show,
    },
    Entry {
        name: "idle",
        about: "memory and wake-ups of an idle agent with 3 and 1,000 peers, against strongSwan",
        mortal: false,
        aws: false,
        body: idle::show,
    },
    Entry {
        name: "pairs",
        about: "the time in which two hosts with 1,024 and 5,041 pairs protect all of them, and renew all keys after a kill",
        mortal: false,
        aws: false,
        body: grid::show,
    },
    Entry {
        name: "metrics",
        about: "what a scrape of 1,024 and 10,000 pairs costs, against a bare dump of the kernel's SAs",
        mortal: false,
        aws: false,
        body: metrics::show,
    },
    Entry {
        name: "scrapes",
        about: "what a host with 1,024 pairs loses that is scraped once a second while keys are replaced all the time",
        mortal: false,
        aws: false,
        body: scrapes::show,
    },
    Entry {
        name: "dead",
        about: "what an agent costs whose file lists 1,000 and 5,000 hosts that are not there",
        mortal: false,
        aws: false,
        body: dead::show,
    },
    Entry {
        name: "cluster",
        about: "a roster against a file on each of 16 hosts: the time until all is protected, and an idle agent",
        mortal: false,
        aws: false,
        body: cluster::show,
    },
    Entry {
        name: "members",
        about: "how soon six hosts with a roster take a node in, and are rid of one that is removed",
        mortal: false,
        aws: false,
        body: members::show,
    },
    Entry {
        name: "roster",
        about: "what one new entry costs in a roster of 100 and of 1,000 nodes, to take it and to tell of it",
        mortal: false,
        aws: false,
        body: roster::show,
    },
];

/// The campaigns, each with its own command.
pub const CAMPAIGNS: &[Entry] = &[
    alerts::CAMPAIGN,
    Entry {
        name: "transitions",
        about: "what is lost or clear in every transition of a protected host, against strongSwan",
        mortal: false,
        aws: false,
        body: transitions::show,
    },
    Entry {
        name: "faults",
        about: "agents that die after each kernel operation of each transition",
        mortal: true,
        aws: false,
        body: faults::show,
    },
    Entry {
        name: "interop",
        about: "strongSwan and Libreswan as peers: every role, proof, proposal and event, as a table",
        mortal: false,
        aws: false,
        body: interop::show,
    },
    Entry {
        name: "etcd",
        about: "a cluster that keeps its roster in three etcds too, whose leaders die under orders",
        mortal: false,
        aws: false,
        body: etcd::show,
    },
    Entry {
        name: "rotate",
        about: "all nodes of a cluster get new keys, while agents are killed at random",
        mortal: false,
        aws: false,
        body: rotation::show,
    },
    Entry {
        name: "kms",
        about: "the owner of a key at AWS takes it from five hosts in every way: how soon they are cut off, and have it back",
        mortal: false,
        aws: true,
        body: kms::show,
    },
    Entry {
        name: "soak",
        about: "a cluster with short lifetimes and many restarts: what flows and what is held, each minute",
        mortal: false,
        aws: false,
        body: soak::show,
    },
];

/// The demo, the pictures of the page, the mixed cluster, the benchmark or the campaign of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    [&demo::ENTRY, &page::PICTURES, &compat::ENTRY, &compat::CLUSTER]
        .into_iter()
        .chain(ALL)
        .chain(CAMPAIGNS)
        .find(|entry| entry.name == name)
}
