//! What outlives the agent and a reboot: `state.json` in the state directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::SavedLease;
use crate::identity::Proven;
use crate::roster::EntryId;
use crate::types::{
    Boot, Direction, NodeName, Pair, Protection, SaErrors, SaReading, Spi, Traffic, Trial, UnixTime, Volume,
};

/// The version of the file.
const SCHEMA: u32 = 1;
/// The version of a file with a trial: programs that know of none must not take it for protection that stays.
const SCHEMA_TRIAL: u32 = 2;

/// Octets by which most file systems give room.
const BLOCK: usize = 4096;

/// What is remembered. A host that never was enabled has the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Saved {
    /// What the operator wants.
    pub protection: Protection,
    /// It is off, but this host is still on its way there: peers may not know of it yet.
    pub leaving: bool,
    /// The trial that ends by itself unless the operator confirms it.
    pub trial: Option<Trial>,
    /// Which node this host was found to be: at boot its addresses may not be there yet.
    pub node: Option<NodeName>,
    /// The entry of the cluster's roster that this host has carried out last: what its operator wants since counts more.
    pub followed: Option<EntryId>,
    /// What is known of each pair.
    pub pairs: BTreeMap<Pair, PairRecord>,
    /// What went through the SAs of this host.
    pub volume: HostRecord,
    /// The lease of the secret, where a key of somebody else wraps it.
    pub lease: Option<SavedLease>,
    /// The end of a time without PPKs that has come: a clock that is set back does not bring it back.
    pub ppks_required_since: Option<UnixTime>,
}

/// What is remembered of all that went through the SAs of a host, beside what is remembered of its pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostRecord {
    /// All of it, as it was told last.
    pub told: Volume,
    /// Of it, what no record of a pair has.
    pub gone: Volume,
    /// What the records of pairs have and was not counted: figures were lost, and counting began anew.
    pub before: Volume,
    /// The agent that wrote this has told nothing since.
    #[serde(default)]
    pub closed: bool,
}

/// What is remembered of a pair.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PairRecord {
    /// Required in both directions: protected or dropped from then on.
    pub sealed: bool,
    /// Since when it is in the state that it is in.
    pub since: Option<UnixTime>,
    /// Sent through SAs that are no more.
    pub tx: Traffic,
    /// Received through SAs that are no more.
    pub rx: Traffic,
    /// Refused by SAs that are no more.
    #[serde(default, skip_serializing_if = "is_none")]
    pub errors: SaErrors,
    /// What of all that, and of what SAs count that are there, is not counted: they had it already when the figures of
    /// others were lost, and counting began anew.
    #[serde(default, skip_serializing_if = "is_none")]
    pub before: Volume,
    /// When counting began.
    pub totals_since: Option<UnixTime>,
    /// The outbound SAs that were counting, and what our own probes added to their counters: that is not the host's
    /// traffic.
    #[serde(default)]
    pub probes_tx: BTreeMap<Spi, Traffic>,
    /// The same for inbound SAs.
    #[serde(default)]
    pub probes_rx: BTreeMap<Spi, Traffic>,
    /// What its keys rest on, where an agent knew that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven: Option<Proven>,
}

impl PairRecord {
    /// Whether each SA that was counting is one of `live`, our SAs of `pair`. Nobody knows the last figures of one that
    /// is not.
    pub fn is_whole(&self, live: &[&SaReading], pair: Pair) -> bool {
        let is_live =
            |direction, spi: &Spi| live.iter().any(|sa| sa.id.spi == *spi && sa.direction(pair) == direction);
        self.probes_tx.keys().all(|spi| is_live(Direction::Out, spi))
            && self.probes_rx.keys().all(|spi| is_live(Direction::In, spi))
    }

    /// What was refused since `totals_since`, in the same way as [`PairRecord::total`].
    pub fn refused(&self, live: &[&SaReading], pair: Pair) -> SaErrors {
        let (past, before) = match self.is_whole(live, pair) {
            true => (self.errors, self.before.errors),
            false => Default::default(),
        };
        live.iter().fold(past, |sum, sa| sum.plus(SaErrors::from(*sa))).minus(before)
    }

