//! `hostseal doctor`: reads what there is to read, asks the agent, and says what is wrong and what to do.
//!
//! ```text
//! evidence  what is read of this host: nothing that fails ends the command
//! key       what is read of the way to a KMS
//! knock     hosts are asked that no agent can talk to
//! listen    and answer
//! raw       the socket of protocol 50 for both
//! show      what comes of it, as lines
//! ```
//! What it means is decided in `observe::doctor`.

mod evidence;
mod key;
mod knock;
mod listen;
mod raw;
mod show;

use std::panic::resume_unwind;
use std::thread::{self, ScopedJoinHandle};
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

pub(super) fn run(invocation: &Invocation, args: &DoctorArgs) -> Result<Exit, CommandError> {
    if args.listen {
        return listen::run(invocation);
    }
    let only = args.node.as_deref();
    let (seen, others) = thread::scope(|scope| {
        // The others are asked meanwhile: each of both may take most of the time that there is.
        let others = args.cluster.then(|| scope.spawn(|| cluster::doctor(invocation, only)));
        let seen = Gathered::gather(invocation, only, Instant::now() + LONGEST);
        (seen, others.map(ScopedJoinHandle::join))
    });
    let seen = seen?;
    let mut checks = of_host(&seen.evidence());
    if let (Some(config), Some(status)) = (seen.config(), seen.status()) {
        checks.extend(of_peers(PeerEvidence { config, status, findings: seen.findings(), only }));
    }
    if let Some(others) = others {
        let said = others.unwrap_or_else(|panic| resume_unwind(panic));
        checks.extend(of_cluster(said, seen.status()));
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

/// What the other nodes have said; why they cannot be asked is a finding, too.
fn of_cluster(said: Result<Vec<Check>, CommandError>, status: Option<&Status>) -> Vec<Check> {
    let hangs = status.is_some_and(|status| status.agent.running && !status.agent.answering);
    said.unwrap_or_else(|error| {
        let words = "the agent of this host does not answer, and cannot ask the others";
        vec![Check::unknown(CheckId::Answers, if hangs { words.to_owned() } else { error.message })]
    })
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
