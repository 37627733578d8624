//! What commands sign: a statement, with how new it is and what it replaces.

use std::collections::{BTreeMap, BTreeSet};

use super::nodes::HeldOutBecause;
use super::octets::{EntryId, Signer};
use super::roster::Roster;
use super::saying::{Gone, Listed, Matter, Rights, Saying, Statement, VERSION_MAX, Version};
use crate::types::UnixTime;

/// The most invites that are open at a time.
pub const INVITES_MAX: usize = 64;
/// The most names of entries that one entry lists: it has room for them.
const KEPT_AT_MOST: usize = 60;
/// The highest version that anybody honest reaches. What lies above is not kept of who is removed, so nobody uses up the
/// versions for good.
const VERSION_AT_MOST: u64 = VERSION_MAX / 2;

/// Why nobody may sign it, or not this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotEntitled {
    /// The key is of no member.
    #[error("this node is no member of the cluster")]
    NoMember,
    /// An admin has to sign it.
    #[error("only an admin may do that; the admins are {}", .0.join(", "))]
    NoAdmin(Vec<String>),
    /// No such node is there.
    #[error("there is no such node")]
    NoNode,
    /// A node does not change its own rights.
    #[error("a node does not change its own rights: run this on another admin node ({})", .0.join(", "))]
    OwnRights(Vec<String>),
    /// Nobody could take it back.
    #[error("this is the last admin: make another node an admin first (`hostseal admin add NODE`)")]
    LastAdmin,
    /// There are as many invites as there can be.
    #[error("{INVITES_MAX} tokens are open: wait until some have expired")]
    TooManyInvites,
    /// Nobody tells them anything until an admin decides, so they would know nobody's new keys.
    #[error(
        "{} would not know the new keys, as nobody talks to a node that is held out (`hostseal status --cluster` says why): \
         settle that first (`hostseal remove`)",
        .0.join(", ")
    )]
    NodesHeldOut(Vec<String>),
    /// They know the nodes by their keys, and nobody tells them new ones.
    #[error(
        "{} would not know the new keys: a node of other software, or one that has not joined, knows the nodes by the \
         keys that they have. Let it join, or take it out first (`hostseal remove`)",
        .0.join(", ")
    )]
    FixedKeys(Vec<String>),
    /// The keys before are still being replaced.
    #[error(
        "the last new keys are not in use everywhere yet: it waits for {} (`hostseal rotate --status`). Bring them up, or \
         remove who is not coming back (`hostseal remove`)",
        .0.join(", ")
    )]
    KeysBusy(Vec<String>),
    /// They have had as many keys as a node can have.
    #[error(
        "{} had new keys as often as a node can: remove it and let it join again (`hostseal remove`, `hostseal token \
         create`)",
        .0.join(", ")
    )]
    KeysSpent(Vec<String>),
    /// Nothing newer can be said.
    #[error(
        "there is no newer version: an admin has used them up, and has to be removed (`hostseal remove`)"
    )]
    NoVersion,
    /// No admin has made this token.
    #[error("no token of this cluster is like that: ask an admin for a new one (`hostseal token create`)")]
    TokenUnknown,
    /// An admin has taken it back.
    #[error("an admin has taken the token back: ask for a new one (`hostseal token create`)")]
    TokenTakenBack,
    /// It was good for one node.
    #[error("the token was used already: ask an admin for a new one (`hostseal token create`)")]
    TokenUsed,
    /// It was good for some time.
    #[error("the token has expired: ask an admin for a new one (`hostseal token create`)")]
    TokenExpired,
    /// A node that joins does not take what another one has.
    #[error("the node cannot join: {0}")]
    PlaceTaken(HeldOutBecause),
}

/// What is kept of a node that is taken out, of all that is in force.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// All: it goes by itself.
    Own,
    /// What names nothing as kept that nobody knows: it could be published afterwards.
    Known,
    /// Of that, what makes nodes what they are, and turns protection on: a thief may have said the rest.
    Nodes,
}

impl Keeping {
    fn all(own: bool) -> Self {
        if own { Self::Own } else { Self::Known }
    }
}

