//! What the operator wishes: it is written first, and carried out and answered then.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::sync::oneshot;

use super::Service;
use super::save::refusal;
use crate::control::{ErrorCode, Reply, Terms};
use crate::host::core::Persist;
use crate::host::due::Write;
use crate::machine;
use crate::protect::silence::LISTEN_EVERY;
use crate::store::{PairRecord, Saved, SavedError};
use crate::types::{Protection, Trial, trial};

/// What can be wished.
#[derive(Clone, Copy)]
pub(super) enum Wish {
    /// That this host is protected.
    Enable(Terms),
    /// That what is on trial stays.
    Confirm,
    /// That it goes back to the clear.
    Disable,
}

/// A wish that is being written, and who is told of it then.
pub(super) struct Ordered {
    wish: Wish,
    /// What was remembered before.
    before: Saved,
    pub(super) write: Write,
    reply: oneshot::Sender<Reply>,
}

impl Ordered {
    /// Whether a host that is off is to be protected.
    pub(super) fn begins(&self) -> bool {
        matches!(self.wish, Wish::Enable(_)) && self.before.protection == Protection::Off
    }
}

impl Service {
    /// Takes a wish: an agent that dies on the way is followed by one that goes on.
    pub(super) fn order(&mut self, now: Instant, wish: Wish, reply: oneshot::Sender<Reply>) {
        let before = self.saved.clone();
        let noted = match wish {
            Wish::Enable(terms) => self.note_enable(now, terms),
            Wish::Confirm => self.confirm(now),
            Wish::Disable => {
                self.saved.protection = Protection::Off;
                self.saved.trial = None;
                Ok(())
            }
        };
        if let Err(error) = noted {
            self.answer_wish(now, reply, Err(error));
        } else if self.saved == before && !matches!(wish, Wish::Disable) {
            let done = self.carry_out(now, wish, Ok(()));
            self.answer_wish(now, reply, done);
        } else {
            let write = self.due.hurry(now);
            self.wish = Some(Ordered { wish, before, write, reply });
        }
    }

    /// Whether a wish is being written: the next one waits.
    pub(super) fn has_wish(&self) -> bool {
        self.wish.is_some()
    }

    /// A wish has been written, or could not be.
    pub(super) fn grant(&mut self, now: Instant, ordered: Ordered, outcome: Result<(), SavedError>) {
        let Ordered { wish, before, reply, .. } = ordered;
        if outcome.is_err() && matches!(wish, Wish::Enable(_)) {
            self.saved = before;
        }
        let done = self.carry_out(now, wish, outcome);
        self.answer_wish(now, reply, done);
    }

    fn answer_wish(&mut self, now: Instant, reply: oneshot::Sender<Reply>, done: anyhow::Result<()>) {
        let words = done.map_or_else(|error| refusal(ErrorCode::Failed, &error), |()| Reply::Done);
        self.answer(now, reply, words);
    }

    fn carry_out(&mut self, now: Instant, wish: Wish, outcome: Result<(), SavedError>) -> anyhow::Result<()> {
        match wish {
            Wish::Enable(terms) => {
                outcome?;
                self.protect(now, terms.strict)
            }
            Wish::Confirm => outcome
                .context("confirmed, but only until this agent ends, because the state cannot be written"),
            // A full disk is no reason to stay: whoever asked is told of it afterwards.
            Wish::Disable => self.leave(now).and(outcome.map_err(Into::into)),
        }
    }

    /// What the agent before this one, or the files before these, left undone. Nothing of it is new, and a full disk is
    /// no reason to stay blocked.
    pub(super) fn go_on(&mut self) -> anyhow::Result<()> {
        let (now, before) = (Instant::now(), self.saved.clone());
        self.note_enable(now, Terms::default())?;
        if self.saved != before {
            self.due.note(now, Persist::Seals);
        }
        self.protect(now, false)
    }

    /// Gets ready to protect this host, and notes that it is to be.
    fn note_enable(&mut self, now: Instant, terms: Terms) -> anyhow::Result<()> {
        let trial = self.trial_of(terms)?;
        if self.saved.protection == Protection::Off {
            self.forget_seals();
        }
        self.make_ready(now)?;
        self.saved.node = Some(self.setup.node.name.clone());
        self.saved.protection = Protection::On;
        self.saved.trial = trial;
        Ok(())
    }

    fn protect(&mut self, now: Instant, strict: bool) -> anyhow::Result<()> {
        let trial = self.saved.trial.as_ref().map(|trial| machine::boot().map(|boot| trial.left(&boot)));
        let left = trial.transpose()?.flatten();
        if let Some(core) = &mut self.core {
            core.enable(now, &mut self.kernel, strict, left.map(|left| now + left))?;
        }
        self.look_for_holes(now);
        self.set_protection(Protection::On);
        self.tick_at = Some(now + LISTEN_EVERY);
        self.keep_config(now);
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
    fn trial_of(&self, terms: Terms) -> anyhow::Result<Option<Trial>> {
        let Some(length) = terms.try_s.map(Duration::from_secs) else {
            return Ok(self.saved.trial.clone());
        };
        anyhow::ensure!(length <= trial::LONGEST, "a trial lasts a day at most");
        anyhow::ensure!(
            self.saved.trial.is_some() || self.saved.protection == Protection::Off,
            "protection is already on: run `hostseal disable` first, or leave out --try"
        );
        Ok(Some(Trial::begin(&machine::boot()?, length)))
    }

    fn confirm(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.saved.trial.take().is_none() {
            let on = self.saved.protection == Protection::On;
            anyhow::ensure!(on, "protection is off: nothing is left to confirm");
        } else if let Some(core) = &mut self.core {
            core.confirm(now, &mut self.kernel);
        }
        Ok(())
    }

    /// The trial was not confirmed in time: all pairs are on their way to the clear.
    pub(super) fn end_trial(&mut self, now: Instant) {
        tracing::warn!("the trial was not confirmed in time: going back to the clear");
        self.agent.protection = Protection::Disabling;
        self.saved.protection = Protection::Off;
        self.saved.trial = None;
        self.due.note(now, Persist::Seals);
    }

    /// Begins to go back to the clear.
    pub(super) fn leave(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.agent.protection == Protection::On {
            self.set_protection(Protection::Disabling);
        }
        if let Some(core) = &mut self.core {
            core.disable(now, &mut self.kernel)?;
        }
        Ok(())
    }
}
