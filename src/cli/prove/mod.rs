//! `hostseal prove`: has the agent prove each pair, watches the wire meanwhile, and reports.

mod filter;
mod sheet;
mod verify;
mod watch;
mod wire;

use std::path::Path;
use std::time::SystemTime;

use self::sheet::ProofSheet;
use self::watch::WireWatch;
use self::wire::ClearOnPurpose;
use super::args::{Invocation, ProveArgs};
use super::client::Client;
use super::context;
use super::exit::{CommandError, Exit};
use super::status::check_names;
use super::term::{Style, print, print_json, size, tell};
use crate::config::{Config, Node};
use crate::control::ProveOrder;
use crate::identity::{AuthMethod, PrivateKey};
use crate::observe::pair_proof::{PairProof, ProofResult};
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
    if status.protection == Protection::Off {
        return Err(CommandError::new(
            Exit::Degraded,
            "protection is off on this host, so there is nothing to prove: `hostseal enable` protects it",
        ));
    }
    let node = context::whoami(&config, status.node.as_ref())?;
    let wanted = |name: &NodeName| args.nodes.is_empty() || args.nodes.iter().any(|it| it == name.as_str());
    let possible =
        |pair: &Pair| status.peers.iter().any(|row| (row.local, row.remote) == (pair.local, pair.remote));
    let pairs: Vec<Pair> = (config.pairs(node).into_iter())
        .filter(|(name, pair)| wanted(name) && possible(pair))
        .map(|(_, pair)| pair)
        .collect();
    if pairs.is_empty() {
        let message =
            "this host has no pair with that node, so there is nothing to prove: see `hostseal status`";
        return Err(CommandError::new(Exit::Usage, message));
    }
    let mut report = ProofReport {
        schema: PROOF_SCHEMA,
        time: UnixTime::default(),
        cluster: config.cluster.clone(),
        node: node.name.clone(),
        version: VERSION.to_owned(),
        pairs: prove_all((&config, node), &client, &pairs, invocation.quiet)?,
        signature: None,
    };
    report.time = UnixTime::from(SystemTime::now());
    if let Some(key) = own_key(&config, node)? {
        report.sign(&key).map_err(|error| CommandError::new(Exit::Failed, error))?;
    }
    if let Some(file) = &args.out {
        write(file, &report)?;
    }
    show(&report, args.json)
}

/// Proves one pair after the other: the kernel counts what it refuses for all of them together.
fn prove_all(
    (config, node): (&Config, &Node),
    client: &Client,
    pairs: &[Pair],
    quiet: bool,
) -> Result<Vec<PairProof>, CommandError> {
    let ground = ClearOnPurpose::of(config, node);
    let mut proofs = Vec::new();
    for (at, pair) in pairs.iter().enumerate() {
        if !quiet && pairs.len() > sheet::MANY && at % sheet::MANY == 0 && at > 0 {
            tell(&format!("{at} of {} pairs are done", pairs.len()));
        }
        let watch = WireWatch::open(*pair, config.keying.nat_port);
        let watch = watch.map_err(|error| CommandError::io("watching this host's interfaces", &error))?;
        let proven = client.prove(ProveOrder { local: pair.local, remote: pair.remote })?;
        let mut proof = proven.proof;
        if proof.out.is_some() {
            let inbound = proof.incoming.map_or(0, |way| way.sealed.inbound);
            proof.add_wire(watch.finish(&ground, &proven.clear, inbound));
        }
        proofs.push(proof);
    }
    Ok(proofs)
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
    publish::replace(file, json.as_bytes())
        .map_err(|error| CommandError::io(format!("writing {}", file.display()), &error))
}

/// Prints the report; says how the command ends.
fn show(report: &ProofReport, json: bool) -> Result<Exit, CommandError> {
    match json {
        true => print_json(report)?,
        false => print(&ProofSheet::of(report).text(size().map(|(columns, _)| columns), Style::of_stdout()))?,
    };
    Ok(if report.worst() == Some(ProofResult::Proven) { Exit::Done } else { Exit::Degraded })
}
