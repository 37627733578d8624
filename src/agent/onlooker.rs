//! What a process becomes that only looks at a host: nobody, with no powers, who may ask the agent.

use std::path::PathBuf;

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, getuid, setgroups, setresgid, setresuid};

use super::confine::{Role, confine};
use super::group;

/// The user and the group who have nothing (user "nobody").
const NOBODY: u32 = 65_534;

/// Gives up root, where this process has it, and everything that it does not need to look, for good. It goes on to write in
/// the directory `writes`. Call it before the first thread.
///
/// # Errors
/// It would stay root.
pub fn become_onlooker(writes: Option<PathBuf>) -> anyhow::Result<()> {
    if getuid().is_root() {
        let group = Gid::from_raw(group::of_onlookers().unwrap_or(NOBODY));
        setgroups(&[]).context("cannot give up root's groups")?;
        setresgid(group, group, group).context("cannot give up root's group")?;
        let nobody = Uid::from_raw(NOBODY);
        setresuid(nobody, nobody, nobody).context("cannot give up root")?;
    }
    confine(Role::Onlooker(writes));
    Ok(())
}
