//! The control protocol between the command line and the agent: one JSON object a line over the Unix
//! socket, a [`Request`] one way and a [`Reply`] the other. A connection may carry several, in turn.
//!
//! ```text
//! > {"v":1,"request":"enable"}
//! < {"v":1,"reply":"done"}
//! > {"v":1,"request":{"enable_with":{"strict":true}}}
//! < {"v":1,"reply":"done"}
//! > {"v":1,"request":"plan"}
//! < {"v":1,"reply":{"error":{"code":"failed","message":"…"}}}
//! ```

mod cluster;
mod doctor;
mod member_proof;
mod metrics;
mod newcomer;
mod prove;
mod seats;

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::cluster::{
    AddOrder, ClusterReply, ClusterRequest, FloatingOrder, FloatingRow, MoveOrder, NodePlan, SecretLine,
    SettingsOrder, TokenOrder,
};
pub use self::doctor::{DoctorReply, DoctorRequest, NodeChecks};
pub use self::member_proof::{MemberProofReply, MemberProofRequest};
pub use self::metrics::FiguresTable;
pub use self::newcomer::{FormerMember, NewCluster, NewMember};
pub use self::prove::{ProveOrder, ProvenPair};
pub use self::seats::{SeatId, SeatLimits, SeatOwner, Seats};
use crate::observe::status::Status;
use crate::observe::{Figures, Progress};
use crate::types::Op;

/// The version of the protocol.
pub const VERSION: u32 = 1;
/// The longest request in bytes, with its line end: a configuration of 10,000 nodes is a quarter of it.
pub const REQUEST_LIMIT: usize = 4 * 1024 * 1024;
/// The longest reply in bytes, with its line end: a status of 10,000 pairs is a quarter of it.
pub const REPLY_LIMIT: usize = 64 * 1024 * 1024;

/// What the command line asks of the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Are you there? Answered by [`Reply::Done`].
    Ping,
    /// How do things stand? Answered by [`Reply::Status`].
    Status,
    /// Protect this host. Answered by [`Reply::Done`] once that is persisted, before it is in force.
    Enable,
    /// The same on other terms. It is a separate request, so that older agents and commands still agree on `enable`.
    EnableWith(Terms),
    /// Keep what was enabled on trial. Answered by [`Reply::Done`] once that is in force, and where protection
    /// is on for good already.
    Confirm,
    /// Take this host back to the clear. Answered as [`Request::Enable`].
    Disable,
    /// What would you change now? Answered by [`Reply::Plan`].
    Plan,
    /// What has changed? Answered by [`Reply::Progress`], as soon as something has or the time is over.
    Follow {
        /// The revision that the asker knows; 0 for none, which is answered with all rows.
        after: u64,
        /// For how many milliseconds the answer may be held. The agent may answer earlier.
        hold_ms: u64,
    },
    /// What would you change if your configuration were another? Answered by [`Reply::Plan`], or an error of the
    /// configuration.
    PlanWith {
        /// What errors call it.
        file: PathBuf,
        /// What it says: the agent cannot read files that are not its own.
        text: String,
    },
    /// The same, with what the file says otherwise. Answered by [`Reply::Preview`].
    Preview {
        /// As in [`Request::PlanWith`].
        file: PathBuf,
        /// The same.
        text: String,
    },
    /// How do things stand, in numbers? Answered by [`Reply::Figures`].
    Metrics {
        /// Whether those of each pair are wanted; `None` where the configuration is to say it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pairs: Option<bool>,
    },
    /// The same, answered by [`Reply::Table`].
    MetricsTable {
        /// As in [`Request::Metrics`].
        pairs: Option<bool>,
    },
    /// Take the files as they are now. Answered by [`Reply::Reloaded`], or an error of the configuration.
    Reload,
    /// Something about the cluster that this host is a member of. Answered by [`Reply::Cluster`].
    Cluster(ClusterRequest),
    /// What of the paths to the peers is open? Answered by [`Reply::Doctor`], when that is found out.
    Doctor(DoctorRequest),
    /// Prove that a pair is sealed. Answered by [`Reply::Proof`], within half a minute.
    Prove(ProveOrder),
}

impl Request {
    /// Whether it changes nothing and tells nothing that is secret: whoever may look may ask it.
    pub fn only_looks(&self) -> bool {
        matches!(
            self,
            Request::Ping
                | Request::Status
                | Request::Follow { .. }
                | Request::Metrics { .. }
                | Request::MetricsTable { .. }
                | Request::Cluster(ClusterRequest::Status | ClusterRequest::Pairs)
        )
    }

    /// What it is called.
    pub fn in_words(&self) -> &'static str {
        match self {
            Request::Ping => "\"are you there\"",
            Request::Status => "\"status\"",
            Request::Enable | Request::EnableWith(_) => "\"enable\"",
            Request::Confirm => "\"confirm\"",
            Request::Disable => "\"disable\"",
            Request::Plan => "\"plan\"",
            Request::Follow { .. } => "\"follow\"",
            Request::PlanWith { .. } | Request::Preview { .. } => "\"plan\" with another file",
            Request::Metrics { .. } | Request::MetricsTable { .. } => "\"metrics\"",
            Request::Reload => "\"reload\"",
            Request::Prove(_) => "\"prove\"",
            Request::Cluster(_) => "an order about the cluster",
            Request::Doctor(_) => "\"doctor\"",
        }
    }
}

/// On which terms a host is protected; by default in stages, and for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Terms {
    /// Block what cannot be encrypted yet, rather than send it in the clear meanwhile.
    #[serde(default)]
    pub strict: bool,
    /// Go back to the clear after so many seconds, unless [`Request::Confirm`] comes before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub try_s: Option<u64>,
}

