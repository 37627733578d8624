//! All sessions, found by SPI, by the request that began them and by what is due next.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use aws_lc_rs::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::budget::{Budget, Load};
use crate::ike::handshake::session::Session;
use crate::ike::path::Bond;
use crate::ike::wire::Message;

/// The name of a session within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(u64);

#[cfg(test)]
impl SessionKey {
    /// One for tests.
    pub fn numbered(number: u64) -> Self {
        Self(number)
    }
}

/// The name of an initiator's first request: its address, and a hash of all but the cookie. Whoever sees the request
/// can send another with the same SPI, so the SPI alone does not tell requests apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestKey(SocketAddr, [u8; SHA256_OUTPUT_LEN]);

impl RequestKey {
    /// The name of `message`, which came from `remote` and was `datagram` on the wire.
    pub fn new(remote: SocketAddr, message: &Message<'_>, datagram: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        message.without_cookie(datagram).into_iter().for_each(|part| hash.update(part));
        Self(remote, hash.finish().as_ref().try_into().unwrap_or_default())
    }
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    /// Something that a session waits for.
    Session(SessionKey),
    /// An attempt of ours.
    Pair(Bond),
}

/// A session and where it stands in the indexes.
struct Indexed {
    /// `None` while it is being worked on.
    session: Option<Session>,
    spis: Vec<u64>,
    /// The first request, where the peer is the initiator.
    request: Option<RequestKey>,
    due: Option<Instant>,
    bond: Bond,
    load: Load,
    initiating: bool,
    takes_room: bool,
    is_joiner: bool,
    to_flush: bool,
}

/// All sessions.
#[derive(Default)]
pub struct Table {
    entries: HashMap<SessionKey, Indexed>,
    by_spi: HashMap<u64, SessionKey>,
    by_request: HashMap<RequestKey, SessionKey>,
    to_flush: VecDeque<SessionKey>,
    budget: Budget,
    initiating: usize,
    taken_room: usize,
    joiners: usize,
    next_key: u64,
    timers: BTreeSet<(Instant, Due)>,
}

impl Table {
    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many indexes of ours they have.
    pub fn spis(&self) -> usize {
        self.by_spi.len()
    }

    /// What others make us hold.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// How many of those that this end initiates take room.
    pub(super) fn taken_room(&self) -> usize {
        self.taken_room
    }

    /// How many of them take none, since nobody answers.
    pub fn unanswered(&self) -> usize {
        self.initiating - self.taken_room
    }

    /// How many joiners there are that have proven themselves to this end.
    pub fn joiners(&self) -> usize {
        self.joiners
    }

    /// Adds a session. `request`: the first request, where the peer is the initiator.
    pub fn insert(&mut self, session: Session, request: Option<RequestKey>) -> SessionKey {
        let key = SessionKey(self.next_key);
        self.next_key += 1;
        let entry = Indexed {
            session: None,
            spis: Vec::new(),
            request,
            due: None,
            bond: session.path().bond(),
            load: Load::default(),
            initiating: false,
            takes_room: false,
            is_joiner: false,
            to_flush: false,
        };
        self.entries.insert(key, entry);
        if let Some(request) = request {
            self.by_request.insert(request, key);
        }
        self.put_back(key, session);
        key
    }

    /// A session, to look at.
    pub fn get(&self, key: SessionKey) -> Option<&Session> {
        self.entries.get(&key)?.session.as_ref()
    }

    /// The session that a message with our index `spi` is for.
    pub(super) fn by_spi(&self, spi: u64) -> Option<SessionKey> {
        self.by_spi.get(&spi).copied()
    }

    /// The session that a first request has begun.
    pub(super) fn by_request(&self, request: RequestKey) -> Option<SessionKey> {
        self.by_request.get(&request).copied()
    }

    /// Takes a session out to work on it; [`Table::put_back`] or [`Table::remove`] must follow.
    pub fn take(&mut self, key: SessionKey) -> Option<Session> {
        self.entries.get_mut(&key)?.session.take()
    }

    /// Puts a session back, into the indexes too, and marks it to be flushed.
    pub(super) fn put_back(&mut self, key: SessionKey, session: Session) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let spis = session.spis();
        if spis != entry.spis {
            entry.spis.iter().filter(|spi| !spis.contains(spi)).for_each(|spi| {
                self.by_spi.remove(spi);
            });
            self.by_spi.extend(spis.iter().map(|spi| (*spi, key)));
            entry.spis = spis;
        }
        let due = session.deadline().map(|(at, _)| at);
        if due != entry.due {
            if let Some(at) = entry.due {
                self.timers.remove(&(at, Due::Session(key)));
            }
            self.timers.extend(due.map(|at| (at, Due::Session(key))));
            entry.due = due;
        }
        let load = Load {
            unproven: session.is_unproven(),
            refused: matches!(session, Session::Refused(_)),
            octets: session.held_octets(),
        };
        self.budget.change(entry.bond, key, std::mem::replace(&mut entry.load, load), load);
        self.initiating -= usize::from(entry.initiating);
        entry.initiating = session.is_initiating();
        self.initiating += usize::from(entry.initiating);
        self.taken_room -= usize::from(entry.takes_room);
        entry.takes_room = session.takes_room();
        self.taken_room += usize::from(entry.takes_room);
        self.joiners -= usize::from(entry.is_joiner);
        entry.is_joiner = session.is_joiner();
        self.joiners += usize::from(entry.is_joiner);
        if !entry.to_flush {
            entry.to_flush = true;
            self.to_flush.push_back(key);
        }
        entry.session = Some(session);
    }

    /// Puts back what needs no flush any more.
    pub(super) fn put_back_flushed(&mut self, key: SessionKey, session: Session) {
        self.put_back(key, session);
        self.to_flush.pop_back_if(|last| *last == key);
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.to_flush = false;
        }
    }

    /// The next session to flush.
    pub(super) fn next_to_flush(&mut self) -> Option<SessionKey> {
        loop {
            let key = self.to_flush.pop_front()?;
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.to_flush = false;
                return Some(key);
            }
        }
    }

    /// Forgets a session.
    pub fn remove(&mut self, key: SessionKey) {
        let Some(entry) = self.entries.remove(&key) else { return };
        for spi in &entry.spis {
            self.by_spi.remove(spi);
        }
        if let Some(request) = entry.request {
            self.by_request.remove(&request);
        }
        if let Some(at) = entry.due {
            self.timers.remove(&(at, Due::Session(key)));
        }
        self.budget.change(entry.bond, key, entry.load, Load::default());
        self.initiating -= usize::from(entry.initiating);
        self.taken_room -= usize::from(entry.takes_room);
        self.joiners -= usize::from(entry.is_joiner);
    }

    /// Moves the timer of a pair.
    pub(super) fn move_timer(&mut self, bond: impl Into<Bond>, from: Option<Instant>, to: Option<Instant>) {
        let due = Due::Pair(bond.into());
        if let Some(at) = from {
            self.timers.remove(&(at, due));
        }
        self.timers.extend(to.map(|at| (at, due)));
    }

    /// What is due first.
    pub(super) fn first_due(&self) -> Option<(Instant, Due)> {
        self.timers.first().copied()
    }
}
