//! `hostseal plan`: what the agent would change in the kernel, now or with another file.

use std::path::PathBuf;

use serde::Serialize;

use super::args::{Invocation, PlanArgs};
use super::context;
use super::exit::{Exit, Failure};
use super::render;
use super::term::{print, print_json};
use crate::model::config::Config;
use crate::model::control::PlanLine;

#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    changes: &'a [PlanLine],
}

pub(super) fn run(invocation: &Invocation, args: &PlanArgs) -> Result<Exit, Failure> {
    let (config, _) = context::config_at_work(invocation)?;
    let read = |file: &PathBuf| Ok::<_, Failure>((file.clone(), Config::read(file)?));
    let with = args.with.as_ref().map(read).transpose()?;
    let lines = context::client(&config).plan(with)?;
    match args.json {
        true => print_json(&Report { schema: 1, changes: &lines })?,
        false => print(&render::plan(&lines))?,
    };
    match args.exit_code && !lines.is_empty() {
        true => Ok(Exit::Degraded),
        false => Ok(Exit::Done),
    }
}
