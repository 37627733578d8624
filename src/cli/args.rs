//! The grammar of the command line.

mod cluster;
mod doctor;
mod kms;
mod metrics;
mod prove;
mod top;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

#[cfg(test)]
pub use self::cluster::OrderArgs;
pub use self::cluster::{
    AddArgs, AdminCommand, CreateTokenArgs, FloatingArgs, FloatingCommand, InitArgs, JoinArgs, LeaveArgs,
    MoveNodeArgs, RemoveArgs, RotateArgs, SetSettingsArgs, SettingsArgs, SettingsCommand, TokenCommand,
};
pub use self::doctor::DoctorArgs;
pub use self::kms::{AuditArgs, KmsCommand, KmsRunnerArgs, MoveArgs, OutArgs, RewrapArgs, WrapArgs};
pub use self::metrics::{ExporterArgs, MetricsArgs};
pub use self::prove::ProveArgs;
pub use self::top::TopArgs;
use crate::config::DEFAULT_PATH;
use crate::types::trial::LONGEST;
use crate::types::units;

const EXIT_STATUS: &str = "\
Exit status:
  0  done; of enable and status: every pair is protected, or protection is deliberately off
  1  failed
  2  wrong usage or configuration
  3  degraded: protection is on, but a pair is not protected, something critical is wrong,
     or the agent is dead; with --cluster: a node is not as it should be; of prove: a pair
     is not proven
  4  no agent runs
  5  not permitted: run as root; of doctor: nothing could be checked
  6  only enable and join: enabled, and waiting for hosts that are not there yet;
     only rotate: the new keys are not in use everywhere yet";

const FIRST_STEPS: &str = "\
First steps:
  hostseal init prod                           on the first host: makes a cluster
  hostseal token create                        there: prints the command that joins one more host
  hostseal enable --cluster                    on any of them: protects all

First steps with a file on every host instead:
  hostseal config new a=10.0.0.1 b=10.0.0.2    writes a configuration and a secret
  hostseal config check                        on each host, once both files are copied there
  hostseal enable                              on each host

";

