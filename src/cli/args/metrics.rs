//! The commands for monitoring systems.

use std::path::PathBuf;

use clap::Args;

use crate::config::ScrapeAddress;

/// `hostseal exporter …`
#[derive(Debug, Args)]
pub struct ExporterArgs {
    /// Where to listen: ADDRESS:PORT, or unix:PATH. By default, a socket of systemd, or else what [metrics] in the
    /// configuration says, or else 127.0.0.1:10931.
    #[arg(long, value_name = "WHERE")]
    pub listen: Option<ScrapeAddress>,
    /// The agent's socket for onlookers. By default, status.sock in run_dir.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Another name by which browsers may ask for the page at /, beside the host's own and addresses; may be repeated.
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// The directory that remembers when keys end, for a time without an agent.
    #[arg(long, value_name = "DIRECTORY", env = "STATE_DIRECTORY", hide_env = true)]
    pub state: Option<PathBuf>,
}

/// `hostseal metrics …`
#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// Write to this file, in one step, for node_exporter's textfile collector.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The agent's socket for onlookers. By default, status.sock in run_dir.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}
