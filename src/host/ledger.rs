//! Writes, and the answers that wait until these are on the disk: whoever hears that a pair is protected may cut the
//! power.
//!
//! Writing is an output, [`Ledger::begin`], and its end an input, so that a slow disk delays only the answers that rest
//! on it.

use std::collections::VecDeque;
use std::time::Instant;

use super::core::Persist;
use super::due::{Write, WriteTimes};
use super::unsaved::Unsaved;
use crate::config::Config;
use crate::control::Reply;
use crate::store::{AuditBatch, AuditWritten, ClusterFilesError, NodeKeys, Saved, SavedError};

/// Somebody who asked something and waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asker(pub u64);

/// Something to be written.
pub enum Save {
    /// What is remembered. Where a host that is off is to be protected, there must be `room` for this too.
    State {
        /// What is written.
        saved: Box<Saved>,
        /// What there must be room for.
        room: Option<Box<Saved>>,
    },
    /// The configuration in force, for an agent that finds a broken one.
    Config(Box<Config>),
    /// The entries of the cluster's roster, that which founds it first.
    Roster(Vec<Vec<u8>>),
    /// What becomes of the keys of this node.
    Keys(KeyStep),
    /// What was done with the key that wraps the secret.
    Audit(AuditBatch),
}

/// What becomes of the keys of a node that are to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStep {
    /// Those that are to follow them are made; those that are there already stay.
    Make,
    /// Those take their place.
    ChangeOver,
}

/// What became of the keys of a node.
pub enum KeysWritten {
    /// Those that are to follow them were made, or could not be.
    Made(Result<NodeKeys, ClusterFilesError>),
    /// Those have taken their place, or could not.
    ChangedOver(Result<(), SavedError>),
}

/// What was written, or could not be.
pub enum Written {
    /// What is remembered; the octets of it.
    State(Result<usize, SavedError>),
    /// The configuration in force.
    Config(Result<(), SavedError>),
    /// The roster.
    Roster(Result<(), SavedError>),
    /// The keys of this node.
    Keys(KeysWritten),
    /// What was done with the key that wraps the secret.
    Audit(Result<AuditWritten, SavedError>),
}

/// What is due to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    State,
    Config,
}

/// An answer that waits for a write.
struct Held {
    write: Write,
    to: Vec<Asker>,
    reply: Reply,
}

/// What is to be written, and told.
#[derive(Default)]
pub(super) struct Ledger {
    due: WriteTimes,
    unsaved: Unsaved,
    /// When the configuration is to be kept, and whether it is being written.
    keep_at: Option<Instant>,
    keeping: bool,
    held: Vec<Held>,
    told: VecDeque<(Vec<Asker>, Reply)>,
}

impl Ledger {
    /// Something is to be remembered.
    pub(super) fn note(&mut self, now: Instant, what: Persist) {
        self.due.note(now, what);
    }

    /// An order is to be written at once. Returns the write that will have it.
    pub(super) fn hurry(&mut self, now: Instant) -> Write {
        self.due.hurry(now)
    }

    /// Everything is to be written at once.
    pub(super) fn hurry_all(&mut self, now: Instant) {
        self.due.hurry(now);
        self.keep_at = self.keep_at.map(|at| at.min(now));
    }

    /// The configuration in force is to be kept.
    pub(super) fn keep(&mut self, now: Instant) {
        self.keep_at = Some(now);
    }

