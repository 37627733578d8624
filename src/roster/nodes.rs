//! Which nodes there are, where they are, and with which keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::entry::SignedEntry;
use super::octets::{EntryId, Signer};
use super::saying::{IkeKey, Join, Keys, Saying, Site, Version};
use super::tally::{Entries, KeyHolder, NodeLine, Tally};
use super::withdrawn::Withdrawn;
use crate::types::NodeName;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its first entry, which it is known by.
    pub line: EntryId,
    /// Where it is.
    pub site: Site,
    /// Its keys; `None` where it has not joined, or runs other software.
    pub keys: Option<Keys>,
    /// What an admin has said of its key for IKE, where it has no keys.
    pub listed_key: Option<IkeKey>,
    /// It runs other software.
    pub foreign: bool,
    /// It is an admin.
    pub admin: bool,
}

/// A node that is no member until an admin decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldOut {
    /// Its first entry.
    pub line: EntryId,
    /// Where it says that it is.
    pub site: Site,
    /// Why it is no member.
    pub why: HeldOutBecause,
}

/// Why a node is no member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldOutBecause {
    /// Two nodes have joined with one invite.
    TokenUsedTwice,
    /// An older node has its name.
    NameTaken,
    /// An older node, or one that floats, has this address.
    AddressTaken(IpAddr),
    /// An older node has its key, or one that is gone had it.
    KeyTaken,
    /// Two sets of keys follow the same one: somebody else has had it.
    KeysForked,
}

impl fmt::Display for HeldOutBecause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HeldOutBecause::TokenUsedTwice => f.write_str("its token was used twice"),
            HeldOutBecause::NameTaken => f.write_str("another node has its name"),
            HeldOutBecause::AddressTaken(address) => write!(f, "{address} belongs to another node"),
            HeldOutBecause::KeyTaken => {
                f.write_str("its key belongs to another node, or to one that was removed")
            }
            HeldOutBecause::KeysForked => {
                f.write_str("its key was replaced twice: somebody else may have a copy of it")
            }
        }
    }
}

/// A node that is out for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its first entry.
    pub line: EntryId,
    /// Where it was.
    pub site: Site,
    /// Its keys may be in other hands.
    pub compromised: bool,
}

/// All that are, or were, nodes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    pub members: Vec<Member>,
    pub held_out: Vec<HeldOut>,
    pub removed: Vec<Removed>,
}

/// A node with what goes before what, where two want the same.
struct Contender {
    /// An admin has listed it: those go first, then the older invite.
    rank: (bool, Version, EntryId),
    member: Member,
    held_out: Option<HeldOutBecause>,
}

/// What is taken already.
#[derive(Default)]
struct Occupied {
    names: BTreeSet<NodeName>,
    addresses: BTreeSet<IpAddr>,
    keys: BTreeSet<Signer>,
}

impl Nodes {
    /// The nodes that `entries` name. `floating` are the addresses of no node.
    pub fn find(
        entries: &Entries,
        tally: &Tally,
        withdrawn: &Withdrawn,
        floating: &BTreeSet<IpAddr>,
    ) -> Self {
        let book = Book::read(entries, tally);
        let mut nodes = Self { held_out: used_twice(entries, tally, withdrawn), ..Self::default() };
        let (mut candidates, mut occupied) = (Vec::new(), Occupied::default());
        for (id, line) in tally.lines() {
            let Some(candidate) = book.candidate(tally, id, line) else { continue };
            if withdrawn.is_gone(id) {
                let compromised = book.compromised.contains(&id);
                occupied.keys.extend(book.keys_ever(id, line));
                nodes.removed.push(Removed { line: id, site: candidate.member.site, compromised });
            } else {
                candidates.push(candidate);
            }
        }
        candidates.sort_by_key(|candidate| candidate.rank);
        for Contender { rank, member, held_out } in candidates {
            let (joined, _, _) = rank;
            let why =
                held_out.or_else(|| occupied.refuses(&member, if joined { Some(floating) } else { None }));
            match why {
                None => {
                    occupied.take(&member);
                    nodes.members.push(member);
                }
                Some(why) => {
                    nodes.held_out.push(HeldOut { line: member.line, site: member.site, why });
                }
            }
        }
        nodes.members.sort_by(|a, b| a.site.name.cmp(&b.site.name));
        nodes
    }
}

