//! What the operator wishes: it is written first, and carried out and answered then.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::answer::refusal;
use super::core::Persist;
use super::due::Write;
use super::ledger::Asker;
use super::system::System;
use super::{HOLES_AFTER, Host};
use crate::control::{ErrorCode, Reply, Terms};
use crate::observe::causes;
use crate::protect::silence::LISTEN_EVERY;
use crate::roster::EntryId;
use crate::store::{PairRecord, Saved, SavedError};
use crate::types::{Protection, Trial, trial};

/// What can be wished.
#[derive(Clone, Copy)]
pub(super) enum Wish {
    /// This host is to be protected.
    Enable(Terms),
    /// The trial is to stay.
    Confirm,
    /// It is to go back to the clear.
    Disable,
}

/// A wish that is being written, and who is told of it then.
pub(super) struct Ordered {
    wish: Wish,
    /// What was remembered before.
    before: Saved,
    pub(super) write: Write,
    /// `None` for a wish of the cluster.
    asker: Option<Asker>,
}

impl Ordered {
    /// Whether a host that is off is to be protected.
    pub(super) fn begins(&self) -> bool {
        matches!(self.wish, Wish::Enable(_)) && self.before.protection == Protection::Off
    }
}

impl Host {
    /// Takes a wish: an agent that dies on the way is followed by one that goes on.
    pub(super) fn order(&mut self, now: Instant, system: &mut dyn System, wish: Wish, asker: Option<Asker>) {
        self.order_as(now, system, (wish, asker), self.saved.followed);
    }

    /// Takes a wish of the cluster, which the entry `follows` says.
    pub(super) fn order_for_cluster(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        wish: Wish,
        follows: EntryId,
    ) {
        self.order_as(now, system, (wish, None), Some(follows));
    }

    fn order_as(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        (wish, asker): (Wish, Option<Asker>),
        follows: Option<EntryId>,
    ) {
        let before = self.saved.clone();
        let noted = match wish {
            Wish::Enable(terms) => self.note_enable(now, system, terms),
            Wish::Confirm => self.confirm(now, system),
            Wish::Disable => {
                self.saved.leave();
                Ok(())
            }
        };
        if let Err(error) = noted {
            return self.answer_wish(now, asker, Err(error));
        }
        self.saved.followed = follows;
        if self.saved == before && !self.is_to_be_written(wish) {
            let done = self.carry_out(now, system, wish, Ok(()));
            self.answer_wish(now, asker, done);
        } else {
            let write = self.ledger.hurry(now);
            self.wish = Some(Ordered { wish, before, write, asker });
        }
    }

    /// Whether a wish is written though nothing of it is new: the end of the last attempt says nothing of this one.
    fn is_to_be_written(&self, wish: Wish) -> bool {
        match wish {
            Wish::Disable => true,
            Wish::Confirm => self.ledger.lacks_state(),
            // It was on the disk before it was in force.
            Wish::Enable(_) => false,
        }
    }

    /// A wish has been written, or could not be.
    pub(super) fn grant(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        ordered: Ordered,
        outcome: Result<(), SavedError>,
    ) {
        let Ordered { wish, before, asker, .. } = ordered;
        if outcome.is_err() && matches!(wish, Wish::Enable(_)) {
            self.saved = before;
        }
        let done = self.carry_out(now, system, wish, outcome);
        self.answer_wish(now, asker, done);
    }

    fn answer_wish(&mut self, now: Instant, asker: Option<Asker>, done: anyhow::Result<()>) {
        let Some(asker) = asker else {
            if let Err(error) = done {
                // It is tried again.
                self.saved.followed = None;
                tracing::error!("what the cluster is to do fails here: {}", causes::words(error.as_ref()));
            }
            return;
        };
        let reply = done.map_or_else(|error| refusal(ErrorCode::Failed, &error), |()| Reply::Done);
        self.answer(now, asker, reply);
    }

