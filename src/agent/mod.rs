//! JOINS: the only layer that sees deciders and actors. [`core`] brings the key exchange, the pairs and
//! the kernel together without a clock or a socket of its own; [`service`] is the loop that gives it
//! both; [`guard()`] takes an agent's first step before there is an agent; the rest are the things that the
//! loop holds.

mod accounts;
mod addresses;
mod alarm;
mod control;
pub mod core;
#[cfg(feature = "key-export")]
mod export;
mod followers;
mod guard;
mod hearing;
mod keeper;
pub mod kernel;
pub mod known;
mod notify;
pub mod pairs;
pub mod probe;
mod process;
mod report;
pub mod scheme;
mod service;
mod setup;
#[cfg(test)]
mod sim;
mod single;
mod sockets;
mod timers;
mod watch;

use std::path::Path;

use anyhow::Context as _;

use crate::model::Config;
use crate::model::Saved;
use crate::model::saved::SavedError;
use crate::xfrm;
use keeper::Keeper;

pub use guard::guard;
pub use keeper::hold;
pub use process::Entropy;
pub use service::Stay;

/// Runs the agent in the foreground until SIGTERM or SIGINT, which leave protection in place.
///
/// # Errors
/// The configuration or the secret is wrong, another agent runs with the same files, or the kernel does
/// not let us.
pub fn run(path: &Path, stay: Stay) -> anyhow::Result<()> {
    process::harden()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, service::serve(path, stay))
}

/// Removes everything that carries our tag from the kernel, and remembers that protection is off, with no
/// agent, secret or valid file needed. An agent that runs is ended first, or it would put all of it back.
/// Says what was removed.
///
/// # Errors
/// The kernel does not let us, or the agent cannot be ended.
pub fn force_clear(path: &Path) -> anyhow::Result<String> {
    let mut kernel = xfrm::Kernel::open().context("the kernel's IPsec tables cannot be opened")?;
    let config = Config::load_or_last_good(path).map(|(config, _)| config);
    if let Ok(config) = &config {
        single::end(&config.run_dir)?;
        Keeper::new(&config.run_dir).release();
    }
    let swept = xfrm::sweep(&mut kernel)?;
    let removed = format!("removed {} policies and {} SAs", swept.policies, swept.sas);
    Ok(match config {
        Ok(config) => match remember_off(&config.state_path()) {
            Ok(()) => removed,
            Err(error) => {
                format!(
                    "{removed}; an agent that starts will protect this host again, as that is not written: {error}"
                )
            }
        },
        Err(error) => format!(
            "{removed}; the configuration cannot be read, so an agent that runs or starts may protect this \
             host again: stop it, or mend the file and say it again\n{error}"
        ),
    })
}

fn remember_off(state: &Path) -> Result<(), SavedError> {
    let mut saved = Saved::load(state).unwrap_or_default();
    saved.turn_off();
    saved.save(state)
}
