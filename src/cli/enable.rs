//! `hostseal enable`: checks, starts the agent where none runs, gives the order, follows it.

use std::time::Instant;

use super::args::{EnableArgs, Invocation};
use super::client::AskError;
use super::exit::{Exit, Failure};
use super::follow::follow;
use super::progress::View;
use super::term::{Style, print, print_json, tell};
use super::{context, interfaces, preflight, render, ssh, start, status};
use crate::model::config::Mode;
use crate::model::control::Terms;
use crate::model::status::{Protection, RowState, Summary};
use crate::model::{Progress, Status};

pub(super) fn run(invocation: &Invocation, args: &EnableArgs) -> Result<Exit, Failure> {
    let deadline = Instant::now() + args.timeout;
    let config = context::config(invocation)?;
    if args.strict && config.protection.mode == Mode::Prefer {
        return Err(Failure::new(
            Exit::Usage,
            "--strict blocks whoever cannot encrypt, and protection.mode = \"prefer\" lets him stay in the \
             clear: leave --strict away, or set the mode to \"require\"",
        ));
    }
    let saved = context::saved(&config)?;
    let node = context::whoami(&config, saved.node.as_ref())?;
    config.load_secrets()?;
    config.load_credentials(node)?;
    preflight::check(&config, node)?;
    interfaces::holes().iter().for_each(|hole| tell(hole));
    start::at_boot(invocation)?;

    // What is on trial, or on already, takes nobody by surprise.
    let surprising = saved.protection == Protection::Off && args.trial.is_none() && !invocation.quiet;
    if let Some(warning) = surprising.then(|| ssh::warning(&config, node)).flatten() {
        tell(&warning);
    }

    let client = context::client(&config);
    if !client.is_there()? {
        preflight::check_port(&config, node)?;
        let started = start::start(invocation, &config)?;
        if !invocation.quiet {
            tell(&format!("agent {}", started.how));
        }
        start::wait(started, &client, deadline)?;
    }
    let try_s = args.trial.map(|length| length.as_secs());
    client.order(Terms { strict: args.strict, try_s }.into())?;
    if args.no_wait {
        return no_wait(args, client.status()?);
    }

    let (view, mode) = (View::new(invocation.quiet), config.protection.mode);
    let status = follow(&client, view, RowState::Protected, deadline, |progress| is_there(progress, mode))
        .map_err(gone)?;
    match args.json {
        true => print_json(&status)?,
        false => print(&render::status(&status, render::Extent::default(), Style::of_stdout()))?,
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

/// Whether the agent has come where `enable` leads to. In mode `prefer` a pair that has come to be in the
/// clear is where it can be; the exit status says that it is not protected.
fn is_there(progress: &Progress, mode: Mode) -> bool {
    let Summary { peers, protected, clear, .. } = progress.summary;
    let clear = if mode == Mode::Prefer { clear } else { 0 };
    matches!(progress.protection, Protection::On | Protection::Enabling) && protected + clear == peers
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_for_every_pair_and_in_prefer_for_a_definite_answer_at_least() {
        let there = |mode, summary| {
            let (protection, rows) = (Protection::On, Vec::new());
            is_there(&Progress { revision: 1, protection, summary, rows }, mode)
        };
        let summary = Summary { peers: 2, protected: 1, ..Summary::default() };
        let clear = Summary { clear: 1, ..summary };
        assert!(!there(Mode::Require, clear));
        assert!(there(Mode::Prefer, clear));
        for mode in [Mode::Require, Mode::Prefer] {
            assert!(there(mode, Summary { protected: 2, ..summary }));
            assert!(!there(mode, Summary { negotiating: 1, ..summary }));
            assert!(!there(mode, Summary { blocked: 1, ..summary }));
        }
    }
}
