//! What `hostseal doctor` finds: checks of this host and of each peer, made of what was read, and what to do.
//!
//! ```text
//! check    one check: what it is called, what came of it, what to do
//! host     checks of this host
//! key      checks of the key that wraps its secret
//! peer     checks of each peer
//! member   checks of each node of a cluster
//! finding  what was found out of a pair by asking
//! knock    what is asked and answered where no agents can talk
//! ```
//! A check that says what a problem of `status` says is made of that problem.

mod check;
mod finding;
mod host;
mod key;
pub mod knock;
mod member;
mod peer;
#[cfg(test)]
mod tests;

pub use check::{Check, CheckId, CheckResult, Diagnosis};
pub use finding::{BothWays, PairFinding, PathWays};
pub use host::{CredentialsState, DiskRoom, HostEvidence, PortState, of_host};
pub use key::KmsWay;
pub use member::{MemberChecks, of_member};
pub use peer::{PeerEvidence, of_peers};
