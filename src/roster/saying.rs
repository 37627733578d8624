//! What an entry says.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::octets::{EntryId, Signer};
use crate::identity::{NotAKey, PublicKey};
use crate::types::{Block, NodeName, UnixTime, host_address, node_name, trial};

/// Both halves of `(a, n)` are at most this.
pub(super) const VERSION_MAX: u64 = 1 << 48;

/// How new an entry is, among those of the same matter: compared from left to right. Only admins raise the first half;
/// others copy it from an entry of an admin, so nobody else can outbid one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Version(pub u64, pub u64);

/// What is signed: who says what, and after what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Who says it.
    pub by: Signer,
    /// How new it is.
    pub version: Version,
    /// The entries that it replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<EntryId>,
    /// The admin's entry that it follows: whose version it takes up, where no admin says it; or which has asked for new
    /// keys last when it was signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basis: Option<EntryId>,
    /// What it says.
    pub says: Saying,
}

/// The public halves of a node's keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    /// It signs entries with this one.
    pub signing: Signer,
    /// It proves itself with this one in IKE.
    pub ike: Signer,
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// What people call it.
    pub name: NodeName,
    /// Its addresses as others send to them.
    pub addresses: Vec<IpAddr>,
    /// Which of them stand for others on the node itself.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inside: BTreeMap<IpAddr, IpAddr>,
}

impl Site {
    /// It has addresses, none of them twice or one that no host has alone; what stands for another one is one of them.
    fn is_sound(&self) -> bool {
        let listed: BTreeSet<&IpAddr> = self.addresses.iter().collect();
        let inside: BTreeSet<&IpAddr> = self.inside.values().collect();
        let unicast = |address: &IpAddr| host_address::wrong(*address).is_none();
        !listed.is_empty()
            && listed.len() == self.addresses.len()
            && inside.len() == self.inside.len()
            && self.addresses.iter().all(unicast)
            && self.inside.iter().all(|(listed_one, own)| {
                listed.contains(listed_one)
                    && !listed.contains(own)
                    && unicast(own)
                    && own.is_ipv4() == listed_one.is_ipv4()
            })
    }
}

/// What an entry says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Saying {
    /// There is a cluster, and this is its first node, an admin.
    Genesis(Genesis),
    /// A node that does not speak for itself is there, or another one is elsewhere now. By an admin.
    Node(Listed),
    /// This node is there: it has used an invite. By that invite, with both keys of the node.
    Join(Join),
    /// A member has checked that the invite of a node that joins was not over.
    Admission(Admission),
    /// From now on a node signs and proves itself with these keys. By its signing key before.
    Keys(Keys),
    /// All nodes are to have new keys. By an admin.
    Rotation(Rotation),
    /// Whoever signs this proves itself with its newest key alone: none from before counts. By its newest signing key.
    Retired(Retired),
    /// A node is an admin, or is none any more. By an admin or the recovery key.
    Rights(Rights),
    /// Whoever has the private half of this key may join. By an admin.
    Invite(Invite),
    /// The settings of all. By an admin.
    Settings(ClusterSettings),
    /// The cluster is to be protected, or not. On: by any node; off: by an admin.
    Desired(DesiredProtection),
    /// Addresses that move between nodes. By an admin.
    Floating(FloatingPlace),
    /// A node or an invite is out for good. By an admin, the recovery key, or the node itself.
    Gone(Gone),
    /// Something that a later version knows. By any node: it is kept and passed on as it is, and binds nobody here.
    #[serde(skip)]
    Later(LaterKind),
}

impl Saying {
    /// What only a later version knows; `None` for what this one does.
    pub(super) fn later(&self) -> Option<&LaterKind> {
        match self {
            Saying::Later(kind) => Some(kind),
            _ => None,
        }
    }
}

/// What a later version calls a kind of entry: letters and underscores.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaterKind(String);

impl LaterKind {
    /// The longest one.
    const LENGTH_MAX: usize = 32;

    fn of(kind: String) -> Option<Self> {
        let plain = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        (plain && kind.len() <= Self::LENGTH_MAX && !KINDS.contains(&kind.as_str())).then_some(Self(kind))
    }
}

impl fmt::Display for LaterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The start of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Genesis {
    /// What people call it.
    pub cluster: String,
    /// Its first node.
    pub site: Site,
    /// That node's keys.
    pub keys: Keys,
    /// The key that outranks all: it takes nodes out, and makes admins.
    pub recovery: Signer,
}

/// What an admin says of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// The first entry of the node; `None` where this is it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<EntryId>,
    /// Where it is.
    pub site: Site,
    /// It runs other software, and stays out of what members tell each other.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub foreign: bool,
    /// Its public key for IKE, as long as it has not joined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ike: Option<IkeKey>,
}

/// What a node says that joins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Join {
    /// Where it is.
    pub site: Site,
    /// Its keys.
    pub keys: Keys,
}

/// The entry of a node that joins may count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// That entry.
    pub of: EntryId,
}

/// All nodes are to have new keys: those that follow this entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {}

/// The keys of a node that came before the one which signs this prove nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retired {}

