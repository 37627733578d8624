//! The kernel's IPsec tables over netlink: writes, reads, decides nothing.
//!
//! A [`Tables`] asks and gets answers; [`Monitor`] hears about changes on its own socket, because on
//! a subscribed socket one's own changes come back looking like replies. Requests are answered within
//! the system call that sends them, so nothing here ever blocks and no runtime is needed.
//!
//! What goes out is built from the types of `netlink-packet-xfrm`, except keys, which are written by hand
//! into buffers that are zeroed. Incoming messages are parsed only in their fixed structures, after
//! their length was checked; keys that the kernel reports are never looked at, and their buffers are zeroed.

mod batch;
mod connection;
mod decode;
#[cfg(any(test, fuzzing))]
mod digest;
mod encode;
#[cfg(feature = "fault-injection")]
mod fuse;
mod lifetime;
mod monitor;
mod preflight;
mod socket_policy;
mod statistics;
mod strangers;
mod sweep;
mod sys;
mod tables;
#[cfg(test)]
mod tests;
mod wire;

#[cfg(any(test, fuzzing))]
pub use digest::digest;
pub use monitor::{Monitor, Notification};
pub use preflight::{Features, PreflightError};
pub use socket_policy::{bypass, decapsulate, never_fragment, route_through};
pub use statistics::statistics;
pub use sweep::{SweepError, Swept, count_ours, sweep};
pub use sys::{DESCRIPTORS_MAX, inherited_descriptors, packet_statistics, receive_descriptors};
pub use tables::{ReadError, Tables};
