//! `hostseal doctor …`

use clap::Args;

/// `hostseal doctor …`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Only the paths to this node.
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
