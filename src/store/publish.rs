//! Files for others to read, whole at any time.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// All may read it.
const MODE: u32 = 0o644;

/// Replaces the contents of `file` in one step. It need not outlive a power cut.
///
/// # Errors
/// The system refuses, or it is a device, a directory or the like; what was there is still there.
pub fn replace(file: &Path, contents: &[u8]) -> io::Result<()> {
    put(file, contents, |_| Ok(()))
}

/// As [`replace`], but it outlives a power cut.
///
/// # Errors
/// As [`replace`].
pub fn replace_for_good(file: &Path, contents: &[u8]) -> io::Result<()> {
    put(file, contents, File::sync_all)?;
    // So does its name.
    File::open(file.parent().unwrap_or(Path::new("/")))?.sync_all()
}

/// Keeps a copy of `file` beside it, for good, and says where; `None` where there is no file.
///
/// # Errors
/// The system refuses.
pub fn keep_previous(file: &Path) -> io::Result<Option<PathBuf>> {
    let contents = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read?,
    };
    let mut previous = file.as_os_str().to_owned();
    previous.push(".previous");
    let previous = PathBuf::from(previous);
    replace_for_good(&previous, &contents)?;
    Ok(Some(previous))
}

fn put(file: &Path, contents: &[u8], then: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let aside = aside(file)?;
    let write = || {
        let mut open = create(&aside)?;
        open.write_all(contents)?;
        then(&open)?;
        fs::rename(&aside, file)
    };
    write().inspect_err(|_| drop(fs::remove_file(&aside)))
}

/// Whether [`replace`] could do that, as far as it can be seen. It changes nothing.
///
/// # Errors
/// What would stand against it.
pub fn can_replace(file: &Path) -> io::Result<()> {
    let aside = aside(file)?;
    create(&aside)?;
    fs::remove_file(&aside)
}

/// Where the new contents are written first.
fn aside(file: &Path) -> io::Result<PathBuf> {
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is there and is no ordinary file"));
    }
    // The name says that it is no file for whoever collects these.
    let mut aside = file.as_os_str().to_owned();
    aside.push(format!(".{}.new", std::process::id()));
    Ok(aside.into())
}

fn create(aside: &Path) -> io::Result<File> {
    let create = || OpenOptions::new().write(true).create_new(true).mode(MODE).open(aside);
    let open = match create() {
        // One that a crash left.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(aside).and_then(|()| create())
        }
        created => created,
    }?;
    open.set_permissions(Permissions::from_mode(MODE))?;
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_all_may_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("hostseal.prom");
        for contents in ["one", "other"] {
            replace(&file, contents.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), contents);
        }
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        can_replace(&file).unwrap();
        can_replace(&directory.path().join("new")).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "it changes nothing");
        replace_for_good(&file, b"lasting").unwrap();
        assert_eq!(keep_previous(&file).unwrap(), Some(directory.path().join("hostseal.prom.previous")));
        replace_for_good(&file, b"newer").unwrap();
        assert_eq!(fs::read_to_string(directory.path().join("hostseal.prom.previous")).unwrap(), "lasting");
        assert_eq!(keep_previous(&directory.path().join("none")).unwrap(), None);
        for wrong in [&directory.path().join("none/x"), Path::new("/dev/null"), directory.path()] {
            replace(wrong, b"").unwrap_err();
            can_replace(wrong).unwrap_err();
        }
    }
}
