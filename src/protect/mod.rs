//! DECIDES what a kernel should hold: for each pair of addresses the stages from clear to sealed and back
//! ([`pair`]), the reports that its two ends send each other ([`report`]), the policies of each stage ([`policies`]),
//! and the ordered changes that a kernel needs ([`plan()`]). Pure: time comes in as an argument, kernel changes go out
//! as values.
//!
//! A pair is *open* while this end accepts clear packets, and *sealed* once it does not: nothing else opens here.
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
