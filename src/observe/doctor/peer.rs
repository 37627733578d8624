//! Checks of each peer: what `status` says of its pairs, and what was found out by asking.

use std::time::Duration;

use super::check::{Check, CheckId};
use super::finding::{BothWays, PairFinding};
use super::host::SKEW_WARN;
use crate::config::Config;
use crate::identity::AuthMethod;
use crate::observe::status::{Encapsulation, PeerRow, Status};
use crate::types::units::human_duration;
use crate::types::{EncapsulationMode, NodeName, Problem, ReasonCode, RowState};

/// What to do about a host that nobody answers on.
const LISTEN: &str = "Is it up and enabled, and does its file list this host? If no agent runs there, start \
                      `hostseal doctor --listen` there and run this again: it tells whether the path is open";
/// What to do about one on which somebody listens.
const ENABLE: &str =
    "`hostseal doctor --listen` runs there, and no agent: end it, and run `hostseal enable` there";
/// An answer that takes longer than this is late.
const LATE: Duration = Duration::from_secs(1);

/// What is known of the peers.
#[derive(Debug, Clone, Copy)]
pub struct PeerEvidence<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// What `status` says.
    pub status: &'a Status,
    /// What was found out by asking; none of a pair that nobody was asked about.
    pub findings: &'a [PairFinding],
    /// The node that is asked about; `None` for all.
    pub only: Option<&'a str>,
}

/// The checks of all peers, by their names.
pub fn of_peers(evidence: PeerEvidence<'_>) -> Vec<Check> {
    let wanted = |row: &&PeerRow| evidence.only.is_none_or(|only| only == row.node.as_str());
    let mut rows: Vec<&PeerRow> = evidence.status.peers.iter().filter(wanted).collect();
    rows.sort_by_key(|row| (&row.node, row.remote, row.local));
    let mut checks = Vec::new();
    for of_node in rows.chunk_by(|one, other| one.node == other.node) {
        for row in of_node {
            let finding =
                evidence.findings.iter().find(|it| (it.local, it.remote) == (row.local, row.remote));
            let seen = PairSeen { evidence, row, finding };
            // Of several pairs with one host, each check says of which it is.
            let named = |check: Check| match of_node.len() {
                1 => check,
                _ if check.id == CheckId::Pair => check,
                _ => Check { detail: format!("{}: {}", row.remote, check.detail), ..check },
            };
            checks.extend(seen.checks().into_iter().map(|check| named(check).about(&row.node)));
        }
        checks.extend(of_node.first().into_iter().flat_map(|row| of_host(evidence, row)));
    }
    checks
}

/// What is wrong with a peer by `status`, and what it tells of itself: once, however many addresses it has.
fn of_host(evidence: PeerEvidence<'_>, row: &PeerRow) -> Vec<Check> {
    let name = &row.node;
    let of_node = |problem: &&Problem| problem.node.as_ref() == Some(name) && is_of_peer(problem);
    let found: Vec<Check> =
        evidence.status.problems.iter().filter(of_node).map(Check::from).collect::<Vec<_>>();
    let lacks = |id: CheckId| !found.iter().any(|check| check.id == id);
    let mut checks = Vec::new();
    let told =
        evidence.status.peers.iter().filter(|other| other.node == *name).find_map(|it| it.peer.as_ref());
    if let Some(told) = told {
        let id = &told.config_id;
        let same = (CheckId::ConfigDiffers, format!("the same configuration: config id {id}"));
        let secret = told
            .secret_id
            .as_ref()
            .map(|id| (CheckId::SecretDiffers, format!("the same secret: secret id {id}")));
        let same = [Some(same), secret].into_iter().flatten().filter(|(id, _)| lacks(*id));
        checks.extend(same.map(|(id, words)| Check::ok(id, words)));
        checks.push(version(evidence.status.agent.version.as_deref(), &told.version));
    } else if row.state == RowState::Protected && evidence.status.agent.answering {
        let words = "it tells nothing of itself: it runs other software or an older version, or the agent here has just \
                     started";
        checks.push(Check::unknown(CheckId::Version, words));
    }
    checks.extend(refused_proof(evidence, name).filter(|_| lacks(CheckId::SecretDiffers)));
    checks.extend(found);
    checks.into_iter().map(|check| check.about(name)).collect()
}

