//! The way to the helper that keeps the roster in a store that others run (docs/etcd.md). The agent connects to a socket
//! that root has bound, hands over the open files of TLS without reading them, and hears what the store has.
//!
//! A helper cannot do more than that: it is heard line by line, no faster than a roster needs it, and where it is gone,
//! silent or makes no sense, the agent goes on without it and connects again after a pause.

use std::fs::{File, OpenOptions};
use std::future::pending;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, ensure};
use hostseal_store_protocol::{
    EntryName, LINE_MAX, LISTED_MAX, StoreNews, StoreOrder, StoredEntry, VERSION, decode, encode, words,
};
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::alarm::Alarm;
use super::confine::Reach;
use super::start::FileSource;
use crate::config::StoreRules;
use crate::host::Host;
use crate::host::shared_store::StoreEvent;
use crate::observe::causes;
use crate::roster::ClusterId;
use crate::store::owner;

/// How much waits for the agent, and for the helper.
const WAITING: usize = 64;
/// How many lines a helper may say, and how many more for each second: twice all that a store may have is said after
/// each break.
const LINES: u64 = 4 * LISTED_MAX as u64;
const LINES_A_SECOND: u64 = 200;
/// How long a helper is left in peace that could not be talked to: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(16);
/// How long it has to be talked to before the pauses are short again.
const SETTLED: Duration = Duration::from_secs(60);

/// What is said where nobody is at the other end any more.
const ENDED: &str = "the helper for etcd has ended";

/// What a helper is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Aim {
    rules: StoreRules,
    /// What the names of all entries stand behind.
    prefix: String,
    /// Which files those of the rules are now: another file of the name has another key.
    files: Vec<Option<(u64, SystemTime)>>,
}

/// The way to the helper, where there is to be one.
pub(super) struct StoreHelper {
    aim: Option<Aim>,
    line: Option<HelperLine>,
}

struct HelperLine {
    heard: mpsc::Receiver<StoreEvent>,
    told: mpsc::Sender<StoredEntry>,
    task: JoinHandle<()>,
}

impl Drop for HelperLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl StoreHelper {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { aim: None, line: None }
    }

    /// Has the roster of `host` kept as its file says from now on. Says whether that is something else than before.
    pub(super) fn aim(&mut self, host: &Host, files: &FileSource) -> bool {
        let cluster = host.roster().map(|(roster, _)| roster.cluster());
        self.aim_at(host.setup().config.store.as_ref(), cluster, files)
    }

    fn aim_at(&mut self, rules: Option<&StoreRules>, cluster: Option<ClusterId>, files: &FileSource) -> bool {
        let aim = rules.zip(cluster).map(|(rules, cluster)| Aim::new(rules.clone(), cluster));
        if aim == self.aim {
            return false;
        }
        self.line = aim.clone().map(|aim| HelperLine::open(aim, files));
        self.aim = aim;
        true
    }

    /// The next things that are heard, as many as wait.
    pub(super) async fn heard(&mut self) -> Vec<StoreEvent> {
        let Some(line) = &mut self.line else { return pending().await };
        let mut heard = Vec::new();
        match line.heard.recv_many(&mut heard, WAITING).await {
            0 => pending().await,
            _ => heard,
        }
    }

    /// Whether something can be told now.
    pub(super) fn has_room(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.told.capacity() > 0)
    }

    /// Has an entry stored. Where that gets lost, the helper lists everything anew.
    pub(super) fn put(&mut self, entry: StoredEntry) {
        if let Some(line) = &self.line
            && line.told.try_send(entry).is_err()
        {
            tracing::debug!("the helper of the store takes nothing");
        }
    }
}

impl Aim {
    fn new(rules: StoreRules, cluster: ClusterId) -> Self {
        let cluster = EntryName::of(cluster.octets());
        let which = |file: &PathBuf| {
            let found = std::fs::metadata(file).ok()?;
            Some((found.ino(), found.modified().ok()?))
        };
        let files = rules.files().map(which).to_vec();
        Self { prefix: format!("{}{cluster}/", rules.prefix), rules, files }
    }
}

impl HelperLine {
    fn open(aim: Aim, files: &FileSource) -> Self {
        let (events, heard) = mpsc::channel(WAITING);
        let (told, puts) = mpsc::channel(WAITING);
        let words = files.reach.as_ref().map(Reach::words);
        let task = tokio::task::spawn_local(keep(HelperTalk { aim, reach: words, events, puts }));
        Self { heard, told, task }
    }
}

/// What is said to the helper and heard of it.
struct HelperTalk {
    aim: Aim,
    /// The directories in which this process may read, in words.
    reach: Option<String>,
    events: mpsc::Sender<StoreEvent>,
    puts: mpsc::Receiver<StoredEntry>,
}

