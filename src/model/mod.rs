//! The nouns: what the rest of hostseal talks about. Nothing here decides, acts or imports another layer.

pub mod about;
pub mod auth;
pub mod bounds;
pub mod causes;
pub mod certificate;
pub mod config;
pub mod control;
pub mod enabled;
pub mod encapsulation;
pub mod exempt;
pub mod forwarding;
pub mod host;
pub mod inside;
pub mod kernel;
pub mod key;
pub mod op;
pub mod ours;
pub mod pair;
pub mod policy;
pub mod problem;
pub mod progress;
pub mod proposal;
pub mod sa;
pub mod saved;
pub mod secret;
pub mod status;
pub mod stranger;
pub mod trial;
pub mod units;
pub mod unpaired;
pub mod word;

pub use about::About;
pub use auth::{AuthMethod, Credentials};
pub use bounds::Bounds;
pub use config::{Config, Node, NodeName};
pub use encapsulation::{EncapsulationMode, UdpPorts};
pub use exempt::Exemption;
pub use inside::Inside;
pub use kernel::KernelState;
pub use key::{PrivateKey, PublicKey};
pub use op::{KeySource, Op, OpError};
pub use pair::Pair;
pub use policy::{Action, Policy, PolicyDirection, PolicyId, PolicyReading, Selector};
pub use problem::{Problem, ProblemCode};
pub use progress::{Progress, RowProgress};
pub use proposal::{
    AdditionalKe, EspProposal, Group, IkeCipher, IkeProposal, Integrity, KeyExchange, Prf, Proposals,
};
pub use sa::{Direction, EspSuite, Limits, NewChild, NewInbound, Sa, SaId, SaKey, SaReading, Spi};
pub use saved::Saved;
pub use secret::Secret;
pub use status::Status;
pub use trial::Trial;
pub use units::UnixTime;
pub use word::Word;
