//! Asks the agent over its control socket.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, SockAddr, Socket, Type};

use super::exit::{CommandError, Exit};
use crate::control;
use crate::control::{
    ClusterReply, ClusterRequest, ControlError, DoctorReply, DoctorRequest, ErrorCode, PlanLine, Preview,
    ProveOrder, ProvenPair, REPLY_LIMIT, Reply, Request,
};
use crate::observe::cluster::ClusterStatus;
use crate::observe::doctor::PairFinding;
use crate::observe::member_pairs::ClusterPairs;
use crate::observe::status::Status;
use crate::observe::{Figures, Progress};
use crate::types::NodeName;

/// How long the agent may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to say how things stand. One that takes longer counts as hung.
pub(super) const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// The same where a monitoring system waits.
const FIGURES_PATIENCE: Duration = Duration::from_secs(2);
/// How soon it asks again there, where the agent had no room.
const AGAIN: Duration = Duration::from_millis(50);

/// Octets of an answer that are read at once: one of thousands of pairs is large.
const READ_AT_ONCE: usize = 64 << 10;

/// How long it may take to prove a pair: others may be proven before it.
const PROOF_PATIENCE: Duration = Duration::from_secs(120);

/// Where the agent is. Each question goes over a new connection.
#[derive(Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no agent runs ({} does not answer)", .0.display())]
    NoAgent(PathBuf),
    #[error("{}: permission denied; run as root", .0.display())]
    NotPermitted(PathBuf),
    #[error("the agent ({}) has no room for this question, as others ask too much, or it ends: try again", .0.display())]
    HungUp(PathBuf),
    #[error("the agent ({}) did not answer in time. It is busy or hangs: try again, and see its log", socket.display())]
    TimedOut { socket: PathBuf, pid: Option<i32> },
    #[error("asking the agent ({}): {source}", socket.display())]
    Io { socket: PathBuf, source: io::Error },
    #[error("the agent's answer: {0}")]
    Answer(#[from] ControlError),
    #[error("the agent gave another answer than the one to {0}: update and restart it")]
    Mismatch(&'static str),
    #[error(
        "the agent is older than this command and does not know it: restart the agent (`systemctl restart hostseal`)"
    )]
    Older,
    #[error("{message}")]
    Refused { code: ErrorCode, message: String },
}

impl From<AskError> for CommandError {
    fn from(error: AskError) -> Self {
        let exit = match &error {
            AskError::NoAgent(_) => Exit::NoAgent,
            AskError::NotPermitted(_) => Exit::NotPermitted,
            AskError::Refused { code: ErrorCode::NotPermitted, .. } => Exit::NotPermitted,
            AskError::Refused { code: ErrorCode::Configuration, .. } => Exit::Usage,
            _ => Exit::Failed,
        };
        match error {
            AskError::NoAgent(_) => Self::new(exit, format!("{error}: `hostseal enable` starts one")),
            error => Self::new(exit, error),
        }
    }
}

/// What another reply than the one to `request` means.
pub(super) fn mismatch(request: ClusterRequest) -> AskError {
    AskError::Mismatch(Request::Cluster(request).in_words())
}

