//! Which nodes there are, where they are, and with which keys.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use super::index::{EntryIndex, EntryPlace, repeated};
use super::octets::{EntryId, Signer};
use super::saying::{IkeKey, Join, Keys, Listed, Saying, Site, Statement, Version};
use super::tally::{KeyHolder, NodeLine, Tally};
use super::withdrawn::Withdrawn;
use crate::types::NodeName;

/// So many moves of a node are looked back at: who has missed more of them is called where the node is, alone.
const MOVES_MAX: usize = 4;

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its first entry, which it is known by.
    pub line: EntryId,
    /// Where it is.
    pub site: Site,
    /// Where it was talked to before it moved lately, as far as nobody else is or was there: two addresses a move at
    /// most. What it still has may be among that.
    pub formerly: BTreeSet<IpAddr>,
    /// Its keys; `None` where it has not joined, or runs other software.
    pub keys: Option<Keys>,
    /// The key for IKE before that, which is accepted until the node says that it has changed over.
    pub previous_ike: Option<Signer>,
    /// The admin's entry that has asked for new keys last when these were made, where they were made by one.
    pub rotation: Option<EntryId>,
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
    /// Somebody else has said that its keys may be in other hands.
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

/// What more than one node wants, and whether it is taken. What one alone wants is not here: that is nearly all.
struct Occupied {
    names: BTreeMap<NodeName, bool>,
    addresses: BTreeMap<IpAddr, bool>,
    keys: BTreeMap<Signer, bool>,
}

impl Nodes {
    /// The nodes that the entries of `tally` name. `floating` are the addresses of no node.
    pub fn find(tally: &Tally, withdrawn: &Withdrawn, floating: &BTreeSet<IpAddr>) -> Self {
        let book = Book::read(tally);
        let mut nodes = Self { held_out: used_twice(tally, withdrawn), ..Self::default() };
        let (mut candidates, mut spent) = (Vec::new(), Vec::new());
        for (at, line) in tally.lines() {
            let Some(candidate) = book.candidate(at, line) else { continue };
            let id = candidate.member.line;
            if withdrawn.is_gone(id) {
                let compromised = withdrawn.is_compromised(id);
                spent.extend(book.keys_ever(at, line));
                nodes.removed.push(Removed { line: id, site: candidate.member.site, compromised });
            } else {
                candidates.push(candidate);
            }
        }
        candidates.sort_by_key(|candidate| candidate.rank);
        let mut occupied = Occupied::among(&candidates);
        occupied.keys.extend(spent.into_iter().map(|key| (key, true)));
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
        nodes.leave_what_others_have(floating);
        nodes
    }
}

impl Nodes {
    /// Where a node was that has moved somebody else may be now, or may have been: nothing says which of two left last. So
    /// an address is that of one node at most.
    fn leave_what_others_have(&mut self, floating: &BTreeSet<IpAddr>) {
        if self.members.iter().all(|member| member.formerly.is_empty()) {
            return;
        }
        let mut whose: BTreeMap<IpAddr, Option<EntryId>> = BTreeMap::new();
        for Member { line, site, formerly, .. } in &self.members {
            for address in site.addresses.iter().chain(formerly).copied().collect::<BTreeSet<_>>() {
                whose.entry(address).and_modify(|whose| *whose = None).or_insert(Some(*line));
            }
        }
        for Member { line, formerly, .. } in &mut self.members {
            formerly.retain(|it| !floating.contains(it) && whose.get(it) == Some(&Some(*line)));
        }
    }
}

impl Occupied {
    fn among(candidates: &[Contender]) -> Self {
        let members = || candidates.iter().map(|candidate| &candidate.member);
        let names = repeated(members().map(|member| &member.site.name)).into_iter().cloned();
        let addresses = repeated(members().flat_map(|member| &member.site.addresses)).into_iter().copied();
        let keys = repeated(members().flat_map(keys_of)).into_iter();
        Self {
            names: names.map(|name| (name, false)).collect(),
            addresses: addresses.map(|address| (address, false)).collect(),
            keys: keys.map(|key| (key, false)).collect(),
        }
    }

    fn refuses(&self, member: &Member, floating: Option<&BTreeSet<IpAddr>>) -> Option<HeldOutBecause> {
        let taken = |address: &&IpAddr| {
            self.addresses.get(address) == Some(&true)
                || floating.is_some_and(|floating| floating.contains(address))
        };
        if self.names.get(&member.site.name) == Some(&true) {
            Some(HeldOutBecause::NameTaken)
        } else if let Some(address) = member.site.addresses.iter().find(taken) {
            Some(HeldOutBecause::AddressTaken(*address))
        } else {
            let is_taken = |key: Signer| self.keys.get(&key) == Some(&true);
            keys_of(member).any(is_taken).then_some(HeldOutBecause::KeyTaken)
        }
    }

