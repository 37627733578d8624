//! The end of the agent, and a helper just for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, IoSlice, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};

use hostseal_store_protocol::{EntryName, StoreNews, StoreOrder, StoredEntry, VERSION, decode, encode};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tempfile::TempDir;

use crate::etcd::{Etcds, PATIENCE};

/// What all names stand behind.
pub const PREFIX: &str = "/hostseal/test/";

/// A helper. It ends with this.
pub struct Helper {
    directory: TempDir,
    process: Child,
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Helper {
    /// Starts one as systemd does, with a socket that listens as its standard input.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_hostseal-etcd"));
        command.stdin(Stdio::from(OwnedFd::from(listener)));
        if nix::unistd::geteuid().is_root() {
            command.args(["--user", "nobody"]);
        }
        Self { directory, process: command.spawn().unwrap() }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// A bare connection.
    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.path().join("socket")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }
}

/// An agent that keeps what it is told.
pub struct Agent {
    reader: BufReader<UnixStream>,
    /// What the store has, as it was told.
    pub has: BTreeMap<EntryName, Vec<u8>>,
    /// How many entries were told since the last listing began, one of the same name again.
    pub told: usize,
}

/// What was told last.
pub fn name(number: usize) -> EntryName {
    format!("{number:064x}").try_into().unwrap()
}

impl Agent {
    /// Connects to the helper of an agent, for these endpoints, with the certificate of `client`, as one that believes
    /// `ca`.
    pub fn open(helper: &Helper, etcds: &Etcds, endpoints: Vec<String>, client: &str, ca: &str) -> Self {
        let stream = helper.connect();
        let names = [ca.to_owned() + ".pem", client.to_owned() + ".pem", client.to_owned() + ".key"];
        let files = names.map(|name| File::open(etcds.file(&name)).unwrap());
        let order = StoreOrder::Open { version: VERSION, endpoints, prefix: PREFIX.to_owned() };
        send(&stream, &encode(&order), &files.each_ref().map(|file| file.as_raw_fd()));
        Self { reader: BufReader::new(stream), has: BTreeMap::new(), told: 0 }
    }

    /// As it is meant to be; waits until everything was listed.
    pub fn new(helper: &Helper, etcds: &Etcds) -> Self {
        let mut agent = Self::open(helper, etcds, etcds.endpoints(), "client", "ca");
        agent.await_listed();
        agent
    }

    /// Has an entry stored.
    pub fn put(&mut self, number: usize, value: &[u8]) {
        let entry = StoredEntry { name: name(number), value: value.to_vec() };
        self.reader.get_mut().write_all(&encode(&StoreOrder::Put(entry))).unwrap();
    }

    /// The next thing that the helper says.
    pub fn next(&mut self) -> StoreNews {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line).expect("the helper says nothing");
        let news =
            decode(&line).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&line)));
        match &news {
            StoreNews::Listing => (self.has, self.told) = (BTreeMap::new(), 0),
            StoreNews::Has(StoredEntry { name, value }) => {
                self.told += 1;
                self.has.insert(name.clone(), value.clone());
            }
            StoreNews::Gone { name } => drop(self.has.remove(name)),
            StoreNews::Listed { .. } | StoreNews::Refused { .. } | StoreNews::Away { .. } => {}
        }
        news
    }

    /// Waits until everything was listed; says how many things were no entries.
    pub fn await_listed(&mut self) -> u64 {
        loop {
            if let StoreNews::Listed { strange } = self.next() {
                return strange;
            }
        }
    }

    /// Waits until the store is said to be away; says why.
    pub fn await_away(&mut self) -> String {
        loop {
            if let StoreNews::Away { why } = self.next() {
                return why;
            }
        }
    }

    /// Waits until the store has these. Does what an agent does: what is not among what was listed is put again.
    pub fn await_stored(&mut self, numbers: std::ops::Range<usize>) {
        while let Some(missing) = numbers.clone().find(|number| !self.has.contains_key(&name(*number))) {
            match self.next() {
                StoreNews::Listed { .. } => {
                    let missing =
                        (missing..numbers.end).filter(|number| !self.has.contains_key(&name(*number)));
                    missing.collect::<Vec<_>>().into_iter().for_each(|number| self.put(number, b"again"));
                }
                StoreNews::Refused { why } => panic!("{why}"),
                _ => {}
            }
        }
    }
}

/// Sends a line with descriptors.
pub fn send(stream: &UnixStream, line: &[u8], descriptors: &[RawFd]) {
    let rights = [ControlMessage::ScmRights(descriptors)];
    let control = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(line)];
    sendmsg::<()>(stream.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None).unwrap();
}
