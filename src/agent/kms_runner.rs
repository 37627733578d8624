//! Runs a helper for one ask to a KMS (docs/byok.md), apart from the agent, which has given up to start programs: as a user
//! who has nothing else, without any power, and for no longer than [`PATIENCE`].
//!
//! Whoever connects says which helper, and then talks to it: it becomes this very process. With systemd each connection is
//! such a process (hostseal-kms.socket). Elsewhere, root listens with `--listen` and starts one for each.
//!
//! What a helper is, root says, and not whoever connects, as somebody may have taken over the agent: a program in one
//! of [`HELPERS`], or one that the command line names.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hostseal_kms_protocol::{Order, forbid_core_files, unavailable};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open, openat};
use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{getsockopt, sockopt};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, umask};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Pid, User, fexecve, getuid, setgroups, setresgid, setresuid};

use super::confine::confine_helper;
use crate::config::{HELPER, HELPERS};

/// How long a helper has for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many octets of memory a helper can have: whoever answers in the place of a KMS may never end.
const MEMORY_MOST: u64 = 512 << 20;
/// How long a place rests where that went wrong.
const PAUSE: Duration = Duration::from_secs(1);
/// The most octets of an order.
const ORDER_MAX: usize = 8192;
/// How many asks are under way at most.
const ASKS: usize = 4;

/// The variables that a helper gets of the environment of this process, or those that begin so: where its KMS is, and
/// what it proves itself with. None of them makes it run other code.
const ENVIRONMENT: [&str; 10] = [
    "AWS_",
    "BAO_",
    "CREDENTIALS_DIRECTORY",
    "HOSTSEAL_KMS_",
    "HTTPS_PROXY",
    "LANG",
    "NO_PROXY",
    "SSL_CERT_",
    "TZ",
    "VAULT_",
];
/// Where it finds other programs.
const PATH: &CStr = c"PATH=/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes the helper that whoever is connected to standard input orders; says there why not. `others` are helpers too,
/// wherever they lie.
///
/// # Errors
/// Standard input is no connection of root's.
pub fn run_helper(user: Option<&str>, others: &[PathBuf]) -> anyhow::Result<()> {
    let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let peer = getsockopt(&stream, sockopt::PeerCredentials);
    let peer = peer.context("standard input is no connection: say --listen PATH --user NAME")?;
    ensure!(peer.uid() == 0, "whoever asks is user {}, and not root", peer.uid());
    let Err(error) = become_helper(&stream, user, others);
    stream.write_all(&unavailable(&format!("{error:#}")))?;
    Err(error)
}

/// Listens at `path`, and has a helper run as `user` for each who connects. `others` are helpers too, wherever they lie.
///
/// # Errors
/// The socket cannot be bound.
pub fn run_helpers_at(
    path: &Path,
    user: &str,
    others: &[PathBuf],
) -> anyhow::Result<std::convert::Infallible> {
    User::from_name(user)?
        .with_context(|| format!("there is no user {user}: `useradd --system {user}` makes one"))?;
    let listener = bind(path).with_context(|| format!("{} cannot be bound", path.display()))?;
    let (free, places) = channel();
    (0..ASKS).try_for_each(|_| free.send(()))?;
    loop {
        places.recv()?;
        let accepted = listener.accept();
        let (free, user, others) = (free.clone(), user.to_owned(), others.to_owned());
        thread::spawn(move || {
            let ran = accepted
                .map_err(Into::into)
                .and_then(|(stream, _)| run_within_patience(stream, &user, &others));
            if let Err(error) = ran {
                eprintln!("hostseal: {error:#}");
                // What the system lacks now it may have then.
                thread::sleep(PAUSE);
            }
            let _ = free.send(());
        });
    }
}

/// Only root, who binds it, may connect.
fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

