//! `hostseal enable`: checks, starts the agent where none runs, gives the order, follows it.

use std::collections::BTreeMap;
use std::time::Instant;

use super::args::{EnableArgs, Invocation};
use super::client::AskError;
use super::exit::{CommandError, Exit};
use super::follow::follow;
use super::present::{Shown as _, result};
use super::progress::View;
use super::term::{print, print_json, tell};
use super::{cluster, context, kernel_age, kms, others, preflight, render, ssh, start, status};
use crate::config::{Config, Mode, Node};
use crate::control::Terms;
use crate::observe::status::{Status, Summary};
use crate::observe::{Progress, RowProgress};
use crate::store::credentials;
use crate::types::{Pair, Protection, RowState};

pub(super) fn run(invocation: &Invocation, args: &EnableArgs) -> Result<Exit, CommandError> {
    if args.cluster {
        return cluster::enable(invocation, args);
    }
    let deadline = Instant::now() + args.timeout;
    let config = context::config(invocation)?;
    if args.strict && config.protection.mode == Mode::Prefer {
        return Err(CommandError::new(
            Exit::Usage,
            "--strict blocks hosts that cannot encrypt, but protection.mode = \"prefer\" leaves them in the \
             clear: drop --strict, or set the mode to \"require\"",
        ));
    }
    let saved = context::saved(&config)?;
    let node = context::whoami(&config, saved.node.as_ref())?;
    warn_of_unpaired(&config, node)?;
    credentials::secret_id(&config)?;
    credentials::load(&config, node)?;
    preflight::check(&config, node)?;
    kernel_age::warning().iter().for_each(|words| tell(words));
    if saved.protection == Protection::Off {
        others::check(&config, node)?;
    }
    others::holes(&config, node)?.iter().for_each(|hole| tell(&hole.message));
    status::beside(&config, node).iter().for_each(|problem| tell(&problem.message));
    if let Some(words) = kms::bound(&config).filter(|_| !invocation.quiet) {
        tell(&words);
    }
    start::at_boot(invocation)?;

    // What is on trial, or on already, takes nobody by surprise.
    let surprising = saved.protection == Protection::Off && args.trial.is_none() && !invocation.quiet;
    if let Some(warning) = surprising.then(|| ssh::warning(&config, node)).flatten() {
        tell(&warning);
    }

    let client = context::client(&config);
    let try_s = args.trial.map(|length| length.as_secs());
    loop {
        if !client.is_there()? {
            preflight::check_port(&config, node)?;
            let started = start::start(invocation, &config)?;
            if !invocation.quiet {
                tell(&format!("agent {}", started.how));
            }
            start::wait(started, &client, deadline)?;
        }
        match client.order(Terms { strict: args.strict, try_s }.into()) {
            // It was at the end of a `disable`, and is gone.
            Err(AskError::NoAgent(_)) if Instant::now() < deadline => {}
            done => break done?,
        }
    }
    // A trial becomes permanent once it is confirmed.
    if args.trial.is_none() && saved.trial.is_none() {
        context::mark_enabled(invocation, &node.name);
    }
    if args.no_wait {
        return no_wait(args, client.status()?);
    }

    let (view, mut course) = (View::new(invocation.quiet), Course::new(config.protection.mode));
    let status = follow(&client, view, RowState::Protected, deadline, |progress| course.is_over(progress))
        .map_err(gone)?;
    result(&status, args.json)?;
    if !status.only_waits() {
        return Ok(status.exit());
    }
    if !args.json {
        print(&format!("enabled; waiting for {}\n", render::names(&status.waiting_for)))?;
    }
    Ok(Exit::Waiting)
}

/// Says which nodes this host cannot be protected with, and fails where these are all.
fn warn_of_unpaired(config: &Config, node: &Node) -> Result<(), CommandError> {
    let unpaired = context::unpaired(config, node);
    if unpaired.is_empty() {
        return Ok(());
    }
    let words = context::unpaired_in_words(&unpaired);
    if config.pairs(node).is_empty() {
        return Err(CommandError::new(Exit::Usage, format!("nothing would be protected: {words}")));
    }
    tell(&words);
    Ok(())
}

fn no_wait(args: &EnableArgs, status: Status) -> Result<Exit, CommandError> {
    match args.json {
        true => print_json(&status)?,
        false => print("enabled; `hostseal status --watch` shows the progress\n")?,
    };
    Ok(Exit::Done)
}

/// What the agent has told of the way so far.
pub(super) struct Course {
    mode: Mode,
    rows: BTreeMap<Pair, RowProgress>,
}

impl Course {
    pub(super) fn new(mode: Mode) -> Self {
        Self { mode, rows: BTreeMap::new() }
    }

