//! What of a roster is too much. Which entries stay depends on the entries alone, so all hosts drop the same.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::SignedEntry;
use super::index::EntryIndex;
use super::octets::{EntryId, Signer};
use super::saying::{Matter, Saying, Statement};
use super::tally::{Entries, KeyHolder, Tally, without_withdrawals};
use super::view::{is_settled_by_admins, weight};
use super::withdrawn::Withdrawn;

/// The most octets of all entries together.
pub const ROSTER_MAX: usize = 4 << 20;
/// How much of that is for taking out nodes alone: whoever fills a roster can still be removed.
const RESERVE: usize = 256 << 10;
/// How many entries about one thing are kept of who is no admin: enough to show that it contradicts itself.
const SAID_AT_MOST: usize = 2;
/// How many entries about one thing are kept of an admin, where the newest counts.
const ADMIN_SAID_AT_MOST: usize = 8;
/// How many members that are no admins are kept as those who have admitted a node: one would do.
const ADMITTED_AT_MOST: usize = 3;

/// Drops what is too much, and what rests on it, into `dropped`. Says what counts of the others where nothing is taken
/// back, and what is; `ever` is that of all.
pub(super) fn drop_from(entries: &mut Entries, mut ever: Tally, dropped: &mut Entries) -> (Tally, Withdrawn) {
    loop {
        let index = EntryIndex::of(entries);
        let withdrawn = Withdrawn::find(&index, &ever);
        let mut surplus = repeated(&index, &ever, &withdrawn);
        surplus.extend(branching(&index, &ever));
        surplus.extend(crowding(entries, &index, &withdrawn));
        let rests =
            |(id, entry): &(EntryId, &Statement)| ever.counts(*id) || ever.can_allow(&index, *id, entry);
        surplus.extend(index.iter().filter(|entry| !rests(entry)).map(|(id, _)| id));
        if surplus.is_empty() {
            return (ever, withdrawn);
        }
        dropped.extend(surplus.iter().filter_map(|id| entries.remove_entry(id)));
        ever = without_withdrawals(&EntryIndex::of(entries));
    }
}

/// Whether there is no room for what is there.
pub(super) fn is_full(entries: &Entries) -> bool {
    let (out, others): (Vec<&SignedEntry>, _) = entries.values().partition(|entry| entry.takes_out());
    let others = octets(others);
    others > ROSTER_MAX - RESERVE || others + octets(out) > ROSTER_MAX
}

fn octets<'a>(entries: impl IntoIterator<Item = &'a SignedEntry>) -> usize {
    entries.into_iter().map(|entry| entry.octets().len()).sum()
}

/// What is said about the same, by the node or invite that says so: `None` where any are.
type Repeated = (Option<EntryId>, Matter);

/// How many entries like each other are kept, and what there are.
type Alike<'a> = (usize, Vec<(EntryId, &'a Statement)>);

/// All but the last words about each thing, and what was kept.
fn repeated(index: &EntryIndex, ever: &Tally, withdrawn: &Withdrawn) -> BTreeSet<EntryId> {
    let mut said: BTreeMap<Repeated, Alike<'_>> = BTreeMap::new();
    for (id, entry) in index.iter().filter(|(id, _)| !withdrawn.keeps_any(*id)) {
        if let Some((about, at_most)) = bound(index, ever, entry) {
            said.entry(about).or_insert((at_most, Vec::new())).1.push((id, entry));
        }
    }
    let too_much = said.into_values().flat_map(|(at_most, mut said)| {
        // Whoever holds a used token cannot push out who has used it.
        said.sort_by_key(|(id, entry)| (ever.is_admitted(*id), weight(*id, entry)));
        said.into_iter().rev().skip(at_most).map(|(id, _)| id)
    });
    too_much.collect()
}

/// How many like this entry are kept, and what is like it; `None` where there is no bound.
fn bound(index: &EntryIndex, ever: &Tally, entry: &Statement) -> Option<(Repeated, usize)> {
    let matter = entry.matter();
    let (of, is_admin) = match ever.holder(&entry.by)? {
        KeyHolder::Recovery => return None,
        KeyHolder::Invite(invite) => (invite, false),
        KeyHolder::Node(line, _) => (line, ever.is_admin(line)),
    };
    match (&matter, is_admin) {
        (Matter::Keys(_), _) => Some(((Some(of), matter), SAID_AT_MOST)),
        (_, true) => is_settled_by_admins(&matter).then_some(((Some(of), matter), ADMIN_SAID_AT_MOST)),
        // What nobody can name yet is one thing: it is enough if the others come later.
        (Matter::Admission(join), false) if index.get(join).is_none() => {
            Some(((Some(of), Matter::Admission(of)), SAID_AT_MOST))
        }
        (Matter::Admission(_), false) => Some(((None, matter), ADMITTED_AT_MOST)),
        (_, false) => Some(((Some(of), matter), SAID_AT_MOST)),
    }
}

/// Below keys that were replaced twice, each is replaced once: that somebody else has had them is plain by then.
fn branching(index: &EntryIndex, ever: &Tally) -> BTreeSet<EntryId> {
    let mut next: BTreeMap<u32, Vec<(EntryId, Signer, Signer)>> = BTreeMap::new();
    for (id, entry) in index.iter() {
        if let (Saying::Keys(keys), Some(KeyHolder::Node(_, after))) = (&entry.says, ever.holder(&entry.by)) {
            next.entry(after).or_default().push((id, entry.by, keys.signing));
        }
    }
    let (mut surplus, mut forked) = (BTreeSet::new(), BTreeSet::new());
    for replaced in next.into_values() {
        let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
        for (id, by, _) in &replaced {
            if !once.insert(*by) {
                twice.insert(*by);
                surplus.extend(forked.contains(by).then_some(*id));
            }
        }
        let below = replaced.into_iter().filter(|(_, by, _)| twice.contains(by) || forked.contains(by));
        let below: Vec<Signer> = below.map(|(_, _, keys)| keys).collect();
        forked.extend(below);
    }
    surplus
}

/// Where the roster is full: as much as is needed of what does not count. Else it stays, as whoever took it back may lose
/// that right.
fn crowding(entries: &Entries, index: &EntryIndex, withdrawn: &Withdrawn) -> BTreeSet<EntryId> {
    if !is_full(entries) {
        return BTreeSet::new();
    }
    let counted = Tally::find(index, Some(withdrawn), |_| true);
    let mut dropped = BTreeSet::new();
    let mut total = octets(entries.values());
    for (id, entry) in entries.iter().rev().filter(|(id, _)| !counted.counts(**id)) {
        if total <= ROSTER_MAX - RESERVE {
            break;
        }
        total -= entry.octets().len();
        dropped.insert(*id);
    }
    dropped
}
