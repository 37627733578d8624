//! Whose entries count: who is in, by whom, and which keys are whose.
//!
//! Everything follows from the first entry, round by round: a round finds the entries that what the rounds before have
//! found allows. So the order in which entries came plays no part.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::index::{ByKey, ByPlace, EntryIndex, EntryPlace, KeyPlace};
use super::octets::{EntryId, Signer};
use super::redeem::not_invited;
use super::saying::{DesiredProtection, Invite, Saying, Site, Statement};
use super::withdrawn::Withdrawn;

/// How often a node can change its keys.
pub const KEYS_MAX: u32 = 64;

/// Whose a key is; nodes and invites by their entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyHolder<Of = EntryId> {
    /// The key that was printed when the cluster was founded.
    Recovery,
    /// This invite's.
    Invite(Of),
    /// A node's, by its first entry, and after so many others.
    Node(Of, u32),
}

/// A node, from its first entry on.
#[derive(Debug, Default)]
pub(super) struct NodeLine {
    /// The entries by which it has joined: more than one where an invite was used twice.
    pub joins: Vec<EntryPlace>,
    /// It is an admin by how it came.
    pub begins_as_admin: bool,
    /// Its signing keys.
    keys: Vec<KeyPlace>,
}

/// What counts of the entries of an index.
#[derive(Debug)]
pub(super) struct Tally {
    index: Arc<EntryIndex>,
    /// The rounds in which the entries that count were found.
    counted: ByPlace<Option<u32>>,
    /// The entries of nodes that join and were admitted by a member.
    admitted: ByPlace<bool>,
    holders: ByKey<Option<KeyHolder<EntryPlace>>>,
    lines: BTreeMap<EntryPlace, NodeLine>,
    /// The lines that are admins, each with the round in which that was found.
    admins: BTreeMap<EntryPlace, u32>,
    /// The entries that the last round may have made count.
    awake: Vec<EntryPlace>,
}

/// What nobody has taken back: the rights of who was an admin ever, and those who are gone.
pub(super) fn without_withdrawals(index: &Arc<EntryIndex>) -> Tally {
    Tally::find(index, None, |_| true)
}

impl Tally {
    /// What counts where `withdrawn` was taken back; where nothing was, all rights that were ever given are had. An entry
    /// that may count is asked about with `holds` before it does.
    pub fn find(
        index: &Arc<EntryIndex>,
        withdrawn: Option<&Withdrawn>,
        mut holds: impl FnMut(EntryPlace) -> bool,
    ) -> Self {
        let mut tally = Self {
            index: Arc::clone(index),
            counted: index.for_each(None),
            admitted: index.for_each(false),
            holders: index.for_each_key(None),
            lines: BTreeMap::new(),
            admins: BTreeMap::new(),
            awake: index.founding().to_vec(),
        };
        for round in 0.. {
            let mut found = std::mem::take(&mut tally.awake);
            found.sort_unstable();
            found.dedup();
            found.retain(|at| !tally.counts_at(*at) && tally.allows(*at, withdrawn) && holds(*at));
            if found.is_empty() {
                break;
            }
            found.into_iter().for_each(|at| tally.count(index, round, at, withdrawn));
        }
        tally
    }

    /// The entries of which this says what counts.
    pub fn index(&self) -> &Arc<EntryIndex> {
        &self.index
    }

    /// Whether an entry counts.
    pub fn counts(&self, id: EntryId) -> bool {
        self.index.place(&id).is_some_and(|at| self.counts_at(at))
    }

    /// Whether the entry there counts.
    pub fn counts_at(&self, at: EntryPlace) -> bool {
        self.counted.get(at).is_some()
    }

    /// The entries that count.
    pub fn counted(&self) -> impl Iterator<Item = (EntryPlace, &Statement)> {
        let counted = self.index.places().filter(|at| self.counts_at(*at));
        counted.map(|at| (at, self.index.statement(at)))
    }

    /// Those of `ids` that are there: those that count, of which those first that others follow from, and then the others.
    pub fn order(&self, ids: impl IntoIterator<Item = EntryId>) -> Vec<EntryId> {
        let there = ids.into_iter().filter_map(|id| {
            let round = *self.counted.get(self.index.place(&id)?);
            Some((round.is_none(), round, id))
        });
        let mut there: Vec<(bool, Option<u32>, EntryId)> = there.collect();
        there.sort_unstable();
        there.into_iter().map(|(_, _, id)| id).collect()
    }

    /// Whose `signer` is.
    pub fn holder(&self, signer: &Signer) -> Option<KeyHolder> {
        Some(match self.holder_of(self.index.key(signer)?)? {
            KeyHolder::Recovery => KeyHolder::Recovery,
            KeyHolder::Invite(invite) => KeyHolder::Invite(self.index.id(invite)),
            KeyHolder::Node(line, after) => KeyHolder::Node(self.index.id(line), after),
        })
    }

    /// Whose the key there is.
    pub fn holder_of(&self, key: KeyPlace) -> Option<KeyHolder<EntryPlace>> {
        *self.holders.get(key)
    }

