//! Whether a member admits a node that joins. Afterwards nobody asks again: it is here that the time and what others
//! have count.

use std::net::IpAddr;

use super::draft::NotEntitled;
use super::entry::{SignedEntry, UncheckedEntry};
use super::nodes::HeldOutBecause;
use super::not_taken::NotTaken;
use super::octets::{EntryId, Signer};
use super::roster::Roster;
use super::saying::{Admission, Invite, Join, Saying, Site, Statement, Version};
use crate::types::{NodeName, UnixTime};

/// A node that may join, and what its member signs of it.
#[derive(Debug)]
pub struct Redeemed {
    /// What the node has signed.
    pub join: SignedEntry,
    /// What the member is to sign.
    pub admission: Statement,
}

/// Why a node is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRedeemed {
    /// Its entry is none, or not signed by its token and both of its keys.
    #[error("its entry is not taken: {0}")]
    Entry(NotTaken),
    /// The token is for another node.
    #[error("the token is for the node {0}")]
    OtherName(NodeName),
    /// The token is not for a node there.
    #[error("the token is not for a node at {0}")]
    OtherAddress(IpAddr),
    /// The token, or what the node says that it is.
    #[error(transparent)]
    NotEntitled(#[from] NotEntitled),
}

impl Roster {
    /// The node that joins by `octets`, with the token whose key is `invite`, where the member with the key `by` may admit
    /// it now. Nothing of it is in the roster yet.
    ///
    /// # Errors
    /// It may not join.
    pub fn redeem(
        &self,
        octets: &[u8],
        invite: Signer,
        by: Signer,
        now: UnixTime,
    ) -> Result<Redeemed, NotRedeemed> {
        let entry = UncheckedEntry::read(self.cluster(), octets).map_err(NotRedeemed::Entry)?;
        if entry.statement().by != invite {
            return Err(NotRedeemed::Entry(NotTaken::NotEntitled));
        }
        self.ensure_admits(by)?;
        self.ensure_invited(entry.id(), entry.statement(), now)?;
        let join = entry.check().map_err(NotRedeemed::Entry)?;
        let says = Saying::Admission(Admission { of: join.id() });
        let admission = Statement { by, version: Version::default(), after: Vec::new(), basis: None, says };
        Ok(Redeemed { join, admission })
    }

    /// That the token with this key is open now.
    ///
    /// # Errors
    /// It is not, or is none.
    pub fn open_invite(&self, key: &Signer, now: UnixTime) -> Result<&Invite, NotEntitled> {
        let open = self.view().invites.iter().find(|invited| invited.invite.key == *key);
        let invite = open.map(|invited| &invited.invite).ok_or_else(|| self.why_not_open(key))?;
        if invite.expires.0 < now.0 {
            return Err(NotEntitled::TokenExpired);
        }
        let taken_over = invite.line.and_then(|line| self.view().member(line));
        if taken_over.is_some_and(|member| member.keys.is_some()) {
            return Err(NotEntitled::TokenUsed);
        }
        Ok(invite)
    }

    /// The invites that admins have made and that are not over since longer than `grace` seconds, used or not.
    pub fn recent_invites(&self, now: UnixTime, grace: u64) -> impl Iterator<Item = &Invite> {
        let invites = self.in_order().filter(|entry| self.counts(entry.id()));
        let invites = invites.filter_map(|entry| match &entry.statement().says {
            Saying::Invite(invite) => Some(invite),
            _ => None,
        });
        invites.filter(move |invite| invite.expires.0.saturating_add(grace) >= now.0)
    }

    /// Whether an admin has made a token with this key, whatever has become of it.
    pub fn has_invite(&self, key: &Signer) -> bool {
        let is_its = |entry: &SignedEntry| {
            self.counts(entry.id())
                && matches!(&entry.statement().says, Saying::Invite(invite) if invite.key == *key)
        };
        self.in_order().any(is_its)
    }

    /// What a node has said when it joined, if that is in the roster.
    pub fn join_of(&self, id: EntryId) -> Option<(&Signer, &Join)> {
        let statement = self.get(id)?.statement();
        match &statement.says {
            Saying::Join(join) => Some((&statement.by, join)),
            _ => None,
        }
    }

    /// By which entries members have admitted the node that has joined by the entry `of`.
    pub fn admissions(&self, of: EntryId) -> impl Iterator<Item = &SignedEntry> {
        let admits = move |entry: &&SignedEntry| {
            self.counts(entry.id())
                && matches!(&entry.statement().says, Saying::Admission(admission) if admission.of == of)
        };
        self.in_order().filter(admits)
    }

    /// That the node that joins by the entry `of`, which is in the roster, may be admitted now.
    pub(super) fn ensure_welcome(&self, of: EntryId, now: UnixTime) -> Result<(), NotEntitled> {
        let entry = self.get(of).ok_or(NotEntitled::NoNode)?.statement();
        let Saying::Join(join) = &entry.says else { return Err(NotEntitled::NoNode) };
        if self.counts(of) {
            return Ok(());
        }
        let invite = self.open_invite(&entry.by, now)?;
        self.ensure_room(invite, join)
    }

    /// The same of an entry that need not be in the roster.
    fn ensure_invited(&self, id: EntryId, entry: &Statement, now: UnixTime) -> Result<(), NotRedeemed> {
        let Saying::Join(join) = &entry.says else { return Err(NotRedeemed::Entry(NotTaken::NotEntitled)) };
        if self.counts(id) {
            return Ok(());
        }
        let invite = self.open_invite(&entry.by, now)?;
        if let Some(name) = invite.name.as_ref().filter(|name| **name != join.site.name) {
            return Err(NotRedeemed::OtherName(name.clone()));
        }
        if let Some(address) = not_invited(invite, &join.site) {
            return Err(NotRedeemed::OtherAddress(address));
        }
        Ok(self.ensure_room(invite, join)?)
    }

    fn ensure_room(&self, invite: &Invite, join: &Join) -> Result<(), NotEntitled> {
        self.in_the_way(invite, join).map_or(Ok(()), |why| Err(NotEntitled::PlaceTaken(why)))
    }

    /// What others have of that which the node says it has.
    fn in_the_way(&self, invite: &Invite, join: &Join) -> Option<HeldOutBecause> {
        let view = self.view();
        let mut others = view.members.iter().filter(|member| Some(member.line) != invite.line);
        let has = |address| {
            let of_other = others.clone().any(|other| other.site.addresses.contains(address));
            let floats = view.floating.iter().any(|one| one.says.addresses.contains(address));
            of_other || (floats && invite.line.is_none())
        };
        if others.clone().any(|other| other.site.name == join.site.name) {
            return Some(HeldOutBecause::NameTaken);
        }
        if let Some(address) = join.site.addresses.iter().find(|address| has(address)) {
            return Some(HeldOutBecause::AddressTaken(*address));
        }
        let new = [join.keys.signing, join.keys.ike];
        let same = others.any(|other| {
            other.keys.as_ref().is_some_and(|keys| new.contains(&keys.signing) || new.contains(&keys.ike))
        });
        (same || self.line_of(&join.keys.signing).is_some()).then_some(HeldOutBecause::KeyTaken)
    }
}

/// The first address of a node for which the invite is not good.
pub(super) fn not_invited(invite: &Invite, site: &Site) -> Option<IpAddr> {
    let within =
        |address| invite.within.is_empty() || invite.within.iter().any(|net| net.0.contains(address));
    let listed = |address| invite.addresses.is_empty() || invite.addresses.contains(&address);
    site.addresses.iter().copied().find(|address| !within(*address) || !listed(*address))
}
