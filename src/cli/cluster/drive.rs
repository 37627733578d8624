//! `hostseal enable --cluster`, `disable --cluster` and `confirm --cluster`: give the order, and follow it.

use std::time::{Duration, Instant};

use super::course::{ClusterCourse, only_waits};
use super::member::{OwnMember, say};
use super::ready::{NotReady, takes_part};
use super::sheet::Seen;
use super::view::ClusterView;
use crate::cli::args::{ConfirmArgs, DisableArgs, EnableArgs, Invocation};
use crate::cli::exit::{CommandError, Exit};
use crate::cli::kms;
use crate::cli::present::{Shown as _, result};
use crate::cli::render::names;
use crate::cli::status::AGAIN;
use crate::cli::term::{print, print_json, tell};
use crate::control::ClusterRequest;
use crate::observe::cluster::{ClusterStatus, DesiredState};
use crate::types::units::counted;

/// How long nodes may take to answer and to hear of what is new, before they count as not ready.
const SETTLE: Duration = Duration::from_secs(5);

pub(in crate::cli) fn enable(invocation: &Invocation, args: &EnableArgs) -> Result<Exit, CommandError> {
    let deadline = Instant::now() + args.timeout;
    let member = OwnMember::of(invocation)?;
    if member.is_one() {
        member.start_agent(invocation, deadline)?;
    }
    let (status, not_ready) = ask_all(&member, args.partial, args.trial.is_some(), deadline)?;
    if !not_ready.is_empty() {
        let nodes = counted(status.nodes.iter().filter(|node| takes_part(node)).count(), "node");
        let lines = not_ready.lines().join("\n");
        if !args.partial {
            if args.json {
                print_json(&status)?;
            }
            return Err(CommandError::new(
                Exit::Degraded,
                format!(
                    "nothing has been changed: {} of {nodes} cannot be enabled now:\n{lines}\n\
                     Mend that (`hostseal status --cluster`), or go on without them: \
                     `hostseal enable --cluster --partial`. They follow when they come",
                    not_ready.count()
                ),
            ));
        }
        tell(&format!("these follow when they come, and pairs with them wait for that:\n{lines}"));
    }
    let try_s = args.trial.map(|length| length.as_secs());
    let course = ClusterCourse::new(DesiredState::On, &status);
    member.order(ClusterRequest::Enable { try_s }, args.alone)?.iter().for_each(|note| tell(note));
    kms::bound(&member.config).iter().filter(|_| !invocation.quiet).for_each(|words| tell(words));
    if args.no_wait {
        match args.json {
            true => print_json(&member.status()?)?,
            false => print("ordered; `hostseal status --cluster --watch` shows the progress\n")?,
        };
        return Ok(Exit::Done);
    }
    let status = follow(&member, &course, invocation.quiet, deadline)?;
    let waits = only_waits(&status);
    let seen = Seen::now(status);
    result(&seen, args.json)?;
    Ok(if waits { Exit::Waiting } else { seen.exit() })
}

pub(in crate::cli) fn disable(invocation: &Invocation, args: &DisableArgs) -> Result<Exit, CommandError> {
    let deadline = Instant::now() + args.timeout;
    let member = OwnMember::of(invocation)?;
    member.order(ClusterRequest::Disable, args.alone)?.iter().for_each(|note| tell(note));
    let course = ClusterCourse::new(DesiredState::Off, &member.status()?);
    let status = follow(&member, &course, invocation.quiet, deadline)?;
    let behind: Vec<String> = course.behind(&status).map(|node| node.name.to_string()).collect();
    let seen = Seen::now(status);
    result(&seen, args.json)?;
    if behind.is_empty() {
        return Ok(seen.exit());
    }
    Err(CommandError::new(
        Exit::Degraded,
        format!(
            "not in the clear yet: {}. They follow when they hear of it; `hostseal status --cluster --watch` shows \
             the progress",
            names(&behind)
        ),
    ))
}

pub(in crate::cli) fn confirm(invocation: &Invocation, args: &ConfirmArgs) -> Result<Exit, CommandError> {
    let notes = OwnMember::of(invocation)?.order(ClusterRequest::Confirm, args.alone)?;
    say(args.json, "confirmed: what was on trial stays", &notes)
}

/// Asks all nodes. Who has just joined or come back may need a moment before it is ready.
pub(super) fn ask_all(
    member: &OwnMember,
    partial: bool,
    for_trial: bool,
    deadline: Instant,
) -> Result<(ClusterStatus, NotReady), CommandError> {
    let settled = deadline.min(Instant::now() + SETTLE);
    loop {
        let asked = Instant::now();
        let status = member.status()?;
        let not_ready = NotReady::of(&status, for_trial);
        if not_ready.is_empty() || partial || !not_ready.may_pass() || Instant::now() >= settled {
            return Ok((status, not_ready));
        }
        pause(asked, settled);
    }
}

/// Looks until the way is over, or the deadline.
fn follow(
    member: &OwnMember,
    course: &ClusterCourse,
    quiet: bool,
    deadline: Instant,
) -> Result<ClusterStatus, CommandError> {
    let mut view = ClusterView::new(quiet);
    loop {
        let asked = Instant::now();
        let status = member.status().inspect_err(|_| view.clear())?;
        if course.is_over(&status) || Instant::now() >= deadline {
            view.clear();
            return Ok(status);
        }
        view.update(&status, course);
        pause(asked, deadline);
    }
}

/// Waits before the next look: for each, the agent asks all the others.
pub(super) fn pause(asked: Instant, end: Instant) {
    let rest = AGAIN.saturating_sub(asked.elapsed());
    std::thread::sleep(rest.min(end.saturating_duration_since(Instant::now())));
}