/// What a node may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// The first entry of the node.
    pub of: EntryId,
    /// Whether it is an admin.
    pub admin: bool,
    /// What it has signed as an admin and still counts, where it is none any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<EntryId>,
}

/// Who may join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// The public half of the key in the token.
    pub key: Signer,
    /// The name that the node gets; `None` for any that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<NodeName>,
    /// The node without keys that joins by it; `None` for a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<EntryId>,
    /// The node will be an admin.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
    /// The last second in which a member admits the node.
    pub expires: Seconds,
    /// The networks in which its addresses lie; none where any do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<AddressBlock>,
    /// The addresses that it has; none where it may say them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// A public key for IKE of any kind that we know: in JSON it is the line that `hostseal key show` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IkeKey(pub PublicKey);

impl TryFrom<String> for IkeKey {
    type Error = NotAKey;

    fn try_from(line: String) -> Result<Self, NotAKey> {
        line.parse().map(Self)
    }
}

impl From<IkeKey> for String {
    fn from(key: IkeKey) -> Self {
        key.0.to_string()
    }
}

/// A block of addresses: in JSON it is text such as `10.0.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressBlock(pub Block);

impl TryFrom<String> for AddressBlock {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let block = text
            .split_once('/')
            .and_then(|(address, prefix)| Block::new(address.parse().ok()?, prefix.parse().ok()?));
        block.map(Self).ok_or("not a block of addresses such as 10.0.0.0/16")
    }
}

impl From<AddressBlock> for String {
    fn from(network: AddressBlock) -> Self {
        network.0.to_string()
    }
}

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seconds(pub u64);

impl From<UnixTime> for Seconds {
    fn from(time: UnixTime) -> Self {
        Self(time.0)
    }
}

/// The settings of all nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSettings {
    /// The sections `[keying]`, `[esp]`, `[protection]`, `[kms]`, `[ppk]` and `[secret]` of a file, as far as a cluster says
    /// them, as text.
    pub toml: String,
    /// They go back by themselves, unless the same is said without this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<SettingsTrial>,
}

impl ClusterSettings {
    /// These, for good.
    pub fn lasting(toml: impl Into<String>) -> Self {
        Self { toml: toml.into(), trial: None }
    }

    /// The settings when nobody says anything more.
    pub fn lapse_to(&self) -> &str {
        self.trial.as_ref().map_or(&self.toml, |trial| &trial.before)
    }
}

/// What becomes of settings that nobody confirms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsTrial {
    /// For how many seconds a node tries them at most.
    pub seconds: u64,
    /// The last second in which one does that hears of them late.
    pub until: Seconds,
    /// The settings before.
    pub before: String,
}

/// Whether the cluster is to be protected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredProtection {
    /// It is.
    pub on: bool,
    /// It goes back by itself, unless this is confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<ClusterTrial>,
    /// The entry of the trial that this one confirms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirms: Option<EntryId>,
}

impl DesiredProtection {
    /// Whether the cluster is protected when nobody says anything more.
    pub fn lapses_to(&self) -> bool {
        self.trial.map_or(self.on, |trial| trial.before)
    }
}

/// What becomes of a trial that nobody confirms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterTrial {
    /// Its length in seconds.
    pub seconds: u64,
    /// Whether the cluster was to be protected before.
    pub before: bool,
    /// When it is over for a node that hears of it late, by the clock of who has begun it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Seconds>,
}

impl ClusterTrial {
    /// How many seconds are left of it at `wall`: no more than its length, whatever the clocks say.
    pub fn left(&self, wall: UnixTime) -> u64 {
        self.until.map_or(self.seconds, |until| self.seconds.min(until.0.saturating_sub(wall.0)))
    }
}

/// Addresses that move together between nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloatingPlace {
    /// What people call them.
    pub name: NodeName,
    /// The addresses; none where there are none any more.
    pub addresses: Vec<IpAddr>,
    /// The first entries of the nodes that may have them.
    pub nodes: Vec<EntryId>,
}

/// What is out for good. Where an admin needs several entries for what is kept, here or with [`Rights`], the second half of
/// the version says how many: they count when all are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gone {
    /// The first entry of a node, or an invite.
    pub of: EntryId,
    /// What it has signed and still counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<EntryId>,
    /// Its keys may be in other hands: it is told nothing, and its addresses are blocked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compromised: bool,
}

/// What entries are about: of those that are about the same, the newest counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matter {
    /// Which node there is, by its first entry; `None` where an entry of an admin is a first one.
    Node(Option<EntryId>),
    /// Who uses this invite.
    Join(Signer),
    /// Who admits this node.
    Admission(EntryId),
    /// What follows these keys.
    Keys(Signer),
    /// Whether all nodes are to have new keys.
    Rotation,
    /// What came before these keys.
    Retired(Signer),
    /// What this node may do.
    Rights(EntryId),
    /// Who may join.
    Invite,
    /// The settings.
    Settings,
    /// Whether the cluster is to be protected.
    Desired,
    /// Where these addresses may be.
    Floating(NodeName),
    /// What is out.
    Gone(EntryId),
    /// What a later version knows.
    Later,
}

