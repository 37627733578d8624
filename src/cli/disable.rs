//! `hostseal disable`: has the agent go back to clear, and follows it.

use std::path::Path;
use std::time::Instant;

use super::args::{DisableArgs, Invocation};
use super::client::{AskError, Client};
use super::exit::{CommandError, Exit};
use super::follow::follow;
use super::present::result;
use super::progress::View;
use super::status::NoAnswer;
use super::term::{print, print_json, tell};
use super::{cluster, context, status};
use crate::config::Config;
use crate::control::Request;
use crate::observe::Progress;
use crate::store::enabled;
use crate::types::{Protection, RowState};

/// What works without an agent.
const FORCE: &str = "; or run `hostseal disable --force`, which needs no agent: it removes everything at once, and \
                     packets under way can be lost";

pub(super) fn run(invocation: &Invocation, args: &DisableArgs) -> Result<Exit, CommandError> {
    if args.cluster {
        return cluster::disable(invocation, args);
    }
    let (config, _) = context::config_at_work(invocation)?;
    let client = context::client(&config);
    if context::is_member(&config) && !invocation.quiet {
        tell(
            "this is about this host alone: where the cluster is protected, the other nodes block what they share \
             with it. `hostseal disable --cluster` takes all nodes back to the clear",
        );
    }
    go_clear(invocation, args, &config, &client)
}

/// Takes the mark away. From now on the state says that protection is off, and the mark is only for when the state is
/// lost.
fn unmark(file: &Path) {
    if let Err(error) = enabled::unmark(file) {
        tell(&format!("{} stays marked as enabled: {error}", file.display()));
    }
}

fn go_clear(
    invocation: &Invocation,
    args: &DisableArgs,
    config: &Config,
    client: &Client,
) -> Result<Exit, CommandError> {
    let deadline = Instant::now() + args.timeout;
    if !client.is_there().map_err(name_force)? {
        return without_agent(&invocation.config, config, args);
    }
    let view = View::new(invocation.quiet);
    let is_off = |progress: &Progress| progress.protection == Protection::Off;
    let ordered = client.order(Request::Disable).inspect(|()| unmark(&invocation.config));
    let status = match ordered.and_then(|()| follow(client, view, RowState::Off, deadline, is_off)) {
        // One that `enable` started ends when it has done this, and may leave us without an answer.
        Err(AskError::NoAgent(_) | AskError::Io { .. }) => {
            return without_agent(&invocation.config, config, args);
        }
        followed => followed.map_err(name_force)?,
    };
    result(&status, args.json)?;
    match status.protection == Protection::Off {
        true => Ok(Exit::Done),
        false => Err(CommandError::new(
            Exit::Degraded,
            "not everything is in the clear yet. The agent goes on; `hostseal status --watch` shows the progress",
        )),
    }
}

/// Names `--force` where the agent does not answer: nobody has to wait for it to go back to the clear.
fn name_force(error: AskError) -> CommandError {
    let silent = matches!(error, AskError::TimedOut { .. } | AskError::Answer(_) | AskError::Mismatch(_));
    let mut failure = CommandError::from(error);
    if silent {
        failure.message += FORCE;
    }
    failure
}

/// Nothing is to be done where nothing of ours is there; else somebody must do it in stages, and that is
/// the agent.
fn without_agent(file: &Path, config: &Config, args: &DisableArgs) -> Result<Exit, CommandError> {
    let off = context::saved(config)?.protection == Protection::Off;
    if !off || status::read_kernel()?.holds_ours() {
        return Err(CommandError::new(
            Exit::NoAgent,
            format!(
                "no agent runs, and without one this host cannot go back to clear without loss. Start one \
                 (`systemctl start hostseal`, or `hostseal agent`) and try again{FORCE}"
            ),
        ));
    }
    unmark(file);
    match args.json {
        true => print_json(&status::from_kernel(file, config, NoAnswer::Gone)?)?,
        false => print("protection off: nothing of hostseal's is in the kernel\n")?,
    };
    Ok(Exit::Done)
}
