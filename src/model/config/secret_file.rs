//! The file that holds a secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

use crate::model::Secret;
use crate::model::secret::NotASecret;

/// A secret's line has 44 characters; more than this is something else.
const LIMIT: u64 = 256;

/// Why a file gave no secret. It never repeats what the file holds.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It is not there or cannot be read.
    #[error("{}: cannot be read: {source}{}", file.display(), hint(source))]
    Unreadable {
        /// Which file.
        file: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("{}: is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Group or others have access to it.
    #[error(
        "{}: others may read or write it (mode {mode:04o}): `chmod 600 {}`, and make a new secret \
         if somebody could have read this one",
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
        /// Whose it is.
        uid: u32,
    },
    /// It holds something else.
    #[error("{}: {source}", file.display())]
    Contents {
        /// Which file.
        file: PathBuf,
        /// What a secret looks like.
        #[source]
        source: NotASecret,
    },
}

/// Reads the secret in `path`.
///
/// # Errors
/// The file is not there, others may read it, or it holds no secret.
pub fn load(path: &Path) -> Result<Secret, SecretFileError> {
    let unreadable = |source| SecretFileError::Unreadable { file: path.to_owned(), source };
    // Not blocking: opening a pipe would wait for its writer.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .map_err(unreadable)?;
    check(path, &file.metadata().map_err(unreadable)?)?;
    let text = read(&mut file).map_err(unreadable)?;
    Secret::from_line(&text).map_err(|source| SecretFileError::Contents { file: path.to_owned(), source })
}

/// Whether nobody else can read or replace the contents: asked of the open file, so that nothing can
/// change in between.
fn check(path: &Path, metadata: &fs::Metadata) -> Result<(), SecretFileError> {
    let file = path.to_owned();
    let mode = metadata.permissions().mode() & 0o7777;
    let uid = metadata.uid();
    if !metadata.is_file() {
        Err(SecretFileError::NotAFile(file))
    } else if mode & 0o077 != 0 {
        Err(SecretFileError::OpenToOthers { file, mode })
    } else if uid != 0 && uid != nix::unistd::geteuid().as_raw() {
        Err(SecretFileError::Stranger { file, uid })
    } else {
        Ok(())
    }
}

/// The first bytes as text; what is not UTF-8 is no secret, and comes back as an empty text.
fn read(file: &mut File) -> io::Result<Zeroizing<String>> {
    // Its full size at once: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT as usize + 1));
    file.take(LIMIT).read_to_end(&mut bytes)?;
    Ok(Zeroizing::new(std::str::from_utf8(&bytes).unwrap_or_default().to_owned()))
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "; copy it from another host, or make the first one: `hostseal secret generate`, mode 0600"
        }
        io::ErrorKind::PermissionDenied => "; run as root",
        _ => "",
    }
}
