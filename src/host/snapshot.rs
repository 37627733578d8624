//! What an agent knows of its host at one moment, for whoever tells how it stands.

use std::time::Instant;

use super::Host;
use super::core::Core;
use super::reading::Scrutiny;
use crate::observe::snapshot::{Heard, KeySnapshot, PairSnapshot, UnlistedRequests};
use crate::observe::{Snapshot, explain};
use crate::protect::{GUARDS_MOST, PairMachine};
use crate::types::{Pair, UnixTime};

impl Host {
    /// What it knows at `now`. Of the pairs that are not `wanted`, no more than how they stand: there are thousands of them,
    /// and those who follow ask all the time. Of what keys rest on, numbers are told no more than the PPK.
    pub(super) fn snapshot_of(
        &self,
        now: Instant,
        scrutiny: Scrutiny,
        wanted: impl Fn(Pair) -> bool,
    ) -> Snapshot<'_> {
        let snapshot = Snapshot {
            uptime: now.saturating_duration_since(self.started),
            started_at: self.started_at,
            protection: self.protection,
            trouble: self.trouble(),
            kms: self.leased.as_ref().map(|leased| leased.report(self.moment, self.audit.report(now))),
            kms_audit: self.record_beside(now),
            about: self.secrets.as_ref().map(|secrets| self.setup.about(secrets)),
            guards_most: GUARDS_MOST,
            tally: self.core.as_ref().map_or(self.counted, Core::counts).tally(self.overruns),
            ..Snapshot::default()
        };
        let wall = self.moment.wall_at(now);
        self.core.iter().fold(snapshot, |snapshot, core| core.add_to(snapshot, now, wall, scrutiny, &wanted))
    }
}

impl Core {
    /// Adds what only a core at work knows; `wall` is the time of day at `now`.
    fn add_to<'a>(
        &'a self,
        snapshot: Snapshot<'a>,
        now: Instant,
        wall: UnixTime,
        scrutiny: Scrutiny,
        wanted: &dyn Fn(Pair) -> bool,
    ) -> Snapshot<'a> {
        let unlisted = self.engine().unlisted(now);
        Snapshot {
            trial_left: self.trial().map(|end| end.saturating_duration_since(now)),
            drift: self.drift(),
            unread: self.unread(),
            bounds: Some(self.bounds()),
            unguarded: self.beyond_guard(),
            unlisted: unlisted
                .map(|it| UnlistedRequests { local: it.local, remote: it.remote, requests: it.requests })
                .collect(),
            states: self.pairs().iter().map(|(pair, machine)| (*pair, machine.row_state())).collect(),
            pairs: self
                .pairs()
                .iter()
                .filter(|(pair, _)| wanted(**pair))
                .map(|(pair, machine)| (*pair, self.pair_snapshot(*pair, machine, now, wall, scrutiny)))
                .collect(),
            ..snapshot
        }
    }

    fn pair_snapshot<'a>(
        &'a self,
        pair: Pair,
        machine: &'a PairMachine,
        now: Instant,
        wall: UnixTime,
        scrutiny: Scrutiny,
    ) -> PairSnapshot<'a> {
        let time = |at: Instant| wall.before(now.saturating_duration_since(at));
        let rekey = |(in_spi, id)| {
            let due = self.engine().rekey_at(pair, in_spi)?;
            Some((id, due.saturating_duration_since(now)))
        };
        PairSnapshot {
            state: machine.row_state(),
            reason: self.why(machine),
            failing_since: machine.failing_since().map(time),
            unrenewed: self.why_unrenewed(machine),
            waiting: machine.is_waiting(),
            trial_left: machine.trial_end().map(|end| end.saturating_duration_since(now)),
            keys: self.key_snapshot(pair, machine, now, scrutiny),
            rekeys: machine.sas_of_children().filter_map(rekey).collect(),
            peer: self.about(pair),
            heard: self.silence(pair).map(|silence| Heard {
                esp: silence.last_heard_esp().map(time),
                ike: silence.last_heard_ike().map(time),
                silent: silence.is_silent(now),
            }),
            notice: self.engine().notice(pair).map(|(end, failure)| {
                let words = failure.map(|failure| explain::words(&failure.reason));
                (end.saturating_duration_since(now), words)
            }),
            narrow: self.narrow(pair),
            reminded_after: self.reminded_after(pair),
        }
    }

    fn key_snapshot(
        &self,
        pair: Pair,
        machine: &PairMachine,
        now: Instant,
        scrutiny: Scrutiny,
    ) -> KeySnapshot {
        let Some(in_spi) = machine.settled_child() else { return KeySnapshot::default() };
        let engine = self.engine();
        let ppk = engine.ppk_of(pair, in_spi);
        if scrutiny == Scrutiny::Counters {
            return KeySnapshot { ppk, ..KeySnapshot::default() };
        }
        let ike = engine.ike_of(pair, in_spi);
        KeySnapshot {
            secret: engine.secret_of(pair, in_spi),
            authentication: engine.proof_of(pair, in_spi),
            ppk,
            method: engine.method_of(pair, in_spi),
            ike: ike.map(|(proposal, since)| (proposal, now.saturating_duration_since(since))),
            exchange: engine.key_exchange_of(pair, in_spi),
        }
    }
}
