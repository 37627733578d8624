//! Hears when one of a few files was replaced or written to the end.
//!
//! Their directories are watched rather than the files, so that a file may be replaced by another of its
//! name. A file that is written in place counts when its writer closes it: nobody has to guess how long
//! writing takes. A file that vanishes is not heard of: there is nothing to read then.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

/// What may be the end of a change: a writer closed the file, another file took its name, its permissions
/// changed, a link with its name appeared; or its directory went.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// The watched files.
pub(super) struct Watch {
    inotify: Inotify,
    directories: BTreeMap<WatchDescriptor, Directory>,
}

struct Directory {
    path: PathBuf,
    names: BTreeSet<OsString>,
}

impl AsRawFd for Watch {
    fn as_raw_fd(&self) -> RawFd {
        self.inotify.as_fd().as_raw_fd()
    }
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The system has no more of these.
    pub(super) fn open() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        Ok(Self { inotify, directories: BTreeMap::new() })
    }

    /// Watches these files instead of others, and what they link to. What is in a directory that does not
    /// exist cannot be watched.
    pub(super) fn aim(&mut self, files: &[PathBuf]) {
        let mut wanted: BTreeMap<PathBuf, BTreeSet<OsString>> = BTreeMap::new();
        for file in files.iter().flat_map(|file| [Some(file.clone()), fs::canonicalize(file).ok()]).flatten()
        {
            if let (Some(directory), Some(name)) = (file.parent(), file.file_name()) {
                let directory = if directory == Path::new("") { Path::new(".") } else { directory };
                wanted.entry(directory.to_owned()).or_default().insert(name.to_owned());
            }
        }
        let before = std::mem::take(&mut self.directories);
        for (path, names) in wanted {
            match self.inotify.add_watch(&path, CHANGES) {
                Ok(watched) => {
                    // Two paths may be the same directory.
                    let known = self.directories.entry(watched);
                    known.or_insert(Directory { path, names: BTreeSet::new() }).names.extend(names);
                }
                // The host of a member needs no file.
                Err(Errno::ENOENT) => tracing::debug!("{} is not there", path.display()),
                Err(error) => tracing::warn!("changes in {} go unnoticed: {error}", path.display()),
            }
        }
        for gone in before.keys().filter(|watched| !self.directories.contains_key(watched)) {
            // One whose directory is gone is gone already.
            let _ = self.inotify.rm_watch(*gone);
        }
    }

    /// Takes in all that has happened since the last call; says whether one of the files may have changed.
    pub(super) fn changed(&self) -> bool {
        let mut changed = false;
        loop {
            match self.inotify.read_events() {
                Ok(events) => changed |= events.iter().any(|event| self.concerns_us(event)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return changed,
                Err(error) => {
                    tracing::warn!("cannot watch the files for changes: {error}");
                    return changed;
                }
            }
        }
    }

    fn concerns_us(&self, event: &InotifyEvent) -> bool {
        let (Some(directory), Some(name)) = (self.directories.get(&event.wd), &event.name) else {
            // About a directory itself, or so many at once that some were dropped.
            return !event.mask.contains(AddWatchFlags::IN_IGNORED)
                || self.directories.contains_key(&event.wd);
        };
        // A link decides at once what a path means; a file that is being written is not complete yet.
        let link = || fs::symlink_metadata(directory.path.join(name)).is_ok_and(|found| found.is_symlink());
        match event.mask {
            mask if mask.contains(AddWatchFlags::IN_CREATE) => link(),
            mask if mask.contains(AddWatchFlags::IN_MOVED_TO) => directory.names.contains(name) || link(),
            _ => directory.names.contains(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn watch(files: &[PathBuf]) -> Watch {
        let mut watch = Watch::open().unwrap();
        watch.aim(files);
        watch
    }

    #[test]
    fn what_is_written_counts_when_it_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let watch = watch(std::slice::from_ref(&file));
        let mut writer = fs::File::create(&file).unwrap();
        writer.write_all(b"half").unwrap();
        assert!(!watch.changed());
        writer.write_all(b"and half").unwrap();
        drop(writer);
        assert!(watch.changed());
        assert!(!watch.changed());
    }

    #[test]
    fn a_file_may_be_replaced_linked_or_given_other_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let watch = watch(&[path("file")]);
        fs::write(path("next"), "x").unwrap();
        assert!(!watch.changed(), "other files do not matter");
        fs::rename(path("next"), path("file")).unwrap();
        assert!(watch.changed());
        fs::set_permissions(path("file"), fs::Permissions::from_mode(0o600)).unwrap();
        assert!(watch.changed());
        fs::remove_file(path("file")).unwrap();
        assert!(!watch.changed());
        symlink("elsewhere", path("file")).unwrap();
        assert!(watch.changed());
    }

    #[test]
    fn what_a_link_leads_to_is_watched_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("one")).unwrap();
        fs::write(path("one/file"), "x").unwrap();
        symlink(path("one"), path("now")).unwrap();
        symlink("now/file", path("file")).unwrap();
        let watch = watch(&[path("file")]);
        fs::write(path("one/file"), "y").unwrap();
        assert!(watch.changed());
        symlink(path("one"), path("then")).unwrap();
        assert!(watch.changed());
        fs::rename(path("then"), path("now")).unwrap();
        assert!(watch.changed(), "a link on the way");
    }

    #[test]
    fn another_aim_forgets_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("one")).unwrap();
        fs::create_dir(path("two")).unwrap();
        let mut watch = watch(&[path("one/file")]);
        watch.aim(&[path("two/file"), path("nowhere/file")]);
        assert!(!watch.changed());
        fs::write(path("one/file"), "x").unwrap();
        assert!(!watch.changed());
        fs::write(path("two/file"), "x").unwrap();
        assert!(watch.changed());
    }
}
