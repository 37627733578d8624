//! hostseal encrypts everything that the Linux hosts of a cluster say to each other, inside the kernel.
#![doc = ""]
pub mod agent;
pub mod cli;
pub mod ike;
pub mod model;
pub mod protect;
pub mod xfrm;
