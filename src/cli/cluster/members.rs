//! `hostseal add`, `move`, `remove`, `leave` and `admin`: who belongs to the cluster, where, and who may decide that.

use super::begin::read_secret_line;
use super::member::{OwnMember, say};
use crate::cli::args::{AddArgs, AdminCommand, Invocation, LeaveArgs, MoveNodeArgs, RemoveArgs};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::render::names;
use crate::control::{AddOrder, ClusterRequest, MoveOrder, SecretLine};

pub(in crate::cli) fn add(invocation: &Invocation, args: &AddArgs) -> Result<Exit, CommandError> {
    let done =
        format!("added {} ({}), which proves itself with its public key", args.node, names(&args.addresses));
    let order = AddOrder {
        node: args.node.clone(),
        addresses: args.addresses.clone(),
        public_key: args.public_key.clone(),
    };
    let notes = OwnMember::of(invocation)?.order(ClusterRequest::Add(order), args.order.alone)?;
    say(args.order.json, &done, &notes)
}

pub(in crate::cli) fn relocate(invocation: &Invocation, args: &MoveNodeArgs) -> Result<Exit, CommandError> {
    let MoveNodeArgs { node, addresses, order } = args;
    let done =
        format!("{node} is at {} from now on: the nodes go by that as they hear of it", names(addresses));
    let request = ClusterRequest::Move(MoveOrder { node: node.clone(), addresses: addresses.clone() });
    let notes = OwnMember::of(invocation)?.order(request, order.alone)?;
    say(order.json, &done, &notes)
}

pub(in crate::cli) fn remove(invocation: &Invocation, args: &RemoveArgs) -> Result<Exit, CommandError> {
    let RemoveArgs { node, address, compromised, recovery_key, order } = args;
    let done = match compromised {
        false => format!("removed {node}: the other nodes drop it as they hear of it"),
        true => format!("removed {node}: the other nodes drop it and block its addresses as they hear of it"),
    };
    let request = ClusterRequest::Remove { node: node.clone(), address: *address, compromised: *compromised };
    let request = signed(request, *recovery_key)?;
    let notes = OwnMember::of(invocation)?.order(request, order.alone)?;
    say(order.json, &done, &notes)
}

pub(in crate::cli) fn leave(invocation: &Invocation, args: &LeaveArgs) -> Result<Exit, CommandError> {
    let notes = OwnMember::of(invocation)?.order(ClusterRequest::Leave, args.order.alone)?;
    say(args.order.json, "this node has left its cluster", &notes)
}

pub(in crate::cli) fn admin(invocation: &Invocation, command: &AdminCommand) -> Result<Exit, CommandError> {
    let (args, admin) = match command {
        AdminCommand::Add(args) => (args, true),
        AdminCommand::Remove(args) => (args, false),
    };
    let done = match admin {
        true => format!("{} is an admin", args.node),
        false => format!("{} is no admin any more", args.node),
    };
    let request = signed(ClusterRequest::Admin { node: args.node.clone(), admin }, args.recovery_key)?;
    let notes = OwnMember::of(invocation)?.order(request, args.order.alone)?;
    say(args.order.json, &done, &notes)
}

/// The request, signed with the recovery key where that is to be.
fn signed(order: ClusterRequest, by_recovery_key: bool) -> Result<ClusterRequest, CommandError> {
    if !by_recovery_key {
        return Ok(order);
    }
    let key = read_secret_line("the recovery key")?;
    Ok(ClusterRequest::Recovered { key: SecretLine(key.trim().to_owned()), order: Box::new(order) })
}
