//! The grammar of the commands about a cluster.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use crate::config::{address, network};
use crate::control::SecretLine;
use crate::identity::PublicKey;
use crate::types::{NodeName, units};

/// `hostseal init …`
#[derive(Debug, Args)]
pub struct InitArgs {
    /// What to call the cluster.
    #[arg(value_name = "NAME", value_parser = name)]
    pub cluster: NodeName,
    /// The name of this node; by default its host name.
    #[arg(long, value_name = "NODE", value_parser = name)]
    pub node: Option<NodeName>,
    /// An address of this node; by default the ones that it reaches others from. May be given several times.
    #[arg(long = "address", value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    pub addresses: Vec<IpAddr>,
    /// Take the nodes and the settings of the file that this host runs by. Protection stays on all the time: until a
    /// node has joined, it proves itself as before.
    #[arg(long, conflicts_with_all = ["node", "addresses"])]
    pub from_file: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What all orders about a cluster take.
#[derive(Debug, Clone, Copy, Args)]
pub struct OrderArgs {
    /// Also if this node has heard no other node since its start, so that what it knows of the cluster may be old.
    #[arg(long)]
    pub alone: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `hostseal token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print a command that joins one node. It needs an admin node.
    ///
    /// Standard output is the command alone. Whoever has the token can join the cluster in place of your node: give
    /// it to that node alone. It is good for one use.
    #[command(after_help = "Examples:\n  \
        hostseal token create\n  \
        hostseal token create c --ttl 10m\n  \
        hostseal token create --within 10.0.0.0/16\n  \
        hostseal token create c | ssh root@c hostseal join -    shows the token to nobody")]
    Create(CreateTokenArgs),
}

/// `hostseal token create …`
#[derive(Debug, Args)]
pub struct CreateTokenArgs {
    /// The name that the node gets; without it, the node says its own.
    #[arg(value_name = "NODE", value_parser = name)]
    pub node: Option<NodeName>,
    /// The node will be an admin.
    #[arg(long)]
    pub admin: bool,
    /// How long the token is good: 30 days at most.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = units::parse_duration)]
    pub ttl: Duration,
    /// A network in which the addresses of the node have to lie, such as 10.0.0.0/16. May be given several times.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = block)]
    pub within: Vec<String>,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `hostseal join …`
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The token; with - it is read from standard input, so that it does not stand in the process list.
    #[arg(value_name = "TOKEN", value_parser = token)]
    pub token: SecretLine,
    /// The name of this node; by default the one in the token, or its host name.
    #[arg(long, value_name = "NODE", value_parser = name)]
    pub node: Option<NodeName>,
    /// An address of this node; by default the ones that it reaches the cluster from. May be given several times.
    #[arg(long = "address", value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    pub addresses: Vec<IpAddr>,
    /// How long to try to join, and to follow pairs that are under way.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::parse_duration)]
    pub timeout: Duration,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `hostseal add …`
#[derive(Debug, Args)]
pub struct AddArgs {
    /// Its name.
    #[arg(value_name = "NODE", value_parser = name)]
    pub node: NodeName,
    /// An address of it. May be given several times.
    #[arg(long = "address", required = true, value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    pub addresses: Vec<IpAddr>,
    /// Its public key (SubjectPublicKeyInfo in base64): a cluster has no secret that all share.
    #[arg(long, value_name = "KEY", value_parser = public_key)]
    pub public_key: String,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `hostseal move …`
#[derive(Debug, Args)]
pub struct MoveNodeArgs {
    /// The node that has other addresses now.
    #[arg(value_name = "NODE", value_parser = name)]
    pub node: NodeName,
    /// An address that it has from now on: one that is not given is its address no more. May be given several times.
    #[arg(long = "address", required = true, value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    pub addresses: Vec<IpAddr>,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `hostseal remove …`
#[derive(Debug, Args)]
pub struct RemoveArgs {
    /// The node that goes.
    #[arg(value_name = "NODE", value_parser = name)]
    pub node: NodeName,
    /// An address of it: if a token was used twice, two nodes can have one name.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub address: Option<IpAddr>,
    /// Its keys may be in other hands: tell it nothing, and block its addresses.
    #[arg(long)]
    pub compromised: bool,
    /// Sign with the recovery key, which is read from standard input: works on any node, without an admin.
    #[arg(long)]
    pub recovery_key: bool,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `hostseal rotate …`
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Show how far the nodes are with the new keys, and change nothing.
    #[arg(long)]
    pub status: bool,
    /// Begin although some nodes do not answer: the old keys stay good until they have come.
    #[arg(long, conflicts_with = "status")]
    pub partial: bool,
    /// Do not wait until the new keys are in use.
    #[arg(long, conflicts_with = "status")]
    pub no_wait: bool,
    /// How long to wait until the new keys are in use.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = units::parse_duration)]
    pub timeout: Duration,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `hostseal leave …`
#[derive(Debug, Args)]
pub struct LeaveArgs {
    /// Go back to this file, which `hostseal settings --export` has printed: protection stays on, and the others are
    /// told nothing. Use it when all hosts go back to files.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "alone")]
    pub to_file: Option<PathBuf>,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `hostseal admin …`
#[derive(Debug, Subcommand)]
pub enum AdminCommand {
    /// Make a node an admin.
    #[command(after_help = "Examples:\n  hostseal admin add b\n  hostseal admin add b --recovery-key < key")]
    Add(AdminArgs),
    /// Make a node an ordinary node again. The last admin stays one.
    #[command(after_help = "Example:\n  hostseal admin remove b")]
    Remove(AdminArgs),
}

/// `hostseal admin add …` and `hostseal admin remove …`
#[derive(Debug, Args)]
pub struct AdminArgs {
    /// The node whose rights change.
    #[arg(value_name = "NODE", value_parser = name)]
    pub node: NodeName,
    /// Sign with the recovery key, which is read from standard input: works on any node, without an admin.
    #[arg(long)]
    pub recovery_key: bool,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `hostseal floating …`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct FloatingArgs {
    /// What to do; by default they are listed.
    #[command(subcommand)]
    pub command: Option<FloatingCommand>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `hostseal floating …`
#[derive(Debug, Subcommand)]
pub enum FloatingCommand {
    /// Let addresses move between nodes, as keepalived or a database moves them. It needs an admin node.
    ///
    /// The node that has an address speaks for it, with its own key. If the name exists already, its addresses and
    /// nodes are replaced.
    #[command(after_help = "Examples:\n  \
        hostseal floating set vip --address 10.0.0.100 --node a --node b\n  \
        hostseal floating set db --address 10.0.0.101,fd00::101 --node a,b,c")]
    Set(SetFloatingArgs),
    /// Take addresses out again: their pairs go to the clear. It needs an admin node.
    Remove(RemoveFloatingArgs),
}

/// `hostseal floating set …`
#[derive(Debug, Args)]
pub struct SetFloatingArgs {
    /// What to call them. No node may have this name.
    #[arg(value_name = "NAME", value_parser = name)]
    pub name: NodeName,
    /// An address that moves. May be given several times.
    #[arg(long = "address", required = true, value_name = "ADDRESS", value_delimiter = ',', value_parser = address)]
    pub addresses: Vec<IpAddr>,
    /// A node that may have it. At least two.
    #[arg(long = "node", required = true, value_name = "NODE", value_delimiter = ',', value_parser = name)]
    pub nodes: Vec<NodeName>,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `hostseal floating remove …`
#[derive(Debug, Args)]
pub struct RemoveFloatingArgs {
    /// What they are called.
    #[arg(value_name = "NAME", value_parser = name)]
    pub name: NodeName,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

/// `hostseal settings …`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SettingsArgs {
    /// What to do; without it they are printed.
    #[command(subcommand)]
    pub command: Option<SettingsCommand>,
    /// Print the whole configuration as a file, to go back to files: nodes, public keys and settings, the same for all
    /// hosts.
    #[arg(long, conflicts_with = "json")]
    pub export: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `hostseal settings …`
#[derive(Debug, Subcommand)]
pub enum SettingsCommand {
    /// Change the settings of all nodes. It needs an admin node.
    ///
    /// A file replaces all of them. KEY=VALUE changes one and leaves the others; KEY= brings its default back.
    #[command(after_help = "Examples:\n  \
        hostseal settings set settings.toml\n  \
        hostseal settings set keying.rekey_after=30m esp.key_bits=128\n  \
        hostseal settings set 'protection.exempt=[\"tcp/22\"]'\n  \
        hostseal settings set protection.exempt=\n  \
        hostseal settings set kms.provider=aws kms.key=ARN\n  \
        hostseal settings set s.toml --dry-run     shows what would change on each node\n  \
        hostseal settings set s.toml --try 60s     goes back unless `hostseal confirm --cluster` comes")]
    Set(SetSettingsArgs),
}

/// `hostseal settings set …`
#[derive(Debug, Args)]
pub struct SetSettingsArgs {
    /// A file as `hostseal settings` prints it, or settings one by one.
    #[arg(required = true, value_name = "FILE|KEY=VALUE")]
    pub what: Vec<String>,
    /// Change nothing: show what would change on each node. The exit status is 3 if a node does not answer or cannot
    /// use these settings.
    #[arg(long, conflicts_with_all = ["try_for", "alone"])]
    pub dry_run: bool,
    /// Go back on all nodes after this time, unless somebody runs `hostseal confirm --cluster` on an admin node before;
    /// also if this node is dead by then. A day at most.
    #[arg(long = "try", value_name = "DURATION", value_parser = super::trial)]
    pub try_for: Option<Duration>,
    /// Also if a wrapped secret comes with them that the members could not try before, as from a backup: a member that
    /// cannot unwrap it is cut off.
    #[arg(long)]
    pub other_secret: bool,
    /// How it is ordered.
    #[command(flatten)]
    pub order: OrderArgs,
}

fn name(text: &str) -> Result<NodeName, String> {
    if text.is_empty() { Err("a name has at least one letter".to_owned()) } else { text.parse() }
}

/// What stands there may be a token: it is not looked at here, as whoever reads it says what is wrong without
/// repeating it.
fn token(text: &str) -> Result<SecretLine, String> {
    Ok(SecretLine(text.to_owned()))
}

/// A network, as it was written.
fn block(text: &str) -> Result<String, String> {
    network(text).map(|_| text.to_owned())
}

/// A public key, as it was written.
fn public_key(text: &str) -> Result<String, String> {
    match text.parse::<PublicKey>() {
        Ok(key) => Ok(key.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
