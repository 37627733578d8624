//! Whether a member admits a node that joins. Afterwards nobody asks again: it is here that the time and what others
//! have count.

use super::draft::NotEntitled;
use super::nodes::HeldOutBecause;
use super::octets::EntryId;
use super::roster::Roster;
use super::saying::{Invite, Join, Saying};
use crate::types::UnixTime;

impl Roster {
    /// That the node that joins by the entry `of` may be admitted now.
    pub(super) fn ensure_welcome(&self, of: EntryId, now: UnixTime) -> Result<(), NotEntitled> {
        let entry = self.get(of).ok_or(NotEntitled::NoNode)?.statement();
        let Saying::Join(join) = &entry.says else { return Err(NotEntitled::NoNode) };
        if self.counts(of) {
            return Ok(());
        }
        let open = self.view().invites.iter().find(|invited| invited.invite.key == entry.by);
        let invite = match open {
            Some(invited) => &invited.invite,
            None if self.is_a_token(&entry.by) => return Err(NotEntitled::TokenUsed),
            None => return Err(NotEntitled::TokenUnknown),
        };
        if invite.expires.0 < now.0 {
            return Err(NotEntitled::TokenExpired);
        }
        if invite.line.and_then(|line| self.view().member(line)).is_some_and(|member| member.keys.is_some()) {
            return Err(NotEntitled::TokenUsed);
        }
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