/// The kinds of entries that this version knows. One that says something else than that is broken, and not of a later
/// version: that gives what it has to say another name.
const KINDS: [&str; 13] = [
    "genesis",
    "node",
    "join",
    "admission",
    "keys",
    "rotation",
    "retired",
    "rights",
    "invite",
    "settings",
    "desired",
    "floating",
    "gone",
];

/// A statement whose kind is not known: what all of them have.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnyStatement {
    by: Signer,
    version: Version,
    #[serde(default)]
    after: Vec<EntryId>,
    #[serde(default)]
    basis: Option<EntryId>,
    says: OneKind,
}

/// What is said, by its kind alone: one, and nothing beside it.
struct OneKind(String);

impl<'de> Deserialize<'de> for OneKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One;
        impl<'de> Visitor<'de> for One {
            type Value = OneKind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one kind of entry with what it says")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OneKind, A::Error> {
                let first = map.next_entry::<String, IgnoredAny>()?;
                let second = map.next_entry::<IgnoredAny, IgnoredAny>()?;
                match (first, second) {
                    (Some((kind, _)), None) => Ok(OneKind(kind)),
                    _ => Err(A::Error::custom("an entry says one thing")),
                }
            }
        }
        deserializer.deserialize_map(One)
    }
}

impl Statement {
    /// What was signed, in JSON; `None` where it is none.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok().or_else(|| Self::read_later(json))
    }

    fn read_later(json: &[u8]) -> Option<Self> {
        let AnyStatement { by, version, after, basis, says: OneKind(kind) } =
            serde_json::from_slice(json).ok()?;
        let says = Saying::Later(LaterKind::of(kind)?);
        Some(Self { by, version, after, basis, says })
    }

    /// What it is about.
    pub fn matter(&self) -> Matter {
        match &self.says {
            Saying::Genesis(_) => Matter::Node(None),
            Saying::Node(listed) => Matter::Node(listed.line),
            Saying::Join(_) => Matter::Join(self.by),
            Saying::Admission(admission) => Matter::Admission(admission.of),
            Saying::Keys(_) => Matter::Keys(self.by),
            Saying::Rotation(_) => Matter::Rotation,
            Saying::Retired(_) => Matter::Retired(self.by),
            Saying::Rights(rights) => Matter::Rights(rights.of),
            Saying::Invite(_) => Matter::Invite,
            Saying::Settings(_) => Matter::Settings,
            Saying::Desired(_) => Matter::Desired,
            Saying::Floating(floating) => Matter::Floating(floating.name.clone()),
            Saying::Gone(gone) => Matter::Gone(gone.of),
            Saying::Later(_) => Matter::Later,
        }
    }

    /// Who signs it: who says it, and the keys that it makes known. Nobody can so pass the key of another off as its own.
    pub fn signers(&self) -> Vec<Signer> {
        match &self.says {
            Saying::Genesis(Genesis { keys, recovery, .. }) => vec![self.by, keys.ike, *recovery],
            Saying::Join(Join { keys, .. }) | Saying::Keys(keys) => vec![self.by, keys.signing, keys.ike],
            Saying::Invite(invite) => vec![self.by, invite.key],
            _ => vec![self.by],
        }
    }

    /// The sites that it names, and the names.
    pub(super) fn is_sound(&self) -> bool {
        let named = |name: &NodeName| !name.as_str().is_empty() && node_name::checked(name.as_str()).is_ok();
        let sited = |site: &Site| named(&site.name) && site.is_sound();
        let Version(a, n) = self.version;
        let sound = match &self.says {
            Saying::Genesis(genesis) => {
                self.by == genesis.keys.signing
                    && node_name::checked(&genesis.cluster).is_ok()
                    && sited(&genesis.site)
            }
            Saying::Node(listed) => sited(&listed.site),
            // Which addresses a NAT turns into others is for an admin to say.
            Saying::Join(join) => sited(&join.site) && join.site.inside.is_empty(),
            Saying::Invite(invite) => invite.name.as_ref().is_none_or(named),
            Saying::Floating(floating) => named(&floating.name),
            Saying::Settings(ClusterSettings { toml, trial }) => {
                let short = |trial: &SettingsTrial| {
                    trial.seconds <= trial::LONGEST.as_secs() && is_plain(&trial.before)
                };
                is_plain(toml) && trial.as_ref().is_none_or(short)
            }
            Saying::Desired(DesiredProtection { trial: Some(trial), .. }) => {
                trial.seconds <= trial::LONGEST.as_secs()
            }
            _ => true,
        };
        sound && a <= VERSION_MAX && n <= VERSION_MAX
    }
}

/// Whether a terminal shows it as it is.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kind that is missing there would be taken as one of a later version where it is broken.
    #[test]
    fn all_kinds_are_known() {
        let error = serde_json::from_str::<Saying>("{\"x\":1}").unwrap_err().to_string();
        let named = KINDS.map(|kind| format!("`{kind}`")).join(", ");
        assert!(error.contains(&format!("expected one of {named} at")), "{error}");
    }
}
