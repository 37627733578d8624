//! What is read of this host. What cannot be read is a finding too, so nothing here fails but a name that no node has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::statvfs::statvfs;

use super::{key, knock};
use crate::cli::args::Invocation;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::{context, kernel_age, others, preflight, status};
use crate::config::{Config, ConfigError, Node};
use crate::identity::AuthMethod;
use crate::identity::certificate::{CertificateError, Subject};
use crate::identity::{Credentials, Identity};
use crate::observe::doctor::{CheckId, CredentialsState, DiskRoom, HostEvidence, PairFinding, PortState};
use crate::observe::status::{PeerRow, Status};
use crate::store::{CredentialsError, Saved, config_file, credentials};
use crate::types::{Family, NodeName, Pair, Problem, ReasonCode, RowState, UnixTime};
use crate::xfrm::Tables;

/// What is left of the time when the agent is waited for no longer.
const KEPT_BACK: Duration = Duration::from_secs(3);
/// The counters of the connections that the kernel tracks.
const CONNTRACK: &str = "/proc/sys/net/netfilter";

/// What was read.
pub(super) struct Gathered {
    file: String,
    config: Option<Config>,
    file_error: Option<ConfigError>,
    node: Option<Result<NodeName, String>>,
    credentials: Option<CredentialsState>,
    status: Option<Status>,
    forbidden: Option<String>,
    unread: Vec<(CheckId, String)>,
    esp: Vec<(Family, Result<(), String>)>,
    missing: Option<Vec<std::net::IpAddr>>,
    ports: Option<Vec<PortState>>,
    problems: Option<BTreeSet<Problem>>,
    findings: Vec<PairFinding>,
    now: UnixTime,
}

impl Gathered {
    /// Reads all of it, until `deadline`.
    ///
    /// # Errors
    /// There is no node called `only`.
    pub(super) fn gather(
        invocation: &Invocation,
        only: Option<&str>,
        deadline: Instant,
    ) -> Result<Self, CommandError> {
        let (config, file_error) = match config_file::load_or_last_good(&invocation.config) {
            Ok((config, error)) => (Some(config), error),
            Err(error) => (None, Some(error)),
        };
        let mut seen = Self {
            file: invocation.config.display().to_string(),
            config: None,
            file_error,
            node: None,
            credentials: None,
            status: None,
            forbidden: None,
            unread: Vec::new(),
            esp: Vec::new(),
            missing: None,
            ports: None,
            problems: None,
            findings: Vec::new(),
            now: UnixTime::from(SystemTime::now()),
        };
        match &config {
            Some(config) => seen.read(&invocation.config, config, (only, deadline))?,
            None => seen.esp = seen.try_kernel(&[Family::V4, Family::V6]),
        }
        seen.config = config;
        Ok(seen)
    }

    fn read(
        &mut self,
        file: &Path,
        config: &Config,
        (only, deadline): (Option<&str>, Instant),
    ) -> Result<(), CommandError> {
        if let Some(only) = only {
            status::check_names(config, &[only.to_owned()])?;
        }
        self.status = self.told(CheckId::Agent, status::read(file, config));
        if self.status.as_ref().is_some_and(|status| status.agent.answering && status.agent.running) {
            self.ask_peers(file, config, (only, deadline));
        }
        self.knock(config, only);
        let remembered = Saved::load(&config.state_path()).ok().and_then(|saved| saved.node);
        let node = context::whoami(config, remembered.as_ref());
        self.node = Some(match &node {
            Ok(node) => Ok(node.name.clone()),
            Err(error) => Err(error.message.clone()),
        });
        let Ok(node) = node else {
            self.esp = self.try_kernel(&[Family::V4, Family::V6]);
            return Ok(());
        };
        self.credentials = proof(config, node, self.now).map_err(|words| self.forbid(words)).ok();
        self.esp = self.try_kernel(&Family::all_of(&node.addresses));
        self.missing = context::missing_addresses(node).ok();
        let agent = self.status.as_ref().and_then(|status| status.agent.pid);
        // Who may not look at other processes cannot tell ours from others.
        let may_look = self.forbidden.is_none();
        self.ports = may_look.then(|| preflight::ports(config, node, agent).ok()).flatten();
        self.problems = self.system(config, node);
        Ok(())
    }