/// Talks to the helper for ever.
async fn keep(mut talk: HelperTalk) {
    let mut alarm = match Alarm::new() {
        Ok(alarm) => alarm,
        Err(error) => return tracing::warn!("there is no timer for the helper of the store: {error}"),
    };
    let mut pause = PAUSE;
    loop {
        let begun = Instant::now();
        let Err(error) = talk.connect().await;
        let why = causes::words(error.as_ref());
        if talk.events.send(StoreEvent::Lost(why)).await.is_err() {
            return;
        }
        let now = Instant::now();
        pause = if now - begun > SETTLED { PAUSE } else { pause };
        // What was put is put again where it is missing.
        while talk.puts.try_recv().is_ok() {}
        if alarm.set(now, Some(now + pause)).is_err() {
            return tracing::warn!("the helper of the store is not talked to any more");
        }
        alarm.ring().await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

impl HelperTalk {
    /// Talks to the helper until that ends.
    async fn connect(&mut self) -> anyhow::Result<std::convert::Infallible> {
        let socket = self.aim.rules.socket.clone();
        let stream = connect(&socket).await.with_context(|| {
            format!(
                "the helper for etcd cannot be reached at {} (install hostseal-etcd, and run `systemctl enable --now \
                 hostseal-etcd.socket`)",
                socket.display()
            )
        })?;
        self.begin(&stream)?;
        let (reader, mut writer) = stream.into_split();
        let Self { events, puts, .. } = self;
        tokio::select! {
            heard = hear(reader, events) => heard,
            told = tell(&mut writer, puts) => told,
        }
    }

    /// Says which store it is, and hands over the files for it.
    fn begin(&self, stream: &UnixStream) -> anyhow::Result<()> {
        let StoreRules { endpoints, .. } = &self.aim.rules;
        let files = self.aim.rules.files().map(|file| self.open(file));
        let files = files.into_iter().collect::<anyhow::Result<Vec<File>>>()?;
        let prefix = self.aim.prefix.clone();
        let order = StoreOrder::Open { version: VERSION, endpoints: endpoints.clone(), prefix };
        let raw: Vec<RawFd> = files.iter().map(|file| file.as_raw_fd()).collect();
        let line = encode(&order);
        let (parts, rights) = ([IoSlice::new(&line)], [ControlMessage::ScmRights(&raw)]);
        let sent = sendmsg::<()>(stream.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None);
        ensure!(
            sent.context("the helper for etcd does not listen")? == line.len(),
            "the helper for etcd is busy"
        );
        Ok(())
    }

    /// Opens a file of TLS, for the helper alone.
    fn open(&self, path: &Path) -> anyhow::Result<File> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.with_context(|| {
            let reach = self.reach.as_ref().filter(|_| path.exists());
            let hint = reach.map(|reach| {
                format!(
                    " (the agent gave up all files but those in {reach} when it started: put it there, or restart the agent)"
                )
            });
            format!("{} cannot be opened{}", path.display(), hint.unwrap_or_default())
        })?;
        let found = file.metadata().with_context(|| path.display().to_string())?;
        ensure!(found.is_file(), "{} is no regular file", path.display());
        let is_open = *path == *self.aim.rules.key && found.mode() & 0o077 != 0;
        ensure!(!is_open, "{}: others may read or write it: `chmod 600 {}`", path.display(), path.display());
        Ok(file)
    }
}

/// Whoever listens there gets a private key, so nobody but root may have bound it.
async fn connect(socket: &Path) -> anyhow::Result<UnixStream> {
    owner::check(socket)?;
    socket.parent().map_or(Ok(()), owner::check)?;
    Ok(UnixStream::connect(socket).await?)
}

async fn tell(
    writer: &mut OwnedWriteHalf,
    puts: &mut mpsc::Receiver<StoredEntry>,
) -> anyhow::Result<std::convert::Infallible> {
    loop {
        match puts.recv().await {
            Some(entry) => {
                let line = encode(&StoreOrder::Put(entry));
                ensure!(writer.write_all(&line).await.is_ok(), ENDED);
            }
            None => pending().await,
        }
    }
}

async fn hear(
    reader: OwnedReadHalf,
    events: &mpsc::Sender<StoreEvent>,
) -> anyhow::Result<std::convert::Infallible> {
    let (mut reader, mut line) = (BufReader::new(reader), Vec::new());
    let (begun, mut lines) = (Instant::now(), 0);
    // Why the store is away: one that cannot begin says so, and ends.
    let mut why = String::new();
    loop {
        line.clear();
        let read = (&mut reader).take(LINE_MAX as u64).read_until(b'\n', &mut line).await;
        ensure!(read.is_ok_and(|length| length > 0), "{ENDED}{why}");
        let news: StoreNews = decode(&line).context("the helper for etcd says what cannot be read")?;
        lines += 1;
        let allowed = LINES + LINES_A_SECOND * begun.elapsed().as_secs();
        ensure!(lines <= allowed, "the helper for etcd says more than a roster can be");
        if let StoreNews::Away { why: said } = &news {
            why = format!(": {}", words(said));
        }
        events.send(StoreEvent::News(news)).await.map_err(io::Error::other)?;
    }
}

#[cfg(test)]
mod tests;
