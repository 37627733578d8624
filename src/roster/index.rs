//! Entries side by side, with what each of them waits for, so that nobody looks at all of them for each that is found.
//!
//! Each entry has a place, in the order of their names, and so has each key. What counts is found by places: it is found
//! again whenever anything is new, and names are long.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::{Said, SignedEntry};
use super::octets::{EntryId, Signer};
use super::saying::{Genesis, Saying, Statement};

/// The entries of a roster.
pub(super) type Entries = BTreeMap<EntryId, SignedEntry>;

/// Where an entry stands in an index, by the order of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EntryPlace(usize);

/// Where a key stands in an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPlace(usize);

/// Something about each entry of an index.
#[derive(Debug)]
pub(super) struct ByPlace<T>(Vec<T>);

/// Something about each key of an index.
#[derive(Debug)]
pub(super) struct ByKey<T>(Vec<T>);

/// What entries say, by their names, by who signed them, and by what they rest on.
#[derive(Debug)]
pub(super) struct EntryIndex {
    /// In the order of their names.
    entries: Vec<Arc<Said>>,
    ids: Vec<EntryId>,
    /// Those who sign, and those who are named as such, each once and in their order.
    keys: Vec<Signer>,
    by: ByPlace<KeyPlace>,
    /// The keys that entries make known.
    known: ByPlace<Option<KeyPlace>>,
    /// The entries that entries are about: what is admitted, and whose version is taken up.
    of: ByPlace<Option<EntryPlace>>,
    signed: ByKey<Vec<EntryPlace>>,
    on: ByPlace<Vec<EntryPlace>>,
    founding: Vec<EntryPlace>,
}

impl EntryIndex {
    /// That of a roster.
    pub fn of(entries: &Entries) -> Self {
        Self::read(entries.values().map(SignedEntry::said).cloned().collect())
    }

    /// That of `entries`, each of which is there once.
    pub fn read(mut entries: Vec<Arc<Said>>) -> Self {
        entries.sort_by_key(|entry| entry.id());
        let mut index = Self {
            ids: entries.iter().map(|entry| entry.id()).collect(),
            keys: Vec::new(),
            by: ByPlace(vec![KeyPlace(0); entries.len()]),
            known: ByPlace(vec![None; entries.len()]),
            of: ByPlace(vec![None; entries.len()]),
            signed: ByKey(Vec::new()),
            on: ByPlace(vec![Vec::new(); entries.len()]),
            founding: Vec::new(),
            entries,
        };
        index.read_keys();
        index.read_what_rests();
        index
    }

    /// Finds who has signed what, and where each key is made known.
    fn read_keys(&mut self) {
        let entries = self.entries.iter().enumerate();
        let named =
            entries.flat_map(|(at, entry)| named(entry.statement()).map(move |(key, how)| (key, at, how)));
        let mut named: Vec<(Signer, usize, Named)> = named.collect();
        named.sort_unstable();
        for (key, at, how) in named {
            if self.keys.last() != Some(&key) {
                self.keys.push(key);
                self.signed.0.push(Vec::new());
            }
            let here = KeyPlace(self.keys.len() - 1);
            match how {
                Named::Signs => {
                    self.by.0[at] = here;
                    self.signed.at(here).push(EntryPlace(at));
                }
                Named::Known => self.known.0[at] = Some(here),
                Named::Recovers => {}
            }
        }
    }

    /// Finds what rests on what.
    fn read_what_rests(&mut self) {
        let mut bound = Vec::new();
        for at in self.places() {
            let entry = self.entries[at.0].statement();
            let (of, line) = match &entry.says {
                Saying::Genesis(_) => {
                    self.founding.push(at);
                    (None, None)
                }
                Saying::Node(listed) => (None, listed.line),
                Saying::Admission(admission) => (Some(admission.of), None),
                Saying::Invite(invite) => {
                    bound.extend(invite.line.map(|line| (line, invite.key)));
                    (None, None)
                }
                _ => (entry.basis, None),
            };
            let (of, rests) = (of.and_then(|of| self.place(&of)), [line, entry.basis]);
            self.of.0[at.0] = of;
            for on in rests.into_iter().flatten().filter_map(|on| self.place(&on)).collect::<Vec<_>>() {
                self.on.at(on).push(at);
            }
        }
        for (line, key) in bound {
            if let (Some(line), Some(key)) = (self.place(&line), self.key(&key)) {
                self.on.at(line).extend(self.signed.get(key));
            }
        }
    }