    /// Has the agent ask the peers. What it finds out `status` says too, where it is a problem.
    fn ask_peers(&mut self, file: &Path, config: &Config, (only, deadline): (Option<&str>, Instant)) {
        let node = only.and_then(|only| config.node_named(only)).map(|node| node.name.clone());
        let patience = deadline.saturating_duration_since(Instant::now()).saturating_sub(KEPT_BACK);
        let found = context::client(config).examine(node, patience).map_err(CommandError::from);
        let not_tried = |error: CommandError| CommandError {
            message: format!(
                "the paths were not tried now, so what is said of them may be old: {}",
                error.message
            ),
            ..error
        };
        self.findings = self.told(CheckId::UdpIke, found.map_err(not_tried)).unwrap_or_default();
        self.status = self.told(CheckId::Agent, status::read(file, config)).or(self.status.take());
    }

    /// Asks those that have not answered the agent, and are not protected: somebody may listen there.
    fn knock(&mut self, config: &Config, only: Option<&str>) {
        let Some(status) = &self.status else { return };
        let answered = |pair: Pair| {
            self.findings.iter().any(|it| (it.local, it.remote) == (pair.local, pair.remote) && it.asked)
        };
        let rows = status.peers.iter().filter(|row| {
            let wanted = only.is_none_or(|only| only == row.node.as_str());
            let is_mute = row.waiting
                || matches!(row.state, RowState::Off)
                || row.reason_code == Some(ReasonCode::NoAgent);
            wanted && is_mute && !answered(row.pair())
        });
        let pairs: Vec<Pair> = rows.map(PeerRow::pair).collect();
        for found in knock::knock(&pairs, (config.keying.port, config.keying.nat_port)) {
            let is_same = |it: &PairFinding| (it.local, it.remote) == (found.local, found.remote);
            match self.findings.iter_mut().find(|it| is_same(it)) {
                Some(known) if found.listens || found.refused => {
                    *known = PairFinding { knocks: known.knocks, ..found };
                }
                Some(_) => {}
                None => self.findings.push(found),
            }
        }
    }

    /// What is wrong with the system, as `status` says it: it does not look where protection is off.
    fn system(&mut self, config: &Config, node: &Node) -> Option<BTreeSet<Problem>> {
        let strangers = self.told(CheckId::OtherIpsec, others::problems(config, node))?;
        let holes = self.told(CheckId::Hole, others::holes(config, node))?;
        let told = self.status.iter().flat_map(|status| status.problems.iter().cloned());
        Some(strangers.into_iter().chain(holes).chain(status::beside(config, node)).chain(told).collect())
    }

    fn try_kernel(&mut self, families: &[Family]) -> Vec<(Family, Result<(), String>)> {
        let opened = Tables::open().map_err(|error| {
            CommandError::io("opening the kernel's IPsec tables (module xfrm_user)", &error)
        });
        let mut tables = match opened {
            Ok(tables) => tables,
            Err(error) if error.exit == Exit::NotPermitted => {
                self.forbid(error.message);
                return Vec::new();
            }
            Err(error) => return families.iter().map(|it| (*it, Err(error.message.clone()))).collect(),
        };
        let mut tried = Vec::new();
        for family in families {
            match tables.probe_esp(*family).map_err(CommandError::from) {
                Err(error) if error.exit == Exit::NotPermitted => self.forbid(error.message),
                outcome => tried.push((*family, outcome.map_err(|error| error.message))),
            }
        }
        tried
    }

    /// What was read. Why it could not be is a finding of the check that it is for.
    fn told<T>(&mut self, id: CheckId, read: Result<T, CommandError>) -> Option<T> {
        read.map_err(|error| match error.exit {
            Exit::NotPermitted => self.forbid(error.message),
            _ => self.unread.push((id, error.message)),
        })
        .ok()
    }

    fn forbid(&mut self, what: String) {
        self.forbidden.get_or_insert(what);
    }

