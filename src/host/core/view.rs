//! What comes out of the core, and what others see of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use super::{Core, Persist, ProbeDatagram};
use crate::host::membership::Membership;
use crate::ike::{self, Engine};
use crate::protect::PairMachine;
use crate::store::PairRecord;
use crate::types::stranger::{StrangerPolicy, Strangers};
use crate::types::{Pair, PolicyTable, RowState, SaId, SaReading, UnixTime};

impl Core {
    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<ike::Transmit> {
        self.farewells
            .pop_front()
            .or_else(|| self.exams.poll_transmit())
            .or_else(|| self.engine.poll_transmit())
    }

    /// The next probe to send.
    pub fn poll_probe(&mut self) -> Option<ProbeDatagram> {
        self.probes.pop_front()
    }

    /// The next pair that has come to stand otherwise, and its state now.
    pub fn poll_changed(&mut self) -> Option<(Pair, RowState)> {
        let pair = self.changed.pop_first()?;
        Some((pair, self.pairs.get(pair).map_or(RowState::Off, PairMachine::row_state)))
    }

    /// The pairs whose peers do not answer, and their states, when the log is to be told.
    pub fn poll_absent(&mut self, now: Instant) -> Option<Vec<(Pair, RowState)>> {
        let state = |pair: &Pair| self.pairs.get(*pair).map_or(RowState::Off, PairMachine::row_state);
        Some(self.absent.take_news(now)?.iter().map(|pair| (*pair, state(pair))).collect())
    }

    /// What has changed of the saved state since the last call.
    pub fn poll_persist(&mut self) -> Option<Persist> {
        self.persist.take()
    }

    /// What other software has in the kernel, if it was read since the last call.
    pub fn poll_strangers(&mut self) -> Option<&Strangers> {
        std::mem::take(&mut self.strangers_read).then_some(&self.strangers)
    }

    /// The policies that the kernel holds by the last reading and by what was done since, and those of other software by the
    /// last reading; `None` where that may not be so.
    pub fn known_policies(&self) -> Option<(&dyn PolicyTable, &[StrangerPolicy])> {
        let is_sure = self.was_read && !self.look_again;
        is_sure.then_some((&self.known, self.strangers.policies.as_slice()))
    }

    /// Whether a trial has ended without being confirmed since the last call: all pairs are on their way to
    /// the clear then.
    pub fn poll_trial_ended(&mut self) -> bool {
        std::mem::take(&mut self.trial_ended)
    }

    /// Whether the kernel turned out not to be as known: [`Core::look_again`] is wanted.
    pub fn wants_look(&self) -> bool {
        self.look_again
    }

    /// When [`Core::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let engine = self.engine.poll_timeout().map(|(at, _)| at);
        let members = self.membership.as_ref().and_then(Membership::poll_timeout);
        let own = [self.trial, self.search_due(), self.absent.deadline(), members, self.exams.deadline()];
        [engine, self.timers.next(), self.memories.next()].into_iter().chain(own).flatten().min()
    }

    /// When this host goes back to the clear, unless that is confirmed.
    pub fn trial(&self) -> Option<Instant> {
        self.trial
    }

    /// Whether nothing is left of any pair.
    pub fn is_off(&self) -> bool {
        self.pairs.are_off()
    }

    /// The machines of the pairs.
    pub fn pairs(&self) -> &BTreeMap<Pair, PairMachine> {
        self.pairs.machines()
    }

    /// The addresses of this host that pairs use.
    pub fn own(&self) -> BTreeSet<IpAddr> {
        self.pairs.own()
    }

    /// The addresses of this host without a pair that the guard does not name.
    pub fn beyond_guard(&self) -> Vec<IpAddr> {
        self.pairs.beyond_guard()
    }

    /// The key exchange.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is to be remembered of each pair; `wall` is the time of day at `now`.
    pub fn records(&self, now: Instant, wall: UnixTime) -> BTreeMap<Pair, PairRecord> {
        let mut records = self.accounts.records();
        records.retain(|pair, _| self.pairs.get(*pair).is_some());
        for (pair, machine) in self.pairs.machines() {
            let record = records.entry(*pair).or_default();
            record.sealed = machine.is_saved_as_sealed();
            let age = now.saturating_duration_since(machine.since());
            record.since = Some(wall.before(age));
            let settled = machine.settled_child();
            let proven = settled.and_then(|in_spi| self.engine.proven(now, *pair, in_spi));
            record.proven = proven.or_else(|| self.proven.get(pair).cloned());
        }
        records
    }

    /// Dates `sas` by the clock that nobody sets. The kernel says when an SA was made by the one that can be set, and
    /// does not go by it to end an SA (docs/kernel.md, fact 12). `wall` is the time of day at `now`.
    pub fn date(&self, now: Instant, wall: UnixTime, sas: &mut BTreeMap<SaId, SaReading>) {
        for (reading, born) in self.accounts.with_birth(sas) {
            let age = now.saturating_duration_since(born).as_secs();
            // Where the clock was set back, the kernel waits until it says so.
            if reading.hard_seconds.is_none_or(|hard| age < hard) {
                reading.added = wall.0.saturating_sub(age);
            }
        }
    }

    /// SAs whose last figures a stranger's flush took.
    pub fn unread(&self) -> u64 {
        self.accounts.unread()
    }

    /// Changes by strangers that had to be repaired.
    pub fn drift(&self) -> u64 {
        self.repairs.sas + self.repairs.policies
    }

    /// How full the tables are that must not grow: keys on their way, SAs that count, sessions, and those of
    /// them that are half open.
    #[cfg(test)]
    pub(in crate::host) fn sizes(&self) -> [usize; 4] {
        let counters = self.engine.counters();
        [
            self.vault.len(),
            self.accounts.live_count(),
            counters.sessions as usize,
            counters.half_open as usize,
        ]
    }
}
