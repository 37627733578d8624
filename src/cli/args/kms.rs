//! The grammar of what has to do with a KMS.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::store::LineHash;
use crate::types::units;

/// `hostseal kms …`
#[derive(Debug, Subcommand)]
pub enum KmsCommand {
    /// Show the key that wraps the secret, when it was used last, and how long this host goes on without it.
    #[command(after_help = "Examples:\n  hostseal kms status\n  hostseal kms status --json | jq .state")]
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Unwrap the secret now, check that this host may not encrypt with the key, and look for the plain secret.
    ///
    /// The exit status is 3 if something fails. That this host may not describe the key is only noted.
    #[command(after_help = "Example:\n  hostseal kms check")]
    Check,
    /// Check that no audit line is missing and none was altered.
    ///
    /// The agent records each use of the key, each refusal, each cut and each restore in kms-audit.jsonl in the state
    /// directory, a JSON object a line. Each line holds the hash of the one before. If an agent runs, its last line is
    /// looked for too. Who rewrites all lines is found out by a hash that was kept elsewhere: the log has them, and
    /// `hostseal kms status`. The exit status is 3 if something is missing or was altered.
    #[command(after_help = "Examples:\n  \
        hostseal kms audit\n  \
        hostseal kms audit --head 5f3a…                this hash, from the log, has to be among them\n  \
        hostseal kms audit --from 91c2…                after a gap that somebody has looked into\n  \
        hostseal kms audit --json copy.1 copy          copies of the files, the oldest first")]
    Audit(AuditArgs),
}

/// `hostseal kms audit …`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// A line with this hash has to be there. May be said more than once.
    #[arg(long, value_name = "HASH")]
    pub head: Vec<LineHash>,
    /// Check only what stands behind the line with this hash.
    #[arg(long, value_name = "HASH")]
    pub from: Option<LineHash>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Files, the oldest first; without them those of this host.
    #[arg(value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// `hostseal secret wrap …`
#[derive(Debug, Args)]
pub struct WrapArgs {
    /// The key, as its KMS calls it; without it the one that the configuration names.
    #[arg(long, value_name = "KEY")]
    pub kms_key: Option<String>,
    /// The provider: exec, or NAME for the program /usr/libexec/hostseal/kms-NAME; without it, the one in the configuration.
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// The program that speaks to the KMS, for the provider exec. Not in a cluster: each host's own file names it there.
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
    /// A file with the secret in the clear. Without it: the wrapped secret in use, if there is one; else the plain one that
    /// the configuration names, or, in a cluster, a new one.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Who is asked, and where it goes.
    #[command(flatten)]
    pub out: OutArgs,
    /// How the members of a cluster take it up.
    #[command(flatten)]
    pub course: MoveArgs,
}

/// `hostseal secret rewrap …`
#[derive(Debug, Args)]
pub struct RewrapArgs {
    /// The key to wrap it with; without it the one that the configuration names, in its newest version.
    #[arg(long, value_name = "KEY")]
    pub kms_key: Option<String>,
    /// Who is asked, and where it goes.
    #[command(flatten)]
    pub out: OutArgs,
    /// How the members of a cluster take it up.
    #[command(flatten)]
    pub course: MoveArgs,
}

/// How a cluster with a roster goes by what was wrapped.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// In a cluster: go on without members that do not answer. They have no keys until they can unwrap the secret.
    #[arg(long)]
    pub partial: bool,
    /// In a cluster: how long to wait for the members. The same command goes on later.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = units::parse_duration)]
    pub timeout: Duration,
    /// In a cluster: also if this node has heard no other node since its start.
    #[arg(long)]
    pub alone: bool,
}

/// Who is asked to wrap, and where the wrapped secret goes.
#[derive(Debug, Args)]
pub struct OutArgs {
    /// Where `hostseal kms-runner --listen` runs helpers with the rights of an administrator; without it, where those of this
    /// host are run.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where to write it. Without it: the file that the configuration names, or one beside it with .new behind its name if
    /// it is another secret or another key wraps it, or /etc/hostseal/secret.wrapped. Not in a cluster.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write it even if it cannot be tried here, or over the file in force with another key or secret.
    #[arg(long)]
    pub force: bool,
}

/// `hostseal kms-runner …`
#[derive(Debug, Args)]
pub struct KmsRunnerArgs {
    /// The socket to bind; without it, standard input is a connection.
    #[arg(long, value_name = "PATH", requires = "user")]
    pub listen: Option<PathBuf>,
    /// The user as whom helpers run, who should have nothing else.
    #[arg(long, value_name = "NAME")]
    pub user: Option<String>,
    /// A helper that lies elsewhere than in /usr/libexec/hostseal and /usr/local/libexec/hostseal. May be said more than once.
    #[arg(long, value_name = "PATH")]
    pub program: Vec<PathBuf>,
}
