//! What is still true without an agent, kept over the end of the exporter: what is wanted of this host, when
//! keys end, and how many pairs there are. The kernel forgets keys when it starts anew, and so does this.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::observe::metrics::LastKnown;
use crate::store::publish;

/// The name of the file.
const NAME: &str = "last.json";

/// What was known last.
pub(super) struct Memory {
    file: Option<PathBuf>,
    /// This start of the system.
    boot: String,
    last: Option<LastKnown>,
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct KeptMemory {
    /// The start of the system in which it was known.
    boot: String,
    last: LastKnown,
}

impl Memory {
    /// What the exporter before this one has left in `directory`, if it has one, or else what is known `otherwise`. `boot`
    /// is this start of the system.
    pub(super) fn open(directory: Option<&Path>, boot: String, otherwise: Option<LastKnown>) -> Self {
        let file = directory.map(|directory| directory.join(NAME));
        let bytes = file.as_ref().and_then(|file| fs::read(file).ok());
        let kept: Option<KeptMemory> = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let last = kept.map(|kept| if kept.boot == boot { kept.last } else { kept.last.rebooted() });
        Self { file, boot, last: last.or(otherwise) }
    }

    /// What was known last.
    pub(super) fn last(&self) -> Option<&LastKnown> {
        self.last.as_ref()
    }

    /// No agent has left anything in the kernel of this start of the system.
    pub(super) fn end(&mut self) {
        // After a reboot, what is wanted stays as it was.
        if let Some(last) = self.last.take_if(|last| last.keys.is_some()) {
            self.note(last.disabled());
        }
    }

    /// This is known now.
    pub(super) fn note(&mut self, now: LastKnown) {
        if self.last.as_ref() == Some(&now) {
            return;
        }
        if let Some(file) = &self.file {
            // Plain data with string keys: writing it to memory has nothing to fail at.
            let kept = KeptMemory { boot: self.boot.clone(), last: now.clone() };
            let json = serde_json::to_vec(&kept).unwrap_or_default();
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
    use crate::observe::metrics::LastKeys;
    use crate::observe::status::Summary;
    use crate::types::{Protection, UnixTime};

    #[test]
    fn it_outlives_the_exporter_and_a_broken_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let open_in = |boot: &str| Memory::open(Some(directory.path()), boot.to_owned(), None);
        let open = || open_in("1");
        assert!(open().last().is_none() && Memory::open(None, "1".to_owned(), None).last().is_none());
        let known = LastKnown {
            cluster: "c".to_owned(),
            node: None,
            mode: Mode::Require,
            protection: Protection::On,
            keys: Some(LastKeys {
                summary: Summary::default(),
                earliest_expiry: Some(UnixTime(1_767_312_000)),
            }),
        };
        open().note(known.clone());
        assert_eq!(open().last(), Some(&known));
        // After a reboot the kernel has no keys.
        let without_keys = LastKnown { keys: None, ..known };
        assert_eq!(open_in("2").last(), Some(&without_keys));
        // And none once the agent has gone back to the clear and ended.
        let mut memory = open();
        memory.end();
        let disabled = LastKnown { protection: Protection::Off, ..without_keys };
        assert_eq!((memory.last(), open().last()), (Some(&disabled), Some(&disabled)));
        // What was known last counts before what the files say.
        let files = LastKnown { protection: Protection::On, ..disabled.clone() };
        let beside = |directory| Memory::open(directory, "1".to_owned(), Some(files.clone()));
        assert_eq!(beside(Some(directory.path())).last(), Some(&disabled));
        assert_eq!(beside(None).last(), Some(&files));
        // Whoever is enabled and has no agent since the system was started has not gone back to the clear.
        let mut memory = beside(None);
        memory.end();
        assert_eq!(memory.last(), Some(&files));
        fs::write(directory.path().join(NAME), "{").unwrap();
        assert!(open().last().is_none());
    }
}
