//! The grammar of `hostseal prove`.

use std::path::PathBuf;

use clap::Args;

/// `hostseal prove …`
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// Only pairs with these nodes.
    #[arg(value_name = "NODE", conflicts_with = "verify")]
    pub nodes: Vec<String>,
    /// Prove the pairs that this node does not have, too: other nodes of the cluster do. With a NODE: only pairs with it.
    #[arg(long, conflicts_with = "verify")]
    pub cluster: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Write the report to this file too, as JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    pub out: Option<PathBuf>,
    /// Check the signature of a report, and show the report. A signature does not show that the report is true. Nothing is
    /// sent.
    #[arg(long, value_name = "FILE")]
    pub verify: Option<PathBuf>,
    /// With --verify: the public key of the node (a line of `hostseal key show`), or a file with it. By default it is the
    /// one that the cluster or the configuration knows.
    #[arg(long, value_name = "KEY", requires = "verify")]
    pub key: Option<String>,
}