/// Encrypts everything that the hosts of a cluster say to each other, inside the kernel.
#[derive(Debug, Parser)]
#[command(name = "hostseal", version, after_help = format!("{FIRST_STEPS}{EXIT_STATUS}"))]
pub struct Invocation {
    /// The configuration file.
    #[arg(long, global = true, value_name = "PATH", env = "HOSTSEAL_CONFIG", default_value = DEFAULT_PATH)]
    pub config: PathBuf,
    /// Log more; twice for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub verbose: u8,
    /// Print only results and errors.
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a secret, or show the fingerprint of one.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Make the key pair of this host, or show its public half.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Write a first configuration, or check one.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Run the agent in the foreground (what systemd starts).
    ///
    /// SIGTERM stops it and leaves protection in place: the kernel goes on with its keys for up to
    /// keying.expire_after.
    #[command(after_help = "Example:\n  hostseal -v agent")]
    Agent(AgentArgs),
    /// At boot, block sealed pairs before the network is up, until the agent protects them.
    ///
    /// A kernel boots without policies: without the guard, traffic would be in the clear until the agent runs.
    /// The guard needs no agent, no secret and no address. It does nothing if protection is off, and can run at
    /// any time. With systemd, hostseal-guard.service runs it. Without systemd, run it from an early boot
    /// script, as soon as state_dir is mounted.
    #[command(after_help = "Example:\n  hostseal guard")]
    Guard,
    /// Show or check the key of a KMS that wraps the secret, and what is on record of it.
    #[command(subcommand)]
    Kms(KmsCommand),
    /// Run helpers that speak to a KMS: systemd starts it (hostseal-kms.socket). Elsewhere, run it as root with --listen.
    #[command(hide = true)]
    KmsRunner(KmsRunnerArgs),
    /// Hold what the agent hands over on standard input, until it wants it back: the agent starts it.
    #[command(hide = true)]
    Hold,
    /// Protect this host, now and after every reboot.
    ///
    /// Checks what is needed (kernel, ports, configuration, secret), starts the agent if none runs, and shows
    /// each pair's progress. It returns as soon as nothing more can happen without others: each pair is
    /// protected, has failed, or waits for a host that is not enabled yet (exit status 6 if only that is
    /// missing). No packet is lost: a pair stays in the clear until a probe has shown that ESP gets through.
    /// With --strict it is blocked instead.
    #[command(after_help = "Examples:\n  \
        hostseal enable\n  \
        hostseal enable || [ $? = 6 ]      in a script that enables one host after the other\n  \
        hostseal enable --try 60s          reverts after 60 s unless you run `hostseal confirm`\n  \
        hostseal enable --strict           sends nothing in the clear: blocks until keys are agreed\n  \
        hostseal enable --no-wait --json   for scripts; `hostseal status` shows the progress\n  \
        hostseal enable --cluster          all nodes, from any of them: asks all first, and changes nothing if \
        one is not ready")]
    Enable(EnableArgs),
    /// Keep the protection that `enable --try` would revert.
    ///
    /// It says so if there is nothing to confirm. It fails if protection is off, for example because the time
    /// is over.
    #[command(after_help = "Example:\n  \
        hostseal enable --try 60s && ssh b true && hostseal confirm\n  \
        hostseal confirm --cluster         what `enable --cluster --try` would revert, from any node")]
    Confirm(ConfirmArgs),
    /// Take this host back to the clear, without losing a packet.
    ///
    /// --force removes everything of hostseal's from the kernel at once. It needs no agent, no secret and no
    /// valid configuration. Packets under way can be lost.
    #[command(after_help = "Examples:\n  \
        hostseal disable\n  \
        hostseal disable --force           when nothing else works\n  \
        hostseal disable --cluster         all nodes, from an admin node")]
    Disable(DisableArgs),
    /// Show the state of each pair, with the kernel's counters.
    #[command(after_help = "Examples:\n  \
        hostseal status\n  \
        hostseal status b c                only pairs with these nodes\n  \
        hostseal status --watch            refreshed every second\n  \
        hostseal status --wait 2m          returns when every pair is protected, or after two minutes\n  \
        hostseal status --cluster          a row for each node, as it says itself\n  \
        hostseal status --json | jq '.peers[] | {node, state, tx, rx}'")]
    Status(StatusArgs),
    /// Print what a monitoring system wants to know, once, in Prometheus' text format.
    ///
    /// Without an agent it prints hostseal_agent_up 0, and ends with 0 all the same.
    #[command(after_help = "Examples:\n  \
        hostseal metrics\n  \
        hostseal metrics --out /var/lib/prometheus/node-exporter/hostseal.prom")]
    Metrics(MetricsArgs),
    /// Serve it over HTTP, as GET /metrics, and a page for people at /.
    ///
    /// The page shows all pairs of a cluster, and those of this host. From elsewhere, reach it with
    /// `ssh -L 10931:127.0.0.1:10931 HOST`.
    ///
    /// It needs no rights but those of the group hostseal, and no file.
    #[command(after_help = "Examples:\n  \
        systemctl enable --now hostseal-exporter.socket\n  \
        hostseal exporter --listen unix:/run/hostseal-exporter.sock")]
    Exporter(ExporterArgs),
    /// Show how much flows over each pair, on a screen that is refreshed.
    ///
    /// Keys: q quits, / filters by name or address, s sorts by the next column, r reverses, the arrows choose a row. Rows
    /// that need somebody come first: blocked, clear, negotiating, silent. The exit status is that of `hostseal status`.
    #[command(after_help = "Examples:\n  \
        hostseal top\n  \
        hostseal top b c                   only pairs with these nodes\n  \
        hostseal top --once                prints what flowed in one second")]
    Top(TopArgs),
    /// Look for what is wrong with this host and the paths to its peers, and say what to do. Changes nothing.
    ///
    /// It checks this host (file, kernel, ports, addresses, clock, disk, other IPsec, and whatever lets packets past the
    /// policies), and each peer (IKE, ESP and ESP in UDP in each direction, round trip, path MTU, configuration, secret,
    /// version, clock). It works without an agent, with one that hangs, and with a broken file. It takes 20 seconds at
    /// most. The exit status is 3 if a check fails, and 5 if nothing could be checked.
    #[command(after_help = "Examples:\n  \
        hostseal doctor\n  \
        hostseal doctor b                  this host, and only the paths to b\n  \
        hostseal doctor --cluster          this node, and what the checks of all others find\n  \
        hostseal doctor --listen           on a host without an agent, for doctor on another one\n  \
        hostseal doctor --json | jq '.checks[] | select(.result != \"ok\")'")]
    Doctor(DoctorArgs),
    /// Prove that each pair encrypts what it sends and refuses what is clear.
    ///
    /// Both hosts of a pair send each other a few packets past all policies, which the other kernel must refuse, and as
    /// many as programs do, which must arrive through ESP. This host's interfaces are watched meanwhile. Protection and
    /// traffic are not touched. With --cluster, other nodes prove the pairs that this node does not have. The report is signed
    /// with the key of this node, if it has one. The exit status is 0 if all pairs are proven, else 3.
    #[command(after_help = "Examples:\n  \
        hostseal prove\n  \
        hostseal prove b                             only pairs with this node\n  \
        hostseal prove --cluster                     all pairs of all nodes\n  \
        hostseal prove --out proof.json              keeps the report\n  \
        hostseal prove --verify proof.json           whether its node has signed it so\n  \
        hostseal prove --verify proof.json --key MCowBQYDK2VwAyEA…")]
    Prove(ProveArgs),
    /// Show what the agent would change in the kernel now, without changing anything.
    #[command(after_help = "Examples:\n  \
        hostseal plan\n  \
        hostseal plan --with ./hostseal.toml     what a changed file would do\n  \
        hostseal plan --exit-code || echo 'something would change'")]
    Plan(PlanArgs),
    /// Load the changed configuration and secrets now, and say what changed.
    ///
    /// The agent also does this by itself when one of the files changes, and on SIGHUP. A file with a mistake
    /// changes nothing. Pairs that stay keep their keys, and no packet is lost.
    #[command(after_help = "Example:\n  hostseal config check && hostseal reload")]
    Reload,
    /// Make a cluster, with this host as its first node and first admin.
    ///
    /// No file has to exist. This node gets keys that no other host has, and the agent starts. It prints the
    /// recovery key of the cluster, once: keep it away from the nodes.
    #[command(after_help = "Examples:\n  \
        hostseal init prod\n  \
        hostseal init prod --node a --address 10.0.0.1 --address fd00::1\n  \
        hostseal init prod --from-file     this host runs by a file, and stays protected")]
    Init(InitArgs),
    /// Invite a node.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Join a cluster with a token that `hostseal token create` has printed.
    ///
    /// This node makes its keys and gets the roster of the cluster. If the cluster is protected, so is this node, and
    /// `join` waits for that. No file has to exist. A host that runs by a file stays protected, if the cluster was made
    /// from that file.
    #[command(after_help = "Examples:\n  \
        hostseal join hostseal1_…\n  \
        hostseal join - < token            keeps the token out of the process list and the shell's history\n  \
        hostseal join - --node c --address 10.0.0.3")]
    Join(JoinArgs),
    /// List a node that runs other software, such as strongSwan or Libreswan. It needs an admin node.
    #[command(after_help = "Examples:\n  \
        hostseal add db --address 10.0.0.9 --public-key MCowBQYDK2VwAyEA…\n  \
        hostseal add db --address 10.0.0.9,fd00::9 --public-key MCowBQYDK2VwAyEA…")]
    Add(AddArgs),
    /// Say which addresses a node has from now on. It needs an admin node.
    ///
    /// The node stays who it is, with its keys and rights. Pairs of addresses that it had before go on, and those of
    /// new ones are protected if the cluster is. To lose nothing, give it old and new addresses first, and take the
    /// old ones away when nothing uses them any more.
    #[command(after_help = "Examples:\n  \
        hostseal move c --address 10.0.0.3 --address 10.1.0.3    it has the second one too\n  \
        hostseal move c --address 10.1.0.3                       it has that one alone")]
    Move(MoveNodeArgs),
    /// Remove a node from the cluster for good. It needs an admin node.
    ///
    /// The others drop it at once. A node that is up goes to the clear without losing a packet. With
    /// --compromised it is told nothing, and the others block its addresses.
    #[command(after_help = "Examples:\n  \
        hostseal remove c\n  \
        hostseal remove c --compromised    its disk may be in other hands")]
    Remove(RemoveArgs),
    /// Take this node out of its cluster for good.
    #[command(after_help = "Examples:\n  \
        hostseal leave\n  \
        hostseal leave --to-file hostseal.toml    goes on by a file, and stays protected")]
    Leave(LeaveArgs),
    /// Give all nodes new keys. It needs an admin node.
    ///
    /// Each node makes new keys. They come into use when all nodes know them; until then the old keys are good. No
    /// packet is lost. If a node is away, the others wait for it: otherwise it could not recognize them any more.
    /// The exit status is 6 as long as the new keys are not in use everywhere.
    #[command(after_help = "Examples:\n  \
        hostseal rotate\n  \
        hostseal rotate --status    how far the nodes are")]
    Rotate(RotateArgs),
    /// Make a node an admin, or take that back. It needs an admin node.
    #[command(subcommand)]
    Admin(AdminCommand),
    /// Show the addresses that move between nodes, or change that.
    #[command(after_help = "Examples:\n  \
        hostseal floating\n  \
        hostseal floating set vip --address 10.0.0.100 --node a --node b\n  \
        hostseal floating remove vip")]
    Floating(FloatingArgs),
    /// Show the settings of the cluster, or change them for all nodes.
    #[command(after_help = "Examples:\n  \
        hostseal settings\n  \
        hostseal settings set esp.key_bits=128\n  \
        hostseal settings --export         the cluster as a file, to go back to files\n  \
        hostseal settings > s.toml && vi s.toml && hostseal settings set s.toml")]
    Settings(SettingsArgs),
    /// Print the names of the nodes, for completion scripts.
    #[command(hide = true)]
    Nodes,
    /// Print a completion script for a shell.
    #[command(hide = true)]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Write the manual pages.
    #[command(hide = true)]
    Man {
        /// Where to; without it the main page is printed.
        directory: Option<PathBuf>,
    },
}

