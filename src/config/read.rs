//! The file's grammar: which keys there are, what they may say, and what they say when left out.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::error::ConfigProblem;
use super::exempt;
use super::kms::{self, SecretSection};
use super::metrics;
use super::nodes::{self, NodeRules};
use super::ppk;
use super::shared::MEMBER_KEY;
use super::store;
use super::values::{Placed, Problems, Section, boolean, integer, text};
use super::{AuthRules, Config, Esp, Forwarded, Keying, Mode, NAT_PORT, Node, ProtectionRules, SOCKET_NAME};
use crate::identity::AuthMethod;
use crate::types::{
    Block, EncapsulationMode, Exemption, Method, NodeName, Proposals, host_address, node_name, units,
};

/// The longest path that a Unix socket can have, without its closing zero (unix(7)).
const SOCKET_PATH_LIMIT: usize = 107;
/// The default of `run_dir`.
pub const RUN_DIR: &str = "/run/hostseal";
/// The default of `state_dir`.
pub const STATE_DIR: &str = "/var/lib/hostseal";
/// The default of `auth.private_key`.
pub const PRIVATE_KEY: &str = "/etc/hostseal/key";
/// The default of `keying.port` (RFC 7296 section 2.23).
const PORT: u16 = 500;
/// The default of `keying.rekey_after`.
const REKEY_AFTER: Duration = Duration::from_secs(60 * 60);
/// The default of `keying.expire_after`.
const EXPIRE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// More proposals than anybody needs, and few enough for one datagram.
const PROPOSALS_LIMIT: usize = 16;

/// The configuration that `text` is, or all that is wrong with it.
pub(super) fn config(text: &str) -> Result<Config, Vec<ConfigProblem>> {
    let problems = Problems::new(text);
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => {
            problems.add(error.span().unwrap_or(0..0), "", error.message().replace('\n', "; "));
            return Err(problems.into_vec());
        }
    };
    let config = root(Section::root(&table, &problems), &problems);
    match problems.into_vec() {
        problems if problems.is_empty() => Ok(Config { text: text.to_owned(), ..config }),
        problems => Err(problems),
    }
}

/// The path that `text` has at `keys`, however broken the rest of it is.
pub fn named_path(text: &str, keys: &[&str]) -> Option<PathBuf> {
    let (table, _) = DeTable::parse_recoverable(text);
    let (last, tables) = keys.split_last()?;
    let mut table = table.get_ref();
    for key in tables {
        table = table.get(*key)?.get_ref().as_table()?;
    }
    table.get(*last)?.get_ref().as_str().map(PathBuf::from)
}

fn root(mut root: Section<'_>, problems: &Problems<'_>) -> Config {
    let cluster = root.required("cluster", name).value;
    let node = root.optional("node", node_name);
    let run_dir = run_dir(&mut root, problems);
    let state_dir = root.value("state_dir", PathBuf::from(STATE_DIR), path);
    let SecretSection { files: secret, wrapped, next } = kms::secret_files(root.section("secret"), problems);
    let auth = auth(root.section("auth"), problems);
    let keying = keying(root.section("keying"), &auth, problems);
    let esp = esp(root.section("esp"), problems);
    let (protection, exempt, blocked) = protection(root.section("protection"));
    let (nodes, floating) =
        nodes::read(&mut root, NodeRules { auth: &auth, keying: &keying, esp: &esp }, problems);
    let ppk = ppk::read(&mut root, &keying, &secret, (&nodes, &floating), problems);
    let exempt = exempt::apart(exempt, &nodes, problems);
    let protection =
        ProtectionRules { exempt, blocked: blocked_of_no_node(blocked, &nodes, problems), ..protection };
    let metrics = metrics::read(root.section("metrics"));
    let store = store::read(root.section("store"), problems);
    let helper = kms::helper(root.section("helper"));
    let kms = kms::read(root.section("kms"), helper.as_ref(), problems);
    let beside = kms::KmsSurroundings {
        wrapped: wrapped.as_ref(),
        inline: secret.wrapped.as_ref(),
        kms: kms.as_ref(),
        ppk: &ppk,
        accept: &auth.accept,
        keying: &keying,
        nodes: &nodes,
    };
    kms::check(&beside, &root, problems);
    if let Some(next) = next.as_ref().filter(|_| helper.is_none()) {
        let message = "is for clusters with a roster: `hostseal secret wrap` offers it to all members";
        problems.add(next.span.clone(), &next.key, message.to_owned());
    }
    let helper = helper.unwrap_or_default();
    let offered = next.and_then(|next| helper.offered(next, problems));
    if !auth.private_key.ends_with(MEMBER_KEY) {
        root.refuse("helper", "is for hosts that have joined a cluster: [kms] says it in a file");
    }
    if store.is_some() && !auth.private_key.ends_with(MEMBER_KEY) {
        root.refuse("store", "is for hosts that have joined a cluster: [cluster] in their file says it");
    }
    if let Some(node) = &node
        && !nodes.iter().any(|listed| listed.name == node.value)
    {
        let message = format!("there is no node \"{}\" in this file", node.value);
        problems.add(node.span.clone(), &node.key, message);
    }
    root.finish();
    let node = node.map(|node| node.value);
    let text = String::new();
    Config {
        cluster,
        node,
        run_dir,
        state_dir,
        secret,
        auth,
        ppk,
        keying,
        esp,
        protection,
        nodes,
        floating,
        metrics,
        store,
        kms,
        helper,
        offered,
        text,
    }
}