impl Roster {
    /// The statement by which the member with the key `by` says something now.
    ///
    /// # Errors
    /// It may not say that.
    pub fn draft(&self, by: Signer, says: Saying, now: UnixTime) -> Result<Statement, NotEntitled> {
        let mut statement =
            Statement { by, version: Version::default(), after: Vec::new(), basis: None, says };
        if !matches!(statement.says, Saying::Join(_)) {
            self.ensure_entitled(by, &statement.says)?;
        }
        match &statement.says {
            Saying::Keys(_) => {
                statement.basis = self.view().rotation.as_ref().map(|rotation| rotation.id);
                return Ok(statement);
            }
            Saying::Genesis(_) | Saying::Join(_) | Saying::Retired(_) | Saying::Gone(_) => {
                return Ok(statement);
            }
            Saying::Admission(admission) => {
                return self.ensure_welcome(admission.of, now).map(|()| statement);
            }
            Saying::Rotation(_) => self.ensure_rotates()?,
            Saying::Node(Listed { line: Some(line), .. }) if !self.has_node(*line) => {
                return Err(NotEntitled::NoNode);
            }
            Saying::Invite(_) => {
                let open = |invited: &&super::Invited| invited.invite.expires.0 >= now.0;
                if self.view().invites.iter().filter(open).count() >= INVITES_MAX {
                    return Err(NotEntitled::TooManyInvites);
                }
            }
            _ => {}
        }
        let matter = statement.matter();
        if !matches!(matter, Matter::Invite | Matter::Node(None)) {
            statement.after = self.heads(&matter);
            statement.after.truncate(KEPT_AT_MOST);
        }
        let is_admin = by == self.view().recovery || self.is_admin(by);
        let newest = self.newest_version(&matter);
        (statement.version, statement.basis) = match (is_admin, &self.view().desired) {
            (true, _) => (Version(newest.0 + 1, 0), None),
            (false, None) => (Version(0, 1), None),
            (false, Some(desired)) => {
                let entry = self.get(desired.id).map(|entry| entry.statement());
                let basis = entry.and_then(|entry| entry.basis);
                let by_admin = (desired.version.0 > 0 && basis.is_none()).then_some(desired.id);
                // On for good counts before all that is tried, whatever the second half says.
                let n = VERSION_MAX.min(desired.version.1 + 1);
                (Version(desired.version.0, n), basis.or(by_admin))
            }
        };
        self.lapse_to_the_basis(&mut statement);
        if matches!(statement.says, Saying::Invite(_)) {
            // Whoever joins by it has new keys already.
            statement.basis = self.view().rotation.as_ref().map(|rotation| rotation.id);
        }
        if is_admin && statement.version.0 > VERSION_AT_MOST {
            return Err(NotEntitled::NoVersion);
        }
        Ok(statement)
    }

    /// Who is no admin tries nothing that opens what was closed before.
    fn lapse_to_the_basis(&self, statement: &mut Statement) {
        let basis = statement.basis.and_then(|basis| self.get(basis)).map(|basis| &basis.statement().says);
        if let (Some(Saying::Desired(basis)), Saying::Desired(desired)) = (basis, &mut statement.says)
            && let Some(trial) = &mut desired.trial
        {
            trial.before |= basis.lapses_to();
        }
    }

    /// The statements that take out a node, with what of all that it has said still counts. One that is out already can
    /// be `compromised` besides: then less of it counts.
    ///
    /// # Errors
    /// `by` may not take it out, or it is not there.
    pub fn removal(
        &self,
        by: Signer,
        of: EntryId,
        compromised: bool,
        now: UnixTime,
    ) -> Result<Vec<Statement>, NotEntitled> {
        let is_out = compromised && self.view().removed.iter().any(|out| out.line == of && !out.compromised);
        if !self.has_node(of) && !is_out {
            return Err(NotEntitled::NoNode);
        }
        if let Some(says) = self.settles_token(of) {
            return self.draft_together(by, vec![says], now);
        }
        let own = self.line_of(&by) == Some(of);
        let mut says = if own { Vec::new() } else { self.said_again(of) };
        let kept = self.kept_in_parts(of, if compromised { Keeping::Nodes } else { Keeping::all(own) });
        says.extend(kept.into_iter().map(|kept| Saying::Gone(Gone { of, kept, compromised })));
        let mut drafts = self.draft_together(by, says, now)?;
        if is_out {
            // They count together, and not with those that have taken it out first.
            let about_it = |draft: &&mut Statement| draft.matter() == Matter::Gone(of);
            drafts.iter_mut().filter(about_it).for_each(|draft| draft.version.0 = 1);
        }
        Ok(drafts)
    }