/// Whether a problem of `status` is one of a peer, and not one of this host that concerns it.
fn is_of_peer(problem: &Problem) -> bool {
    matches!(
        CheckId::from(problem.code),
        CheckId::PathMtu
            | CheckId::PathForgets
            | CheckId::KeysNotRenewed
            | CheckId::KernelRefuses
            | CheckId::UnboundSa
            | CheckId::ConfigDiffers
            | CheckId::SecretDiffers
            | CheckId::Ppk
    )
}

/// Whether the other host runs the version of this one, where that is known.
pub(super) fn version(own: Option<&str>, theirs: &str) -> Check {
    match own {
        Some(own) if own != theirs => {
            Check::warn(CheckId::Version, format!("it runs hostseal {theirs}, this host {own}"))
                .mended_by("Update the older one, and restart its agent: protection stays in place")
        }
        _ => Check::ok(CheckId::Version, format!("it runs hostseal {theirs}")),
    }
}

/// One end does not take the proof of the other, and the secret is the proof.
fn refused_proof(evidence: PeerEvidence<'_>, name: &NodeName) -> Option<Check> {
    let PeerEvidence { config, status, .. } = evidence;
    let is_refused = |row: &&PeerRow| row.node == *name && row.reason_code == Some(ReasonCode::AuthFailed);
    status.peers.iter().find(is_refused)?;
    let by_secret =
        config.node_named(name.as_str()).is_some_and(|node| config.method_of(node) == AuthMethod::Secret);
    let here = status.secret_id.as_deref().unwrap_or("none");
    let words = format!(
        "the proof of one end is not taken by the other, and the secret is the proof: the two have most likely different \
         ones (secret id {here} here)"
    );
    by_secret.then(|| {
        Check::fail(CheckId::SecretDiffers, words)
            .mended_by("Compare `hostseal secret id` on both hosts, and copy the same secret to both")
    })
}

/// What is known of one pair.
struct PairSeen<'a> {
    evidence: PeerEvidence<'a>,
    row: &'a PeerRow,
    finding: Option<&'a PairFinding>,
}

