//! The lab of hostseal: a real kernel with ESP, hosts as namespaces on it, real peers, captures; and what
//! is done with it: tests, campaigns, the demo, benchmarks. `docs/lab.md` tells how to use it.

pub mod bench;
pub mod campaign;
mod demo;
pub mod harness;
pub mod lab;
pub mod scenarios;
pub mod shows;
pub mod tests;
