//! The store that members share: etcd, where a fleet runs it. It has the same entries as the rosters, so nobody has to
//! reach another member to hear of something; and where it is away, members tell each other as always.
//!
//! ```text
//! listing, has …, listed   what it has is looked at, in small parts, as the entries of a page are
//! the roster lacks some    it takes them, if they hold
//! the store lacks some     they are put, those first that others rest on
//! ```
//! Nothing that it says is believed: entries carry their signatures, and what does not belong to the cluster is counted.
//! It may forget everything, as when it is restored from a backup: who has entries that it lacks puts them again.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use hostseal_store_protocol::{EntryName, LISTED_MAX, LISTED_OCTETS_MAX, StoreNews, StoredEntry, words};

use crate::roster::{Carried, EntryId, NotTaken, Roster, RosterId};
use crate::types::units::human_duration;
use crate::types::{Problem, ProblemCode};

/// How many entries are looked at before something else has its turn.
const PART: usize = 64;
/// How many entries are under way to the store.
const UNDER_WAY_MAX: usize = 64;
/// How long who has heard of an entry waits for whoever has signed it to put it: at least, and over what time many
/// spread.
const OTHERS_FIRST: Duration = Duration::from_secs(1);
const SPREAD: Duration = Duration::from_secs(2);
/// How long entries wait whose signers may not change something again so soon.
const PUT_OFF: Duration = Duration::from_secs(10);
/// How long a store is left in peace that refuses what is put.
const REFUSED: Duration = Duration::from_secs(30);
/// How long a store may take for an entry.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is heard of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEvent {
    /// Its helper says so.
    News(StoreNews),
    /// The helper cannot be talked to, for this reason.
    Lost(String),
}

/// How it stands.
#[derive(Debug, Default)]
enum StoreStanding {
    /// Nothing has been heard yet.
    #[default]
    Begun,
    /// It answers.
    Answers,
    /// It does not, or its helper does not.
    Away { since: Instant, why: String },
}

/// What came of entries.
#[derive(Debug, Default)]
struct LookedAt {
    taken: bool,
    put_off: bool,
    alien: usize,
}

/// What is known of the store.
#[derive(Debug, Default)]
pub(super) struct SharedStore {
    standing: StoreStanding,
    /// It has told everything.
    listed: bool,
    /// What it has, by name.
    has: BTreeSet<EntryId>,
    /// What it has that the roster lacks, and that nobody has looked at.
    waiting: VecDeque<StoredEntry>,
    waiting_octets: usize,
    /// What the roster has not taken, as it may when it has others.
    left: Vec<StoredEntry>,
    left_octets: usize,
    /// When something is looked at.
    look_at: Option<Instant>,
    /// What came of those that were looked at since what is left was looked at last: some were taken, some were put
    /// off, so many do not belong to the cluster.
    pass: LookedAt,
    /// How many things in it do not belong to the cluster: by their names or lengths, and by what they say.
    strange: u64,
    alien: usize,
    /// The roster that it was compared with.
    compared: Option<RosterId>,
    /// When it is compared with the roster.
    compare_at: Option<Instant>,
    /// What it lacks.
    lacks: VecDeque<EntryId>,
    /// What was put and was not heard of, and when something was heard last.
    under_way: BTreeSet<EntryId>,
    under_way_since: Option<Instant>,
    /// Why it does not take what is put.
    refusal: Option<String>,
}

impl SharedStore {
    /// Something was heard of the store.
    pub(super) fn handle(&mut self, now: Instant, event: StoreEvent, roster: &Roster, own: EntryId) {
        match event {
            StoreEvent::News(StoreNews::Listing) => self.begin_listing(),
            StoreEvent::News(StoreNews::Has(entry)) => self.handle_has(now, entry, roster),
            StoreEvent::News(StoreNews::Listed { strange }) => {
                if !matches!(self.standing, StoreStanding::Answers) {
                    tracing::info!(entries = self.has.len(), "the store of the cluster answers");
                }
                (self.standing, self.listed, self.strange) = (StoreStanding::Answers, true, strange);
                self.look_at = Some(now);
                self.compare_after(now, wait_of(own));
            }
            StoreEvent::News(StoreNews::Gone { name }) => {
                self.has.remove(&id(&name));
                self.compare_after(now, wait_of(own));
            }
            StoreEvent::News(StoreNews::Refused { why }) => {
                let why = words(&why);
                if self.refusal.as_ref() != Some(&why) {
                    tracing::warn!("the store of the cluster takes nothing from this host: {why}");
                }
                self.refusal = Some(why);
                self.stop_putting();
                self.compare_at = Some(now + REFUSED);
            }
            StoreEvent::News(StoreNews::Away { why }) => {
                self.lose(now, format!("etcd does not answer: {}", words(&why)))
            }
            StoreEvent::Lost(why) => self.lose(now, why),
        }
    }

