//! The sockets where others ask, one JSON line each way (see `control`): root asks and orders at one of them, and whoever
//! may look looks at the other.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinHandle};

use super::accept::Acceptor;
use super::alarm::Alarm;
use crate::control::{
    ErrorCode, REQUEST_LIMIT, Reply, Request, SeatId, SeatLimits, SeatOwner, Seats, decode_request,
    encode_reply,
};

/// How long the other end may take for a request, or to take its answer: as long as the command line waits.
const PATIENCE: Duration = Duration::from_secs(10);
/// Octets of answers that onlookers have not taken yet.
const UNTAKEN_MOST: usize = 64 * 1024 * 1024;
/// The longest question of an onlooker, with its line end.
const QUESTION_LIMIT: usize = 4096;

/// Who may come in by a socket, and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// Root, for questions and orders.
    Root,
    /// Root and the users of a group, for questions.
    Onlookers(Option<u32>),
}

impl Door {
    /// Connections served at a time. One more, and whoever has most of them loses one.
    pub(super) const fn connections(self) -> usize {
        match self {
            Door::Root => 32,
            Door::Onlookers(_) => 16,
        }
    }

    fn limits(self, patience: Duration) -> SeatLimits {
        let octets = match self {
            Door::Root => usize::MAX,
            Door::Onlookers(_) => UNTAKEN_MOST,
        };
        SeatLimits { seats: self.connections(), patience, octets }
    }

    /// The longest request, with its line end.
    fn request_limit(self) -> usize {
        match self {
            Door::Root => REQUEST_LIMIT,
            Door::Onlookers(_) => QUESTION_LIMIT,
        }
    }
}

/// A request, and where its reply goes.
pub(super) struct Call {
    /// What is asked.
    pub(super) request: Request,
    /// Where the reply goes, as a line.
    pub(super) reply: oneshot::Sender<Rc<str>>,
}

/// A socket that was made. Root's goes with it. That of onlookers stays, unless it is [taken away](Bound::take_away):
/// whoever finds it and nobody behind it knows that the kernel goes on without an agent.
pub(super) struct Bound {
    path: PathBuf,
    door: Door,
    listener: UnixListener,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if self.door == Door::Root {
            self.take_away();
        }
    }
}

impl Bound {
    /// Makes the socket at `path`. The caller makes sure that no other agent has it. To give it to a group takes root's
    /// powers.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn new(path: &Path, door: Door) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let bound = Self { path: path.to_owned(), door, listener: UnixListener::bind(path)? };
        let mode = match door {
            Door::Onlookers(Some(group)) => {
                chown(path, None, Some(group))?;
                0o660
            }
            Door::Onlookers(None) | Door::Root => 0o600,
        };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        Ok(bound)
    }

    /// Takes its file away.
    fn take_away(&self) {
        // One that stays behind is replaced by the next agent.
        let _ = fs::remove_file(&self.path);
    }

    /// Listens there.
    ///
    /// # Errors
    /// The system refuses.
    pub(super) fn listen(self) -> io::Result<Control> {
        self.listen_with(PATIENCE)
    }

    fn listen_with(self, patience: Duration) -> io::Result<Control> {
        let (sender, calls) = mpsc::channel(self.door.connections());
        let acceptor = Acceptor::new(self.listener.try_clone()?)?;
        let seats = RefCell::new(Seats::new(self.door.limits(patience)));
        let entrance = Rc::new(Entrance { door: self.door, calls: sender, seats });
        let listener = tokio::task::spawn_local(accept(acceptor, Alarm::new()?, entrance));
        Ok(Control { calls, listener, bound: self })
    }
}

/// A socket that is listened at.
pub(super) struct Control {
    calls: mpsc::Receiver<Call>,
    listener: JoinHandle<()>,
    bound: Bound,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Control {
    /// Nobody is to find the socket any more.
    pub(super) fn take_away(&self) {
        self.bound.take_away();
    }

    /// The next request.
    pub(super) async fn receive(&mut self) -> Option<Call> {
        self.calls.recv().await
    }
}

/// All connections of a socket, and where their requests go.
struct Entrance {
    door: Door,
    calls: mpsc::Sender<Call>,
    seats: RefCell<Seats<AbortHandle>>,
}

impl Entrance {
    /// Lets those go that have been silent for too long. When to look again.
    fn tidy(&self, now: Instant) -> Option<Instant> {
        let mut seats = self.seats.borrow_mut();
        end(seats.overdue(now));
        seats.deadline()
    }

