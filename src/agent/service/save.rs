//! What is remembered is written beside the loop, and told afterwards.

use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use super::Service;
use super::wish::Ordered;
use crate::control::{ErrorCode, Reply};
use crate::host::core::{Core, Persist};
use crate::host::due::Write;
use crate::observe::causes;
use crate::store::SavedError;
use crate::types::UnixTime;

/// What was written, or could not be.
pub(super) enum Written {
    /// What is remembered; the octets of it.
    State(Result<usize, SavedError>),
    /// The configuration in force.
    Config(Result<(), SavedError>),
}

/// An answer that waits for a write.
pub(super) struct Held {
    write: Write,
    to: oneshot::Sender<Reply>,
    reply: Reply,
}

/// An order, or a question, that comes to nothing.
pub(super) fn refusal(code: ErrorCode, error: &anyhow::Error) -> Reply {
    Reply::Error { code, message: causes::words(error.as_ref()) }
}

impl Service {
    /// Takes what the core has changed of what is remembered.
    pub(super) fn note_persist(&mut self, now: Instant) {
        let Some(what) = self.core.as_mut().and_then(Core::poll_persist) else { return };
        self.due.note(now, what);
        if what == Persist::Seals {
            self.close_sockets();
        }
    }

    /// Takes what is to be remembered of the pairs.
    pub(super) fn take_records(&mut self, now: Instant) {
        if let Some(core) = &self.core {
            self.saved.pairs = core.records(now, UnixTime::from(SystemTime::now()));
        }
    }

    /// Begins to write everything that is to be remembered.
    pub(super) fn begin_write(&mut self, now: Instant) {
        self.take_records(now);
        self.due.begin(now);
        let room = self.room();
        let (saved, path) = (self.saved.clone(), self.setup.config.state_path());
        self.writer.begin(move || {
            let room = room.map_or(Ok(()), |room| room.try_room(&path));
            Written::State(room.and_then(|()| saved.save(&path)))
        });
    }

    /// Keeps the configuration in force for an agent that finds a broken one.
    pub(super) fn keep_config(&mut self, now: Instant) {
        self.keep_at = Some(now);
    }

    /// When that is to be begun.
    pub(super) fn keep_due(&self) -> Option<Instant> {
        self.keep_at.filter(|_| !self.keeping)
    }

    /// Begins to write it.
    pub(super) fn begin_keeping(&mut self) {
        (self.keep_at, self.keeping) = (None, true);
        let (config, path) = (self.setup.config.clone(), self.path.clone());
        self.writer.begin(move || Written::Config(config.keep(&path)));
    }

    /// Something was written, or could not be.
    pub(super) fn note_written(&mut self, now: Instant, written: Written) {
        match written {
            Written::Config(outcome) => {
                self.keeping = false;
                let again = self.unsaved.note_config(now, &outcome);
                self.keep_at = self.keep_at.or(again);
            }
            Written::State(outcome) => self.note_saved(now, outcome),
        }
    }

    fn note_saved(&mut self, now: Instant, outcome: Result<usize, SavedError>) {
        let ordered = self.wish.take_if(|ordered| self.due.is_under_way(ordered.write));
        // A host that stays as it was has nothing more to write than before.
        let refused = outcome.is_err() && ordered.as_ref().is_some_and(Ordered::begins);
        let again = match refused && !self.unsaved.lacks_state() {
            true => None,
            false => self.unsaved.note_state(now, &outcome),
        };
        self.due.end(outcome.as_ref().copied().unwrap_or_default(), again);
        if let Some(ordered) = ordered {
            self.grant(now, ordered, outcome.map(drop));
        }
        self.tell_held();
    }

    /// Writes everything, and waits until that is over.
    pub(super) fn finish_writing(&mut self) {
        let now = Instant::now();
        self.note_persist(now);
        self.due.hurry(now);
        if self.keep_at.is_some() {
            self.begin_keeping();
        }
        while self.keeping || self.due.is_busy() || self.due.deadline().is_some_and(|at| at <= now) {
            if self.due.deadline().is_some_and(|at| at <= now) {
                self.begin_write(now);
            }
            let Ok(written) = self.writer.wait() else { return };
            self.note_written(now, written);
        }
    }

    /// Answers. What is told is remembered first: whoever hears that a pair is protected may cut the power.
    pub(super) fn answer(&mut self, now: Instant, to: oneshot::Sender<Reply>, reply: Reply) {
        self.note_persist(now);
        self.held.retain(|held| !held.to.is_closed());
        let patient = matches!(reply, Reply::Progress(_));
        match self.due.before_telling(now, patient) {
            Some(write) => self.held.push(Held { write, to, reply }),
            None => self.tell(to, reply),
        }
    }

    fn tell_held(&mut self) {
        for held in self.held.extract_if(.., |held| self.due.is_over(held.write)).collect::<Vec<_>>() {
            self.tell(held.to, held.reply);
        }
    }

    /// Where something could not be written, `status` says so, also where that turned out after it was asked.
    fn tell(&self, to: oneshot::Sender<Reply>, mut reply: Reply) {
        if let Reply::Status(status) = &mut reply {
            status.problems.extend(self.unsaved.problems());
        }
        // Whoever asked may have gone away: nobody is left to tell then.
        let _ = to.send(reply);
    }
}
