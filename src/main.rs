//! The `hostseal` command: dispatch only. What joins the layers (`agent`, `guard`, `disable --force`) is called
//! here, because the command line itself may not know the agent.

use std::path::Path;
use std::process::ExitCode;

use hostseal::agent::{self, FoundOrder, Stay};
use hostseal::cli::{
    self, AgentArgs, Command, CommandError, Exit, ExporterArgs, InitArgs, Invocation, JoinArgs,
    KmsRunnerArgs, LeaveArgs,
};
use hostseal::roster::NotAToken;

fn main() -> ExitCode {
    let invocation = cli::parse();
    if let Err(error) = agent::keep_secrets() {
        return cli::finish(Err(error.into()));
    }
    let outcome = match &invocation.command {
        Command::Agent(args) => run_agent(&invocation, args),
        Command::Exporter(args) => exporter(&invocation, args),
        Command::Hold => agent::hold().map(|()| Exit::Done).map_err(CommandError::from),
        Command::KmsRunner(args) => run_helper(args),
        Command::Init(args) => init(&invocation, args),
        Command::Join(args) => join(&invocation, args),
        Command::Leave(LeaveArgs { to_file: Some(file), order }) => {
            leave_to_file(&invocation, file, order.json)
        }
        Command::Guard => said(agent::guard(&invocation.config)),
        Command::Disable(args) if args.force => said(agent::force_clear(&invocation.config)),
        _ => cli::run(&invocation),
    };
    cli::finish(outcome)
}

fn run_agent(invocation: &Invocation, args: &AgentArgs) -> Result<Exit, CommandError> {
    if args.detached {
        cli::detach()?;
    }
    cli::start_log(invocation.verbose, invocation.quiet, args.log_file.as_deref());
    // One that `enable` started has nobody to end it but `disable`.
    let stay = if args.detached { Stay::UntilDisabled } else { Stay::Forever };
    agent::run(&invocation.config, stay)?;
    Ok(Exit::Done)
}

fn exporter(invocation: &Invocation, args: &ExporterArgs) -> Result<Exit, CommandError> {
    cli::start_log(invocation.verbose, invocation.quiet, None);
    let exporter = cli::Exporter::open(invocation, args)?;
    agent::become_onlooker(exporter.writes())?;
    exporter.run()
}

fn run_helper(args: &KmsRunnerArgs) -> Result<Exit, CommandError> {
    match (&args.listen, &args.user) {
        (Some(path), Some(user)) => {
            let Err(error) = agent::run_helpers_at(path, user, &args.program);
            Err(error.into())
        }
        (_, user) => {
            agent::run_helper(user.as_deref(), &args.program)?;
            Ok(Exit::Done)
        }
    }
}

fn init(invocation: &Invocation, args: &InitArgs) -> Result<Exit, CommandError> {
    let InitArgs { cluster, node, addresses, from_file, .. } = args;
    let order = FoundOrder {
        cluster: cluster.to_string(),
        node: node.clone(),
        addresses: addresses.clone(),
        from_file: *from_file,
    };
    let agent = cli::RunningAgent::of(invocation);
    let founded =
        agent::init(&invocation.config, order).map_err(|error| agent.go_on(invocation, error.into()))?;
    cli::founded(invocation, args, &founded)
}

fn join(invocation: &Invocation, args: &JoinArgs) -> Result<Exit, CommandError> {
    let order = agent::JoinWish {
        token: cli::join_token(args)?,
        node: args.node.clone(),
        addresses: args.addresses.clone(),
        timeout: args.timeout,
    };
    let agent = cli::RunningAgent::of(invocation);
    let joined = agent::join(&invocation.config, order, &mut |step| cli::step(invocation, &step)).map_err(
        |error| match error.is::<NotAToken>() {
            true => CommandError::new(Exit::Usage, error),
            false => agent.go_on(invocation, error.into()),
        },
    )?;
    cli::joined(invocation, args, &joined)
}

fn leave_to_file(invocation: &Invocation, file: &Path, json: bool) -> Result<Exit, CommandError> {
    let agent = cli::RunningAgent::of(invocation);
    let left = agent::run_by_file(&invocation.config, file)
        .map_err(|error| agent.go_on(invocation, error.into()))?;
    cli::left(invocation, &left, json)
}

/// Shows what was done.
fn said(outcome: anyhow::Result<String>) -> Result<Exit, CommandError> {
    cli::print(&format!("{}\n", outcome?))?;
    Ok(Exit::Done)
}
