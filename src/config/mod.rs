//! The configuration: one identical file on every host of a cluster.
//!
//! A [`Config`] is valid: whoever holds one needs to check nothing again. `read` has
//! the file's grammar, `error` the words for its mistakes, and `whoami` finds this host among its nodes.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::identity::{AuthMethod, PublicKey};
use crate::types::{
    Block, EncapsulationMode, EspProposal, Exemption, IkeProposal, Inside, Method, NodeName, Pair, Proposals,
};

mod changes;
pub mod error;
mod exempt;
mod exemptions;
mod floating;
mod kms;
mod metrics;
mod nodes;
mod ppk;
pub(crate) mod proofs;
mod read;
mod shared;
mod store;
mod values;
pub mod whoami;
mod wrapped;

#[cfg(test)]
mod tests;

pub use error::{ConfigError, ConfigProblem};
pub use exemptions::Exemptions;
pub use floating::Floating;
pub use kms::{HELPER, HELPERS, HelperPlace, KmsRules};
pub use metrics::{MetricsRules, PairSeries, ScrapeAddress};
pub use ppk::{NamedPpk, PpkRules, PpkSource};
pub use read::{PRIVATE_KEY, RUN_DIR, STATE_DIR, address, named_path, network};
pub use shared::{SharedConfig, as_file, lists_nodes, local_part, own_part, settings_part};
pub use store::StoreRules;
pub use whoami::WhoamiError;
pub use wrapped::{
    ClusterKey, OfferedSecret, SecretMark, SharedSecret, WrappedSecret, with_offer, with_offer_in_force,
    with_required_ppk,
};

/// The default of `keying.nat_port` (RFC 3948).
pub const NAT_PORT: u16 = 4500;

/// Where the file is unless the operator says otherwise.
pub const DEFAULT_PATH: &str = "/etc/hostseal/hostseal.toml";

/// A host of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What people call it.
    pub name: NodeName,
    /// Its addresses as others send to them, at least one; no other node has any of them.
    pub addresses: Vec<IpAddr>,
    /// Which of them a NAT before the host turns into other addresses of the host.
    pub inside: Inside,
    /// The key that it proves itself with; no other node has it.
    pub public_key: Option<PublicKey>,
    /// A key that is accepted from it as well, while it changes over from the one to the other.
    pub previous_public_key: Option<PublicKey>,
    /// How it proves itself, where that is not as `[auth]` says.
    pub auth: Option<AuthMethod>,
    /// The others prove themselves to it with the secret, whatever `[auth]` says.
    pub expects_secret: bool,
}

/// What happens to a pair that has no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Once sealed, it is protected or dropped, and so is all else between this host and the peer.
    Require,
    /// Traffic with hosts that can encrypt is encrypted; the rest, and addresses beside the pairs, stay in the clear.
    /// A pair that is sealed is protected or dropped here too.
    Prefer,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Require => f.write_str("require"),
            Mode::Prefer => f.write_str("prefer"),
        }
    }
}

/// What becomes of packets that this host forwards for others, to a sealed peer or from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwarded {
    /// They pass as before.
    Leave,
    /// They are dropped.
    Block,
}

impl Forwarded {
    /// Both.
    pub const ALL: [Forwarded; 2] = [Forwarded::Leave, Forwarded::Block];

    /// What the file calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Forwarded::Leave => "leave",
            Forwarded::Block => "block",
        }
    }
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The shortest time between two rekeys because of `rekey_bytes` or `rekey_packets`: the older SAs must have time to
/// leave.
pub const REKEY_PACE: Duration = Duration::from_secs(3);

/// `[keying]`: how keys are made, and how long they live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keying {
    /// How this host makes keys.
    pub method: Method,
    /// How others may make them with it: `method`, and others during a migration.
    pub accept: Vec<Method>,
    /// The UDP port of IKE.
    pub port: u16,
    /// The UDP port that IKE and ESP share where ESP goes in UDP; another than `port`.
    pub nat_port: u16,
    /// The age at which an SA is replaced, before jitter.
    pub rekey_after: Duration,
    /// The bytes after which an SA is replaced.
    pub rekey_bytes: Option<u64>,
    /// The packets after which an SA is replaced.
    pub rekey_packets: Option<u64>,
    /// The kernel's hard limit: how long traffic flows when the agent is dead.
    pub expire_after: Duration,
    /// What an IKE SA may be made with.
    pub proposals: Proposals<IkeProposal>,
}

