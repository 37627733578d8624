//! What `hostseal status` says: the types of its JSON, and how they are made where no agent runs.
//!
//! Fields are added, never renamed or removed, within one [`SCHEMA`].

mod fate;
mod unbound;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::config::{Config, Method, Mode, Node, NodeName};
use super::exempt::Exemptions;
use super::saved::{PairRecord, Saved};
use super::stranger::{Ground, Overruled};
use super::{
    Action, AuthMethod, Bounds, Direction, KernelState, Pair, PolicyDirection, PolicyId, Problem, Proposals,
    SaId, SaReading, Spi, UnixTime, ours,
};

/// The version of the JSON.
pub const SCHEMA: u32 = 1;
/// The cipher of every SA, as the kernel calls it.
pub const CIPHER: &str = "rfc4106(gcm(aes))";

/// What the operator wants of this host, and how far that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protection {
    /// Everything is in the clear, on purpose.
    #[default]
    Off,
    /// On its way to `on`.
    Enabling,
    /// Wanted and in force for every pair that has come so far.
    On,
    /// On its way to `off`.
    Disabling,
}

/// The state of one pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowState {
    /// In the clear, on purpose.
    Off,
    /// Being agreed; clear until then.
    Negotiating,
    /// ESP in both directions, and nothing else accepted.
    Protected,
    /// Plaintext flows, though it should not.
    Clear,
    /// Everything is dropped: sealed, and no SA.
    Blocked,
}

/// Why a row is neither protected nor off, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasonCode {
    /// It is under way, and nothing has gone wrong.
    InProgress,
    /// The other host does not answer.
    NoAnswer,
    /// It answers, but one end does not take the proof of the other.
    AuthFailed,
    /// It answers, but no algorithms are common to both.
    NoProposal,
    /// It refused for a reason of its own.
    PeerRefused,
    /// Keys are agreed, but ESP does not get through.
    EspBlocked,
    /// This host does not have its address of the pair now.
    NoAddress,
    /// The other host took the pair back to clear.
    PeerDisabled,
    /// The kernel refused something.
    KernelError,
    /// Something else failed on this host.
    Internal,
    /// No agent runs here, or it does not answer.
    NoAgent,
    /// The pair is protected, and the other host shows no sign of life.
    Silent,
}

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl From<IpAddr> for Family {
    fn from(address: IpAddr) -> Self {
        if address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

/// What ESP is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// Nothing: IP protocol 50.
    None,
    /// UDP.
    Udp,
}

/// Bytes and packets as the kernel counts them: without the IP header and ESP's own overhead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traffic {
    /// Payload bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

impl Traffic {
    /// The sum, which stays at the largest number rather than start again.
    pub fn plus(self, other: Traffic) -> Traffic {
        Traffic {
            bytes: self.bytes.saturating_add(other.bytes),
            packets: self.packets.saturating_add(other.packets),
        }
    }

    /// The difference, never below zero.
    pub fn minus(self, other: Traffic) -> Traffic {
        Traffic {
            bytes: self.bytes.saturating_sub(other.bytes),
            packets: self.packets.saturating_sub(other.packets),
        }
    }
}

impl From<&SaReading> for Traffic {
    fn from(sa: &SaReading) -> Self {
        Traffic { bytes: sa.bytes, packets: sa.packets }
    }
}

/// Inbound packets that were refused, over the live SAs of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SaErrors {
    /// Replays.
    pub replay: u64,
    /// Older than the replay window.
    pub replay_window: u64,
    /// Failed the integrity check.
    pub integrity: u64,
}

/// What an SA is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaState {
    /// Installed, not yet in use.
    Next,
    /// In use.
    Active,
    /// Replaced, and kept for what is still on its way.
    Retiring,
}

/// One SA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaRow {
    /// Which way its packets flow.
    pub direction: Direction,
    /// Its index.
    #[serde(with = "spi_as_text")]
    pub spi: Spi,
    /// What it is there for.
    pub state: SaState,
    /// Payload bytes since it was made.
    pub bytes: u64,
    /// Packets since it was made.
    pub packets: u64,
    /// Seconds since it was made.
    pub age_s: u64,
    /// Seconds until it is replaced; `None` where nobody is going to.
    pub rekey_in_s: Option<u64>,
    /// Seconds until the kernel deletes it; `None` for never.
    pub expires_in_s: Option<u64>,
}