    /// Of those who have used one token, this one is wrong: what takes back the token and keeps the others. `None` where it
    /// is none of those.
    fn settles_token(&self, of: EntryId) -> Option<Saying> {
        let out = self.view().held_out.iter().find(|out| out.line == of)?;
        let join = self.get(of).filter(|_| out.why == HeldOutBecause::TokenUsedTwice)?.statement();
        let by_token = |entry: &&super::SignedEntry| {
            entry.statement().by == join.by && matches!(entry.statement().says, Saying::Join(_))
        };
        let others = self.in_order().filter(by_token).map(super::SignedEntry::id);
        let kept = others.filter(|other| *other != of).take(KEPT_AT_MOST).collect();
        let of = self.invite_of(&join.by)?;
        Some(Saying::Gone(Gone { of, kept, compromised: false }))
    }

    /// The statements by which a node becomes an admin, or is none any more.
    ///
    /// # Errors
    /// `by` may not say so, or it is not there.
    pub fn rights(
        &self,
        by: Signer,
        of: EntryId,
        admin: bool,
        now: UnixTime,
    ) -> Result<Vec<Statement>, NotEntitled> {
        self.view().member(of).ok_or(NotEntitled::NoNode)?;
        if admin {
            let says = Saying::Rights(Rights { of, admin, kept: Vec::new() });
            return Ok(vec![self.draft(by, says, now)?]);
        }
        let own = self.line_of(&by) == Some(of);
        let mut says = if own { Vec::new() } else { self.said_again(of) };
        let kept = self.kept_in_parts(of, Keeping::all(own));
        says.extend(kept.into_iter().map(|kept| Saying::Rights(Rights { of, admin, kept })));
        self.draft_together(by, says, now)
    }

    /// Of several that take back the same, each says how many they are. Who is no admin takes nothing back from others,
    /// so it need not.
    fn draft_together(
        &self,
        by: Signer,
        says: Vec<Saying>,
        now: UnixTime,
    ) -> Result<Vec<Statement>, NotEntitled> {
        let drafts = says.into_iter().map(|says| self.draft(by, says, now));
        let mut drafts = drafts.collect::<Result<Vec<Statement>, NotEntitled>>()?;
        let mut parts: BTreeMap<Matter, u64> = BTreeMap::new();
        if by == self.view().recovery || self.is_admin(by) {
            drafts.iter().for_each(|draft| *parts.entry(draft.matter()).or_default() += 1);
        }
        for draft in &mut drafts {
            draft.version.1 = parts.get(&draft.matter()).copied().filter(|parts| *parts > 1).unwrap_or(0);
        }
        Ok(drafts)
    }

    /// What a node has taken back and that is said again, as it is not kept: it names as kept what nobody knows, and an
    /// accomplice could publish that when the node itself is out.
    fn said_again(&self, of: EntryId) -> Vec<Saying> {
        let mut again = Vec::new();
        for entry in self.said_by(of) {
            let says: Vec<Saying> = match &entry.statement().says {
                Saying::Gone(gone) if !self.all_count(&gone.kept) => {
                    let (of, compromised) = (gone.of, gone.compromised);
                    let kept = self.kept_in_parts(of, Keeping::Known).into_iter();
                    kept.map(|kept| Saying::Gone(Gone { of, kept, compromised })).collect()
                }
                Saying::Rights(Rights { of, admin: false, kept }) if !self.all_count(kept) => {
                    let kept = self.kept_in_parts(*of, Keeping::Known).into_iter();
                    kept.map(|kept| Saying::Rights(Rights { of: *of, admin: false, kept })).collect()
                }
                _ => Vec::new(),
            };
            again.extend(says);
        }
        let mut unique: Vec<Saying> = Vec::new();
        again.into_iter().for_each(|says| {
            if !unique.contains(&says) {
                unique.push(says);
            }
        });
        unique
    }

    fn all_count(&self, ids: &[EntryId]) -> bool {
        ids.iter().all(|id| self.counts(*id))
    }

    /// What a node has said and goes on counting without it, in parts that fit into an entry; at least one.
    fn kept_in_parts(&self, of: EntryId, keeping: Keeping) -> Vec<Vec<EntryId>> {
        let kept = self.kept(of, keeping);
        let parts: Vec<Vec<EntryId>> = kept.chunks(KEPT_AT_MOST).map(<[EntryId]>::to_vec).collect();
        if parts.is_empty() { vec![Vec::new()] } else { parts }
    }

