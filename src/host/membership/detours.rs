//! Members that have moved, and those that have not heard of it: they are talked to where they were before, or from where
//! this node was or is now, until they are met where the roster says that they are.
//!
//! ```text
//! this node                             the other one
//! knows where the other one is now      has not heard of that: it listens, and calls from, where it was
//! has moved                             has not heard of that: it listens for this node, and calls it, where that was
//! has not heard that it has moved,      knows where this node is now
//! and has its addresses no more
//! ```
//! All this is for control IKE SAs alone. Who is at an address proves the key of the member, or is nobody.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use super::{Membership, pair};
use crate::ike::{Engine, Purpose};
use crate::roster::{EntryId, Member};
use crate::types::{Pair, host_address};

/// From so many addresses a node calls the others that has its own ones no more.
const STRAYS_MAX: usize = 8;
/// By so many pairs besides the one of the roster a member is tried.
const DETOURS_MAX: usize = 16;

impl Membership {
    /// This host has these addresses now.
    pub fn handle_here(&mut self, now: Instant, engine: &mut Engine, here: &BTreeSet<IpAddr>) {
        if self.here != *here {
            self.here.clone_from(here);
            self.keep(now, engine);
        }
    }

    /// The addresses from which this node talks to others.
    pub fn sources(&self) -> BTreeSet<IpAddr> {
        self.kept.keys().map(|pair| pair.local).collect()
    }

    /// The pair by which the roster says that a member is talked to.
    pub(super) fn place_of(&self, line: EntryId) -> Option<Pair> {
        let view = self.roster.view();
        pair(view.member(self.own)?, view.member(line)?)
    }

    /// The pair on which a member can be talked to.
    pub(super) fn speaks_on(&self, engine: &Engine, line: EntryId) -> Option<Pair> {
        let stands = |pair: &Pair| engine.control(*pair, Purpose::Control).is_some_and(|it| it.sessions > 0);
        let pairs = self.kept.iter().filter(|(_, of)| **of == line).map(|(pair, _)| *pair);
        pairs.filter(stands).max_by_key(|pair| self.place_of(line) == Some(*pair))
    }

    /// Looks again which pairs it takes, where one of both has moved.
    pub(super) fn keep_if_moved(&mut self, now: Instant, engine: &mut Engine, line: EntryId) {
        let view = self.roster.view();
        let moved = |line| view.member(line).is_some_and(|member| !member.formerly.is_empty());
        if moved(line) || moved(self.own) {
            self.keep(now, engine);
        }
    }

    /// The other pairs by which `member` may be reached: the likeliest of them. Both ends choose the same, but for those of
    /// `strays`.
    pub(super) fn detours(&self, own: &Member, member: &Member, strays: &[IpAddr]) -> BTreeSet<Pair> {
        let place = pair(own, member);
        let strays = match place {
            Some(Pair { local, .. }) if self.is_away(own, local) => strays,
            _ if place.is_some() && self.met.get(&member.line) == place.as_ref() => return BTreeSet::new(),
            _ => &[],
        };
        let (here, there) = (place.map(|it| it.local), place.map(|it| it.remote));
        let is_stray = |pair: &Pair| strays.contains(&pair.local);
        // Where only one of both has moved, one end is where the roster says.
        let has_missed_two = |pair: &Pair| Some(pair.local) != here && Some(pair.remote) != there;
        let order = |pair: &Pair| {
            let Pair { local, remote } = *pair;
            (has_missed_two(pair), !is_stray(pair), local.min(remote), local.max(remote))
        };
        let remotes: Vec<IpAddr> = member.formerly.iter().copied().chain(there).collect();
        let locals = own.formerly.iter().chain(strays).copied().chain(here);
        let pairs =
            locals.flat_map(|local| remotes.iter().filter_map(move |remote| Pair::new(local, *remote)));
        let mut pairs: Vec<Pair> = pairs.filter(|pair| Some(*pair) != place).collect();
        pairs.sort_by_key(order);
        pairs.dedup();
        pairs.into_iter().take(DETOURS_MAX).collect()
    }

    /// Whether this host does not have the address that the others know as `listed`.
    fn is_away(&self, own: &Member, listed: IpAddr) -> bool {
        let address = own.site.inside.get(&listed).unwrap_or(&listed);
        !self.here.is_empty() && !self.here.contains(address)
    }

    /// The addresses that this host has and nobody has by the roster.
    pub(super) fn strays(&self) -> Vec<IpAddr> {
        let view = self.roster.view();
        let members = view.members.iter().filter(|member| member.line != self.own);
        let taken = members.flat_map(|member| &member.site.addresses);
        let taken = taken.chain(view.floating.iter().flat_map(|it| &it.says.addresses));
        let mut free = self.here.clone();
        free.retain(|address| host_address::wrong(*address).is_none());
        for address in taken {
            free.remove(address);
        }
        free.into_iter().take(STRAYS_MAX).collect()
    }
}
