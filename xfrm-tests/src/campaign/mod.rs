//! The campaigns: what takes too long for the tests. Each has its own command (`docs/contributing.md`),
//! prints what it found, and ends with 1 when that is not what the product promises.

pub mod faults;
pub mod interop;
pub mod kms;
mod measure;
pub mod soak;
pub mod transitions;