    fn let_in(self: &Rc<Self>, stream: UnixStream) {
        let Ok(user) = stream.peer_cred().map(|peer| peer.uid()) else { return };
        let seat = self.seats.borrow_mut().reserve();
        let entrance = self.clone();
        let task = tokio::task::spawn_local(async move {
            if let Err(error) = entrance.serve(stream, user, seat).await {
                tracing::debug!("a control connection: {error}");
            }
            entrance.seats.borrow_mut().leave(seat);
        });
        end(self.seats.borrow_mut().sit(Instant::now(), seat, SeatOwner::User(user), task.abort_handle()));
    }

    async fn serve(&self, stream: UnixStream, user: u32, seat: SeatId) -> io::Result<()> {
        // Onlookers have shown to the file system who they are.
        let permitted = self.door != Door::Root || user == 0;
        let limit = self.door.request_limit();
        let (reader, mut writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        loop {
            let mut line = Vec::new();
            // One byte more than allowed shows that a line is too long.
            (&mut reader).take(limit as u64 + 1).read_until(b'\n', &mut line).await?;
            if line.is_empty() {
                return Ok(());
            }
            self.seats.borrow_mut().work(seat);
            let too_long = line.len() > limit;
            let decoded = decode_request(&line);
            // An onlooker who asks nothing has to come again: nonsense takes the agent's time, too.
            let is_last = too_long || !permitted || (decoded.is_err() && self.door != Door::Root);
            let reply = match decoded {
                _ if !permitted => refuse(ErrorCode::NotPermitted, "only root may ask the agent".to_owned()),
                _ if too_long => {
                    refuse(ErrorCode::BadRequest, format!("a request may have {limit} bytes here"))
                }
                Ok(request) => self.ask(request).await,
                Err(error) => refuse(ErrorCode::BadRequest, error.to_string()),
            };
            end(self.seats.borrow_mut().hold(Instant::now(), seat, reply.len()));
            writer.write_all(reply.as_bytes()).await?;
            if is_last {
                return Ok(());
            }
            self.seats.borrow_mut().wait(Instant::now(), seat);
        }
    }

    async fn ask(&self, request: Request) -> Rc<str> {
        let (reply, answer) = oneshot::channel();
        let gone = || refuse(ErrorCode::Failed, "the agent is stopping".to_owned());
        match self.calls.send(Call { request, reply }).await {
            Ok(()) => answer.await.unwrap_or_else(|_| gone()),
            Err(_) => gone(),
        }
    }
}

fn end(tasks: impl IntoIterator<Item = AbortHandle>) {
    tasks.into_iter().for_each(|task| task.abort());
}

async fn accept(mut acceptor: Acceptor, mut alarm: Alarm, entrance: Rc<Entrance>) {
    loop {
        let now = Instant::now();
        if alarm.set(now, entrance.tidy(now)).is_err() {
            tracing::debug!("connections may stay longer than they should");
        }
        tokio::select! {
            stream = acceptor.next() => entrance.let_in(stream),
            () = alarm.ring() => {}
        }
    }
}

fn refuse(code: ErrorCode, message: String) -> Rc<str> {
    encode_reply(Reply::Error { code, message }).into()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, Read as _, Write as _};
    use std::os::unix::net;

    use tokio::task::{LocalSet, spawn_blocking};

    use super::*;
    use crate::control::encode_request;

    /// An agent that answers everything, and somebody who asks it.
    fn with_agent(patience: Duration, asks: impl FnOnce(PathBuf) + Send + 'static) {
        with_answer(Door::Root, patience, encode_reply(Reply::Done).into(), asks);
    }