fn run_dir(root: &mut Section<'_>, problems: &Problems<'_>) -> PathBuf {
    let Some(run_dir) = root.optional("run_dir", path) else { return PathBuf::from(RUN_DIR) };
    let socket = run_dir.value.join(SOCKET_NAME);
    if socket.as_os_str().len() > SOCKET_PATH_LIMIT {
        let message =
            format!("is too long for a socket: {} may have {SOCKET_PATH_LIMIT} bytes", socket.display());
        problems.add(run_dir.span, &run_dir.key, message);
    }
    run_dir.value
}

fn auth(mut section: Section<'_>, problems: &Problems<'_>) -> AuthRules {
    let method = section.value("method", AuthMethod::default(), auth_method);
    section.refuse_empty("accept", "is empty: leave it out for auth.method alone");
    let accept = section.list("accept", auth_method);
    let mut file = |key, default| section.value(key, PathBuf::from(default), path);
    let private_key = file("private_key", PRIVATE_KEY);
    let certificate = file("certificate", "/etc/hostseal/certificate.pem");
    let ca = file("ca", "/etc/hostseal/ca.pem");
    let crl = section.optional("crl", path).map(|placed| placed.value);
    let missing = "it is what the hosts prove themselves with";
    let accept = accept.map_or_else(|| vec![method], |list| with_method(list, method, missing, problems));
    section.finish();
    AuthRules { method, accept, private_key, certificate, ca, crl }
}

/// The methods in `list`. The one in use must be among them, for the reason `missing`, or none would accept any
/// other.
fn with_method<T: Copy + PartialEq + fmt::Display>(
    list: Vec<Placed<T>>,
    method: T,
    missing: &str,
    problems: &Problems<'_>,
) -> Vec<T> {
    let accept: Vec<T> = list.iter().map(|placed| placed.value).collect();
    if let Some(first) = list.first().filter(|_| !accept.contains(&method)) {
        let key = first.key.trim_end_matches("[0]");
        problems.add(first.span.clone(), key, format!("\"{method}\" is missing, and {missing}"));
    }
    accept
}

