//! KEEPS what survives an agent, and reads what the operator wrote.
//!
//! The one room of nouns that touches files: the configuration and the last one that was good, the secrets and keys
//! that it names, what outlives a reboot, and the mark of a host that was enabled. What it writes is there whole or as
//! before, also after a power cut, and nobody but root can read it. It decides nothing.

mod audit;
mod cluster;
pub mod config_file;
pub mod credentials;
pub mod enabled;
pub mod kms;
pub mod owner;
mod places;
pub mod private_file;
pub mod publish;
mod saved;
mod saved_lease;
mod wrapped;

pub use audit::{
    AuditBatch, AuditEvent, AuditFiles, AuditFlaw, AuditKind, AuditVerdict, AuditWritten, ChainHead, LineHash,
};
pub use cluster::{
    ClusterFiles, ClusterFilesError, ClusterState, NodeKeys, config_with, member_config, settings_in_force,
    shared,
};
pub use credentials::CredentialsError;
pub use owner::OwnerError;
pub use places::{Places, addresses_in};
pub use private_file::PrivateFileError;
pub use saved::{HostRecord, PairRecord, Saved, SavedError};
pub use saved_lease::SavedLease;
pub use wrapped::WrappedFileError;
