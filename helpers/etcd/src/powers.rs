//! What this process gives up for good before it hears anything: root, all powers, and to be looked into.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;

use anyhow::{Context as _, ensure};
use caps::CapSet;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{User, getuid, setgroups, setresgid, setresuid};

/// The socket that whoever has started this has given as standard input.
///
/// # Errors
/// There is none.
pub fn standard_input() -> io::Result<UnixListener> {
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.local_addr()?;
    Ok(listener)
}

/// Becomes `user`, where one is named, and nobody with any power in any case.
///
/// # Errors
/// There is no such user, the system refuses, or this would stay root.
pub fn give_up(user: Option<&str>) -> anyhow::Result<()> {
    // It will hold a private key.
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_no_new_privs()?;
    let all = caps::read(None, CapSet::Bounding)?;
    if caps::has_cap(None, CapSet::Effective, caps::Capability::CAP_SETPCAP)? {
        all.into_iter().try_for_each(|one| caps::drop(None, CapSet::Bounding, one))?;
    }
    if let Some(name) = user {
        let found = User::from_name(name)?.with_context(|| format!("there is no user {name}"))?;
        setgroups(&[]).context("only root can become somebody else")?;
        setresgid(found.gid, found.gid, found.gid)?;
        setresuid(found.uid, found.uid, found.uid)?;
    }
    // What a service manager has left out is not given up again: its filter may refuse the call.
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        if !caps::read(None, set)?.is_empty() {
            caps::clear(None, set)?;
        }
    }
    prctl::set_dumpable(false)?;
    ensure!(!getuid().is_root(), "this does not run as root: say --user NAME, or have systemd start it");
    Ok(())
}
