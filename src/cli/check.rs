//! `hostseal config check`: what is wrong with the file and where, or what it means.

use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::time::SystemTime;

use serde::Serialize;

use super::args::{Invocation, JsonArgs};
use super::exit::{CommandError, Exit};
use super::status;
use super::term::{print, print_json};
use super::{context, others};
use crate::config::{Config, ConfigError, ConfigProblem, Forwarded, Mode, Node, REKEY_PACE};
use crate::identity::{AuthMethod, Credentials, PpkTag};
use crate::store::{CredentialsError, config_file, credentials};
use crate::types;
use crate::types::exempt::Protocol;
use crate::types::units::{counted, human_bytes, human_duration};
use crate::types::{EncapsulationMode, Exemption, Method, NodeName, Pair, Proposals, UnixTime};

/// The JSON of `config check`.
#[derive(Serialize)]
struct CheckJson {
    schema: u32,
    file: String,
    valid: bool,
    errors: Vec<Mistake>,
    warnings: Vec<String>,
    cluster: Option<String>,
    node: Option<NodeName>,
    config_id: Option<String>,
    secret_id: Option<String>,
    ppks: Vec<PpkLine>,
    proposals: Option<Proposed>,
    pairs: Vec<PairLine>,
    problems: Vec<types::Problem>,
    /// Nodes that this host has no pair with.
    unpaired: Vec<NodeName>,
}

/// One thing that is wrong; the place only where it is in the file.
#[derive(Serialize)]
struct Mistake {
    line: Option<usize>,
    column: Option<usize>,
    key: Option<String>,
    message: String,
}

/// A PPK that this host has.
#[derive(Serialize)]
struct PpkLine {
    id: String,
    key_id: String,
}

/// What may be agreed on, best first.
#[derive(Serialize)]
struct Proposed {
    ike: Vec<String>,
    esp: Vec<String>,
}

#[derive(Serialize)]
struct PairLine {
    node: NodeName,
    local: std::net::IpAddr,
    remote: std::net::IpAddr,
}

pub(super) fn run(invocation: &Invocation, args: &JsonArgs) -> Result<Exit, CommandError> {
    let file = invocation.config.display().to_string();
    match config_file::load(&invocation.config) {
        Ok(config) => check(&file, &config.at(SystemTime::now().into()), args.json),
        Err(error) if args.json => {
            let mistakes = match &error {
                ConfigError::Invalid { problems, .. } => problems.iter().map(Mistake::from).collect(),
                ConfigError::Unreadable { .. } | ConfigError::Cluster(_) => {
                    vec![Mistake::anywhere(&error.to_string())]
                }
            };
            let exit = CommandError::from(error).exit;
            print_json(&CheckJson::invalid(file, mistakes))?;
            Err(CommandError::new(exit, ""))
        }
        Err(error) => Err(error.into()),
    }
}

