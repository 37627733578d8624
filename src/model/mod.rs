//! The nouns: what the rest of hostseal talks about. Nothing here decides, acts or imports another layer.

pub mod kernel;
pub mod op;
pub mod ours;
pub mod pair;
pub mod policy;
pub mod sa;
pub mod secret;
pub mod word;

pub use kernel::KernelState;
pub use op::{Op, OpError};
pub use pair::Pair;
pub use policy::{Action, Policy, PolicyDirection, PolicyId, PolicyReading, Selector};
pub use sa::{Direction, EspSuite, Limits, NewChild, Sa, SaId, SaKey, SaReading, Spi};
pub use secret::Secret;
pub use word::Word;