/// `[esp]`: what ESP looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Esp {
    /// What a child may be made with.
    pub proposals: Proposals<EspProposal>,
    /// Packets of the anti-replay window, 32 to 4096.
    pub replay_window: u32,
    /// When ESP goes in UDP.
    pub encapsulation: EncapsulationMode,
}

/// `[protection]`: what is protected, and how strictly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectionRules {
    /// What happens to a pair that has no keys.
    pub mode: Mode,
    /// What stays in the clear; no two of them overlap.
    pub exempt: Vec<Exemption>,
    /// Pairs are only made between addresses inside one of these; `None` for all addresses.
    pub networks: Option<Vec<Block>>,
    /// Whether an authenticated peer may take its own pair with us back to clear.
    pub allow_peer_disable: bool,
    /// What becomes of packets that this host forwards for others, to a sealed peer or from it.
    pub forwarded: Forwarded,
    /// Addresses of no node, to which nothing is sent and from which nothing is taken while this host is protected.
    pub blocked: Vec<IpAddr>,
    /// Addresses of hosts that get no keys until somebody has decided: what was sealed with them stays blocked. Rosters say
    /// it, and people have no use for it.
    pub withheld: Vec<IpAddr>,
}

/// `[secret]`: where the secret lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretFiles {
    /// The secret of the cluster.
    pub file: PathBuf,
    /// The one before it, accepted while the secret is being rotated.
    pub previous_file: Option<PathBuf>,
    /// The secret of the cluster as a key of `[kms]` has wrapped it, in place of the others.
    pub wrapped_file: Option<PathBuf>,
    /// The same where the configuration holds it itself.
    pub wrapped: Option<WrappedSecret>,
}

/// `[auth]`: how hosts prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthRules {
    /// How they prove themselves, those that say no other way in their `[[nodes]]`.
    pub method: AuthMethod,
    /// What is accepted from these: `method`, and others during a migration.
    pub accept: Vec<AuthMethod>,
    /// Where this host's private key lies.
    pub private_key: PathBuf,
    /// Where its certificate lies, with those between it and a CA.
    pub certificate: PathBuf,
    /// Where the CAs lie whose certificates are taken.
    pub ca: PathBuf,
    /// Where their revocation lists lie.
    pub crl: Option<PathBuf>,
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The name of the cluster.
    pub cluster: String,
    /// Which node this host is, where the file says it.
    pub node: Option<NodeName>,
    /// The directory of the control socket.
    pub run_dir: PathBuf,
    /// The directory of what outlives a reboot.
    pub state_dir: PathBuf,
    /// Where the secret lies.
    pub secret: SecretFiles,
    /// How hosts prove who they are.
    pub auth: AuthRules,
    /// Which PPKs they share besides.
    pub ppk: PpkRules,
    /// How keys are made, and how long they live.
    pub keying: Keying,
    /// What ESP looks like.
    pub esp: Esp,
    /// What is protected, and how strictly.
    pub protection: ProtectionRules,
    /// The hosts of the cluster, at least one, in the file's order.
    pub nodes: Vec<Node>,
    /// Addresses that move between them, in the file's order.
    pub floating: Vec<Floating>,
    /// What the exporter shows, and where.
    pub metrics: MetricsRules,
    /// The store that keeps the roster too, where this host is a member of a cluster and has one.
    pub store: Option<StoreRules>,
    /// The key that wraps the secret, where one does.
    pub kms: Option<KmsRules>,
    /// What this host's file says of the helper, where its cluster says the rest of `[kms]`.
    pub helper: HelperPlace,
    /// A wrapped secret that its cluster offers, for this host to try.
    pub offered: Option<OfferedSecret>,
    /// The text that this was read from.
    text: String,
}

