//! Keeps sockets open beyond the agent's life: the kernel takes ESP out of UDP as long as somebody has the socket
//! that it comes in on, and stops when the last one closes it (docs/kernel.md, fact 18h).
//!
//! Under systemd its file descriptor store does that (sd_pid_notify_with_fds(3)). Elsewhere a process of ours does,
//! `hostseal hold`, which the agent starts and every later agent finds by its [name](super::name), or by a socket in
//! `run_dir` where somebody else has that, and where an agent of an earlier version has started it. It does nothing
//! but hold what it was given, and takes orders from root alone.
//! ```text
//! agent    --- K, sockets --->  holder      holds these, and nothing else any more
//! agent    --- G ------------>  holder      gives them: an agent that has just started
//! agent    <-- G, sockets ----  holder
//! agent    --- E ------------>  holder      ends
//! ```

use std::env;
use std::fs;
use std::io::{self, IoSlice, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::unistd::setsid;

use super::confine::{Role, confine};
use super::name::{self, Owner, uninterrupted};
use super::process;
use crate::types::ours::KEEPER_NAME;
use crate::xfrm::{DESCRIPTORS_MAX, inherited_descriptors, receive_descriptors};

/// The name of the holder's socket in `run_dir`.
const SOCKET_NAME: &str = "keeper.sock";
/// What sockets are called in systemd's store.
const STORE_NAME: &str = "FDNAME=hostseal-nat";
/// How long a holder may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a holder is told.
const KEEP: u8 = b'K';
const GIVE: u8 = b'G';
const END: u8 = b'E';

/// The way to what keeps sockets.
pub(super) struct Keeper {
    /// Where a holder listens.
    name: String,
    /// Where else it may listen.
    socket: PathBuf,
    /// Whether the service manager keeps them.
    managed: bool,
    /// The holder, where this process has started it.
    holder: Option<Child>,
}

impl Keeper {
    /// For the agent of a run directory.
    pub(super) fn new(run_dir: &Path) -> Self {
        let managed = env::var_os("NOTIFY_SOCKET").is_some();
        Self { name: name::KEEPER.to_owned(), socket: run_dir.join(SOCKET_NAME), managed, holder: None }
    }

    /// What an agent before this one left.
    pub(super) fn take_back(&self) -> Vec<OwnedFd> {
        let mut sockets = inherited_descriptors();
        match self.ask() {
            Ok(more) => sockets.extend(more),
            // Nobody there: nothing was left, or the host has rebooted.
            Err(error) if is_nobody(&error) => {}
            Err(error) => tracing::warn!("the process that keeps sockets does not answer: {error}"),
        }
        sockets
    }

    /// Keeps these from now on, and none else.
    pub(super) fn keep(&mut self, sockets: &[BorrowedFd<'_>]) {
        if sockets.is_empty() {
            return self.release();
        }
        let sockets = &sockets[..sockets.len().min(DESCRIPTORS_MAX)];
        let kept = match self.managed {
            true => store(sockets).map(|()| self.end_holder()),
            false => self.hand_over(sockets),
        };
        if let Err(error) = kept {
            tracing::warn!(
                "ESP in UDP will not be received while no agent runs, as nobody keeps its sockets: {error}"
            );
        }
    }

    /// Has a holder wait for later sockets, when this process can start none any more.
    pub(super) fn stand_by(&mut self) {
        let started = match self.connect() {
            Err(error) if is_nobody(&error) && !self.managed => self.start(),
            _ => Ok(()),
        };
        if let Err(error) = started {
            tracing::warn!("the process that keeps sockets cannot be started: {error}");
        }
    }

    /// Keeps none.
    pub(super) fn release(&mut self) {
        if self.managed
            && let Err(error) = notify(&format!("FDSTOREREMOVE=1\n{STORE_NAME}"), &[])
        {
            tracing::warn!("the service manager does not close its sockets: {error}");
        }
        match self.hand_over(&[]) {
            Err(error) if !is_nobody(&error) => {
                tracing::warn!("sockets are kept that are not used any more: {error}")
            }
            _ => {}
        }
    }

    /// Ends the holder, which has nothing to keep any more.
    pub(super) fn end_holder(&mut self) {
        if let Ok(stream) = self.connect() {
            // It ends in any case: with the order, or with the host.
            let _ = send(stream.as_fd(), &[END], &[]);
        }
        if let Some(mut holder) = self.holder.take() {
            let _ = holder.wait();
        }
    }

    fn connect(&self) -> io::Result<UnixStream> {
        let stream = match name::connect_to_ours(&self.name) {
            Err(error) if is_nobody(&error) || is_busy(&error) => UnixStream::connect(&self.socket)?,
            connected => connected?,
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn ask(&self) -> io::Result<Vec<OwnedFd>> {
        let stream = self.connect()?;
        send(stream.as_fd(), &[GIVE], &[])?;
        uninterrupted(|| receive_descriptors(stream.as_fd(), &mut [0])).map(|(_, sockets)| sockets)
    }

    fn hand_over(&self, sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
        let stream = self.connect()?;
        send(stream.as_fd(), &[KEEP], sockets)?;
        (&stream).read_exact(&mut [0])
    }

    fn listen_by_path(&self) -> io::Result<UnixListener> {
        match fs::remove_file(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        UnixListener::bind(&self.socket)
    }

    /// Starts a holder, with a socket that it can be asked by at once.
    fn start(&mut self) -> io::Result<()> {
        let listener = match name::take(&self.name) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => self.listen_by_path(),
            listener => listener,
        }?;
        let mut command = Command::new("/proc/self/exe");
        command.arg("hold").current_dir("/").process_group(0);
        command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
        self.holder = Some(command.spawn()?);
        Ok(())
    }
}

/// Nobody listens, or nobody ever did.
fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Whoever has the name leaves others waiting: a holder of ours does not, and anybody can take the name.
fn is_busy(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

/// Puts sockets into systemd's store, in place of those that are there.
fn store(sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    notify(&format!("FDSTOREREMOVE=1\n{STORE_NAME}"), &[])?;
    // systemd would drop one at the first error that ICMP reports on it.
    notify(&format!("FDSTORE=1\nFDPOLL=0\n{STORE_NAME}"), sockets)
}

/// Tells the service manager something, and gives it descriptors (sd_notify(3)).
fn notify(words: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(path) = env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    send(socket.as_fd(), words.as_bytes(), descriptors)
}

fn send(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = descriptors.iter().map(|descriptor| descriptor.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(bytes)];
    let send = || Ok(sendmsg::<()>(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)?);
    uninterrupted(send).map(drop)
}

/// The holder: listens on its standard input, which the agent has bound, until it is told to end, or the agent that
/// started it ends while there is nothing to keep.
///
/// # Errors
/// Its standard input is no such socket.
pub fn hold() -> anyhow::Result<()> {
    process::harden()?;
    // Whoever has started the agent may go, and its terminal with it.
    let _ = setsid();
    prctl::set_name(KEEPER_NAME)?;
    let listener = UnixListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    confine(Role::Keeper);
    Ok(serve(&listener)?)
}

fn serve(listener: &UnixListener) -> io::Result<()> {
    let mut held = Vec::new();
    loop {
        let _ = prctl::set_pdeathsig(held.is_empty().then_some(Signal::SIGTERM));
        let (stream, _) = listener.accept()?;
        if !matches!(name::peer(&stream), Ok(Owner::Trusted(_))) {
            continue;
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut order = [0];
        match uninterrupted(|| receive_descriptors(stream.as_fd(), &mut order)) {
            Ok((1, sockets)) if order == [KEEP] => {
                held = sockets;
                let _ = send(stream.as_fd(), &[KEEP], &[]);
            }
            Ok((1, _)) if order == [GIVE] => {
                let sockets: Vec<BorrowedFd<'_>> = held.iter().map(AsFd::as_fd).collect();
                let _ = send(stream.as_fd(), &[GIVE], &sockets);
            }
            Ok((1, _)) if order == [END] => return Ok(()),
            // Whoever asked has died, or is no agent.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::thread;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    /// With a name that no other test has.
    fn keeper_of(run_dir: &Path) -> Keeper {
        let name = format!("hostseal-test-{}", run_dir.display());
        Keeper { managed: false, name, ..Keeper::new(run_dir) }
    }

    /// A holder in a thread of this process.
    fn holder(run_dir: &Path) -> thread::JoinHandle<io::Result<()>> {
        let listener = UnixListener::bind(run_dir.join(SOCKET_NAME)).unwrap();
        thread::spawn(move || serve(&listener))
    }

    #[test]
    fn the_next_agent_gets_the_same_sockets_back() {
        let directory = tempfile::tempdir().unwrap();
        let mut keeper = keeper_of(directory.path());
        assert!(keeper.ask().is_err_and(|error| is_nobody(&error)));
        let holder = holder(directory.path());
        let sockets = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        keeper.keep(&[sockets[0].as_fd()]);
        keeper.keep(&[sockets[1].as_fd()]);
        let address = sockets[1].local_addr().unwrap();
        UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"while nobody reads", address).unwrap();
        drop(sockets);
        // The first was let go of when the second was kept.
        let next = keeper_of(directory.path());
        let back: Vec<UdpSocket> = next.ask().unwrap().into_iter().map(UdpSocket::from).collect();
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].local_addr().unwrap(), address);
        let mut text = [0; 32];
        assert_eq!(back[0].recv(&mut text).unwrap(), b"while nobody reads".len());
        keeper.release();
        assert!(keeper.ask().unwrap().is_empty());
        keeper.end_holder();
        holder.join().unwrap().unwrap();
        drop(back);
        UdpSocket::bind(address).expect("nobody has it any more");
    }

    /// Anybody can take the name and leave everybody waiting: that is no holder of ours.
    #[test]
    fn whoever_has_the_name_and_answers_nobody_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let mut keeper = keeper_of(directory.path());
        let stranger = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let address = SockAddr::unix(format!("\0{}", keeper.name)).unwrap();
        stranger.bind(&address).unwrap();
        stranger.listen(0).unwrap();
        let waits = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        waits.connect(&address).unwrap();
        assert!(keeper.ask().is_err_and(|error| is_nobody(&error)));
        let holder = holder(directory.path());
        assert!(keeper.ask().unwrap().is_empty());
        keeper.end_holder();
        holder.join().unwrap().unwrap();
    }

    #[test]
    fn a_holder_goes_on_after_nonsense() {
        let directory = tempfile::tempdir().unwrap();
        let mut keeper = keeper_of(directory.path());
        let holder = holder(directory.path());
        drop(keeper.connect().unwrap());
        send(keeper.connect().unwrap().as_fd(), b"?", &[]).unwrap();
        assert!(keeper.ask().unwrap().is_empty());
        keeper.end_holder();
        holder.join().unwrap().unwrap();
    }
}
