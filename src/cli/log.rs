//! The agent's log.

use std::io;

use tracing_subscriber::EnvFilter;

/// Writes the log to standard error: `$HOSTSEAL_LOG` says what (in the syntax of `RUST_LOG`), else `-v`
/// and `-q` do. What the netlink crates would log about undecodable messages stays out: it holds keys.
pub fn log_to_stderr(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let wanted = std::env::var("HOSTSEAL_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = ["netlink_packet_core=off", "netlink_packet_xfrm=off"]
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(EnvFilter::builder().parse_lossy(wanted), EnvFilter::add_directive);
    // It fails only where a subscriber is set already, as in tests.
    let _ =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).try_init();
}
