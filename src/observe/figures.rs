//! What a monitoring system is told of a host: numbers, of the same evidence as its status. `metrics` writes them down.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::KeyReport;
use super::audit::AuditReport;
use super::cluster_figures::ClusterFigures;
use super::member_pairs::known;
use super::status::{Encapsulation, Evidence, Outlook, PairSight, Summary};
use crate::config::Mode;
use crate::types::generation::VERSION;
use crate::types::{
    AgentTally, Direction, Family, NodeName, PolicyDirection, Problem, ProblemCode, Protection, ReasonCode,
    RowState, SaErrors, SaReading, Severity, Traffic, UnixTime, Volume, ours,
};

/// How many problems there are of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProblemCount {
    /// The kind.
    pub code: ProblemCode,
    /// How much they matter.
    pub severity: Severity,
    /// How many.
    pub count: u64,
}

/// How many policies of ours the kernel holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PolicyCounts {
    /// For packets that leave.
    pub out: u64,
    /// For packets that come.
    pub inbound: u64,
    /// For packets that are forwarded.
    pub forward: u64,
}

/// The numbers of one pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairFigures {
    /// The name of the other host.
    pub node: NodeName,
    /// The address of this host.
    pub local: IpAddr,
    /// The address of the other host.
    pub remote: IpAddr,
    /// How it stands.
    pub state: RowState,
    /// Why, where it is neither protected nor off.
    #[serde(default, deserialize_with = "known")]
    pub reason: Option<ReasonCode>,
    /// Since when it stands so.
    pub since: Option<UnixTime>,
    /// What ESP is wrapped in.
    pub encapsulation: Encapsulation,
    /// Sent, over all SAs.
    pub tx: Traffic,
    /// Received, over all SAs.
    pub rx: Traffic,
    /// Refused, over all SAs.
    pub errors: SaErrors,
    /// When a packet came through an SA last.
    pub heard_esp: Option<UnixTime>,
    /// When a message inside IKE came last.
    pub heard_ike: Option<UnixTime>,
    /// When its keys are to be replaced.
    pub rekey_due: Option<UnixTime>,
    /// When they end, if they are not.
    pub expiry: Option<UnixTime>,
}

impl PairFigures {
    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of(self.local)
    }
}

/// The numbers of a host whose agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// The version of the agent.
    pub version: String,
    /// The name of the cluster.
    pub cluster: String,
    /// Which node this host is.
    pub node: Option<NodeName>,
    /// The hash of the configuration.
    pub config_id: String,
    /// The fingerprint of the secret, where there is one.
    pub secret_id: Option<String>,
    /// What happens to a pair that has no keys.
    pub mode: Mode,
    /// What the operator wants, and how far that has come.
    pub protection: Protection,
    /// Whether all is as the operator wants it: `status` ends with 0 then.
    pub healthy: bool,
    /// When the agent started.
    pub started: UnixTime,
    /// Whether the files as they are now are not in force.
    pub config_error: bool,
    /// How many pairs are in which state.
    pub summary: Summary,
    /// How many problems there are.
    pub problems: Vec<ProblemCount>,
    /// When the keys of a pair end first.
    pub earliest_expiry: Option<UnixTime>,
    /// When the keys of a pair are to be replaced first. It lies in the past where that does not succeed.
    pub earliest_rekey_due: Option<UnixTime>,
    /// What went through all SAs of this host, where that is known.
    pub volume: Option<Volume>,
    /// How many SAs of ours the kernel holds.
    pub sas: u64,
    /// And how many policies.
    pub policies: PolicyCounts,
    /// What the agent has counted.
    pub tally: AgentTally,
    /// The kernel's XFRM error counters, those that are zero too.
    pub kernel: BTreeMap<String, u64>,
    /// The numbers of each pair, where those are wanted.
    pub pairs: Option<Vec<PairFigures>>,
    /// Those of the cluster, where this host is a member of one that has a roster.
    #[serde(default)]
    pub cluster_part: Option<ClusterFigures>,
    /// The key that wraps the secret, where one does.
    #[serde(default)]
    pub kms: Option<KeyReport>,
    /// How far the record has come of a key that wraps none.
    #[serde(default)]
    pub kms_audit: Option<AuditReport>,
}

