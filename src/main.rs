//! The `hostseal` command: dispatch only.

fn main() {}