impl Config {
    /// Checks `text`; `name` is what errors call the file.
    ///
    /// # Errors
    /// All that is wrong with it, with its place.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        read::config(text).map_err(|problems| ConfigError::Invalid { file: name.to_owned(), problems })
    }

    /// What this was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The node of that name.
    pub fn node_named(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name.as_str() == name)
    }

    /// The pairs of `node` with all others, in the file's order: each address that it has
    /// or that may float to it, with each address of another host and each floating one, of the same family and within
    /// `protection.networks` where that is set. That looks at addresses as they are listed, so that both ends make
    /// the same pairs. Of those with a floating address only some are possible at a time ([`Config::is_away`]).
    pub fn pairs(&self, node: &Node) -> Vec<(NodeName, Pair)> {
        let own = node.addresses.iter().copied().chain(self.floating_at(node));
        let hosts = self.nodes.iter().filter(|other| other.name != node.name);
        let hosts = hosts.map(|other| (&other.name, &other.addresses));
        let others: Vec<(&NodeName, &Vec<IpAddr>)> =
            hosts.chain(self.floating.iter().map(|it| (&it.name, &it.addresses))).collect();
        let mut pairs = Vec::new();
        for local in own.filter(|address| self.in_networks(*address)) {
            for (name, addresses) in &others {
                for remote in addresses.iter().filter(|address| self.in_networks(**address)) {
                    let pair = Pair::new(node.inside.own(local), *remote);
                    pairs.extend(pair.map(|pair| ((*name).clone(), pair)));
                }
            }
        }
        pairs
    }

    /// Between the addresses that `node` has or that may float to it, and the blocked ones.
    pub fn blocked_pairs(&self, node: &Node) -> Vec<Pair> {
        self.pairs_with(node, &self.protection.blocked)
    }

    /// The same, with those that are withheld.
    pub fn withheld_pairs(&self, node: &Node) -> Vec<Pair> {
        self.pairs_with(node, &self.protection.withheld)
    }

    fn pairs_with(&self, node: &Node, remotes: &[IpAddr]) -> Vec<Pair> {
        let own: Vec<IpAddr> = node.own_addresses().chain(self.floating_at(node)).collect();
        remotes.iter().flat_map(|remote| own.iter().filter_map(|local| Pair::new(*local, *remote))).collect()
    }

    fn in_networks(&self, address: IpAddr) -> bool {
        match &self.protection.networks {
            None => true,
            Some(networks) => networks.iter().any(|network| network.contains(address)),
        }
    }

    /// A hash of what all hosts of a cluster must agree on, as 16 hexadecimal digits. Left out are settings
    /// local to a host (its name, its directories, where its secret lies), layout, comments, defaults spelled out and
    /// the order of lists.
    pub fn config_id(&self) -> String {
        let hash = Sha256::digest(self.canonical());
        hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// What [`Config::config_id`] hashes: one line a key, lists sorted.
    fn canonical(&self) -> String {
        let Keying { method, accept, port, rekey_after, rekey_bytes, rekey_packets, expire_after, .. } =
            &self.keying;
        let Esp { proposals, replay_window, encapsulation } = &self.esp;
        // The short form and the long one are the same where they mean the same, and defaults do not count: versions
        // with other defaults show no difference.
        let esp = match proposals.only_key_bits() {
            Some(bits) if *proposals == Proposals::of_key_bits(bits) => bits.to_string(),
            _ => proposals.to_string(),
        };
        let ike = match &self.keying.proposals {
            proposals if *proposals == Proposals::default() => String::new(),
            proposals => format!("proposals {proposals}\n"),
        };
        let accept: BTreeSet<&str> = accept.iter().map(|method| method.as_str()).collect();
        let accept = match accept.iter().eq(&[method.as_str()]) {
            true => String::new(),
            false => format!("keying accepts {accept:?}\n"),
        };
        let in_udp = match (encapsulation, self.keying.nat_port) {
            (EncapsulationMode::Auto, NAT_PORT) => String::new(),
            (mode, port) => format!("encapsulation {mode} {port}\n"),
        };
        let ProtectionRules { mode, exempt, networks, allow_peer_disable, forwarded, blocked, withheld } =
            &self.protection;
        let forwarded = match forwarded {
            Forwarded::Leave => String::new(),
            Forwarded::Block => "forwarded block\n".to_owned(),
        };
        let others = |name: &str, addresses: &[IpAddr]| {
            let addresses: BTreeSet<&IpAddr> = addresses.iter().collect();
            if addresses.is_empty() { String::new() } else { format!("{name} {addresses:?}\n") }
        };
        let [blocked, withheld] = [others("blocked", blocked), others("withheld", withheld)];
        let exempt: BTreeSet<String> = exempt.iter().map(Exemption::to_string).collect();
        let networks: Option<BTreeSet<&Block>> = networks.as_ref().map(|list| list.iter().collect());
        let nodes: BTreeSet<String> = self.nodes.iter().map(Node::canonical).collect();
        let floating: BTreeSet<String> = self.floating.iter().map(Floating::canonical).collect();
        let floating = match floating.is_empty() {
            true => String::new(),
            false => format!("floating {floating:?}\n"),
        };
        let (auth, ppk) = (self.auth.canonical(), self.ppk.canonical());
        let kms = self.kms.as_ref().map(KmsRules::canonical).unwrap_or_default();
        format!(
            "hostseal 1\ncluster {:?}\nkeying {method} {port} {rekey_after:?} {rekey_bytes:?} \
             {rekey_packets:?} {expire_after:?}\nesp {esp} {replay_window}\n{ike}{accept}\
             protection {mode} {exempt:?} {networks:?} {allow_peer_disable}\nnodes {nodes:?}\n{floating}{auth}{in_udp}{forwarded}{blocked}{withheld}{ppk}{kms}",
            self.cluster
        )
    }

    /// The control socket.
    pub fn socket_path(&self) -> PathBuf {
        self.run_dir.join(SOCKET_NAME)
    }

    /// The socket where others than root may look.
    pub fn status_socket_path(&self) -> PathBuf {
        status_socket_path(&self.run_dir)
    }

    /// What outlives a reboot.
    pub fn state_path(&self) -> PathBuf {
        state_path(&self.state_dir)
    }
}