    fn carry_out(
        &mut self,
        now: Instant,
        system: &mut dyn System,
        wish: Wish,
        outcome: Result<(), SavedError>,
    ) -> anyhow::Result<()> {
        match wish {
            Wish::Enable(terms) => {
                outcome?;
                self.protect(now, system, terms.strict)
            }
            Wish::Confirm => outcome
                .context("confirmed, but only until this agent ends, because the state cannot be written"),
            // A full disk is no reason to stay: whoever asked is told of it afterwards.
            Wish::Disable => self.leave(now, system).and(outcome.map_err(Into::into)),
        }
    }

    /// Does what the agent before this one, or the files before these, left undone. Nothing of it is new, and a full
    /// disk is no reason to stay blocked.
    pub(super) fn go_on(&mut self, now: Instant, system: &mut dyn System) -> anyhow::Result<()> {
        let before = self.saved.clone();
        self.note_enable(now, system, Terms::default())?;
        if self.saved != before {
            self.ledger.note(now, Persist::Seals);
        }
        // A core that is off takes all that it finds for left behind.
        self.protect(now, system, false).inspect_err(|_| self.drop_core())
    }

    /// Gets ready to protect this host, and notes that it is to be.
    fn note_enable(&mut self, now: Instant, system: &mut dyn System, terms: Terms) -> anyhow::Result<()> {
        let trial = self.trial_of(now, terms)?;
        if self.saved.protection == Protection::Off {
            self.saved.forget_seals();
        }
        self.make_ready(now, system)?;
        self.saved.node = Some(self.setup.node.name.clone());
        (self.saved.protection, self.saved.leaving, self.saved.trial) = (Protection::On, false, trial);
        Ok(())
    }

    fn protect(&mut self, now: Instant, system: &mut dyn System, strict: bool) -> anyhow::Result<()> {
        // One that has ended meanwhile ends now.
        let left = |trial: &Trial| trial.left(&self.boot_at(now)).unwrap_or_default();
        let trial_ends = self.saved.trial.as_ref().map(|trial| now + left(trial));
        if let Some(core) = &mut self.core {
            core.enable(now, system, strict, trial_ends)?;
        }
        // `enable` and `status` look themselves; the log can wait until the pairs are protected.
        self.hole_looks.want_at(now + HOLES_AFTER);
        self.set_protection(Protection::On);
        self.tick_at = Some(now + LISTEN_EVERY);
        self.ledger.keep(now);
        Ok(())
    }

    /// What there must be room for, where a host that is off is to be protected: what will be sealed. It stays off
    /// where there is none: as long as nothing is sealed, refusing is safe.
    pub(super) fn room(&self) -> Option<Saved> {
        self.wish.as_ref().filter(|ordered| ordered.begins())?;
        let pairs = self.setup.scheme().pairs.into_iter().map(|pair| (pair, PairRecord::default()));
        Some(Saved { pairs: pairs.chain(self.saved.pairs.clone()).collect(), ..self.saved.clone() })
    }

    /// The trial that an order to protect this host begins, or goes on with.
    fn trial_of(&self, now: Instant, terms: Terms) -> anyhow::Result<Option<Trial>> {
        let Some(length) = terms.try_s.map(Duration::from_secs) else {
            return Ok(self.saved.trial.clone());
        };
        ensure!(length <= trial::LONGEST, "a trial lasts a day at most");
        ensure!(
            self.saved.trial.is_some() || self.saved.protection == Protection::Off,
            "protection is already on: run `hostseal disable` first, or leave out --try"
        );
        Ok(Some(Trial::begin(&self.boot_at(now), length)))
    }

    fn confirm(&mut self, now: Instant, system: &mut dyn System) -> anyhow::Result<()> {
        if self.saved.trial.take().is_none() {
            let on = self.saved.protection == Protection::On;
            ensure!(on, "protection is off: nothing is left to confirm");
        } else if let Some(core) = &mut self.core {
            core.confirm(now, system);
        }
        Ok(())
    }

    /// The trial was not confirmed in time: all pairs are on their way to the clear.
    pub(super) fn end_trial(&mut self, now: Instant) {
        tracing::warn!("the trial was not confirmed in time: going back to the clear");
        self.protection = Protection::Disabling;
        self.saved.leave();
        self.ledger.note(now, Persist::Seals);
    }
}
