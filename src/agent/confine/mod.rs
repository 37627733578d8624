//! What the agent, and the process that keeps its sockets, give up for good before they hear anything from
//! outside: root's powers but two, files but their own, system calls but those that they use. Whoever takes such a
//! process over gets no more than that. It is the process itself that does it, so it holds wherever it was started.
//!
//! Where a kernel lacks one of these, the log says so once, and the agent goes on: it protects the host, and the
//! limits protect the agent.
//!
//! A helper is another program, and gives up less: see [`confine_helper`].
//!
//! To give the agent something more: a file to read or write is one line in [`files`], a system call one in [`calls`].

mod calls;
mod files;
mod forbidden;
mod powers;

use std::path::PathBuf;

pub(super) use files::Reach;

/// What a process needs to go on with.
pub(super) enum Role {
    /// The agent, and what it reads and writes.
    Agent {
        /// The directories that it writes in.
        write: Vec<PathBuf>,
        /// The files that it reads, which may be replaced by others of their names.
        read: Vec<PathBuf>,
    },
    /// What keeps sockets: it opens nothing.
    Keeper,
    /// What only looks, and the directory in which it remembers what it saw.
    Onlooker(Option<PathBuf>),
}

/// Gives up everything else. It is for this thread and for those that it starts from now on: call it before the first.
pub(super) fn confine(role: Role) -> Reach {
    let (powers, reach) = match role {
        Role::Agent { write, read } => (powers::AGENT, Reach::new(write, &read)),
        Role::Keeper => (powers::NONE, Reach::new(Vec::new(), &[])),
        Role::Onlooker(write) => (powers::NONE, Reach::new(write.into_iter().collect(), &[])),
    };
    if let Err(error) = powers::keep(powers) {
        tracing::warn!("could not give up root's capabilities: {error}");
    }
    let reach = reach.enforce();
    if let Err(error) = calls::keep() {
        tracing::warn!("could not limit the agent's system calls (seccomp): {error}");
    }
    reach
}

/// Gives up what no helper needs: all powers, what a program that is started could bring back, and the system calls in
/// [`forbidden`]. A kernel without seccomp runs helpers all the same: without their answers this host would be cut off.
///
/// # Errors
/// The kernel refuses.
pub(super) fn confine_helper() -> anyhow::Result<()> {
    powers::keep(powers::NONE)?;
    if let Err(error) = forbidden::keep_from() {
        eprintln!("hostseal: could not limit the helper's system calls (seccomp): {error}");
    }
    Ok(())
}
