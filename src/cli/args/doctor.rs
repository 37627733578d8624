//! `hostseal doctor …`

use clap::Args;

/// `hostseal doctor …`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Only the paths to this node.
    #[arg(value_name = "NODE")]
    pub node: Option<String>,
    /// Answer `hostseal doctor` of other hosts, where no agent runs on this host: it tells them what of the path is open.
    /// It ends after 15 minutes.
    #[arg(long, conflicts_with_all = ["node", "json", "cluster"])]
    pub listen: bool,
    /// Ask all nodes of the cluster what their checks find, too.
    #[arg(long)]
    pub cluster: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
