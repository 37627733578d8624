//! What a command that follows the agent is told: how far it has come, and which rows changed. Ten thousand
//! rows with all that a status says of them would be too much to send at each change.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Snapshot;
use super::member_pairs::known;
use super::status::Summary;
use crate::types::{NodeName, Pair, Protection, ReasonCode, RowState};

/// How far the agent has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Counts the changes of this agent; at least 1.
    pub revision: u64,
    /// What the operator wants, and how far that has come.
    pub protection: Protection,
    /// How many rows are in which state.
    pub summary: Summary,
    /// The rows that changed after the revision that was asked about.
    pub rows: Vec<RowProgress>,
}

/// How one pair stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowProgress {
    /// The name of the other host.
    pub node: NodeName,
    /// The address of this host.
    pub local: IpAddr,
    /// The address of the other host.
    pub remote: IpAddr,
    /// How it stands.
    pub state: RowState,
    /// Why it is neither protected nor off, in words.
    pub reason: Option<String>,
    /// The same for programs; `None` from agents that do not tell it.
    #[serde(default, deserialize_with = "known")]
    pub reason_code: Option<ReasonCode>,
    /// Whether this host can only wait for the other: the pair was never protected, and the other host has
    /// proven nothing for some seconds. Agents that do not tell it leave it `false`.
    #[serde(default)]
    pub waiting: bool,
}

impl Progress {
    /// How far an agent has come that knows `snapshot`, with the rows of those pairs among `named` that `changed`: of
    /// the others it need know no more than how they stand.
    pub fn of(
        snapshot: &Snapshot<'_>,
        named: Vec<(NodeName, Pair)>,
        revision: u64,
        changed: impl Fn(Pair) -> bool,
    ) -> Self {
        let known = |pair: &Pair| snapshot.pairs.get(pair);
        let state = |pair: &Pair| snapshot.states.get(pair).copied().unwrap_or(RowState::Off);
        let summary = Summary::of(named.iter().map(|(_, pair)| state(pair)));
        let row = |(node, pair): (NodeName, Pair)| {
            let (reason_code, reason) = known(&pair).and_then(|known| known.reason.clone()).unzip();
            let waiting = known(&pair).is_some_and(|known| known.waiting);
            let (local, remote, state) = (pair.local, pair.remote, state(&pair));
            RowProgress { node, local, remote, state, reason, reason_code, waiting }
        };
        let rows = named.into_iter().filter(|(_, pair)| changed(*pair)).map(row).collect();
        let protection = snapshot.protection_with(summary.negotiating);
        Self { revision, protection, summary, rows }
    }
}

impl RowProgress {
    /// The pair of the row.
    pub fn pair(&self) -> Pair {
        Pair { local: self.local, remote: self.remote }
    }

    /// Whether nothing more is going to happen until somebody does something: here, at the other host or in
    /// between.
    pub fn is_final(&self) -> bool {
        self.state == RowState::Protected || self.reason_code.is_some_and(is_failure) || self.waiting
    }
}

/// Whether it takes somebody to mend that.
pub(super) fn is_failure(code: ReasonCode) -> bool {
    matches!(
        code,
        ReasonCode::AuthFailed
            | ReasonCode::PpkMissing
            | ReasonCode::PpkUnknown
            | ReasonCode::PpkWrong
            | ReasonCode::NoProposal
            | ReasonCode::PeerRefused
            | ReasonCode::EspBlocked
            | ReasonCode::KernelError
            | ReasonCode::NoAddress
            | ReasonCode::PeerDisabled
            | ReasonCode::KeyRevoked
            | ReasonCode::KeyOffline
            | ReasonCode::KeyPendingDeletion
            | ReasonCode::PeerCutOff
    )
}
