//! Checks of this host.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::check::{Check, CheckId};
use super::key::{self, KmsWay};
use crate::config::{Config, Node};
use crate::observe::status::{self, Status};
use crate::types::generation::VERSION;
use crate::types::units::{human_bytes, human_duration, listed};
use crate::types::{Family, Problem, Protection, UnixTime};

/// So many addresses are named.
const NAMED: usize = 4;
/// A certificate that ends sooner than this is warned of.
const RENEW_BEFORE: Duration = Duration::from_secs(7 * 86400);
/// What must survive is written beside what there is, and takes its place: room for it once, and this at least.
const ROOM_LEAST: u64 = 64 << 10;
/// With less room than this it is time to look.
const ROOM_WARN: u64 = 8 << 20;
/// A table of connections that is so full drops connections soon, in percent.
const CONNECTIONS_WARN: u64 = 90;
/// How far clocks may differ.
pub(super) const SKEW_WARN: Duration = Duration::from_secs(60);

/// What was read of this host. What could not be read, or was not asked for, is `None`.
#[derive(Debug, Clone, Default)]
pub struct HostEvidence<'a> {
    /// The time of day.
    pub now: UnixTime,
    /// The file.
    pub file: String,
    /// What it says, or what is in force in its place.
    pub config: Option<&'a Config>,
    /// What is wrong with the file.
    pub file_error: Option<String>,
    /// Which node of it this host is, or why that cannot be said.
    pub node: Option<Result<&'a Node, String>>,
    /// How this host proves itself.
    pub credentials: Option<CredentialsState>,
    /// The way to the KMS, where a key of one wraps the secret.
    pub kms_way: Option<KmsWay>,
    /// What the command may not look at.
    pub forbidden: Option<String>,
    /// What could not be read, for which check, and why.
    pub unread: Vec<(CheckId, String)>,
    /// The version of the kernel.
    pub release: Option<String>,
    /// Why that kernel is none to be used.
    pub outdated: Option<String>,
    /// Whether the kernel has ESP and the cipher, for each family that is used.
    pub esp: Vec<(Family, Result<(), String>)>,
    /// The addresses of the node that this host does not have.
    pub missing: Option<Vec<IpAddr>>,
    /// The ports that the agent needs.
    pub ports: Option<Vec<PortState>>,
    /// The file system of what must survive.
    pub room: Option<Result<DiskRoom, String>>,
    /// A file that was written later than it is now, as far as the clock can be believed, and when.
    pub from_later: Option<(String, UnixTime)>,
    /// How many connections this host tracks, and how many it can.
    pub connections: Option<(u64, u64)>,
    /// What is wrong with the system, as `status` says it.
    pub problems: Option<&'a BTreeSet<Problem>>,
    /// What `status` says.
    pub status: Option<&'a Status>,
}

/// How this host proves itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialsState {
    /// With what these words say; its certificate, where it has one, is good until then.
    Good(String, Option<UnixTime>),
    /// Its certificate is not good now, in words.
    Outdated(String),
    /// It cannot, in words.
    Missing(String),
}

/// A port that the agent needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortState {
    /// The port.
    pub port: u16,
    /// Without it there are no keys.
    pub is_vital: bool,
    /// Who else has it, in words, with what to do; `None` where nobody has.
    pub taken: Option<String>,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskRoom {
    /// The directory in it.
    pub directory: String,
    /// Octets that are free.
    pub free: u64,
    /// Whether one more file can be made.
    pub has_files: bool,
    /// Octets of what is there and must survive.
    pub used: u64,
}

/// All checks of this host.
pub fn of_host(evidence: &HostEvidence<'_>) -> Vec<Check> {
    let mut checks = vec![config(evidence)];
    checks.extend(node(evidence));
    checks.extend(evidence.credentials.iter().flat_map(|state| credentials(state, evidence.now)));
    checks.extend(evidence.kms_way.iter().flat_map(key::of_way));
    if let Some(status) = evidence.status {
        checks.extend(status.kms.iter().flat_map(key::of_report));
        checks.extend(status.audit().and_then(key::of_record));
    }
    checks.extend(permission(evidence));
    checks.extend(evidence.unread.iter().map(|(id, why)| unread(*id, why)));
    checks.extend(evidence.status.map(|status| agent(status, evidence.problems)));
    checks.extend(kernel(evidence));
    checks.extend(evidence.esp.iter().map(kernel_esp));
    checks.extend(addresses(evidence));
    checks.extend(evidence.ports.iter().flatten().map(port));
    checks.extend(evidence.room.as_ref().map(room));
    checks.extend(evidence.from_later.as_ref().map(|(file, at)| from_later(file, *at, evidence.now)));
    checks.extend(evidence.connections.map(connections));
    checks.extend(system(evidence));
    checks
}

