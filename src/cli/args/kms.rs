//! The grammar of what has to do with a KMS.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// Unwrap the secret now, and check that this host may describe the key and may not encrypt with it.
    #[command(after_help = "Example:\n  hostseal kms check")]
    Check,
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
    /// The program that speaks to the KMS, for the provider exec.
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
    /// Where the secret lies in the clear; without it the one that the configuration names.
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// Who is asked, and where it goes.
    #[command(flatten)]
    pub out: OutArgs,
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
}

/// Who is asked to wrap, and where the wrapped secret goes.
#[derive(Debug, Args)]
pub struct OutArgs {
    /// Where `hostseal kms-runner --listen` runs helpers with the rights of an administrator; without it, where those of this
    /// host are run.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where to write it. Without it: the file that the configuration names, or one beside it with .new behind its name if
    /// it is another secret or another key wraps it, or /etc/hostseal/secret.wrapped.
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
