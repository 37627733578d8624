//! What `hostseal status` says: the types of its JSON, and how they are made (`evidence`).
//!
//! Fields are added, never renamed or removed, within one [`SCHEMA`].

mod evidence;
mod fate;
mod notes;
mod outlook;
mod problems;
mod row;
mod sight;
mod standing;
mod unbound;

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

pub use self::evidence::{Agent, Evidence, status};
pub use self::notes::without_agent;
pub use self::outlook::Outlook;
pub use self::sight::PairSight;
use crate::config::Mode;
use crate::identity::AuthMethod;
use crate::observe::KeyReport;
use crate::observe::audit::AuditReport;
use crate::observe::member_pairs::known;
use crate::types::{
    Bounds, Direction, Family, Method, NodeName, Pair, Problem, Protection, ReasonCode, RowState, SaErrors,
    Spi, Traffic, UnixTime,
};

/// The version of the JSON.
pub const SCHEMA: u32 = 1;
/// The cipher of every SA, as the kernel calls it.
pub const CIPHER: &str = "rfc4106(gcm(aes))";

/// What ESP is wrapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encapsulation {
    /// Nothing: IP protocol 50.
    None,
    /// UDP.
    Udp,
}

/// Whether keys have a PPK in them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PpkInKeys {
    /// They have.
    Used,
    /// They have not.
    None,
}

/// What an SA is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SaState {
    /// Installed, not yet in use.
    Next,
    /// In use.
    Active,
    /// Replaced, and kept for packets that are still on their way.
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
    #[serde(default, deserialize_with = "known")]
    pub reason_code: Option<ReasonCode>,
    /// The same in words, with what to do where there is something.
    pub reason: Option<String>,
    /// How its keys were made, or are to be where it has none.
    pub keying: Method,
    /// How the peer has proven who it is; `None` where no agent has agreed keys with it yet.
    #[serde(default)]
    pub authentication: Option<AuthMethod>,
    /// Whether its keys have a PPK in them; `None` where no agent has agreed keys with it yet.
    #[serde(default)]
    pub ppk: Option<PpkInKeys>,
    /// What the hosts call it, where they have one.
    #[serde(default)]
    pub ppk_id: Option<String>,
    /// Its PPK comes from a file, although this host has a wrapped one: the other end need not depend on the KMS.
    #[serde(default)]
    pub outside_kms: bool,
    /// Its IKE SA; `None` where no agent has agreed keys with it yet.
    #[serde(default)]
    pub ike: Option<IkeRow>,
    /// What the SA in use was made with, as `esp.proposals` would say it; `None` where there is none.
    #[serde(default)]
    pub esp: Option<String>,
    /// The key exchange that made the keys in use, in the same words; `None` where they come from those of the IKE SA
    /// alone, or no agent knows.
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
    /// What was refused since `totals_since`, over all SAs.
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
    /// Protected rows.
    pub protected: u64,
    /// Rows whose keys are being agreed.
    pub negotiating: u64,
    /// Rows in the clear that should not be.
    pub clear: u64,
    /// Rows where everything is dropped.
    pub blocked: u64,
    /// Rows in the clear on purpose.
    pub off: u64,
    /// Protected rows whose peer shows no sign of life.
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
    /// The key that wraps the secret; `None` where none does, or no agent knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms: Option<KeyReport>,
    /// How far the record has come of a key that wraps none yet, as the cluster offers it, or none any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kms_audit: Option<AuditReport>,
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

    /// The same, except for at least one row that waits for a host which is not there yet.
    pub fn only_waits(&self) -> bool {
        let waits = self.peers.iter().any(|row| row.waiting);
        waits && self.is_as_wanted(|row| row.is_well() || row.waiting)
    }

    /// How far the record has come of what is done with a key; `None` where none is kept, or no agent knows.
    pub fn audit(&self) -> Option<&AuditReport> {
        self.kms.as_ref().map_or(self.kms_audit.as_ref(), |kms| kms.audit.as_ref())
    }

    fn is_as_wanted(&self, is_fine: impl Fn(&PeerRow) -> bool) -> bool {
        let in_force = self.config_error.is_none();
        let at_work = self.agent.running && self.agent.answering;
        let fine = || at_work && in_force && self.peers.iter().all(is_fine);
        is_as_wanted(self.protection, &self.problems, fine)
    }
}

/// Whether all is as the operator wants it, on a host with these problems whose agent and pairs are `fine`.
fn is_as_wanted(protection: Protection, problems: &[Problem], fine: impl FnOnce() -> bool) -> bool {
    let harmless = !problems.iter().any(Problem::is_critical);
    match protection {
        Protection::Off => harmless,
        Protection::Disabling => false,
        Protection::On | Protection::Enabling => harmless && fine(),
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