fn keying(mut section: Section<'_>, auth: &AuthRules, problems: &Problems<'_>) -> Keying {
    let method = section.optional("method", keying_method);
    section.refuse_empty("accept", "is empty: leave it out for keying.method alone");
    let accept = section.list("accept", keying_method);
    let derived = method.iter().chain(accept.iter().flatten()).find(|placed| placed.value == Method::Derived);
    // Keys that come from the secret prove nothing but that their maker knows it.
    if let Some(derived) = derived
        && auth.method != AuthMethod::Secret
    {
        let message = format!(
            "derives keys from the shared secret, which then proves who a host is: auth.method must be \"{}\", \
             not \"{}\"",
            AuthMethod::Secret,
            auth.method
        );
        problems.add(derived.span.clone(), &derived.key, message);
    }
    let method = method.map_or(Method::Ike, |placed| placed.value);
    let missing = "it is how the hosts make keys";
    let accept = accept.map_or_else(|| vec![method], |list| with_method(list, method, missing, problems));
    let given = section.optional("port", port_number);
    let nat = section.optional("nat_port", port_number);
    let rekey = section.optional("rekey_after", duration);
    let rekey_bytes = section.optional("rekey_bytes", size).map(|placed| placed.value);
    let rekey_packets =
        section.optional("rekey_packets", |value| integer(value, 1..=u64::MAX)).map(|placed| placed.value);
    let expire = section.optional("expire_after", duration);
    let proposals = proposals(&mut section).unwrap_or_default();
    section.finish();

    let [port, nat_port] = [(&given, PORT), (&nat, NAT_PORT)]
        .map(|(placed, default)| placed.as_ref().map_or(default, |placed| placed.value));
    if nat_port == port
        && let Some(wrong) = nat.or(given)
    {
        let message =
            format!("keying.nat_port and keying.port are both {port}: ESP shares the one, not the other");
        problems.add(wrong.span, &wrong.key, message);
    }
    let rekey_after = rekey.as_ref().map_or(REKEY_AFTER, |placed| placed.value);
    let expire_after = expire.as_ref().map_or(EXPIRE_AFTER, |placed| placed.value);
    if rekey_after >= expire_after
        && let Some(wrong) = expire.or(rekey)
    {
        let [rekey, expire] = [rekey_after, expire_after].map(units::human_duration);
        let message = format!("expire_after ({expire}) must be more than rekey_after ({rekey})");
        problems.add(wrong.span, &wrong.key, message);
    }
    Keying {
        method,
        accept,
        port,
        nat_port,
        rekey_after,
        rekey_bytes,
        rekey_packets,
        expire_after,
        proposals,
    }
}

fn esp(mut section: Section<'_>, problems: &Problems<'_>) -> Esp {
    let key_bits = section.optional("key_bits", |value| match integer(value, 0..=u64::MAX)? {
        128 => Ok(128),
        256 => Ok(256),
        other => Err(format!("must be 128 or 256, not {other}")),
    });
    let proposals = proposals(&mut section);
    let replay_window =
        section.value("replay_window", 4096, |value| integer(value, 32..=4096).map(|packets| packets as u32));
    let encapsulation = section.value("encapsulation", EncapsulationMode::default(), encapsulation);
    section.finish();

    if let (Some(bits), Some(proposals)) = (&key_bits, &proposals)
        && proposals.only_key_bits() != Some(bits.value)
    {
        let message = format!("{} is not what proposals says ({proposals}): leave key_bits out", bits.value);
        problems.add(bits.span.clone(), &bits.key, message);
    }
    let by_key_bits = || key_bits.map_or_else(Proposals::default, |bits| Proposals::of_key_bits(bits.value));
    Esp { proposals: proposals.unwrap_or_else(by_key_bits), replay_window, encapsulation }
}

fn encapsulation(value: &DeValue<'_>) -> Result<EncapsulationMode, String> {
    let text = text(value)?;
    let found = EncapsulationMode::ALL.into_iter().find(|mode| mode.as_str() == text);
    found.ok_or_else(|| format!("must be \"auto\", \"always\" or \"never\", not \"{text}\""))
}

fn port_number(value: &DeValue<'_>) -> Result<u16, String> {
    integer(value, 1..=65535).map(|port| port as u16)
}

/// The proposals of a section; `None` where it has none.
fn proposals<P: FromStr<Err = String>>(section: &mut Section<'_>) -> Option<Proposals<P>> {
    section
        .refuse_empty("proposals", "is empty, so nothing could be agreed on: leave it out for the default");
    section.refuse_longer("proposals", PROPOSALS_LIMIT);
    let list = section.list("proposals", |value| text(value)?.parse::<P>())?;
    Proposals::new(list.into_iter().map(|placed| placed.value).collect())
}

