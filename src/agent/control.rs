//! The control socket: root asks, one JSON line each way (see `control`).

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::accept::Acceptor;
use super::alarm::Alarm;
use crate::control::{ErrorCode, REQUEST_LIMIT, Reply, Request, decode_request, encode_reply};

/// Connections served at a time. One more, and the one that has been silent for longest goes.
pub(super) const CONNECTIONS: usize = 32;
/// How long the other end may take for a request, or to take its answer: as long as the command line waits.
const PATIENCE: Duration = Duration::from_secs(10);

/// A request, and where its reply goes.
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Where the reply goes.
    pub reply: oneshot::Sender<Reply>,
}

/// The listening socket; its file goes with it.
pub struct Control {
    path: PathBuf,
    calls: mpsc::Receiver<Call>,
    listener: JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.listener.abort();
        // A file that stays behind is replaced by the next agent.
        let _ = fs::remove_file(&self.path);
    }
}

impl Control {
    /// Listens at `path`. The caller makes sure that no other agent does.
    ///
    /// # Errors
    /// The system refuses.
    pub fn listen(path: &Path) -> io::Result<Self> {
        Self::listen_with(path, PATIENCE)
    }

    fn listen_with(path: &Path, patience: Duration) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let (sender, calls) = mpsc::channel(CONNECTIONS);
        let accepting = accept(Acceptor::new(listener)?, Alarm::new()?, patience, sender);
        let listener = tokio::task::spawn_local(accepting);
        Ok(Self { path: path.to_owned(), calls, listener })
    }

    /// The next request.
    pub async fn receive(&mut self) -> Option<Call> {
        self.calls.recv().await
    }
}

/// A connection that is being served.
struct Served {
    task: JoinHandle<()>,
    quiet: Quiet,
}

/// Since when a connection waits for its other end; `None` while the agent is to answer.
#[derive(Clone)]
struct Quiet(Rc<Cell<Option<Instant>>>);

impl Quiet {
    fn since(&self, since: Option<Instant>) {
        self.0.set(since);
    }
}

async fn accept(mut acceptor: Acceptor, mut alarm: Alarm, patience: Duration, calls: mpsc::Sender<Call>) {
    let mut served: Vec<Served> = Vec::new();
    loop {
        let now = Instant::now();
        let end = |one: &Served| one.quiet.0.get().map(|since| since + patience);
        served.iter().filter(|one| end(one).is_some_and(|end| end <= now)).for_each(|one| one.task.abort());
        if alarm.set(now, served.iter().filter_map(end).filter(|end| *end > now).min()).is_err() {
            tracing::debug!("connections may stay longer than they should");
        }
        tokio::select! {
            stream = acceptor.next() => {
                make_room(&mut served);
                let quiet = Quiet(Rc::new(Cell::new(Some(Instant::now()))));
                let serving = serve(stream, calls.clone(), quiet.clone());
                served.push(Served { task: tokio::task::spawn_local(note_end(serving)), quiet });
            }
            () = alarm.ring() => {}
        }
    }
}

/// Has the one go that is of the least use where all places are taken: the one that has been silent for longest, else
/// the oldest.
fn make_room(served: &mut Vec<Served>) {
    served.retain(|one| !one.task.is_finished());
    if served.len() < CONNECTIONS {
        return;
    }
    let silent = |index: &usize| served[*index].quiet.0.get();
    let longest = (0..served.len()).filter(|index| silent(index).is_some()).min_by_key(silent);
    served.remove(longest.unwrap_or(0)).task.abort();
}

async fn note_end(serving: impl Future<Output = io::Result<()>>) {
    if let Err(error) = serving.await {
        tracing::debug!("a control connection: {error}");
    }
}

async fn serve(stream: UnixStream, calls: mpsc::Sender<Call>, quiet: Quiet) -> io::Result<()> {
    let permitted = stream.peer_cred()?.uid() == 0;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        // One byte more than allowed shows that a line is too long.
        (&mut reader).take(REQUEST_LIMIT as u64 + 1).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(());
        }
        quiet.since(None);
        let reply = match decode_request(&line) {
            _ if !permitted => refuse(ErrorCode::NotPermitted, "only root may ask the agent".to_owned()),
            Ok(request) => ask(&calls, request).await,
            Err(error) => refuse(ErrorCode::BadRequest, error.to_string()),
        };
        quiet.since(Some(Instant::now()));
        let over = !permitted || line.len() > REQUEST_LIMIT;
        answer(&mut writer, reply).await?;
        if over {
            return Ok(());
        }
        quiet.since(Some(Instant::now()));
    }
}

async fn answer(writer: &mut OwnedWriteHalf, reply: Reply) -> io::Result<()> {
    writer.write_all(encode_reply(reply).as_bytes()).await
}

async fn ask(calls: &mpsc::Sender<Call>, request: Request) -> Reply {
    let (reply, answer) = oneshot::channel();
    let gone = || refuse(ErrorCode::Failed, "the agent is stopping".to_owned());
    match calls.send(Call { request, reply }).await {
        Ok(()) => answer.await.unwrap_or_else(|_| gone()),
        Err(_) => gone(),
    }
}

fn refuse(code: ErrorCode, message: String) -> Reply {
    Reply::Error { code, message }
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
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let mut control = Control::listen_with(&path, patience).unwrap();
            let mut asks = spawn_blocking(move || asks(path));
            loop {
                tokio::select! {
                    Some(call) = control.receive() => call.reply.send(Reply::Done).unwrap_or_default(),
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
            let silent: Vec<_> = (0..4 * CONNECTIONS).map(|_| connect(&path)).collect();
            ensure_answered(&connect(&path));
            // The newest had places; one went to the stream above.
            assert_eq!(silent.iter().filter(|stream| !is_closed(stream)).count(), CONNECTIONS - 1);
            assert!(is_closed(&silent[0]) && !is_closed(&silent[4 * CONNECTIONS - 1]));
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
            for _ in 0..3 * CONNECTIONS {
                ensure_answered(&connect(&path));
            }
        });
    }
}
