//! What a member keeps of its cluster: the roster, and the two keys that are this node's alone.
//!
//! ```text
//! STATE_DIR/cluster/roster        a line that says what it is, and the entries, each with its length before it (2 octets)
//! STATE_DIR/cluster/signing.key   it signs entries
//! STATE_DIR/cluster/ike.key       it proves itself in IKE
//! STATE_DIR/cluster/ike.next      those that follow, until all that this node talks to know them
//! STATE_DIR/cluster/signing.next
//! ```

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::private_file::{self, PrivateFileError};
use super::saved::{SavedError, rename, replace};
use crate::config::{Config, ConfigError, Floating, Node, SharedConfig};
use crate::identity::{AuthMethod, CryptoFailed, PrivateKey, PublicKey};
use crate::roster::{EntryId, Member, Merged, NotTaken, Roster, RosterView, SignedEntry, Signer, Site};
use crate::types::{Inside, NodeName};

/// What the file of a roster begins with.
const HEAD: &[u8] = b"hostseal roster 1\n";

/// Where a member keeps what it has of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterFiles(PathBuf);

/// The private keys of a node.
#[derive(Debug)]
pub struct NodeKeys {
    /// It signs entries.
    pub signing: PrivateKey,
    /// It proves itself in IKE.
    pub ike: PrivateKey,
}

/// What a member has of its cluster.
#[derive(Debug)]
pub struct ClusterState {
    /// The roster.
    pub roster: Roster,
    /// The first entry of this node.
    pub own: EntryId,
    /// Its keys.
    pub keys: NodeKeys,
    /// Those that are to follow them.
    pub next: Option<NodeKeys>,
}

