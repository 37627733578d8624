//! `hostseal status`: from the agent, or from the kernel where none runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use super::args::{Invocation, StatusArgs};
use super::client::{AskError, Client, STATUS_PATIENCE};
use super::exit::{CommandError, Exit};
use super::present::present;
use super::remembered::Remembered;
use super::{cluster, context, others};
use crate::config::{Config, Node};
use crate::machine::{self, Network, present_addresses};
use crate::observe::status::{self, Agent, Evidence, Status, Summary};
use crate::observe::{client_ports, forwarding, sources, unpaired, ways_out};
use crate::store::credentials;
use crate::types::{KernelState, Problem, Protection, UnixTime, WaysOut};
use crate::xfrm::{self, Tables};

/// How often `--wait` looks at most.
pub(super) const AGAIN: Duration = Duration::from_millis(250);

pub(super) fn run(invocation: &Invocation, args: &StatusArgs) -> Result<Exit, CommandError> {
    match args.cluster {
        true => cluster::status(invocation, args),
        false => of_host(invocation, args).map_err(|failure| ask_for_root("hostseal status", failure)),
    }
}

/// Adds what to do where `command` was not permitted.
pub(super) fn ask_for_root(command: &str, failure: CommandError) -> CommandError {
    match failure.exit {
        Exit::NotPermitted => CommandError::new(
            Exit::NotPermitted,
            format!(
                "only root may ask the agent and read the kernel's IPsec tables: `sudo {command}` ({})",
                failure.message
            ),
        ),
        _ => failure,
    }
}

fn of_host(invocation: &Invocation, args: &StatusArgs) -> Result<Exit, CommandError> {
    let (look, mut news) = following(invocation, &args.nodes)?;
    present(args, look, move |left, answered| news.wait(left, answered))
}

/// How to look at this host's pairs with the nodes in `names`, or at all of them, and how to wait for news of them.
pub(super) fn following(
    invocation: &Invocation,
    names: &[String],
) -> Result<(impl Fn() -> Result<Status, CommandError> + use<>, AgentNews), CommandError> {
    let (config, broken) = context::config_at_work(invocation)?;
    check_names(&config, names)?;
    let news = AgentNews { client: context::client(&config), revision: 0 };
    let (file, names) = (invocation.config.clone(), names.to_vec());
    let look = move || {
        let status = read(&file, &config)?;
        refuse_own_name(&status, &names)?;
        let mut status = only(status, &names);
        status.config_error = status.config_error.or_else(|| broken.as_ref().map(ToString::to_string));
        Ok(status)
    };
    Ok((look, news))
}

/// Waits until the agent tells that something has changed: to ask for a whole status of thousands of pairs costs much.
pub(super) struct AgentNews {
    client: Client,
    /// The last revision that it told of.
    revision: u64,
}

impl AgentNews {
    /// Waits for news, but no longer than `left` or until it is time to look again. An agent that does not answer is not
    /// asked: it would keep us waiting for longer than that.
    pub(super) fn wait(&mut self, left: Duration, answering: bool) {
        let started = Instant::now();
        if answering && let Ok(progress) = self.client.follow(self.revision, left) {
            self.revision = progress.revision;
        }
        // So that nobody asks without a pause where no agent runs, or where it has news all the time.
        std::thread::sleep(left.min(AGAIN).saturating_sub(started.elapsed()));
    }
}

/// How things stand now.
pub(super) fn read(file: &Path, config: &Config) -> Result<Status, CommandError> {
    match context::client(config).status_within(STATUS_PATIENCE) {
        Ok(mut status) => {
            if status.config_id != config.config_id() && status.config_error.is_none() {
                status.notes.push(format!(
                    "the file has changed (its config id is {}) and the agent has not taken it yet: \
                     `hostseal reload`",
                    config.config_id()
                ));
            }
            Ok(status)
        }
        Err(AskError::NoAgent(_)) => from_kernel(file, config, NoAnswer::Gone),
        Err(AskError::TimedOut { pid, .. }) => from_kernel(file, config, NoAnswer::Hangs(pid)),
        Err(error) => Err(error.into()),
    }
}

/// Why no agent says how things stand.
pub(super) enum NoAnswer {
    /// None runs.
    Gone,
    /// One runs and does not answer; its process, where that is known.
    Hangs(Option<i32>),
}

