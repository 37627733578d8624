//! `hostseal rotate`: new keys for all nodes, and how far they are.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::drive::{ask_all, pause};
use super::member::OwnMember;
use crate::cli::args::{Invocation, RotateArgs};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::term::{print, print_json, tell};
use crate::control::ClusterRequest;
use crate::observe::cluster::{ClusterStatus, KeyProgress};
use crate::types::NodeName;
use crate::types::units::{counted, listed};

/// So many nodes are named.
const NAMED: usize = 8;
/// How long it may take until this node shows what it has just ordered.
const SHOWN: Duration = Duration::from_secs(1);

pub(in crate::cli) fn rotate(invocation: &Invocation, args: &RotateArgs) -> Result<Exit, CommandError> {
    let member = OwnMember::of(invocation)?;
    if args.status {
        return show(&member.status()?, args.order.json);
    }
    let deadline = Instant::now() + args.timeout;
    let (_, not_ready) = ask_all(&member, args.partial, false, deadline)?;
    if !not_ready.is_empty() {
        let lines = not_ready.lines().join("\n");
        if !args.partial {
            return Err(CommandError::new(
                Exit::Degraded,
                format!(
                    "nothing has been changed: new keys come into use when all nodes know them, and now they could \
                     not:\n{lines}\n\
                     Mend that, remove who is not coming back (`hostseal remove`), or begin without them: \
                     `hostseal rotate --partial`. The old keys stay good until those nodes have the new ones"
                ),
            ));
        }
        tell(&format!("the old keys stay good until these nodes have the new ones:\n{lines}"));
    }
    member.order(ClusterRequest::Rotate, args.order.alone)?.iter().for_each(|note| tell(note));
    let status = if args.no_wait { member.status()? } else { follow(&member, invocation.quiet, deadline)? };
    show(&status, args.order.json)
}

/// Looks until all have their new keys, or until `deadline`.
fn follow(member: &OwnMember, quiet: bool, deadline: Instant) -> Result<ClusterStatus, CommandError> {
    let begun = Instant::now();
    let (mut said, mut began) = (String::new(), false);
    loop {
        let asked = Instant::now();
        let status = member.status()?;
        began |= !status.has_current_keys() || begun.elapsed() >= SHOWN;
        if (began && status.has_current_keys()) || Instant::now() >= deadline {
            return Ok(status);
        }
        let line = line(&status);
        if !quiet && line != said {
            tell(&line);
            said = line;
        }
        pause(asked, deadline);
    }
}

/// How far the nodes are with new keys, for programs.
#[derive(Serialize)]
struct KeysRow<'s> {
    /// They have made none yet, as far as is known.
    due: Vec<&'s NodeName>,
    /// They have, and their old keys are accepted as well.
    offered: Vec<&'s NodeName>,
    /// They have, and no others count.
    current: Vec<&'s NodeName>,
}

fn show(status: &ClusterStatus, json: bool) -> Result<Exit, CommandError> {
    let [due, offered, current] = [KeyProgress::Due, KeyProgress::Offered, KeyProgress::Current]
        .map(|progress| status.with_keys(progress));
    let exit = if status.has_current_keys() { Exit::Done } else { Exit::Waiting };
    match json {
        true => print_json(&KeysRow { due, offered, current })?,
        false => print(&format!("{}\n", line(status)))?,
    };
    Ok(exit)
}

/// How far the nodes are with new keys, in words.
pub(super) fn line(status: &ClusterStatus) -> String {
    let of = |progress: KeyProgress| status.with_keys(progress);
    let (due, offered, current) = (of(KeyProgress::Due), of(KeyProgress::Offered), of(KeyProgress::Current));
    let all = counted(due.len() + offered.len() + current.len(), "node");
    if due.is_empty() && offered.is_empty() {
        return format!("{all} prove themselves with new keys alone");
    }
    let waits = match (due.as_slice(), offered.as_slice()) {
        ([], offered) => format!("{} change over", listed(offered, NAMED)),
        (due, _) => format!("the rest waits for {}", listed(due, NAMED)),
    };
    format!("{} of {all} use new keys alone; {waits}", current.len())
}