/// What cannot be read is not well: without a status nobody knows whether this host is protected.
fn unread(id: CheckId, why: &str) -> Check {
    match id {
        CheckId::Agent => Check::fail(id, format!("how this host stands cannot be read: {why}")),
        _ => Check::unknown(id, why),
    }
}

fn config(evidence: &HostEvidence<'_>) -> Check {
    let in_force = evidence.status.and_then(|status| status.config_error.as_deref());
    let wrong = evidence.file_error.as_deref().or(in_force);
    match (wrong, evidence.config) {
        (Some(wrong), Some(_)) => {
            let words = format!("{wrong}. The last good configuration stays in force");
            Check::fail(CheckId::Config, words).mended_by("Mend the file; `hostseal config check` says when it is right")
        }
        (Some(wrong), None) => Check::fail(CheckId::Config, wrong).mended_by(
            "Mend the file (`hostseal config check`), or make one: `hostseal config new`, or `hostseal init` for a cluster",
        ),
        (None, config) => {
            let id = config.map(|config| format!(": cluster {}, config id {}", config.cluster, config.config_id()));
            Check::ok(CheckId::Config, format!("{}{}", evidence.file, id.unwrap_or_default()))
        }
    }
}

fn node(evidence: &HostEvidence<'_>) -> Option<Check> {
    Some(match evidence.node.as_ref()? {
        Ok(node) => {
            Check::ok(CheckId::Node, format!("{} ({})", node.name, node.addresses_in_words().join(", ")))
        }
        Err(words) => Check::fail(CheckId::Node, words),
    })
}

fn credentials(state: &CredentialsState, now: UnixTime) -> Vec<Check> {
    match state {
        CredentialsState::Good(words, until) => {
            let mut checks = vec![Check::ok(CheckId::Credentials, words)];
            checks.extend(until.map(|until| match until.since(now) {
                left if left < RENEW_BEFORE => {
                    let words = format!("ends in {}, on {until}", human_duration(left));
                    Check::warn(CheckId::Certificate, words)
                        .mended_by("Have a new one issued; the agent takes it by itself")
                }
                _ => Check::ok(CheckId::Certificate, format!("good until {until}")),
            }));
            checks
        }
        CredentialsState::Outdated(words) => vec![
            Check::fail(CheckId::Certificate, format!("{words}; the clock of this host says {now}"))
                .mended_by("Set the clock if it is wrong, else have a new certificate issued"),
        ],
        CredentialsState::Missing(words) => vec![Check::fail(CheckId::Credentials, words)],
    }
}

fn permission(evidence: &HostEvidence<'_>) -> Option<Check> {
    let forbidden = evidence.forbidden.as_ref()?;
    Some(Check::unknown(CheckId::Permission, forbidden).mended_by("Run it as root: `sudo hostseal doctor`"))
}

fn agent(status: &Status, problems: Option<&BTreeSet<Problem>>) -> Check {
    let problems = problems.into_iter().flatten().chain(&status.problems);
    let hung = problems.map(Check::from).find(|check| check.id == CheckId::Agent);
    if let Some(hung) = hung {
        return hung;
    }
    let info = &status.agent;
    let pid = info.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    match (info.running, status.protection) {
        (true, protection) => {
            let own = VERSION;
            let version = info.version.as_deref().unwrap_or(own);
            let words = format!("hostseal {version}{pid} answers; protection is {protection}");
            match version == own {
                true => Check::ok(CheckId::Agent, words),
                false => Check::warn(CheckId::Agent, format!("{words}. This command is {own}"))
                    .mended_by("Restart the agent (`systemctl restart hostseal`): protection stays in place"),
            }
        }
        (false, Protection::Off) => Check::ok(CheckId::Agent, "none runs, and protection is off"),
        (false, _) => Check::fail(CheckId::Agent, status::without_agent(&status.peers))
            .mended_by("`hostseal enable` starts one"),
    }
}

fn kernel(evidence: &HostEvidence<'_>) -> Option<Check> {
    match (&evidence.outdated, &evidence.release) {
        (Some(words), _) => Some(Check::warn(CheckId::Kernel, words)),
        (None, release) => release.as_ref().map(|release| Check::ok(CheckId::Kernel, release)),
    }
}

fn kernel_esp((family, state): &(Family, Result<(), String>)) -> Check {
    let family = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    match state {
        Ok(()) => Check::ok(CheckId::KernelEsp, format!("{family}: ESP with {}", status::CIPHER)),
        Err(words) => Check::fail(CheckId::KernelEsp, format!("{family}: {words}"))
            .mended_by("Install the modules of this kernel, or boot the kernel whose modules are installed"),
    }
}