    /// Whether it has told everything, and that is no less than `roster` has: as good as if a member had said so. One that
    /// is empty or behind says nothing of what is new.
    pub(super) fn is_ahead_of(&self, roster: &Roster) -> bool {
        let looked_at = self.waiting.is_empty() && self.left.is_empty();
        self.listed && looked_at && roster.ids().all(|id| self.has.contains(&id))
    }

    /// It tells everything from here on.
    fn begin_listing(&mut self) {
        let Self { standing, compared, refusal, .. } = std::mem::take(self);
        *self = Self { standing, compared, refusal, ..Self::default() };
    }

    fn handle_has(&mut self, now: Instant, entry: StoredEntry, roster: &Roster) {
        let id = id(&entry.name);
        if self.under_way.remove(&id) {
            (self.refusal, self.under_way_since) = (None, (!self.under_way.is_empty()).then_some(now));
        }
        let held = self.waiting_octets + self.left_octets + entry.value.len();
        let room = self.has.len() < LISTED_MAX
            && self.waiting.len() + self.left.len() < LISTED_MAX
            && held <= LISTED_OCTETS_MAX;
        if !room {
            self.strange = self.strange.saturating_add(1);
            return;
        }
        self.has.insert(id);
        if roster.get(id).is_none() {
            self.waiting_octets += entry.value.len();
            self.waiting.push_back(entry);
            self.look_at.get_or_insert(now);
        }
    }

    fn lose(&mut self, now: Instant, why: String) {
        let since = match &self.standing {
            StoreStanding::Away { since, .. } => *since,
            StoreStanding::Begun | StoreStanding::Answers => {
                tracing::warn!("{why}. Members tell each other meanwhile");
                now
            }
        };
        self.standing = StoreStanding::Away { since, why };
        self.stop_putting();
    }

    /// What was put may be lost: the next comparison shows it.
    fn stop_putting(&mut self) {
        self.lacks.clear();
        self.under_way.clear();
        self.under_way_since = None;
    }

    /// The next entries to be looked at.
    pub(super) fn poll_look(&mut self, now: Instant) -> Vec<StoredEntry> {
        if self.look_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        if self.waiting.is_empty() {
            self.waiting.extend(self.left.drain(..));
            self.left_octets = 0;
            self.pass = LookedAt::default();
            self.waiting_octets = self.waiting.iter().map(|entry| entry.value.len()).sum();
        }
        let part: Vec<StoredEntry> = self.waiting.drain(..self.waiting.len().min(PART)).collect();
        self.waiting_octets = self.waiting_octets.saturating_sub(part.iter().map(|it| it.value.len()).sum());
        self.look_at = (!self.waiting.is_empty()).then_some(now);
        part
    }

    /// What came of them; `roster` is what it is now.
    pub(super) fn handle_looked(
        &mut self,
        now: Instant,
        part: Vec<StoredEntry>,
        carried: &Carried,
        roster: &Roster,
    ) {
        let left = part.into_iter().filter(|entry| roster.get(id(&entry.name)).is_none());
        for entry in left {
            self.left_octets += entry.value.len();
            self.left.push(entry);
        }
        self.pass.taken |= carried.merged.taken > 0;
        self.pass.put_off |= !carried.put_off.is_empty();
        // What was said too often was true once.
        let alien = |why: &NotTaken| !matches!(why, NotTaken::TooMany | NotTaken::Full);
        let refused = carried.merged.refused.iter().filter(|(why, _)| alien(why));
        self.pass.alien += refused.map(|(_, how_many)| how_many).sum::<usize>();
        if self.left.is_empty() || !self.waiting.is_empty() {
            return;
        }
        match () {
            // What rests on these can be taken now.
            () if self.pass.taken => self.look_at = Some(now),
            () if self.pass.put_off => self.look_at = Some(now + PUT_OFF),
            // More may come that entitles them.
            () if !self.listed => {}
            () => {
                self.alien += self.pass.alien;
                self.left.clear();
                self.left_octets = 0;
            }
        }
    }