impl PairSeen<'_> {
    fn checks(&self) -> Vec<Check> {
        let mut checks = vec![self.pair(), self.ike(), self.esp()];
        checks.extend(self.nat());
        checks.extend(self.finding.into_iter().flat_map(|finding| self.answered(finding)));
        checks
    }

    fn ports(&self) -> (u16, u16) {
        let keying = &self.evidence.config.keying;
        (keying.port, keying.nat_port)
    }

    fn pair(&self) -> Check {
        let row = self.row;
        let who = format!("{} <-> {}", row.local, row.remote);
        let reason = row.reason.as_deref().unwrap_or("nobody says why");
        match row.state {
            RowState::Protected if row.is_silent() => {
                Check::fail(CheckId::Pair, format!("{who} is {reason}"))
            }
            RowState::Protected => Check::ok(CheckId::Pair, format!("{who} is protected")),
            RowState::Off => Check::ok(CheckId::Pair, format!("{who} is in the clear, as protection is off")),
            state if row.waiting => {
                let listens = self.finding.is_some_and(|finding| finding.listens);
                Check::unknown(CheckId::Pair, format!("{who} is {state}: {reason}")).mended_by(if listens {
                    ENABLE
                } else {
                    LISTEN
                })
            }
            RowState::Negotiating => Check::warn(CheckId::Pair, format!("{who} is on its way: {reason}"))
                .mended_by("Run this again in some seconds"),
            state => Check::fail(CheckId::Pair, format!("{who} is {state}: {reason}")),
        }
    }

    fn ike(&self) -> Check {
        let (port, _) = self.ports();
        let (row, id) = (self.row, CheckId::UdpIke);
        let ways = self.finding.map(|finding| finding.ways.ike).unwrap_or_default();
        if let Some(way) = ways.closed() {
            let words = format!("UDP {port} does not get through {way}");
            return Check::fail(id, words).mended_by(open(&format!("UDP {port}"), way));
        }
        if ways.are_open() {
            return Check::ok(id, format!("UDP {port} gets through in both directions"));
        }
        let answered = self.finding.is_some_and(|finding| finding.round_trip_us.is_some());
        let is_in_udp = row.encapsulation == Encapsulation::Udp;
        let knocks = self.finding.is_some_and(|finding| finding.knocks || (finding.asked && finding.hears));
        if self.finding.is_some_and(|finding| finding.refused) {
            let words = format!("{} is up, and nobody has UDP {port} there: no agent runs", row.remote);
            return Check::unknown(id, words).mended_by(LISTEN);
        }
        match row.reason_code {
            _ if answered && !is_in_udp => Check::ok(id, format!("it answers on UDP {port}")),
            _ if answered => Check::ok(id, "it answers: IKE has moved to the port of ESP in UDP"),
            None if self.finding.is_some_and(|finding| finding.asked) => {
                let words =
                    format!("no answer from {} on UDP {port}, to what was asked inside IKE", row.remote);
                Check::fail(id, words).mended_by(LISTEN)
            }
            None | Some(ReasonCode::NoAnswer | ReasonCode::Silent) if knocks => {
                let words = format!(
                    "datagrams in its name come on UDP {port}, and it does not answer: what this host sends does not come \
                     there"
                );
                Check::fail(id, words).mended_by(open(&format!("UDP {port}"), "from this host to the other"))
            }
            Some(ReasonCode::Silent) => {
                Check::fail(id, format!("no answer from {} on UDP {port}", row.remote)).mended_by(LISTEN)
            }
            Some(ReasonCode::NoAnswer) => {
                let words = format!("no answer from {} on UDP {port}, and nothing comes from it", row.remote);
                Check::unknown(id, words).mended_by(LISTEN)
            }
            Some(
                ReasonCode::AuthFailed
                | ReasonCode::PpkMissing
                | ReasonCode::PpkUnknown
                | ReasonCode::PpkWrong
                | ReasonCode::NoProposal
                | ReasonCode::PeerRefused
                | ReasonCode::EspBlocked
                | ReasonCode::PeerDisabled,
            ) => Check::ok(id, format!("it answers on UDP {port}")),
            None if row.state == RowState::Protected && row.last_heard.is_some() && !is_in_udp => {
                Check::ok(id, format!("it was heard last on {}", heard(row)))
            }
            _ => Check::unknown(id, self.unasked()).mended_by(LISTEN),
        }
    }

    /// Why nothing was found out of a path.
    fn unasked(&self) -> &'static str {
        let agent = &self.evidence.status.agent;
        match (agent.running, agent.answering) {
            (false, _) => "no agent runs on this host to ask it",
            (true, false) => "the agent of this host does not answer, and cannot ask it",
            _ if self.row.state == RowState::Off => "protection is off, and no listener answers there",
            _ => "it has not answered yet",
        }
    }

    fn esp(&self) -> Check {
        let (row, id) = (self.row, CheckId::Esp);
        let is_in_udp = row.encapsulation == Encapsulation::Udp;
        let ways = self.finding.map(|finding| finding.ways.esp).unwrap_or_default();
        if let Some(way) = ways.closed().filter(|_| !is_in_udp) {
            let words = format!("ESP (IP protocol 50) does not get through {way}");
            return Check::fail(id, words).mended_by(open("IP protocol 50", way));
        }
        if ways.are_open() && !is_in_udp {
            return Check::ok(id, "ESP (IP protocol 50) gets through in both directions");
        }
        match row.reason_code {
            Some(ReasonCode::EspBlocked) => Check::fail(id, row.reason.clone().unwrap_or_default()),
            _ if is_in_udp && self.evidence.config.esp.encapsulation == EncapsulationMode::Always => {
                Check::ok(id, "ESP goes in UDP, as the file says")
            }
            _ if is_in_udp => {
                let words =
                    "ESP goes in UDP: by itself (IP protocol 50) it does not get through, or there is a NAT";
                Check::warn(id, words).mended_by(
                    "Without a NAT in between, allow IP protocol 50 in both directions: it is faster",
                )
            }
            _ if row.state == RowState::Protected && row.last_heard_esp.is_some() && !row.is_silent() => {
                Check::ok(id, "ESP (IP protocol 50) of the other host has come through the SA")
            }
            _ => Check::unknown(id, "no SA is in use by which that would show"),
        }
    }

    fn nat(&self) -> Option<Check> {
        let (_, port) = self.ports();
        let (row, id) = (self.row, CheckId::UdpNat);
        let ways = self.finding.map(|finding| finding.ways).unwrap_or_default();
        let is_in_udp = row.encapsulation == Encapsulation::Udp;
        if self.evidence.config.esp.encapsulation == EncapsulationMode::Never {
            return None;
        }
        let esp = if is_in_udp { ways.esp } else { BothWays::default() };
        Some(match ways.nat.closed().or(esp.closed()) {
            Some(way) => {
                let words = format!("UDP {port} does not get through {way}");
                let check = match is_in_udp {
                    true => Check::fail(id, words),
                    false => Check::warn(id, format!("{words}: ESP in UDP would not, should a pair need it")),
                };
                check.mended_by(open(&format!("UDP {port}"), way))
            }
            None if ways.nat.are_open() || esp.are_open() => {
                Check::ok(id, format!("UDP {port} gets through in both directions"))
            }
            None if is_in_udp && row.state == RowState::Protected && !row.is_silent() => {
                Check::ok(id, format!("ESP goes in UDP by port {port}"))
            }
            None => Check::unknown(id, format!("UDP {port} is not in use, and was not tried")),
        })
    }

    /// What only a host that answers can be asked.
    fn answered(&self, finding: &PairFinding) -> Vec<Check> {
        let row = self.row;
        let mut checks = Vec::new();
        checks.extend(finding.round_trip_us.map(|microseconds| {
            let took = Duration::from_micros(microseconds);
            let words = format!("an answer inside IKE takes {:.1} ms", took.as_secs_f64() * 1000.0);
            match took > LATE {
                true => {
                    Check::warn(CheckId::RoundTrip, words).mended_by("Is one of the hosts or the link busy?")
                }
                false => Check::ok(CheckId::RoundTrip, words),
            }
        }));
        if row.state == RowState::Protected && !row.is_silent() {
            checks.extend(self.size(finding));
        }
        checks.extend(finding.ahead_s.map(|ahead_s| clock(ahead_s.saturating_mul(1000))));
        if !finding.asked && row.peer.is_some() {
            let words = "it cannot be asked what comes to it: it runs an older version";
            checks.push(Check::unknown(CheckId::Clock, words).mended_by("Update it"));
        }
        checks
    }

    /// What is lost on the way, `status` calls a problem.
    fn size(&self, finding: &PairFinding) -> Option<Check> {
        let is_named = |problem: &Problem| {
            problem.node.as_ref() == Some(&self.row.node) && CheckId::from(problem.code) == CheckId::PathMtu
        };
        match finding.size {
            _ if self.evidence.status.problems.iter().any(is_named) => None,
            Some((octets, true)) => {
                let words = format!(
                    "packets of up to {octets} octets get through the SA, as this host lets them out"
                );
                Some(Check::ok(CheckId::PathMtu, words))
            }
            _ => Some(
                Check::unknown(CheckId::PathMtu, "it was not found out in time").mended_by("Run this again"),
            ),
        }
    }
}

fn heard(row: &PeerRow) -> String {
    row.last_heard.map(|at| at.to_string()).unwrap_or_default()
}

/// What to open.
fn open(what: &str, way: &str) -> String {
    format!("Open {what} {way} in the firewalls of both hosts and in between")
}

/// How far the clock of the other host is ahead of this one's, in milliseconds.
pub(super) fn clock(ahead_ms: i64) -> Check {
    let apart = Duration::from_millis(ahead_ms.unsigned_abs());
    if apart <= SKEW_WARN {
        return Check::ok(
            CheckId::Clock,
            format!("its clock and this host's are {} apart", human_duration(apart)),
        );
    }
    let place = if ahead_ms > 0 { "ahead of" } else { "behind" };
    Check::warn(CheckId::Clock, format!("its clock is {} {place} this host's", human_duration(apart)))
        .mended_by(
            "Set the one that is wrong, and have both kept right (NTP): certificates and logs depend on it",
        )
}
