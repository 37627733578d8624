//! The roster itself: a set of entries, what it takes, and what it comes to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::draft::NotEntitled;
use super::entry::{SignedEntry, UncheckedEntry};
use super::index::{Entries, EntryIndex};
use super::not_taken::NotTaken;
use super::octets::{ClusterId, EntryId, RosterId, Signer};
use super::page::{Prefix, Range};
use super::saying::{Matter, Saying};
use super::surplus;
use super::tally::{KeyHolder, Tally, without_withdrawals};
use super::view::{self, RosterView};
use super::withdrawn::Withdrawn;

/// All that members have signed, and what it comes to. Two hosts with the same entries see the same, in whatever order
/// those came.
#[derive(Debug, Clone)]
pub struct Roster {
    cluster: ClusterId,
    entries: Arc<Entries>,
    id: RosterId,
    /// What there is of each sixteenth of all names: every peer that has something else is told that.
    sixteenths: Arc<[Range]>,
    /// What counts where nothing is taken back: whose entries are kept.
    ever: Arc<Tally>,
    tally: Arc<Tally>,
    withdrawn: Arc<Withdrawn>,
    view: Arc<RosterView>,
}

/// What came of entries that others have sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merged {
    /// How many were new and were taken.
    pub taken: usize,
    /// Why the others were not, and how many.
    pub refused: BTreeMap<NotTaken, usize>,
}

impl Merged {
    /// So many more were refused.
    pub(super) fn refuse(&mut self, why: NotTaken, how_many: usize) {
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
        let ever = without_withdrawals(&Arc::new(EntryIndex::of(&entries)));
        let (withdrawn, tally) = Withdrawn::find(&ever);
        let view = RosterView::find(cluster, &tally, &withdrawn).ok_or(NotTaken::Malformed)?;
        let (id, sixteenths) = (name(&entries), sixteenths(&entries));
        let (entries, ever) = (Arc::new(entries), Arc::new(ever));
        let (tally, withdrawn, view) = (Arc::new(tally), Arc::new(withdrawn), Arc::new(view));
        Ok(Self { cluster, entries, id, sixteenths, ever, tally, withdrawn, view })
    }

