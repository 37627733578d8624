//! The files of the lines: one that is written to, and older ones. Their size has a bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Take, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};

use super::{AuditBatch, AuditCheck, AuditLine, AuditVerdict, AuditWritten, ChainHead, LineHash, Torn};
use crate::store::SavedError;

/// A file that has become so long, in octets, becomes an old one.
const LONGEST: u64 = 8 << 20;
/// So many old ones are kept: with the defaults, all of them reach back for about ten months.
const KEPT: u32 = 4;
/// Somebody else writes a line or two: the agent, or a command of root's.
const ATTEMPTS: u32 = 25;
/// How long is waited for that in between. The agent has other things to write.
const INTERVAL: Duration = Duration::from_millis(20);
/// The end of a file in which its last line is looked for: a batch has less.
const WINDOW: u64 = 512 << 10;

/// Where the lines of a host are.
#[derive(Debug, Clone)]
pub struct AuditFiles {
    directory: PathBuf,
    /// How long a file may become.
    longest: u64,
    /// No old one is shorter: what did not fit into it was less than the rest.
    full: u64,
    /// How often it is tried whether somebody else still writes.
    attempts: u32,
}

impl AuditFiles {
    /// Those of an agent with this state directory.
    pub fn of(state_dir: &Path) -> Self {
        Self { directory: state_dir.to_owned(), longest: LONGEST, full: LONGEST - WINDOW, attempts: ATTEMPTS }
    }

    /// The same with shorter files, and without patience.
    #[cfg(test)]
    pub(super) fn with_longest(self, longest: u64) -> Self {
        Self { longest, full: longest / 2, attempts: 1, ..self }
    }

    /// The file that is written to.
    pub fn current(&self) -> PathBuf {
        self.directory.join("kms-audit.jsonl")
    }

    /// An old one; the first one is the youngest.
    fn old(&self, number: u32) -> PathBuf {
        self.directory.join(format!("kms-audit.jsonl.{number}"))
    }