    /// The node whose key `signer` is.
    pub fn line_of(&self, signer: &Signer) -> Option<EntryId> {
        match self.holder(signer)? {
            KeyHolder::Node(line, _) => Some(line),
            KeyHolder::Recovery | KeyHolder::Invite(_) => None,
        }
    }

    /// The nodes that were ever in, by their first entries.
    pub fn lines(&self) -> impl Iterator<Item = (EntryPlace, &NodeLine)> {
        self.lines.iter().map(|(at, line)| (*at, line))
    }

    /// The node with this first entry.
    pub fn line(&self, id: EntryId) -> Option<&NodeLine> {
        self.lines.get(&self.index.place(&id)?)
    }

    /// Whether the node is an admin.
    pub fn is_admin(&self, line: EntryId) -> bool {
        self.index.place(&line).is_some_and(|line| self.is_admin_at(line))
    }

    /// Whether the node whose first entry is there is an admin.
    pub fn is_admin_at(&self, line: EntryPlace) -> bool {
        self.admins.contains_key(&line)
    }

    /// Whether there is an admin.
    pub fn has_admins(&self) -> bool {
        !self.admins.is_empty()
    }

    /// The admins, the most senior first.
    pub fn by_seniority(&self) -> Vec<EntryId> {
        let mut admins: Vec<(u32, EntryPlace)> =
            self.admins.iter().map(|(line, round)| (*round, *line)).collect();
        admins.sort_unstable();
        admins.into_iter().map(|(_, line)| self.index.id(line)).collect()
    }

    /// Whether who signed the entry may say what it says, as far as is known.
    pub fn allows(&self, at: EntryPlace, withdrawn: Option<&Withdrawn>) -> bool {
        let undecided =
            |withdrawn: &Withdrawn| withdrawn.is_undecided(self.index.id(at), self.index.statement(at));
        !withdrawn.is_some_and(undecided) && self.may_say(at, withdrawn)
    }

    /// Whether who signed the entry may say what it says, whatever was decided about who is gone by it.
    pub fn may_say(&self, at: EntryPlace, withdrawn: Option<&Withdrawn>) -> bool {
        let (id, entry) = (self.index.id(at), self.index.statement(at));
        if let Saying::Genesis(_) = entry.says {
            return true;
        }
        match self.holder_of(self.index.signer(at)) {
            None => false,
            Some(KeyHolder::Recovery) => {
                matches!(entry.says, Saying::Rights(_) | Saying::Gone(_) | Saying::Later(_))
            }
            Some(KeyHolder::Invite(invite)) => {
                *self.admitted.get(at)
                    && self.is_invited(invite, entry)
                    && withdrawn
                        .is_none_or(|withdrawn| withdrawn.leaves_join(self.index.id(invite), entry, id))
            }
            Some(KeyHolder::Node(line, after)) => {
                withdrawn.is_none_or(|withdrawn| withdrawn.leaves(self.index.id(line), id, entry))
                    && self.node_may((line, after), at, withdrawn)
            }
        }
    }

    fn node_may(
        &self,
        (line, after): (EntryPlace, u32),
        at: EntryPlace,
        withdrawn: Option<&Withdrawn>,
    ) -> bool {
        let (id, entry) = (self.index.id(at), self.index.statement(at));
        let own = self.index.id(line);
        let kept = || withdrawn.is_some_and(|withdrawn| withdrawn.keeps(own, id));
        let entitled = self.is_admin_at(line) || kept();
        match &entry.says {
            Saying::Later(_) => true,
            Saying::Keys(_) => after < KEYS_MAX,
            Saying::Retired(_) => after > 0,
            // The entry of the node may come later, but it is nothing else.
            Saying::Admission(_) => {
                let of = self.index.about(at).map(|of| &self.index.statement(of).says);
                of.is_none_or(|of| matches!(of, Saying::Join(_)))
            }
            Saying::Gone(gone) if gone.of == own => true,
            Saying::Rights(rights) if rights.of == own => false,
            // Whoever names a basis rests on it: others take it up from there.
            Saying::Desired(desired) if desired.on && (!entitled || entry.basis.is_some()) => {
                self.takes_up(at, desired)
            }
            Saying::Desired(_) => entitled && entry.basis.is_none(),
            Saying::Node(listed) => entitled && listed.line.is_none_or(|line| self.line(line).is_some()),
            Saying::Genesis(_) | Saying::Join(_) => false,
            _ => entitled,
        }
    }

    /// Whether the version of who is no admin rests on one of an admin, and what it says goes back to no less than that
    /// one does.
    fn takes_up(&self, at: EntryPlace, desired: &DesiredProtection) -> bool {
        let entry = self.index.statement(at);
        if entry.basis.is_none() {
            return entry.version.0 == 0;
        }
        let Some(basis) = self.index.about(at).filter(|basis| self.counts_at(*basis)) else { return false };
        let of = self.index.statement(basis);
        match &of.says {
            Saying::Desired(before) => {
                of.basis.is_none()
                    && of.version.0 == entry.version.0
                    && desired.lapses_to() >= before.lapses_to()
            }
            _ => false,
        }
    }