impl Client {
    pub(super) fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Whether an agent answers.
    pub(super) fn is_there(&self) -> Result<bool, AskError> {
        match self.order(Request::Ping) {
            Ok(()) => Ok(true),
            Err(AskError::NoAgent(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// How things stand.
    pub(super) fn status(&self) -> Result<Status, AskError> {
        self.status_within(PATIENCE)
    }

    /// The same, but gives up after `patience`: the caller can ask the kernel instead.
    pub(super) fn status_within(&self, patience: Duration) -> Result<Status, AskError> {
        match self.ask_within(&Request::Status, patience)? {
            Reply::Status(status) => Ok(*status),
            _ => Err(AskError::Mismatch(Request::Status.in_words())),
        }
    }

    /// The same for one of many who look: an agent that has no room is asked again, until `patience` is over.
    pub(super) fn status_in_turn(&self, patience: Duration) -> Result<Status, AskError> {
        match self.ask_until(&Request::Status, Instant::now() + patience)? {
            (Reply::Status(status), _) => Ok(*status),
            _ => Err(AskError::Mismatch(Request::Status.in_words())),
        }
    }

    /// Likewise how the pairs of all nodes stand; `None` where this host belongs to no cluster, or its agent does not know
    /// the question.
    pub(super) fn pairs_in_turn(&self, patience: Duration) -> Result<Option<ClusterPairs>, AskError> {
        let request = Request::Cluster(ClusterRequest::Pairs);
        match self.ask_until(&request, Instant::now() + patience) {
            Ok((Reply::Cluster(ClusterReply::Pairs(pairs)), _)) => Ok(Some(*pairs)),
            Ok(_) => Err(AskError::Mismatch(request.in_words())),
            Err(AskError::Refused { code: ErrorCode::Cluster | ErrorCode::BadRequest, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// How things stand, in numbers: of each pair if that is wanted, or as the configuration of the agent says. A host
    /// whose agent takes so long that `status` does not wait for it is not healthy.
    pub(super) fn figures(&self, pairs: Option<bool>) -> Result<Figures, AskError> {
        let deadline = Instant::now() + FIGURES_PATIENCE;
        let request = Request::MetricsTable { pairs };
        let answer = match self.ask_until(&request, deadline) {
            // An earlier agent, which has them in words alone.
            Err(AskError::Refused { code: ErrorCode::BadRequest, .. }) => {
                self.ask_until(&Request::Metrics { pairs }, deadline)
            }
            answer => answer,
        };
        let (figures, took) = match answer {
            Ok((Reply::Table(table), took)) => (table.into_figures()?, took),
            Ok((Reply::Figures(figures), took)) => (*figures, took),
            Ok(_) => return Err(AskError::Mismatch(request.in_words())),
            Err(AskError::Refused { code: ErrorCode::BadRequest, .. }) => return Err(AskError::Older),
            Err(error) => return Err(error),
        };
        Ok(Figures { healthy: figures.healthy && took < STATUS_PATIENCE, ..figures })
    }

    /// What the agent would change now.
    pub(super) fn plan(&self) -> Result<Vec<PlanLine>, AskError> {
        self.plan_by(Request::Plan)
    }

    /// What it would change if its configuration were `text`, which is in `file`.
    pub(super) fn preview(&self, file: PathBuf, text: String) -> Result<Preview, AskError> {
        let request = Request::Preview { file: file.clone(), text: text.clone() };
        match self.ask(&request) {
            Ok(Reply::Preview(preview)) => Ok(preview),
            // An earlier agent, which does not say what the file changes.
            Err(AskError::Refused { code: ErrorCode::BadRequest, .. }) => {
                let kernel = self.plan_by(Request::PlanWith { file, text })?;
                Ok(Preview { kernel, ..Preview::default() })
            }
            Ok(_) => Err(AskError::Mismatch(request.in_words())),
            Err(error) => Err(error),
        }
    }

    fn plan_by(&self, request: Request) -> Result<Vec<PlanLine>, AskError> {
        match self.ask(&request)? {
            Reply::Plan(lines) => Ok(lines),
            _ => Err(AskError::Mismatch(request.in_words())),
        }
    }

    /// Has the agent take its files as they are now; returns the changes.
    pub(super) fn reload(&self) -> Result<Vec<String>, AskError> {
        match self.ask(&Request::Reload)? {
            Reply::Reloaded(changes) => Ok(changes),
            _ => Err(AskError::Mismatch(Request::Reload.in_words())),
        }
    }

    /// What has changed after a revision. An agent with nothing to tell answers after `hold`, or earlier.
    pub(super) fn follow(&self, after: u64, hold: Duration) -> Result<Progress, AskError> {
        // Rounded up: whoever waits for a moment would ask again and again in the last millisecond before it.
        let hold_ms = u64::try_from(hold.as_millis() + 1).unwrap_or(u64::MAX);
        let request = Request::Follow { after, hold_ms };
        match self.ask(&request)? {
            Reply::Progress(progress) => Ok(progress),
            _ => Err(AskError::Mismatch(request.in_words())),
        }
    }

    /// What of the paths to the peers is open; an agent that takes longer than `patience` is not waited for.
    pub(super) fn examine(
        &self,
        node: Option<NodeName>,
        patience: Duration,
    ) -> Result<Vec<PairFinding>, AskError> {
        let request = Request::Doctor(DoctorRequest { node });
        match self.ask_within(&request, patience) {
            Ok(Reply::Doctor(DoctorReply { findings })) => Ok(findings),
            Ok(_) => Err(AskError::Mismatch(request.in_words())),
            Err(AskError::Refused { code: ErrorCode::BadRequest, .. }) => Err(AskError::Older),
            Err(error) => Err(error),
        }
    }

    /// Has the agent do something.
    pub(super) fn order(&self, request: Request) -> Result<(), AskError> {
        match self.ask(&request)? {
            Reply::Done => Ok(()),
            _ => Err(AskError::Mismatch(request.in_words())),
        }
    }

    /// Asks or orders something about the cluster.
    pub(super) fn cluster(&self, request: ClusterRequest) -> Result<ClusterReply, AskError> {
        self.cluster_within(request, PATIENCE)
    }

    /// The same, where the answer may take longer.
    pub(super) fn cluster_within(
        &self,
        request: ClusterRequest,
        patience: Duration,
    ) -> Result<ClusterReply, AskError> {
        let request = Request::Cluster(request);
        match self.ask_within(&request, patience) {
            Ok(Reply::Cluster(reply)) => Ok(reply),
            Ok(_) => Err(AskError::Mismatch(request.in_words())),
            Err(AskError::Refused { code: ErrorCode::BadRequest, .. }) => Err(AskError::Older),
            Err(error) => Err(error),
        }
    }

    /// How the cluster stands.
    pub(super) fn cluster_status(&self) -> Result<ClusterStatus, AskError> {
        match self.cluster(ClusterRequest::Status)? {
            ClusterReply::Status(status) => Ok(*status),
            _ => Err(mismatch(ClusterRequest::Status)),
        }
    }

    /// Has the cluster do something; returns what follows from it, in words.
    pub(super) fn cluster_order(&self, request: ClusterRequest) -> Result<Vec<String>, AskError> {
        match self.cluster(request.clone())? {
            ClusterReply::Done { notes } => Ok(notes),
            _ => Err(mismatch(request)),
        }
    }

    /// Has the agent prove a pair.
    pub(super) fn prove(&self, order: ProveOrder) -> Result<ProvenPair, AskError> {
        let request = Request::Prove(order);
        match self.ask_within(&request, PROOF_PATIENCE) {
            Ok(Reply::Proof(proven)) => Ok(*proven),
            Ok(_) => Err(AskError::Mismatch(request.in_words())),
            Err(AskError::Refused { code: ErrorCode::BadRequest, .. }) => Err(AskError::Older),
            Err(error) => Err(error),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply, AskError> {
        self.ask_within(request, PATIENCE)
    }

    /// Whether an agent has left its socket, or has it still: one that goes back to the clear and ends takes it away.
    pub(super) fn is_socket_there(&self) -> bool {
        let found = fs::symlink_metadata(&self.socket);
        !found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// Asks again where the agent hangs up: others may have taken all room, and one that has ended is not there then.
    /// Says how long the answer took.
    fn ask_until(&self, request: &Request, deadline: Instant) -> Result<(Reply, Duration), AskError> {
        loop {
            let asked = Instant::now();
            // No time at all would be no limit.
            let left = deadline.saturating_duration_since(asked).max(AGAIN);
            match self.ask_once(request, left) {
                Err(AskError::HungUp(_)) if Instant::now() + AGAIN < deadline => thread::sleep(AGAIN),
                outcome => return outcome.map(|reply| (reply, asked.elapsed())),
            }
        }
    }

    fn ask_within(&self, request: &Request, patience: Duration) -> Result<Reply, AskError> {
        self.ask_once(request, patience).map_err(|error| match error {
            AskError::HungUp(socket) => AskError::NoAgent(socket),
            error => error,
        })
    }

    fn ask_once(&self, request: &Request, patience: Duration) -> Result<Reply, AskError> {
        let mut pid = None;
        let line = self.exchange(request, patience, &mut pid).map_err(|source| self.explain(source, pid))?;
        match control::decode_reply(&line)? {
            Reply::Error { code, message } => Err(AskError::Refused { code, message }),
            reply => Ok(reply),
        }
    }

    /// Notes the agent's `pid` as soon as that is known.
    fn exchange(&self, request: &Request, patience: Duration, pid: &mut Option<i32>) -> io::Result<Vec<u8>> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_read_timeout(Some(patience))?;
        // It is the patience for the connection, too: an agent that hangs accepts none.
        socket.set_write_timeout(Some(patience))?;
        socket.connect(&SockAddr::unix(&self.socket)?)?;
        let mut stream = UnixStream::from(OwnedFd::from(socket));
        *pid = getsockopt(&stream, sockopt::PeerCredentials).ok().map(|agent| agent.pid());
        stream.write_all(control::encode_request(request).as_bytes())?;
        let mut line = Vec::new();
        // One byte more than allowed, so that too much is seen as such.
        BufReader::with_capacity(READ_AT_ONCE, stream)
            .take(REPLY_LIMIT as u64 + 1)
            .read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended without an answer"));
        }
        Ok(line)
    }

    fn explain(&self, source: io::Error, pid: Option<i32>) -> AskError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NoAgent(socket),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                AskError::HungUp(socket)
            }
            io::ErrorKind::PermissionDenied => AskError::NotPermitted(socket),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => AskError::TimedOut { socket, pid },
            _ => AskError::Io { socket, source },
        }
    }
}
