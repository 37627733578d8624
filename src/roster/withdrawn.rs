//! What was taken back: nodes and invites that are gone, rights that somebody has no more.
//!
//! Those who take back may take back from each other. Who is more senior goes first: the recovery key, then the admins
//! by how many steps lie between them and the first entry, then by their names. Who has lost its rights by then takes
//! nothing back any more.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::SignedEntry;
use super::octets::{EntryId, Signer};
use super::saying::{Rights, Saying, Statement, Version};
use super::tally::{Entries, KeyHolder, Tally, without_withdrawals};

/// What was taken back.
#[derive(Debug, Default)]
pub(super) struct Withdrawn {
    /// The entries about rights, and about who is gone, that were taken, in the order of those who said so.
    taken: Vec<EntryId>,
    /// What those who said so have their own rights by.
    always_kept: BTreeSet<EntryId>,
    /// What is gone, with what is kept of it.
    gone: BTreeMap<EntryId, BTreeSet<EntryId>>,
    /// Whether these nodes are admins, whatever they were when they came.
    admins: BTreeMap<EntryId, bool>,
    /// What is kept of those who are no admins any more.
    kept: BTreeMap<EntryId, BTreeSet<EntryId>>,
    /// Those of `taken` that hold.
    in_force: BTreeSet<EntryId>,
    /// The invites by which several nodes have joined.
    used_twice: BTreeSet<Signer>,
}

impl Withdrawn {
    /// What `entries` take back.
    pub fn find(entries: &Entries) -> Self {
        let ever = without_withdrawals(entries);
        let mut withdrawn = Self { used_twice: used_twice(entries, &ever), ..Self::default() };
        withdrawn.take(entries, &ever, |holder| holder == KeyHolder::Recovery);
        for admin in ever.by_seniority() {
            withdrawn.take(
                entries,
                &ever,
                |holder| matches!(holder, KeyHolder::Node(line, _) if line == admin),
            );
        }
        // Who is no admin can only go.
        withdrawn.take(
            entries,
            &ever,
            |holder| matches!(holder, KeyHolder::Node(line, _) if !ever.is_admin(line)),
        );
        withdrawn
    }

    /// Whether it is about rights, or about who is gone, and does not hold.
    pub fn is_undecided(&self, id: EntryId, entry: &Statement) -> bool {
        withdraws(entry) && !self.in_force.contains(&id)
    }

    /// Whether the entry `id` of this node or invite still counts, as far as it depends on whether that is gone.
    pub fn leaves(&self, of: EntryId, id: EntryId) -> bool {
        let kept = |kept: &BTreeSet<EntryId>| kept.contains(&id) || self.always_kept.contains(&id);
        self.gone.get(&of).is_none_or(kept)
    }

    /// Whether a node that has joined by this invite counts: it alone has, or an admin has said that it is the right one.
    pub fn leaves_join(&self, invite: EntryId, key: &Signer, id: EntryId) -> bool {
        self.leaves(invite, id) && (self.is_gone(invite) || !self.used_twice.contains(key))
    }

    /// Whether several nodes have joined by the invite with this key.
    pub fn is_used_twice(&self, key: &Signer) -> bool {
        self.used_twice.contains(key)
    }

    /// Whether the entry `id` counts though this node is no admin any more, or gone.
    pub fn keeps(&self, line: EntryId, id: EntryId) -> bool {
        let of_rights = self.kept.get(&line).is_some_and(|kept| kept.contains(&id));
        let of_gone = self.gone.get(&line).is_some_and(|kept| kept.contains(&id));
        of_rights || of_gone || self.always_kept.contains(&id)
    }

    /// Whether an admin has said that the entry counts, whatever becomes of who has signed it.
    pub fn keeps_any(&self, id: EntryId) -> bool {
        let in_any =
            |kept: &BTreeMap<EntryId, BTreeSet<EntryId>>| kept.values().any(|kept| kept.contains(&id));
        self.always_kept.contains(&id) || in_any(&self.kept) || in_any(&self.gone)
    }

    /// Whether the node or invite is gone.
    pub fn is_gone(&self, of: EntryId) -> bool {
        self.gone.contains_key(&of)
    }

    /// Whether the node is an admin; `None` where nobody has said so since it came.
    pub fn is_admin(&self, line: EntryId) -> Option<bool> {
        self.admins.get(&line).copied()
    }

    /// Takes what those say whom `says` names, where they still may.
    fn take(&mut self, entries: &Entries, ever: &Tally, says: impl Fn(KeyHolder) -> bool) {
        let of_these = |entry: &Statement| withdraws(entry) && ever.holder(&entry.by).is_some_and(&says);
        let said = entries.iter().filter(|(_, entry)| of_these(entry.statement()));
        let said: Vec<(EntryId, &Statement)> = said.map(|(id, entry)| (*id, entry.statement())).collect();
        if said.is_empty() {
            return;
        }
        // What is asked about now is not decided yet.
        self.in_force.extend(said.iter().map(|(id, _)| *id));
        let now = Tally::find(entries, Some(self));
        for (id, entry) in said {
            if now.counts(id) && !takes_the_last_admin(&now, entry) {
                self.taken.push(id);
                self.keep_own_rights(entries, &now, entry);
            }
        }
        self.decide(entries, ever);
    }

