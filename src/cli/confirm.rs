//! `hostseal confirm`: keeps what `enable --try` would take back.

use super::args::{ConfirmArgs, Invocation};
use super::exit::{CommandError, Exit};
use super::term::print;
use super::{cluster, context};
use crate::control::Request;

pub(super) fn run(invocation: &Invocation, args: &ConfirmArgs) -> Result<Exit, CommandError> {
    if args.cluster {
        return cluster::confirm(invocation, args);
    }
    // A trial goes on by the configuration in force, whatever has become of the file.
    let (config, _) = context::config_at_work(invocation)?;
    let client = context::client(&config);
    let status = client.status()?;
    let on_trial = status.try_ends_in_s.is_some();
    client.order(Request::Confirm)?;
    status.node.iter().for_each(|node| context::mark_enabled(invocation, node));
    print(match on_trial {
        true => "confirmed: protection stays\n",
        false => "nothing to confirm: protection is on for good already\n",
    })?;
    Ok(Exit::Done)
}