    fn take(&mut self, member: &Member) {
        let taken = |taken: &mut bool| *taken = true;
        self.names.get_mut(&member.site.name).map(taken);
        for address in &member.site.addresses {
            self.addresses.get_mut(address).map(taken);
        }
        for key in keys_of(member) {
            self.keys.get_mut(&key).map(taken);
        }
    }
}

fn keys_of(member: &Member) -> impl Iterator<Item = Signer> + use<> {
    let keys = member.keys.as_ref().map(|keys| [keys.signing, keys.ike]);
    keys.into_iter().flatten().chain(member.previous_ike)
}

/// Where a node was talked to before each of its last moves. Members talk to each other at their lowest addresses of one
/// family.
fn formerly(stays: &[(Version, EntryId, Listing<'_>)]) -> BTreeSet<IpAddr> {
    let left = stays.split_last().map(|(_, left)| left).unwrap_or_default();
    let lowest = |listing: &Listing<'_>, is_v4| {
        listing.site.addresses.iter().copied().filter(|address| address.is_ipv4() == is_v4).min()
    };
    let lately = left.iter().rev().take(MOVES_MAX);
    lately.flat_map(|(.., was)| [true, false].into_iter().filter_map(|is_v4| lowest(was, is_v4))).collect()
}

/// Those who have joined by one invite, until an admin says which of them is the right one.
fn used_twice(tally: &Tally, withdrawn: &Withdrawn) -> Vec<HeldOut> {
    let out = |(id, entry): (EntryId, &Statement)| {
        let Saying::Join(join) = &entry.says else { return None };
        if !withdrawn.is_used_twice(&entry.by) {
            return None;
        }
        let is_settled = match tally.holder(&entry.by) {
            Some(KeyHolder::Invite(invite)) => withdrawn.is_gone(invite),
            _ => true,
        };
        let (site, why) = (join.site.clone(), HeldOutBecause::TokenUsedTwice);
        (!is_settled).then_some(HeldOut { line: id, site, why })
    };
    tally.index().iter().filter_map(out).collect()
}

/// What counts, by what it is about.
struct Book<'a> {
    tally: &'a Tally,
    /// What was said of nodes after their first entries, the newest last.
    moved: BTreeMap<EntryId, Vec<(Version, EntryId, Listing<'a>)>>,
    /// What follows the keys that this one signs for: more than one where it was stolen.
    successors: BTreeMap<Signer, Vec<Successor<'a>>>,
    /// The signing keys of those who prove themselves with the keys beside them alone.
    changed_over: BTreeSet<Signer>,
}

/// Keys that follow others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Successor<'a> {
    keys: &'a Keys,
    /// The admin's entry that has asked for them.
    rotation: Option<EntryId>,
}

#[derive(Clone, Copy)]
struct Listing<'a> {
    site: &'a Site,
    foreign: bool,
    ike: Option<&'a IkeKey>,
}

impl<'a> Book<'a> {
    fn read(tally: &'a Tally) -> Self {
        let (moved, successors, changed_over) = Default::default();
        let mut book = Self { tally, moved, successors, changed_over };
        for (at, entry) in tally.counted() {
            match &entry.says {
                Saying::Node(listed) => {
                    if let Some(line) = listed.line {
                        let this = (entry.version, book.index().id(at), Listing::of(listed));
                        book.moved.entry(line).or_default().push(this);
                    }
                }
                Saying::Keys(keys) => {
                    let successor = Successor { keys, rotation: entry.basis };
                    book.successors.entry(entry.by).or_default().push(successor);
                }
                Saying::Retired(_) => {
                    book.changed_over.insert(entry.by);
                }
                _ => {}
            }
        }
        book.moved.values_mut().for_each(|moves| moves.sort_by_key(|(version, id, _)| (*version, *id)));
        book
    }