/// Whether the nodes that exemptions name are listed is checked later.
fn protection(mut section: Section<'_>) -> (ProtectionRules, Vec<Placed<Exemption>>, Vec<Placed<IpAddr>>) {
    let mode = section.value("mode", Mode::Require, |value| match text(value)? {
        "require" => Ok(Mode::Require),
        "prefer" => Ok(Mode::Prefer),
        other => Err(format!("must be \"require\" or \"prefer\", not \"{other}\"")),
    });
    let exempt = section.list("exempt", exempt::entry);
    section
        .refuse_empty("networks", "is empty, so nothing would be protected: leave it out for all networks");
    let networks = section.list("networks", |value| network(text(value)?));
    let allow_peer_disable = section.value("allow_peer_disable", true, boolean);
    let forwarded = section
        .value("forwarded", Forwarded::Leave, |value| one_of(&Forwarded::ALL, Forwarded::as_str, value));
    let mut addresses = |key| section.list(key, |value| address(text(value)?)).unwrap_or_default();
    let [blocked, withheld] = [addresses("blocked"), addresses("withheld")];
    section.finish();

    let networks = networks.map(|list| list.into_iter().map(|placed| placed.value).collect());
    let rules = ProtectionRules {
        mode,
        exempt: Vec::new(),
        networks,
        allow_peer_disable,
        forwarded,
        blocked: Vec::new(),
        withheld: withheld.into_iter().map(|placed| placed.value).collect(),
    };
    (rules, exempt.unwrap_or_default(), blocked)
}

/// A node is protected, or taken out.
fn blocked_of_no_node(list: Vec<Placed<IpAddr>>, nodes: &[Node], problems: &Problems<'_>) -> Vec<IpAddr> {
    for placed in &list {
        if let Some(node) = nodes.iter().find(|node| node.addresses.contains(&placed.value)) {
            let message =
                format!("{} is an address of the node {}: take it out first", placed.value, node.name);
            problems.add(placed.span.clone(), &placed.key, message);
        }
    }
    list.into_iter().map(|placed| placed.value).collect()
}

fn keying_method(value: &DeValue<'_>) -> Result<Method, String> {
    one_of(&Method::ALL, Method::as_str, value)
}

pub(super) fn auth_method(value: &DeValue<'_>) -> Result<AuthMethod, String> {
    one_of(&AuthMethod::ALL, AuthMethod::as_str, value)
}

/// The one of `all` that has the name.
fn one_of<T: Copy>(all: &[T], name: fn(T) -> &'static str, value: &DeValue<'_>) -> Result<T, String> {
    let text = text(value)?;
    let known = || all.iter().map(|it| format!("\"{}\"", name(*it))).collect::<Vec<_>>().join(" or ");
    let found = all.iter().copied().find(|it| name(*it) == text);
    found.ok_or_else(|| format!("must be {}, not \"{text}\"", known()))
}

fn name(value: &DeValue<'_>) -> Result<String, String> {
    node_name::checked(text(value)?)
}

pub(super) fn node_name(value: &DeValue<'_>) -> Result<NodeName, String> {
    text(value)?.parse()
}

pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    absolute(text(value)?.into())
}

pub(super) fn absolute(path: PathBuf) -> Result<PathBuf, String> {
    match path.is_absolute() {
        true => Ok(path),
        false => Err(format!("{:?} is not an absolute path", path.display().to_string())),
    }
}

pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    match text(value) {
        Ok(text) => units::parse_duration(text),
        Err(message) => Err(format!("{message}, such as \"1h\"")),
    }
}

/// A number of bytes, or text such as `64GiB`.
fn size(value: &DeValue<'_>) -> Result<u64, String> {
    match value {
        DeValue::Integer(_) => integer(value, 1..=u64::MAX),
        _ => units::parse_size(text(value)?),
    }
}

/// An address that a host can have for itself alone and that means the same on every host.
///
/// # Errors
/// It is none, in words.
pub fn address(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is not an IPv4 or IPv6 address (names are not looked up)"))?;
    let wrong = host_address::wrong(address);
    wrong.map_or(Ok(address), |wrong| Err(format!("{address} {wrong}")))
}

/// A network such as `10.99.0.0/16`.
///
/// # Errors
/// It is none, in words.
pub fn network(text: &str) -> Result<Block, String> {
    let wrong = || format!("{text:?} is not a network such as \"10.99.0.0/16\" or \"fd99::/64\"");
    let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    let block = Block::new(address, prefix).ok_or_else(wrong)?;
    match block.address == address {
        true => Ok(block),
        false => Err(format!("\"{text}\" has bits beyond its prefix: \"{block}\" is meant")),
    }
}
