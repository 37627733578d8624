//! What was taken back: nodes and invites that are gone, rights that somebody has no more.
//!
//! Those who take back may take back from each other. Who is more senior goes first: the recovery key, then the admins
//! by how many steps lie between them and the first entry, then by their names. Who has lost its rights by then takes
//! nothing back any more.
//!
//! What is kept of a node may not fit into one entry. Those that name it together count when all are there: with some of
//! them, nobody would be in whom the others keep.

use std::collections::{BTreeMap, BTreeSet};

use super::index::repeated;
use super::octets::{EntryId, Signer};
use super::saying::{Matter, Rights, Saying, Statement, Version};
use super::tally::{KeyHolder, Tally};

/// Of how many entries one removal can be.
const PARTS_MAX: u64 = 1024;

/// What was taken back.
#[derive(Debug, Clone, Default)]
pub(super) struct Withdrawn {
    /// The entries about rights, and about who is gone, that were taken, in the order of those who said so.
    taken: Vec<EntryId>,
    /// What those who said so have their own rights by.
    always_kept: BTreeSet<EntryId>,
    /// What is gone, with what is kept of it.
    gone: BTreeMap<EntryId, BTreeSet<EntryId>>,
    /// Whether these nodes are admins, whatever they were when they came.
    admins: BTreeMap<EntryId, bool>,
    /// What is kept of those who are no admins any more, or gone.
    kept: BTreeMap<EntryId, BTreeSet<EntryId>>,
    /// Those of `taken` that hold.
    in_force: BTreeSet<EntryId>,
    /// All that is kept, whoever has signed it.
    kept_of_any: BTreeSet<EntryId>,
    /// What is gone by the word of somebody else.
    taken_out: BTreeSet<EntryId>,
    /// Of those, the ones whose keys may be in other hands.
    compromised: BTreeSet<EntryId>,
    /// The invites by which several nodes have joined.
    used_twice: BTreeSet<Signer>,
}

impl Withdrawn {
    /// What the entries take back, and what counts then; `ever` is what counts where nothing is taken back.
    pub fn find(ever: &Tally) -> (Self, Tally) {
        let takings = TakingsBack::read(ever);
        let (mut withdrawn, mut now) = Self::found(ever, &takings, used_twice(ever));
        if !withdrawn.used_twice.is_empty() {
            // Who is gone has admitted nobody.
            let twice = std::mem::take(&mut withdrawn.used_twice);
            let still = used_twice(&Tally::find(ever.index(), Some(&withdrawn), |_| true));
            if still == twice {
                withdrawn.used_twice = twice;
            } else {
                (withdrawn, now) = Self::found(ever, &takings, still);
            }
        }
        (withdrawn, now)
    }

    fn found(ever: &Tally, takings: &TakingsBack, used_twice: BTreeSet<Signer>) -> (Self, Tally) {
        let mut withdrawn = Self { used_twice, ..Self::default() };
        let mut now = None;
        withdrawn.take(ever, takings, &mut now, &takings.by_recovery);
        for admin in ever.by_seniority() {
            let said = takings.by_line.get(&admin).map(Vec::as_slice).unwrap_or_default();
            // What it takes from itself comes last: it may be the last admin then.
            let (own, others): (Vec<TakingBack>, Vec<TakingBack>) =
                said.iter().partition(|(_, entry)| target(entry) == Some(admin));
            withdrawn.take(ever, takings, &mut now, &others);
            // What a node says about its own rights is nothing: whoever has its key later could say it again, and keep
            // more.
            for one in own.iter().filter(|(_, entry)| matches!(entry.says, Saying::Gone(_))) {
                withdrawn.take_own(ever, takings, &mut now, *one);
            }
        }
        // Who is no admin can only go.
        let others = takings.by_line.iter().filter(|(line, _)| !ever.is_admin(**line));
        let others: Vec<TakingBack> = others.flat_map(|(_, said)| said).copied().collect();
        withdrawn.take(ever, takings, &mut now, &others);
        let now = now.unwrap_or_else(|| Tally::find(ever.index(), Some(&withdrawn), |_| true));
        (withdrawn, now)
    }

