//! Another scheme for a core at work. Only what changed is touched: pairs that stay keep their SAs and
//! totals, pairs that come begin in stages, pairs that go leave in stages and are forgotten when they are
//! off.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::{Core, Persist};
use crate::control::{Change, PlanLine};
use crate::host::holdings::{Holdings, Scope};
use crate::host::kernel::Kernel;
use crate::host::membership::Membership;
use crate::host::pairs::Pairs;
use crate::host::scheme::Scheme;
use crate::ike::{self, Topic};
use crate::observe::About;
use crate::protect::{PairMachine, Plan};
use crate::store::PairRecord;
use crate::types::{KernelState, Op, Pair, SaId, SaReading, UnixTime};

/// What another scheme would change.
pub struct SchemeChange {
    /// SAs that successors would take over from.
    pub replaced: Vec<SaId>,
    /// Everything else, once pairs that go have left.
    pub plan: Plan,
}

impl SchemeChange {
    /// The same as lines: first what is replaced, then the rest.
    pub fn lines(&self) -> Vec<PlanLine> {
        let replaced =
            |id: &SaId| PlanLine { change: Change::Update, object: format!("{id}: a successor takes over") };
        self.replaced.iter().map(replaced).chain(self.plan.ops.iter().map(PlanLine::from)).collect()
    }
}

impl Core {
    /// What would change in the kernel now, given that it holds `actual`.
    pub fn plan(&self, actual: KernelState) -> SchemeChange {
        let outdated = actual.sas.values().filter(|sa| !sa.bound).map(|sa| sa.id).collect::<Vec<_>>();
        let plan = self.pairs.outstanding(Holdings::of(actual, &self.pairs.own()));
        let stays = |id: &SaId| !plan.ops.contains(&Op::DeleteSa(*id));
        SchemeChange { replaced: outdated.into_iter().filter(stays).collect(), plan }
    }

    /// What [`Core::reconfigure`] with `scheme` would change in a kernel that holds `actual`. SAs of pairs that
    /// stay get successors where `other` is true.
    pub fn preview(
        &self,
        now: Instant,
        actual: KernelState,
        scheme: &Scheme,
        other: impl Fn(&SaReading) -> bool,
    ) -> SchemeChange {
        let mut replaced = Vec::new();
        for (pair, machine) in self.pairs().iter().filter(|(pair, _)| scheme.pairs.contains(pair)) {
            let outdated = machine.outdated(scheme.replay_window, scheme.limits_of(*pair));
            let of_pair = actual.sas.values().filter(|sa| sa.is_between(*pair));
            let goes = |sa: &&SaReading| {
                !sa.bound
                    || other(sa)
                    || machine.child_of(sa.id).is_some_and(|in_spi| outdated.contains(&in_spi))
            };
            replaced.extend(of_pair.filter(goes).map(|sa| sa.id));
        }
        let come = scheme.pairs.iter().filter(|pair| self.pairs.get(**pair).is_none()).map(|pair| {
            let mut machine = scheme.machine(*pair, false, now);
            machine.enable(now, false, self.trial);
            machine
        });
        let come: Vec<PairMachine> = come.collect();
        let stay = self.pairs().iter().filter(|(pair, _)| scheme.pairs.contains(pair)).map(|(_, it)| it);
        let guard = self.pairs.guard().by(scheme.guard);
        let pairs = Pairs::new(stay.chain(&come), scheme.exemptions.clone(), guard);
        let own = self.own().into_iter().chain(pairs.own()).collect();
        SchemeChange { replaced, plan: pairs.outstanding(Holdings::of(actual, &own)) }
    }

