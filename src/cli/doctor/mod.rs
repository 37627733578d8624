//! `hostseal doctor`: reads what there is to read, asks the agent, and says what is wrong and what to do.
//!
//! ```text
//! evidence  what is read of this host: nothing that fails ends the command
//! knock     hosts are asked that no agent can talk to
//! listen    and answer
//! raw       the socket of protocol 50 for both
//! show      what comes of it, as lines
//! ```
//! What it means is decided in `observe::doctor`.

mod evidence;
mod knock;
mod listen;
mod raw;
mod show;

use std::time::{Duration, Instant};

use self::evidence::Gathered;
use super::args::{DoctorArgs, Invocation};
use super::cluster;
use super::exit::{CommandError, Exit};
use super::term::{Style, print, print_json, size};
use crate::observe::doctor::{Check, CheckId, CheckResult, Diagnosis, PeerEvidence, of_host, of_peers};
use crate::observe::status::Status;

/// All of it takes no longer.
const LONGEST: Duration = Duration::from_secs(20);
/// What of that is for asking the other nodes of the cluster.
const OF_CLUSTER: Duration = Duration::from_secs(5);

pub(super) fn run(invocation: &Invocation, args: &DoctorArgs) -> Result<Exit, CommandError> {
    if args.listen {
        return listen::run(invocation);
    }
    let longest = if args.cluster { LONGEST.saturating_sub(OF_CLUSTER) } else { LONGEST };
    let seen = Gathered::gather(invocation, args.node.as_deref(), Instant::now() + longest)?;
    let mut checks = of_host(&seen.evidence());
    if let (Some(config), Some(status)) = (seen.config(), seen.status()) {
        let only = args.node.as_deref();
        checks.extend(of_peers(PeerEvidence { config, status, findings: seen.findings(), only }));
    }
    if args.cluster {
        checks.extend(of_cluster(invocation, args, seen.status()));
    }
    let diagnosis = Diagnosis::new(checks);
    if args.json {
        print_json(&diagnosis)?;
    } else {
        let width = size().map(|(columns, _)| columns);
        print(&show::text(&diagnosis, width, Style::of_stdout()))?;
    }
    Ok(exit(&diagnosis))
}

/// What the other nodes say; why they cannot be asked is a finding, too.
fn of_cluster(invocation: &Invocation, args: &DoctorArgs, status: Option<&Status>) -> Vec<Check> {
    if status.is_some_and(|status| status.agent.running && !status.agent.answering) {
        return vec![Check::unknown(
            CheckId::Answers,
            "the agent of this host does not answer, and cannot ask the others",
        )];
    }
    cluster::doctor(invocation, args.node.as_deref())
        .unwrap_or_else(|error| vec![Check::unknown(CheckId::Answers, error.message)])
}

fn exit(diagnosis: &Diagnosis) -> Exit {
    if diagnosis.count(CheckResult::Fail) > 0 {
        Exit::Degraded
    } else if diagnosis.is_blind() {
        Exit::NotPermitted
    } else {
        Exit::Done
    }
}
