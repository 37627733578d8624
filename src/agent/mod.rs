//! JOINS: the only layer that sees deciders and actors. [`service`] is the loop that gives the deciders of
//! [`host`](crate::host) clocks, sockets and files; [`guard()`] takes an agent's first step before there is an agent;
//! the rest are the things that the loop holds.

mod accept;
mod ages;
mod alarm;
mod become_member;
mod confine;
mod control;
mod descriptors;
mod disk;
#[cfg(feature = "key-export")]
mod export;
mod fellows;
mod force;
mod group;
mod guard;
mod hearing;
mod keeper;
mod kms_runner;
mod name;
mod notify;
mod onlooker;
mod process;
mod proof_sockets;
mod routes;
mod run_by_file;
mod service;
mod single;
mod sockets;
mod start;
mod store_helper;
mod system;
mod unwrapper;
mod watch;
mod whereabouts;
mod writer;

use std::path::Path;

pub use become_member::{FoundOrder, JoinWish, init, join};
pub use force::force_clear;
pub use guard::guard;
pub use keeper::hold;
pub use kms_runner::{run_helper, run_helpers_at};
pub use onlooker::become_onlooker;
pub use process::{SystemEntropy, keep_secrets};
pub use run_by_file::run_by_file;
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