/// Ends it, and what it has started, when its time is over.
fn run_within_patience(stream: UnixStream, user: &str, others: &[PathBuf]) -> anyhow::Result<()> {
    let mut command = Command::new("/proc/self/exe");
    command.args(["kms-runner", "--user", user]).current_dir("/").process_group(0);
    for other in others {
        command.arg("--program").arg(other);
    }
    command.stdin(OwnedFd::from(stream)).stdout(Stdio::null());
    let mut child = command.spawn()?;
    let group = Pid::from_raw(child.id().try_into()?);
    let (done, over) = channel();
    thread::spawn(move || {
        // It is not taken away yet: its number must not become another's before its group is ended.
        let _ = waitid(Id::Pid(group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let _ = done.send(());
    });
    let late = over.recv_timeout(PATIENCE).is_err();
    // What it has left running goes with it.
    let _ = killpg(group, Signal::SIGKILL);
    child.wait()?;
    ensure!(!late, "a helper took longer than {} s, and was ended", PATIENCE.as_secs());
    Ok(())
}

fn become_helper(
    stream: &UnixStream,
    user: Option<&str>,
    others: &[PathBuf],
) -> anyhow::Result<std::convert::Infallible> {
    forbid_core_files()?;
    // Helpers lock their memory. Where this is not root, whoever has started it has set the limit.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    setrlimit(Resource::RLIMIT_DATA, MEMORY_MOST, MEMORY_MOST)?;
    let user = user.map(|name| User::from_name(name)?.with_context(|| format!("there is no user {name}")));
    if let Some(user) = user.transpose()? {
        setgroups(&[]).context("only root can become somebody else")?;
        setresgid(user.gid, user.gid, user.gid)?;
        setresuid(user.uid, user.uid, user.uid)?;
    }
    confine_helper()?;
    prctl::set_dumpable(false)?;
    ensure!(!getuid().is_root(), "a helper does not run as root: say --user NAME, or have systemd start it");
    let program = read_order(stream)?.program;
    ensure!(
        is_helper(&program, others),
        "{} is no helper: helpers lie in {}, and their names begin with {HELPER}, or `hostseal kms-runner` is started with \
         --program",
        program.display(),
        HELPERS.join(" or ")
    );
    let file = open_trusted(&program).with_context(|| program.display().to_string())?;
    // It talks to who is connected here.
    nix::unistd::dup2_stdout(stream)?;
    let name = CString::new(program.as_os_str().as_bytes())?;
    let environment = environment(
        std::env::vars_os().map(|(name, value)| (name.into_encoded_bytes(), value.into_encoded_bytes())),
    );
    let ended = fexecve(file.as_fd(), &[name], &environment);
    ended.with_context(|| program.display().to_string())
}

/// Whether root has said that a program is a helper.
fn is_helper(program: &Path, others: &[PathBuf]) -> bool {
    let lies_there = || program.parent().is_some_and(|it| HELPERS.iter().any(|place| it == Path::new(place)));
    let is_named_so =
        || program.file_name().is_some_and(|name| name.as_bytes().starts_with(HELPER.as_bytes()));
    others.iter().any(|other| other == program) || lies_there() && is_named_so()
}

/// Reads one line and not an octet more: the rest is for the helper.
fn read_order(mut stream: &UnixStream) -> anyhow::Result<Order> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut line, mut octet) = (Vec::new(), [0]);
    while line.len() < ORDER_MAX && octet != [b'\n'] {
        stream.read_exact(&mut octet).context("there is no order")?;
        line.push(octet[0]);
    }
    stream.set_read_timeout(None)?;
    Ok(Order::from_line(&line)?)
}

/// What of `all` a helper gets.
fn environment(all: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Vec<CString> {
    let may = |name: &[u8]| {
        ENVIRONMENT.iter().any(|it| match it.ends_with('_') {
            true => name.starts_with(it.as_bytes()),
            false => name == it.as_bytes(),
        })
    };
    let entry = |(name, value): (Vec<u8>, Vec<u8>)| CString::new([name, value].join(&b'=')).ok();
    let given = all.filter(|(name, _)| may(name)).filter_map(entry);
    [PATH.to_owned()].into_iter().chain(given).collect()
}

/// Opens a program that nobody but root can change, or put something in the place of: each part of its path is opened
/// in the one before it, and looked at then.
fn open_trusted(path: &Path) -> anyhow::Result<File> {
    ensure!(path.is_absolute(), "is not an absolute path");
    let mut parts = path.components().skip(1).peekable();
    let mut at = open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    judge("/", &fstat(&at)?)?;
    while let Some(part) = parts.next() {
        let Component::Normal(name) = part else { bail!("leads up again") };
        let last = parts.peek().is_none();
        // A program without the right to be read still runs, but a script is read by what runs it.
        let how = if last { OFlag::O_RDONLY | OFlag::O_NONBLOCK } else { OFlag::O_PATH };
        at = match openat(&at, name, how | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty()) {
            Err(nix::errno::Errno::ELOOP) => bail!("{} is a link: name what it leads to", name.display()),
            opened => opened?,
        };
        let found = fstat(&at)?;
        judge(&name.to_string_lossy(), &found)?;
        let is = SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits());
        match (last, is) {
            (true, SFlag::S_IFREG) => {
                // Whatever runs a script opens it by its descriptor.
                fcntl(&at, FcntlArg::F_SETFD(FdFlag::empty()))?;
                return Ok(File::from(at));
            }
            (true, _) => bail!("is no file"),
            (false, SFlag::S_IFDIR) => {}
            (false, SFlag::S_IFLNK) => bail!("{} is a link: name what it leads to", name.display()),
            (false, _) => bail!("{} is no directory", name.display()),
        }
    }
    bail!("is no file")
}