/// Why what a member keeps of its cluster cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ClusterFilesError {
    /// A key cannot be read.
    #[error(transparent)]
    Key(#[from] PrivateFileError),
    /// A file cannot be written.
    #[error(transparent)]
    Save(#[from] SavedError),
    /// No key can be made.
    #[error(transparent)]
    Crypto(#[from] CryptoFailed),
    /// The roster cannot be read.
    #[error("{}: cannot be read: {source}{}", file.display(), hint(source))]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The roster is none.
    #[error(
        "{}: this is no roster ({why}): restore it from a backup, or remove this node on another one \
         (`hostseal remove NODE`), move the file away and let this node join again",
        file.display()
    )]
    Broken {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

impl ClusterFilesError {
    /// Whether this user may not look.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

fn hint(source: &io::Error) -> &'static str {
    if source.kind() == io::ErrorKind::PermissionDenied { "; run as root" } else { "" }
}

impl ClusterState {
    /// Whether this node was taken out of its cluster, or has left it.
    pub fn is_over(&self) -> bool {
        self.roster.view().removed.iter().any(|removed| removed.line == self.own)
    }

    /// The configuration of this node, whose own file says `local` and is called `name`.
    ///
    /// # Errors
    /// See [`member_config`].
    pub fn config(&self, local: &str, name: &str) -> Result<Config, ConfigError> {
        member_config(&self.roster, (self.own, self.keys.ike.public()), None, (local, name))
    }
}

/// The configuration of the node with the first entry `own`, which proves itself with `key`. Its own file says `local`, and
/// is called `name`. It tries the settings `tried`. One that is no member, or not any more, has nobody to talk to.
///
/// # Errors
/// Its file says what the roster says, or one of both does not say what it must.
pub fn member_config(
    roster: &Roster,
    (own, key): (EntryId, &PublicKey),
    tried: Option<EntryId>,
    (local, name): (&str, &str),
) -> Result<Config, ConfigError> {
    config_with(roster, (own, key), settings_in_force(roster.view(), tried), (local, name))
}

/// The same, where these were the settings of the cluster.
///
/// # Errors
/// Likewise.
pub fn config_with(
    roster: &Roster,
    (own, key): (EntryId, &PublicKey),
    settings: &str,
    (local, name): (&str, &str),
) -> Result<Config, ConfigError> {
    let settings = settings.to_owned();
    let mut shared = SharedConfig { settings, ..shared(roster.view(), own, None) };
    let site = own_site(roster.view(), own);
    let site = site.ok_or_else(|| ConfigError::Cluster("the roster does not name this node".into()))?;
    let this = shared.nodes.iter_mut().filter(|node| node.name == site.name);
    let is_listed = |node: &&mut Node| node.previous_public_key.as_ref() == Some(key);
    this.filter(|node| !is_listed(node)).for_each(|node| node.public_key = Some(key.clone()));
    shared.of_node(local, name, &site.name, &ClusterFiles::of(Path::new("")).ike_key())
}

/// The settings of the cluster for a node that tries those of the entry `tried`.
pub fn settings_in_force(view: &RosterView, tried: Option<EntryId>) -> &str {
    match &view.settings {
        Some(newest) if tried == Some(newest.id) => &newest.says.toml,
        Some(newest) => newest.says.lapse_to(),
        None => "",
    }
}

/// What all members have in common, as the node with the first entry `own` sees it, which tries the settings `tried`.
pub fn shared(view: &RosterView, own: EntryId, tried: Option<EntryId>) -> SharedConfig {
    let settings = settings_in_force(view, tried).to_owned();
    let is_member = view.member(own).is_some();
    let alone = || own_site(view, own).map(site_alone).into_iter().collect();
    let nodes: Vec<Node> = if is_member { view.members.iter().map(node).collect() } else { alone() };
    let taken = |address: &IpAddr| nodes.iter().any(|node| node.addresses.contains(address));
    let out = view.removed.iter().any(|removed| removed.line == own);
    // What was sealed with a node that is held out stays closed until an admin decides; on that node, all does.
    let withheld: BTreeSet<IpAddr> = match is_member {
        true => view.held_out.iter().flat_map(|out| out.site.addresses.iter().copied()).collect(),
        false if out => BTreeSet::new(),
        false => view.members.iter().flat_map(|member| member.site.addresses.iter().copied()).collect(),
    };
    let withheld = withheld.into_iter().filter(|address| !taken(address)).collect();
    let floating = if is_member { floating(view) } else { Vec::new() };
    let cluster = view.cluster.clone();
    SharedConfig { cluster, settings, nodes, floating, blocked: blocked(view), withheld }
}

/// The addresses of nodes whose keys may be in other hands, where no other node has them.
fn blocked(view: &RosterView) -> Vec<IpAddr> {
    let compromised = view.removed.iter().filter(|removed| removed.compromised);
    let addresses: BTreeSet<IpAddr> =
        compromised.flat_map(|removed| removed.site.addresses.iter().copied()).collect();
    let taken = |address: &IpAddr| {
        view.members.iter().any(|member| member.site.addresses.contains(address))
            || view.floating.iter().any(|floating| floating.says.addresses.contains(address))
    };
    addresses.into_iter().filter(|address| !taken(address)).collect()
}

/// Where a node is, or was.
fn own_site(view: &RosterView, own: EntryId) -> Option<&Site> {
    let member = view.member(own).map(|member| &member.site);
    let held_out = || view.held_out.iter().find(|out| out.line == own).map(|out| &out.site);
    let removed = || view.removed.iter().find(|removed| removed.line == own).map(|removed| &removed.site);
    member.or_else(held_out).or_else(removed)
}

fn node(member: &Member) -> Node {
    let own = member.keys.as_ref().and_then(|keys| keys.ike.public_key().ok());
    let public_key = own.or_else(|| member.listed_key.as_ref().map(|key| key.0.clone()));
    let previous_public_key = member.previous_ike.and_then(|key| key.public_key().ok());
    // Who has no key has the secret that the hosts had before there was a roster.
    let by_secret = public_key.is_none();
    let auth = by_secret.then_some(AuthMethod::Secret);
    Node { public_key, previous_public_key, auth, expects_secret: by_secret, ..site_alone(&member.site) }
}

fn site_alone(site: &Site) -> Node {
    Node {
        name: site.name.clone(),
        addresses: site.addresses.clone(),
        inside: Inside::new(site.inside.clone()),
        public_key: None,
        previous_public_key: None,
        auth: None,
        expects_secret: false,
    }
}

fn floating(view: &RosterView) -> Vec<Floating> {
    let name = |line: &EntryId| view.member(*line).map(|member| member.site.name.clone());
    let named = |name: &NodeName| view.members.iter().any(|member| member.site.name == *name);
    let says = view.floating.iter().map(|floating| &floating.says).filter(|says| !named(&says.name));
    says.map(|says| Floating {
        name: says.name.clone(),
        addresses: says.addresses.clone(),
        nodes: says.nodes.iter().filter_map(name).collect(),
    })
    // One that is left alone has it as its own.
    .filter(|floating| floating.nodes.len() > 1)
    .collect()
}

impl ClusterFiles {
    /// Those in this state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self(state_dir.join("cluster"))
    }

    /// The roster; `None` where this host belongs to no cluster.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn load_roster(&self) -> Result<Option<Roster>, ClusterFilesError> {
        let file = self.roster();
        let octets = match std::fs::read(&file) {
            Ok(octets) => octets,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(ClusterFilesError::Unreadable { file, source }),
        };
        read(&octets).map(Some).map_err(|why| ClusterFilesError::Broken { file, why })
    }

    /// All that this host has of its cluster; `None` where it belongs to none.
    ///
    /// # Errors
    /// Something of it cannot be read, or the roster does not know this node's key.
    pub fn load(&self) -> Result<Option<ClusterState>, ClusterFilesError> {
        let Some(roster) = self.load_roster()? else { return Ok(None) };
        let (keys, next) = self.load_all_keys()?;
        let own = Signer::of(&keys.signing).and_then(|signer| roster.line_of(&signer));
        let own = own.ok_or_else(|| ClusterFilesError::Broken {
            file: self.roster(),
            why: "it does not know the key of this node".to_owned(),
        })?;
        Ok(Some(ClusterState { roster, own, keys, next }))
    }

    /// Keeps the roster: it is there whole or as before, also after a power cut.
    ///
    /// # Errors
    /// It cannot be written; what was there before still is.
    pub fn save_roster(&self, roster: &Roster) -> Result<(), ClusterFilesError> {
        let entries: Vec<&[u8]> = roster.in_order().map(SignedEntry::octets).collect();
        Ok(self.save_entries(&entries)?)
    }

    /// The same with the entries of a roster, that which founds it first.
    ///
    /// # Errors
    /// Likewise.
    pub fn save_entries<E: AsRef<[u8]>>(&self, entries: &[E]) -> Result<(), SavedError> {
        replace(&self.roster(), &written(entries))
    }

    /// The keys of this node.
    ///
    /// # Errors
    /// They are not there, others may read them, or they are none.
    pub fn load_keys(&self) -> Result<NodeKeys, ClusterFilesError> {
        load_both(&self.keys())
    }

    /// The same with those that are to follow, if there are any.
    ///
    /// # Errors
    /// Likewise.
    pub fn load_all_keys(&self) -> Result<(NodeKeys, Option<NodeKeys>), ClusterFilesError> {
        let [next_signing, next_ike] = self.next_keys();
        // In this order: the one is made after the other, and put in its place after it.
        let next = match (next_signing.exists(), next_ike.exists()) {
            (true, true) => Some(load_both(&self.next_keys())?),
            (true, false) => return Ok((load_both(&[next_signing, self.ike_key()])?, None)),
            (false, _) => None,
        };
        Ok((self.load_keys()?, next))
    }

    /// Moves all of it aside, for a host that is to join anew: a node that is out has other keys when it comes back. The
    /// roster is kept for people, in `cluster.former`, and the keys are not.
    ///
    /// # Errors
    /// The system refuses.
    pub fn set_aside(&self) -> Result<(), SavedError> {
        let io = |what| move |source| SavedError::Io { file: self.0.clone(), what, source };
        let former = Self(self.0.with_extension("former"));
        match std::fs::remove_dir_all(&former.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io("cannot be replaced")(error));
            }
            _ => {}
        }
        std::fs::rename(&self.0, &former.0).map_err(io("cannot be moved aside"))?;
        let keys = former.keys().into_iter().chain(former.next_keys());
        let mut keys = keys.filter(|file| file.exists());
        keys.try_for_each(std::fs::remove_file).map_err(io("has keys that cannot be removed"))
    }

    /// Keeps keys for this node that `new` makes, as PEM. Those that are there already stay: they may stand in a roster.
    ///
    /// # Errors
    /// No keys can be made or written, or those that are there cannot be read.
    pub fn make_keys(
        &self,
        new: impl Fn() -> Result<Zeroizing<String>, CryptoFailed>,
    ) -> Result<NodeKeys, ClusterFilesError> {
        make(&self.keys(), new)?;
        self.load_keys()
    }

    /// The same with those that are to follow.
    ///
    /// # Errors
    /// Likewise.
    pub fn make_next_keys(
        &self,
        new: impl Fn() -> Result<Zeroizing<String>, CryptoFailed>,
    ) -> Result<NodeKeys, ClusterFilesError> {
        let [signing, ike] = self.next_keys();
        // A change-over that was cut short leaves the signing key alone, which is in use since.
        if !ike.exists() {
            move_key(&signing, &self.signing_key())?;
        }
        make(&[ike, signing], new)?;
        load_both(&self.next_keys())
    }

    /// From now on the keys that are to follow are those of this node, and the ones before are gone.
    ///
    /// # Errors
    /// The system refuses.
    pub fn change_over(&self) -> Result<(), SavedError> {
        let [signing, ike] = self.next_keys();
        move_key(&ike, &self.ike_key())?;
        move_key(&signing, &self.signing_key())
    }

    /// Takes the key in `from` as that by which this node proves itself in IKE: hosts that run by a file know it by that.
    ///
    /// # Errors
    /// It is none, or cannot be written.
    pub fn take_key(&self, from: &Path) -> Result<(), ClusterFilesError> {
        Ok(replace(&self.ike_key(), private_file::load_key_text(from)?.as_bytes())?)
    }

    /// Puts the key by which this node proves itself in IKE to where a host has it that runs by a file.
    ///
    /// # Errors
    /// It cannot be read, or not be written there.
    pub fn give_key(&self, to: &Path) -> Result<(), ClusterFilesError> {
        Ok(replace(to, private_file::load_key_text(&self.ike_key())?.as_bytes())?)
    }

    fn roster(&self) -> PathBuf {
        self.0.join("roster")
    }

    /// The key by which this node proves itself in IKE.
    pub fn ike_key(&self) -> PathBuf {
        self.0.join("ike.key")
    }

    fn signing_key(&self) -> PathBuf {
        self.0.join("signing.key")
    }

    /// The signing key, and that for IKE.
    fn keys(&self) -> [PathBuf; 2] {
        [self.signing_key(), self.ike_key()]
    }

    /// Those that are to follow.
    fn next_keys(&self) -> [PathBuf; 2] {
        self.keys().map(|file| file.with_extension("next"))
    }
}