fn addresses(evidence: &HostEvidence<'_>) -> Option<Check> {
    let missing = evidence.missing.as_ref()?;
    Some(match missing.as_slice() {
        [] => Check::ok(CheckId::Addresses, "this host has all of its addresses"),
        missing => {
            let words =
                format!("this host does not have {} now: no interface carries it", listed(missing, NAMED));
            Check::fail(CheckId::Addresses, words)
                .mended_by("Bring the interface up with that address, or correct the addresses in the file")
        }
    })
}

fn port(state: &PortState) -> Check {
    match &state.taken {
        None => Check::ok(CheckId::Ports, format!("UDP {} is the agent's, or free", state.port)),
        Some(words) if state.is_vital => Check::fail(CheckId::Ports, words),
        Some(words) => Check::warn(CheckId::Ports, words),
    }
}

fn room(room: &Result<DiskRoom, String>) -> Check {
    let room = match room {
        Ok(room) => room,
        Err(words) => return Check::unknown(CheckId::Disk, words),
    };
    let DiskRoom { directory, free, has_files, used } = room;
    let words = match has_files {
        true => format!("{} are free for {directory}", human_bytes(*free)),
        false => format!("no more files can be made in {directory}"),
    };
    let fix = "Make room: what must survive a reboot cannot be written otherwise";
    if *free < ROOM_LEAST.max(*used) || !has_files {
        Check::fail(CheckId::Disk, words).mended_by(fix)
    } else if *free < ROOM_WARN {
        Check::warn(CheckId::Disk, words).mended_by(fix)
    } else {
        Check::ok(CheckId::Disk, words)
    }
}

fn from_later(file: &str, at: UnixTime, now: UnixTime) -> Check {
    let words = format!("the clock says {now}, and {file} was written later, on {at}");
    Check::warn(CheckId::Clock, words).mended_by("Set the clock, and have it kept right (NTP)")
}

fn connections((count, most): (u64, u64)) -> Check {
    let words = format!("this host tracks {count} connections, and can track {most}");
    let fix = "Raise net.netfilter.nf_conntrack_max: when the table is full, new connections are dropped";
    if count >= most {
        Check::fail(CheckId::Conntrack, words).mended_by(fix)
    } else if count.saturating_mul(100) >= most.saturating_mul(CONNECTIONS_WARN) {
        Check::warn(CheckId::Conntrack, words).mended_by(fix)
    } else {
        Check::ok(CheckId::Conntrack, words)
    }
}

/// What `status` calls problems of this host, and what is no problem.
fn system(evidence: &HostEvidence<'_>) -> Vec<Check> {
    let Some(problems) = evidence.problems else { return Vec::new() };
    let answers = evidence.status.is_some_and(|status| status.agent.answering && status.agent.running);
    let fine = [
        (CheckId::Hole, "no setting of this system lets packets past the policies"),
        (CheckId::OtherIpsec, "no other software's IPsec concerns the pairs"),
        (CheckId::UnlistedSource, "packets to each peer leave from an address that has a pair with it"),
        (CheckId::NoRoute, "a route leads to each peer"),
        (CheckId::ClientPorts, "exempt connections of this host begin at exempt ports"),
        (CheckId::ForwardedClear, "this host forwards nothing past the pairs"),
        (CheckId::UnpairedAddress, "each address of this host has a pair"),
    ];
    let by_agent = [
        (CheckId::StateNotSaved, "what must survive a reboot is written"),
        (CheckId::UnlistedPeer, "no host asks for keys that has no pair"),
    ];
    let fine = fine.into_iter().chain(by_agent.into_iter().filter(|_| answers));
    let mut checks = Vec::new();
    let known = |id: CheckId| problems.iter().map(Check::from).filter(move |check| check.id == id);
    for (id, words) in fine {
        let wrong: Vec<Check> = known(id).collect();
        match wrong.is_empty() {
            true => checks.push(Check::ok(id, words)),
            false => checks.extend(wrong),
        }
    }
    let vital_is_taken = evidence.ports.iter().flatten().any(|port| port.taken.is_some());
    let ports = known(CheckId::Ports).filter(|_| !vital_is_taken);
    let of_kms = known(CheckId::KmsKey).chain(known(CheckId::KmsAudit));
    let rest = known(CheckId::Store).chain(of_kms).chain(known(CheckId::Other)).chain(ports);
    // Without an agent it is known only where something is wrong.
    let unasked = known(CheckId::StateNotSaved).filter(|_| !answers);
    checks.extend(rest.chain(unasked));
    checks
}
