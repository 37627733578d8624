//! TELLS how things stand: status rows, progress, problems, errors and differences in words.
//!
//! The content is here, not the looks: the agent fills it in, and `cli` renders it. Nothing here reads a clock, a file
//! or a kernel: they come in as values.

mod about;
pub mod audit;
pub mod causes;
pub mod client_ports;
pub mod cluster;
pub mod cluster_figures;
pub mod default_blocks;
mod differs;
pub mod doctor;
pub mod exam;
pub mod explain;
pub mod figures;
pub mod forwarding;
pub mod holes;
pub mod kms;
pub mod member_key;
pub mod member_pairs;
mod member_proof;
mod member_report;
pub mod metrics;
pub mod pair_proof;
mod progress;
pub mod proof_report;
pub mod snapshot;
pub mod sources;
pub mod status;
pub mod strangers;
pub mod totals;
pub mod unpaired;
pub mod ways_out;
pub mod wrapping;

pub use about::About;
pub use figures::Figures;
pub use kms::KeyReport;
pub use member_proof::MemberProving;
pub use member_report::{MemberPlan, MemberReport, MemberWord};
pub use progress::{Progress, RowProgress};
pub use snapshot::Snapshot;
