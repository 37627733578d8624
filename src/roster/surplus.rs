//! What of a roster is too much. Which entries stay depends on the entries alone, so all hosts drop the same.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::SignedEntry;
use super::octets::{EntryId, Signer};
use super::saying::{Matter, Saying, Statement};
use super::tally::{Entries, KeyHolder, Tally, without_withdrawals};
use super::withdrawn::Withdrawn;

/// The most octets of all entries together.
pub const ROSTER_MAX: usize = 4 << 20;
/// How much of that is for taking out nodes alone: whoever fills a roster can still be removed.
const RESERVE: usize = 256 << 10;
/// How many entries about one thing are kept of who is no admin: enough to show that it contradicts itself.
const SAID_AT_MOST: usize = 2;

/// Drops what is too much, and what rests on it.
pub(super) fn drop_from(entries: &mut Entries) {
    loop {
        let ever = without_withdrawals(entries);
        let withdrawn = Withdrawn::find(entries);
        let mut surplus = repeated(entries, &ever, &withdrawn);
        surplus.extend(crowding(entries, &ever, &withdrawn));
        let rests = |(id, entry): &(&EntryId, &SignedEntry)| {
            ever.counts(**id) || ever.can_allow(entries, **id, entry.statement())
        };
        surplus.extend(entries.iter().filter(|entry| !rests(entry)).map(|(id, _)| *id));
        if surplus.is_empty() {
            return;
        }
        entries.retain(|id, _| !surplus.contains(id));
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

/// Of who was never an admin: all but the newest about each thing, and what was kept.
fn repeated(entries: &Entries, ever: &Tally, withdrawn: &Withdrawn) -> BTreeSet<EntryId> {
    let mut said: BTreeMap<(Signer, Matter), Vec<(&Statement, EntryId)>> = BTreeMap::new();
    for (id, entry) in entries {
        let entry = entry.statement();
        let bound = match ever.holder(&entry.by) {
            None | Some(KeyHolder::Recovery) => false,
            Some(KeyHolder::Invite(_)) => true,
            Some(KeyHolder::Node(line, _)) => !ever.is_admin(line),
        };
        if bound && !withdrawn.keeps_any(*id) {
            said.entry((entry.by, entry.matter())).or_default().push((entry, *id));
        }
    }
    let too_much = said.into_values().flat_map(|mut said| {
        said.sort_by_key(|(entry, id)| (entry.version, *id));
        said.into_iter().rev().skip(SAID_AT_MOST).map(|(_, id)| id)
    });
    too_much.collect()
}

/// Where the roster is full: as much as is needed of what those have said who are gone, and was not kept. Else it stays,
/// as whoever took them out may lose that right.
fn crowding(entries: &Entries, ever: &Tally, withdrawn: &Withdrawn) -> BTreeSet<EntryId> {
    if !is_full(entries) {
        return BTreeSet::new();
    }
    let is_out = |(id, entry): &(&EntryId, &SignedEntry)| {
        let gone = ever.line_of(&entry.statement().by).is_some_and(|line| withdrawn.is_gone(line));
        gone && !withdrawn.keeps_any(**id) && !matches!(entry.statement().says, Saying::Genesis(_))
    };
    let mut dropped = BTreeSet::new();
    let mut total = octets(entries.values());
    for (id, entry) in entries.iter().rev().filter(is_out) {
        if total <= ROSTER_MAX - RESERVE {
            break;
        }
        total -= entry.octets().len();
        dropped.insert(*id);
    }
    dropped
}