    /// Goes on with another scheme, and other settings of the key exchange. What is only true of new SAs
    /// (their replay window, when they end) comes with successors of those that are there. `wall` is the
    /// time of day at `now`.
    pub fn reconfigure(
        &mut self,
        now: Instant,
        wall: UnixTime,
        kernel: &mut dyn Kernel,
        scheme: Scheme,
        settings: ike::Settings,
    ) {
        let about = About::from_bytes(&settings.about);
        let control = self.membership.as_ref().map(Membership::control_settings);
        self.engine.reconfigure(now, ike::Settings { control, ..settings });
        self.limit_adopted(now);
        self.pairs.go_by(scheme.exemptions.clone(), scheme.guard);
        let keyless =
            |scheme: &Scheme| scheme.blocked.union(&scheme.withheld).copied().collect::<BTreeSet<Pair>>();
        let mut freed: Vec<Pair> = keyless(&self.scheme).difference(&keyless(&scheme)).copied().collect();
        self.scheme = scheme;
        freed.retain(|pair| self.withheld(*pair).is_none());
        for pair in freed {
            self.causes.remove(&pair);
            self.with_pair(pair, |machine| machine.resume(now));
        }
        let wanted: BTreeSet<Pair> = self.scheme.pairs.iter().copied().collect();
        self.engine.list(wanted.clone());
        for pair in self.pairs().keys().copied().collect::<Vec<_>>() {
            if wanted.contains(&pair) {
                self.renew(now, pair);
            } else {
                if let Some(about) = about.clone() {
                    let octets = About { removes: true, ..about }.to_bytes();
                    self.engine.tell(now, pair, Topic::Session, Arc::new(move |_| octets.clone()));
                }
                self.leaving.insert(pair);
                // Whoever was removed comes back with other keys alone. Others may go on with this host in another way, and an
                // agent that just starts there is to hear of it.
                let parts = self.membership.as_ref().is_some_and(|it| it.is_over(pair));
                self.with_pair(pair, |machine| if parts { machine.part(now) } else { machine.disable(now) });
            }
        }
        for pair in wanted {
            if self.pairs.get(pair).is_none() {
                self.welcome(now, wall, pair);
            }
        }
        self.place(now);
        self.hold_back(now);
        // What stays in the clear concerns every peer.
        self.dirty = self.pairs.scopes().collect();
        self.settle(now, kernel);
    }

    /// A pair that stays: SAs that the scheme would have otherwise get successors.
    fn renew(&mut self, now: Instant, pair: Pair) {
        let (window, limits) = (self.scheme.replay_window, self.scheme.limits_of(pair));
        let rules = self.scheme.rules(pair);
        // Somebody else may have the keys of the peer: it is told nothing.
        let blocked = self.scheme.blocked.contains(&pair);
        if blocked || self.scheme.withheld.contains(&pair) {
            self.engine.abandon(now, pair);
        }
        let seals = blocked && self.wanted;
        let outdated = self.with_pair(pair, |machine| {
            machine.go_by(rules);
            if seals {
                machine.enable(now, true, None);
            }
            machine.outdated(window, limits)
        });
        for in_spi in outdated.unwrap_or_default() {
            self.engine.renew_child(now, pair, in_spi);
        }
    }

    /// A pair that comes.
    fn welcome(&mut self, now: Instant, wall: UnixTime, pair: Pair) {
        self.accounts.restore(pair, &PairRecord::default(), wall);
        let mut machine = self.scheme.machine(pair, false, now);
        machine.handle_move(now, self.scheme.away(pair, &self.present), None);
        self.pairs.insert(machine);
        let (trial, blocked) = (self.trial, self.scheme.blocked.contains(&pair));
        if self.wanted {
            self.with_pair(pair, |machine| machine.enable(now, blocked, trial));
        }
        self.persist(Persist::Seals);
    }

    /// Tells pairs that leave whether their peers leave unanswered what they are sent.
    pub(super) fn note_silent(&mut self, now: Instant) {
        let news = |pair: &Pair| {
            let silent = self.engine.is_unanswered(*pair);
            let is_news = self.pairs.get(*pair).is_some_and(|machine| machine.counts_as_silent() != silent);
            is_news.then_some((*pair, silent))
        };
        for (pair, silent) in self.leaving.iter().filter_map(news).collect::<Vec<_>>() {
            self.with_pair(pair, |machine| machine.handle_silence(now, silent));
        }
    }

    /// Forgets pairs that have left the scheme and are off by now. One that came back meanwhile is protected
    /// again from there. Says whether there were any.
    pub(super) fn let_go(&mut self, now: Instant) -> bool {
        let is_off = |pair: &&Pair| self.pairs.get(**pair).is_none_or(PairMachine::is_off);
        let off: Vec<Pair> = self.leaving.iter().filter(is_off).copied().collect();
        let trial = self.trial;
        for pair in &off {
            self.leaving.remove(pair);
            if !self.scheme.pairs.contains(pair) {
                self.forget(*pair);
            } else if self.wanted {
                let blocked = self.scheme.blocked.contains(pair);
                self.with_pair(*pair, |machine| machine.enable(now, blocked, trial));
            }
        }
        if !off.is_empty() {
            self.hold_back(now);
        }
        !off.is_empty()
    }

    fn forget(&mut self, pair: Pair) {
        self.pairs.remove(pair);
        self.proven.remove(&pair);
        self.causes.remove(&pair);
        self.unsent.remove(&pair);
        self.engine.allow_ahead(pair, false);
        // What stands beside the other pairs with the peer concerns the address now.
        self.dirty.insert(Scope::Peer(pair.remote));
        self.timers.set(pair, None);
        self.persist(Persist::Seals);
    }
}
