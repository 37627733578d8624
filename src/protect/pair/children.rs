//! The children of a pair, oldest first: their reports, how fast they succeed each other, how they end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{AdoptedSa, Order};
use crate::protect::child::Child;
use crate::protect::clock::Clock;
use crate::protect::report::{Flags, Report};
use crate::protect::timing::{DELETE_PATIENCE, OUT_GRACE};
use crate::types::{SaId, Spi, Through};

/// Children of one pair at a time: what a peer can make us hold.
const MAX_CHILDREN: usize = 8;

/// The children of a pair.
#[derive(Default)]
pub(super) struct Children {
    /// Oldest first.
    all: Vec<Child>,
    /// Our name of the one that the peer spoke of last.
    spoken_of: Option<Spi>,
    /// The one whose SAs have carried as much as they should, to be replaced when the pace allows.
    worn: Option<Spi>,
    /// When the newest was agreed.
    agreed: Option<Instant>,
}

impl Children {
    /// Oldest first.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Child> {
        self.all.iter()
    }

    /// Oldest first.
    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Child> {
        self.all.iter_mut()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn newest(&self) -> Option<&Child> {
        self.all.last()
    }

    /// The newest that the key exchange knows.
    pub(super) fn newest_known(&self) -> Option<&Child> {
        self.all.iter().rev().find(|child| child.is_known())
    }

    /// The one that we name so.
    pub(super) fn get_mut(&mut self, in_spi: Spi) -> Option<&mut Child> {
        self.all.iter_mut().find(|child| child.in_spi() == in_spi)
    }

    /// The one that sends through these SAs.
    pub(super) fn sending(&self, through: Through) -> Option<&Child> {
        self.position(Some(through)).map(|at| &self.all[at])
    }

    fn position(&self, through: Option<Through>) -> Option<usize> {
        self.all.iter().position(|child| Some(child.through()) == through)
    }

    /// Makes room for another child, if there is any. What is dead takes none: of the children that an end has deleted
    /// the oldest go at once, whatever may still be under way.
    pub(super) fn make_room(&mut self) -> bool {
        while self.all.len() >= MAX_CHILDREN
            && let Some(dead) = self.all.iter().position(Child::is_deleted)
        {
            self.all.remove(dead);
        }
        self.all.len() < MAX_CHILDREN
    }

    /// One that was just agreed.
    pub(super) fn add(&mut self, now: Instant, child: Child) {
        // Most have one, and there are thousands of pairs.
        self.all.reserve_exact(1);
        self.all.push(child);
        self.agreed = Some(now);
    }

    /// The peer reports on the child that we name so. `false` where there is none, or a newer report was heard.
    #[must_use]
    pub(super) fn hear(&mut self, now: Instant, in_spi: Spi, report: &Report, waited: Duration) -> bool {
        let heard = self.get_mut(in_spi).is_some_and(|child| child.hear(now, report, waited));
        if heard {
            self.spoken_of = Some(in_spi);
        }
        heard
    }

    fn last_spoken_of(&self) -> Option<usize> {
        self.all.iter().position(|child| Some(child.in_spi()) == self.spoken_of)
    }

    /// What the peer said last: of the child in use, or of one that its next agent made since.
    pub(super) fn last_word(&self, named: Option<Through>) -> Option<Flags> {
        let at = self.position(named).max(self.last_spoken_of());
        at.map(|at| *self.all[at].peer())
    }

    /// Whether the peer's kernel may go on sending ESP: it did when the peer spoke last.
    pub(super) fn peer_may_send(&self) -> bool {
        self.last_spoken_of().is_some_and(|at| self.all[at].peer_may_send())
    }

    /// Whether the peer has said that its kernel sends no more ESP. A peer that is not hostseal says nothing.
    pub(super) fn peer_has_stopped(&self) -> bool {
        let silent = |at: usize| !self.all[at].is_foreign() && !self.all[at].peer_may_send();
        self.last_spoken_of().is_some_and(silent)
    }

    /// The SAs of this one have carried as much as they should.
    pub(super) fn wear(&mut self, in_spi: Spi) {
        self.worn = Some(in_spi);
    }

    /// Whether one is worn and still to be replaced.
    pub(super) fn has_worn(&self) -> bool {
        self.worn.is_some()
    }

    /// The worn one, when its successor is due: not faster than after `pace`, or the SAs of those before would pile up.
    pub(super) fn replace_worn(&mut self, clock: &mut Clock, pace: Duration) -> Option<Spi> {
        let worn = self.worn?;
        // One that has been replaced meanwhile is on its way out.
        let current = self.newest().is_some_and(|newest| newest.in_spi() == worn && newest.is_known());
        let due = current && self.agreed.is_none_or(|agreed| clock.due(agreed + pace));
        if due || !current {
            self.worn = None;
        }
        due.then_some(worn)
    }

    /// The outbound SAs to send through: those of the newest child that may be used; of one that the key exchange has
    /// forgotten only if there is no other. The end that initiates by rule `leads`: the other follows it to the child
    /// that it sends through, so both settle on the same one however messages crossed.
    pub(super) fn choose(&self, leads: bool) -> Option<Through> {
        let newest = |wanted: &dyn Fn(&Child) -> bool| {
            self.all.iter().rev().find(|child| child.is_usable() && wanted(child)).map(Child::through)
        };
        let led = if leads { None } else { newest(&|child| child.peer().sending && child.is_known()) };
        led.or_else(|| newest(&Child::is_known)).or_else(|| newest(&|_| true))
    }

    /// This end sends through these SAs from now on.
    pub(super) fn take_up(&mut self, through: Option<Through>) {
        if let Some(at) = self.position(through) {
            self.all[at].take_up();
        }
    }

    /// Both ends send through the child of these outbound SAs. Answers our name of it when that is new.
    pub(super) fn settle(&mut self, now: Instant, through: Through) -> Option<Spi> {
        let at = self.position(Some(through))?;
        for (other, child) in self.all.iter_mut().enumerate() {
            child.note_settled(now, other == at, other < at);
        }
        self.all[at].announce().then(|| self.all[at].in_spi())
    }

    /// Tells the peer what it does not know yet. Children on their way out are reported once more, when this end no
    /// longer sends through them: the one that it sends through may be of a session that does not get through.
    /// `named` is what the outbound policy should name, `confirmed` what it names; `open` and `trial` are the pair's.
    pub(super) fn speak(
        &mut self,
        clock: &mut Clock,
        [named, confirmed]: [Option<Through>; 2],
        open: bool,
        trial: Option<Instant>,
        orders: &mut VecDeque<Order>,
    ) {
        let from = self.position(named);
        for (at, child) in self.all.iter_mut().enumerate() {
            let sending = confirmed == Some(child.through());
            let leaves = from.is_some_and(|from| at < from);
            if !child.is_pending()
                && (!leaves || child.is_said_to_send())
                && let Some((report, waits)) = child.news(clock, sending, open, trial)
            {
                orders.push_back(Order::Tell { in_spi: child.in_spi(), report, waits });
            }
        }
    }

    /// A child whose SAs somebody has taken out of the kernel is of no use once another has been agreed: the peer is
    /// not to count it.
    fn bury(&mut self, orders: &mut VecDeque<Order>) {
        let newest = self.all.iter().rposition(Child::is_known);
        for child in self.all.iter_mut().take(newest.unwrap_or(0)) {
            if child.is_lost() && child.ask_deletion() {
                orders.push_back(Order::Delete { in_spi: child.in_spi() });
            }
        }
    }

    /// The way out of children that another has replaced. Each has its own time, from when the ends first `settled` on
    /// another: under steady rekeys they settle anew all the time. `named` is what the outbound policy should name.
    pub(super) fn retire(
        &mut self,
        clock: &mut Clock,
        named: Option<Through>,
        settled: bool,
        orders: &mut VecDeque<Order>,
    ) {
        self.bury(orders);
        let current = self.position(named);
        let initiator = current.is_some_and(|at| self.all[at].is_initiator());
        for (at, child) in self.all.iter_mut().enumerate() {
            // Until both ends have settled, an older child may be the one to go back to.
            let replaced =
                child.replaced().filter(|_| settled && current.is_some_and(|current| at != current));
            child.retire_closed(clock, replaced);
            let older = current.is_some_and(|current| at < current);
            let Some(replaced) = replaced.filter(|replaced| older && clock.due(*replaced + OUT_GRACE)) else {
                continue;
            };
            child.retire_outbound();
            if (initiator || clock.due(replaced + DELETE_PATIENCE)) && child.ask_deletion() {
                orders.push_back(Order::Delete { in_spi: child.in_spi() });
            }
        }
        self.all.retain(|child| !child.is_over());
    }

    /// Forgets the children that the kernel did not take.
    pub(super) fn drop_refused(&mut self) {
        self.all.retain(|child| !child.was_refused());
    }

    /// Ends them all. Answers their SAs that are in the kernel, for whoever goes on without them.
    pub(super) fn leave_behind(&mut self) -> Vec<(SaId, AdoptedSa)> {
        std::mem::take(self).all.iter().flat_map(Child::left_behind).collect()
    }
}
