//! hostseal encrypts everything that the Linux hosts of a cluster say to each other, inside the kernel.
//!
//! Decide apart from act. What decides is a pure state machine: time and entropy come in as arguments,
//! datagrams and kernel changes go out as values. What acts takes no decisions. One loop joins them.
//!
//! ```text
//! types    NOUNS    pairs, SAs, policies, kernel changes as values; "is it ours?". Touches nothing
//! identity NOUNS    secrets, keys, certificates: how a host proves who it is. Touches nothing
//! ike      DECIDES  IKEv2, sans-IO: datagrams in, datagrams and agreed children out. Touches nothing
//! config   READS    the file: its grammar, what is wrong with it, what another one changes. Touches nothing
//! protect  DECIDES  staged transitions of each pair, what its ends tell each other; plan: (desired, actual) -> ordered
//!                   changes. Touches nothing
//! roster   DECIDES  who belongs to a cluster and what all of it is to do: a set of signed entries. Touches nothing
//! store    KEEPS    what survives, and the operator's files. Touches files
//! observe  TELLS    status, progress, problems and reasons in words. Touches nothing
//! control  NOUNS    what the command line and the agent say to each other. Touches nothing
//! host     DECIDES  one host's whole life: joins `ike` and `protect` with a kernel. Touches nothing
//! machine  ASKS     this machine: addresses, routes, settings, its start. Touches rtnetlink and /proc, changes nothing
//! xfrm     ACTS     netlink: writes, reads and hears the kernel's IPsec tables. Touches netlink and IPsec sockets
//! agent    JOINS    the loop, its sockets and files, the control socket. Touches everything
//! cli      ASKS     commands; knows the control protocol, and reads `machine` and `xfrm`
//! ```
//! Imports go one way: `types` <- `identity` <- `config` <- `store` <- `observe` <- `control`; `types` and `identity`
//! <- `ike`; `types` and `config` <- `protect`; `types` and `identity` <- `roster` <- `store`; `types` <- {`machine`, `xfrm`};
//! {`ike`, `protect`} <- `host` <- `agent`, which knows all but `cli`; all but the deciders <- `cli`. Of the deciders
//! `observe` knows `reason` alone: it turns why they fail into words. `tests/layering.rs` enforces it, and what each room
//! may touch.
//!
//! # Invariants, and the tests that would catch their loss
//! 1. **Sealed means sealed.** A sealed pair is protected or dropped after every prefix of every sequence
//!    of changes (`protect::tests::plan`, `host::sim::cluster`, and
//!    `host::sim::secret` where the secret is withdrawn). There is one exception: the random numbers that `prove` sends
//!    past all policies to see them refused (`host::prover`).
//! 2. **IN before OUT.** An outbound SA is used only when a probe has come through it and the other end
//!    said so; an inbound SA outlives its last packet (`host::sim::cluster`: nothing is ever lost).
//! 3. **A key lives once.** One pair, one direction, one lifetime (`protect::tests::plan`; the simulated
//!    kernel refuses a key that it has seen).
//! 4. **Only ours.** We list, change and delete only what carries our mark (`types::ours`;
//!    `protect::tests::plan`, and the lab with strangers' objects in the kernel).
//! 5. **Secrets cannot print, clone or linger** (`identity::Secret`, `types::SaKey`, `agent::process`).
//! 6. **Time and entropy are arguments** in every decider (`tests/layering.rs`).
//! 7. **Bounded.** Every table, queue, retry and allocation that a packet can cause has a limit and a
//!    counter (`ike::tests::bounds`, `ike::tests::abuse`, `ike::tests::join`, `host::joiner::tests`, `agent::control`, and the lab under
//!    floods).
//! 8. **Counters never go backwards** (`host::accounts`, `host::sim::cluster`, and the lab).
//! 9. **Nothing that arrives can panic the agent** (property tests of every parser, and `fuzz/`).
//! 10. **No key of an unproven party reaches the kernel** of a sealed pair (`protect::tests::unproven`; the
//!     simulated kernel refuses one after any prefix, `host::sim::imposter`; the fuzz target `engine`; and the
//!     lab, where somebody answers in a member's place). None comes out of a control IKE SA (`ike::tests::childless`).
//! 11. **What comes out of an SA is its peer's.** Every SA carries the selector of its two addresses
//!     (`xfrm::tests::golden`, `host::sim::reconfigure`, and the lab with attackers).
//! 12. **Status never says better than the kernel is**, and never worse. It is read, not inferred
//!     (`observe::status::tests`, `observe::strangers::tests`, and the lab: `fate`, `strangers`, `holes`).
//! 13. **What is not ours passes as before, or is named**: multicast, broadcast, what is forwarded, IPsec of other
//!     software (`protect::guard`, `host::sim::beside`, `observe::strangers::tests`, and the lab: `beside`, `strangers`).

// Invariant 9. Where something is certain, `expect` takes a reason.
#![cfg_attr(
    not(any(test, fuzzing)),
    deny(clippy::expect_used, clippy::panic, clippy::todo, clippy::unreachable, clippy::unwrap_used)
)]

#[cfg(all(feature = "key-export", not(debug_assertions)))]
compile_error!("the feature `key-export` gives keys away: no optimised build has it");

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod host;
pub mod identity;
pub mod ike;
pub mod machine;
pub mod observe;
pub mod protect;
pub mod roster;
pub mod store;
pub mod types;
pub mod xfrm;
