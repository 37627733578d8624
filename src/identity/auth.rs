//! How hosts prove to each other who they are.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::SecretId;
use super::certificate::{Authorities, Chain, Subject, TrustId};
use super::{PpkRule, PpkTag, PrivateKey, PublicKey};
use crate::types::{NodeName, UnixTime};

/// How a host proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// By the secret that all hosts of the cluster share: any of them can pass for any other.
    #[default]
    Secret,
    /// By its key pair, whose public half the file lists.
    PublicKey,
    /// By its key pair and a certificate of a CA that says whose it is.
    Certificate,
}

impl AuthMethod {
    /// All of them.
    pub const ALL: [AuthMethod; 3] = [AuthMethod::Secret, AuthMethod::PublicKey, AuthMethod::Certificate];

    /// What the file calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthMethod::Secret => "secret",
            AuthMethod::PublicKey => "public_key",
            AuthMethod::Certificate => "certificate",
        }
    }

    /// What people call it.
    pub fn words(self) -> &'static str {
        match self {
            AuthMethod::Secret => "the shared secret",
            AuthMethod::PublicKey => "its public key",
            AuthMethod::Certificate => "its certificate",
        }
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What this host proves itself with.
#[derive(Debug)]
pub enum Identity {
    /// The secret of the cluster.
    Secret,
    /// A key pair whose public half the others know.
    PublicKey(PrivateKey),
    /// A key pair, and certificates that say whose it is.
    Certificate(PrivateKey, Chain),
}

impl Identity {
    /// Its key pair, where it has one.
    pub fn key(&self) -> Option<&PrivateKey> {
        match self {
            Identity::Secret => None,
            Identity::PublicKey(key) | Identity::Certificate(key, _) => Some(key),
        }
    }

    /// Its certificates, where it has some.
    pub fn chain(&self) -> Option<&Chain> {
        match self {
            Identity::Secret | Identity::PublicKey(_) => None,
            Identity::Certificate(_, chain) => Some(chain),
        }
    }
}

/// What another host has to prove itself with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Its name.
    pub node: NodeName,
    /// The accepted methods: any of them will do.
    pub methods: Vec<AuthMethod>,
    /// Its public keys, where some are known: that which it is to use, and one before that, while it changes over.
    pub public_keys: Vec<PublicKey>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Expected {
    /// The subject that its certificate must have.
    pub fn subject(&self) -> Subject<'_> {
        Subject { node: &self.node, addresses: &self.addresses }
    }
}

/// What a proof was made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// A secret.
    Secret(SecretId),
    /// The private half of this key.
    Key(PublicKey),
    /// The private half of a key whose certificate was taken.
    Certified(Certified),
}

/// A certificate that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certified {
    /// The authorities that were trusted then.
    pub trust: TrustId,
    /// It, and those above it.
    pub chain: Arc<Chain>,
    /// When the first of them is over.
    pub until: UnixTime,
}

/// What the keys of a pair rest on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// What the peer has proven itself with: its [`fingerprint`](Proof::fingerprint).
    pub proof: String,
    /// The PPK in its keys, where there is one, in words.
    #[serde(default)]
    pub ppk: Option<String>,
    /// When that is over by itself.
    pub until: Option<UnixTime>,
    /// When the keys end since it is not accepted any more.
    pub notice: Option<UnixTime>,
}

impl Proof {
    /// The way of the peer that was believed for it.
    pub fn method(&self) -> AuthMethod {
        match self {
            Proof::Secret(_) => AuthMethod::Secret,
            Proof::Key(_) => AuthMethod::PublicKey,
            Proof::Certified(_) => AuthMethod::Certificate,
        }
    }

    /// What outlives the agent of it: whether the files still accept it can be told from that.
    pub fn fingerprint(&self) -> String {
        match self {
            Proof::Secret(id) => format!("secret {id}"),
            Proof::Key(key) => format!("public_key {key}"),
            Proof::Certified(Certified { trust, .. }) => format!("certificate {trust}"),
        }
    }

    /// The key, where it was made with a key that was known.
    pub fn key(&self) -> Option<&PublicKey> {
        match self {
            Proof::Key(key) => Some(key),
            Proof::Secret(_) | Proof::Certified(_) => None,
        }
    }

    /// Whether nobody but this one can have made it.
    pub fn is_of(&self, expected: &Expected) -> bool {
        match self {
            Proof::Secret(_) => false,
            Proof::Key(key) => expected.public_keys.contains(key),
            Proof::Certified(Certified { chain, .. }) => chain.names(expected.subject()).is_ok(),
        }
    }

    /// When it is over by itself, where it is.
    pub fn until(&self) -> Option<UnixTime> {
        match self {
            Proof::Secret(_) | Proof::Key(_) => None,
            Proof::Certified(Certified { until, .. }) => Some(*until),
        }
    }
}