/// Says what a valid file means on this host: it can still name a secret that is not there, or other hosts.
fn check(file: &str, config: &Config, json: bool) -> Result<Exit, CommandError> {
    let remembered = context::saved(config).ok().and_then(|saved| saved.node);
    let node = context::whoami(config, remembered.as_ref());
    let secret = credentials::secret_id(config).map_err(CommandError::from);
    let node_found = node.as_ref().ok().copied();
    // Where it is not known who this host is, its own key cannot be asked for.
    let credentials = node_found.map(|node| own_proof(config, node).map_err(CommandError::from)).transpose();
    let ppks =
        credentials.as_ref().ok().and_then(Option::as_ref).map(Credentials::ppk_tags).unwrap_or_default();
    let pairs = node_found.map(|node| config.pairs(node)).unwrap_or_default();
    let secret_found = secret.as_ref().ok().and_then(|id| id.map(|id| id.to_string()));
    let mut beside = node_found.map(|node| status::beside(config, node)).unwrap_or_default();
    // The kernel's tables are for root alone.
    beside.extend(node_found.and_then(|node| others::problems(config, node).ok()).into_iter().flatten());
    let failures: Vec<CommandError> =
        [node.err(), secret.err(), credentials.err()].into_iter().flatten().collect();

    if json {
        let report = CheckJson {
            schema: 1,
            file: file.to_owned(),
            valid: failures.is_empty(),
            errors: failures.iter().map(|failure| Mistake::anywhere(&failure.message)).collect(),
            warnings: outrun(config),
            cluster: Some(config.cluster.clone()),
            node: node_found.map(|node| node.name.clone()),
            config_id: Some(config.config_id()),
            secret_id: secret_found,
            ppks: ppks.iter().map(PpkLine::from).collect(),
            proposals: Some(Proposed {
                ike: config.keying.proposals.iter().map(ToString::to_string).collect(),
                esp: config.esp.proposals.iter().map(ToString::to_string).collect(),
            }),
            pairs: pairs.iter().map(PairLine::from).collect(),
            problems: beside,
            unpaired: node_found.map(|node| context::unpaired(config, node)).unwrap_or_default(),
        };
        print_json(&report)?;
    } else {
        let mut text = words(file, config, node_found, &pairs, secret_found.as_deref(), &ppks);
        for problem in &beside {
            let label = if problem.is_critical() { "PROBLEM" } else { "note" };
            text += &format!("{label:<15}{}\n", problem.message);
        }
        print(&text)?;
    }
    match failures.first() {
        None => Ok(Exit::Done),
        Some(first) => {
            let messages: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
            Err(CommandError::new(first.exit, if json { String::new() } else { messages.join("\n") }))
        }
    }
}

/// Whether this host can prove itself.
fn own_proof(config: &Config, node: &Node) -> Result<Credentials, CredentialsError> {
    let credentials = credentials::load(config, node)?;
    credentials::check_certificate(config, node, &credentials, UnixTime::from(SystemTime::now()))?;
    Ok(credentials)
}

/// What the file means, in words.
fn words(
    file: &str,
    config: &Config,
    node: Option<&Node>,
    pairs: &[(NodeName, Pair)],
    secret_id: Option<&str>,
    ppks: &[PpkTag],
) -> String {
    /// More pairs than these are counted, not listed.
    const LISTED: usize = 20;
    let keying = &config.keying;
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "{label:<15}{value}");
    };
    line("file", format!("{file} is valid, config id {}", config.config_id()));
    line("cluster", format!("{}, {}", config.cluster, counted(config.nodes.len(), "node")));
    if let Some(node) = node {
        line("this host", format!("{} ({})", node.name, node.addresses_in_words().join(", ")));
        let missing = context::missing_addresses(node).unwrap_or_default();
        if !missing.is_empty() {
            let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
            line("", format!("it does not have {} now", missing.join(", ")));
        }
        line("pairs", count_pairs(config, pairs));
        for (name, pair) in pairs.iter().take(LISTED) {
            line("", format!("{name:<10} {pair}"));
        }
        if pairs.len() > LISTED {
            line("", format!("and {} more", pairs.len() - LISTED));
        }
        let unpaired = context::unpaired(config, node);
        if !unpaired.is_empty() {
            line("", context::unpaired_in_words(&unpaired));
        }
    }
    for (at, node) in config.nodes.iter().filter(|node| !node.inside.is_empty()).enumerate() {
        let label = if at == 0 { "behind a NAT" } else { "" };
        line(label, format!("{} ({})", node.name, node.addresses_in_words().join(", ")));
    }
    for (at, floating) in config.floating.iter().enumerate() {
        let label = if at == 0 { "floating" } else { "" };
        line(label, format!("{} ({})", floating.name, floating.in_words()));
    }
    line("keys", keys(config, secret_id));
    if config.nodes.iter().any(|node| config.accepted_from(node) != [AuthMethod::Secret]) {
        line("proof", proofs(config));
    }
    for (at, words) in config.ppk.in_words().into_iter().enumerate() {
        line(if at == 0 { "PPK" } else { "" }, words);
    }
    ppks.iter().for_each(|tag| line("", format!("this host has {tag}")));
    line("", format!("new ones after {}", rekey_limits(config)));
    outrun(config).into_iter().for_each(|words| line("warning", words));
    line("", format!("the kernel stops using them after {}", human_duration(keying.expire_after)));
    if keying.accept.contains(&Method::Ike) {
        proposed("IKE proposals", &keying.proposals).for_each(|(label, proposal)| line(label, proposal));
    }
    proposed("ESP proposals", &config.esp.proposals).for_each(|(label, proposal)| line(label, proposal));
    line("ESP in UDP", in_udp(config));
    line("replay window", format!("{} packets", config.esp.replay_window));
    line("mode", mode(config.protection.mode).to_owned());
    line("in the clear", "IKE itself, IPv6 neighbour discovery, loopback".to_owned());
    config.protection.exempt.iter().for_each(|entry| line("", opens(entry)));
    line("", "all between addresses that the file does not list, IPv6 link-local ones too".to_owned());
    line("peers", peers_may(config.protection.allow_peer_disable).to_owned());
    line("forwarded", what_is_forwarded(config.protection.forwarded).to_owned());
    if !config.protection.blocked.is_empty() {
        let blocked: Vec<String> = config.protection.blocked.iter().map(IpAddr::to_string).collect();
        line("blocked", blocked.join(", "));
    }
    text
}