    fn with_answer(
        door: Door,
        patience: Duration,
        answer: Rc<str>,
        asks: impl FnOnce(PathBuf) + Send + 'static,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let mut control = Bound::new(&path, door).unwrap().listen_with(patience).unwrap();
            let mut asks = spawn_blocking(move || asks(path));
            loop {
                tokio::select! {
                    Some(call) = control.receive() => drop(call.reply.send(answer.clone())),
                    asked = &mut asks => break asked.unwrap(),
                }
            }
        });
    }

    fn connect(path: &Path) -> net::UnixStream {
        net::UnixStream::connect(path).unwrap()
    }

    /// An answer, whatever it is: not everybody who runs tests is root.
    fn ensure_answered(mut stream: &net::UnixStream) {
        stream.write_all(encode_request(&Request::Ping).as_bytes()).unwrap();
        let mut line = String::new();
        io::BufReader::new(stream).read_line(&mut line).unwrap();
        assert!(line.ends_with("}\n"), "{line:?}");
    }

    fn is_closed(mut stream: &net::UnixStream) -> bool {
        stream.set_nonblocking(true).unwrap();
        !stream.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn those_who_say_nothing_make_room() {
        with_agent(PATIENCE, |path| {
            let silent: Vec<_> = (0..4 * Door::Root.connections()).map(|_| connect(&path)).collect();
            ensure_answered(&connect(&path));
            // The newest had places; one went to the stream above.
            assert_eq!(
                silent.iter().filter(|stream| !is_closed(stream)).count(),
                Door::Root.connections() - 1
            );
            assert!(is_closed(&silent[0]) && !is_closed(&silent[4 * Door::Root.connections() - 1]));
        });
    }

    #[test]
    fn those_who_say_nothing_are_let_go_of() {
        with_agent(Duration::from_millis(10), |path| {
            let (silent, half) = (connect(&path), connect(&path));
            // It may be over by now.
            let _ = (&half).write_all(b"{\"v\":1,");
            for mut stream in [silent, half] {
                // Reading waits for the end.
                assert!(!stream.read(&mut [0]).is_ok_and(|length| length > 0));
            }
        });
    }

    /// Asking often does not keep anybody from being served.
    #[test]
    fn those_who_ask_stay() {
        with_agent(PATIENCE, |path| {
            for _ in 0..3 * Door::Root.connections() {
                ensure_answered(&connect(&path));
            }
        });
    }

    const ONLOOKERS: Door = Door::Onlookers(None);

    /// Those who do not take their answers give way to those who do.
    #[test]
    fn answers_that_nobody_takes_take_no_more_than_they_may() {
        // Larger than what a socket takes in, and three of them are too much.
        let answer = "x".repeat(UNTAKEN_MOST / 2 - 1000) + "}\n";
        with_answer(ONLOOKERS, PATIENCE, answer.into(), |path| {
            let ask = |mut stream: &net::UnixStream| {
                stream.write_all(encode_request(&Request::Ping).as_bytes()).unwrap();
                // The answer has begun.
                stream.read_exact(&mut [0]).unwrap();
            };
            let slow = [connect(&path), connect(&path)];
            slow.iter().for_each(ask);
            let third = connect(&path);
            ask(&third);
            let whole = |stream: &net::UnixStream| io::copy(&mut { stream }, &mut io::sink()).unwrap_or(0);
            assert!(whole(&slow[0]) < 32_000_000, "it was too slow");
            for mut stream in [&slow[1], &third] {
                let mut line = Vec::new();
                io::BufReader::new(&mut stream).read_until(b'\n', &mut line).unwrap();
                assert!(line.ends_with(b"}\n"));
            }
        });
    }

    #[test]
    fn the_socket_of_onlookers_stays_until_it_is_taken_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(Bound::new(&path, Door::Root).unwrap());
        assert!(!path.exists());
        drop(Bound::new(&path, ONLOOKERS).unwrap());
        assert!(path.exists());
        Bound::new(&path, ONLOOKERS).unwrap().take_away();
        assert!(!path.exists());
    }

    #[test]
    fn an_onlooker_who_asks_nothing_is_let_go_of() {
        with_answer(ONLOOKERS, PATIENCE, encode_reply(Reply::Done).into(), |path| {
            let mut stream = connect(&path);
            stream.write_all(b"what?\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("bad_request"), "{answer}");
        });
    }

    #[test]
    fn long_questions_of_onlookers_are_refused() {
        with_answer(ONLOOKERS, PATIENCE, encode_reply(Reply::Done).into(), |path| {
            let mut stream = connect(&path);
            stream.write_all(&[b' '; QUESTION_LIMIT + 1]).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("4096 bytes"), "{answer}");
        });
    }
}