    /// What was sent or received since `totals_since`: through SAs that are no more, and through `live`,
    /// our SAs of `pair`, without our own probes. Where figures are lost, only through `live`: a total that begins
    /// anew never falls behind what it was.
    pub fn total(&self, direction: Direction, live: &[&SaReading], pair: Pair) -> Traffic {
        let (past, before, probes) = match direction {
            Direction::Out => (self.tx, self.before.tx, &self.probes_tx),
            Direction::In => (self.rx, self.before.rx, &self.probes_rx),
        };
        let (past, before) = if self.is_whole(live, pair) { (past, before) } else { Default::default() };
        let of_direction = live.iter().filter(|sa| sa.direction(pair) == direction);
        let sum = of_direction.fold(past, |sum, sa| {
            let own = probes.get(&sa.id.spi).copied().unwrap_or_default();
            sum.plus(Traffic::from(*sa).minus(own))
        });
        sum.minus(before)
    }
}

fn is_none<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why there is no [`Saved`], or why it could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// The system refused.
    #[error("{}: {what}: {source}", file.display())]
    Io {
        /// Which file.
        file: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The file is broken or of another version.
    #[error(
        "{}: does not hold hostseal's state: {reason}. `hostseal disable --force` clears this host and \
         writes it anew", file.display()
    )]
    Broken {
        /// Which file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// The file as it is written.
#[derive(Serialize, Deserialize)]
struct SavedFile {
    schema: u32,
    protection: Protection,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    leaving: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trial: Option<Trial>,
    node: Option<NodeName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    followed: Option<EntryId>,
    #[serde(default, skip_serializing_if = "is_none")]
    volume: HostRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<SavedLease>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ppks_required_since: Option<UnixTime>,
    pairs: Vec<SavedPair>,
}

/// JSON has no objects as keys.
#[derive(Serialize, Deserialize)]
struct SavedPair {
    local: std::net::IpAddr,
    remote: std::net::IpAddr,
    record: PairRecord,
}

impl Saved {
    /// Ends a trial that is over at `boot`, as if the operator had gone back to the clear. Says whether it did.
    pub fn end_trial(&mut self, boot: &Boot) -> bool {
        let over = self.trial.as_ref().is_some_and(|trial| trial.left(boot).is_none());
        if over {
            self.turn_off();
        }
        over
    }

    /// Protection is off from now on, and nothing is sealed any more.
    pub fn turn_off(&mut self) {
        (self.protection, self.leaving, self.trial) = (Protection::Off, false, None);
        self.forget_seals();
    }

    /// It begins to go back to the clear.
    pub fn leave(&mut self) {
        (self.protection, self.leaving, self.trial) = (Protection::Off, true, None);
    }

    /// What was sealed begins in stages again.
    pub fn forget_seals(&mut self) {
        self.pairs.values_mut().for_each(|record| record.sealed = false);
    }

    /// The pairs that are protected or dropped.
    pub fn sealed(&self) -> BTreeSet<Pair> {
        self.pairs.iter().filter(|(_, record)| record.sealed).map(|(pair, _)| *pair).collect()
    }

    /// Reads `path`; where there is no such file, nothing has been saved yet.
    ///
    /// # Errors
    /// The file cannot be read, or it is broken: then guessing could open what was sealed.
    pub fn load(path: &Path) -> Result<Self, SavedError> {
        match fs::read(path) {
            Ok(bytes) => {
                Self::from_json(&bytes).map_err(|reason| SavedError::Broken { file: path.to_owned(), reason })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(SavedError::Io { file: path.to_owned(), what: "cannot be read", source }),
        }
    }

    /// Replaces `path` in one step: whatever happens in between, the old or the new contents are there,
    /// also after a power cut. Makes the directory where it is missing. Returns how many octets it wrote.
    ///
    /// # Errors
    /// The system refused; the old contents are still there.
    pub fn save(&self, path: &Path) -> Result<usize, SavedError> {
        let json = self.to_json();
        replace(path, &json).map(|()| json.len())
    }

    /// Finds out whether the disk has room for this twice: to replace it takes as much.
    ///
    /// # Errors
    /// There is none, or the system refused otherwise; nothing has changed.
    pub fn try_room(&self, path: &Path) -> Result<(), SavedError> {
        let io = |what| move |source| SavedError::Io { file: path.to_owned(), what, source };
        let directory = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory).map_err(io("its directory cannot be made"))?;
        let aside = path.with_extension("room");
        let room = 2 * self.to_json().len().next_multiple_of(BLOCK);
        let outcome = write_whole(&aside, &vec![b' '; room]);
        let removed = fs::remove_file(&aside);
        outcome.and(removed).map_err(io("there is no room for it"))
    }

    /// Reads what [`Saved::to_json`] writes.
    ///
    /// # Errors
    /// In words, without the name of the file.
    pub fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let layout: SavedFile = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if ![SCHEMA, SCHEMA_TRIAL].contains(&layout.schema) {
            return Err(format!(
                "it is of version {}, and this program reads versions {SCHEMA} and {SCHEMA_TRIAL}",
                layout.schema
            ));
        }
        let mut pairs = BTreeMap::new();
        for SavedPair { local, remote, record } in layout.pairs {
            let pair = Pair::new(local, remote).ok_or_else(|| format!("{local} and {remote} are no pair"))?;
            pairs.insert(pair, record);
        }
        let SavedFile {
            protection, leaving, trial, node, followed, volume, lease, ppks_required_since, ..
        } = layout;
        Ok(Self { protection, leaving, trial, node, followed, pairs, volume, lease, ppks_required_since })
    }

    /// The contents of the file.
    pub fn to_json(&self) -> Vec<u8> {
        let pairs = self
            .pairs
            .iter()
            .map(|(pair, record)| SavedPair {
                local: pair.local,
                remote: pair.remote,
                record: record.clone(),
            })
            .collect();
        let layout = SavedFile {
            schema: if self.trial.is_some() { SCHEMA_TRIAL } else { SCHEMA },
            protection: self.protection,
            leaving: self.leaving,
            trial: self.trial.clone(),
            node: self.node.clone(),
            followed: self.followed,
            volume: self.volume,
            lease: self.lease.clone(),
            ppks_required_since: self.ppks_required_since,
            pairs,
        };
        // Plain data with string keys: writing it to memory has nothing to fail at.
        let mut json = serde_json::to_vec(&layout).unwrap_or_default();
        json.push(b'\n');
        json
    }
}

