//! The agent's end: it connects, hands over which store it is about and the open files for it, and says what is to be
//! stored.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hostseal_store_protocol::{FILES, LINE_MAX, StoreNews, StoreOrder, StoredEntry, VERSION, decode, encode};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How long an agent may take for its first line.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many entries wait to be stored; what does not fit waits in the socket.
const WAITING: usize = 256;

/// The agent has ended the connection, or says what nobody can read.
#[derive(Debug)]
pub struct Gone;

/// What an agent begins with.
pub struct Opened {
    /// Where the store is.
    pub endpoints: Vec<String>,
    /// What the names of all entries stand behind.
    pub prefix: String,
    /// The files for it.
    pub files: [OwnedFd; FILES],
}

/// A connection to an agent.
pub struct AgentEnd {
    writer: OwnedWriteHalf,
    puts: mpsc::Receiver<StoredEntry>,
    reader: JoinHandle<()>,
}

impl Drop for AgentEnd {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Reads the first line, with what comes with it.
///
/// # Errors
/// It is none, or of another version.
pub fn open(stream: &net::UnixStream) -> anyhow::Result<Opened> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (line, files) = first_line(stream)?;
    let order = decode(&line).context("the first line is no order")?;
    let StoreOrder::Open { version, endpoints, prefix } = order else {
        bail!("the first line opens no store");
    };
    ensure!(
        version == VERSION,
        "the agent speaks version {version} of the protocol, and this helper {VERSION}"
    );
    let files = files.try_into();
    let files = files.map_err(|_| anyhow::anyhow!("the agent has not handed over {FILES} files"))?;
    Ok(Opened { endpoints, prefix, files })
}

fn first_line(stream: &net::UnixStream) -> anyhow::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let (mut line, mut files) = (Vec::new(), Vec::new());
    while line.last() != Some(&b'\n') {
        ensure!(line.len() < LINE_MAX, "the first line is too long");
        // Nothing follows it before it is answered.
        let mut buffer = [0; LINE_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg(stream.as_fd(), &mut parts, &mut control, flags)?;
        ensure!(received.bytes > 0, "the agent has ended the connection");
        line.extend_from_slice(&buffer[..received.bytes]);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(given) = message {
                files.extend(given);
            }
        }
    }
    Ok((line, files))
}

impl AgentEnd {
    /// Goes on with a connection whose first line was read.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new(stream: net::UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let (reader, writer) = UnixStream::from_std(stream)?.into_split();
        let (sender, puts) = mpsc::channel(WAITING);
        Ok(Self { writer, puts, reader: tokio::spawn(read(reader, sender)) })
    }

    /// Tells the agent something.
    pub async fn tell(&mut self, news: &StoreNews) -> Result<(), Gone> {
        self.writer.write_all(&encode(news)).await.map_err(|_| Gone)
    }

    /// What the agent wants to be stored next. A call that is dropped loses nothing.
    pub async fn put(&mut self) -> Result<StoredEntry, Gone> {
        self.puts.recv().await.ok_or(Gone)
    }

    /// Lets go of what was to be stored until now.
    pub fn forget(&mut self) -> Result<(), Gone> {
        loop {
            match self.puts.try_recv() {
                Ok(_) => {}
                Err(mpsc::error::TryRecvError::Empty) => return Ok(()),
                Err(mpsc::error::TryRecvError::Disconnected) => return Err(Gone),
            }
        }
    }
}

/// Reads orders until the agent is gone, or makes no sense.
async fn read(reader: OwnedReadHalf, puts: mpsc::Sender<StoredEntry>) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut reader).take(LINE_MAX as u64).read_until(b'\n', &mut line).await;
        if length.is_err() || line.last() != Some(&b'\n') {
            return;
        }
        let Ok(StoreOrder::Put(entry)) = decode(&line) else { return };
        if puts.send(entry).await.is_err() {
            return;
        }
    }
}
