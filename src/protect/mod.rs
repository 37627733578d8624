//! DECIDES what a kernel should hold: per pair of addresses the staged way from clear to sealed and back
//! ([`pair`]), what its two ends tell each other ([`report`]) and when, the policies of each stage ([`policies`]), and the
//! ordered difference between what should be and what is ([`plan()`]). Pure: time comes in as an argument, kernel changes go out as values.
//!
//! ```text
//!             child proven both ways      both ends send      a grace
//!   observing ----------------------> sending ------------> settled ----> sealed
//!   (clear, ESP accepted)            (ESP out, both in)                  (ESP or nothing)
//!       ^                                                                   |
//!       '---- clear <---- OUT policy out <---- opening (both accepted) <----'  disable, here or by the peer
//! ```

pub mod child;
pub mod clock;
mod guard;
pub mod pair;
pub mod path_memory;
pub mod path_mtu;
pub mod plan;
pub mod policies;
mod proof;
pub mod reason;
pub mod report;
pub mod silence;
mod talk;
pub mod timing;

pub use child::Child;
pub use guard::{GUARDS_MOST, Guard, GuardRules};
pub use pair::{Adopted, AdoptedSa, Away, Beside, IkeOrder, Order, PairMachine, Rules};
pub use plan::{Desired, Indexes, Plan, plan};

#[cfg(test)]
mod tests;