/// The socket where others than root may look, in `run_dir`.
pub fn status_socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join(STATUS_SOCKET_NAME)
}

/// What outlives a reboot, in `state_dir`.
pub fn state_path(state_dir: &Path) -> PathBuf {
    state_dir.join("state.json")
}

impl Node {
    /// What of it all hosts must agree on, for [`Config::config_id`].
    fn canonical(&self) -> String {
        // Hosts that differ in what they accept meanwhile have the same file a moment later.
        let Self { name, addresses, inside, public_key, previous_public_key: _, auth, expects_secret } = self;
        let addresses: BTreeSet<&IpAddr> = addresses.iter().collect();
        let key = public_key.as_ref().map(|key| format!(" key {key}")).unwrap_or_default();
        let auth = auth.map(|method| format!(" auth {method}")).unwrap_or_default();
        let expects = if *expects_secret { " expects secret" } else { "" };
        let inside: String = inside.iter().map(|(listed, own)| format!(" {listed} for {own}")).collect();
        format!("{name} {addresses:?}{key}{auth}{expects}{inside}")
    }

    /// Its addresses as its interfaces have them.
    pub fn own_addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(|listed| self.inside.own(*listed))
    }

    /// Its addresses for people, in the file's order.
    pub fn addresses_in_words(&self) -> Vec<String> {
        let words = |listed: &IpAddr| match self.inside.own(*listed) {
            own if own == *listed => listed.to_string(),
            own => format!("{listed} for {own} inside"),
        };
        self.addresses.iter().map(words).collect()
    }
}

impl AuthRules {
    /// What of it all hosts must agree on. Nothing where it is at its defaults: a file that does not speak of
    /// it keeps its id.
    fn canonical(&self) -> String {
        let Self { method, accept, private_key: _, certificate: _, ca: _, crl: _ } = self;
        let accept: BTreeSet<&str> = accept.iter().map(|method| method.as_str()).collect();
        match accept.iter().eq(&["secret"]) {
            true => String::new(),
            false => format!("auth {method} {accept:?}\n"),
        }
    }
}

/// The name of the control socket in `run_dir`.
const SOCKET_NAME: &str = "hostseal.sock";
/// The name of the socket beside it where others than root may look: no longer than that one.
const STATUS_SOCKET_NAME: &str = "status.sock";
