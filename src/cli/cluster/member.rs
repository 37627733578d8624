//! This host as a member of its cluster: whom the commands ask.

use std::time::Instant;

use serde::Serialize;

use crate::cli::args::Invocation;
use crate::cli::client::{AskError, Client, mismatch};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::{print, print_json, tell};
use crate::cli::{context, preflight, start};
use crate::config::Config;
use crate::control::{ClusterReply, ClusterRequest};
use crate::observe::cluster::ClusterStatus;

/// What is told on a host that belongs to no cluster.
const NO_MEMBER: &str = "this host belongs to no cluster: `hostseal init NAME` makes one, and `hostseal join TOKEN` \
                         joins one";

/// This host's agent.
pub(super) struct OwnMember {
    pub(super) config: Config,
    pub(super) client: Client,
}

/// What was done, for programs.
#[derive(Serialize)]
struct Done<'n> {
    notes: &'n [String],
}

impl OwnMember {
    pub(super) fn of(invocation: &Invocation) -> Result<Self, CommandError> {
        match context::config_at_work(invocation) {
            Ok((config, _)) => Ok(Self { client: context::client(&config), config }),
            // A file that says what concerns this host alone is no mistake, but for what is missing beside it.
            Err(_) if context::has_no_roster(invocation) => Err(CommandError::new(Exit::Failed, NO_MEMBER)),
            Err(error) => Err(error),
        }
    }

    /// Whether this host belongs to a cluster, as its files say.
    pub(super) fn is_one(&self) -> bool {
        context::is_member(&self.config)
    }

    /// Starts the agent where none runs, and sees to it that one runs after every reboot.
    pub(super) fn start_agent(&self, invocation: &Invocation, deadline: Instant) -> Result<(), CommandError> {
        start::at_boot(invocation)?;
        if self.client.is_there()? {
            return Ok(());
        }
        let node = context::whoami(&self.config, None)?;
        preflight::check(&self.config, node)?;
        preflight::check_port(&self.config, node)?;
        let started = start::start(invocation, &self.config)?;
        if !invocation.quiet {
            tell(&format!("agent {}", started.how));
        }
        start::wait(started, &self.client, deadline)
    }

    /// How the cluster stands.
    pub(super) fn status(&self) -> Result<ClusterStatus, CommandError> {
        self.client.cluster_status().map_err(|error| self.failed(error))
    }

    /// Has the cluster do something, also where this node has heard no other one and may do it `alone`; returns what
    /// follows from it, in words.
    pub(super) fn order(&self, request: ClusterRequest, alone: bool) -> Result<Vec<String>, CommandError> {
        self.client.cluster_order(on_terms(request, alone)).map_err(|error| self.failed(error))
    }

    /// Asks something whose answer `wanted` takes.
    pub(super) fn ask<T>(
        &self,
        request: ClusterRequest,
        wanted: impl FnOnce(ClusterReply) -> Option<T>,
    ) -> Result<T, CommandError> {
        let reply = self.client.cluster(request.clone()).map_err(|error| self.failed(error))?;
        wanted(reply).ok_or_else(|| mismatch(request).into())
    }

    /// What it means that there is no answer.
    fn failed(&self, error: AskError) -> CommandError {
        match error {
            AskError::NoAgent(_) if self.is_one() => CommandError::new(
                Exit::NoAgent,
                format!("{error}: start one (`systemctl start hostseal`, or `hostseal agent`) and try again"),
            ),
            AskError::NoAgent(_) => CommandError::new(Exit::NoAgent, format!("{error}, and {NO_MEMBER}")),
            error => error.into(),
        }
    }
}

/// An order, which counts also where this node has heard no other one if it may do it `alone`.
pub(super) fn on_terms(request: ClusterRequest, alone: bool) -> ClusterRequest {
    if alone { ClusterRequest::Alone(Box::new(request)) } else { request }
}

/// Says what was done, and what follows from it.
pub(super) fn say(json: bool, done: &str, notes: &[String]) -> Result<Exit, CommandError> {
    match json {
        true => print_json(&Done { notes })?,
        false => print(&lines(done, notes))?,
    };
    Ok(Exit::Done)
}

fn lines(done: &str, notes: &[String]) -> String {
    std::iter::once(done).chain(notes.iter().map(String::as_str)).map(|line| format!("{line}\n")).collect()
}
