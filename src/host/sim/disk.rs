//! A disk with a state directory on it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::members::pem;
use crate::host::ledger::{KeyStep, KeysWritten, Save, Written};
use crate::host::ports::Store;
use crate::store::{AuditBatch, AuditWritten, ChainHead, ClusterFiles, Saved, SavedError};

/// What is on the disk, and on its way there.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) saved: Saved,
    /// Octets that there is room for, where it is not much.
    pub(super) room: Option<usize>,
    /// The last state could not be written.
    pub(super) failed: bool,
    /// How long a write takes.
    pub(super) delay: Duration,
    /// How large the state is, and how often it was written.
    pub(super) octets: usize,
    pub(super) writes: u64,
    /// Rosters cannot be written.
    pub(super) keeps_no_roster: bool,
    /// The roster of the cluster, where there is one.
    pub(super) roster: Vec<Vec<u8>>,
    /// What is on record of the key that wraps the secret, its end, and whether no more gets there.
    pub(super) audit: Vec<String>,
    pub(super) audit_head: ChainHead,
    pub(super) keeps_no_audit: bool,
    /// Where the keys of a member are, which host it is, and how many it has made.
    pub(super) keys: Option<(ClusterFiles, u8)>,
    made: u8,
    /// What is being written, and when that ends.
    under_way: VecDeque<(Instant, Save)>,
}

impl Store for Disk {
    fn begin(&mut self, now: Instant, save: Save) {
        let begin = self.under_way.back().map_or(now, |(end, _)| *end);
        self.under_way.push_back((begin + self.delay, save));
    }
}

impl Disk {
    /// When the next write ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.under_way.front().map(|(end, _)| *end)
    }

    /// Ends the next write, if it is time.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Written> {
        let (_, save) = self.under_way.pop_front_if(|(end, _)| *end <= now)?;
        Some(self.write(save))
    }

    fn write(&mut self, save: Save) -> Written {
        // It is written beside the one before, and takes its place then.
        let fits = |saved: &Saved, times: usize| {
            let octets = || times * saved.to_json().len();
            match self.room.is_some_and(|room| octets() > room) {
                true => Err(SavedError::Broken { file: PathBuf::new(), reason: "no space left".to_owned() }),
                false => Ok(()),
            }
        };
        match save {
            Save::Config(_) => Written::Config(Ok(())),
            Save::Roster(_) if self.keeps_no_roster => Written::Roster(Err(SavedError::Broken {
                file: PathBuf::new(),
                reason: "no space left".to_owned(),
            })),
            Save::Roster(entries) => {
                self.roster = entries;
                Written::Roster(Ok(()))
            }
            Save::Keys(step) => Written::Keys(self.write_keys(step)),
            Save::Audit(batch) => Written::Audit(self.write_audit(&batch)),
            Save::State { saved, room } => {
                let outcome = room.map_or(Ok(()), |room| fits(&room, 2)).and_then(|()| fits(&saved, 1));
                self.failed = outcome.is_err();
                if outcome.is_ok() {
                    self.saved = *saved;
                    self.writes += 1;
                }
                Written::State(outcome.map(|()| self.octets))
            }
        }
    }

    fn write_audit(&mut self, batch: &AuditBatch) -> Result<AuditWritten, SavedError> {
        if self.keeps_no_audit {
            return Err(SavedError::Broken { file: PathBuf::new(), reason: "no space left".to_owned() });
        }
        let written = batch.lines(self.audit_head, None);
        self.audit.extend(written.lines.iter().cloned());
        self.audit_head = written.head;
        Ok(written)
    }

    /// The keys are in files, as they are where agents run.
    fn write_keys(&mut self, step: KeyStep) -> KeysWritten {
        let (files, host) = self.keys.as_ref().expect("a host that has keys has files");
        match step {
            KeyStep::ChangeOver => KeysWritten::ChangedOver(files.change_over()),
            KeyStep::Make => {
                let made = Cell::new(self.made);
                let new = || {
                    made.update(|made| made + 1);
                    let mut seed = [0xa5; 32];
                    (seed[0], seed[1]) = (*host, made.get());
                    Ok(pem(seed).into())
                };
                let keys = files.make_next_keys(new);
                self.made = made.get();
                KeysWritten::Made(keys)
            }
        }
    }

    /// What is being written gets there, and nobody hears of it.
    pub(super) fn finish(&mut self) {
        for (_, save) in std::mem::take(&mut self.under_way) {
            self.write(save);
        }
    }

    /// Whoever was writing is gone.
    pub(super) fn lose(&mut self) {
        self.under_way.clear();
    }
}