/// Proposals, best first, one a line; the first has the label.
fn proposed<'p, P: fmt::Display>(
    label: &'p str,
    proposals: &'p Proposals<P>,
) -> impl Iterator<Item = (&'p str, String)> {
    std::iter::once(label).chain(std::iter::repeat("")).zip(proposals.iter().map(P::to_string))
}

fn what_is_forwarded(rule: Forwarded) -> &'static str {
    match rule {
        Forwarded::Leave => "what this host forwards for others passes as before, in the clear",
        Forwarded::Block => "what this host forwards for others, to sealed hosts or from them, is dropped",
    }
}

fn count_pairs(config: &Config, pairs: &[(NodeName, Pair)]) -> String {
    let within = match &config.protection.networks {
        None => String::new(),
        Some(networks) => {
            let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
            format!(" within {}", networks.join(", "))
        }
    };
    match pairs.len() {
        0 => format!("none{within}: nothing would be protected"),
        count => format!("{count}{within}"),
    }
}

fn keys(config: &Config, secret_id: Option<&str>) -> String {
    let secret = match config.uses(AuthMethod::Secret) {
        true => format!(", from secret {}", secret_id.unwrap_or("(none)")),
        false => String::new(),
    };
    let keying = &config.keying;
    let also = keying.accept.iter().filter(|method| **method != keying.method);
    let also: String = also.map(|method| format!("; {} is accepted too", made(*method))).collect();
    format!("{} on UDP {}{secret}{also}", made(keying.method), keying.port)
}

/// How keys are made, in words.
fn made(method: Method) -> &'static str {
    match method {
        Method::Ike => "by IKEv2",
        Method::Derived => "derived from the shared secret, without Diffie-Hellman and forward secrecy",
    }
}

/// When ESP goes in UDP, and on which port.
fn in_udp(config: &Config) -> String {
    let port = config.keying.nat_port;
    match config.esp.encapsulation {
        EncapsulationMode::Auto => format!("where it does not get through by itself, on port {port}"),
        EncapsulationMode::Always => format!("always, on port {port}"),
        EncapsulationMode::Never => "never".to_owned(),
    }
}

/// How hosts prove who they are, where not all do it with the secret.
fn proofs(config: &Config) -> String {
    let method = config.auth.method;
    let mut text = format!("each host with {}", method.words());
    for also in config.auth.accept.iter().filter(|also| **also != method) {
        let _ = write!(text, "; {} is accepted too", also.words());
    }
    for node in config.nodes.iter().filter(|node| config.method_of(node) != method) {
        let _ = write!(text, "; {} with {}", node.name, config.method_of(node).words());
    }
    text
}