/// The IKE SA that the keys of a pair come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IkeRow {
    /// The version of IKE.
    pub version: u8,
    /// What it was made with, as `keying.proposals` would say it.
    pub proposal: String,
    /// The part of that which its secret comes from; `None` for keys that are derived from the shared secret.
    pub group: Option<String>,
    /// Seconds since both ends have proven themselves.
    pub age_s: u64,
}

/// What the other host of a pair told of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// The hash of its configuration.
    pub config_id: String,
    /// The fingerprint of its secret; `None` where it uses none.
    pub secret_id: Option<String>,
    /// Its version.
    pub version: String,
}

/// One pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRow {
    /// The name of the other host.
    pub node: NodeName,
    /// The address of this host, as its interface has it.
    pub local: IpAddr,
    /// What the others call that address, where a NAT stands before this host; `None` where it is the same.
    #[serde(default)]
    pub listed: Option<IpAddr>,
    /// The address of the other host.
    pub remote: IpAddr,
    /// The family of both.
    pub family: Family,
    /// How it stands.
    pub state: RowState,
    /// Since when it stands so; `None` where that is not known.
    pub since: Option<UnixTime>,
    /// Why it is neither protected nor off, for programs.
    pub reason_code: Option<ReasonCode>,
    /// The same in words, with what to do where there is something.
    pub reason: Option<String>,
    /// How its keys were made, or are to be where it has none.
    pub keying: Method,
    /// How the peer has proven who it is; `None` where no agent has agreed keys with it yet.
    #[serde(default)]
    pub authentication: Option<AuthMethod>,
    /// Its IKE SA; `None` where no agent has agreed keys with it yet.
    #[serde(default)]
    pub ike: Option<IkeRow>,
    /// What the SA in use was made with, as `esp.proposals` would say it; `None` where there is none.
    #[serde(default)]
    pub esp: Option<String>,
    /// The key exchange of their own that the keys in use come from, in the same words; `None` where they come from
    /// those of the IKE SA alone, or no agent knows.
    #[serde(default)]
    pub esp_group: Option<String>,
    /// The cipher in use.
    pub cipher: Option<String>,
    /// Bits of the AES key in use.
    pub key_bits: Option<u16>,
    /// What ESP is wrapped in.
    pub encapsulation: Encapsulation,
    /// Sent since `totals_since`, over all SAs.
    pub tx: Traffic,
    /// Received since `totals_since`, over all SAs.
    pub rx: Traffic,
    /// When counting began; `None` where nothing was counted yet.
    pub totals_since: Option<UnixTime>,
    /// What was refused.
    pub errors: SaErrors,
    /// The fingerprint of the secret that its keys rest on; `None` where that is not known.
    #[serde(default)]
    pub secret_id: Option<String>,
    /// When a packet came through an SA last, or a message inside IKE; `None` where none is known of.
    #[serde(default)]
    pub last_heard: Option<UnixTime>,
    /// When a packet came through an SA last.
    #[serde(default)]
    pub last_heard_esp: Option<UnixTime>,
    /// What the other host told of itself inside IKE; `None` where it told nothing.
    #[serde(default)]
    pub peer: Option<PeerInfo>,
    /// Its SAs, outbound first.
    pub sas: Vec<SaRow>,
    /// Whether this host can only wait for the other: the pair was never protected, and the other host has
    /// proven nothing for some seconds.
    #[serde(default)]
    pub waiting: bool,
    /// Seconds until it goes back to the clear, unless the host on trial is confirmed: this one or the other.
    /// `None` for a pair that stays.
    #[serde(default)]
    pub try_ends_in_s: Option<u64>,
}

impl PeerRow {
    /// The pair of the row.
    pub fn pair(&self) -> Pair {
        Pair { local: self.local, remote: self.remote }
    }

    /// Whether it is protected and its peer shows signs of life.
    fn is_well(&self) -> bool {
        self.state == RowState::Protected && !self.is_silent()
    }

    /// Whether it is protected and its peer shows no sign of life.
    pub fn is_silent(&self) -> bool {
        self.reason_code == Some(ReasonCode::Silent)
    }
}