/// `hostseal secret …`
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Print a new secret of 256 bits.
    #[command(after_help = "Example:\n  (umask 077; hostseal secret generate > /etc/hostseal/secret)")]
    Generate,
    /// Print the fingerprint of the secret, which is safe to compare aloud.
    #[command(after_help = "Examples:\n  hostseal secret id\n  hostseal secret id /root/secret.new")]
    Id {
        /// The file; without it the one that the configuration names.
        file: Option<PathBuf>,
    },
    /// Wrap the secret with a key in a KMS. The plain file stays: delete it when all hosts use the wrapped one.
    ///
    /// It takes the right to encrypt with the key, which hosts do not need: name a helper that has it with --socket. With
    /// files, copy the wrapped one to all hosts, and say in their configuration what this prints.
    ///
    /// In a cluster with a roster, it needs an admin node, and does all of it: it makes a secret that nobody sees, offers it
    /// to all members, puts it in force once all can unwrap it, and requires it once all pairs have it in their keys. Give
    /// the same command again to go on where it was.
    #[command(after_help = "Examples:\n  \
        hostseal secret wrap --provider exec --program /usr/local/libexec/hostseal/kms-ours --kms-key cluster-key\n  \
        hostseal secret wrap --provider vault --kms-key transit/prod --socket /run/kms-admin.sock\n  \
        hostseal secret wrap --from /root/secret.new --out /root/secret.wrapped\n  \
        hostseal secret wrap --socket /run/kms-admin.sock    in a cluster with a roster whose settings name the key")]
    Wrap(WrapArgs),
    /// Wrap the wrapped secret with another key, or with the newest version of the same one.
    ///
    /// The KMS does so by itself where it can; elsewhere the helper unwraps the secret and wraps it, and this says so. It
    /// takes the rights that your KMS wants for that. Copy the file to all hosts. In a cluster with a roster, all members
    /// take it up once all of them can unwrap it.
    #[command(
        after_help = "Examples:\n  hostseal secret rewrap\n  hostseal secret rewrap --kms-key other-key"
    )]
    Rewrap(RewrapArgs),
}

