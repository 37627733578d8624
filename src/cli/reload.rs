//! `hostseal reload`: has the agent take its files as they are now.

use super::args::Invocation;
use super::context;
use super::exit::{CommandError, Exit};
use super::term::print;

pub(super) fn run(invocation: &Invocation) -> Result<Exit, CommandError> {
    let (config, _) = context::config_at_work(invocation)?;
    let changes = context::client(&config).reload()?;
    match changes.as_slice() {
        [] => print("nothing has changed\n")?,
        changes => print(&(changes.join("\n") + "\n"))?,
    };
    Ok(Exit::Done)
}
