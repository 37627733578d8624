//! Another look at what counts, written without the code that decides it: who entitled whom, back to the first entry.

use std::collections::{BTreeMap, BTreeSet};

use crate::roster::{EntryId, Roster, Saying, Signer, Statement};

/// What counts of a roster.
struct Oracle<'a> {
    roster: &'a Roster,
    counted: BTreeMap<EntryId, &'a Statement>,
    /// The entries for which no step back to the first one is missing.
    grounded: BTreeSet<EntryId>,
}

/// Panics where something counts that nobody entitled has signed, or where two nodes have the same.
pub fn look_at(roster: &Roster) {
    let counted = roster.in_order().filter(|entry| roster.counts(entry.id()));
    let counted: BTreeMap<_, _> = counted.map(|entry| (entry.id(), entry.statement())).collect();
    let mut oracle = Oracle { roster, counted, grounded: BTreeSet::new() };
    oracle.ground();
    for (id, entry) in &oracle.counted {
        assert!(oracle.grounded.contains(id), "nobody was entitled to say {entry:?}");
        oracle.nothing_of_the_removed(*id, entry);
        oracle.nothing_without_rights(*id, entry);
    }
    oracle.others_alone_call_compromised();
    oracle.everybody_has_their_own();
    oracle.members_are_entitled();
}

impl<'a> Oracle<'a> {
    fn ground(&mut self) {
        loop {
            let open = self.counted.iter().filter(|(id, _)| !self.grounded.contains(id));
            let found: Vec<EntryId> =
                open.filter(|(id, entry)| self.is_grounded(**id, entry)).map(|(id, _)| *id).collect();
            if found.is_empty() {
                return;
            }
            self.grounded.extend(found);
        }
    }

    fn known(&self) -> impl Iterator<Item = (EntryId, &'a Statement)> {
        self.grounded.iter().map(|id| (*id, self.counted[id]))
    }

    fn is_grounded(&self, id: EntryId, entry: &Statement) -> bool {
        let line = self.line_with(&entry.by);
        // An admin may have said since that it counts.
        let is_admin =
            || line.is_some_and(|line| self.was_made_admin(line) || self.is_kept_by_another(line, id));
        match &entry.says {
            Saying::Genesis(_) => EntryId::from(self.roster.cluster()) == id,
            Saying::Join(join) => {
                let admitted = self.known().any(
                    |(_, other)| matches!(&other.says, Saying::Admission(admission) if admission.of == id),
                );
                let invited = self.known().any(|(_, other)| match &other.says {
                    Saying::Invite(invite) => {
                        let named = invite.name.as_ref().is_none_or(|name| *name == join.site.name);
                        invite.key == entry.by && named
                    }
                    _ => false,
                });
                admitted && invited
            }
            Saying::Admission(_) | Saying::Keys(_) => line.is_some(),
            Saying::Retired(_) => {
                let follows = |(_, other): (EntryId, &Statement)| matches!(&other.says, Saying::Keys(keys) if keys.signing == entry.by);
                line.is_some() && self.known().any(follows)
            }
            Saying::Gone(gone) => line == Some(gone.of) || is_admin() || self.is_recovery(&entry.by),
            Saying::Rights(rights) => line != Some(rights.of) && is_admin() || self.is_recovery(&entry.by),
            Saying::Desired(desired) if desired.on && line.is_some() && !is_admin() => {
                let basis = entry.basis.and_then(|basis| self.counted.get(&basis));
                basis.map_or(entry.version.0 == 0, |basis| basis.version.0 == entry.version.0)
            }
            _ => is_admin(),
        }
    }

    fn is_recovery(&self, signer: &Signer) -> bool {
        self.known()
            .any(|(_, entry)| matches!(&entry.says, Saying::Genesis(first) if first.recovery == *signer))
    }

    /// The first entry of the node that has made `signer` known, or keys before it.
    fn line_with(&self, signer: &Signer) -> Option<EntryId> {
        let mut key = *signer;
        for _ in 0..100 {
            let by = |(id, entry): (EntryId, &Statement)| match &entry.says {
                Saying::Genesis(first) if first.keys.signing == key => Some(Ok(id)),
                Saying::Join(join) if join.keys.signing == key => Some(Ok(self.joined_as(id, &entry.by))),
                Saying::Keys(keys) if keys.signing == key => Some(Err(entry.by)),
                _ => None,
            };
            match self.known().find_map(by)? {
                Ok(line) => return Some(line),
                Err(before) => key = before,
            }
        }
        None
    }

    fn joined_as(&self, join: EntryId, token: &Signer) -> EntryId {
        let line = self.known().find_map(|(_, entry)| match &entry.says {
            Saying::Invite(invite) if invite.key == *token => invite.line,
            _ => None,
        });
        line.unwrap_or(join)
    }

    /// Whether anybody has ever made the node an admin.
    fn was_made_admin(&self, line: EntryId) -> bool {
        self.known().any(|(id, entry)| match &entry.says {
            Saying::Genesis(_) => id == line,
            Saying::Rights(rights) => rights.of == line && rights.admin,
            Saying::Join(_) if self.joined_as(id, &entry.by) == line => self.known().any(
                |(_, other)| matches!(&other.says, Saying::Invite(invite) if invite.key == entry.by && invite.admin),
            ),
            _ => false,
        })
    }

