//! What a helper does about its memory before it hears anything: it will hold a secret.

use std::io;

use nix::libc::MCL_ONFAULT;
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

/// Lets nobody look into this process for good: not its user, and not by a core file. The runner cannot do it for a
/// helper, as the kernel forgets it with each program that is started.
///
/// # Errors
/// The system refuses.
pub fn forbid_dumps() -> io::Result<()> {
    prctl::set_dumpable(false)?;
    Ok(forbid_core_files()?)
}

/// Forbids core files for good, to all programs that this process becomes or starts.
///
/// # Errors
/// The system refuses.
pub fn forbid_core_files() -> nix::Result<()> {
    // With a limit of 0, the kernel still hands a dump to a program where core_pattern names one. With 1 it does not.
    // Whoever has a hard limit of 0 cannot raise it without root's powers.
    setrlimit(Resource::RLIMIT_CORE, 1, 1).or_else(|_| setrlimit(Resource::RLIMIT_CORE, 0, 0))
}

/// Keeps all memory of this process out of swap, now and later, as it comes to be used.
///
/// # Errors
/// There is a limit of locked memory (RLIMIT_MEMLOCK) that this process cannot lift. Nothing is locked then: memory that is
/// asked for beyond it would be refused.
pub fn lock_memory() -> io::Result<()> {
    setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)?;
    let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
    Ok(mlockall(all | MlockAllFlags::from_bits_retain(MCL_ONFAULT))?)
}
