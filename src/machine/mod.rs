//! ASKS the machine: its addresses and interfaces, its settings, its start, its routes. It changes nothing.

mod forwarding;
mod host;
mod route;

pub use forwarding::forwarding;
pub use host::{addresses, boot, ip_of, is_set, named_node, own_addresses, present_addresses, uptime};
pub use route::{Source, Sources, Table, ask, remotes, unlisted};
