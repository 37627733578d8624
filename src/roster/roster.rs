//! The roster itself: a set of entries, what it takes, and what it comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use sha2::{Digest, Sha256};

use super::draft::NotEntitled;
use super::entry::{SignedEntry, UncheckedEntry};
use super::index::EntryIndex;
use super::not_taken::NotTaken;
use super::octets::{ClusterId, EntryId, RosterId, Signer};
use super::page::Prefix;
use super::saying::{Matter, Saying, Statement};
use super::surplus;
use super::tally::{Entries, KeyHolder, Tally, without_withdrawals};
use super::view::{self, RosterView};
use super::withdrawn::Withdrawn;

/// All that members have signed, and what it comes to. Two hosts with the same entries see the same, in whatever order
/// those came.
#[derive(Debug)]
pub struct Roster {
    cluster: ClusterId,
    entries: Entries,
    id: RosterId,
    /// What counts where nothing is taken back: whose entries are kept.
    ever: Tally,
    tally: Tally,
    withdrawn: Withdrawn,
    view: RosterView,
}

/// What came of entries that others have sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// How many were new and were taken.
    pub taken: usize,
    /// Why the others were not, and how many.
    pub refused: BTreeMap<NotTaken, usize>,
}

impl Merged {
    fn refuse(&mut self, why: NotTaken, how_many: usize) {
        if how_many > 0 {
            *self.refused.entry(why).or_default() += how_many;
        }
    }
}

impl Roster {
    /// The roster that an entry founds.
    ///
    /// # Errors
    /// It founds none.
    pub fn found(octets: &[u8]) -> Result<Self, NotTaken> {
        let entry = UncheckedEntry::read(ClusterId::NONE, octets)?;
        if !matches!(entry.statement().says, Saying::Genesis(_)) {
            return Err(NotTaken::Malformed);
        }
        let entry = entry.check()?;
        let cluster = entry.id().cluster();
        let entries = Entries::from([(entry.id(), entry)]);
        let index = EntryIndex::of(&entries);
        let ever = without_withdrawals(&index);
        let withdrawn = Withdrawn::find(&index, &ever);
        let tally = Tally::find(&index, Some(&withdrawn), |_| true);
        let view = RosterView::find(cluster, &entries, &tally, &withdrawn).ok_or(NotTaken::Malformed)?;
        Ok(Self { cluster, id: name(&entries), entries, ever, tally, withdrawn, view })
    }

