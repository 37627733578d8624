//! What `enable` needs, checked before anything is changed, each with what to do where it is missing.

use std::fs;
use std::net::IpAddr;

use super::context;
use super::exit::{CommandError, Exit};
use super::listeners::{Holder, Listener, udp_listeners};
use crate::config::{Config, Node};
use crate::observe::doctor::PortState;
use crate::types::EncapsulationMode;
use crate::types::Family;
use crate::types::ours::KEEPER_NAME;
use crate::xfrm::Tables;

/// Bits of a capability set (linux/capability.h).
const NET_BIND_SERVICE: u32 = 10;
const NET_ADMIN: u32 = 12;

/// Whether this process may do what an agent does, and this kernel can.
pub(super) fn check(config: &Config, node: &Node) -> Result<(), CommandError> {
    permitted(config.keying.port.min(config.keying.nat_port))?;
    is_here(node)?;
    kernel_can(&node.addresses)
}

/// Whether this host has an address of the node that it was said to be.
fn is_here(node: &Node) -> Result<(), CommandError> {
    let missing = context::missing_addresses(node)?;
    if missing.len() < node.addresses.len() {
        return Ok(());
    }
    let missing: Vec<String> = missing.iter().map(IpAddr::to_string).collect();
    let message = format!(
        "this host is said to be {}, and has none of its addresses: {}. Add one to an interface, or set \
         $HOSTSEAL_NODE to the right name",
        node.name,
        missing.join(", ")
    );
    Err(CommandError::new(Exit::Usage, message))
}

/// Whether the ports that an agent needs are free. Not to be asked where one of ours runs: it has it.
pub(super) fn check_port(config: &Config, node: &Node) -> Result<(), CommandError> {
    let taken = ports(config, node, None)?.into_iter().find_map(|port| port.taken);
    taken.map_or(Ok(()), |words| Err(CommandError::new(Exit::Failed, words)))
}

/// The ports that an agent needs, and who else has them; `agent` is one of ours that runs.
///
/// # Errors
/// Sockets cannot be listed.
pub(super) fn ports(
    config: &Config,
    node: &Node,
    agent: Option<u32>,
) -> Result<Vec<PortState>, CommandError> {
    let listeners = udp_listeners().map_err(|error| CommandError::io("listing UDP sockets", &error))?;
    let own: Vec<IpAddr> = node.own_addresses().chain(config.floating_at(node)).collect();
    let in_udp = config.esp.encapsulation != EncapsulationMode::Never;
    let nat = (config.keying.nat_port, "set keying.nat_port, or esp.encapsulation to \"never\"");
    let ports = [(config.keying.port, "set keying.port")].into_iter().chain(in_udp.then_some(nat));
    let state = |(port, otherwise)| {
        let held = listeners.iter().filter(|listener| listener.is_in_the_way(port, &own));
        let is_ours = |holder: Option<&Holder>| {
            is_kept(holder) || holder.is_some_and(|holder| Some(holder.pid) == agent)
        };
        let other = held.map(Listener::holder).find(|holder| !is_ours(holder.as_ref()));
        PortState {
            port,
            is_vital: port == config.keying.port,
            taken: other.map(|holder| port_is_held(port, holder, otherwise)),
        }
    };
    Ok(ports.map(state).collect())
}

/// Whether it keeps what an agent left for the next one: our own process, or systemd.
fn is_kept(holder: Option<&Holder>) -> bool {
    holder.is_some_and(|Holder { name, pid }| KEEPER_NAME.to_bytes() == name.as_bytes() || *pid == 1)
}

fn port_is_held(port: u16, holder: Option<Holder>, otherwise: &str) -> String {
    let by = match holder {
        Some(Holder { name, pid }) if name == "hostseal" => {
            return format!(
                "another agent (pid {pid}) runs in this network namespace and does not answer on run_dir's socket: end \
                 it (`kill {pid}` leaves protection in place) and try again"
            );
        }
        Some(Holder { name, pid }) => format!("{name} (pid {pid})"),
        None => "a process that cannot be seen from here".to_owned(),
    };
    format!("UDP {port} is held by {by}: stop it or {otherwise}")
}

fn permitted(port: u16) -> Result<(), CommandError> {
    let status = fs::read_to_string("/proc/self/status")
        .map_err(|error| CommandError::io("reading /proc/self/status", &error))?;
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
            Err(CommandError::new(Exit::NotPermitted, message))
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

fn kernel_can(addresses: &[IpAddr]) -> Result<(), CommandError> {
    let mut kernel = Tables::open()
        .map_err(|error| CommandError::io("opening the kernel's IPsec tables (module xfrm_user)", &error))?;
    for family in Family::all_of(addresses) {
        kernel.probe_esp(family)?;
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
            port_is_held(500, holder("charon"), "set keying.port"),
            "UDP 500 is held by charon (pid 812): stop it or set keying.port"
        );
        let port_is_held = |holder| port_is_held(500, holder, "set keying.port");
        assert!(port_is_held(holder("hostseal")).contains("`kill 812`"));
        assert!(port_is_held(None).contains("cannot be seen"));
    }

    #[test]
    fn what_an_agent_left_for_the_next_one_is_not_in_the_way() {
        let holder = |name: &str, pid| Holder { name: name.to_owned(), pid };
        assert!(is_kept(Some(&holder("hostseal-keeper", 812))) && is_kept(Some(&holder("systemd", 1))));
        assert!(!is_kept(Some(&holder("hostseal", 812))) && !is_kept(None));
    }
}
