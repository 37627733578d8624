//! Whose entries count: who is in, by whom, and which keys are whose.
//!
//! Everything follows from the first entry, round by round: a round finds the entries that what the rounds before have
//! found allows. So the order in which entries came plays no part.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::SignedEntry;
use super::index::EntryIndex;
use super::octets::{EntryId, Signer};
use super::redeem::not_invited;
use super::saying::{DesiredProtection, Invite, Join, Saying, Site, Statement};
use super::withdrawn::Withdrawn;

/// The entries of a roster.
pub(super) type Entries = BTreeMap<EntryId, SignedEntry>;

/// How often a node can change its keys.
pub const KEYS_MAX: u32 = 64;

/// Whose a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyHolder {
    /// The key that was printed when the cluster was founded.
    Recovery,
    /// This invite's.
    Invite(EntryId),
    /// A node's, by its first entry, and after so many others.
    Node(EntryId, u32),
}

/// A node, from its first entry on.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeLine {
    /// The entries by which it has joined: more than one where an invite was used twice.
    pub joins: BTreeSet<EntryId>,
    /// It is an admin by how it came.
    pub begins_as_admin: bool,
}

/// What counts.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The entries that count, each with the round in which that was found.
    counted: BTreeMap<EntryId, u32>,
    /// The entries of nodes that join and were admitted by a member.
    admitted: BTreeSet<EntryId>,
    holders: BTreeMap<Signer, KeyHolder>,
    lines: BTreeMap<EntryId, NodeLine>,
    /// The lines that are admins, each with the round in which that was found.
    admins: BTreeMap<EntryId, u32>,
    /// The signing keys of the lines.
    keys: BTreeMap<EntryId, Vec<Signer>>,
    /// The entries that the last round may have made count.
    awake: BTreeSet<EntryId>,
}

/// What nobody has taken back: the rights of who was an admin ever, and those who are gone.
pub(super) fn without_withdrawals(index: &EntryIndex) -> Tally {
    Tally::find(index, None, |_| true)
}

impl Tally {
    /// What counts where `withdrawn` was taken back; where nothing was, all rights that were ever given are had. An entry
    /// that may count is asked about with `holds` before it does.
    pub fn find(
        index: &EntryIndex,
        withdrawn: Option<&Withdrawn>,
        mut holds: impl FnMut(EntryId) -> bool,
    ) -> Self {
        let mut tally = Self { awake: index.founding().collect(), ..Self::default() };
        for round in 0.. {
            let mut found = Vec::new();
            for id in std::mem::take(&mut tally.awake) {
                let Some(entry) = index.get(&id).filter(|_| !tally.counts(id)) else { continue };
                if tally.allows(index, id, entry, withdrawn) && holds(id) {
                    found.push((id, entry));
                }
            }
            if found.is_empty() {
                return tally;
            }
            found.into_iter().for_each(|(id, entry)| tally.count(index, round, id, entry, withdrawn));
        }
        tally
    }

    /// Whether an entry counts.
    pub fn counts(&self, id: EntryId) -> bool {
        self.counted.contains_key(&id)
    }

    /// The entries that count, those first that others follow from.
    pub fn in_order(&self) -> Vec<EntryId> {
        let mut counted: Vec<(u32, EntryId)> = self.counted.iter().map(|(id, round)| (*round, *id)).collect();
        counted.sort_unstable();
        counted.into_iter().map(|(_, id)| id).collect()
    }

    /// Whose `signer` is.
    pub fn holder(&self, signer: &Signer) -> Option<KeyHolder> {
        self.holders.get(signer).copied()
    }

    /// The node whose key `signer` is.
    pub fn line_of(&self, signer: &Signer) -> Option<EntryId> {
        match self.holder(signer)? {
            KeyHolder::Node(line, _) => Some(line),
            KeyHolder::Recovery | KeyHolder::Invite(_) => None,
        }
    }

    /// The nodes that were ever in, by their first entries.
    pub fn lines(&self) -> impl Iterator<Item = (EntryId, &NodeLine)> {
        self.lines.iter().map(|(id, line)| (*id, line))
    }

    /// The node with this first entry.
    pub fn line(&self, id: EntryId) -> Option<&NodeLine> {
        self.lines.get(&id)
    }