    /// Whether somebody who counts says that `id` is kept of this node: others where one has taken it out, and where one of
    /// those says that its keys are in other hands, those alone.
    fn is_kept(&self, line: EntryId, id: EntryId) -> bool {
        let weight = |entry: &Statement| match &entry.says {
            Saying::Gone(gone) if gone.of == line => {
                let by_another = self.line_with(&entry.by) != Some(line);
                Some((by_another, by_another && gone.compromised))
            }
            _ => None,
        };
        let heaviest = self.counted.values().filter_map(|entry| weight(entry)).max();
        self.counted.values().any(|entry| match &entry.says {
            Saying::Gone(gone) => weight(entry) == heaviest && gone.of == line && gone.kept.contains(&id),
            Saying::Rights(rights) => rights.of == line && rights.kept.contains(&id),
            _ => false,
        })
    }

    fn is_kept_by_another(&self, line: EntryId, id: EntryId) -> bool {
        self.known().any(|(_, entry)| {
            let (of, kept) = match &entry.says {
                Saying::Gone(gone) => (gone.of, &gone.kept),
                Saying::Rights(rights) => (rights.of, &rights.kept),
                _ => return false,
            };
            of == line && kept.contains(&id) && self.line_with(&entry.by) != Some(line)
        })
    }

    /// Whether it gives rights, and who has them takes something back: that one keeps what it has them by.
    fn is_a_grant(&self, entry: &Statement) -> bool {
        let takes = self
            .counted
            .values()
            .any(|other| matches!(other.says, Saying::Gone(_) | Saying::Rights(_)) && other.by != entry.by);
        takes
            && matches!(
                entry.says,
                Saying::Invite(_) | Saying::Admission(_) | Saying::Rights(_) | Saying::Node(_)
            )
    }

    fn nothing_of_the_removed(&self, id: EntryId, entry: &Statement) {
        let Some(line) = self.line_with(&entry.by) else { return };
        if !self.roster.view().removed.iter().any(|removed| removed.line == line) {
            return;
        }
        let gone = self
            .counted
            .values()
            .filter(|other| matches!(&other.says, Saying::Gone(gone) if gone.of == line));
        let by_itself = gone.clone().all(|other| self.line_with(&other.by) == Some(line));
        let of_use = match &entry.says {
            Saying::Admission(_) => true,
            Saying::Desired(desired) => desired.on,
            _ => false,
        };
        let own = matches!(&entry.says, Saying::Gone(gone) if gone.of == line);
        let founds = matches!(entry.says, Saying::Genesis(_) | Saying::Keys(_));
        let stays =
            own || founds || (by_itself && of_use) || self.is_kept(line, id) || self.is_a_grant(entry);
        assert!(gone.count() > 0 && stays, "what a removed node said counts: {entry:?}");
    }

    fn others_alone_call_compromised(&self) {
        for removed in &self.roster.view().removed {
            let by_another = |entry: &&Statement| match &entry.says {
                Saying::Gone(gone) => {
                    gone.of == removed.line && gone.compromised && self.line_with(&entry.by) != Some(gone.of)
                }
                _ => false,
            };
            let said = self.counted.values().copied().any(|entry| by_another(&entry));
            assert_eq!(removed.compromised, said, "{} is called compromised", removed.site.name);
        }
    }

    fn nothing_without_rights(&self, id: EntryId, entry: &Statement) {
        let Some(line) = self.line_with(&entry.by) else { return };
        let view = self.roster.view();
        let out = view.held_out.iter().any(|out| out.line == line)
            || view.removed.iter().any(|removed| removed.line == line);
        let for_admins = match &entry.says {
            Saying::Genesis(_)
            | Saying::Join(_)
            | Saying::Admission(_)
            | Saying::Keys(_)
            | Saying::Retired(_) => false,
            Saying::Desired(desired) => !desired.on,
            Saying::Gone(gone) => gone.of != line,
            _ => true,
        };
        if for_admins && !out && !view.member(line).is_some_and(|member| member.admin) {
            assert!(self.is_kept(line, id) || self.is_a_grant(entry), "no admin has said {entry:?}");
        }
    }

    fn everybody_has_their_own(&self) {
        let (mut names, mut addresses, mut keys) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for member in &self.roster.view().members {
            assert!(names.insert(&member.site.name), "two have the name {}", member.site.name);
            let fresh = member.site.addresses.iter().all(|address| addresses.insert(*address));
            assert!(fresh, "somebody else has an address of {}", member.site.name);
            let own: BTreeSet<Signer> =
                member.keys.iter().flat_map(|keys| [keys.signing, keys.ike]).collect();
            assert!(
                own.into_iter().all(|key| keys.insert(key)),
                "somebody else has a key of {}",
                member.site.name
            );
        }
    }

    fn members_are_entitled(&self) {
        let view = self.roster.view();
        for member in &view.members {
            assert!(self.grounded.contains(&member.line), "nobody has let {} in", member.site.name);
            assert!(!member.admin || self.was_made_admin(member.line), "{} is no admin", member.site.name);
            assert!(!view.removed.iter().any(|removed| removed.line == member.line));
            let keys = member.keys.as_ref();
            assert!(keys.is_none_or(|keys| self.line_with(&keys.signing) == Some(member.line)));
        }
    }
}
