//! `hostseal doctor --cluster`: what the checks of the other nodes find, as each says itself.

use super::member::OwnMember;
use crate::cli::args::Invocation;
use crate::cli::exit::CommandError;
use crate::control::{ClusterReply, ClusterRequest};
use crate::observe::cluster::MemberRow;
use crate::observe::doctor::{Check, of_member};
use crate::types::generation::VERSION;

/// The checks of all other nodes, or of the one called `only`. Nodes that run other software are asked nothing.
pub(in crate::cli) fn doctor(
    invocation: &Invocation,
    only: Option<&str>,
) -> Result<Vec<Check>, CommandError> {
    let member = OwnMember::of(invocation)?;
    let status = member.status()?;
    let said = member.ask(ClusterRequest::Checks, |reply| match reply {
        ClusterReply::Checks(said) => Some(said),
        _ => None,
    })?;
    let own = status.nodes.iter().find(|row| status.node.as_ref() == Some(&row.name));
    let version = own.and_then(|row| row.version.as_deref()).unwrap_or(VERSION);
    let is_other = |row: &&MemberRow| {
        status.node.as_ref() != Some(&row.name)
            && !row.foreign
            && only.is_none_or(|only| only == row.name.as_str())
    };
    let of = |row: &MemberRow| {
        let said = said.iter().find(|said| said.node == row.name).map(|said| &said.checks);
        of_member(row, said, version)
    };
    Ok(status.nodes.iter().filter(is_other).flat_map(of).collect())
}
