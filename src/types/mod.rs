//! NOUNS: what all of hostseal talks about, as values.
//!
//! Pairs of addresses, the SAs and policies of a kernel, the changes that are asked of it, what two hosts can agree on,
//! what a system says of its network, how things stand and what is wrong. [`ours`] is the one test "is it ours?".
//!
//! Values and what follows from them: no clock, no entropy, no file, no socket, and no other room of this house. Types
//! that many use stand here; the others are used by the name of their file, as `units::listed`.

mod boot;
mod bounds;
mod bundle;
mod encapsulation;
pub mod exempt;
mod family;
mod forwarding;
pub mod generation;
mod hole;
pub mod host_address;
mod inside;
mod kernel;
mod link;
mod method;
pub mod node_name;
mod nonce;
mod op;
pub mod ours;
mod pair;
mod policy;
mod problem;
mod proposal;
mod sa;
mod state;
pub mod stranger;
mod tally;
mod traffic;
pub mod trial;
pub mod units;
mod unready;

pub use boot::Boot;
pub use bounds::Bounds;
pub use bundle::{Bundle, Through};
pub use encapsulation::{EncapsulationMode, UdpPorts};
pub use exempt::Exemption;
pub use family::Family;
pub use forwarding::Forwarding;
pub use hole::{Hole, HoleKind};
pub use inside::Inside;
pub use kernel::{KernelSight, KernelState, PolicyTable, SaTable, SasByEnds};
pub use link::{Link, LinkAddress, LinkCounters, NetworkNews, Source, Sources, Vrfs, WaysOut};
pub use method::Method;
pub use node_name::NodeName;
pub use nonce::{NONCE_DATAGRAM, NONCES_LEAST, NONCES_MOST, Nonce, NonceKind, ROUNDS_MOST};
pub use op::{KeySource, Op, OpError};
pub use ours::Reqid;
pub use pair::Pair;
pub use policy::{Action, Block, Policy, PolicyDirection, PolicyId, PolicyReading, Ports, Selector};
pub use problem::{Problem, ProblemCode, Severity};
pub use proposal::{
    AdditionalKe, EspProposal, Group, IkeCipher, IkeProposal, Integrity, KeyExchange, Prf, Proposals,
};
pub use sa::{Direction, EspSuite, Limits, NewChild, NewInbound, Sa, SaId, SaKey, SaReading, Spi};
pub use state::{Protection, ReasonCode, RowState};
pub use tally::{AgentTally, DroppedDatagrams, Durations, IkeFailures, Outcomes, Rekeys, Repairs};
pub use traffic::{SaErrors, Traffic, Volume};
pub use trial::Trial;
pub use units::UnixTime;
pub use unready::Unready;
