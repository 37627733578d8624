//! Hidden: the names of the nodes, for the completion scripts.

use super::args::Invocation;
use super::context;
use super::exit::{CommandError, Exit};
use super::term::print;

pub(super) fn run(invocation: &Invocation) -> Result<Exit, CommandError> {
    let (config, _) = context::config_at_work(invocation)?;
    print(&config.nodes.iter().map(|node| format!("{}\n", node.name)).collect::<String>())?;
    Ok(Exit::Done)
}
