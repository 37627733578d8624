//! What others see of a pair: what it wants in the kernel and done, and how it stands.

use std::time::Instant;

use super::{Order, PairMachine};
use crate::protect::child::Child;
use crate::protect::plan::Desired;
use crate::protect::policies;
use crate::protect::reason::PairReason;
use crate::protect::timing::{TRIAL_IN, TRIAL_OUT};
use crate::types::{Action, Limits, Pair, ReasonCode, RowState, Sa, SaId, Spi};

impl PairMachine {
    /// What the pair wants done, oldest first.
    pub fn poll_order(&mut self) -> Option<Order> {
        let order = self.orders.pop_front();
        if order.is_none() {
            // There are thousands of pairs, most of which want nothing for hours.
            self.orders.shrink_to_fit();
        }
        order
    }

    /// When [`PairMachine::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.wake
    }

    /// What the kernel should hold for this pair alone.
    pub fn desired(&self) -> Desired {
        let mut desired = Desired::default();
        if self.way.is_off() || self.place.is_away() {
            return desired;
        }
        for child in self.children.iter() {
            child.desired(&mut desired.fresh, &mut desired.keep);
        }
        self.unproven.desired(&mut desired);
        desired.keep.extend(self.inherited.ids());
        let until = |after| self.ends().map(|end| end + after);
        let (action, lasts) = match self.is_sealed() {
            true => (Action::Require, until(TRIAL_IN)),
            false => (Action::Accept, None),
        };
        // Before the first SA what comes in is clear anyway.
        let keyless = desired.fresh.is_empty() && desired.keep.is_empty();
        let untouched = self.way.is_on() && self.way.left().is_none() && keyless;
        if self.is_sealed() || !untouched {
            desired.policies.extend(policies::inbound(self.pair, action).map(|policy| policy.lasting(lasts)));
        }
        let block = self.is_sealed().then_some(Action::Block);
        let outbound = self.outbound.named().map(|through| Action::Seal { through }).or(block);
        let outbound = outbound.map(|action| policies::outbound(self.pair, action));
        desired.policies.extend(outbound.map(|policy| policy.lasting(until(TRIAL_OUT))));
        desired
    }

    /// Which pair it is.
    pub fn pair(&self) -> Pair {
        self.pair
    }

    /// Whether nothing is left of the pair.
    pub fn is_off(&self) -> bool {
        self.way.is_off()
    }

    /// Whether the pair is wanted and accepts clear packets: whoever can send them may have an SA, too.
    pub fn takes_clear(&self) -> bool {
        self.way.is_on() && !self.is_sealed()
    }

    /// Whether packets leave as ESP in UDP; `None` where none leave as ESP, or through SAs of another agent alone.
    pub fn is_in_udp(&self) -> Option<bool> {
        self.current().map(Child::is_encapsulated)
    }

    /// Whether there is a child whose ESP goes by itself.
    pub fn goes_by_itself(&self) -> bool {
        self.children.iter().any(|child| !child.is_encapsulated())
    }

    /// Whether ESP in UDP was tried because ESP by itself did not get through.
    pub fn has_evaded(&self) -> bool {
        self.detour.was_tried()
    }

    /// Whether the last attempt at keys failed for this reason.
    pub fn has_failed_for(&self, code: ReasonCode) -> bool {
        self.failing.keys() == Some(&PairReason::NoKeys(code))
    }

    /// Our name of the child that both ends send through.
    pub fn settled_child(&self) -> Option<Spi> {
        self.settled().map(Child::in_spi)
    }

    /// The outbound SA of that child, and what the peer wants to find in what proves it.
    pub fn way_to_peer(&self) -> Option<(Sa, [u8; 16])> {
        self.settled().and_then(Child::way_to_peer)
    }

    /// Whether that child is proven both ways, once more where that was asked for.
    pub fn is_proven(&self) -> bool {
        self.settled().is_some_and(Child::is_proven)
    }

    /// The inbound SA of the child that `token` belongs to, and the way back through it.
    pub fn way_back(&self, token: &[u8; 16]) -> Option<(SaId, Sa, [u8; 16])> {
        let child = self.children.iter().find(|child| child.is_meant_by(token))?;
        let (sa, their_token) = child.way_to_peer()?;
        Some((child.incoming().lead().id(), sa, their_token))
    }

    /// The children whose SAs have another replay window or other limits than these, by our names.
    pub fn outdated(&self, replay_window: u32, limits: Limits) -> Vec<Spi> {
        let fits = |sa: &Sa| (sa.replay_window, sa.limits) == (replay_window, limits);
        let outdated =
            self.children.iter().filter(|child| child.is_known() && !fits(child.incoming().lead()));
        outdated.map(Child::in_spi).collect()
    }

    /// The child that an SA belongs to, by our name.
    pub fn child_of(&self, id: SaId) -> Option<Spi> {
        self.children.iter().find(|child| child.owns(id)).map(Child::in_spi)
    }

    /// The SAs of the children, each with our name of its child.
    pub fn sas_of_children(&self) -> impl Iterator<Item = (Spi, SaId)> {
        let of_one =
            |child: &Child| (child.in_spi(), child.incoming().ids().chain(child.outgoing().ids()).collect());
        let named = self.children.iter().map(of_one);
        named.flat_map(|(name, ids): (Spi, Vec<SaId>)| ids.into_iter().map(move |id| (name, id)))
    }

    /// All of its SAs that this host knows of, those of an agent before this one too.
    pub fn sas(&self) -> impl Iterator<Item = SaId> {
        self.sas_of_children().map(|(_, id)| id).chain(self.inherited.ids())
    }

    /// Inbound SAs whose soft limits the kernel does not watch, as it reports their first packet instead.
    pub fn unwatched(&self) -> impl Iterator<Item = SaId> {
        self.children
            .iter()
            .filter(|child| child.reports_first_packet())
            .flat_map(|child| child.incoming().ids())
    }

    /// How the pair stands.
    pub fn row_state(&self) -> RowState {
        self.shown.0
    }

    /// Since when all attempts at keys have failed.
    pub fn failing_since(&self) -> Option<Instant> {
        self.failing.since()
    }

    /// Since when it stands so.
    pub fn since(&self) -> Instant {
        self.shown.1
    }
}
