//! The roster itself: a set of entries, what it takes, and what it comes to.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::entry::{SignedEntry, UncheckedEntry};
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
        let (tally, withdrawn) = judge(&entries);
        let view = RosterView::find(cluster, &entries, &tally, &withdrawn).ok_or(NotTaken::Malformed)?;
        Ok(Self { cluster, id: name(&entries), entries, tally, withdrawn, view })
    }

    /// Takes what others have sent, in whatever order it is. What rests on an entry that is missing is refused, and can
    /// be taken when that is there.
    pub fn merge<'a>(&mut self, sent: impl IntoIterator<Item = &'a [u8]>) -> Merged {
        let mut merged = Merged::default();
        let mut waiting = Vec::new();
        for octets in sent {
            match UncheckedEntry::read(self.cluster, octets) {
                Ok(entry) if self.entries.contains_key(&entry.id()) => {}
                Ok(entry) => waiting.push(entry),
                Err(refusal) => merged.refuse(refusal, 1),
            }
        }
        let before = self.entries.clone();
        self.insert_all(waiting, &mut merged);
        if self.entries.len() > before.len() {
            self.normalize(&before, &mut merged);
            self.look();
        }
        merged
    }

    /// Inserts what those who signed it may ever say. What entitles them may come with it.
    fn insert_all(&mut self, mut waiting: Vec<UncheckedEntry>, merged: &mut Merged) {
        loop {
            let ever = without_withdrawals(&self.entries);
            let before = self.entries.len();
            let mut later = Vec::new();
            for entry in waiting {
                match self.is_due(&ever, &entry) {
                    Ok(()) => match entry.check() {
                        Ok(entry) => drop(self.entries.insert(entry.id(), entry)),
                        Err(refusal) => merged.refuse(refusal, 1),
                    },
                    Err(refusal) => later.push((entry, refusal)),
                }
            }
            if self.entries.len() == before {
                return later.into_iter().for_each(|(_, refusal)| merged.refuse(refusal, 1));
            }
            waiting = later.into_iter().map(|(entry, _)| entry).collect();
        }
    }

    /// Drops what is too much. Where the roster is full, nothing new stays but what takes nodes out.
    fn normalize(&mut self, before: &Entries, merged: &mut Merged) {
        let all = self.entries.len() - before.len();
        surplus::drop_from(&mut self.entries);
        let taken = self.count_new(before);
        merged.refuse(NotTaken::TooMany, all - taken);
        merged.taken = taken;
        if surplus::is_full(&self.entries) {
            self.entries.retain(|id, entry| before.contains_key(id) || entry.takes_out());
            surplus::drop_from(&mut self.entries);
            if surplus::is_full(&self.entries) {
                self.entries.clone_from(before);
            }
            merged.taken = self.count_new(before);
            merged.refuse(NotTaken::Full, taken - merged.taken);
        }
    }

    fn count_new(&self, before: &Entries) -> usize {
        self.entries.keys().filter(|id| !before.contains_key(id)).count()
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
    pub(super) fn peek(&self, octets: &[u8]) -> Option<Statement> {
        let entry = UncheckedEntry::read(self.cluster, octets).ok()?;
        (!self.entries.contains_key(&entry.id())).then(|| entry.statement().clone())
    }

    /// An entry.
    pub fn get(&self, id: EntryId) -> Option<&SignedEntry> {
        self.entries.get(&id)
    }

    /// All entries, those first that others rest on.
    pub fn in_order(&self) -> impl Iterator<Item = &SignedEntry> {
        let counted = self.tally.in_order();
        let others = self.entries.keys().copied().filter(|id| !self.tally.counts(*id));
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

    /// Whether who signed it may say that, as far as that can be known without its signature.
    fn is_due(&self, ever: &Tally, entry: &UncheckedEntry) -> Result<(), NotTaken> {
        let statement = entry.statement();
        if matches!(statement.says, Saying::Genesis(_)) {
            return Err(NotTaken::OtherCluster);
        }
        ever.holder(&statement.by).ok_or(NotTaken::UnknownSigner)?;
        let allowed = ever.can_allow(&self.entries, entry.id(), statement);
        if allowed { Ok(()) } else { Err(NotTaken::NotEntitled) }
    }

    fn look(&mut self) {
        (self.tally, self.withdrawn) = judge(&self.entries);
        self.id = name(&self.entries);
        let view = RosterView::find(self.cluster, &self.entries, &self.tally, &self.withdrawn);
        view.into_iter().for_each(|view| self.view = view);
    }
}

fn judge(entries: &Entries) -> (Tally, Withdrawn) {
    let withdrawn = Withdrawn::find(entries);
    (Tally::find(entries, Some(&withdrawn)), withdrawn)
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