/// `hostseal key …`
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key pair for this host, and print the line by which the other hosts know it.
    #[command(after_help = "Examples:\n  hostseal key generate\n  hostseal key generate --type ecdsa-p256")]
    Generate {
        /// What kind of key.
        #[arg(long = "type", value_enum, value_name = "TYPE", default_value_t = KeyType::Ed25519)]
        kind: KeyType,
        /// The file; without it the one that the configuration names.
        file: Option<PathBuf>,
    },
    /// Print the line again.
    #[command(after_help = "Example:\n  ssh root@10.0.0.2 hostseal key show")]
    Show {
        /// The file; without it the one that the configuration names.
        file: Option<PathBuf>,
    },
}

/// The kinds of key pairs that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyType {
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256, for where only NIST's curves may be used.
    EcdsaP256,
}

/// `hostseal config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Write a first configuration and a secret, and say where to copy them.
    #[command(after_help = "Examples:\n  \
        hostseal config new a=10.0.0.1 b=10.0.0.2\n  \
        hostseal config new --cluster lab a=10.0.0.1,fd00::1 b=10.0.0.2,fd00::2")]
    New(NewArgs),
    /// Say what is wrong with the configuration and where, or what it means.
    #[command(after_help = "Examples:\n  \
        hostseal config check\n  \
        hostseal --config ./hostseal.toml config check --json")]
    Check(JsonArgs),
}

/// `hostseal config new …`
#[derive(Debug, Args)]
pub struct NewArgs {
    /// The name of the cluster.
    #[arg(long, default_value = "hostseal")]
    pub cluster: String,
    /// The hosts: a name and its addresses.
    #[arg(required = true, value_name = "NAME=ADDRESS[,ADDRESS…]", value_parser = new_node)]
    pub nodes: Vec<NewNode>,
}