    /// Whether the node is an admin.
    pub fn is_admin(&self, line: EntryId) -> bool {
        self.admins.contains_key(&line)
    }

    /// Whether there is an admin.
    pub fn has_admins(&self) -> bool {
        !self.admins.is_empty()
    }

    /// The admins, the most senior first.
    pub fn by_seniority(&self) -> Vec<EntryId> {
        let mut admins: Vec<(u32, EntryId)> =
            self.admins.iter().map(|(line, round)| (*round, *line)).collect();
        admins.sort_unstable();
        admins.into_iter().map(|(_, line)| line).collect()
    }

    /// Whether who signed the entry may say what it says, as far as is known.
    pub fn allows(
        &self,
        index: &EntryIndex,
        id: EntryId,
        entry: &Statement,
        withdrawn: Option<&Withdrawn>,
    ) -> bool {
        let undecided = withdrawn.is_some_and(|withdrawn| withdrawn.is_undecided(id, entry));
        !undecided && self.may_say(index, id, entry, withdrawn)
    }

    /// Whether who signed the entry may say what it says, whatever was decided about who is gone by it.
    pub fn may_say(
        &self,
        index: &EntryIndex,
        id: EntryId,
        entry: &Statement,
        withdrawn: Option<&Withdrawn>,
    ) -> bool {
        if let Saying::Genesis(_) = entry.says {
            return true;
        }
        match self.holder(&entry.by) {
            None => false,
            Some(KeyHolder::Recovery) => matches!(entry.says, Saying::Rights(_) | Saying::Gone(_)),
            Some(KeyHolder::Invite(invite)) => {
                withdrawn.is_none_or(|withdrawn| withdrawn.leaves_join(invite, entry, id))
                    && self.admitted.contains(&id)
                    && self.is_invited(index, invite, entry)
            }
            Some(KeyHolder::Node(line, after)) => {
                withdrawn.is_none_or(|withdrawn| withdrawn.leaves(line, id, entry))
                    && self.node_may(index, (line, after), id, entry, withdrawn)
            }
        }
    }

    fn node_may(
        &self,
        index: &EntryIndex,
        (line, after): (EntryId, u32),
        id: EntryId,
        entry: &Statement,
        withdrawn: Option<&Withdrawn>,
    ) -> bool {
        let kept = || withdrawn.is_some_and(|withdrawn| withdrawn.keeps(line, id));
        let entitled = self.is_admin(line) || kept();
        match &entry.says {
            Saying::Keys(_) => after < KEYS_MAX,
            // The entry of the node may come later, but it is nothing else.
            Saying::Admission(admission) => {
                index.get(&admission.of).is_none_or(|of| matches!(of.says, Saying::Join(_)))
            }
            Saying::Gone(gone) if gone.of == line => true,
            Saying::Rights(rights) if rights.of == line => false,
            // Whoever names a basis rests on it: others take it up from there.
            Saying::Desired(desired) if desired.on && (!entitled || entry.basis.is_some()) => {
                self.takes_up(index, entry, desired)
            }
            Saying::Desired(_) => entitled && entry.basis.is_none(),
            Saying::Node(listed) => entitled && listed.line.is_none_or(|line| self.lines.contains_key(&line)),
            Saying::Genesis(_) | Saying::Join(_) => false,
            _ => entitled,
        }
    }

    /// Whether the version of who is no admin rests on one of an admin, and what it says goes back to no less than that
    /// one does.
    fn takes_up(&self, index: &EntryIndex, entry: &Statement, desired: &DesiredProtection) -> bool {
        let Some(basis) = entry.basis else { return entry.version.0 == 0 };
        index.get(&basis).is_some_and(|of| match &of.says {
            Saying::Desired(before) => {
                self.counts(basis)
                    && of.basis.is_none()
                    && of.version.0 == entry.version.0
                    && desired.lapses_to() >= before.lapses_to()
            }
            _ => false,
        })
    }

    /// Whether the entry can come to count: a node that joins is not admitted before its entry is there.
    pub fn can_allow(&self, index: &EntryIndex, id: EntryId, entry: &Statement) -> bool {
        match self.holder(&entry.by) {
            Some(KeyHolder::Invite(invite)) => self.is_invited(index, invite, entry),
            _ => self.allows(index, id, entry, None),
        }
    }