    /// This node has signed something, which is in the roster.
    pub(super) fn handle_signed(&mut self, now: Instant) {
        self.compare_after(now, Duration::ZERO);
    }

    /// Looks whether the roster has become another one, and what the store lacks of it.
    pub(super) fn compare(&mut self, now: Instant, roster: &Roster, own: EntryId) {
        if self.compared != Some(roster.id()) {
            self.compared = Some(roster.id());
            self.compare_after(now, wait_of(own));
        }
        if self.answers() && self.compare_at.is_some_and(|at| at <= now) {
            self.compare_at = None;
            let lacks = |id: &EntryId| !self.has.contains(id) && !self.under_way.contains(id);
            self.lacks = roster.order(roster.ids().filter(lacks)).into();
        }
    }

    fn compare_after(&mut self, now: Instant, wait: Duration) {
        let at = now + wait;
        self.compare_at = Some(self.compare_at.map_or(at, |before| before.min(at)));
    }

    /// The next entry to be put.
    pub(super) fn poll_put(&mut self, now: Instant, roster: &Roster) -> Option<StoredEntry> {
        while self.answers() && self.under_way.len() < UNDER_WAY_MAX {
            let id = self.lacks.pop_front()?;
            let Some(entry) = roster.get(id).filter(|_| !self.has.contains(&id)) else { continue };
            self.under_way.insert(id);
            self.under_way_since.get_or_insert(now);
            return Some(StoredEntry { name: EntryName::of(id.octets()), value: entry.octets().to_vec() });
        }
        None
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let compare = self.compare_at.filter(|_| self.answers());
        compare.into_iter().chain(self.look_at).min()
    }

    fn answers(&self) -> bool {
        self.listed && matches!(self.standing, StoreStanding::Answers)
    }

    /// What is wrong with it, which lies below `prefix`.
    pub(super) fn problems(&self, now: Instant, prefix: &str) -> Vec<Problem> {
        let warning = |code, words: String| Problem::warning(code, None, words);
        let ago =
            |at: Instant| human_duration(Duration::from_secs(now.saturating_duration_since(at).as_secs()));
        let mut problems = Vec::new();
        let stuck = self.under_way_since.filter(|at| now.saturating_duration_since(*at) > PATIENCE);
        if let StoreStanding::Away { since, why } = &self.standing {
            let words = format!(
                "{why} (for {}). Protection does not depend on it, and members tell each other what is new over IKE; \
                 it is tried again by itself",
                ago(*since)
            );
            problems.push(warning(ProblemCode::StoreAway, words));
        } else if let Some(at) = stuck {
            let words = format!(
                "the helper for etcd has not stored anything for {}: `systemctl restart hostseal-etcd.service`. Protection \
                 does not depend on it, and members tell each other what is new over IKE",
                ago(at)
            );
            problems.push(warning(ProblemCode::StoreAway, words));
        }
        problems.extend(self.refusal.iter().map(|why| {
            let words = format!(
                "etcd takes nothing from this host: {why}. The others hear over IKE what this host has; see that it may \
                 write below {prefix}, and that etcd has room"
            );
            warning(ProblemCode::StoreRefuses, words)
        }));
        let strange = self.strange.saturating_add(self.alien as u64);
        if strange > 0 {
            let words = format!(
                "below {prefix} etcd holds things that do not belong to this cluster ({strange}): they count for nothing. \
                 Who may write there?"
            );
            problems.push(Problem::info(ProblemCode::StoreStrange, None, words));
        }
        problems
    }
}

/// How long this node waits for others.
fn wait_of(own: EntryId) -> Duration {
    OTHERS_FIRST + SPREAD * u32::from(own.octets()[0]) / 256
}

fn id(name: &EntryName) -> EntryId {
    EntryId::new(name.octets())
}

#[cfg(test)]
mod tests;
