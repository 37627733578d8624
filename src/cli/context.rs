//! What most commands need: the configuration, and who this host is in it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::SystemTime;

use crate::config::{Config, ConfigError, Node};
use crate::machine::{named_node, own_addresses};
use crate::store::{ClusterFiles, Places, Saved, config_file, enabled};
use crate::types::NodeName;

use super::args::Invocation;
use super::client::Client;
use super::exit::CommandError;
use super::render;
use super::term::tell;

/// Reads the configuration that the command line names.
pub(super) fn config(invocation: &Invocation) -> Result<Config, CommandError> {
    Ok(config_file::load(&invocation.config)?.at(SystemTime::now().into()))
}

/// The same for commands about a host at work: if the file is broken, the copy that an agent goes on with, and what is
/// wrong with the file.
pub(super) fn config_at_work(invocation: &Invocation) -> Result<(Config, Option<ConfigError>), CommandError> {
    let (config, broken) = config_file::load_or_last_good(&invocation.config)?;
    Ok((config.at(SystemTime::now().into()), broken))
}

/// The agent of `config`.
pub(super) fn client(config: &Config) -> Client {
    Client::new(config.socket_path())
}

/// Which node of `config` this host is. `remembered` is what the agent once found, for a host whose
/// addresses are not there.
pub(super) fn whoami<'c>(
    config: &'c Config,
    remembered: Option<&NodeName>,
) -> Result<&'c Node, CommandError> {
    Ok(config.whoami(&addresses()?, named_node().as_deref(), remembered)?)
}

/// The addresses of `node` that this host does not have now.
pub(super) fn missing_addresses(node: &Node) -> Result<Vec<IpAddr>, CommandError> {
    let own = addresses()?;
    Ok(node.own_addresses().filter(|address| !own.contains(address)).collect())
}

/// The other nodes that `node` has no pair with.
pub(super) fn unpaired(config: &Config, node: &Node) -> Vec<NodeName> {
    let paired: BTreeSet<NodeName> = config.pairs(node).into_iter().map(|(other, _)| other).collect();
    let others = config.nodes.iter().map(|other| &other.name).filter(|other| **other != node.name);
    others.filter(|other| !paired.contains(other)).cloned().collect()
}

/// What it means to have no pair with these.
pub(super) fn unpaired_in_words(names: &[NodeName]) -> String {
    format!(
        "no pair with {}: no address of the same family (IPv4 or IPv6) within protection.networks on both sides. \
         Traffic with them stays in the clear",
        render::names(names)
    )
}

fn addresses() -> Result<Vec<IpAddr>, CommandError> {
    own_addresses().map_err(|error| CommandError::io("listing this host's addresses", &error))
}

/// Whether this host belongs to a cluster that keeps a roster.
pub(super) fn is_member(config: &Config) -> bool {
    matches!(ClusterFiles::of(&config.state_dir).load_roster(), Ok(Some(_)))
}

/// Whether this host belongs to no such cluster, whatever its file says.
pub(super) fn has_no_roster(invocation: &Invocation) -> bool {
    let state_dir = Places::of(&invocation.config).state_dir;
    matches!(ClusterFiles::of(&state_dir).load_roster(), Ok(None))
}

/// What the last agent left.
pub(super) fn saved(config: &Config) -> Result<Saved, CommandError> {
    Ok(Saved::load(&config.state_path())?)
}

/// Marks this host as enabled for good, for when its state gets lost. Tells the operator if that cannot be written.
pub(super) fn mark_enabled(invocation: &Invocation, node: &NodeName) {
    if let Err(error) = enabled::mark(&invocation.config, node) {
        tell(&format!("if the state directory is lost, this host boots unprotected: {error}"));
    }
}
