//! What the agent asks of the process that it is.

use anyhow::Context as _;
use hostseal_kms_protocol::forbid_dumps;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use super::descriptors;
use crate::ike;

/// Keeps secrets out of core files, and other processes out of this one: for every command, as most read a secret.
///
/// # Errors
/// The system refuses.
pub fn keep_secrets() -> anyhow::Result<()> {
    forbid_dumps().context("cannot forbid core files")
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

/// Keeps memory from being swapped out. With a limit, memory that is asked for beyond it would be refused.
fn stay_in_memory() -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    // What is mapped already is locked as it comes to be used: the program is larger than what is ever run of it.
    mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::from_bits_retain(nix::libc::MCL_ONFAULT))?;
    mlockall(MlockAllFlags::MCL_FUTURE)
}

/// The operating system's randomness. None is fetched ahead: a virtual machine that goes on from a snapshot, twice,
/// would hand out the same bytes again, while its kernel draws anew once it is told (vmgenid).
#[derive(Default)]
pub struct SystemEntropy;

impl ike::Entropy for SystemEntropy {
    fn fill(&mut self, bytes: &mut [u8]) {
        let mut filled = 0;
        while filled < bytes.len() {
            // The call itself: in a static program, crates that look for the C library's function find none, and open
            // /dev/urandom, which an agent that has given up its files (agent/confine) cannot.
            match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                // It cannot fail once the system's pool is ready, and waits until it is. Should it fail all the same,
                // keys must not be made from what happens to be in memory.
                Err(error) => {
                    eprintln!("hostseal: the system gives no randomness: {error}");
                    std::process::abort();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ike::Entropy as _;

    #[test]
    fn no_byte_is_handed_out_twice_or_held_back() {
        assert_eq!(
            size_of::<SystemEntropy>(),
            0,
            "nothing is kept that a copy of this process would have too"
        );
        let mut seen = BTreeSet::new();
        for length in [8, 32, 4, 1024, 2055, 32].into_iter().cycle().take(60) {
            let mut bytes = vec![0; length];
            SystemEntropy.fill(&mut bytes);
            // Four bytes alone can come twice by chance.
            for piece in bytes.chunks_exact(8) {
                assert!(seen.insert(piece.to_vec()), "{piece:x?} came twice");
            }
        }
    }
}
