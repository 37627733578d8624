//! What `enable` needs, checked before anything is changed, each with what to do where it is missing.

use std::fs;
use std::net::IpAddr;

use super::context;
use super::exit::{Exit, Failure};
use super::listeners::{Holder, udp_listeners};
use crate::model::config::{Config, Node};
use crate::xfrm::{Family, Kernel};

/// Bits of a capability set (linux/capability.h).
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;

/// Whether this process may do what an agent does, and this kernel can.
pub(super) fn check(config: &Config, node: &Node) -> Result<(), Failure> {
    permitted(config.keying.port)?;
    is_here(node)?;
    kernel_can(&node.addresses)
}

/// Whether this host has an address of the node that it was said to be.
fn is_here(node: &Node) -> Result<(), Failure> {
    let missing = context::missing_addresses(node)?;
    if missing.len() < node.addresses.len() {
        return Ok(());
    }
    let missing: Vec<String> = missing.iter().map(IpAddr::to_string).collect();
    let message = format!(
        "this host is said to be {}, and has none of its addresses: {}. Add one to an interface, or say \
         which node it is by $HOSTSEAL_NODE",
        node.name,
        missing.join(", ")
    );
    Err(Failure::new(Exit::Usage, message))
}

/// Whether the port that an agent needs is free. Not to be asked where one of ours runs: it has it.
pub(super) fn check_port(config: &Config, node: &Node) -> Result<(), Failure> {
    let port = config.keying.port;
    let listeners = udp_listeners().map_err(|error| Failure::io("listing UDP sockets", &error))?;
    match listeners.iter().find(|listener| listener.is_in_the_way(port, &node.addresses)) {
        None => Ok(()),
        Some(listener) => Err(Failure::new(Exit::Failed, port_is_held(port, listener.holder()))),
    }
}

fn port_is_held(port: u16, holder: Option<Holder>) -> String {
    let (by, stop) = match holder {
        Some(Holder { name, pid }) if name == "hostseal" => {
            let by = format!("an agent (pid {pid}) that does not answer on run_dir's socket");
            (by, "is it of another configuration? Stop it")
        }
        Some(Holder { name, pid }) => (format!("{name} (pid {pid})"), "stop it"),
        None => ("a process that cannot be seen from here".to_owned(), "stop it"),
    };
    format!("UDP {port} is held by {by}: {stop} or set keying.port")
}

fn permitted(port: u16) -> Result<(), Failure> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| Failure::io("reading /proc/self/status", &error))?;
    let needed =
        [(NET_ADMIN, "CAP_NET_ADMIN", true), (NET_BIND_SERVICE, "CAP_NET_BIND_SERVICE", port < 1024)];
    let have = effective_capabilities(&status);
    let missing: Vec<&str> = needed
        .into_iter()
        .filter(|(bit, _, needed)| *needed && have & (1 << bit) == 0)
        .map(|(_, name, _)| name)
        .collect();
    match missing.as_slice() {
        [] => Ok(()),
        missing => {
            let message = format!("not permitted: this needs {}; run as root", missing.join(" and "));
            Err(Failure::new(Exit::NotPermitted, message))
        }
    }
}

/// The effective set in `/proc/PID/status` (proc_pid_status(5)), empty where it is not there.
fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

fn kernel_can(addresses: &[IpAddr]) -> Result<(), Failure> {
    let mut kernel = Kernel::open()
        .map_err(|error| Failure::io("opening the kernel's IPsec tables (module xfrm_user)", &error))?;
    for (family, used) in [
        (Family::V4, addresses.iter().any(IpAddr::is_ipv4)),
        (Family::V6, addresses.iter().any(IpAddr::is_ipv6)),
    ] {
        if used {
            kernel.probe_esp(family)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000001400\nCapBnd:\t0\n";
        assert_eq!(effective_capabilities(status), (1 << NET_ADMIN) | (1 << NET_BIND_SERVICE));
        assert_eq!(effective_capabilities("CapEff:\tno\n"), 0);
        assert_eq!(effective_capabilities(""), 0);
    }

    #[test]
    fn whoever_holds_the_port_is_named() {
        let holder = |name: &str| Some(Holder { name: name.to_owned(), pid: 812 });
        assert_eq!(
            port_is_held(500, holder("charon")),
            "UDP 500 is held by charon (pid 812): stop it or set keying.port"
        );
        assert!(port_is_held(500, holder("hostseal")).contains("an agent (pid 812) that does not answer"));
        assert!(port_is_held(500, None).contains("cannot be seen"));
    }
}