/// How many rows are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// All rows.
    pub peers: u64,
    /// Those protected.
    pub protected: u64,
    /// Those being agreed.
    pub negotiating: u64,
    /// Those in the clear that should not be.
    pub clear: u64,
    /// Those where everything is dropped.
    pub blocked: u64,
    /// Those in the clear on purpose.
    pub off: u64,
    /// Those among the protected ones whose peer shows no sign of life.
    #[serde(default)]
    pub silent: u64,
}

impl Summary {
    /// Counts rows.
    pub fn of_rows(rows: &[PeerRow]) -> Self {
        let silent = rows.iter().filter(|row| row.is_silent()).count() as u64;
        Self { silent, ..Self::of(rows.iter().map(|row| row.state)) }
    }

    /// Counts rows by their states.
    pub fn of(states: impl IntoIterator<Item = RowState>) -> Self {
        let mut summary = Self::default();
        for state in states {
            summary.peers += 1;
            *match state {
                RowState::Off => &mut summary.off,
                RowState::Negotiating => &mut summary.negotiating,
                RowState::Protected => &mut summary.protected,
                RowState::Clear => &mut summary.clear,
                RowState::Blocked => &mut summary.blocked,
            } += 1;
        }
        summary
    }
}

/// The agent of this host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Whether it runs. The other fields are `None` where it does not.
    pub running: bool,
    /// Whether it answers; where it does not, the rows say what the kernel holds.
    #[serde(default = "answers")]
    pub answering: bool,
    /// Its process id.
    pub pid: Option<u32>,
    /// Its version.
    pub version: Option<String>,
    /// Seconds since it started.
    pub uptime_s: Option<u64>,
    /// How many kernel objects it found changed or removed by somebody else, and put right.
    #[serde(default)]
    pub drift: Option<u64>,
    /// How full the tables are that others can fill, while protection is on.
    #[serde(default)]
    pub bounds: Option<Bounds>,
}

/// An agent that says nothing of it has answered.
fn answers() -> bool {
    true
}

/// Everything that `status` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The version of this JSON: [`SCHEMA`].
    pub schema: u32,
    /// When it was made.
    pub time: UnixTime,
    /// The name of the cluster.
    pub cluster: String,
    /// Which node this host is; `None` while the agent waits for an address.
    pub node: Option<NodeName>,
    /// What the operator wants, and how far that has come.
    pub protection: Protection,
    /// Seconds until this host goes back to the clear, unless that is confirmed; `None` for one that stays.
    #[serde(default)]
    pub try_ends_in_s: Option<u64>,
    /// What happens to a pair that has no keys.
    pub mode: Mode,
    /// The hash of the configuration.
    pub config_id: String,
    /// The fingerprint of the secret; `None` where it cannot be read.
    pub secret_id: Option<String>,
    /// Why the files as they are now are not in force; `None` where they are.
    #[serde(default)]
    pub config_error: Option<String>,
    /// The agent of this host.
    pub agent: AgentInfo,
    /// How many rows are in which state.
    pub summary: Summary,
    /// The hosts of rows that are `waiting`.
    #[serde(default)]
    pub waiting_for: Vec<NodeName>,
    /// One row a pair.
    pub peers: Vec<PeerRow>,
    /// The kernel's XFRM error counters that are not zero (`/proc/net/xfrm_stat`).
    pub kernel: BTreeMap<String, u64>,
    /// What else the operator should know, in words: a file that could not be read, what a stranger did.
    #[serde(default)]
    pub notes: Vec<String>,
    /// What is wrong beside what the rows say, the worst first.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

impl Status {
    /// Whether all is as the operator wants it: protection deliberately off, or on with an agent that answers, the
    /// files in force, every row protected and none of them silent; and no critical problem.
    pub fn is_healthy(&self) -> bool {
        self.is_as_wanted(PeerRow::is_well)
    }

    /// The same, but for rows that wait for hosts which are not there yet, of which there is at least one.
    pub fn only_waits(&self) -> bool {
        let waits = self.peers.iter().any(|row| row.waiting);
        waits && self.is_as_wanted(|row| row.is_well() || row.waiting)
    }