    /// Whether it is about rights, or about who is gone, and does not hold.
    pub fn is_undecided(&self, id: EntryId, entry: &Statement) -> bool {
        withdraws(entry) && !self.in_force.contains(&id)
    }

    /// Whether the entry `id` of this node or invite still counts, as far as it depends on whether that is gone. A node that
    /// leaves by itself takes nothing from others: whom it admitted stays in, and what it turned on stays on. Which keys
    /// were its keys stays known: by them it has said all else.
    pub fn leaves(&self, of: EntryId, id: EntryId, entry: &Statement) -> bool {
        matches!(entry.says, Saying::Keys(_))
            || self.gone.get(&of).is_none_or(|kept| {
                let others = is_of_use_to_others(entry) || self.keeps(of, id);
                let left = !self.taken_out.contains(&of) && others;
                target(entry) == Some(of) || left || kept.contains(&id) || self.always_kept.contains(&id)
            })
    }

    /// Whether a node that has joined by this invite counts: it alone has, or an admin has said that it is the right one.
    pub fn leaves_join(&self, invite: EntryId, join: &Statement, id: EntryId) -> bool {
        self.leaves(invite, id, join) && (self.is_gone(invite) || !self.used_twice.contains(&join.by))
    }

    /// Whether several nodes have joined by the invite with this key.
    pub fn is_used_twice(&self, key: &Signer) -> bool {
        self.used_twice.contains(key)
    }

    /// Whether the entry `id` counts though this node is no admin any more, or gone.
    pub fn keeps(&self, line: EntryId, id: EntryId) -> bool {
        self.kept.get(&line).is_some_and(|kept| kept.contains(&id)) || self.always_kept.contains(&id)
    }

    /// Whether an admin has said that the entry counts, whatever becomes of who has signed it.
    pub fn keeps_any(&self, id: EntryId) -> bool {
        self.always_kept.contains(&id) || self.kept_of_any.contains(&id)
    }

    /// Whether the node or invite is gone.
    pub fn is_gone(&self, of: EntryId) -> bool {
        self.gone.contains_key(&of)
    }

    /// Whether somebody else has said that the node's keys may be in other hands. Its own word is worth nothing then:
    /// who has its keys could say so, and nobody else would be heard any more.
    pub fn is_compromised(&self, of: EntryId) -> bool {
        self.compromised.contains(&of)
    }

    /// Whether the node is an admin; `None` where nobody has said so since it came.
    pub fn is_admin(&self, line: EntryId) -> Option<bool> {
        self.admins.get(&line).copied()
    }

    /// An admin goes by itself, unless nobody were left who could make another one.
    fn take_own(&mut self, ever: &Tally, takings: &TakingsBack, now: &mut Option<Tally>, own: TakingBack) {
        let before = self.clone();
        self.take(ever, takings, now, &[own]);
        let after = now.take().unwrap_or_else(|| Tally::find(ever.index(), Some(self), |_| true));
        if after.has_admins() {
            *now = Some(after);
        } else {
            *self = before;
        }
    }

    /// Takes what is said, where those who have said it still may. `now` is what counts by what was taken before.
    fn take(&mut self, ever: &Tally, takings: &TakingsBack, now: &mut Option<Tally>, said: &[TakingBack]) {
        if said.is_empty() {
            return;
        }
        let counts = now.take().unwrap_or_else(|| Tally::find(ever.index(), Some(self), |_| true));
        let may =
            |(id, _): &&TakingBack| ever.index().place(id).is_some_and(|at| counts.may_say(at, Some(self)));
        let taken: Vec<TakingBack> = said.iter().filter(may).copied().collect();
        if taken.is_empty() {
            *now = Some(counts);
            return;
        }
        for (id, entry) in taken {
            self.taken.push(id);
            self.keep_own_rights(takings, &counts, entry);
        }
        self.decide(ever);
    }