/// A host as `config new` takes it.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Nothing but `--json`.
#[derive(Debug, Args)]
pub struct JsonArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `hostseal agent …`
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Leave the session and the terminal of whoever starts it (as `enable` does it).
    #[arg(long, hide = true)]
    pub detached: bool,
    /// The file that standard error is: it is kept within bounds.
    #[arg(long, hide = true, value_name = "PATH", requires = "detached")]
    pub log_file: Option<PathBuf>,
}

/// `hostseal enable …`
#[derive(Debug, Args)]
pub struct EnableArgs {
    /// Block what cannot be encrypted yet, instead of sending it in the clear until it can.
    #[arg(long)]
    pub strict: bool,
    /// Revert to the clear after this time unless you run `hostseal confirm`, even if this terminal, the agent
    /// or the host dies. A day at most.
    #[arg(long = "try", value_name = "DURATION", value_parser = trial)]
    pub trial: Option<Duration>,
    /// Return as soon as the agent has accepted the order.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to follow pairs that are under way.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::parse_duration)]
    pub timeout: Duration,
    /// Protect all nodes of the cluster. If one does not answer or is not ready, nothing is changed.
    #[arg(long, conflicts_with = "strict")]
    pub cluster: bool,
    /// With --cluster: also if this node has heard no other node since its start.
    #[arg(long, requires = "cluster")]
    pub alone: bool,
    /// Go on without nodes that do not answer or are not ready: they are listed, and follow when they come.
    #[arg(long, requires = "cluster")]
    pub partial: bool,
    /// Print the status at the end as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `hostseal confirm …`
#[derive(Debug, Args)]
pub struct ConfirmArgs {
    /// Keep what `enable --cluster --try` or `settings set --try` would revert, on all nodes. For settings, it needs an
    /// admin node.
    #[arg(long)]
    pub cluster: bool,
    /// With --cluster: also if this node has heard no other node since its start.
    #[arg(long, requires = "cluster")]
    pub alone: bool,
    /// Print JSON.
    #[arg(long, requires = "cluster")]
    pub json: bool,
}

/// `hostseal disable …`
#[derive(Debug, Args)]
pub struct DisableArgs {
    /// Remove everything of hostseal's from the kernel at once, without the agent.
    #[arg(long, conflicts_with = "cluster")]
    pub force: bool,
    /// Take all nodes of the cluster back to the clear. It needs an admin node.
    #[arg(long)]
    pub cluster: bool,
    /// With --cluster: also if this node has heard no other node since its start.
    #[arg(long, requires = "cluster")]
    pub alone: bool,
    /// How long to wait until everything is in the clear.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::parse_duration)]
    pub timeout: Duration,
    /// Print the status at the end as JSON.
    #[arg(long)]
    pub json: bool,
}

/// `hostseal status …`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only pairs with these nodes.
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Show all nodes of the cluster, as each says of itself.
    #[arg(long)]
    pub cluster: bool,
    /// Print JSON; with --watch one object a line.
    #[arg(long)]
    pub json: bool,
    /// Show it refreshed every second.
    #[arg(long)]
    pub watch: bool,
    /// Wait until the exit status is 0, but no longer than this.
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration, conflicts_with = "watch")]
    pub wait: Option<Duration>,
    /// Show all rows. By default, above 50 rows, only those that are not protected are shown.
    #[arg(long)]
    pub all: bool,
}

/// `hostseal plan …`
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Show what loading this configuration would change.
    #[arg(long, value_name = "FILE")]
    pub with: Option<PathBuf>,
    /// End with status 3 if something would change.
    #[arg(long)]
    pub exit_code: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Reads the command line; wrong usage ends the process with status 2.
pub fn parse() -> Invocation {
    Invocation::parse()
}

fn trial(text: &str) -> Result<Duration, String> {
    let length = units::parse_duration(text)?;
    if length > LONGEST { Err(format!("\"{text}\" is more than a day")) } else { Ok(length) }
}

fn new_node(text: &str) -> Result<NewNode, String> {
    let (name, addresses) = text
        .split_once('=')
        .ok_or_else(|| "a host is a name and its addresses, such as a=10.0.0.1,fd00::1".to_owned())?;
    let address = |text: &str| {
        text.parse()
            .map_err(|_| format!("\"{text}\" is not an IPv4 or IPv6 address (names are not looked up)"))
    };
    let addresses = addresses.split(',').map(address).collect::<Result<_, _>>()?;
    Ok(NewNode { name: name.to_owned(), addresses })
}