fn load_both(files: &[PathBuf; 2]) -> Result<NodeKeys, ClusterFilesError> {
    let [signing, ike] = files.each_ref().map(|file| private_file::load_key(file));
    Ok(NodeKeys { signing: signing?, ike: ike? })
}

/// Makes the keys that are not there yet, one after the other.
fn make(
    files: &[PathBuf],
    new: impl Fn() -> Result<Zeroizing<String>, CryptoFailed>,
) -> Result<(), ClusterFilesError> {
    for file in files.iter().filter(|file| !file.exists()) {
        replace(file, new()?.as_bytes())?;
    }
    Ok(())
}

/// Puts a key in the place of another one, unless that was done.
fn move_key(from: &Path, to: &Path) -> Result<(), SavedError> {
    match rename(from, to) {
        Err(SavedError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        moved => moved,
    }
}

fn written<E: AsRef<[u8]>>(entries: &[E]) -> Vec<u8> {
    let mut octets = HEAD.to_vec();
    for entry in entries.iter().map(AsRef::as_ref) {
        // An entry is shorter than that.
        octets.extend(u16::try_from(entry.len()).unwrap_or_default().to_be_bytes());
        octets.extend(entry);
    }
    octets
}

fn read(octets: &[u8]) -> Result<Roster, String> {
    let mut rest = octets.strip_prefix(HEAD).ok_or("it begins with something else")?;
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk().ok_or("it was cut off")?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (entry, after) = after.split_at_checked(length).ok_or("it was cut off")?;
        entries.push(entry);
        rest = after;
    }
    let (first, others) = entries.split_first().ok_or("it is empty")?;
    let mut roster = Roster::found(first).map_err(|why| why.to_string())?;
    let Merged { refused, .. } = roster.merge(others.iter().copied());
    // What the disk has garbled, others have whole: they send it again.
    match refused.keys().find(|why| matches!(why, NotTaken::OtherCluster)) {
        Some(why) => Err(why.to_string()),
        None => Ok(roster),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::identity::KeyKind;
    use crate::roster::{ClusterId, Genesis, Keys, Saying, Signer, Site, Statement, Version};

    fn new() -> Result<Zeroizing<String>, CryptoFailed> {
        PrivateKey::generate(KeyKind::Ed25519)
    }

    fn founded(keys: &NodeKeys) -> Roster {
        let recovery = PrivateKey::from_seed(&[3; 32]).unwrap();
        let [signing, ike, recovery_key] =
            [&keys.signing, &keys.ike, &recovery].map(|key| Signer::of(key).unwrap());
        let site = Site {
            name: "a".parse().unwrap(),
            addresses: vec![[10, 0, 0, 1].into()],
            inside: Default::default(),
        };
        let says = Saying::Genesis(Genesis {
            cluster: "prod".to_owned(),
            site,
            keys: Keys { signing, ike },
            recovery: recovery_key,
        });
        let version = Version::default();
        let statement = Statement { by: signing, version, after: Vec::new(), basis: None, says };
        let keys = [&keys.signing, &keys.ike, &recovery];
        let entry = SignedEntry::sign(ClusterId::new([0; 32]), statement, &keys).unwrap();
        Roster::found(entry.octets()).unwrap()
    }

    #[test]
    fn keys_are_made_once_and_are_nobody_elses() {
        let directory = tempfile::tempdir().unwrap();
        let files = ClusterFiles::of(directory.path());
        assert!(matches!(files.load_keys(), Err(ClusterFilesError::Key(_))));
        let made = files.make_keys(new).unwrap();
        assert_ne!(made.signing.public(), made.ike.public());
        let again = files.make_keys(new).unwrap();
        assert_eq!(again.signing.public(), made.signing.public());
        for file in files.keys() {
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(files.load_keys(), Err(ClusterFilesError::Key(_))));
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    #[test]
    fn what_a_node_had_that_is_out_is_moved_aside_without_its_keys() {
        let directory = tempfile::tempdir().unwrap();
        let files = ClusterFiles::of(directory.path());
        for _ in 0..2 {
            let keys = files.make_keys(new).unwrap();
            files.save_roster(&founded(&keys)).unwrap();
            assert!(!files.load().unwrap().unwrap().is_over());
            files.set_aside().unwrap();
            assert!(files.load().unwrap().is_none() && files.load_keys().is_err());
            let left: Vec<_> = fs::read_dir(directory.path().join("cluster.former")).unwrap().collect();
            assert_eq!(left.len(), 1, "the roster alone");
            assert_ne!(files.make_keys(new).unwrap().signing.public(), keys.signing.public());
        }
    }

    /// Wherever a node dies on its way from one pair of keys to the next, it has one that others know.
    #[test]
    fn keys_are_replaced_in_steps_that_may_be_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let files = ClusterFiles::of(directory.path());
        files.make_keys(new).unwrap();
        let key = |keys: &NodeKeys| [keys.signing.public().clone(), keys.ike.public().clone()];
        for cut in 0..4 {
            let (before, next) = files.load_all_keys().unwrap();
            assert!(next.is_none());
            let made = files.make_next_keys(new).unwrap();
            if cut == 1 {
                // It died before the second one was there: the first one stays.
                fs::remove_file(files.next_keys()[0].clone()).unwrap();
                assert!(files.load_all_keys().unwrap().1.is_none());
            }
            let made = if cut == 1 { files.make_next_keys(new).unwrap() } else { made };
            let (still, next) = files.load_all_keys().unwrap();
            assert_eq!((key(&still), key(&next.unwrap())), (key(&before), key(&made)));
            match cut {
                2 => fs::rename(&files.next_keys()[1], files.ike_key()).unwrap(),
                3 => (0..2).for_each(|_| files.change_over().unwrap()),
                _ => files.change_over().unwrap(),
            }
            let (now, next) = files.load_all_keys().unwrap();
            assert!(next.is_none() && !files.next_keys()[1].exists());
            assert_eq!(key(&now), key(&made), "{cut}");
        }
    }

    #[test]
    fn a_roster_comes_back_as_it_was_and_a_broken_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let files = ClusterFiles::of(directory.path());
        assert!(files.load_roster().unwrap().is_none());
        let roster = founded(&files.make_keys(new).unwrap());
        files.save_roster(&roster).unwrap();
        let loaded = files.load_roster().unwrap().unwrap();
        assert_eq!((loaded.id(), loaded.view()), (roster.id(), roster.view()));
        assert_eq!(fs::metadata(files.roster()).unwrap().permissions().mode() & 0o777, 0o600);
        let whole = fs::read(files.roster()).unwrap();
        for length in 0..whole.len() {
            fs::write(files.roster(), &whole[..length]).unwrap();
            let error = files.load_roster().unwrap_err();
            assert!(error.to_string().contains("cluster/roster: this is no roster"), "{error}");
        }
        for at in HEAD.len()..whole.len() {
            let mut garbled = whole.clone();
            garbled[at] ^= 4;
            fs::write(files.roster(), garbled).unwrap();
            assert!(files.load_roster().is_err(), "{at}");
        }
    }
}