    /// Where an entry stands; `None` where it is not there.
    pub fn place(&self, id: &EntryId) -> Option<EntryPlace> {
        self.ids.binary_search(id).ok().map(EntryPlace)
    }

    /// Where a key stands; `None` where nobody names it.
    pub fn key(&self, signer: &Signer) -> Option<KeyPlace> {
        self.keys.binary_search(signer).ok().map(KeyPlace)
    }

    /// The name of an entry.
    pub fn id(&self, at: EntryPlace) -> EntryId {
        self.ids[at.0]
    }

    /// What an entry says.
    pub fn statement(&self, at: EntryPlace) -> &Statement {
        self.entries[at.0].statement()
    }

    /// What an entry says; `None` where it is not there.
    pub fn get(&self, id: &EntryId) -> Option<&Statement> {
        self.place(id).map(|at| self.statement(at))
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (EntryId, &Statement)> {
        self.entries.iter().map(|entry| (entry.id(), entry.statement()))
    }

    /// Where all entries stand.
    pub fn places(&self) -> impl Iterator<Item = EntryPlace> + use<> {
        (0..self.entries.len()).map(EntryPlace)
    }

    /// Those that rest on nothing.
    pub fn founding(&self) -> &[EntryPlace] {
        &self.founding
    }

    /// Who has signed an entry.
    pub fn signer(&self, at: EntryPlace) -> KeyPlace {
        *self.by.get(at)
    }

    /// The key that an entry makes known: who signs others. Of the first entry it is that of the first node.
    pub fn known(&self, at: EntryPlace) -> Option<KeyPlace> {
        *self.known.get(at)
    }

    /// The entry that an entry is about, where it is there: the one that it admits, or whose version it takes up.
    pub fn about(&self, at: EntryPlace) -> Option<EntryPlace> {
        *self.of.get(at)
    }

    /// Those that this key has signed.
    pub fn signed_by(&self, key: KeyPlace) -> &[EntryPlace] {
        self.signed.get(key)
    }

    /// Those that rest on this entry, or on the node with this first entry.
    pub fn resting_on(&self, at: EntryPlace) -> &[EntryPlace] {
        self.on.get(at)
    }

    /// The same about each entry.
    pub fn for_each<T: Clone>(&self, same: T) -> ByPlace<T> {
        ByPlace(vec![same; self.entries.len()])
    }

    /// The same about each key.
    pub fn for_each_key<T: Clone>(&self, same: T) -> ByKey<T> {
        ByKey(vec![same; self.keys.len()])
    }
}

impl<T> ByPlace<T> {
    /// What stands here. The place is of the index that this was made for.
    pub fn get(&self, at: EntryPlace) -> &T {
        &self.0[at.0]
    }

    /// The same, to be changed.
    pub fn at(&mut self, at: EntryPlace) -> &mut T {
        &mut self.0[at.0]
    }
}

impl<T> ByKey<T> {
    /// What stands here. The place is of the index that this was made for.
    pub fn get(&self, at: KeyPlace) -> &T {
        &self.0[at.0]
    }

    /// The same, to be changed.
    pub fn at(&mut self, at: KeyPlace) -> &mut T {
        &mut self.0[at.0]
    }
}

/// How an entry names a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Signs,
    Known,
    Recovers,
}

/// Who signs an entry, and whom it makes known as one who signs others.
fn named(entry: &Statement) -> impl Iterator<Item = (Signer, Named)> {
    let (known, recovers) = match &entry.says {
        Saying::Genesis(Genesis { keys, recovery, .. }) => (Some(keys.signing), Some(*recovery)),
        Saying::Join(join) => (Some(join.keys.signing), None),
        Saying::Keys(keys) => (Some(keys.signing), None),
        Saying::Invite(invite) => (Some(invite.key), None),
        _ => (None, None),
    };
    let known = known.map(|key| (key, Named::Known));
    let recovers = recovers.map(|key| (key, Named::Recovers));
    [Some((entry.by, Named::Signs)), known, recovers].into_iter().flatten()
}

/// Those that are there more than once.
pub(super) fn repeated<T: Ord>(all: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    let mut all: Vec<T> = all.into_iter().collect();
    all.sort_unstable();
    let mut before = None;
    let mut repeated = BTreeSet::new();
    for one in all {
        if before.as_ref() == Some(&one) {
            repeated.extend(before.replace(one));
        } else {
            before = Some(one);
        }
    }
    repeated
}
