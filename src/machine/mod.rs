//! ASKS the machine: its addresses and interfaces, its settings, its start, its routes. It changes nothing.
//!
//! What it answers are values. What they mean for the pairs of this host, others decide.

mod addresses;
mod at_once;
mod client_ports;
mod forwarding;
mod holes;
mod host;
mod network;
mod news;
#[cfg(test)]
mod tests;
mod vrf;

pub use addresses::{own_addresses, present_addresses};
pub use client_ports::first_client_port;
pub use forwarding::forwarding;
pub use holes::holes;
pub use host::{MachineIds, boot, host_name, ids, is_set, named_node, uptime};
pub use network::{Network, Route};
pub use news::NetworkListener;