    /// Takes what others have sent, in whatever order it is. What rests on an entry that is missing is refused, and can
    /// be taken when that is there.
    pub fn merge<'a>(&mut self, sent: impl IntoIterator<Item = &'a [u8]>) -> Merged {
        let mut merged = Merged::default();
        let mut waiting = BTreeMap::new();
        for octets in sent {
            match UncheckedEntry::read(self.cluster, octets) {
                Ok(entry) if self.entries.contains_key(&entry.id()) => {}
                Ok(entry) if matches!(entry.statement().says, Saying::Genesis(_)) => {
                    merged.refuse(NotTaken::OtherCluster, 1);
                }
                Ok(entry) => drop(waiting.insert(entry.id(), entry)),
                Err(refusal) => merged.refuse(refusal, 1),
            }
        }
        if !waiting.is_empty() {
            let (fresh, ever) = self.insert_all(waiting, &mut merged);
            if !fresh.is_empty() {
                self.normalize(&fresh, ever, &mut merged);
                self.look();
            }
        }
        merged
    }

    /// Inserts what those who signed it may ever say. What entitles them may come with it. Signatures of others are not
    /// looked at.
    fn insert_all(
        &mut self,
        waiting: BTreeMap<EntryId, UncheckedEntry>,
        merged: &mut Merged,
    ) -> (BTreeSet<EntryId>, Tally) {
        let known = self.entries.iter().map(|(id, entry)| (*id, entry.statement()));
        let new = waiting.iter().map(|(id, entry)| (*id, entry.statement()));
        let index = EntryIndex::read(known.chain(new));
        let mut forged = BTreeSet::new();
        let mut holds = |id: EntryId| {
            let held = !forged.contains(&id) && waiting.get(&id).is_none_or(UncheckedEntry::is_signed);
            if !held {
                forged.insert(id);
            }
            held
        };
        let ever = Tally::find(&index, None, &mut holds);
        let mut fresh = BTreeSet::new();
        for (id, entry) in &waiting {
            let due = ever.counts(*id) || ever.can_allow(&index, *id, entry.statement());
            let refusal = if due && holds(*id) {
                fresh.insert(*id);
                continue;
            } else if due {
                NotTaken::NotSigned
            } else if ever.holder(&entry.statement().by).is_none() {
                NotTaken::UnknownSigner
            } else {
                NotTaken::NotEntitled
            };
            merged.refuse(refusal, 1);
        }
        let taken = waiting.into_iter().filter(|(id, _)| fresh.contains(id));
        self.entries.extend(taken.map(|(id, entry)| (id, entry.trust())));
        (fresh, ever)
    }

    /// Drops what is too much. Where the roster is full, nothing new stays but what takes nodes out.
    fn normalize(&mut self, fresh: &BTreeSet<EntryId>, ever: Tally, merged: &mut Merged) {
        let mut dropped = Entries::new();
        (self.ever, self.withdrawn) = surplus::drop_from(&mut self.entries, ever, &mut dropped);
        merged.taken = self.count_of(fresh);
        merged.refuse(NotTaken::TooMany, fresh.len() - merged.taken);
        if !surplus::is_full(&self.entries) {
            return;
        }
        self.entries.retain(|id, entry| !fresh.contains(id) || entry.takes_out());
        let ever = without_withdrawals(&EntryIndex::of(&self.entries));
        (self.ever, self.withdrawn) = surplus::drop_from(&mut self.entries, ever, &mut dropped);
        if surplus::is_full(&self.entries) {
            self.entries.append(&mut dropped);
            self.entries.retain(|id, _| !fresh.contains(id));
            let index = EntryIndex::of(&self.entries);
            self.ever = without_withdrawals(&index);
            self.withdrawn = Withdrawn::find(&index, &self.ever);
        }
        let taken = self.count_of(fresh);
        merged.refuse(NotTaken::Full, merged.taken.saturating_sub(taken));
        merged.taken = taken;
    }

    /// How many of these are there.
    fn count_of(&self, ids: &BTreeSet<EntryId>) -> usize {
        ids.iter().filter(|id| self.entries.contains_key(id)).count()
    }

    /// What it is: the same on two hosts that have the same entries.
    pub fn id(&self) -> RosterId {
        self.id
    }

    /// The cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What it comes to.
    pub fn view(&self) -> &RosterView {
        &self.view
    }

    /// The names of all entries, in their order.
    pub fn ids(&self) -> impl Iterator<Item = EntryId> {
        self.entries.keys().copied()
    }

    /// The names of the entries that begin so.
    pub(super) fn ids_of(&self, prefix: Prefix) -> impl Iterator<Item = EntryId> {
        self.entries.range(prefix.first()..=prefix.last()).map(|(id, _)| *id)
    }

    /// What an entry says that is not there yet, whether its signatures hold or not.
    pub(super) fn peek(&self, octets: &[u8]) -> Option<(EntryId, Statement)> {
        let entry = UncheckedEntry::read(self.cluster, octets).ok()?;
        (!self.entries.contains_key(&entry.id())).then(|| (entry.id(), entry.statement().clone()))
    }

    /// An entry.
    pub fn get(&self, id: EntryId) -> Option<&SignedEntry> {
        self.entries.get(&id)
    }

    /// The entries after this one: the one that founds the cluster, then the others in the order of their names.
    pub(super) fn after(&self, after: Option<EntryId>) -> impl Iterator<Item = &SignedEntry> {
        let first = EntryId::from(self.cluster);
        let begin = match after {
            Some(after) if after != first => Bound::Excluded(after),
            _ => Bound::Unbounded,
        };
        let founding = after.is_none().then(|| self.entries.get(&first)).flatten();
        let others = self.entries.range((begin, Bound::Unbounded)).filter(move |(id, _)| **id != first);
        founding.into_iter().chain(others.map(|(_, entry)| entry))
    }

    /// All entries, those first that others rest on.
    pub fn in_order(&self) -> impl Iterator<Item = &SignedEntry> {
        let counted = self.ever.in_order();
        let others = self.entries.keys().copied().filter(|id| !self.ever.counts(*id));
        let ids: Vec<EntryId> = counted.into_iter().chain(others).collect();
        ids.into_iter().filter_map(|id| self.entries.get(&id))
    }

    /// Whether an entry counts: who signed it may say that, and was not withdrawn.
    pub fn counts(&self, id: EntryId) -> bool {
        self.tally.counts(id)
    }

    /// The node whose key, now or once, this is.
    pub fn line_of(&self, signer: &Signer) -> Option<EntryId> {
        self.tally.line_of(signer)
    }

    /// Why no token with this key is open.
    pub(super) fn why_not_open(&self, key: &Signer) -> NotEntitled {
        match self.tally.holder(key) {
            Some(KeyHolder::Invite(invite)) if self.withdrawn.is_gone(invite) => NotEntitled::TokenTakenBack,
            Some(KeyHolder::Invite(_)) => NotEntitled::TokenUsed,
            _ => NotEntitled::TokenUnknown,
        }
    }

    /// The entries about a matter that none has replaced yet.
    pub(super) fn heads(&self, matter: &Matter) -> Vec<EntryId> {
        view::heads(&self.entries, &self.tally, matter)
    }

    /// The entries that count and were signed by a key of this node or invite.
    pub(super) fn said_by(&self, of: EntryId) -> impl Iterator<Item = &SignedEntry> {
        let said = move |entry: &&SignedEntry| {
            let holder = self.tally.holder(&entry.statement().by);
            self.tally.counts(entry.id()) && holder.is_some_and(|holder| is_of(holder, of))
        };
        self.entries.values().filter(said)
    }

    fn look(&mut self) {
        let index = EntryIndex::of(&self.entries);
        self.tally = Tally::find(&index, Some(&self.withdrawn), |_| true);
        self.id = name(&self.entries);
        let view = RosterView::find(self.cluster, &self.entries, &self.tally, &self.withdrawn);
        view.into_iter().for_each(|view| self.view = view);
    }
}

fn name(entries: &Entries) -> RosterId {
    let mut hash = Sha256::new();
    entries.keys().for_each(|id| hash.update(id.octets()));
    RosterId::new(hash.finalize().into())
}

fn is_of(holder: KeyHolder, of: EntryId) -> bool {
    match holder {
        KeyHolder::Recovery => false,
        KeyHolder::Invite(id) | KeyHolder::Node(id, _) => id == of,
    }
}
