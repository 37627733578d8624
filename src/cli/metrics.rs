//! `hostseal metrics`: what the exporter says, once.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::args::{Invocation, MetricsArgs};
use super::client::{AskError, Client};
use super::exit::{CommandError, Exit};
use super::term::print;
use crate::observe::{Figures, metrics};
use crate::store::{Places, publish};

pub(super) fn run(invocation: &Invocation, args: &MetricsArgs) -> Result<Exit, CommandError> {
    let client = Client::new(onlookers_socket(invocation, args.socket.as_deref()));
    let text = match ask(&client, None)? {
        AgentWord::Figures(figures) => metrics::text(&figures),
        AgentWord::Nothing | AgentWord::Ended => metrics::away(None),
    };
    match &args.out {
        Some(file) => publish::replace(file, text.as_bytes())
            .map_err(|error| CommandError::io(format!("writing {}", file.display()), &error))?,
        None => drop(print(&text)?),
    }
    Ok(Exit::Done)
}

/// The agent's socket for onlookers. An onlooker need not be able to read the configuration.
pub(super) fn onlookers_socket(invocation: &Invocation, given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| Places::of(&invocation.config).status_socket_path(), Path::to_owned)
}

/// What the agent says.
pub(super) enum AgentWord {
    /// How things stand.
    Figures(Box<Figures>),
    /// Nothing. If it has ended, the kernel goes on with what it has.
    Nothing,
    /// Nothing, as it has gone back to the clear and ended, or has not been there since the system was started.
    Ended,
}

/// What the agent says, of its pairs as [`Client::figures`] takes it.
pub(super) fn ask(client: &Client, pairs: Option<bool>) -> Result<AgentWord, AskError> {
    match client.figures(pairs) {
        Ok(figures) => Ok(AgentWord::Figures(Box::new(figures))),
        Err(AskError::NoAgent(_)) if !client.is_socket_there() => Ok(AgentWord::Ended),
        Err(AskError::NoAgent(_) | AskError::TimedOut { .. }) => Ok(AgentWord::Nothing),
        Err(error) => Err(error),
    }
}

/// What a configuration says, where this process can read it.
pub(super) fn readable(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied].contains(&error.kind()) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