    /// Takes what others have sent, in whatever order it is. What rests on an entry that is missing is refused, and can
    /// be taken when that is there.
    pub fn merge<'a>(&mut self, sent: impl IntoIterator<Item = &'a [u8]>) -> Merged {
        let (mut refused, mut waiting) = (Merged::default(), Vec::new());
        for octets in sent {
            match self.read(octets) {
                Ok(entry) => waiting.extend(entry),
                Err(refusal) => refused.refuse(refusal, 1),
            }
        }
        let mut merged = self.take(waiting);
        refused.refused.into_iter().for_each(|(why, how_many)| merged.refuse(why, how_many));
        merged
    }

    /// Reads an entry; `None` where it is there already.
    pub(super) fn read(&self, octets: &[u8]) -> Result<Option<UncheckedEntry>, NotTaken> {
        let entry = UncheckedEntry::read(self.cluster, octets)?;
        if self.entries.contains_key(&entry.id()) {
            return Ok(None);
        }
        if matches!(entry.statement().says, Saying::Genesis(_)) {
            return Err(NotTaken::OtherCluster);
        }
        Ok(Some(entry))
    }

    /// Takes entries that were read.
    pub(super) fn take(&mut self, sent: Vec<UncheckedEntry>) -> Merged {
        let mut merged = Merged::default();
        let sent = sent.into_iter().filter(|entry| !self.entries.contains_key(&entry.id()));
        let waiting: BTreeMap<EntryId, UncheckedEntry> = sent.map(|entry| (entry.id(), entry)).collect();
        if waiting.is_empty() {
            return merged;
        }
        let (fresh, ever) = self.insert_all(waiting, &mut merged);
        if !fresh.is_empty() {
            self.normalize(&fresh, ever, &mut merged);
            (self.id, self.sixteenths) = (name(&self.entries), sixteenths(&self.entries));
            let view = RosterView::find(self.cluster, &self.tally, &self.withdrawn);
            view.into_iter().for_each(|view| self.view = Arc::new(view));
        }
        merged
    }

    /// Inserts what those who signed it may ever say. What entitles them may come with it. Signatures of others are not
    /// looked at, and none twice. Says what was inserted, and what counts then where nothing is taken back.
    fn insert_all(
        &mut self,
        waiting: BTreeMap<EntryId, UncheckedEntry>,
        merged: &mut Merged,
    ) -> (BTreeSet<EntryId>, Tally) {
        let known = self.entries.values().map(SignedEntry::said);
        let all = known.chain(waiting.values().map(UncheckedEntry::said)).cloned();
        let index = Arc::new(EntryIndex::read(all.collect()));
        let mut checked = BTreeMap::new();
        let mut holds = |id: EntryId| {
            let Some(entry) = waiting.get(&id) else { return true };
            *checked.entry(id).or_insert_with(|| entry.is_signed())
        };
        let ever = Tally::find(&index, None, |at| holds(index.id(at)));
        let (mut fresh, mut refused) = (BTreeSet::new(), 0);
        for (id, entry) in &waiting {
            let due = index.place(id).is_some_and(|at| ever.counts_at(at) || ever.can_allow(at));
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
            refused += 1;
            merged.refuse(refusal, 1);
        }
        let taken = waiting.into_iter().filter(|(id, _)| fresh.contains(id));
        Arc::make_mut(&mut self.entries).extend(taken.map(|(id, entry)| (id, entry.trust())));
        let as_if_never_sent = || without_withdrawals(&Arc::new(EntryIndex::of(&self.entries)));
        let ever = if refused == 0 || fresh.is_empty() { ever } else { as_if_never_sent() };
        (fresh, ever)
    }

    /// Drops what is too much. Where the roster is full, nothing new stays but what takes nodes out.
    fn normalize(&mut self, fresh: &BTreeSet<EntryId>, ever: Tally, merged: &mut Merged) {
        let mut dropped = Entries::new();
        self.settle(ever, &mut dropped);
        merged.taken = self.count_of(fresh);
        merged.refuse(NotTaken::TooMany, fresh.len() - merged.taken);
        if !surplus::is_full(&self.entries) {
            return;
        }
        Arc::make_mut(&mut self.entries).retain(|id, entry| !fresh.contains(id) || entry.takes_out());
        let ever = without_withdrawals(&Arc::new(EntryIndex::of(&self.entries)));
        self.settle(ever, &mut dropped);
        if surplus::is_full(&self.entries) {
            let entries = Arc::make_mut(&mut self.entries);
            entries.append(&mut dropped);
            entries.retain(|id, _| !fresh.contains(id));
            let ever = without_withdrawals(&Arc::new(EntryIndex::of(entries)));
            let (withdrawn, tally) = Withdrawn::find(&ever);
            self.settled(ever, withdrawn, tally);
        }
        let taken = self.count_of(fresh);
        merged.refuse(NotTaken::Full, merged.taken.saturating_sub(taken));
        merged.taken = taken;
    }

    /// Drops what is too much, and finds what counts of the others.
    fn settle(&mut self, ever: Tally, dropped: &mut Entries) {
        let entries = Arc::make_mut(&mut self.entries);
        let (ever, withdrawn, tally) = surplus::drop_from(entries, ever, dropped);
        self.settled(ever, withdrawn, tally);
    }

    fn settled(&mut self, ever: Tally, withdrawn: Withdrawn, tally: Tally) {
        (self.ever, self.withdrawn, self.tally) = (Arc::new(ever), Arc::new(withdrawn), Arc::new(tally));
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
        ids_of(&self.entries, prefix)
    }

    /// What there is of a prefix.
    pub(super) fn range(&self, prefix: Prefix) -> Range {
        let known = self.sixteenths.iter().find(|range| range.prefix == prefix);
        known.copied().unwrap_or_else(|| Range::of(prefix, ids_of(&self.entries, prefix)))
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
        self.order(self.ids()).into_iter().filter_map(|id| self.entries.get(&id))
    }

    /// Those of `ids` that are there, those first that others rest on.
    pub fn order(&self, ids: impl IntoIterator<Item = EntryId>) -> Vec<EntryId> {
        self.ever.order(ids)
    }

    /// Whether an entry counts: who signed it may say that, and was not withdrawn.
    pub fn counts(&self, id: EntryId) -> bool {
        self.tally.counts(id)
    }

    /// What counts.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The node whose key, now or once, this is.
    pub fn line_of(&self, signer: &Signer) -> Option<EntryId> {
        self.tally.line_of(signer)
    }

    /// The invite whose key this is.
    pub(super) fn invite_of(&self, key: &Signer) -> Option<EntryId> {
        match self.tally.holder(key) {
            Some(KeyHolder::Invite(invite)) => Some(invite),
            _ => None,
        }
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
        view::heads(&self.tally, matter)
    }

    /// The entries that count and were signed by a key of this node or invite.
    pub(super) fn said_by(&self, of: EntryId) -> impl Iterator<Item = &SignedEntry> {
        let said = move |entry: &&SignedEntry| {
            let holder = self.tally.holder(&entry.statement().by);
            self.tally.counts(entry.id()) && holder.is_some_and(|holder| is_of(holder, of))
        };
        self.entries.values().filter(said)
    }
}

fn name(entries: &Entries) -> RosterId {
    let mut hash = Sha256::new();
    entries.keys().for_each(|id| hash.update(id.octets()));
    RosterId::new(hash.finalize().into())
}

/// What there is of each part of all names.
fn sixteenths(entries: &Entries) -> Arc<[Range]> {
    Prefix::ALL.parts().map(|part| Range::of(part, ids_of(entries, part))).collect()
}

fn ids_of(entries: &Entries, prefix: Prefix) -> impl Iterator<Item = EntryId> {
    entries.range(prefix.first()..=prefix.last()).map(|(id, _)| *id)
}

fn is_of(holder: KeyHolder, of: EntryId) -> bool {
    match holder {
        KeyHolder::Recovery => false,
        KeyHolder::Invite(id) | KeyHolder::Node(id, _) => id == of,
    }
}