    /// Who takes something back from those who gave it its rights keeps them.
    fn keep_own_rights(&mut self, entries: &Entries, now: &Tally, entry: &Statement) {
        let signer_of = |id: &EntryId| {
            let entry = entries.get(id)?;
            now.holder(&entry.statement().by)
        };
        let (mut kept, mut lines) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<EntryId> = now.line_of(&entry.by).into_iter().collect();
        while let Some(of) = open.pop() {
            if !lines.insert(of) {
                continue;
            }
            for id in grants(entries, of).filter(|id| now.counts(*id)) {
                kept.insert(id);
                match signer_of(&id) {
                    Some(KeyHolder::Node(line, _)) => open.push(line),
                    Some(KeyHolder::Invite(invite)) => open.push(invite),
                    Some(KeyHolder::Recovery) | None => {}
                }
            }
        }
        if target(entry).is_some_and(|target| lines.contains(&target)) {
            self.always_kept.extend(kept);
        }
    }

    /// What of all that was taken holds: nothing of those who are gone, or no admins any more, but for what is kept.
    fn decide(&mut self, entries: &Entries, ever: &Tally) {
        let mut void: BTreeSet<EntryId> = BTreeSet::new();
        loop {
            self.in_force = self.taken.iter().copied().filter(|id| !void.contains(id)).collect();
            self.read(entries);
            let fails = |id: &&EntryId| {
                entries.get(*id).is_some_and(|entry| !self.may_stay(ever, **id, entry.statement()))
            };
            let failed: Vec<EntryId> = self.in_force.iter().filter(fails).copied().collect();
            if failed.is_empty() {
                return;
            }
            void.extend(failed);
        }
    }

    /// Whether who has said it may still have said it.
    fn may_stay(&self, ever: &Tally, id: EntryId, entry: &Statement) -> bool {
        let Some(KeyHolder::Node(line, _)) = ever.holder(&entry.by) else { return true };
        let is_own = matches!(&entry.says, Saying::Gone(gone) if gone.of == line);
        let began = ever.line(line).is_some_and(|line| line.begins_as_admin);
        let is_admin = self.is_admin(line).unwrap_or(began);
        is_own || self.keeps(line, id) || (is_admin && !self.is_gone(line))
    }

    /// What the entries in force say, one with the other.
    fn read(&mut self, entries: &Entries) {
        (self.gone, self.admins, self.kept) = Default::default();
        let mut newest: BTreeMap<EntryId, (Version, EntryId, bool)> = BTreeMap::new();
        for id in &self.in_force {
            let Some(entry) = entries.get(id).map(SignedEntry::statement) else { continue };
            match &entry.says {
                Saying::Gone(gone) => self.gone.entry(gone.of).or_default().extend(&gone.kept),
                Saying::Rights(Rights { of, admin, kept }) => {
                    self.kept.entry(*of).or_default().extend(kept);
                    let this = (entry.version, *id, *admin);
                    newest.entry(*of).and_modify(|newest| *newest = (*newest).max(this)).or_insert(this);
                }
                _ => {}
            }
        }
        self.admins = newest.into_iter().map(|(line, (_, _, admin))| (line, admin)).collect();
    }
}

/// The keys of invites by which several nodes have joined.
fn used_twice(entries: &Entries, ever: &Tally) -> BTreeSet<Signer> {
    let (mut used, mut twice) = (BTreeSet::new(), BTreeSet::new());
    for (id, entry) in entries {
        let entry = entry.statement();
        if matches!(entry.says, Saying::Join(_)) && ever.counts(*id) && !used.insert(entry.by) {
            twice.insert(entry.by);
        }
    }
    twice
}

/// Whether it is about rights, or about who is gone.
fn withdraws(entry: &Statement) -> bool {
    matches!(entry.says, Saying::Rights(_) | Saying::Gone(_))
}

/// Whose rights, or what is gone.
fn target(entry: &Statement) -> Option<EntryId> {
    match &entry.says {
        Saying::Rights(rights) => Some(rights.of),
        Saying::Gone(gone) => Some(gone.of),
        _ => None,
    }
}

/// The entries by which this node is what it is.
fn grants(entries: &Entries, line: EntryId) -> impl Iterator<Item = EntryId> {
    entries.iter().filter_map(move |(id, entry)| {
        let gives = match &entry.statement().says {
            Saying::Rights(rights) => rights.admin && rights.of == line,
            Saying::Admission(admission) => admission.of == line,
            _ => *id == line,
        };
        gives.then_some(*id)
    })
}

/// Whether the last admin takes its own rights away.
fn takes_the_last_admin(now: &Tally, entry: &Statement) -> bool {
    let takes = match &entry.says {
        Saying::Gone(_) => true,
        Saying::Rights(rights) => !rights.admin,
        _ => false,
    };
    let own = now.line_of(&entry.by).filter(|own| Some(*own) == target(entry));
    takes && own.is_some_and(|own| now.is_admin(own)) && now.by_seniority().len() == 1
}
