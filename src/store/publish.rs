//! Files for others to read, whole at any time.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// All may read it.
const MODE: u32 = 0o644;

/// Replaces the contents of `file` in one step. It need not outlive a power cut.
///
/// # Errors
/// The system refuses, or it is a device, a directory or the like; what was there is still there.
pub fn replace(file: &Path, contents: &[u8]) -> io::Result<()> {
    if fs::metadata(file).is_ok_and(|there| !there.is_file()) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is there and is no ordinary file"));
    }
    // The name says that it is no file for whoever collects these.
    let mut aside = file.as_os_str().to_owned();
    aside.push(format!(".{}.new", std::process::id()));
    let write = || {
        let mut open = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&aside)?;
        open.set_permissions(Permissions::from_mode(MODE))?;
        open.write_all(contents)?;
        fs::rename(&aside, file)
    };
    let written = match write() {
        // One that a crash left.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&aside).and_then(|()| write())
        }
        written => written,
    };
    written.inspect_err(|_| drop(fs::remove_file(&aside)))
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
        replace(&directory.path().join("none/x"), b"").unwrap_err();
        replace(Path::new("/dev/null"), b"").unwrap_err();
        replace(directory.path(), b"").unwrap_err();
    }
}
