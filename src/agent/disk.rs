//! The state directory, which a separate thread writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvError;
use std::time::Instant;

use super::writer::Writer;
use crate::host::ledger::{Save, Written};
use crate::host::ports::Store;
use crate::store::config_file;

/// Where an agent writes what survives.
pub(super) struct Disk {
    /// It gives back what it has written: freed by the thread that made it, that keeps neither waiting for the other.
    writer: Writer<(Written, Save)>,
    /// Where the configuration is, and what is remembered.
    config: PathBuf,
    state: PathBuf,
}

impl Disk {
    /// The state goes to `state`; the configuration that is kept lies in `config`.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn open(config: &Path, state: PathBuf) -> io::Result<Self> {
        Ok(Self { writer: Writer::start()?, config: config.to_owned(), state })
    }

    /// What came of the oldest that was begun, once it is over.
    pub(super) async fn outcome(&self) -> Written {
        self.writer.outcome().await.0
    }

    /// The same for whom nothing else is to be done meanwhile. Something must have been begun.
    ///
    /// # Errors
    /// The thread is gone.
    pub(super) fn wait(&self) -> Result<Written, RecvError> {
        self.writer.wait().map(|(written, _)| written)
    }
}

impl Store for Disk {
    fn begin(&mut self, _: Instant, save: Save) {
        let (path, state) = (self.config.clone(), self.state.clone());
        self.writer.begin(move || {
            let written = match &save {
                Save::Config(config) => Written::Config(config_file::keep(config, &path)),
                Save::State { saved, room } => {
                    let room = room.as_ref().map_or(Ok(()), |room| room.try_room(&state));
                    Written::State(room.and_then(|()| saved.save(&state)))
                }
            };
            (written, save)
        });
    }
}
