//! What an agent knows of its host at one moment beyond its kernel and its files: a plain value. `status` and its
//! followers read this, and nothing else of the agent.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::audit::AuditReport;
use super::{About, KeyReport};
use crate::identity::{AuthMethod, PpkUse, SecretId};
use crate::types::{
    AgentTally, Bounds, IkeProposal, KeyExchange, Method, Pair, Protection, ReasonCode, RowState, SaId,
    UnixTime,
};

/// Why a pair is not protected: a code of the contract, and words.
pub type RowReason = (ReasonCode, String);

/// What an agent knows of its host.
#[derive(Debug, Clone, Default)]
pub struct Snapshot<'a> {
    /// How long it has run.
    pub uptime: Duration,
    /// Since when.
    pub started_at: UnixTime,
    /// What the operator wants: it is never `enabling`, as that depends on the rows.
    pub protection: Protection,
    /// How long the trial of this host goes on that nobody has confirmed; `None` where it is not on trial.
    pub trial_left: Option<Duration>,
    /// Why the files as they are now are not in force; `None` where they are.
    pub trouble: Option<&'a str>,
    /// The key that wraps the secret; `None` where none does.
    pub kms: Option<KeyReport>,
    /// How far the record has come of a key that wraps none, as the cluster offers it or it was in force before.
    pub kms_audit: Option<AuditReport>,
    /// What it tells the peers of this host; `None` while it has no secrets.
    pub about: Option<About>,
    /// What it has counted since it started.
    pub tally: AgentTally,
    /// How many kernel objects it found changed or removed by somebody else, and put right.
    pub drift: u64,
    /// How many SAs somebody else removed before their last figures were read.
    pub unread: u64,
    /// How full the tables are that others can fill; `None` while it is not at work.
    pub bounds: Option<Bounds>,
    /// The addresses of this host that its guards should name and do not.
    pub unguarded: Vec<IpAddr>,
    /// How many policies its guards are at most.
    pub guards_most: usize,
    /// Requests for keys between addresses that are no pair of this host.
    pub unlisted: Vec<UnlistedRequests>,
    /// How its pairs stand, as far as the agent knows; none while it is not at work.
    pub states: BTreeMap<Pair, RowState>,
    /// What it knows of them, or of those that were asked about.
    pub pairs: BTreeMap<Pair, PairSnapshot<'a>>,
}

/// Requests for keys between addresses that are no pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnlistedRequests {
    /// This host's.
    pub local: IpAddr,
    /// The asking host's, as it says.
    pub remote: IpAddr,
    /// How many there were.
    pub requests: u64,
}

/// What an agent knows of a pair.
#[derive(Debug, Clone)]
pub struct PairSnapshot<'a> {
    /// How it stands, as far as the agent knows.
    pub state: RowState,
    /// Why it is neither protected nor off.
    pub reason: Option<RowReason>,
    /// Since when all attempts at keys have failed; `None` where the last one has not.
    pub failing_since: Option<UnixTime>,
    /// Why the keys that protect it could not be renewed; `None` where they could.
    pub unrenewed: Option<RowReason>,
    /// Whether this host can only wait for the other.
    pub waiting: bool,
    /// How long it stays unless the trial of an end is confirmed; `None` where no end is on trial.
    pub trial_left: Option<Duration>,
    /// What the keys in use rest on.
    pub keys: KeySnapshot,
    /// In what time its SAs are to be replaced; those that nobody is going to replace are not among them.
    pub rekeys: Vec<(SaId, Duration)>,
    /// What the other host told of itself.
    pub peer: Option<&'a About>,
    /// What was heard of it; `None` where nothing has been listened for.
    pub heard: Option<Heard>,
    /// In what time its keys end because the proof or the PPK that they rest on is no longer accepted, and why no
    /// others came, where an attempt has failed.
    pub notice: Option<(Duration, Option<String>)>,
    /// Octets of the largest packet that gets through, where larger ones are lost though this host lets them out.
    pub narrow: Option<u16>,
    /// How often this host reminds a firewall on the path that would forget the pair.
    pub reminded_after: Option<Duration>,
}

/// What keys in use rest on: nothing is known of it where this agent has agreed none.
#[derive(Debug, Clone, Default)]
pub struct KeySnapshot {
    /// The secret that an end has proven itself with, where one has.
    pub secret: Option<SecretId>,
    /// How the other host has proven itself.
    pub authentication: Option<AuthMethod>,
    /// What PPK is in them.
    pub ppk: Option<PpkUse>,
    /// How they were made.
    pub method: Option<Method>,
    /// What their IKE SA was made with, and how long ago.
    pub ike: Option<(IkeProposal, Duration)>,
    /// Their own key exchange, where they have one.
    pub exchange: Option<KeyExchange>,
}

/// What was heard of another host since the agent started.
#[derive(Debug, Clone, Copy)]
pub struct Heard {
    /// When a packet came through an SA last.
    pub esp: Option<UnixTime>,
    /// When a message inside IKE came last.
    pub ike: Option<UnixTime>,
    /// Whether it owes an answer for so long that it counts as silent.
    pub silent: bool,
}

impl Snapshot<'_> {
    /// What the operator wants, and how far that has come where so many pairs are being agreed.
    pub fn protection_with(&self, negotiating: u64) -> Protection {
        match self.protection {
            Protection::On if negotiating > 0 => Protection::Enabling,
            protection => protection,
        }
    }
}

impl PairSnapshot<'_> {
    /// In what time an SA is to be replaced, where it is.
    pub fn rekey_in(&self, id: SaId) -> Option<Duration> {
        self.rekeys.iter().find(|(of, _)| *of == id).map(|(_, left)| *left)
    }
}
