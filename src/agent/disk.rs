//! The state directory, which a separate thread writes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvError;
use std::time::Instant;

use super::writer::Writer;
use crate::config::Config;
use crate::host::ledger::{KeyStep, KeysWritten, Save, Written};
use crate::host::ports::Store;
use crate::identity::{KeyKind, PrivateKey};
use crate::store::{AuditFiles, ClusterFiles, config_file};

/// Where an agent writes what survives.
pub(super) struct Disk {
    /// It gives back what it has written: freed by the thread that made it, that keeps neither waiting for the other.
    writer: Writer<(Written, Save)>,
    /// Where the configuration is, and what is remembered.
    config: PathBuf,
    state: PathBuf,
    /// Where what belongs to the cluster is.
    cluster: ClusterFiles,
    /// Where the record of the key is that wraps the secret.
    audit: AuditFiles,
}

impl Disk {
    /// The configuration, which says where the rest goes, lies in `file`.
    ///
    /// # Errors
    /// The system has no thread for it.
    pub(super) fn open(file: &Path, config: &Config) -> io::Result<Self> {
        let (state, directory) = (config.state_path(), &config.state_dir);
        Ok(Self {
            writer: Writer::start("hostseal-writer")?,
            config: file.to_owned(),
            state,
            cluster: ClusterFiles::of(directory),
            audit: AuditFiles::of(directory),
        })
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
        let (cluster, audit) = (self.cluster.clone(), self.audit.clone());
        self.writer.begin(move || {
            let written = match &save {
                Save::Roster(entries) => Written::Roster(cluster.save_entries(entries)),
                Save::Keys(KeyStep::Make) => {
                    let made = cluster.make_next_keys(|| PrivateKey::generate(KeyKind::Ed25519));
                    Written::Keys(KeysWritten::Made(made))
                }
                Save::Keys(KeyStep::ChangeOver) => {
                    Written::Keys(KeysWritten::ChangedOver(cluster.change_over()))
                }
                Save::Audit(batch) => Written::Audit(audit.append(batch)),
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
