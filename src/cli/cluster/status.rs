//! `hostseal status --cluster`: a row for each node, as it says itself.

use std::time::Duration;

use super::member::OwnMember;
use super::sheet::Seen;
use crate::cli::args::{Invocation, StatusArgs};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::present::present;
use crate::cli::status::AGAIN;
use crate::observe::cluster::ClusterStatus;

pub(in crate::cli) fn status(invocation: &Invocation, args: &StatusArgs) -> Result<Exit, CommandError> {
    let member = OwnMember::of(invocation)?;
    let names = args.nodes.clone();
    let look = move || only(member.status()?, &names).map(Seen::now);
    present(args, look, |left: Duration, _| std::thread::sleep(left.min(AGAIN)))
}

/// `status` with the rows and problems of the nodes in `names` alone, unless there are none. What it says of all nodes
/// together stays.
pub(super) fn only(mut status: ClusterStatus, names: &[String]) -> Result<ClusterStatus, CommandError> {
    if names.is_empty() {
        return Ok(status);
    }
    let known: Vec<&str> = status.nodes.iter().map(|node| node.name.as_str()).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let message = format!("there is no node \"{unknown}\" in the cluster; it has {}", known.join(", "));
        return Err(CommandError::new(Exit::Usage, message));
    }
    let named = |node: &str| names.iter().any(|name| name == node);
    status.nodes.retain(|node| named(node.name.as_str()));
    status.problems.retain(|problem| problem.node.as_ref().is_none_or(|node| named(node.as_str())));
    Ok(status)
}