/// Replaces the contents of `path` in one step, as [`Saved::save`] says.
pub(super) fn replace(path: &Path, contents: &[u8]) -> Result<(), SavedError> {
    let io = |what| move |source| SavedError::Io { file: path.to_owned(), what, source };
    let directory = path.parent().unwrap_or(Path::new("/"));
    let mut next = path.as_os_str().to_owned();
    next.push(".new");
    let next = PathBuf::from(next);
    let written = match write_whole(&next, contents) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(directory).map_err(io("its directory cannot be made"))?;
            write_whole(&next, contents)
        }
        written => written,
    };
    written.map_err(io("cannot be written"))?;
    rename(&next, path)
}

/// Puts the file `from` in the place of `to`, which lies in the same directory, in one step.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), SavedError> {
    let io = |what| move |source| SavedError::Io { file: to.to_owned(), what, source };
    let directory = to.parent().unwrap_or(Path::new("/"));
    fs::rename(from, to).map_err(io("cannot be replaced"))?;
    // The new name lasts only once its directory is written.
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io("cannot be made to last"))
}

fn write_whole(path: &Path, contents: &[u8]) -> io::Result<()> {
    let create = || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = match create() {
        // One that a crash left may have other permissions.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create()?
        }
        created => created?,
    };
    file.write_all(contents)?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
