//! Looks again at what may have changed behind the agent's back: news of it says no more than that.

use std::time::Instant;

use super::Host;
use super::system::{KernelEvent, System};
use crate::types::{NetworkNews, Pair, Problem, SaId};

impl Host {
    /// The kernel has something to report. Returns the SAs that ended.
    pub fn handle_kernel_events(&mut self, now: Instant, system: &mut dyn System) -> Vec<SaId> {
        let (mut ended, mut look) = (Vec::new(), false);
        while let Some(event) = system.poll_event() {
            self.overruns += u64::from(matches!(event, KernelEvent::Overrun));
            let Some(core) = &mut self.core else { continue };
            match event {
                KernelEvent::SaEnded { reading, by_us } => {
                    core.handle_sa_end(&reading);
                    ended.push(reading.id);
                    look |= !by_us;
                }
                KernelEvent::SaDying(reading) => core.handle_sa_dying(now, system, &reading),
                KernelEvent::SaMapped { id, remote } => core.handle_mapping(now, system, id, remote),
                KernelEvent::SaWanted(pair) => core.refuse_sa(now, pair),
                KernelEvent::Overrun => look = true,
                KernelEvent::Changed { by_us } => look |= !by_us,
            }
        }
        if look {
            self.looks.want();
        }
        ended
    }

    /// Addresses or routes may have changed.
    pub fn handle_news(&mut self, now: Instant, system: &mut dyn System, news: NetworkNews) {
        match news {
            // Until the agent knows that it left, packets of this host to an address that floats go in the clear.
            NetworkNews::Addresses(named)
                if self.core.as_ref().is_some_and(|core| core.waits_for(&named)) =>
            {
                self.note_addresses(now, system);
                self.hole_looks.want();
            }
            NetworkNews::Addresses(_) => self.lists.want(),
            NetworkNews::Routes if self.core.is_some() => self.ways.want(now),
            NetworkNews::Routes => {}
        }
    }

    /// Tells the core which of its addresses this host has.
    pub(super) fn list_addresses(&mut self, now: Instant, system: &mut dyn System) {
        self.here = None;
        self.note_addresses(now, system);
    }

    /// The same where they are not what they were: many an event of an interface changes none.
    pub(super) fn note_addresses(&mut self, now: Instant, system: &mut dyn System) {
        let Some(core) = &mut self.core else { return self.lists.rest() };
        self.ways.want(now);
        self.lists.begin(now);
        match system.here() {
            Ok(here) if self.here.as_ref() == Some(&here) => {}
            Ok(here) => {
                core.know_own(here.own.clone());
                core.tell_members_of(now, &here.own);
                core.handle_addresses(now, system, &here.present);
                self.here = Some(here);
                self.bind_besides(system);
            }
            Err(error) => tracing::error!("this host's addresses cannot be listed: {error}"),
        }
    }

    /// Listens also where members of the cluster are to be reached from besides the addresses of the pairs.
    fn bind_besides(&self, system: &mut dyn System) {
        let besides = &self.talks_from() - &self.setup.addresses().collect();
        if !besides.is_empty() {
            system.bind_besides(&besides, self.setup.ports());
        }
    }

    /// The interfaces that let packets of the pairs past the policies.
    pub(super) fn holes_now(&self, system: &mut dyn System) -> Vec<Problem> {
        let pairs = self.setup.config.pairs(&self.setup.node).into_iter().map(|(_, pair)| pair);
        system.holes(&pairs.collect::<Vec<Pair>>())
    }

    /// Says in the log which holes there are. With thousands of interfaces it looks more seldom.
    pub(super) fn look_for_holes(&mut self, now: Instant, system: &mut dyn System) {
        if self.core.is_some() {
            self.hole_looks.begin(now);
            self.holes.note(self.holes_now(system));
        }
    }
}