impl Figures {
    /// The numbers of a host of which this is known; `found` are other problems of its system. Of each pair if that is
    /// `asked` for, or else as the configuration says.
    pub fn of(
        evidence: &Evidence<'_>,
        found: impl IntoIterator<Item = Problem>,
        volume: Option<Volume>,
        asked: Option<bool>,
    ) -> Self {
        let Evidence { config, node, kernel, agent, .. } = *evidence;
        let outlook = Outlook::of(evidence, found);
        let snapshot = agent.snapshot();
        let (tally, started) =
            snapshot.map(|snapshot| (snapshot.tally, snapshot.started_at)).unwrap_or_default();
        let pairs: Vec<PairFigures> = outlook.pairs.iter().map(|sight| pair(evidence, sight)).collect();
        let wanted = asked.unwrap_or_else(|| config.metrics.pairs.of(pairs.len()));
        let mut figures = Self {
            version: VERSION.to_owned(),
            cluster: config.cluster.clone(),
            node: Some(node.name.clone()),
            config_id: evidence.config_id.to_owned(),
            secret_id: evidence.secret_id.map(str::to_owned),
            mode: config.protection.mode,
            protection: outlook.protection,
            healthy: outlook.is_healthy(agent),
            started,
            config_error: snapshot.is_some_and(|snapshot| snapshot.trouble.is_some()),
            summary: outlook.summary,
            problems: Vec::new(),
            earliest_expiry: pairs.iter().filter_map(|pair| pair.expiry).min(),
            earliest_rekey_due: pairs.iter().filter_map(|pair| pair.rekey_due).min(),
            volume,
            sas: kernel.sas.len() as u64,
            policies: policies(evidence),
            tally,
            kernel: evidence.statistics.clone(),
            pairs: wanted.then_some(pairs),
            cluster_part: None,
            kms: snapshot.and_then(|snapshot| snapshot.kms.clone()),
            kms_audit: snapshot.and_then(|snapshot| snapshot.kms_audit.clone()),
        };
        figures.add_problems(&outlook.problems);
        figures
    }

    /// More is wrong.
    pub fn add_problems(&mut self, problems: &[Problem]) {
        self.healthy &= !problems.iter().any(Problem::is_critical);
        for Problem { code, severity, .. } in problems {
            let known = |it: &&mut ProblemCount| (it.code, it.severity) == (*code, *severity);
            match self.problems.iter_mut().find(known) {
                Some(known) => known.count += 1,
                None => {
                    self.problems.push(ProblemCount { code: *code, severity: *severity, count: 1 });
                }
            }
        }
    }
}

fn policies(evidence: &Evidence<'_>) -> PolicyCounts {
    let mut counts = PolicyCounts::default();
    for policy in evidence.kernel.policies.policies().filter(|policy| ours::is_our_policy(policy)) {
        *match policy.id.direction {
            PolicyDirection::Out => &mut counts.out,
            PolicyDirection::In => &mut counts.inbound,
            PolicyDirection::Forward => &mut counts.forward,
        } += 1;
    }
    counts
}

fn pair(evidence: &Evidence<'_>, sight: &PairSight<'_>) -> PairFigures {
    let now = evidence.now.0;
    // Keys that nobody is about to replace should be replaced at the age that the file says.
    let due = |sa: &SaReading| match sight.rekey_in(sa) {
        Some(left) => now + left,
        None => (now + evidence.config.keying.rekey_after.as_secs()).saturating_sub(sight.age_of(sa)),
    };
    let outbound = sight.active().filter(|sa| sa.direction(sight.pair) == Direction::Out);
    PairFigures {
        node: sight.node.clone(),
        local: sight.pair.local,
        remote: sight.pair.remote,
        state: sight.state,
        reason: sight.reason_code(),
        since: sight.since,
        encapsulation: sight.encapsulation(),
        tx: sight.volume.tx,
        rx: sight.volume.rx,
        errors: sight.volume.errors,
        heard_esp: sight.last_heard_esp,
        heard_ike: sight.known.and_then(|known| known.heard?.ike),
        rekey_due: outbound.map(due).min().map(UnixTime),
        expiry: sight.active().filter_map(|sa| Some(now + sight.left_of(sa)?)).min().map(UnixTime),
    }
}
