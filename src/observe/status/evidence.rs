//! A status, made once: from what the kernel holds, what the files say, and what the agent knows where one answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use super::{AgentInfo, Outlook, PeerRow, SCHEMA, Status, notes};
use crate::config::{Config, Node};
use crate::observe::Snapshot;
use crate::observe::snapshot::PairSnapshot;
use crate::observe::totals::TotalsTable;
use crate::store::Saved;
use crate::types::generation::VERSION;
use crate::types::{Boot, KernelSight, NodeName, Pair, Problem, UnixTime};

/// What is known of a host.
#[derive(Clone, Copy)]
pub struct Evidence<'a> {
    /// The time of day.
    pub now: UnixTime,
    /// The file.
    pub config: &'a Config,
    /// Its hash.
    pub config_id: &'a str,
    /// Which node of it this host is.
    pub node: &'a Node,
    /// The fingerprint of the secret; `None` where it cannot be read.
    pub secret_id: Option<&'a str>,
    /// The addresses that the host has now: pairs whose floating addresses are elsewhere have no row.
    pub present: &'a BTreeSet<IpAddr>,
    /// What the kernel holds.
    pub kernel: KernelSight<'a>,
    /// The kernel's XFRM error counters.
    pub statistics: &'a BTreeMap<String, u64>,
    /// What is remembered: by the agent, or by the last one.
    pub saved: &'a Saved,
    /// What was counted of each pair.
    pub totals: &'a dyn TotalsTable,
    /// The agent.
    pub agent: Agent<'a>,
}

/// The agent of a host.
#[derive(Debug, Clone, Copy)]
pub enum Agent<'a> {
    /// It answers, and knows this.
    Answers {
        /// Its process.
        pid: u32,
        /// What it knows.
        snapshot: &'a Snapshot<'a>,
    },
    /// One runs and does not answer.
    Hangs {
        /// Its process, where that is known.
        pid: Option<u32>,
        /// How long it was waited for.
        patience: Duration,
        /// This start of the system, where that is known.
        boot: Option<&'a Boot>,
    },
    /// None runs.
    Gone {
        /// What the operator is to do.
        remedy: &'a str,
        /// This start of the system, where that is known.
        boot: Option<&'a Boot>,
    },
}

/// How a host stands. `found` are other problems of its system.
pub fn status(evidence: Evidence<'_>, found: impl IntoIterator<Item = Problem>) -> Status {
    let Evidence { now, config, node, agent, .. } = evidence;
    let Outlook { pairs, summary, protection, problems } = Outlook::of(&evidence, found);
    let peers: Vec<PeerRow> = pairs.iter().map(|sight| evidence.row(sight)).collect();
    let statistics = evidence.statistics.iter().filter(|(_, count)| **count > 0);
    Status {
        schema: SCHEMA,
        time: now,
        cluster: config.cluster.clone(),
        node: Some(node.name.clone()),
        protection,
        try_ends_in_s: evidence.trial_left().map(seconds_until),
        mode: config.protection.mode,
        config_id: evidence.config_id.to_owned(),
        secret_id: evidence.secret_id.map(str::to_owned),
        kms: agent.snapshot().and_then(|snapshot| snapshot.kms.clone()),
        kms_audit: agent.snapshot().and_then(|snapshot| snapshot.kms_audit.clone()),
        config_error: agent.snapshot().and_then(|snapshot| snapshot.trouble).map(str::to_owned),
        agent: agent.info(),
        summary,
        waiting_for: waiting_for(&peers),
        kernel: statistics.map(|(name, count)| (name.clone(), *count)).collect(),
        notes: notes::of(&evidence, &peers),
        peers,
        problems,
    }
}

/// Whole seconds, rounded up.
pub(super) fn seconds_until(left: Duration) -> u64 {
    left.as_secs() + 1
}

/// The hosts of rows that can only wait for them.
fn waiting_for(peers: &[PeerRow]) -> Vec<NodeName> {
    let waiting = peers.iter().filter(|row| row.waiting).map(|row| row.node.clone());
    waiting.collect::<BTreeSet<_>>().into_iter().collect()
}

impl<'a> Evidence<'a> {
    /// What the agent knows of a pair.
    pub(super) fn known(&self, pair: Pair) -> Option<&'a PairSnapshot<'a>> {
        self.agent.snapshot()?.pairs.get(&pair)
    }

    fn trial_left(&self) -> Option<Duration> {
        match self.agent {
            Agent::Answers { snapshot, .. } => snapshot.trial_left,
            Agent::Hangs { boot, .. } | Agent::Gone { boot, .. } => self.saved.trial.as_ref()?.left(boot?),
        }
    }
}

impl<'a> Agent<'a> {
    /// What it knows, where it answers.
    pub fn snapshot(self) -> Option<&'a Snapshot<'a>> {
        match self {
            Agent::Answers { snapshot, .. } => Some(snapshot),
            Agent::Hangs { .. } | Agent::Gone { .. } => None,
        }
    }

    fn info(self) -> AgentInfo {
        match self {
            Agent::Answers { pid, snapshot } => AgentInfo {
                running: true,
                answering: true,
                pid: Some(pid),
                version: Some(VERSION.to_owned()),
                uptime_s: Some(snapshot.uptime.as_secs()),
                drift: Some(snapshot.drift),
                bounds: snapshot.bounds,
            },
            Agent::Hangs { pid, .. } => AgentInfo { running: true, pid, ..AgentInfo::default() },
            Agent::Gone { .. } => AgentInfo::default(),
        }
    }
}
