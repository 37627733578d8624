//! `hostseal metrics`: what the exporter says, once.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::args::{Invocation, MetricsArgs};
use super::client::{AskError, Client};
use super::context;
use super::exit::{CommandError, Exit};
use super::status::{NoAnswer, from_kernel};
use super::term::print;
use crate::observe::metrics::LastKnown;
use crate::observe::{Figures, metrics};
use crate::store::{Places, config_file, enabled, publish};
use crate::types::Protection;

pub(super) fn run(invocation: &Invocation, args: &MetricsArgs) -> Result<Exit, CommandError> {
    let client = Client::new(onlookers_socket(invocation, args.socket.as_deref()));
    let text = match ask(&client, None)? {
        AgentWord::Figures(figures) => metrics::text(&figures),
        AgentWord::Nothing | AgentWord::Ended => metrics::away(without_agent(&invocation.config).as_ref()),
    };
    match &args.out {
        Some(file) => publish::replace(file, text.as_bytes())
            .map_err(|error| CommandError::io(format!("writing {}", file.display()), &error))?,
        None => drop(print(&text)?),
    }
    Ok(Exit::Done)
}

/// What is still true without an agent: what the kernel holds, where this process may read it, or else what the files say.
/// `None` where neither is known.
fn without_agent(file: &Path) -> Option<LastKnown> {
    let (config, _) = config_file::load_or_last_good(file).ok()?;
    match from_kernel(file, &config, NoAnswer::Gone) {
        Ok(status) => Some(LastKnown::from(&status)),
        Err(_) => by_files(file),
    }
}

/// What the configuration in `file` and the mark beside it say of a host: whether it is to be protected, and not what its
/// kernel holds. `None` where that is not known: a member of a cluster with a roster may be enabled without the mark.
pub(super) fn by_files(file: &Path) -> Option<LastKnown> {
    let (config, _) = config_file::load_or_last_good(file).ok()?;
    let protection = match enabled::is_marked(file) {
        true => Protection::On,
        false if context::is_member(&config) => return None,
        false => Protection::Off,
    };
    let node = context::whoami(&config, None).ok().map(|node| node.name.clone());
    let mode = config.protection.mode;
    Some(LastKnown { cluster: config.cluster, node, mode, protection, keys: None })
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