/// How things stand as far as the kernel and the files say it.
pub(super) fn from_kernel(file: &Path, config: &Config, no_answer: NoAnswer) -> Result<Status, CommandError> {
    let remembered = Remembered::load(file, config)?;
    let node = context::whoami(config, remembered.saved.node.as_ref())?;
    let mut notes = Vec::new();
    let kernel = match read_kernel() {
        Ok(kernel) => kernel,
        // Nothing is expected to be there, and a kernel without IPsec can hold nothing.
        Err(failure) if remembered.saved.protection == Protection::Off && failure.exit == Exit::Failed => {
            notes.push(failure.message);
            KernelState::default()
        }
        Err(failure) => return Err(failure),
    };
    let Remembered { saved, problem, remedy } = remembered.seen_beside(&kernel);
    let statistics = xfrm::statistics().unwrap_or_else(|error| {
        notes.push(format!("the kernel's XFRM counters cannot be read: {error}"));
        BTreeMap::new()
    });
    let secret_id = credentials::secret_id(config).map(|secret| secret.map(|id| id.to_string()));
    notes.extend(secret_id.as_ref().err().map(ToString::to_string));
    let present =
        present_addresses().map_err(|error| CommandError::io("listing this host's addresses", &error))?;
    let mut found: Vec<Problem> = problem.into_iter().collect();
    if saved.protection != Protection::Off {
        found.extend(beside(config, node));
        found.extend(others::holes(config, node)?);
        found.extend(others::dropped_by_default()?);
    }
    let boot = machine::boot().ok();
    let evidence = Evidence {
        now: UnixTime::from(SystemTime::now()),
        config,
        config_id: &config.config_id(),
        node,
        secret_id: secret_id.as_ref().ok().and_then(Option::as_deref),
        present: &present,
        kernel: kernel.sight(),
        statistics: &statistics,
        saved: &saved,
        totals: &saved.pairs,
        agent: match no_answer {
            NoAnswer::Gone => Agent::Gone { remedy, boot: boot.as_ref() },
            NoAnswer::Hangs(pid) => {
                let pid = pid.and_then(|pid| u32::try_from(pid).ok());
                Agent::Hangs { pid, patience: STATUS_PATIENCE, boot: boot.as_ref() }
            }
        },
    };
    let mut status = status::status(evidence, found);
    // What kept some of it from being read comes first.
    notes.append(&mut status.notes);
    Ok(Status { notes, ..status })
}

/// What goes on beside the pairs of `node` that its operator should know.
pub(super) fn beside(config: &Config, node: &Node) -> Vec<Problem> {
    // On another host, or before there is a network, nothing can be told.
    if context::missing_addresses(node).is_ok_and(|missing| missing.len() == node.addresses.len()) {
        return Vec::new();
    }
    let Ok(mut network) = Network::open() else { return Vec::new() };
    let sources = network.sources(&sources::remotes(config, node));
    let ways = WaysOut { sources, vrfs: network.vrfs().unwrap_or_default() };
    let mut problems = ways_out::problems(config, node, &ways);
    problems
        .extend(machine::first_client_port().and_then(|first| client_ports::problem(config, node, first)));
    problems.extend(forwarding::problem(config, node, &machine::forwarding(&mut network)));
    problems.extend(present_addresses().ok().and_then(|present| unpaired::problem(config, node, &present)));
    problems
}

/// What the kernel holds.
pub(super) fn read_kernel() -> Result<KernelState, CommandError> {
    let mut kernel =
        Tables::open().map_err(|error| CommandError::io("opening the kernel's IPsec tables", &error))?;
    Ok(kernel.read()?)
}

pub(super) fn check_names(config: &Config, names: &[String]) -> Result<(), CommandError> {
    let floating = config.floating.iter().map(|floating| floating.name.as_str());
    let known: Vec<&str> = config.nodes.iter().map(|node| node.name.as_str()).chain(floating).collect();
    let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) else { return Ok(()) };
    let message = format!("there is no node \"{unknown}\"; the file lists {}", known.join(", "));
    Err(CommandError::new(Exit::Usage, message))
}

/// Pairs are named by their other host: there are none with this one.
fn refuse_own_name(status: &Status, names: &[String]) -> Result<(), CommandError> {
    match names.iter().find(|name| status.node.as_ref().is_some_and(|node| node.as_str() == **name)) {
        None => Ok(()),
        Some(own) => {
            let message = format!("{own} is this host: `hostseal status` shows all its pairs");
            Err(CommandError::new(Exit::Usage, message))
        }
    }
}

/// `status` with the rows of the nodes in `names` alone, unless there are none.
pub(super) fn only(mut status: Status, names: &[String]) -> Status {
    if !names.is_empty() {
        status.peers.retain(|row| names.iter().any(|name| name == row.node.as_str()));
        status.summary = Summary::of_rows(&status.peers);
        status.waiting_for.retain(|node| names.iter().any(|name| name == node.as_str()));
    }
    status
}