impl Occupied {
    fn refuses(&self, member: &Member, floating: Option<&BTreeSet<IpAddr>>) -> Option<HeldOutBecause> {
        let taken = |address: &&IpAddr| {
            self.addresses.contains(address) || floating.is_some_and(|floating| floating.contains(address))
        };
        let mut keys = member.keys.iter().flat_map(|keys| [keys.signing, keys.ike]);
        if self.names.contains(&member.site.name) {
            Some(HeldOutBecause::NameTaken)
        } else if let Some(address) = member.site.addresses.iter().find(taken) {
            Some(HeldOutBecause::AddressTaken(*address))
        } else {
            keys.any(|key| self.keys.contains(&key)).then_some(HeldOutBecause::KeyTaken)
        }
    }

    fn take(&mut self, member: &Member) {
        self.names.insert(member.site.name.clone());
        self.addresses.extend(&member.site.addresses);
        self.keys.extend(member.keys.iter().flat_map(|keys| [keys.signing, keys.ike]));
    }
}

/// Those who have joined by one invite, until an admin says which of them is the right one.
fn used_twice(entries: &Entries, tally: &Tally, withdrawn: &Withdrawn) -> Vec<HeldOut> {
    let out = |(id, entry): (&EntryId, &SignedEntry)| {
        let Saying::Join(join) = &entry.statement().says else { return None };
        let by = &entry.statement().by;
        let is_settled = match tally.holder(by) {
            Some(KeyHolder::Invite(invite)) => withdrawn.is_gone(invite),
            _ => true,
        };
        (withdrawn.is_used_twice(by) && !is_settled).then(|| HeldOut {
            line: *id,
            site: join.site.clone(),
            why: HeldOutBecause::TokenUsedTwice,
        })
    };
    entries.iter().filter_map(out).collect()
}

