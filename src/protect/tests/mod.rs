//! The invariants of the plan, checked on random kernels.

mod pair;
mod plan;
mod policies;
