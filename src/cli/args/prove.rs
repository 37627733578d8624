//! The grammar of `hostseal prove`.

use std::path::PathBuf;

use clap::Args;

/// `hostseal prove …`
#[derive(Debug, Args)]
pub struct ProveArgs {
    /// Only pairs with these nodes.
    #[arg(value_name = "NODE", conflicts_with = "verify")]
    pub nodes: Vec<String>,
    /// Have each other node of the cluster prove its pairs, too. With a NODE: only pairs with it.
    #[arg(long, conflicts_with = "verify")]
    pub cluster: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Write the report to this file too, as JSON.
    #[arg(long, value_name = "FILE", conflicts_with = "verify")]
    pub out: Option<PathBuf>,
    /// Check that a report is as its node has signed it, and show it. That what it says is true no signature shows. Nothing
    /// is sent.
    #[arg(long, value_name = "FILE")]
    pub verify: Option<PathBuf>,
    /// With --verify: the public key of the node (a line of `hostseal key show`), or a file with it. By default it is the
    /// one that the cluster or the configuration knows.
    #[arg(long, value_name = "KEY", requires = "verify")]
    pub key: Option<String>,
}
