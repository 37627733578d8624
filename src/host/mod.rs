//! DECIDES: the life of one host. [`core`] brings the key exchange, the pairs and a kernel together; the rest is what
//! it goes by, what is remembered and when, and what is said of it. No clock, socket or file of its own: simulations
//! run this very code.

pub mod absent;
pub mod accounts;
pub mod alerts;
pub mod core;
pub mod differs;
pub mod due;
pub mod guard;
pub mod kernel;
pub mod known;
pub mod pace;
pub mod pairs;
pub mod probe;
pub mod scheme;
pub mod seldom;
pub mod setup;
#[cfg(test)]
mod sim;
pub mod timers;
pub mod unlisted;
pub mod unsaved;
