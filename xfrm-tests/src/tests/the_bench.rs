//! The benchmarks, as small as they get: that both sides do the same work. No time is judged.

use anyhow::Result;

use super::Test;
use crate::bench::{counters, metrics, program};
use crate::lab::Lab;

pub(super) const ALL: &[Test] = &[
    Test::new("bench::both_ways_of_programming_leave_the_same", 1, programming),
    Test::new("bench::all_ways_of_reading_see_every_sa", 1, reading),
    Test::new("bench::a_scrape_has_every_pair", 2, scraping),
];

fn programming(lab: &mut Lab) -> Result<()> {
    let [host] = lab.all();
    // More than two batches of ours.
    program::compare(&host, 30, 2)
}

fn scraping(lab: &mut Lab) -> Result<()> {
    metrics::compare(lab.hosts(), 16, 2)
}

fn reading(lab: &mut Lab) -> Result<()> {
    let [host] = lab.all();
    // More than one datagram of a dump.
    counters::compare(&host, 200, 2)
}
