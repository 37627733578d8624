//! What of a roster is too much. Which entries stay depends on the entries alone, so all hosts drop the same.
//!
//! One thing depends on what came first: where a roster is full to the octet bound, what is there stays and what is new
//! does not. Hosts that an admin has filled with different things so differ until that admin is removed; then they agree.
//! A rule by which they always agree has to order all entries whatever came first, so something new can push out what is
//! there: an admin gone bad makes entries until one of them goes before those of all others, and takes nodes out by
//! that. A share for each admin would stop it, but a cluster of thousands has been written by one admin alone. So what
//! is there is safe, and `hostseal remove` ends the difference.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::entry::SignedEntry;
use super::index::{Entries, EntryIndex, EntryPlace};
use super::octets::{EntryId, Signer};
use super::saying::{Matter, Saying};
use super::tally::{KeyHolder, Tally, without_withdrawals};
use super::view::{is_settled_by_admins, weight};
use super::withdrawn::Withdrawn;

/// The most octets of all entries together.
pub const ROSTER_MAX: usize = 4 << 20;
/// How much of that is for taking out nodes alone: whoever fills a roster can still be removed.
const RESERVE: usize = 256 << 10;
/// How many entries about one thing are kept of who is no admin: enough to show that it contradicts itself.
const SAID_AT_MOST: usize = 2;
/// How many entries of a later version are kept of who is no admin: what they are about is not known.
const LATER_AT_MOST: usize = 8;
/// How many entries about one thing are kept of an admin, where the newest counts.
const ADMIN_SAID_AT_MOST: usize = 8;
/// How many members that are no admins are kept as those who have admitted a node: one would do.
const ADMITTED_AT_MOST: usize = 3;

/// Drops what is too much, and what rests on it, into `dropped`. Says what counts of the others where nothing is taken
/// back, what is, and what counts then; `ever` is that of all entries.
pub(super) fn drop_from(
    entries: &mut Entries,
    mut ever: Tally,
    dropped: &mut Entries,
) -> (Tally, Withdrawn, Tally) {
    loop {
        let (withdrawn, tally) = Withdrawn::find(&ever);
        let index = ever.index();
        let mut surplus = repeated(&ever, &withdrawn);
        surplus.extend(branching(&ever));
        surplus.extend(withdrawn_later(&ever, &tally));
        surplus.extend(crowding(entries, &tally));
        let unfounded = index.places().filter(|at| !ever.counts_at(*at) && !ever.can_allow(*at));
        surplus.extend(unfounded.map(|at| index.id(at)));
        if surplus.is_empty() {
            return (ever, withdrawn, tally);
        }
        dropped.extend(surplus.iter().filter_map(|id| entries.remove_entry(id)));
        ever = without_withdrawals(&Arc::new(EntryIndex::of(entries)));
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
type Repeated = (Option<EntryPlace>, Matter);

/// How many entries like each other are kept, and what there are.
type Alike = (usize, Vec<EntryPlace>);

/// All but the last words about each thing, and what was kept.
fn repeated(ever: &Tally, withdrawn: &Withdrawn) -> BTreeSet<EntryId> {
    let index = ever.index();
    let mut said: BTreeMap<Repeated, Alike> = BTreeMap::new();
    for at in index.places().filter(|at| !withdrawn.keeps_any(index.id(*at))) {
        if let Some((about, at_most)) = bound(ever, at) {
            said.entry(about).or_insert((at_most, Vec::new())).1.push(at);
        }
    }
    let too_much = said.into_values().flat_map(|(at_most, mut said)| {
        // Whoever holds a used token cannot push out who has used it.
        said.sort_by_key(|at| (ever.is_admitted(*at), weight(index.id(*at), index.statement(*at))));
        said.into_iter().rev().skip(at_most).map(|at| index.id(at))
    });
    too_much.collect()
}

/// How many like this entry are kept, and what is like it; `None` where there is no bound.
fn bound(ever: &Tally, at: EntryPlace) -> Option<(Repeated, usize)> {
    let (index, entry) = (ever.index(), ever.index().statement(at));
    let (of, is_admin) = match ever.holder_of(index.signer(at))? {
        KeyHolder::Recovery => return None,
        KeyHolder::Invite(invite) => (invite, false),
        KeyHolder::Node(line, _) => (line, ever.is_admin_at(line)),
    };
    let matter = entry.matter();
    match (&matter, is_admin) {
        (Matter::Keys(_) | Matter::Retired(_), _) => Some(((Some(of), matter), SAID_AT_MOST)),
        (_, true) => is_settled_by_admins(&matter).then_some(((Some(of), matter), ADMIN_SAID_AT_MOST)),
        // What nobody can name yet is one thing: it is enough if the others come later.
        (Matter::Admission(join), false) if index.get(join).is_none() => {
            Some(((Some(of), Matter::Admission(index.id(of))), SAID_AT_MOST))
        }
        (Matter::Admission(_), false) => Some(((None, matter), ADMITTED_AT_MOST)),
        (Matter::Later, false) => Some(((Some(of), matter), LATER_AT_MOST)),
        (_, false) => Some(((Some(of), matter), SAID_AT_MOST)),
    }
}

/// Below keys that were replaced twice, each is replaced once: that somebody else has had them is plain by then.
fn branching(ever: &Tally) -> BTreeSet<EntryId> {
    let index = ever.index();
    let mut next: BTreeMap<u32, Vec<(EntryId, Signer, Signer)>> = BTreeMap::new();
    for at in index.places() {
        let entry = index.statement(at);
        let Saying::Keys(keys) = &entry.says else { continue };
        if let Some(KeyHolder::Node(_, after)) = ever.holder_of(index.signer(at)) {
            next.entry(after).or_default().push((index.id(at), entry.by, keys.signing));
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

/// What a later version would know of those who are out. Versions that know more or less may not take all of it, so that
/// their rosters differ; taking out who has signed it ends that.
fn withdrawn_later(ever: &Tally, counted: &Tally) -> BTreeSet<EntryId> {
    let index = ever.index();
    let is_out = |at: &EntryPlace| index.statement(*at).says.later().is_some() && !counted.counts_at(*at);
    index.places().filter(is_out).map(|at| index.id(at)).collect()
}

/// Where the roster is full: as much as is needed of what does not count. Else it stays, as whoever took it back may lose
/// that right.
fn crowding(entries: &Entries, counted: &Tally) -> BTreeSet<EntryId> {
    let mut dropped = BTreeSet::new();
    if !is_full(entries) {
        return dropped;
    }
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
