//! Who may change the files that an agent believes: root, and the user that runs it.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Why something on the disk is not to be believed.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// Another user could change it, or put something in its place.
    #[error("{}: belongs to user {uid}, who could change it: `chown root {}`", path.display(), path.display())]
    Stranger {
        /// What.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// So could the users of a group, or all.
    #[error("{}: others may write it (mode {mode:04o}): `chmod go-w {}`", path.display(), path.display())]
    OpenToOthers {
        /// What.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The system does not say.
    #[error("{}: cannot be looked at: {source}", path.display())]
    Unknown {
        /// What.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Checks that nobody but root and the user of this process can change `path`. A missing file belongs to nobody.
///
/// # Errors
/// Somebody else can.
pub fn check(path: &Path) -> Result<(), OwnerError> {
    let path = path.to_owned();
    match fs::metadata(&path) {
        Ok(found) => judge(path, found.uid(), found.permissions().mode() & 0o7777, geteuid().as_raw()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(OwnerError::Unknown { path, source }),
    }
}

fn judge(path: PathBuf, uid: u32, mode: u32, own: u32) -> Result<(), OwnerError> {
    match () {
        () if uid != 0 && uid != own => Err(OwnerError::Stranger { path, uid }),
        () if mode & 0o022 != 0 => Err(OwnerError::OpenToOthers { path, mode }),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_can_change_is_refused_with_what_to_do() {
        let judge = |uid, mode| judge("/x".into(), uid, mode, 0).map_err(|error| error.to_string());
        assert_eq!(judge(0, 0o755), Ok(()));
        assert_eq!(judge(0, 0o600), Ok(()));
        assert_eq!(
            judge(1000, 0o600),
            Err("/x: belongs to user 1000, who could change it: `chown root /x`".to_owned())
        );
        for mode in [0o775, 0o757, 0o1777] {
            assert_eq!(
                judge(0, mode),
                Err(format!("/x: others may write it (mode {mode:04o}): `chmod go-w /x`"))
            );
        }
    }

    #[test]
    fn what_is_there_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        check(directory.path()).unwrap();
        check(&directory.path().join("nothing")).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(check(directory.path()), Err(OwnerError::OpenToOthers { .. })));
    }
}
