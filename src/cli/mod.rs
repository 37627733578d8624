//! The command line: asks the agent, or reads the kernel where none runs, and shows the answer.
//!
//! It decides nothing about protection and changes nothing in the kernel. `agent`, `exporter`, `guard`, `disable --force`, `init` and
//! `join` need the layer that does; `main` hands them over.

mod args;
mod check;
mod client;
mod cluster;
mod columns;
mod confirm;
mod context;
mod details;
mod disable;
mod doctor;
mod enable;
mod exit;
mod exporter;
mod follow;
mod generate;
mod kernel_age;
mod key;
mod keyboard;
mod kms;
mod layout;
mod listeners;
mod live;
mod log;
mod metrics;
mod new;
mod nodes;
mod others;
mod plan;
mod preflight;
mod present;
mod progress;
mod prove;
mod reload;
mod remembered;
mod render;
mod screen;
mod secret;
mod sheet;
mod ssh;
mod start;
mod status;
mod table;
mod term;
#[cfg(test)]
mod tests;
mod top;
mod wrap;

pub use args::{
    AgentArgs, Command, DisableArgs, ExporterArgs, InitArgs, Invocation, JoinArgs, KmsRunnerArgs, LeaveArgs,
    parse,
};
pub use cluster::{RunningAgent, founded, join_token, joined, left, step};
pub use exit::{CommandError, Exit, finish};
pub use exporter::Exporter;
pub use log::start_log;
pub use start::detach;
pub use term::print;

/// Carries out a command.
///
/// # Errors
/// It failed: with what to tell the operator, and the exit status.
pub fn run(invocation: &Invocation) -> Result<Exit, CommandError> {
    match &invocation.command {
        Command::Secret(args) => secret::run(invocation, args),
        Command::Kms(command) => kms::run(invocation, command),
        Command::Key(args) => key::run(invocation, args),
        Command::Config(args::ConfigCommand::New(args)) => new::run(invocation, args),
        Command::Config(args::ConfigCommand::Check(args)) => check::run(invocation, args),
        Command::Enable(args) => enable::run(invocation, args),
        Command::Confirm(args) => confirm::run(invocation, args),
        Command::Disable(args) => disable::run(invocation, args),
        Command::Status(args) => status::run(invocation, args),
        Command::Metrics(args) => metrics::run(invocation, args),
        Command::Top(args) => top::run(invocation, args),
        Command::Doctor(args) => doctor::run(invocation, args),
        Command::Plan(args) => plan::run(invocation, args),
        Command::Prove(args) => prove::run(invocation, args),
        Command::Reload => reload::run(invocation),
        Command::Token(command) => cluster::token(invocation, command),
        Command::Add(args) => cluster::add(invocation, args),
        Command::Move(args) => cluster::relocate(invocation, args),
        Command::Remove(args) => cluster::remove(invocation, args),
        Command::Leave(args) => cluster::leave(invocation, args),
        Command::Rotate(args) => cluster::rotate(invocation, args),
        Command::Admin(command) => cluster::admin(invocation, command),
        Command::Floating(args) => cluster::floating(invocation, args),
        Command::Settings(args) => cluster::settings(invocation, args),
        Command::Nodes => nodes::run(invocation),
        Command::Completions { shell } => generate::completions(*shell),
        Command::Man { directory } => generate::man(directory.as_deref()),
        Command::Agent(_)
        | Command::Exporter(_)
        | Command::Guard
        | Command::Hold
        | Command::KmsRunner(_)
        | Command::Init(_)
        | Command::Join(_) => {
            Err(CommandError::new(Exit::Failed, "this takes the agent, and is not run from here"))
        }
    }
}
