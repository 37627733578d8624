//! What the agent asks of its own process.

use anyhow::Context as _;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use rand::TryRng as _;
use rand::rngs::SysRng;
use zeroize::{Zeroize as _, Zeroizing};

use super::descriptors;
use crate::ike;

/// Keeps secrets out of core files, and other processes out of this one: for every command, as most read a secret.
///
/// # Errors
/// The system refuses.
pub fn keep_secrets() -> anyhow::Result<()> {
    prctl::set_dumpable(false).context("cannot forbid core files")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot forbid core files")
}

/// Keeps secrets out of swap, where that is allowed, and files of ours out of others' sight.
pub(super) fn harden() -> anyhow::Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    descriptors::raise_limit().context("cannot raise the limit of descriptors")?;
    if let Err(error) = stay_in_memory() {
        tracing::warn!(
            "secrets may be swapped to disk, as memory cannot be locked: {error}: lift the limit (`ulimit -l unlimited`)"
        );
    }
    Ok(())
}

/// Keeps what is in memory from being swapped out. With a limit, memory that is asked for beyond it would be refused.
fn stay_in_memory() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    // What is mapped already is locked as it comes to be used: the program is larger than what is ever run of it.
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT))?;
    mlockall(MlockAllFlags::MCL_FUTURE)
}

/// How many random bytes are fetched at once.
const PORTION: usize = 1024;

/// The operating system's randomness. It is fetched in portions, since a session wants it in many small pieces;
/// what was handed out is zeroed.
pub struct Entropy {
    portion: Zeroizing<[u8; PORTION]>,
    used: usize,
}

impl Default for Entropy {
    fn default() -> Self {
        Self { portion: Zeroizing::new([0; PORTION]), used: PORTION }
    }
}

impl Entropy {
    /// The next bytes of the portion, at most `wanted`.
    fn next(&mut self, wanted: usize) -> &mut [u8] {
        if self.used == PORTION {
            refill(&mut self.portion[..]);
            self.used = 0;
        }
        let start = self.used;
        self.used = PORTION.min(start + wanted);
        &mut self.portion[start..self.used]
    }
}

impl ike::Entropy for Entropy {
    fn fill(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            let source = self.next(bytes.len());
            let (now, later) = bytes.split_at_mut(source.len());
            now.copy_from_slice(source);
            source.zeroize();
            bytes = later;
        }
    }
}

fn refill(portion: &mut [u8]) {
    // getrandom(2) cannot fail once the system's pool is ready, and waits until it is. Should it fail all the
    // same, keys must not be made from what happens to be in memory.
    if let Err(error) = SysRng.try_fill_bytes(portion) {
        eprintln!("hostseal: the system gives no randomness: {error}");
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ike::Entropy as _;

    #[test]
    fn no_byte_is_handed_out_twice() {
        let mut entropy = Entropy::default();
        let mut seen = BTreeSet::new();
        for length in [8, 32, 4, PORTION, 2 * PORTION + 7, 32, PORTION - 1].into_iter().cycle().take(70) {
            let mut bytes = vec![0; length];
            entropy.fill(&mut bytes);
            // Four bytes alone can come twice by chance.
            for piece in bytes.chunks_exact(8) {
                assert!(seen.insert(piece.to_vec()), "{piece:x?} came twice");
            }
            assert!(
                entropy.portion[..entropy.used].iter().all(|byte| *byte == 0),
                "what was handed out is gone"
            );
        }
    }
}