    /// Whether an invite is for this node.
    fn is_invited(&self, index: &EntryIndex, invite: EntryId, entry: &Statement) -> bool {
        let Saying::Join(join) = &entry.says else { return false };
        let Some(Saying::Invite(invite)) = index.get(&invite).map(|entry| &entry.says) else {
            return false;
        };
        let line = invite.line.is_none_or(|line| self.lines.contains_key(&line));
        line && invites(invite, &join.site)
    }

    /// Whether a member has admitted the node that joins by this entry.
    pub fn is_admitted(&self, join: EntryId) -> bool {
        self.admitted.contains(&join)
    }

    /// Takes what follows from an entry that counts.
    fn count(
        &mut self,
        index: &EntryIndex,
        round: u32,
        id: EntryId,
        entry: &Statement,
        withdrawn: Option<&Withdrawn>,
    ) {
        self.counted.insert(id, round);
        self.awake.extend(index.resting_on(&id));
        match &entry.says {
            Saying::Genesis(genesis) => {
                self.learn(index, genesis.keys.signing, KeyHolder::Node(id, 0));
                self.learn(index, genesis.recovery, KeyHolder::Recovery);
                self.begin(index, round, id, true, withdrawn);
            }
            Saying::Node(listed) if listed.line.is_none() => self.begin(index, round, id, false, withdrawn),
            Saying::Invite(invite) => self.learn(index, invite.key, KeyHolder::Invite(id)),
            Saying::Admission(admission) => {
                self.admitted.insert(admission.of);
                self.awake.insert(admission.of);
            }
            Saying::Join(join) => self.join(index, round, id, (entry.by, join), withdrawn),
            Saying::Keys(keys) => {
                if let Some(KeyHolder::Node(line, after)) = self.holder(&entry.by) {
                    self.learn(index, keys.signing, KeyHolder::Node(line, after + 1));
                }
            }
            // Where nothing is decided, who was an admin ever is one.
            Saying::Rights(rights) if withdrawn.is_none() && rights.admin => {
                self.make_admin(index, round, rights.of);
            }
            _ => {}
        }
    }

    /// Whoever has made a key known first has it.
    fn learn(&mut self, index: &EntryIndex, signer: Signer, holder: KeyHolder) {
        if self.holders.contains_key(&signer) {
            return;
        }
        self.holders.insert(signer, holder);
        if let KeyHolder::Node(line, _) = holder {
            self.keys.entry(line).or_default().push(signer);
        }
        self.awake.extend(index.signed_by(&signer));
    }

    fn make_admin(&mut self, index: &EntryIndex, round: u32, line: EntryId) {
        self.admins.entry(line).or_insert(round);
        for signer in self.keys.get(&line).into_iter().flatten() {
            self.awake.extend(index.signed_by(signer));
        }
    }

    fn join(
        &mut self,
        index: &EntryIndex,
        round: u32,
        id: EntryId,
        (by, join): (Signer, &Join),
        withdrawn: Option<&Withdrawn>,
    ) {
        let Some(KeyHolder::Invite(invite)) = self.holder(&by) else { return };
        let Some(Saying::Invite(invite)) = index.get(&invite).map(|entry| &entry.says) else {
            return;
        };
        let line = invite.line.unwrap_or(id);
        self.begin(index, round, line, invite.admin, withdrawn);
        self.lines.entry(line).or_default().joins.insert(id);
        self.learn(index, join.keys.signing, KeyHolder::Node(line, 0));
    }

    fn begin(
        &mut self,
        index: &EntryIndex,
        round: u32,
        line: EntryId,
        admin: bool,
        withdrawn: Option<&Withdrawn>,
    ) {
        self.awake.extend(index.resting_on(&line));
        self.lines.entry(line).or_default().begins_as_admin |= admin;
        let decided = withdrawn.and_then(|withdrawn| withdrawn.is_admin(line));
        if decided.unwrap_or(admin) && withdrawn.is_none_or(|withdrawn| !withdrawn.is_gone(line)) {
            self.make_admin(index, round, line);
        }
    }
}

/// Whether the invite is for a node there.
fn invites(invite: &Invite, site: &Site) -> bool {
    invite.name.as_ref().is_none_or(|name| *name == site.name) && not_invited(invite, site).is_none()
}
