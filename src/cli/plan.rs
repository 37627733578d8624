//! `hostseal plan`: what the agent would change in the kernel, now or with another file.

use serde::Serialize;

use super::args::{Invocation, PlanArgs};
use super::context;
use super::exit::{CommandError, Exit};
use super::render;
use super::term::{print, print_json};
use crate::control::{PlanLine, Preview};
use crate::store::config_file;

#[derive(Serialize)]
struct PlanJson<'a> {
    schema: u32,
    /// What another file says otherwise; without one there is none to tell of.
    #[serde(skip_serializing_if = "Option::is_none")]
    file_changes: Option<&'a [String]>,
    changes: &'a [PlanLine],
}

pub(super) fn run(invocation: &Invocation, args: &PlanArgs) -> Result<Exit, CommandError> {
    let (config, _) = context::config_at_work(invocation)?;
    let client = context::client(&config);
    let (plan, other) = match &args.with {
        Some(file) => (client.preview(file.clone(), config_file::read(file)?)?, true),
        None => (Preview { kernel: client.plan()?, ..Preview::default() }, false),
    };
    let file_changes = other.then_some(plan.file.as_slice());
    match args.json {
        true => print_json(&PlanJson { schema: 1, file_changes, changes: &plan.kernel })?,
        false => print(&render::plan(&plan))?,
    };
    let nothing = plan.file.is_empty() && plan.kernel.is_empty();
    Ok(if args.exit_code && !nothing { Exit::Degraded } else { Exit::Done })
}