    /// What a node has said and is in force: not what was replaced since, and no invite that nobody has used.
    fn kept(&self, of: EntryId, keeping: Keeping) -> Vec<EntryId> {
        let view = self.view();
        let unused: BTreeSet<EntryId> = view.invites.iter().map(|invited| invited.id).collect();
        let basis = view.desired.as_ref().and_then(|desired| self.get(desired.id)?.statement().basis);
        let known = |kept: &[EntryId]| keeping == Keeping::Own || self.all_count(kept);
        let in_force = |id: EntryId, statement: &Statement| match &statement.says {
            _ if statement.version.0 > VERSION_AT_MOST => false,
            // Who goes by itself keeps its word; for others, nobody vouches for what this version does not know.
            Saying::Later(_) => keeping == Keeping::Own,
            Saying::Invite(_) => !unused.contains(&id),
            Saying::Genesis(_) | Saying::Keys(_) | Saying::Retired(_) | Saying::Admission(_) => true,
            Saying::Gone(gone) => known(&gone.kept),
            Saying::Rights(rights) => known(&rights.kept) && self.is_newest(id, statement),
            Saying::Settings(_) | Saying::Rotation(_) | Saying::Floating(_) if keeping == Keeping::Nodes => {
                false
            }
            Saying::Desired(desired) if keeping == Keeping::Nodes && !desired.on => basis == Some(id),
            _ => basis == Some(id) || self.is_newest(id, statement),
        };
        let said = self.said_by(of).filter(|entry| in_force(entry.id(), entry.statement()));
        said.map(|entry| entry.id()).collect()
    }

    /// Whether nothing newer is said about the same: each first entry of a node is about something else.
    fn is_newest(&self, id: EntryId, statement: &Statement) -> bool {
        let matter = statement.matter();
        matter == Matter::Node(None) || self.heads(&matter).contains(&id)
    }

    fn newest_version(&self, matter: &Matter) -> Version {
        let about = self.in_order().map(|entry| (entry.id(), entry.statement()));
        // Where a node is now has to be newer than where it was at first.
        let first = |id: &EntryId| *matter == Matter::Node(Some(*id));
        let counted =
            about.filter(|(id, entry)| self.counts(*id) && (entry.matter() == *matter || first(id)));
        counted.map(|(_, entry)| entry.version).max().unwrap_or_default()
    }

    fn has_node(&self, line: EntryId) -> bool {
        let view = self.view();
        view.member(line).is_some() || view.held_out.iter().any(|out| out.line == line)
    }

    fn is_admin(&self, by: Signer) -> bool {
        self.line_of(&by).and_then(|line| self.view().member(line)).is_some_and(|member| member.admin)
    }

    /// That the node with the key `by` may admit others.
    pub(super) fn ensure_admits(&self, by: Signer) -> Result<(), NotEntitled> {
        let own = self.line_of(&by);
        own.and_then(|own| self.view().member(own)).map(drop).ok_or(NotEntitled::NoMember)
    }

    fn ensure_entitled(&self, by: Signer, says: &Saying) -> Result<(), NotEntitled> {
        let view = self.view();
        let is_last = |of: &EntryId| view.admins().all(|admin| admin.line == *of);
        let takes = match says {
            Saying::Gone(Gone { of, .. }) | Saying::Rights(Rights { of, admin: false, .. }) => Some(of),
            _ => None,
        };
        let own = self.line_of(&by);
        if by == view.recovery {
            return if matches!(says, Saying::Gone(_) | Saying::Rights(_)) {
                Ok(())
            } else {
                Err(self.not_admin())
            };
        }
        let member = own.and_then(|own| view.member(own)).ok_or(NotEntitled::NoMember)?;
        let is_own = matches!(says, Saying::Gone(gone) if gone.of == member.line);
        let is_any = matches!(says, Saying::Keys(_) | Saying::Retired(_) | Saying::Admission(_))
            || matches!(says, Saying::Desired(desired) if desired.on);
        if !member.admin && !is_any && !is_own {
            return Err(self.not_admin());
        }
        if takes.is_some_and(is_last) {
            return Err(NotEntitled::LastAdmin);
        }
        if matches!(says, Saying::Rights(rights) if rights.of == member.line) {
            let others = view.admins().filter(|admin| admin.line != member.line);
            return Err(NotEntitled::OwnRights(others.map(|admin| admin.site.name.to_string()).collect()));
        }
        Ok(())
    }

    fn not_admin(&self) -> NotEntitled {
        let names = self.view().admins().map(|admin| admin.site.name.to_string());
        NotEntitled::NoAdmin(names.collect())
    }
}