/// What this host proves itself with, and what others have to; the secrets themselves are apart.
/// A clone has the same keys, not copies of them.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// What this host proves itself with.
    pub identity: Arc<Identity>,
    /// The addresses of hosts that expect the secret of this one, whatever it proves itself with elsewhere.
    pub by_secret: HashSet<IpAddr>,
    /// The authorities whose certificates are taken, where any are.
    pub authorities: Option<Arc<Authorities>>,
    /// What is expected of each address.
    pub peers: HashMap<IpAddr, Arc<Expected>>,
    /// What is expected of addresses that float: who has one at the moment speaks for it, proven as any of these.
    pub floating: HashMap<IpAddr, Vec<Arc<Expected>>>,
    /// The PPKs to use with the host at each address; none where it is not in here.
    pub ppks: HashMap<IpAddr, PpkRule>,
    /// What is expected of addresses that `peers` does not list; nothing is accepted where this is `None`.
    pub others: Option<Arc<Expected>>,
}

impl Default for Credentials {
    /// Every host proves itself with the secret.
    fn default() -> Self {
        let anybody = Expected {
            node: NodeName::default(),
            methods: vec![AuthMethod::Secret],
            public_keys: Vec::new(),
            addresses: Vec::new(),
        };
        Self {
            identity: Arc::new(Identity::Secret),
            by_secret: HashSet::new(),
            authorities: None,
            peers: HashMap::new(),
            floating: HashMap::new(),
            ppks: HashMap::new(),
            others: Some(Arc::new(anybody)),
        }
    }
}

impl Credentials {
    /// What the host at `address` has to prove itself with: any of these will do, and nothing where there are none.
    pub fn expected(&self, address: IpAddr) -> impl Iterator<Item = &Expected> {
        let floating = self.floating.get(&address);
        let fixed = self.peers.get(&address).or(self.others.as_ref()).filter(|_| floating.is_none());
        fixed.into_iter().chain(floating.into_iter().flatten()).map(Arc::as_ref)
    }

    /// What this host proves itself with to the host at `address`. `theirs` is what that host has proven itself with, where
    /// it did so first: several hosts may have an address that floats, and each expects what it gives.
    pub fn identity_for(&self, address: IpAddr, theirs: Option<&Proof>) -> &Identity {
        let by_key =
            self.floating.contains_key(&address) && theirs.is_some_and(|proof| proof.key().is_some());
        let by_secret = self.by_secret.contains(&address) && !by_key;
        if by_secret { &Identity::Secret } else { &self.identity }
    }

    /// What `next` changes of this host's own credentials, one line a change; the configuration has the others'.
    pub fn changes(&self, next: &Credentials) -> Vec<String> {
        let [before, after] = [self, next].map(|it| it.identity.key().map(|key| key.public().to_string()));
        let shown = |key: Option<String>| key.unwrap_or_else(|| "none".to_owned());
        let key = (before != after)
            .then(|| format!("the key of this host: {}, was {}", shown(after), shown(before)));
        let chains = [self, next].map(|it| it.identity.chain());
        let chain = (chains[0] != chains[1]).then(|| "the certificate of this host has changed".to_owned());
        let trust = [self, next].map(|it| it.authorities.as_deref().map(Authorities::id));
        let trust =
            (trust[0] != trust[1]).then(|| "the CAs or their revocation lists have changed".to_owned());
        let ppks = self.ppk_changes(next);
        [key, chain, trust].into_iter().flatten().chain(ppks).collect()
    }

    /// The host at `address` does not do without a PPK from now on. If there is none for it, no keys are made with it.
    pub fn require_ppk(&mut self, address: IpAddr) {
        self.ppks.entry(address).or_default().required = true;
    }

    /// Which PPKs there are, each once.
    pub fn ppk_tags(&self) -> Vec<PpkTag> {
        let mut tags: Vec<PpkTag> =
            self.ppks.values().flat_map(|rule| &rule.keys).map(|ppk| ppk.tag()).collect();
        tags.sort_by_key(PpkTag::to_string);
        tags.dedup();
        tags
    }

    fn ppk_changes(&self, next: &Credentials) -> Vec<String> {
        let (before, after) = (self.ppk_tags(), next.ppk_tags());
        let come = after.iter().filter(|tag| !before.contains(tag)).map(|tag| format!("with PPK {tag}"));
        let gone = before.iter().filter(|tag| !after.contains(tag)).map(|tag| format!("without PPK {tag}"));
        come.chain(gone).collect()
    }

    /// The CAs that the host at `address` may have its certificate from, where it may prove itself so.
    pub fn authorities_for(&self, address: IpAddr) -> Option<&Authorities> {
        let accepts = |expected: &Expected| expected.methods.contains(&AuthMethod::Certificate);
        self.authorities.as_deref().filter(|_| self.expected(address).any(accepts))
    }

    /// Whether anything is signed by us, or by the host at `address`.
    pub fn knows_signatures(&self, address: IpAddr) -> bool {
        let signs = |method: &AuthMethod| *method != AuthMethod::Secret;
        !matches!(self.identity_for(address, None), Identity::Secret)
            || self.expected(address).any(|expected| expected.methods.iter().any(signs))
    }
}