fn judge(name: &str, found: &FileStat) -> anyhow::Result<()> {
    ensure!(found.st_uid == 0, "{name} belongs to user {}, and not to root", found.st_uid);
    let is_link = found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits();
    ensure!(is_link || found.st_mode & 0o022 == 0, "others than root may write {name}: `chmod go-w` it");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_helper_gets_what_is_for_it_alone() {
        let all = [
            ("AWS_REGION", "x"),
            ("LD_PRELOAD", "/evil"),
            ("HOME", "/root"),
            ("TZ", "UTC"),
            ("TZDIR", "/evil"),
            ("PATH", "/evil"),
        ];
        let all = all.into_iter().map(|(name, value)| (name.into(), value.into()));
        let given: Vec<String> = environment(all).into_iter().map(|it| it.into_string().unwrap()).collect();
        assert_eq!(given, ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "AWS_REGION=x", "TZ=UTC"]);
    }

    /// Whoever has taken over the agent orders what he likes.
    #[test]
    fn no_program_runs_that_root_has_not_made_a_helper() {
        let others = [PathBuf::from("/opt/our-kms")];
        for helper in
            ["/usr/libexec/hostseal/kms-aws", "/usr/local/libexec/hostseal/kms-ours", "/opt/our-kms"]
        {
            assert!(is_helper(Path::new(helper), &others), "{helper}");
        }
        for other in [
            "/usr/bin/dash",
            "/usr/libexec/hostseal/other",
            "/usr/libexec/kms-aws",
            "/usr/libexec/hostseal/more/kms-aws",
            "/usr/libexec/hostseal/kms-aws/../../../bin/dash",
            "/usr/libexec/hostseal/../kms-aws",
            "usr/libexec/hostseal/kms-aws",
            "/opt/our-kms/x",
            "/opt",
            "/",
            "",
        ] {
            assert!(!is_helper(Path::new(other), &others), "{other}");
        }
    }

    #[test]
    fn a_program_that_somebody_else_could_change_is_refused() {
        let why = |path: &str| {
            open_trusted(Path::new(path)).err().map(|error| format!("{error:#}")).unwrap_or_default()
        };
        assert!(why("true").contains("absolute"));
        assert!(why("/usr/../bin/true").contains("leads up"));
        assert!(why("/").contains("no file"));
        assert!(why("/usr").contains("no file"));
        assert!(why("/proc/self/exe").contains("link"));
        assert!(why("/none/x").contains("ENOENT"));
        // Who is not root has no directory that only root can write.
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // Not below /tmp, which all may write.
        let directory = tempfile::tempdir_in("/root").unwrap();
        let (program, link) = (directory.path().join("p"), directory.path().join("l"));
        fs::write(&program, "#!/bin/sh\n").unwrap();
        symlink(&program, &link).unwrap();
        assert_eq!(why(program.to_str().unwrap()), "");
        assert!(why(link.to_str().unwrap()).contains("is a link"));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o775)).unwrap();
        assert!(why(program.to_str().unwrap()).contains("others than root may write p"));
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(why(program.to_str().unwrap()).contains("others than root may write"));
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(&program, Some(1000), None).unwrap();
        assert!(why(program.to_str().unwrap()).contains("belongs to user 1000"));
    }
}