    /// All of it, as a value.
    pub(super) fn evidence(&self) -> HostEvidence<'_> {
        let config = self.config.as_ref();
        let node = |name: &NodeName| config?.node_named(name.as_str()).map(Ok);
        HostEvidence {
            now: self.now,
            file: self.file.clone(),
            config,
            file_error: self.file_error.as_ref().map(ToString::to_string),
            node: self.node.as_ref().and_then(|found| match found {
                Ok(name) => node(name),
                Err(words) => Some(Err(words.clone())),
            }),
            credentials: self.credentials.clone(),
            kms_way: config.and_then(Config::key_to_ask).map(key::way),
            forbidden: self.forbidden.clone(),
            unread: self.unread.clone(),
            release: kernel_age::release(),
            outdated: kernel_age::warning(),
            esp: self.esp.clone(),
            missing: self.missing.clone(),
            ports: self.ports.clone(),
            room: config.map(|config| room(&config.state_dir, &config.state_path())),
            from_later: config.and_then(|config| from_later(&config.state_path(), self.now)),
            connections: connections(),
            problems: self.problems.as_ref(),
            status: self.status.as_ref(),
        }
    }

    pub(super) fn config(&self) -> Option<&Config> {
        self.config.as_ref()
    }

    pub(super) fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    pub(super) fn findings(&self) -> &[PairFinding] {
        &self.findings
    }
}

/// How this host proves itself. An error is what may not be read.
fn proof(config: &Config, node: &Node, now: UnixTime) -> Result<CredentialsState, String> {
    let loaded = credentials::secret_id(config).and_then(|secret| {
        let credentials = credentials::load(config, node)?;
        Ok((secret, credentials))
    });
    let (secret, credentials) = match loaded.map_err(CommandError::from) {
        Ok(loaded) => loaded,
        Err(error) if error.exit == Exit::NotPermitted => return Err(error.message),
        Err(error) => return Ok(CredentialsState::Missing(error.message)),
    };
    let words = match (config.method_of(node), secret) {
        (AuthMethod::Secret, Some(id)) => format!("the secret, secret id {id}"),
        (method, _) => method.words().to_owned(),
    };
    Ok(match credentials::check_certificate(config, node, &credentials, now) {
        Ok(()) => CredentialsState::Good(words, until(node, &credentials)),
        Err(error) => match &error {
            CredentialsError::Certificate {
                source: CertificateError::Expired(_) | CertificateError::NotYet(_),
                ..
            } => CredentialsState::Outdated(error.to_string()),
            _ => CredentialsState::Missing(error.to_string()),
        },
    })
}

/// When the certificate of this host ends, where it has one.
fn until(node: &Node, credentials: &Credentials) -> Option<UnixTime> {
    let Identity::Certificate(_, chain) = &*credentials.identity else { return None };
    let subject = Subject { node: &node.name, addresses: &node.addresses };
    credentials.authorities.as_ref().map(|authorities| authorities.until(chain, subject))
}

/// The file system of `directory`, or of the one above it that is there.
fn room(directory: &Path, state: &Path) -> Result<DiskRoom, String> {
    let there = directory.ancestors().find(|place| place.exists()).unwrap_or(directory);
    let system = statvfs(there).map_err(|error| format!("{}: {error}", there.display()))?;
    // Root may use what is kept back for it.
    let free = system.blocks_free().saturating_mul(system.fragment_size());
    Ok(DiskRoom {
        directory: directory.display().to_string(),
        free,
        // A file system that does not count files says 0 of all.
        has_files: system.files() == 0 || system.files_free() > 0,
        used: fs::metadata(state).map(|state| state.len()).unwrap_or(0),
    })
}

/// A file of hostseal's that was written later than `now`.
fn from_later(state: &Path, now: UnixTime) -> Option<(String, UnixTime)> {
    let written = UnixTime::from(fs::metadata(state).ok()?.modified().ok()?);
    let later = written.0.saturating_sub(now.0) > 60;
    later.then(|| (state.display().to_string(), written))
}

/// How many connections the kernel tracks, and how many it can.
fn connections() -> Option<(u64, u64)> {
    let read = |name: &str| {
        let text = fs::read_to_string(PathBuf::from(CONNTRACK).join(name)).ok()?;
        text.trim().parse().ok()
    };
    Some((read("nf_conntrack_count")?, read("nf_conntrack_max")?))
}
