//! Files that hold what nobody else may know: the secret, a private key.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use crate::identity::{PrivateKey, Secret};

/// What a file is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// The secret of a cluster.
    Secret,
    /// The private key of a host.
    Key,
    /// A PPK.
    Ppk,
}

impl Holds {
    /// More bytes than this are something else: a secret's line has 44, a P-384 key some 300, and other
    /// programs write text around it.
    fn limit(self) -> u64 {
        match self {
            Holds::Secret | Holds::Ppk => 256,
            Holds::Key => 4096,
        }
    }

    /// Where to get one from.
    fn origin(self) -> &'static str {
        match self {
            Holds::Secret => {
                "; copy it from another host, or make the first one: `hostseal secret generate`, mode 0600"
            }
            Holds::Key => "; `hostseal key generate` makes one",
            Holds::Ppk => {
                "; copy the PPK from another host, or make the first one: `hostseal secret generate`, mode 0600"
            }
        }
    }
}

/// Why a file did not give what it is to hold. It never repeats what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// It is not there or cannot be read.
    #[error("{}: cannot be read: {source}{}", file.display(), hint(*holds, source))]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What it is to hold.
        holds: Holds,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{}: is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Group or others have access to it.
    #[error(
        "{}: others may read or write it (mode {mode:04o}): `chmod 600 {}`, and make a new one \
         if somebody could have read it",
        file.display(), file.display()
    )]
    OpenToOthers {
        /// Which file.
        file: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// Another user than root and the one who runs hostseal owns it.
    #[error("{}: belongs to user {uid}: `chown root {}`", file.display(), file.display())]
    Stranger {
        /// Which file.
        file: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// It holds something else.
    #[error("{}: {message}", file.display())]
    Contents {
        /// Which file.
        file: PathBuf,
        /// What it should look like.
        message: String,
    },
}

/// Reads the secret in `path`. No copy of it stays behind: a key of somebody else may wrap it one day, and take it away.
///
/// # Errors
/// The file is not there, others may read it, or it holds no secret.
pub fn load_secret(path: &Path) -> Result<Arc<Secret>, PrivateFileError> {
    load(path, Holds::Secret, Secret::shared_from_line)
}

/// Reads the key of a PPK in `path`, which looks as a secret does.
///
/// # Errors
/// The file is not there, others may read it, or it holds none.
pub fn load_ppk(path: &Path) -> Result<Secret, PrivateFileError> {
    load(path, Holds::Ppk, Secret::from_line)
}

/// Reads the private key in `path`.
///
/// # Errors
/// The file is not there, others may read it, or it holds no private key.
pub fn load_key(path: &Path) -> Result<PrivateKey, PrivateFileError> {
    load(path, Holds::Key, PrivateKey::from_pem)
}

/// The text of the private key in `path`, to be kept elsewhere too.
///
/// # Errors
/// As [`load_key`].
pub fn load_key_text(path: &Path) -> Result<Zeroizing<String>, PrivateFileError> {
    let whole = |text: &str| PrivateKey::from_pem(text).map(|_| Zeroizing::new(text.to_owned()));
    load(path, Holds::Key, whole)
}

fn load<T, E: ToString>(
    path: &Path,
    holds: Holds,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, PrivateFileError> {
    let unreadable = |source| PrivateFileError::Unreadable { file: path.to_owned(), holds, source };
    // Not blocking: opening a pipe would wait for its writer.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(unreadable)?;
    check(path, &file.metadata().map_err(unreadable)?)?;
    let text = read(&mut file, holds.limit()).map_err(unreadable)?;
    let contents =
        |error: E| PrivateFileError::Contents { file: path.to_owned(), message: error.to_string() };
    parse(&text).map_err(contents)
}

/// Whether nobody else can read or replace the contents: asked of the open file, so that nothing can
/// change in between.
fn check(path: &Path, metadata: &fs::Metadata) -> Result<(), PrivateFileError> {
    let file = path.to_owned();
    let mode = metadata.permissions().mode() & 0o7777;
    let uid = metadata.uid();
    if !metadata.is_file() {
        Err(PrivateFileError::NotAFile(file))
    } else if mode & 0o077 != 0 {
        Err(PrivateFileError::OpenToOthers { file, mode })
    } else if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        Err(PrivateFileError::Stranger { file, uid })
    } else {
        Ok(())
    }
}

/// The first `limit` bytes as text; what is not UTF-8 is neither secret nor key, and comes back as an empty
/// text.
fn read(file: &mut File, limit: u64) -> io::Result<Zeroizing<String>> {
    // Its full size at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit as usize + 1));
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(Zeroizing::new(std::str::from_utf8(&bytes).unwrap_or_default().to_owned()))
}

fn hint(holds: Holds, error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => holds.origin(),
        io::ErrorKind::PermissionDenied => "; run as root",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