    fn index(&self) -> &'a EntryIndex {
        self.tally.index()
    }

    /// Where a node is by its first entry, and its keys where that is the first of all.
    fn first(&self, at: EntryPlace) -> Option<(Version, Listing<'a>, Option<&'a Keys>)> {
        let entry = self.index().statement(at);
        let own = |site| Listing { site, foreign: false, ike: None };
        Some(match &entry.says {
            Saying::Genesis(genesis) => (Version::default(), own(&genesis.site), Some(&genesis.keys)),
            Saying::Join(join) => (Version::default(), own(&join.site), None),
            Saying::Node(listed) => (entry.version, Listing::of(listed), None),
            _ => return None,
        })
    }

    fn candidate(&self, at: EntryPlace, line: &NodeLine) -> Option<Contender> {
        let id = self.index().id(at);
        let (version, listing, founding) = self.first(at)?;
        let moves = self.moved.get(&id).into_iter().flatten();
        let moves = moves.filter(|(newer, of, _)| (*newer, *of) > (version, id)).copied();
        let stays: Vec<_> = [(version, id, listing)].into_iter().chain(moves).collect();
        let formerly = formerly(&stays);
        let (version, _, listing) = stays.last().copied().unwrap_or((version, id, listing));
        let mut member = Member {
            line: id,
            site: listing.site.clone(),
            formerly,
            keys: founding.cloned(),
            previous_ike: None,
            rotation: None,
            listed_key: listing.ike.cloned(),
            foreign: listing.foreign,
            admin: self.tally.is_admin_at(at),
        };
        let mut rank = (false, version, id);
        let mut first = founding.map(|keys| Successor { keys, rotation: None });
        if let Some((join, invite)) = self.first_join(line) {
            if line.joins.contains(&at) {
                rank = (true, invite.map(|invite| invite.version).unwrap_or_default(), id);
            }
            first = Some(Successor { keys: &join.keys, rotation: invite.and_then(|invite| invite.basis) });
        }
        let held_out = first.and_then(|first| self.give_keys(&mut member, at, first).err());
        Some(Contender { rank, member, held_out })
    }

    /// Gives a node the keys that came of its `first` ones.
    fn give_keys(
        &self,
        member: &mut Member,
        at: EntryPlace,
        first: Successor<'a>,
    ) -> Result<(), HeldOutBecause> {
        member.keys = Some(first.keys.clone());
        let has_it = |key| matches!(self.tally.holder_of(key), Some(KeyHolder::Node(of, _)) if of == at);
        if !self.index().key(&first.keys.signing).is_some_and(has_it) {
            return Err(HeldOutBecause::KeyTaken);
        }
        let (newest, before) = self.newest(first).ok_or(HeldOutBecause::KeysForked)?;
        (member.keys, member.rotation) = (Some(newest.keys.clone()), newest.rotation);
        member.previous_ike =
            before.map(|before| before.ike).filter(|_| !self.changed_over.contains(&newest.keys.signing));
        Ok(())
    }

    /// All keys that a node has had.
    fn keys_ever(&self, at: EntryPlace, line: &NodeLine) -> BTreeSet<Signer> {
        let mut ever = BTreeSet::new();
        let joined = line.joins.iter().filter_map(|at| self.join(*at)).map(|join| &join.keys);
        let founding = self.first(at).and_then(|(_, _, keys)| keys);
        let mut next: Vec<&Keys> = joined.chain(founding).collect();
        while let Some(keys) = next.pop() {
            if ever.insert(keys.signing) {
                ever.insert(keys.ike);
                let successors = self.successors.get(&keys.signing).into_iter().flatten();
                next.extend(successors.map(|successor| successor.keys));
            }
        }
        ever
    }

    fn join(&self, at: EntryPlace) -> Option<&'a Join> {
        match &self.index().statement(at).says {
            Saying::Join(join) => Some(join),
            _ => None,
        }
    }

    /// How the node has joined, and the invite: where it could by several, by the oldest of them.
    fn first_join(&self, line: &NodeLine) -> Option<(&'a Join, Option<&'a Statement>)> {
        let age = |join: EntryPlace| self.invite(join).map(|invite| invite.version).unwrap_or_default();
        let first = line.joins.iter().min_by_key(|at| (age(**at), **at))?;
        Some((self.join(*first)?, self.invite(*first)))
    }

    /// The invite by which a node has joined, where it counts.
    fn invite(&self, join: EntryPlace) -> Option<&'a Statement> {
        match self.tally.holder_of(self.index().signer(join)) {
            Some(KeyHolder::Invite(invite)) if self.tally.counts_at(invite) => {
                Some(self.index().statement(invite))
            }
            _ => None,
        }
    }

    /// What `first` was replaced by at last, and the keys before that; `None` where two follow one.
    fn newest(&self, first: Successor<'a>) -> Option<(Successor<'a>, Option<&'a Keys>)> {
        let (mut newest, mut before, mut seen) = (first, None, BTreeSet::new());
        while seen.insert(newest.keys.signing) {
            match self.successors.get(&newest.keys.signing).map(Vec::as_slice) {
                None | Some([]) => return Some((newest, before)),
                Some([next, others @ ..]) if others.iter().all(|other| other.keys == next.keys) => {
                    (newest, before) = (*next, Some(newest.keys));
                }
                Some(_) => return None,
            }
        }
        None
    }
}

impl<'a> Listing<'a> {
    fn of(listed: &'a Listed) -> Self {
        Self { site: &listed.site, foreign: listed.foreign, ike: listed.ike.as_ref() }
    }
}
