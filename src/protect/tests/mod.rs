//! The invariants of the plan, checked on random kernels.

mod absence;
mod link;
mod opening;
mod pair;
mod place;
mod plan;
mod policies;
mod succession;
mod trial;
mod unproven;
