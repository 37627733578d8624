//! The file that holds the secret as a key of a KMS has wrapped it: all that lies on the disk of it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::{OwnerError, owner, publish};
use crate::config::WrappedSecret;

/// More octets than this are something else.
const LIMIT: u64 = 64 << 10;

/// Why a file gives no wrapped secret.
#[derive(Debug, thiserror::Error)]
pub enum WrappedFileError {
    /// It is not there or cannot be read.
    #[error("{}: cannot be read: {source}; `hostseal secret wrap` makes it", file.display())]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Somebody else could change it.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// It holds something else.
    #[error("{}: {message}", file.display())]
    Contents {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        message: String,
    },
}

/// What the file says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrappedText {
    key: String,
    secret_id: String,
    blob: String,
}

impl WrappedSecret {
    /// Reads the file at `path`, which `key` is to have wrapped.
    ///
    /// # Errors
    /// It is not there, others may write it, or it holds something else.
    pub fn load(path: &Path, key: &str) -> Result<Self, WrappedFileError> {
        let unreadable = |source| WrappedFileError::Unreadable { file: path.to_owned(), source };
        owner::check(path)?;
        // Not blocking: opening a pipe would wait for its writer.
        let mut options = OpenOptions::new();
        let open = options.read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        let text = open.and_then(|file| read(&file)).map_err(unreadable)?;
        let wrong = |message: String| WrappedFileError::Contents { file: path.to_owned(), message };
        let WrappedText { key: by, secret_id, blob } =
            toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        let digest = secret_id.parse().map_err(|error| wrong(format!("secret_id {error}")))?;
        if by != key {
            return Err(wrong(format!(
                "was wrapped with the key {by}, and kms.key is {key}: wrap it with that one (`hostseal secret wrap`)"
            )));
        }
        Ok(Self { key: by, digest, blob })
    }

    /// Writes it to `path`, in place of what was there, so that it outlives a power cut.
    ///
    /// # Errors
    /// The system refuses; what was there is still there.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let Self { key, digest, blob } = self;
        let text = WrappedText { key: key.clone(), secret_id: digest.to_string(), blob: blob.clone() };
        let text = toml::to_string(&text).map_err(io::Error::other)?;
        publish::replace_for_good(path, text.as_bytes())
    }
}

fn read(file: &File) -> io::Result<String> {
    let mut text = String::new();
    file.take(LIMIT).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;
    use crate::identity::Secret;

    fn wrapped() -> WrappedSecret {
        WrappedSecret { key: "k".to_owned(), digest: Secret::new([7; 32]).digest(), blob: "AAAA".to_owned() }
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.wrapped");
        wrapped().save(&path).unwrap();
        assert_eq!(WrappedSecret::load(&path, "k").unwrap(), wrapped());
        let error = WrappedSecret::load(&path, "other").unwrap_err().to_string();
        assert!(error.contains("was wrapped with the key k, and kms.key is other"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(WrappedSecret::load(&path, "k"), Err(WrappedFileError::Owner(_))));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whatever lies there.
        #[test]
        fn no_octets_are_read_as_more_than_they_are(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("secret.wrapped");
            fs::write(&path, &octets).unwrap();
            prop_assert!(WrappedSecret::load(&path, "k").is_err());
        }

        #[test]
        fn what_any_key_has_wrapped_reads_back(key in "[!-~]{1,60}", blob in "[A-Za-z0-9+/=]{0,400}", octet: u8) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("secret.wrapped");
            let wrapped = WrappedSecret { key: key.clone(), digest: Secret::new([octet; 32]).digest(), blob };
            wrapped.save(&path).unwrap();
            prop_assert_eq!(WrappedSecret::load(&path, &key).unwrap(), wrapped);
        }
    }

    #[test]
    fn what_is_something_else_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret.wrapped");
        let error = WrappedSecret::load(&path, "k").unwrap_err().to_string();
        assert!(error.contains("hostseal secret wrap"), "{error}");
        for text in ["", "key = 7", "key = \"k\"\nsecret_id = \"91\"\nblob = \"A\"\n", "\u{0}"] {
            fs::write(&path, text).unwrap();
            assert!(
                matches!(WrappedSecret::load(&path, "k"), Err(WrappedFileError::Contents { .. })),
                "{text}"
            );
        }
    }
}