    /// All that there may be, the youngest first.
    fn all(&self) -> impl DoubleEndedIterator<Item = PathBuf> + '_ {
        (0..=KEPT).map(move |number| if number == 0 { self.current() } else { self.old(number) })
    }

    /// Writes a batch behind the last line, and sees to it that it outlives a power cut.
    ///
    /// # Errors
    /// The system refuses. Then no line of the batch counts as written.
    pub fn append(&self, batch: &AuditBatch) -> Result<AuditWritten, SavedError> {
        let _lock = self.lock()?;
        let end = self.end(batch.known)?;
        let written = batch.lines(end.follows(batch.known), end.torn.hash());
        let mut text = String::new();
        // What a power cut has left of a line stays there, for all to see.
        text.extend((!end.ends_line).then_some('\n'));
        written.lines.iter().for_each(|line| text.extend([line.as_str(), "\n"]));
        let is_clean = end.torn.hash().is_none() && end.ends_line;
        if is_clean && end.length > 0 && end.length + text.len() as u64 > self.longest {
            self.rotate()?;
        }
        self.write(text.as_bytes())?;
        Ok(written)
    }

    /// Nobody else writes meanwhile. What is locked is a file that only root can open.
    pub(super) fn lock(&self) -> Result<Flock<File>, SavedError> {
        let path = self.directory.join("kms-audit.lock");
        let mut file = open_to_append(&path).map_err(failed(&path, "cannot be opened"))?;
        for _ in 1..self.attempts {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Err((unlocked, Errno::EWOULDBLOCK)) => file = unlocked,
                outcome => {
                    return outcome.map_err(|(_, errno)| failed(&path, "cannot be locked")(errno.into()));
                }
            }
            thread::sleep(INTERVAL);
        }
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        locked.map_err(|(_, errno)| failed(&path, "is locked by somebody else who writes")(errno.into()))
    }

    /// Where the lines end: in the youngest file that has one.
    fn end(&self, known: Option<ChainHead>) -> Result<AuditEnd, SavedError> {
        let (mut behind, mut length, mut ends_line) = (Vec::new(), 0, true);
        for (number, path) in self.all().enumerate() {
            let Some((tail, whole)) = tail(&path).map_err(failed(&path, "cannot be read"))? else { continue };
            if number == 0 {
                (length, ends_line) = (whole, tail.last().is_none_or(|last| *last == b'\n'));
            }
            let mut end = AuditEnd::of(&tail, known);
            if end.head.is_some() {
                end.strange.extend(behind.into_iter().rev().flatten());
                return Ok(end.at(length, ends_line));
            }
            if whole > tail.len() as u64 {
                let error = io::Error::other("move it away");
                return Err(failed(&path, "has no line of hostseal's at its end")(error));
            }
            behind.push(end.strange);
        }
        let strange = behind.into_iter().rev().flatten().collect();
        Ok(AuditEnd { strange, ..AuditEnd::default() }.at(length, ends_line))
    }

    fn rotate(&self) -> Result<(), SavedError> {
        let files: Vec<PathBuf> = self.all().collect();
        for pair in files.windows(2).rev() {
            let [from, to] = pair else { continue };
            match fs::rename(from, to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed.map_err(failed(from, "cannot be kept as an old one"))?,
            }
        }
        Ok(())
    }

    fn write(&self, text: &[u8]) -> Result<(), SavedError> {
        let path = self.current();
        let io = |what| failed(&path, what);
        let mut file = open_to_append(&path).map_err(io("cannot be opened"))?;
        let before = file.metadata().map_err(io("cannot be read"))?.len();
        let directory = || match before {
            0 => File::open(&self.directory)?.sync_all(),
            _ => Ok(()),
        };
        let written = file.write_all(text).and_then(|()| file.sync_data()).and_then(|()| directory());
        if written.is_err() {
            // What is left of it would be a torn line, or be there twice.
            let _ = file.set_len(before);
        }
        written.map_err(io("cannot be written"))
    }

    /// Whether these are the lines that were written, from the oldest that is left, behind the one with the hash `from` if
    /// that is said, and up to these `heads`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn check(&self, from: Option<LineHash>, heads: Vec<LineHash>) -> Result<AuditVerdict, SavedError> {
        let (mut files, lock) = (Vec::new(), self.lock());
        for path in self.all().rev() {
            let opened = if_there(open_ours(OpenOptions::new().read(true), &path));
            let opened = opened.map_err(failed(&path, "cannot be opened"))?;
            files.extend(opened.map(|file| AuditCopy::of(path, file)).transpose()?);
        }
        // What is written from now on is not looked at.
        drop(lock);
        // Older ones were removed only where all that are kept are there, and full.
        let is_full =
            |copy: &&AuditCopy| copy.path != self.current() && copy.text.get_ref().limit() >= self.full;
        let whole = files.iter().filter(is_full).count() < KEPT as usize;
        check(files, AuditCheck::new(whole, from, heads))
    }

    /// The same of copies, the oldest first.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn check_copies(
        files: &[PathBuf],
        from: Option<LineHash>,
        heads: Vec<LineHash>,
    ) -> Result<AuditVerdict, SavedError> {
        let mut copies = Vec::new();
        for path in files {
            let file = File::open(path).map_err(failed(path, "cannot be opened"))?;
            copies.push(AuditCopy::of(path.clone(), file)?);
        }
        check(copies, AuditCheck::new(false, from, heads))
    }
}

/// A file to be looked at, as long as it is now.
struct AuditCopy {
    path: PathBuf,
    text: BufReader<Take<File>>,
}

impl AuditCopy {
    fn of(path: PathBuf, file: File) -> Result<Self, SavedError> {
        let length = file.metadata().map_err(failed(&path, "cannot be read"))?.len();
        Ok(Self { path, text: BufReader::new(file.take(length)) })
    }
}