/// What counts, by what it is about.
struct Book<'a> {
    /// Where each node is, by the newest entry.
    sites: BTreeMap<EntryId, (Version, EntryId, Listing<'a>)>,
    /// The first node, and its first keys.
    genesis: Option<(EntryId, &'a Keys)>,
    joins: BTreeMap<EntryId, (Signer, &'a Join)>,
    /// How old the invites are.
    invites: BTreeMap<EntryId, Version>,
    /// What follows the keys that this one signs for: more than one where it was stolen.
    successors: BTreeMap<Signer, Vec<&'a Keys>>,
    compromised: BTreeSet<EntryId>,
}

#[derive(Clone, Copy)]
struct Listing<'a> {
    site: &'a Site,
    foreign: bool,
    ike: Option<&'a IkeKey>,
}

impl<'a> Book<'a> {
    fn read(entries: &'a Entries, tally: &Tally) -> Self {
        let mut book = Self {
            sites: BTreeMap::new(),
            genesis: None,
            joins: BTreeMap::new(),
            invites: BTreeMap::new(),
            successors: BTreeMap::new(),
            compromised: BTreeSet::new(),
        };
        for (id, entry) in entries.iter().filter(|(id, _)| tally.counts(**id)) {
            let entry = entry.statement();
            match &entry.says {
                Saying::Genesis(genesis) => {
                    let listing = Listing { site: &genesis.site, foreign: false, ike: None };
                    book.site(*id, (Version::default(), *id, listing));
                    book.genesis = Some((*id, &genesis.keys));
                }
                Saying::Node(listed) => {
                    let listing =
                        Listing { site: &listed.site, foreign: listed.foreign, ike: listed.ike.as_ref() };
                    book.site(listed.line.unwrap_or(*id), (entry.version, *id, listing));
                }
                Saying::Join(join) => {
                    book.joins.insert(*id, (entry.by, join));
                    // Where an admin has listed it already, that counts.
                    if tally.line(*id).is_some() {
                        let listing = Listing { site: &join.site, foreign: false, ike: None };
                        book.site(*id, (Version::default(), *id, listing));
                    }
                }
                Saying::Keys(keys) => {
                    book.successors.entry(entry.by).or_default().push(keys);
                }
                Saying::Invite(_) => {
                    book.invites.insert(*id, entry.version);
                }
                Saying::Gone(gone) if gone.compromised => {
                    book.compromised.insert(gone.of);
                }
                _ => {}
            }
        }
        book
    }

    fn site(&mut self, line: EntryId, this: (Version, EntryId, Listing<'a>)) {
        let newer = |(version, id, _): &(Version, EntryId, _)| (*version, *id) < (this.0, this.1);
        let known = self.sites.get(&line);
        if known.is_none_or(newer) {
            self.sites.insert(line, this);
        }
    }

    fn candidate(&self, tally: &Tally, id: EntryId, line: &NodeLine) -> Option<Contender> {
        let (version, _, listing) = self.sites.get(&id)?;
        let mut member = Member {
            line: id,
            site: listing.site.clone(),
            keys: None,
            listed_key: listing.ike.cloned(),
            foreign: listing.foreign,
            admin: tally.is_admin(id),
        };
        let mut rank = (false, *version, id);
        let mut held_out = None;
        if let Some((_, by, join)) = self.first_join(tally, line) {
            if line.joins.contains(&id) {
                rank = (true, self.age(tally, by), id);
            }
            member.keys = Some(join.keys.clone());
        } else if let Some((_, keys)) = self.genesis.filter(|(genesis, _)| *genesis == id) {
            member.keys = Some(keys.clone());
        }
        if let Some(keys) = &mut member.keys {
            if tally.line_of(&keys.signing) != Some(id) {
                held_out = Some(HeldOutBecause::KeyTaken);
            } else if let Some(newest) = self.newest(keys) {
                *keys = newest;
            } else {
                held_out = Some(HeldOutBecause::KeysForked);
            }
        }
        Some(Contender { rank, member, held_out })
    }

    /// All keys that a node has had.
    fn keys_ever(&self, id: EntryId, line: &NodeLine) -> BTreeSet<Signer> {
        let mut ever = BTreeSet::new();
        let joined = line.joins.iter().filter_map(|id| self.joins.get(id)).map(|(_, join)| &join.keys);
        let founded = self.genesis.filter(|(genesis, _)| *genesis == id).map(|(_, keys)| keys);
        let mut next: Vec<&Keys> = joined.chain(founded).collect();
        while let Some(keys) = next.pop() {
            if ever.insert(keys.signing) {
                ever.insert(keys.ike);
                next.extend(self.successors.get(&keys.signing).into_iter().flatten());
            }
        }
        ever
    }

    /// How the node has joined: where it could by several invites, the oldest of them.
    fn first_join(&self, tally: &Tally, line: &NodeLine) -> Option<(EntryId, &Signer, &'a Join)> {
        let joins = line.joins.iter().filter_map(|id| self.joins.get(id).map(|(by, join)| (*id, by, *join)));
        joins.min_by_key(|(id, by, _)| (self.age(tally, by), *id))
    }

    fn age(&self, tally: &Tally, invite: &Signer) -> Version {
        match tally.holder(invite) {
            Some(KeyHolder::Invite(id)) => self.invites.get(&id).copied().unwrap_or_default(),
            _ => Version::default(),
        }
    }

    /// The keys that these were replaced by; `None` where two follow one.
    fn newest(&self, first: &Keys) -> Option<Keys> {
        let (mut keys, mut seen) = (first, BTreeSet::new());
        while seen.insert(keys.signing) {
            match self.successors.get(&keys.signing).map(Vec::as_slice) {
                None | Some([]) => return Some(keys.clone()),
                Some([next, others @ ..]) if others.iter().all(|other| other == next) => keys = next,
                Some(_) => return None,
            }
        }
        None
    }
}
