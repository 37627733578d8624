//! `hostseal top …`

use clap::Args;

/// `hostseal top …`
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Only pairs with these nodes.
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
    /// Look for a second, print one frame, and end. It needs no terminal.
    #[arg(long)]
    pub once: bool,
}