    fn is_as_wanted(&self, is_fine: impl Fn(&PeerRow) -> bool) -> bool {
        let fine = !self.problems.iter().any(Problem::is_critical);
        match self.protection {
            Protection::Off => fine,
            Protection::Disabling => false,
            Protection::On | Protection::Enabling => {
                let in_force = self.config_error.is_none();
                let at_work = self.agent.running && self.agent.answering;
                at_work && in_force && fine && self.peers.iter().all(is_fine)
            }
        }
    }
}

/// What is known about a host without asking an agent.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// The file.
    pub config: &'a Config,
    /// Which node of it this host is.
    pub node: &'a Node,
    /// The addresses that it has now: pairs whose floating addresses are elsewhere have no row.
    pub present: &'a BTreeSet<IpAddr>,
    /// What the kernel holds.
    pub kernel: &'a KernelState,
    /// What the last agent left.
    pub saved: &'a Saved,
}

/// The status of a host where no agent runs, from its kernel and what the last agent left.
pub fn without_agent(
    known: Known<'_>,
    statistics: &BTreeMap<String, u64>,
    secret_id: Option<String>,
    now: UnixTime,
) -> Status {
    let Known { config, node, present, kernel, saved } = known;
    let mut pairs = config.pairs(node);
    pairs.retain(|(_, pair)| !config.is_away(*pair, present));
    let overruled = kernel.strangers.overruled(&pairs);
    let mut problems: Vec<Problem> = unbound::problems(known).collect();
    if saved.protection != Protection::Off {
        let exempt = Exemptions::of(config, Some(node));
        problems.extend(kernel.strangers.problems(Ground { pairs: &pairs, exempt: &exempt }));
    }
    let peers: Vec<PeerRow> =
        pairs.into_iter().map(|(peer, pair)| known.row(peer, pair, &overruled, now)).collect();
    Status {
        schema: SCHEMA,
        time: now,
        cluster: config.cluster.clone(),
        node: Some(node.name.clone()),
        protection: saved.protection,
        try_ends_in_s: None,
        mode: config.protection.mode,
        config_id: config.config_id(),
        secret_id,
        config_error: None,
        agent: AgentInfo::default(),
        summary: Summary::of(peers.iter().map(|row| row.state)),
        waiting_for: Vec::new(),
        peers,
        kernel: statistics.iter().filter(|(_, count)| **count > 0).map(|(k, v)| (k.clone(), *v)).collect(),
        notes: Vec::new(),
        problems,
    }
}

