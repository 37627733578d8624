//! This host as a member of its cluster: whom the commands ask.

use serde::Serialize;

use crate::cli::args::Invocation;
use crate::cli::client::{AskError, Client, mismatch};
use crate::cli::context;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::{print, print_json};
use crate::config::Config;
use crate::control::{ClusterReply, ClusterRequest};
use crate::observe::cluster::ClusterStatus;

/// This host's agent.
pub(super) struct Member {
    pub(super) config: Config,
    pub(super) client: Client,
}

/// What was done, for programs.
#[derive(Serialize)]
struct Done<'n> {
    notes: &'n [String],
}

impl Member {
    pub(super) fn of(invocation: &Invocation) -> Result<Self, CommandError> {
        let (config, _) = context::config_at_work(invocation)?;
        let client = context::client(&config);
        Ok(Self { config, client })
    }

    /// Whether this host belongs to a cluster, as its files say.
    pub(super) fn is_one(&self) -> bool {
        context::is_member(&self.config)
    }

    /// How the cluster stands.
    pub(super) fn status(&self) -> Result<ClusterStatus, CommandError> {
        self.client.cluster_status().map_err(|error| self.failed(error))
    }

    /// Has the cluster do something; returns what follows from it, in words.
    pub(super) fn order(&self, request: ClusterRequest) -> Result<Vec<String>, CommandError> {
        self.client.cluster_order(request).map_err(|error| self.failed(error))
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
            AskError::NoAgent(_) => CommandError::new(
                Exit::NoAgent,
                format!(
                    "{error}, and this host belongs to no cluster: `hostseal init NAME` makes one, and \
                     `hostseal join TOKEN` joins one"
                ),
            ),
            error => error.into(),
        }
    }
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
