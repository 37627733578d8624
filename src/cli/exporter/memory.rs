//! What is still true without an agent, kept over the end of the exporter: what is wanted of this host, when
//! keys end, and how many pairs there are.

use std::fs;
use std::path::{Path, PathBuf};

use crate::observe::metrics::LastKnown;
use crate::store::publish;

/// The name of the file.
const NAME: &str = "last.json";

/// What was known last.
pub(super) struct Memory {
    file: Option<PathBuf>,
    last: Option<LastKnown>,
}

impl Memory {
    /// What the exporter before this one has left in `directory`, if it has one.
    pub(super) fn open(directory: Option<&Path>) -> Self {
        let file = directory.map(|directory| directory.join(NAME));
        let bytes = file.as_ref().and_then(|file| fs::read(file).ok());
        let last = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { file, last }
    }

    /// What was known last.
    pub(super) fn last(&self) -> Option<&LastKnown> {
        self.last.as_ref()
    }

    /// This is known now.
    pub(super) fn note(&mut self, now: LastKnown) {
        if self.last.as_ref() == Some(&now) {
            return;
        }
        if let Some(file) = &self.file {
            // Plain data with string keys: writing it to memory has nothing to fail at.
            let json = serde_json::to_vec(&now).unwrap_or_default();
            if let Err(error) = publish::replace(file, &json) {
                tracing::warn!("{} cannot be written: {error}", file.display());
            }
        }
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::observe::status::Summary;
    use crate::types::{Protection, UnixTime};

    #[test]
    fn it_outlives_the_exporter_and_a_broken_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let open = || Memory::open(Some(directory.path()));
        assert!(open().last().is_none() && Memory::open(None).last().is_none());
        let known = LastKnown {
            cluster: "c".to_owned(),
            node: None,
            mode: Mode::Require,
            protection: Protection::On,
            summary: Summary::default(),
            earliest_expiry: Some(UnixTime(1_767_312_000)),
        };
        open().note(known.clone());
        assert_eq!(open().last(), Some(&known));
        fs::write(directory.path().join(NAME), "{").unwrap();
        assert!(open().last().is_none());
    }
}
