//! Entries by what they wait for, so that nobody looks at all of them for each that is found.

use std::collections::BTreeMap;

use super::octets::{EntryId, Signer};
use super::saying::{Saying, Statement};
use super::tally::Entries;

/// What entries say, by their names, by who signed them, and by what they rest on.
pub(super) struct EntryIndex<'a> {
    says: BTreeMap<EntryId, &'a Statement>,
    by: BTreeMap<Signer, Vec<EntryId>>,
    on: BTreeMap<EntryId, Vec<EntryId>>,
    founding: Vec<EntryId>,
}

impl<'a> EntryIndex<'a> {
    /// That of a roster.
    pub fn of(entries: &'a Entries) -> Self {
        Self::read(entries.iter().map(|(id, entry)| (*id, entry.statement())))
    }

    /// That of `entries`.
    pub fn read(entries: impl IntoIterator<Item = (EntryId, &'a Statement)>) -> Self {
        let says: BTreeMap<EntryId, &Statement> = entries.into_iter().collect();
        let mut by: BTreeMap<Signer, Vec<EntryId>> = BTreeMap::new();
        let mut on: BTreeMap<EntryId, Vec<EntryId>> = BTreeMap::new();
        let (mut founding, mut bound) = (Vec::new(), Vec::new());
        for (id, entry) in &says {
            by.entry(entry.by).or_default().push(*id);
            let listed = match &entry.says {
                Saying::Node(listed) => listed.line,
                _ => None,
            };
            listed.iter().chain(&entry.basis).for_each(|of| on.entry(*of).or_default().push(*id));
            match &entry.says {
                Saying::Genesis(_) => founding.push(*id),
                Saying::Invite(invite) => bound.extend(invite.line.map(|line| (line, invite.key))),
                _ => {}
            }
        }
        for (line, key) in bound {
            on.entry(line).or_default().extend(by.get(&key).into_iter().flatten());
        }
        Self { says, by, on, founding }
    }

    /// What an entry says.
    pub fn get(&self, id: &EntryId) -> Option<&'a Statement> {
        self.says.get(id).copied()
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (EntryId, &'a Statement)> {
        self.says.iter().map(|(id, entry)| (*id, *entry))
    }

    /// Those that rest on nothing.
    pub fn founding(&self) -> impl Iterator<Item = EntryId> {
        self.founding.iter().copied()
    }

    /// Those that `signer` has signed.
    pub fn signed_by(&self, signer: &Signer) -> impl Iterator<Item = EntryId> {
        self.by.get(signer).into_iter().flatten().copied()
    }

    /// Those that rest on this entry, or on the node with this first entry.
    pub fn resting_on(&self, id: &EntryId) -> impl Iterator<Item = EntryId> {
        self.on.get(id).into_iter().flatten().copied()
    }
}