/// Opens a file of the state directory. Whoever took over an agent can put anything there, and root's commands open it
/// too: a link leads them nowhere else, and a pipe keeps them from nothing.
fn open_ours(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let wrong = |what| io::Error::other(format!("{what}: move it away"));
    let opened = options.custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(number) if number == Errno::ELOOP as i32 => wrong("it is a link"),
        _ => error,
    })?;
    let found = file.metadata()?;
    if !found.is_file() {
        Err(wrong("it is no file"))
    } else if found.nlink() > 1 {
        Err(wrong("it has another name, too"))
    } else if ![0, nix::unistd::geteuid().as_raw()].contains(&found.uid()) {
        Err(wrong("it belongs to somebody else"))
    } else {
        Ok(file)
    }
}

fn open_to_append(path: &Path) -> io::Result<File> {
    open_ours(OpenOptions::new().create(true).append(true).mode(0o600), path)
}

fn if_there(opened: io::Result<File>) -> io::Result<Option<File>> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

fn check(files: Vec<AuditCopy>, mut check: AuditCheck) -> Result<AuditVerdict, SavedError> {
    for AuditCopy { path, mut text } in files {
        check.begin(path.display().to_string());
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = text.by_ref().take(WINDOW).read_until(b'\n', &mut line);
            if read.map_err(failed(&path, "cannot be read"))? == 0 {
                break;
            }
            check.handle_line(line.strip_suffix(b"\n").unwrap_or(&line));
        }
    }
    Ok(check.end())
}

/// The end of a file, and how long the whole of it is; `None` where it is not there.
fn tail(path: &Path) -> io::Result<Option<(Vec<u8>, u64)>> {
    let Some(mut file) = if_there(open_ours(OpenOptions::new().read(true), path))? else { return Ok(None) };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
    let mut tail = Vec::new();
    file.take(WINDOW).read_to_end(&mut tail)?;
    Ok(Some((tail, length)))
}

/// The end of the lines.
#[derive(Default)]
struct AuditEnd {
    /// The last line.
    head: Option<ChainHead>,
    /// What stands behind it and is none, line by line.
    strange: Vec<Vec<u8>>,
    torn: Torn,
    /// There is another line in the place of the one that was known.
    is_other: bool,
    /// How long the file is that is written to, and whether its last line has its end.
    length: u64,
    ends_line: bool,
}

impl AuditEnd {
    /// The end of a file whose last octets are these. Whoever writes to it knows of the line `known`.
    fn of(tail: &[u8], known: Option<ChainHead>) -> Self {
        let mut end = Self::default();
        let lines = tail.strip_suffix(b"\n").unwrap_or(tail).rsplit(|octet| *octet == b'\n');
        for text in lines.filter(|_| !tail.is_empty()) {
            let Some(line) = AuditLine::read(text) else {
                if end.head.is_none() {
                    end.strange.push(text.to_owned());
                }
                continue;
            };
            let at = ChainHead::at(&line, text);
            end.head.get_or_insert(at);
            match known {
                Some(known) if known.seq < at.seq => {}
                known => {
                    end.is_other = known.is_some_and(|known| known != at);
                    break;
                }
            }
        }
        // They were found from the end.
        end.strange.reverse();
        end
    }

    fn at(self, length: u64, ends_line: bool) -> Self {
        let mut torn = Torn::default();
        self.strange.iter().for_each(|text| torn.add(text));
        Self { torn, length, ends_line, ..self }
    }

    /// The line that the next one follows. Where it is not there that was `known`, the gap is to be seen.
    fn follows(&self, known: Option<ChainHead>) -> ChainHead {
        match (known, self.head) {
            (Some(known), Some(head)) if !self.is_other && head.seq >= known.seq => head,
            (Some(known), _) => known,
            (None, head) => head.unwrap_or_default(),
        }
    }
}

fn failed(file: &Path, what: &'static str) -> impl FnOnce(io::Error) -> SavedError {
    let file = file.to_owned();
    move |source| SavedError::Io { file, what, source }
}