fn rekey_limits(config: &Config) -> String {
    let keying = &config.keying;
    let mut limits = vec![human_duration(keying.rekey_after)];
    limits.extend(keying.rekey_bytes.map(human_bytes));
    limits.extend(keying.rekey_packets.map(|packets| format!("{packets} packets")));
    limits.join(" or ")
}

/// Which ports an exemption opens, and to whom.
fn opens(entry: &Exemption) -> String {
    let but = if entry.incoming { "accepted, but not sent: " } else { "" };
    let Some(ports) = &entry.ports else {
        return format!("{entry}: {but}all ICMP between all nodes");
    };
    let ports = match ports.start() == ports.end() {
        true => format!("port {}", ports.start()),
        false => format!("ports {} to {}", ports.start(), ports.end()),
    };
    let servers = match &entry.served_by {
        None => "every node".to_owned(),
        Some(nodes) => nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", "),
    };
    let protocol = if entry.protocol == Protocol::Tcp { "TCP" } else { "UDP" };
    format!(
        "{entry}: {but}{protocol} {ports} of {servers} is open to all nodes, and from that port {protocol} ports \
         32768 to 65535 of every other node"
    )
}

/// Limits that a fast link reaches sooner than keys can be replaced.
fn outrun(config: &Config) -> Vec<String> {
    /// Bytes a second of a fast link, and its packets if they are full.
    const LINK: (u64, u64) = (1_250_000_000, 812_744);
    let keying = &config.keying;
    let limits = [
        ("bytes", keying.rekey_bytes.map(human_bytes), keying.rekey_bytes, LINK.0),
        ("packets", keying.rekey_packets.map(|count| count.to_string()), keying.rekey_packets, LINK.1),
    ];
    let words = |(unit, shown, limit, rate): (&str, Option<String>, Option<u64>, u64)| {
        let seconds = limit? as f64 / rate as f64;
        (seconds < REKEY_PACE.as_secs_f64()).then(|| {
            format!(
                "keying.rekey_{unit} = {} would mean new keys every {seconds:.1} s at 10 Gbit/s, and they are \
                 replaced every {} s at most: on a fast link each key carries more",
                shown.unwrap_or_default(),
                REKEY_PACE.as_secs()
            )
        })
    };
    limits.into_iter().filter_map(words).collect()
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Require => "require: once a pair is sealed, its traffic is encrypted or dropped",
        Mode::Prefer => "prefer: traffic with hosts that cannot encrypt stays in the clear",
    }
}

fn peers_may(disable: bool) -> &'static str {
    match disable {
        true => "may take their own pair with this host back to clear",
        false => "may not take their pair with this host back to clear",
    }
}

impl CheckJson {
    fn invalid(file: String, errors: Vec<Mistake>) -> Self {
        Self {
            schema: 1,
            file,
            valid: false,
            errors,
            warnings: Vec::new(),
            cluster: None,
            node: None,
            config_id: None,
            secret_id: None,
            ppks: Vec::new(),
            proposals: None,
            pairs: Vec::new(),
            problems: Vec::new(),
            unpaired: Vec::new(),
        }
    }
}

impl Mistake {
    fn anywhere(message: &str) -> Self {
        Self { line: None, column: None, key: None, message: message.to_owned() }
    }
}

impl From<&ConfigProblem> for Mistake {
    fn from(problem: &ConfigProblem) -> Self {
        Self {
            line: Some(problem.line),
            column: Some(problem.column),
            key: Some(problem.key.clone()),
            message: problem.message.clone(),
        }
    }
}

impl From<&PpkTag> for PpkLine {
    fn from(tag: &PpkTag) -> Self {
        Self { id: tag.id().to_owned(), key_id: tag.key().to_string() }
    }
}

impl From<&(NodeName, Pair)> for PairLine {
    fn from((node, pair): &(NodeName, Pair)) -> Self {
        Self { node: node.clone(), local: pair.local, remote: pair.remote }
    }
}
