//! The cluster that this host is a member of: its control IKE SAs come from the engine of the pairs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::Core;
use crate::host::membership::Membership;
use crate::identity::{PrivateKey, PublicKey};
use crate::ike::Engine;
use crate::roster::{Carried, EntryId, SignedEntry};
use crate::types::Bounds;

impl Core {
    /// Talks to the other members from now on, whether pairs are protected or not.
    pub fn take_part(&mut self, now: Instant, mut membership: Membership) {
        if let Some((then, wall)) = self.clock {
            membership.set_clock(then, wall, &mut self.engine);
        }
        membership.begin(now, &mut self.engine);
        self.membership = Some(membership);
    }

    /// What it knows of its cluster.
    pub fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// The same, to be asked what is new.
    pub fn membership_mut(&mut self) -> Option<&mut Membership> {
        self.membership.as_mut()
    }

    /// The same, for a core that follows.
    pub fn into_membership(self) -> Option<Membership> {
        self.membership
    }

    /// This host has these unicast addresses now: it may have others than its cluster knows.
    pub fn tell_members_of(&mut self, now: Instant, own: &BTreeSet<IpAddr>) {
        self.with_membership(|members, engine| members.handle_here(now, engine, own));
    }

    /// The addresses from which it talks to other members.
    pub fn member_sources(&self) -> BTreeSet<IpAddr> {
        self.membership.as_ref().map(Membership::sources).unwrap_or_default()
    }

    /// How full the tables are that others can fill, and what was refused.
    pub fn bounds(&self) -> Bounds {
        let refused = self.membership.as_ref().map(|members| members.refused().total());
        Bounds { entries_refused: refused.unwrap_or(0), ..self.engine.counters().into() }
    }

    /// Says how much more was refused of members, where nothing was said of that since.
    pub(super) fn tell_left_out_refusals(&mut self, now: Instant) {
        self.membership.iter_mut().for_each(|members| members.tell_left_out(now));
    }

    /// What is known of the cluster was written.
    pub fn handle_stored_roster(&mut self, now: Instant) {
        self.with_membership(|members, engine| members.handle_stored_roster(now, engine));
    }

    /// What this node has signed for somebody who joins, and is to be written.
    pub fn poll_signed(&mut self) -> Option<Vec<SignedEntry>> {
        self.membership.as_mut()?.poll_signed()
    }

    /// That could not be written.
    pub fn handle_not_written(&mut self, now: Instant, entries: &[SignedEntry]) {
        self.with_membership(|members, engine| members.handle_not_written(now, engine, entries));
    }

    /// This node has signed something, and that is written.
    pub fn handle_signed(&mut self, now: Instant, entries: &[SignedEntry]) {
        self.with_membership(|members, engine| members.handle_signed(now, engine, entries));
    }

    /// From now on this node signs with the first key, and proves itself to members with the second.
    pub fn change_keys(&mut self, now: Instant, signing: Arc<PrivateKey>, ike: Arc<PrivateKey>) {
        self.with_membership(|members, engine| {
            members.change_keys(signing, ike);
            members.look(now, engine);
        });
    }

    /// Whether this host proves itself with `key` where it does so with a key, and nothing rests on another one.
    pub fn proves_itself_with(&self, key: &PublicKey) -> bool {
        self.engine.proves_itself_with(key)
    }

    /// Entries have come from a store that members share. Says what came of them.
    pub fn handle_stored(&mut self, now: Instant, entries: &[Vec<u8>]) -> Carried {
        let mut carried = Carried::default();
        self.with_membership(|members, engine| carried = members.handle_stored(now, engine, entries));
        carried
    }

    /// Tells a member something that is not about rosters.
    pub fn say_aside(&mut self, now: Instant, line: EntryId, said: Vec<u8>) {
        self.with_membership(|members, engine| members.say_aside(now, engine, line, said));
    }

    /// Tells a member whatever a member that has gone bad can write.
    #[cfg(test)]
    pub fn tell_page(&mut self, now: Instant, pair: crate::types::Pair, page: Vec<u8>) {
        self.engine.tell(now, pair, crate::ike::Topic::Control, Arc::new(move |_| page.clone()));
    }

    /// Talks to all members, for a while. Says which of them may be reached soon.
    pub fn call_members(&mut self, now: Instant) -> BTreeSet<EntryId> {
        let mut far = BTreeSet::new();
        self.with_membership(|members, engine| far = members.call(now, engine));
        far
    }

    pub(super) fn go_on_with_members(&mut self, now: Instant) {
        let is_due = |members: &Membership| members.poll_timeout().is_some_and(|at| at <= now);
        if self.membership.as_ref().is_some_and(is_due) {
            self.with_membership(|members, engine| members.handle_timeout(now, engine));
        }
    }

    pub(super) fn with_membership(&mut self, input: impl FnOnce(&mut Membership, &mut Engine)) {
        if let Some(members) = &mut self.membership {
            input(members, &mut self.engine);
        }
    }
}