impl From<Terms> for Request {
    fn from(terms: Terms) -> Self {
        if terms == Terms::default() { Request::Enable } else { Request::EnableWith(terms) }
    }
}

/// What the agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Accepted.
    Done,
    /// How things stand.
    Status(Box<Status>),
    /// How things stand, in numbers.
    Figures(Box<Figures>),
    /// The same as a table.
    Table(Box<FiguresTable>),
    /// What would change, in order; empty for nothing.
    Plan(Vec<PlanLine>),
    /// What has changed.
    Progress(Progress),
    /// What another file would change.
    Preview(Preview),
    /// What has changed, in words; empty for nothing.
    Reloaded(Vec<String>),
    /// What was asked about the cluster.
    Cluster(ClusterReply),
    /// What was found out of the paths.
    Doctor(DoctorReply),
    /// What was found of a pair.
    Proof(Box<ProvenPair>),
    /// Refused.
    Error {
        /// Why, for programs.
        code: ErrorCode,
        /// Why, and what to do next, in words.
        message: String,
    },
}

/// What another file would change.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Preview {
    /// Its differences from the file in force, in the words of [`Reply::Reloaded`].
    pub file: Vec<String>,
    /// What the agent would change in the kernel at once, in order. Pairs that come change it as their keys are
    /// agreed.
    pub kernel: Vec<PlanLine>,
}

/// Why the agent refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is no request of this version.
    BadRequest,
    /// Whoever asks is not root.
    NotPermitted,
    /// The configuration or the secret is wrong.
    Configuration,
    /// This host belongs to no cluster, or may not order that there.
    Cluster,
    /// Anything else went wrong.
    Failed,
}

/// What happens to one kernel object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It appears.
    Add,
    /// It stays, and is changed.
    Update,
    /// It goes.
    Delete,
}

/// One line of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanLine {
    /// What happens.
    pub change: Change,
    /// To what, in words.
    pub object: String,
}

impl PlanLine {
    /// As a line of a diff.
    pub fn in_words(&self) -> String {
        let sign = match self.change {
            Change::Add => '+',
            Change::Update => '~',
            Change::Delete => '-',
        };
        format!("{sign} {}", self.object)
    }
}

impl From<&Op> for PlanLine {
    fn from(op: &Op) -> Self {
        let (change, object) = match op {
            Op::AddSa(sa) => (Change::Add, format!("{} ({} bits)", sa.id(), sa.suite.key_bits)),
            Op::DeleteSa(id) => (Change::Delete, id.to_string()),
            Op::AddPolicy { policy, .. } => (Change::Add, format!("{}: {}", policy.id(), policy.action)),
            Op::UpdatePolicy { policy, .. } => {
                (Change::Update, format!("{}: {}", policy.id(), policy.action))
            }
            Op::DeletePolicy { id, .. } => (Change::Delete, id.to_string()),
        };
        Self { change, object }
    }
}

/// Why a line could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The other end speaks another version.
    #[error(
        "the other end speaks version {0} of the control protocol, this one version {VERSION}: update and restart the agent"
    )]
    Version(u32),
    /// It is longer than allowed.
    #[error("a line of the control protocol may have {0} bytes")]
    TooLong(usize),
    /// It is no message of this protocol.
    #[error("not a message of the control protocol: {0}")]
    Malformed(String),
}

#[derive(Serialize, Deserialize)]
struct RequestLine {
    v: u32,
    request: Request,
}

#[derive(Serialize, Deserialize)]
struct ReplyLine {
    v: u32,
    reply: Reply,
}

/// A request as a line, with its line end.
pub fn encode_request(request: &Request) -> String {
    line(&RequestLine { v: VERSION, request: request.clone() })
}

/// A reply as a line, with its line end.
pub fn encode_reply(reply: Reply) -> String {
    line(&ReplyLine { v: VERSION, reply })
}

/// Reads a request; a line end at its end is allowed.
///
/// # Errors
/// It is too long, of another version, or no request.
pub fn decode_request(line: &[u8]) -> Result<Request, ControlError> {
    decode(line, REQUEST_LIMIT, |RequestLine { v, request }| (v, request))
}

/// Reads a reply; a line end at its end is allowed.
///
/// # Errors
/// It is too long, of another version, or no reply.
pub fn decode_reply(line: &[u8]) -> Result<Reply, ControlError> {
    decode(line, REPLY_LIMIT, |ReplyLine { v, reply }| (v, reply))
}

fn line(message: &impl Serialize) -> String {
    // Plain data with string keys: writing it to memory has nothing to fail at.
    let mut line = serde_json::to_string(message).unwrap_or_default();
    line.push('\n');
    line
}

fn decode<T: DeserializeOwned, M>(
    line: &[u8],
    limit: usize,
    parts: impl FnOnce(T) -> (u32, M),
) -> Result<M, ControlError> {
    #[derive(Deserialize)]
    struct AnyVersion {
        v: u32,
    }
    if line.len() > limit {
        return Err(ControlError::TooLong(limit));
    }
    match serde_json::from_slice(line).map(parts) {
        Ok((VERSION, message)) => Ok(message),
        Ok((v, _)) => Err(ControlError::Version(v)),
        // Of another version, nothing else can be expected to fit.
        Err(error) => Err(match serde_json::from_slice(line) {
            Ok(AnyVersion { v }) if v != VERSION => ControlError::Version(v),
            _ => ControlError::Malformed(error.to_string()),
        }),
    }
}

#[cfg(test)]
mod tests;
