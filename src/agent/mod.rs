//! JOINS: the only layer that sees deciders and actors. [`core`] brings the key exchange, the pairs and
//! the kernel together without a clock or a socket of its own; [`service`] is the loop that gives it
//! both; [`guard()`] takes an agent's first step before there is an agent; the rest are the things that the
//! loop holds.

mod absent;
mod accept;
mod accounts;
mod addresses;
mod alarm;
mod alerts;
mod confine;
mod control;
pub mod core;
mod descriptors;
mod differs;
mod due;
#[cfg(feature = "key-export")]
mod export;
mod fellows;
mod followers;
mod force;
mod guard;
mod hearing;
mod keeper;
pub mod kernel;
pub mod known;
mod name;
mod notify;
mod pace;
pub mod pairs;
pub mod probe;
mod process;
mod report;
mod routes;
pub mod scheme;
mod seldom;
mod service;
mod setup;
#[cfg(test)]
mod sim;
mod single;
mod sockets;
mod timers;
mod unlisted;
mod unsaved;
mod watch;
mod writer;

use std::path::Path;

pub use force::force_clear;
pub use guard::guard;
pub use keeper::hold;
pub use process::{Entropy, keep_secrets};
pub use service::Stay;

/// Runs the agent in the foreground until SIGTERM or SIGINT, which leave protection in place.
///
/// # Errors
/// The configuration or the secret is wrong, another agent runs with the same files, or the kernel does
/// not let us.
pub fn run(path: &Path, stay: Stay) -> anyhow::Result<()> {
    process::harden()?;
    fellows::join()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, service::serve(path, stay))
}