impl Known<'_> {
    fn row(&self, node: NodeName, pair: Pair, overruled: &Overruled, now: UnixTime) -> PeerRow {
        let default = PairRecord::default();
        let record = self.saved.pairs.get(&pair).unwrap_or(&default);
        let sas: Vec<&SaReading> = live_sas(self.kernel, pair).collect();
        let used = self.outbound_in_use(pair);
        let state = match self.saved.protection {
            Protection::Off => RowState::Off,
            _ => fate::state(self.kernel, overruled, pair),
        };
        let (reason_code, reason) = match state {
            RowState::Protected | RowState::Off => (None, None),
            RowState::Blocked => (
                Some(ReasonCode::NoAgent),
                Some("no agent runs to agree new keys: `hostseal enable`".to_owned()),
            ),
            RowState::Clear | RowState::Negotiating => {
                (Some(ReasonCode::NoAgent), Some("no agent runs: `hostseal enable` starts one".to_owned()))
            }
        };
        let key_bits = used.map(|sa| sa.key_bits);
        PeerRow {
            node,
            local: pair.local,
            listed: Some(self.node.inside.listed(pair.local)).filter(|listed| *listed != pair.local),
            remote: pair.remote,
            family: pair.local.into(),
            state,
            since: record.since,
            reason_code,
            reason,
            keying: self.config.keying.method,
            authentication: None,
            ike: None,
            esp: used.map(|sa| Proposals::of_suite(sa.suite()).to_string()),
            esp_group: None,
            cipher: key_bits.map(|_| CIPHER.to_owned()),
            key_bits,
            encapsulation: match used {
                Some(sa) if sa.encapsulated => Encapsulation::Udp,
                _ => Encapsulation::None,
            },
            tx: record.total(Direction::Out, &sas, pair),
            rx: record.total(Direction::In, &sas, pair),
            totals_since: record.totals_since,
            errors: errors(&sas),
            secret_id: None,
            last_heard: last_used(&sas, pair),
            last_heard_esp: last_used(&sas, pair),
            peer: None,
            sas: self.sa_rows(pair, &sas, used, now),
            waiting: false,
            try_ends_in_s: None,
        }
    }

    /// The SA that the outbound policy of `pair` sends through, where the kernel has it.
    fn outbound_in_use(&self, pair: Pair) -> Option<&SaReading> {
        let reading = self.kernel.policies.get(&PolicyId::of(pair, PolicyDirection::Out))?;
        match reading.action.filter(|_| ours::is_our_policy(reading))? {
            Action::Seal { spi } => self.kernel.sas.get(&SaId::of(pair, Direction::Out, spi)),
            _ => None,
        }
    }

    /// The rows of `sas`, outbound first. Nothing says which inbound SA the other end uses: the newest
    /// counts as active.
    fn sa_rows(&self, pair: Pair, sas: &[&SaReading], used: Option<&SaReading>, now: UnixTime) -> Vec<SaRow> {
        let newest_in = sas
            .iter()
            .filter(|sa| sa.direction(pair) == Direction::In)
            .max_by_key(|sa| sa.added)
            .map(|sa| sa.id);
        let used = used.map(|sa| sa.id);
        let mut rows: Vec<SaRow> = sas
            .iter()
            .map(|sa| {
                let active = [used, newest_in].contains(&Some(sa.id));
                let age_s = now.0.saturating_sub(sa.added);
                SaRow {
                    direction: sa.direction(pair),
                    spi: sa.id.spi,
                    state: if active { SaState::Active } else { SaState::Retiring },
                    bytes: sa.bytes,
                    packets: sa.packets,
                    age_s,
                    rekey_in_s: None,
                    expires_in_s: sa.hard_seconds.map(|limit| limit.saturating_sub(age_s)),
                }
            })
            .collect();
        rows.sort_by_key(|row| (row.direction == Direction::In, row.age_s, row.spi));
        rows
    }
}

/// The SAs of ours between the addresses of `pair`.
pub fn live_sas(kernel: &KernelState, pair: Pair) -> impl Iterator<Item = &SaReading> {
    let to = |destination| {
        let first = SaId { destination, spi: Spi(0) };
        let last = SaId { destination, spi: Spi(u32::MAX) };
        kernel.sas.range(first..=last).map(|(_, sa)| sa)
    };
    let outbound = to(pair.remote).filter(move |sa| sa.source == pair.local);
    let inbound = to(pair.local).filter(move |sa| sa.source == pair.remote);
    outbound.chain(inbound)
}

/// When an inbound one among `sas` took a packet last, where the kernel says it.
fn last_used(sas: &[&SaReading], pair: Pair) -> Option<UnixTime> {
    let inbound = sas.iter().filter(|sa| sa.direction(pair) == Direction::In);
    inbound.filter_map(|sa| sa.last_used).max().map(UnixTime)
}

/// What the inbound ones among `sas` refused.
fn errors(sas: &[&SaReading]) -> SaErrors {
    sas.iter().fold(SaErrors::default(), |sum, sa| SaErrors {
        replay: sum.replay + u64::from(sa.replay),
        replay_window: sum.replay_window + u64::from(sa.replay_window),
        integrity: sum.integrity + u64::from(sa.integrity),
    })
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protection::Off => "off",
            Protection::Enabling => "enabling",
            Protection::On => "on",
            Protection::Disabling => "disabling",
        })
    }
}

impl fmt::Display for RowState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RowState::Off => "off",
            RowState::Negotiating => "negotiating",
            RowState::Protected => "protected",
            RowState::Clear => "clear",
            RowState::Blocked => "blocked",
        })
    }
}

/// An SPI as people and `ip xfrm` write it: `0xc1d2e3f4`.
mod spi_as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::Spi;

    pub(super) fn serialize<S: Serializer>(spi: &Spi, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(spi)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spi, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").ok_or_else(|| D::Error::custom("an SPI begins with 0x"))?;
        u32::from_str_radix(digits, 16).map(Spi).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
