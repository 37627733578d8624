//! `hostseal prove`: has the agent prove each pair, watches the wire meanwhile, and reports.

mod blame;
mod cluster;
mod course;
mod filter;
mod schedule;
mod sheet;
mod verify;
mod wanted;
mod watch;
mod wire;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use self::schedule::{Abilities, ProofPlan};
use self::sheet::{ProofSheet, Whose};
use self::wanted::WantedPairs;
use self::wire::ClearOnPurpose;
use super::args::{Invocation, ProveArgs};
use super::client::Client;
use super::cluster::provers;
use super::context;
use super::exit::{CommandError, Exit};
use super::status::check_names;
use super::term::{Style, print, print_json, size, tell};
use crate::config::{Config, Node};
use crate::identity::{AuthMethod, PrivateKey};
use crate::observe::pair_proof::PairProof;
use crate::observe::proof_report::{PROOF_SCHEMA, ProofReport};
use crate::store::{ClusterFiles, credentials, publish};
use crate::types::generation::VERSION;
use crate::types::{NodeName, Pair, Protection, UnixTime};

pub(super) fn run(invocation: &Invocation, args: &ProveArgs) -> Result<Exit, CommandError> {
    if let Some(file) = &args.verify {
        return verify::run(invocation, file, args);
    }
    let (config, _) = context::config_at_work(invocation)?;
    check_names(&config, &args.nodes)?;
    let client = context::client(&config);
    let status = client.status()?;
    // Other nodes may be protected all the same.
    if status.protection == Protection::Off && !args.cluster {
        return Err(CommandError::new(
            Exit::Degraded,
            "protection is off on this host, so there is nothing to prove: `hostseal enable` protects it",
        ));
    }
    let node = context::whoami(&config, status.node.as_ref())?;
    let listed =
        |pair: &Pair| status.peers.iter().any(|row| (row.local, row.remote) == (pair.local, pair.remote));
    let who = (&config, node);
    let of = if args.cluster { WantedPairs::of } else { WantedPairs::of_this_node };
    let WantedPairs { pairs, mut missing } = of(who, &args.nodes, listed);
    if pairs.is_empty() && !args.cluster {
        let message = match args.nodes.is_empty() {
            true => "this host has no pairs, so there is nothing to prove: see `hostseal status`",
            false => {
                "this host has no pair with that node, so there is nothing to prove: see `hostseal status`"
            }
        };
        return Err(CommandError::new(Exit::Usage, message));
    }
    let signer = Signer::of(&config, node, args.out.as_deref())?;
    let pairs = match args.cluster {
        true => {
            let (cluster, can) = provers(invocation)?;
            let abilities = Abilities::of(&node.name, &cluster, &can);
            let mut plan = ProofPlan::of(who, pairs, abilities, &args.nodes);
            missing.append(&mut plan.unasked);
            cluster::prove_all(who, &client, plan, invocation.quiet)
        }
        false => of_this_node(who, &client, pairs, invocation.quiet),
    };
    let report = ProofReport {
        schema: PROOF_SCHEMA,
        time: UnixTime::from(SystemTime::now()),
        cluster: config.cluster.clone(),
        node: node.name.clone(),
        version: VERSION.to_owned(),
        pairs,
        unasked: missing,
        signature: None,
    };
    signer.publish(report, args.json)
}

fn of_this_node(
    (config, node): (&Config, &Node),
    client: &Client,
    pairs: Vec<(NodeName, Pair)>,
    quiet: bool,
) -> Vec<PairProof> {
    let (ground, count) = (Arc::new(ClearOnPurpose::of(config, node)), pairs.len());
    let done = |done: usize| {
        if !quiet && done < count && done.is_multiple_of(sheet::MANY) {
            tell(&format!("{done} of {count} pairs are done"));
        }
    };
    course::prove_all(pairs, done, |pair| course::prove_here(client, &ground, pair, config.keying.nat_port))
}

/// What becomes of a report: who signs it, and where it goes. Looked for before there is one, so that no work is lost.
struct Signer<'a> {
    key: Option<PrivateKey>,
    out: Option<&'a Path>,
}

impl<'a> Signer<'a> {
    fn of(config: &Config, node: &Node, out: Option<&'a Path>) -> Result<Self, CommandError> {
        if let Some(file) = out {
            publish::can_replace(file).map_err(|error| unwritable(file, &error))?;
        }
        Ok(Self { key: own_key(config, node)?, out })
    }

    /// Signs, writes and prints it; says how the command ends.
    fn publish(self, mut report: ProofReport, json: bool) -> Result<Exit, CommandError> {
        if let Some(key) = &self.key {
            report.sign(key).map_err(|error| CommandError::new(Exit::Failed, error))?;
        }
        // What cannot be written can still be read.
        let written = self.out.map(|file| write(file, &report)).transpose();
        let exit = show(&report, json, Whose::Own)?;
        written.map(|_| exit)
    }
}

/// The key that this host's reports are signed with: in a cluster the one that it signs entries with, else the one that
/// it proves itself with.
fn own_key(config: &Config, node: &Node) -> Result<Option<PrivateKey>, CommandError> {
    if context::is_member(config) {
        let keys = ClusterFiles::of(&config.state_dir).load_keys();
        return Ok(Some(keys.map_err(|error| CommandError::from(anyhow::Error::from(error)))?.signing));
    }
    match config.method_of(node) {
        AuthMethod::Secret => Ok(None),
        AuthMethod::PublicKey | AuthMethod::Certificate => Ok(Some(credentials::load_key(config)?)),
    }
}

/// Writes the report as a whole: whoever reads finds all of it.
fn write(file: &Path, report: &ProofReport) -> Result<(), CommandError> {
    // Plain data with string keys: writing it to memory has nothing to fail at.
    let json = serde_json::to_string_pretty(report).unwrap_or_default() + "\n";
    publish::replace(file, json.as_bytes()).map_err(|error| unwritable(file, &error))
}

fn unwritable(file: &Path, error: &io::Error) -> CommandError {
    CommandError::io(format!("writing {}", file.display()), error)
}

/// Prints the report; says how the command ends.
fn show(report: &ProofReport, json: bool, whose: Whose) -> Result<Exit, CommandError> {
    match json {
        true => print_json(report)?,
        false => {
            let width = size().map(|(columns, _)| columns);
            print(&ProofSheet::of(report, whose).text(width, Style::of_stdout()))?
        }
    };
    Ok(if report.is_proven() { Exit::Done } else { Exit::Degraded })
}
