//! `hostseal enable`: checks, starts the agent where none runs, gives the order, follows it.

use std::time::Instant;

use super::args::{EnableArgs, Invocation};
use super::client::AskError;
use super::exit::{Exit, Failure};
use super::follow::follow;
use super::progress::View;
use super::term::{Style, print, print_json, tell};
use super::{context, preflight, render, start, status};
use crate::model::control::Terms;
use crate::model::status::{Protection, RowState};
use crate::model::{Progress, Status};

pub(super) fn run(invocation: &Invocation, args: &EnableArgs) -> Result<Exit, Failure> {
    let deadline = Instant::now() + args.timeout;
    let config = context::config(invocation)?;
    let saved = context::saved(&config)?;
    let node = context::whoami(&config, saved.node.as_ref())?;
    config.load_secret()?;
    preflight::check(&config, node)?;

    let client = context::client(&config);
    if !client.is_there()? {
        preflight::check_port(&config, node)?;
        let started = start::start(invocation, &config)?;
        if !invocation.quiet {
            tell(&format!("agent {}", started.how));
        }
        start::wait(started, &client, deadline)?;
    }
    client.order(Terms { strict: args.strict }.into())?;
    if args.no_wait {
        return no_wait(args, client.status()?);
    }

    let view = View::new(invocation.quiet);
    let status = follow(&client, view, RowState::Protected, deadline, is_protected).map_err(gone)?;
    match args.json {
        true => print_json(&status)?,
        false => print(&render::status(&status, false, Style::of_stdout()))?,
    };
    Ok(status::exit_of(&status))
}

fn no_wait(args: &EnableArgs, status: Status) -> Result<Exit, Failure> {
    match args.json {
        true => print_json(&status)?,
        false => print("protection is wanted from now on; `hostseal status --watch` follows it\n")?,
    };
    Ok(Exit::Done)
}

/// Whether the agent has come where `enable` leads to.
fn is_protected(progress: &Progress) -> bool {
    matches!(progress.protection, Protection::On | Protection::Enabling)
        && progress.summary.protected == progress.summary.peers
}

/// An agent that has taken the order and then is gone leaves the host in between.
fn gone(error: AskError) -> Failure {
    match error {
        AskError::NoAgent(_) => Failure::new(
            Exit::Degraded,
            "the agent ended on the way: see its log; `hostseal status` shows what the kernel holds",
        ),
        error => error.into(),
    }
}
