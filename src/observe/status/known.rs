//! What is known about a host without asking an agent, and the status that follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{
    AgentInfo, CIPHER, Encapsulation, PeerRow, SCHEMA, SaErrors, SaRow, SaState, Status, Summary, fate,
    unbound,
};
use crate::config::{Config, Exemptions, Node};
use crate::observe::strangers;
use crate::observe::strangers::{Ground, Overruled};
use crate::store::{PairRecord, Saved};
use crate::types::{
    Action, Direction, Family, KernelState, NodeName, Pair, PolicyDirection, PolicyId, Problem, Proposals,
    Protection, ReasonCode, RowState, SaId, SaReading, Spi, UnixTime, ours,
};

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
    let overruled = strangers::overruled(&kernel.strangers, &pairs);
    let mut problems: Vec<Problem> = unbound::problems(known).collect();
    if saved.protection != Protection::Off {
        let exempt = Exemptions::of(config, Some(node));
        problems.extend(strangers::problems(&kernel.strangers, Ground { pairs: &pairs, exempt: &exempt }));
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
            family: Family::of(pair.local),
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
            totals_since: record.totals_since.filter(|_| record.is_whole(&sas, pair)),
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
            Action::Seal { through } => self.kernel.sends(pair, through),
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
