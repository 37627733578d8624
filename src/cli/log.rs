//! The agent's log: the journal, with fields, where systemd reads standard error; else standard error itself, which is
//! kept within bounds where it is a file of ours.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{MakeWriter, format};
use tracing_subscriber::prelude::*;

/// A log file that has become so long, in bytes, begins anew. One old one is kept.
const LONGEST: u64 = 8 << 20;
/// What the names of our fields in the journal begin with: `HOSTSEAL_NODE=b`.
const JOURNAL_PREFIX: &str = "HOSTSEAL";

/// Opens a log file to be written to at its end, for root alone.
///
/// # Errors
/// The system refused.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Begins the log: `$HOSTSEAL_LOG` says what it holds (in the syntax of `RUST_LOG`), else `-v` and `-q` do. `file` is
/// the file that standard error is, where that is one of ours. What the netlink crates would log about undecodable
/// messages stays out: it holds keys.
pub fn start_log(verbose: u8, quiet: bool, file: Option<&Path>) {
    let level = match (quiet, verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let wanted = std::env::var("HOSTSEAL_LOG").unwrap_or_else(|_| level.to_owned());
    let filter = ["netlink_packet_core=off", "netlink_packet_xfrm=off"]
        .into_iter()
        .filter_map(|directive| directive.parse().ok())
        .fold(EnvFilter::builder().parse_lossy(wanted), EnvFilter::add_directive);
    let log = tracing_subscriber::registry().with(filter);
    // It fails only where a subscriber is set already, as in tests.
    let _ = match journal() {
        Some(journal) => log.with(journal).try_init(),
        None => {
            let writer = StandardError { file: file.map(Path::to_owned) };
            let fields = format::debug_fn(write_field);
            // Standard error that takes nothing, as on a full disk, is no place to complain about that.
            let lines = tracing_subscriber::fmt::layer()
                .with_writer(writer)
                .with_ansi(false)
                .fmt_fields(fields)
                .log_internal_errors(false);
            log.with(lines).try_init()
        }
    };
}

/// Writes a field of a line of text. What others say cannot pass for a line of ours. It leaves out the fields that only programs need: the words of a line about a pair
/// say the same.
fn write_field(writer: &mut format::Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => write!(Inset(writer), "{value:?}"),
        "local" | "remote" | "state" | "reason" => Ok(()),
        name => write!(Inset(writer), " {name}={value:?}"),
    }
}

/// Text of one event: lines after the first are set in, and other control characters are written out.
struct Inset<'i, 'w>(&'i mut format::Writer<'w>);

impl fmt::Write for Inset<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|character| match character {
            '\n' => self.0.write_str("\n    "),
            control if control.is_control() => write!(self.0, "{}", control.escape_default()),
            character => self.0.write_char(character),
        })
    }
}

/// The journal, where standard error leads there: then `$JOURNAL_STREAM` names its device and inode (systemd.exec(5)).
fn journal() -> Option<tracing_journald::Layer> {
    let stream = std::env::var("JOURNAL_STREAM").ok()?;
    let error = fs::metadata("/proc/self/fd/2").ok()?;
    if stream != format!("{}:{}", error.dev(), error.ino()) {
        return None;
    }
    let journal = tracing_journald::layer().ok()?;
    Some(
        journal
            .with_field_prefix(Some(JOURNAL_PREFIX.to_owned()))
            .with_syslog_identifier("hostseal".to_owned()),
    )
}

/// Standard error. A file of ours never grows beyond [`LONGEST`] by more than a line.
struct StandardError {
    file: Option<PathBuf>,
}

impl<'w> MakeWriter<'w> for StandardError {
    type Writer = io::Stderr;

    fn make_writer(&'w self) -> io::Stderr {
        if let Some(path) = &self.file {
            let length = nix::sys::stat::fstat(io::stderr()).map_or(0, |stat| stat.st_size);
            if u64::try_from(length).is_ok_and(|length| length >= LONGEST) {
                // Whatever is written to standard error goes there, a panic's words too.
                match rotate(path) {
                    Ok(file) => drop(nix::unistd::dup2_stderr(file)),
                    // Bounded all the same.
                    Err(_) => drop(nix::unistd::ftruncate(io::stderr(), 0)),
                }
            }
        }
        io::stderr()
    }
}

/// Keeps the log so far as the old one, in place of the one before, and begins a new one.
fn rotate(path: &Path) -> io::Result<File> {
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    fs::rename(path, old)?;
    open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_others_say_is_no_line_of_ours() {
        let mut text = String::new();
        let words = "x\n2026 INFO y\x1b[2J\r";
        write!(Inset(&mut format::Writer::new(&mut text)), "b: {words}").unwrap();
        assert_eq!(text, "b: x\n    2026 INFO y\\u{1b}[2J\\r");
    }

    #[test]
    fn one_old_log_is_kept_and_both_are_for_root_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("agent.log"), directory.path().join("agent.log.1"));
        let mut file = open(&path).unwrap();
        for round in ["first", "second", "third"] {
            file.write_all(round.as_bytes()).unwrap();
            file = rotate(&path).unwrap();
            assert_eq!(fs::read_to_string(&old).unwrap(), round);
            assert_eq!(fs::read_to_string(&path).unwrap(), "");
        }
        for path in [path, old] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
