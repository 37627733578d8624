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
use crate::observe::doctor::{CheckResult, Diagnosis, PeerEvidence, of_host, of_peers};

/// All of it takes no longer.
const LONGEST: Duration = Duration::from_secs(20);

pub(super) fn run(invocation: &Invocation, args: &DoctorArgs) -> Result<Exit, CommandError> {
    if args.listen {
        return listen::run(invocation);
    }
    let seen = Gathered::gather(invocation, args.node.as_deref(), Instant::now() + LONGEST)?;
    let mut checks = of_host(&seen.evidence());
    if let (Some(config), Some(status)) = (seen.config(), seen.status()) {
        let only = args.node.as_deref();
        checks.extend(of_peers(PeerEvidence { config, status, findings: seen.findings(), only }));
    }
    if args.cluster {
        checks.extend(cluster::doctor(invocation, args.node.as_deref())?);
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

fn exit(diagnosis: &Diagnosis) -> Exit {
    if diagnosis.count(CheckResult::Fail) > 0 {
        Exit::Degraded
    } else if diagnosis.is_blind() {
        Exit::NotPermitted
    } else {
        Exit::Done
    }
}
