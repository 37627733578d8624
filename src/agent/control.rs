//! The control socket: root asks, one JSON line each way (see `model::control`).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::model::control::{ErrorCode, REQUEST_LIMIT, Reply, Request, decode_request, encode_reply};

/// Connections served at a time; more wait.
const CONNECTIONS: usize = 32;

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
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        let (sender, calls) = mpsc::channel(CONNECTIONS);
        let listener = tokio::task::spawn_local(accept(listener, sender));
        Ok(Self { path: path.to_owned(), calls, listener })
    }

    /// The next request.
    pub async fn receive(&mut self) -> Option<Call> {
        self.calls.recv().await
    }
}

async fn accept(listener: UnixListener, calls: mpsc::Sender<Call>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Ok(place) = places.clone().acquire_owned().await {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the control socket: {error}");
                continue;
            }
        };
        let calls = calls.clone();
        tokio::task::spawn_local(async move {
            let _place = place;
            if let Err(error) = serve(stream, calls).await {
                tracing::debug!("a control connection: {error}");
            }
        });
    }
}

async fn serve(stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
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
        let reply = match decode_request(&line) {
            _ if !permitted => refuse(ErrorCode::NotPermitted, "only root may ask the agent".to_owned()),
            Ok(request) => ask(&calls, request).await,
            Err(error) => refuse(ErrorCode::BadRequest, error.to_string()),
        };
        let over = !permitted || line.len() > REQUEST_LIMIT;
        answer(&mut writer, reply).await?;
        if over {
            return Ok(());
        }
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
