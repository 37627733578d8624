//! Whom `hostseal prove --cluster` can ask.

use super::member::OwnMember;
use crate::cli::args::Invocation;
use crate::cli::exit::CommandError;
use crate::control::{ClusterReply, ClusterRequest, MemberProofReply, MemberProofRequest};
use crate::observe::cluster::ClusterStatus;
use crate::types::NodeName;

/// How the cluster stands, and which other nodes say that they can prove pairs of theirs.
pub(in crate::cli) fn provers(
    invocation: &Invocation,
) -> Result<(ClusterStatus, Vec<NodeName>), CommandError> {
    let member = OwnMember::of(invocation)?;
    let status = member.status()?;
    let who_can = ClusterRequest::Proofs(MemberProofRequest::WhoCan);
    let can = member.ask(who_can, |reply| match reply {
        ClusterReply::Proofs(MemberProofReply::Can(nodes)) => Some(nodes),
        _ => None,
    })?;
    Ok((status, can))
}