    /// Begins the next write that is due at `now`, of the state or of the configuration as they are.
    pub(super) fn begin(&mut self, now: Instant) -> Option<Begun> {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.due.deadline()) {
            self.due.begin(now);
            Some(Begun::State)
        } else if due(self.keep_due()) {
            (self.keep_at, self.keeping) = (None, true);
            Some(Begun::Config)
        } else {
            None
        }
    }

    fn keep_due(&self) -> Option<Instant> {
        self.keep_at.filter(|_| !self.keeping)
    }

    /// When a write is to be begun.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.deadline().into_iter().chain(self.keep_due()).min()
    }

    /// Whether something is being written, or is to be at `now`.
    pub(super) fn is_busy(&self, now: Instant) -> bool {
        self.keeping || self.due.is_busy() || self.deadline().is_some_and(|at| at <= now)
    }

    /// Whether a write is the one that is being written.
    pub(super) fn is_under_way(&self, write: Write) -> bool {
        self.due.is_under_way(write)
    }

    /// Whether what must survive a reboot could not be written the last time.
    pub(super) fn lacks_state(&self) -> bool {
        self.unsaved.lacks_state()
    }

    /// The state was written, or could not be. Where that makes this host stay as it was (`stays`), it has nothing more
    /// to write than before.
    pub(super) fn note_state(&mut self, now: Instant, outcome: &Result<usize, SavedError>, stays: bool) {
        let again = match stays && outcome.is_err() && !self.unsaved.lacks_state() {
            true => None,
            false => self.unsaved.note_state(now, outcome),
        };
        self.due.end(outcome.as_ref().copied().unwrap_or_default(), again);
    }

    /// The configuration was kept, or could not be.
    pub(super) fn note_config(&mut self, now: Instant, outcome: &Result<(), SavedError>) {
        self.keeping = false;
        let again = self.unsaved.note_config(now, outcome);
        self.keep_at = self.keep_at.or(again);
    }

    /// The roster was written, or could not be. Returns when to try again.
    pub(super) fn note_roster(&mut self, now: Instant, outcome: &Result<(), SavedError>) -> Option<Instant> {
        self.unsaved.note_roster(now, outcome)
    }

    /// Answers, once the state of now is on the disk.
    pub(super) fn tell(&mut self, now: Instant, to: Vec<Asker>, reply: Reply) {
        let patient = matches!(reply, Reply::Progress(_));
        self.tell_after(now, to, reply, patient);
    }

    /// Answers those who only look: they do not have anything written sooner. Figures rest on nothing on the disk, and
    /// wait for none that is slow.
    pub(super) fn tell_onlookers(&mut self, now: Instant, to: Vec<Asker>, reply: Reply) {
        match reply {
            Reply::Figures(_) | Reply::Table(_) => self.told.push_back((to, reply)),
            reply => self.tell_after(now, to, reply, true),
        }
    }

    fn tell_after(&mut self, now: Instant, to: Vec<Asker>, reply: Reply, patient: bool) {
        match self.due.before_telling(now, patient) {
            Some(write) => self.held.push(Held { write, to, reply }),
            None => self.told.push_back((to, reply)),
        }
    }

    /// Answers what rests on nothing that is written.
    pub(super) fn tell_at_once(&mut self, to: Asker, reply: Reply) {
        self.told.push_back((vec![to], reply));
    }

    /// Nobody waits for this answer any more.
    pub(super) fn forget(&mut self, gone: Asker) {
        self.held.retain_mut(|held| {
            held.to.retain(|to| *to != gone);
            !held.to.is_empty()
        });
    }

    /// The next answer, and to whom. Where something could not be written, `status` says so, also where that turned out after it was
    /// asked.
    pub(super) fn poll_reply(&mut self) -> Option<(Vec<Asker>, Reply)> {
        let due = &self.due;
        let over = self.held.extract_if(.., |held| due.is_over(held.write)).map(|held| (held.to, held.reply));
        self.told.extend(over);
        let (to, mut reply) = self.told.pop_front()?;
        match &mut reply {
            Reply::Status(status) => status.problems.extend(self.unsaved.problems()),
            Reply::Figures(figures) => figures.add_problems(&self.unsaved.problems()),
            Reply::Table(table) => table.figures_mut().add_problems(&self.unsaved.problems()),
            _ => {}
        }
        Some((to, reply))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: Asker = Asker(1);
    const OTHER: Asker = Asker(2);

    fn full() -> SavedError {
        SavedError::Broken { file: PathBuf::new(), reason: "no space left".to_owned() }
    }

    /// Those who were answered.
    fn told(ledger: &mut Ledger) -> Vec<u64> {
        std::iter::from_fn(|| ledger.poll_reply()).flat_map(|(to, _)| to).map(|to| to.0).collect()
    }

    #[test]
    fn what_is_told_is_written_first() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.tell(now, vec![ONE], Reply::Done);
        assert_eq!(told(&mut ledger), [1], "nothing is to be written");
        ledger.note(now, Persist::Seals);
        ledger.tell(now, vec![ONE], Reply::Done);
        assert!(told(&mut ledger).is_empty());
        assert_eq!(ledger.begin(now), Some(Begun::State));
        assert_eq!(ledger.begin(now), None, "one at a time");
        // A change during a write is not in it.
        ledger.note(now, Persist::Seals);
        ledger.tell(now, vec![OTHER], Reply::Done);
        assert!(told(&mut ledger).is_empty());
        ledger.note_state(now, &Ok(100), false);
        assert_eq!(told(&mut ledger), [1]);
        assert_eq!(ledger.begin(now), Some(Begun::State));
        ledger.note_state(now, &Ok(100), false);
        assert_eq!(told(&mut ledger), [2]);
        assert!(!ledger.is_busy(now));
    }

    #[test]
    fn those_who_only_look_do_not_hurry_the_disk() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.note(now, Persist::Seals);
        assert_eq!(ledger.begin(now + SECOND), Some(Begun::State));
        ledger.note_state(now, &Ok(1 << 20), false);
        let now = now + SECOND;
        ledger.note(now, Persist::Seals);
        let calm = ledger.deadline();
        ledger.tell_onlookers(now, vec![ONE], Reply::Done);
        assert!(ledger.deadline() == calm && calm > Some(now) && told(&mut ledger).is_empty());
        ledger.tell(now, vec![OTHER], Reply::Done);
        assert_eq!(ledger.deadline(), Some(now));
    }

    #[test]
    fn whoever_has_gone_is_forgotten() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.note(now, Persist::Seals);
        ledger.tell(now, vec![ONE], Reply::Done);
        ledger.tell(now, vec![OTHER], Reply::Done);
        ledger.forget(ONE);
        assert_eq!(ledger.begin(now), Some(Begun::State));
        ledger.note_state(now, &Ok(100), false);
        assert_eq!(told(&mut ledger), [2]);
    }

    #[test]
    fn a_full_disk_keeps_nobody_waiting_and_is_tried_again() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.note(now, Persist::Seals);
        ledger.tell(now, vec![ONE], Reply::Done);
        assert_eq!(ledger.begin(now), Some(Begun::State));
        ledger.note_state(now, &Err(full()), false);
        assert_eq!((told(&mut ledger), ledger.unsaved.problems().len()), (vec![1], 1));
        assert_eq!(ledger.deadline(), Some(now + SECOND));
        // A wish that was refused, as it could not be written, is not written later.
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        let write = ledger.hurry(now);
        assert_eq!(ledger.begin(now), Some(Begun::State));
        assert!(ledger.is_under_way(write));
        ledger.note_state(now, &Err(full()), true);
        assert!(ledger.unsaved.problems().is_empty() && ledger.deadline().is_none());
    }

    #[test]
    fn the_configuration_is_kept_beside_the_state() {
        let (mut ledger, now) = (Ledger::default(), Instant::now());
        ledger.keep(now);
        assert_eq!(ledger.begin(now), Some(Begun::Config));
        ledger.keep(now);
        assert_eq!(ledger.begin(now), None, "one at a time");
        ledger.tell(now, vec![ONE], Reply::Done);
        assert_eq!(told(&mut ledger), [1], "nobody waits for it");
        ledger.note_config(now, &Err(full()));
        assert_eq!(ledger.begin(now), Some(Begun::Config), "it is another one by now");
        ledger.note_config(now, &Ok(()));
        assert!(!ledger.is_busy(now) && ledger.unsaved.problems().is_empty());
    }
}
