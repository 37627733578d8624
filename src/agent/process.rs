//! What the agent asks of its own process.

use anyhow::Context as _;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use rand::TryRng as _;
use rand::rngs::SysRng;

use crate::ike;

/// Keeps secrets out of core files, and files of ours out of others' sight.
pub(super) fn harden() -> anyhow::Result<()> {
    prctl::set_dumpable(false).context("cannot forbid core files")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot forbid core files")?;
    umask(Mode::from_bits_truncate(0o077));
    Ok(())
}

/// The operating system's randomness.
pub struct Entropy;

impl ike::Entropy for Entropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        // getrandom(2) cannot fail once the system's pool is ready, and waits until it is. Should it fail
        // all the same, keys must not be made from what happens to be in memory.
        if let Err(error) = SysRng.try_fill_bytes(bytes) {
            eprintln!("hostseal: the system gives no randomness: {error}");
            std::process::abort();
        }
    }
}