    /// Whether nothing more can happen without somebody else: each pair is protected, has failed, or waits for
    /// its other host. In mode `prefer` a pair that has come to be in the clear is where it can be.
    pub(super) fn is_over(&mut self, progress: &Progress) -> bool {
        self.rows.extend(progress.rows.iter().map(|row| (row.pair(), row.clone())));
        let Summary { peers, protected, clear, .. } = progress.summary;
        let prefers = self.mode == Mode::Prefer;
        let is_final = |row: &RowProgress| row.is_final() || (prefers && row.state == RowState::Clear);
        // Rows of a node that has left the file meanwhile are not told of any more.
        let over = self.rows.values().all(is_final) || protected + if prefers { clear } else { 0 } == peers;
        over && matches!(progress.protection, Protection::On | Protection::Enabling)
    }
}

/// The agent has taken the order and is gone: the host is somewhere in between.
pub(super) fn gone(error: AskError) -> CommandError {
    match error {
        AskError::NoAgent(_) => CommandError::new(
            Exit::Degraded,
            "the agent ended on the way: see its log; `hostseal status` shows what the kernel holds",
        ),
        error => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ReasonCode;

    fn row(host: u8, state: RowState, reason_code: Option<ReasonCode>, waiting: bool) -> RowProgress {
        RowProgress {
            node: serde_json::from_value("b".into()).unwrap(),
            local: [10, 0, 0, 1].into(),
            remote: [10, 0, 0, host].into(),
            state,
            reason: None,
            reason_code,
            waiting,
        }
    }

    /// Whether `enable` returns where one pair is protected and the other stands so.
    fn returns(mode: Mode, other: RowProgress) -> bool {
        let rows = vec![row(2, RowState::Protected, None, false), other];
        let summary = Summary::of(rows.iter().map(|row| row.state));
        Course::new(mode).is_over(&Progress { revision: 1, protection: Protection::On, summary, rows })
    }

    #[test]
    fn it_returns_when_nothing_more_can_happen_without_others() {
        for mode in [Mode::Require, Mode::Prefer] {
            assert!(returns(mode, row(3, RowState::Protected, None, false)));
            assert!(!returns(mode, row(3, RowState::Negotiating, Some(ReasonCode::InProgress), false)));
            assert!(!returns(mode, row(3, RowState::Blocked, Some(ReasonCode::NoAnswer), false)));
            assert!(!returns(mode, row(3, RowState::Blocked, Some(ReasonCode::Internal), false)));
            assert!(returns(mode, row(3, RowState::Blocked, Some(ReasonCode::NoAnswer), true)));
            assert!(returns(mode, row(3, RowState::Negotiating, Some(ReasonCode::InProgress), true)));
            for code in [ReasonCode::AuthFailed, ReasonCode::EspBlocked, ReasonCode::PeerDisabled] {
                assert!(returns(mode, row(3, RowState::Clear, Some(code), false)), "{code:?}");
            }
        }
        let clear = row(3, RowState::Clear, Some(ReasonCode::NoAnswer), false);
        assert!(!returns(Mode::Require, clear.clone()));
        assert!(returns(Mode::Prefer, clear));
    }

    #[test]
    fn it_remembers_what_it_was_told_before() {
        let mut course = Course::new(Mode::Require);
        let mut tell = |revision, rows: Vec<RowProgress>| {
            let summary = Summary { peers: 2, ..Summary::default() };
            course.is_over(&Progress { revision, protection: Protection::On, summary, rows })
        };
        let moving = row(3, RowState::Negotiating, None, false);
        assert!(!tell(1, vec![row(2, RowState::Clear, Some(ReasonCode::NoAnswer), true), moving]));
        assert!(!tell(2, Vec::new()));
        assert!(tell(3, vec![row(3, RowState::Clear, Some(ReasonCode::NoProposal), false)]));
    }

    /// One that says neither codes nor who is waited for, as agents up to 0.1.0 did.
    #[test]
    fn an_agent_that_tells_less_is_followed_too() {
        let line = |state| {
            let text = format!(
                r#"{{"revision":1,"protection":"on","summary":{{"peers":1,"protected":0,"negotiating":0,"clear":1,
                "blocked":0,"off":0}},"rows":[{{"node":"b","local":"10.0.0.1","remote":"10.0.0.2",
                "state":"{state}","reason":"no answer"}}]}}"#
            );
            serde_json::from_str::<Progress>(&text).unwrap()
        };
        assert!(!Course::new(Mode::Require).is_over(&line("clear")));
        assert!(Course::new(Mode::Prefer).is_over(&line("clear")));
        assert!(Course::new(Mode::Require).is_over(&line("protected")));
    }
}