    /// Whether the entry can come to count: a node that joins is not admitted before its entry is there.
    pub fn can_allow(&self, at: EntryPlace) -> bool {
        match self.holder_of(self.index.signer(at)) {
            Some(KeyHolder::Invite(invite)) => self.is_invited(invite, self.index.statement(at)),
            _ => self.allows(at, None),
        }
    }

    /// Whether an invite is for this node.
    fn is_invited(&self, invite: EntryPlace, entry: &Statement) -> bool {
        let (Saying::Join(join), Saying::Invite(invite)) = (&entry.says, &self.index.statement(invite).says)
        else {
            return false;
        };
        let line = invite.line.is_none_or(|line| self.line(line).is_some());
        line && invites(invite, &join.site)
    }

    /// Whether a member has admitted the node that joins by the entry there.
    pub fn is_admitted(&self, join: EntryPlace) -> bool {
        *self.admitted.get(join)
    }

    /// Takes what follows from an entry that counts.
    fn count(&mut self, index: &EntryIndex, round: u32, at: EntryPlace, withdrawn: Option<&Withdrawn>) {
        *self.counted.at(at) = Some(round);
        self.awake.extend(index.resting_on(at));
        let entry = index.statement(at);
        match &entry.says {
            Saying::Genesis(genesis) => {
                self.begin(index, (round, at), true, withdrawn);
                self.learn(index, index.known(at), KeyHolder::Node(at, 0));
                self.learn(index, index.key(&genesis.recovery), KeyHolder::Recovery);
            }
            Saying::Node(listed) if listed.line.is_none() => {
                self.begin(index, (round, at), false, withdrawn);
            }
            Saying::Invite(_) => self.learn(index, index.known(at), KeyHolder::Invite(at)),
            Saying::Admission(_) => {
                if let Some(join) = index.about(at) {
                    *self.admitted.at(join) = true;
                    self.awake.push(join);
                }
            }
            Saying::Join(_) => self.join(index, (round, at), withdrawn),
            Saying::Keys(_) => {
                if let Some(KeyHolder::Node(line, after)) = self.holder_of(index.signer(at)) {
                    self.learn(index, index.known(at), KeyHolder::Node(line, after + 1));
                }
            }
            // Where nothing is decided, who was an admin ever is one.
            Saying::Rights(rights) if withdrawn.is_none() && rights.admin => {
                if let Some(line) = index.place(&rights.of) {
                    self.make_admin(index, round, line);
                }
            }
            _ => {}
        }
    }

    /// Whoever has made a key known first has it.
    fn learn(&mut self, index: &EntryIndex, key: Option<KeyPlace>, holder: KeyHolder<EntryPlace>) {
        let Some(key) = key else { return };
        let known = self.holders.at(key);
        if known.is_some() {
            return;
        }
        *known = Some(holder);
        if let KeyHolder::Node(line, _) = holder {
            self.lines.entry(line).or_default().keys.push(key);
        }
        self.awake.extend(index.signed_by(key));
    }

    fn make_admin(&mut self, index: &EntryIndex, round: u32, line: EntryPlace) {
        self.admins.entry(line).or_insert(round);
        let keys = self.lines.get(&line).map(|line| line.keys.as_slice()).unwrap_or_default();
        keys.iter().for_each(|key| self.awake.extend(index.signed_by(*key)));
    }

    fn join(&mut self, index: &EntryIndex, (round, at): (u32, EntryPlace), withdrawn: Option<&Withdrawn>) {
        let Some(KeyHolder::Invite(invite)) = self.holder_of(index.signer(at)) else { return };
        let Saying::Invite(invite) = &index.statement(invite).says else { return };
        let line = invite.line.map_or(Some(at), |line| index.place(&line));
        let Some(line) = line else { return };
        self.begin(index, (round, line), invite.admin, withdrawn);
        self.lines.entry(line).or_default().joins.push(at);
        self.learn(index, index.known(at), KeyHolder::Node(line, 0));
    }

    fn begin(
        &mut self,
        index: &EntryIndex,
        (round, at): (u32, EntryPlace),
        admin: bool,
        withdrawn: Option<&Withdrawn>,
    ) {
        self.awake.extend(index.resting_on(at));
        self.lines.entry(at).or_default().begins_as_admin |= admin;
        let line = index.id(at);
        let decided = withdrawn.and_then(|withdrawn| withdrawn.is_admin(line));
        if decided.unwrap_or(admin) && withdrawn.is_none_or(|withdrawn| !withdrawn.is_gone(line)) {
            self.make_admin(index, round, at);
        }
    }
}

/// Whether the invite is for a node there.
fn invites(invite: &Invite, site: &Site) -> bool {
    invite.name.as_ref().is_none_or(|name| *name == site.name) && not_invited(invite, site).is_none()
}