    /// Who takes something back from those who gave it its rights keeps them.
    fn keep_own_rights(&mut self, takings: &TakingsBack, now: &Tally, entry: &Statement) {
        let signer_of = |id: &EntryId| now.holder(&now.index().get(id)?.by);
        let (mut kept, mut lines) = (BTreeSet::new(), BTreeSet::new());
        let mut open: Vec<EntryId> = now.line_of(&entry.by).into_iter().collect();
        while let Some(of) = open.pop() {
            if !lines.insert(of) {
                continue;
            }
            let grants = takings.grants.get(&of).into_iter().flatten().chain([&of]);
            for id in grants.copied().filter(|id| now.counts(*id)) {
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
    fn decide(&mut self, ever: &Tally) {
        let mut void: BTreeSet<EntryId> = BTreeSet::new();
        loop {
            self.in_force = self.taken.iter().copied().filter(|id| !void.contains(id)).collect();
            self.read(ever);
            let fails =
                |id: &&EntryId| ever.index().get(id).is_some_and(|entry| !self.may_stay(ever, **id, entry));
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
        is_own || (self.keeps(line, id) && self.leaves(line, id, entry)) || (is_admin && !self.is_gone(line))
    }

    /// What the entries in force say, one with the other.
    fn read(&mut self, ever: &Tally) {
        (self.gone, self.admins, self.kept) = Default::default();
        (self.kept_of_any, self.taken_out, self.compromised) = Default::default();
        let mut newest: BTreeMap<EntryId, (Version, EntryId, bool)> = BTreeMap::new();
        let mut by_itself: Vec<(EntryId, &[EntryId])> = Vec::new();
        let weight = |entry: &Statement| weight_of_gone(ever, entry);
        let said = self.in_force.iter().filter_map(|id| weight(ever.index().get(id)?));
        let mut heaviest: BTreeMap<EntryId, Weight> = BTreeMap::new();
        for (of, weight) in said {
            heaviest.entry(of).and_modify(|heaviest| *heaviest = weight.max(*heaviest)).or_insert(weight);
        }
        for id in &self.in_force {
            let Some(entry) = ever.index().get(id) else { continue };
            match &entry.says {
                Saying::Gone(_) if weight(entry).is_some_and(|(of, weight)| heaviest[&of] > weight) => {}
                Saying::Gone(gone) => {
                    self.gone.entry(gone.of).or_default().extend(&gone.kept);
                    self.kept_of_any.extend(&gone.kept);
                    if ever.line_of(&entry.by) == Some(gone.of) {
                        by_itself.push((gone.of, &gone.kept));
                    } else {
                        self.taken_out.insert(gone.of);
                        if gone.compromised {
                            self.compromised.insert(gone.of);
                        }
                        self.kept.entry(gone.of).or_default().extend(&gone.kept);
                    }
                }
                Saying::Rights(Rights { of, admin, kept }) => {
                    self.kept.entry(*of).or_default().extend(kept);
                    self.kept_of_any.extend(kept);
                    let this = (entry.version, *id, *admin);
                    newest.entry(*of).and_modify(|newest| *newest = (*newest).max(this)).or_insert(this);
                }
                _ => {}
            }
        }
        self.admins = newest.into_iter().map(|(line, (_, _, admin))| (line, admin)).collect();
        // Who goes keeps what it had the right to say, and gives itself no other.
        for (line, kept) in by_itself {
            let began = ever.line(line).is_some_and(|line| line.begins_as_admin);
            if self.is_admin(line).unwrap_or(began) {
                self.kept.entry(line).or_default().extend(kept);
            }
        }
    }
}

/// Whose word about who is gone goes before that of others: what these keep does not count then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// It says so itself: whoever has its key could, also when it is out.
    ByItself,
    /// Somebody else has taken it out.
    TakenOut,
    /// Somebody else has said so, and says anew what is kept: less.
    Compromised,
}

/// What is gone by an entry, and how much that entry weighs.
fn weight_of_gone(ever: &Tally, entry: &Statement) -> Option<(EntryId, Weight)> {
    let Saying::Gone(gone) = &entry.says else { return None };
    let weight = match gone.compromised {
        _ if ever.line_of(&entry.by) == Some(gone.of) => Weight::ByItself,
        true => Weight::Compromised,
        false => Weight::TakenOut,
    };
    Some((gone.of, weight))
}

/// What somebody says about rights, or about who is gone.
type TakingBack<'a> = (EntryId, &'a Statement);

/// All of those, by who says so.
struct TakingsBack<'a> {
    by_recovery: Vec<TakingBack<'a>>,
    by_line: BTreeMap<EntryId, Vec<TakingBack<'a>>>,
    /// The entries by which nodes are what they are, but for their first ones.
    grants: BTreeMap<EntryId, Vec<EntryId>>,
}

impl<'a> TakingsBack<'a> {
    fn read(ever: &'a Tally) -> Self {
        let mut takings = Self { by_recovery: Vec::new(), by_line: BTreeMap::new(), grants: BTreeMap::new() };
        let mut parts: BTreeMap<(Signer, Matter, Version), u64> = BTreeMap::new();
        for (_, entry) in ever.index().iter().filter(|(_, entry)| is_part(entry)) {
            *parts.entry((entry.by, entry.matter(), entry.version)).or_default() += 1;
        }
        let is_whole = |entry: &Statement| {
            let there = || parts.get(&(entry.by, entry.matter(), entry.version));
            !is_part(entry) || there().is_some_and(|there| *there >= entry.version.1)
        };
        for (id, entry) in ever.index().iter() {
            let to = match &entry.says {
                Saying::Rights(rights) => rights.admin.then_some(rights.of),
                Saying::Admission(admission) => Some(admission.of),
                _ => None,
            };
            to.into_iter().for_each(|line| takings.grants.entry(line).or_default().push(id));
            if !withdraws(entry) || !is_whole(entry) {
                continue;
            }
            match ever.holder(&entry.by) {
                Some(KeyHolder::Recovery) => takings.by_recovery.push((id, entry)),
                Some(KeyHolder::Node(line, _)) => takings.by_line.entry(line).or_default().push((id, entry)),
                Some(KeyHolder::Invite(_)) | None => {}
            }
        }
        takings
    }
}

/// The keys of invites by which several nodes have joined.
fn used_twice(tally: &Tally) -> BTreeSet<Signer> {
    let joins = tally.counted().filter(|(_, entry)| matches!(entry.says, Saying::Join(_)));
    repeated(joins.map(|(_, entry)| entry.by))
}

/// Whether it lets somebody in, or turns protection on.
fn is_of_use_to_others(entry: &Statement) -> bool {
    match &entry.says {
        Saying::Admission(_) => true,
        Saying::Desired(desired) => desired.on,
        _ => false,
    }
}

/// Whether it is about rights, or about who is gone.
fn withdraws(entry: &Statement) -> bool {
    matches!(entry.says, Saying::Rights(_) | Saying::Gone(_))
}

/// Whether it counts together with others about the same alone: the second half of its version says how many they are.
fn is_part(entry: &Statement) -> bool {
    withdraws(entry) && (2..=PARTS_MAX).contains(&entry.version.1)
}

/// Whose rights, or what is gone.
fn target(entry: &Statement) -> Option<EntryId> {
    match &entry.says {
        Saying::Rights(rights) => Some(rights.of),
        Saying::Gone(gone) => Some(gone.of),
        _ => None,
    }
}
