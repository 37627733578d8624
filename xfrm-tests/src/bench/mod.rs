//! The benchmarks: each puts hostseal beside what people use today, in one run on one kernel, and prints
//! both sides and their ratio. `docs/benchmarks.md` tells how to run them and what came out.
//!
//! Machines differ and are noisy, so nothing here is asserted: the sides take turns, the median counts,
//! and the spread is printed with it.

mod bare;
pub mod cluster;
mod control;
pub mod counters;
pub mod dead;
pub mod grid;
pub mod idle;
pub mod members;
pub mod mesh;
pub mod metrics;
pub mod pairs;
pub mod program;
pub mod race;
pub mod roster;
pub mod scrapes;
mod vici;

use anyhow::{Context as _, Result};

/// Prints what came of a goal.
fn goal(what: &str, met: bool) {
    println!("  goal: {what}: {}", if met { "met" } else { "MISSED" });
}

/// The numbers that were given on the command line, or else the usual ones.
fn numbers(given: &[String], usual: &[usize]) -> Result<Vec<usize>> {
    if given.is_empty() {
        return Ok(usual.to_vec());
    }
    given.iter().map(|text| text.parse().with_context(|| format!("`{text}` is not a number"))).collect()
}
