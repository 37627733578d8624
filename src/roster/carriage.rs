//! How rosters of members become one: what each tells those that it talks to.
//!
//! ```text
//! a new entry   ──entries, summary──> all                      whoever hears it tells the others
//! another name  ──summary──>                                   of two that differ, the one with the greater name begins
//!                          <──ranges──                         sixteen parts, and of those that differ sixteen more
//!               ──ranges──>
//!                          <──listing──                        few enough are listed
//!               ──wanted, entries──>
//!                          <──entries──
//! ```
//! Each page is answered from the roster as it is, so nothing has to be remembered of an exchange, and one that breaks
//! off is begun again. Who answers nonsense costs a few pages a minute: a peer is asked again after pauses that grow.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::entry::UncheckedEntry;
use super::octets::{EntryId, RosterId, Signer};
use super::pace::PageCredit;
use super::page::{NAMES_MAX, Page, Prefix, RANGES_MAX, Range, Sent};
use super::roster::{Merged, Roster};
use super::saying::{Matter, Statement};

/// How many pages without entries wait for a peer at most, and how many entries: what does not fit is told in another
/// exchange.
const WAITING_MAX: usize = 16;
const OWED_MAX: usize = 4096;
/// How much waits for a peer at most that is said aside: what is newer takes the place of the oldest.
const ASIDES_MAX: usize = 8;
/// Of how few entries the names are listed instead of fingerprints of parts.
const LISTED: usize = 32;
/// How long a peer that differs is left in peace: at first, and at most.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(16);
/// How long who hears of something waits before it tells others: they may have heard of it too.
const RELAY_AFTER: Duration = Duration::from_millis(50);
/// How often who is no admin may change the same thing.
const PACE: Duration = Duration::from_secs(10);
/// Of how many the last change is remembered.
const PACED_MAX: usize = 1024;

/// What this member tells its peers, and hears from them.
#[derive(Debug)]
pub struct Carriage<P> {
    peers: BTreeMap<P, Partner>,
    /// Who is no admin, and has changed this lately.
    paced: BTreeMap<(Signer, PacedMatter), Instant>,
    /// When peers are told of what others have said.
    relay_at: Option<Instant>,
    /// How many pages were told.
    number: u32,
    /// What this member knows is on its disk.
    stored: bool,
}

/// What is paced by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PacedMatter {
    Keys,
    Desired,
    /// What a later version knows.
    Later,
}

/// A peer, as far as it is known what it has.
#[derive(Debug)]
struct Partner {
    /// What it said last that its roster is.
    has: Option<RosterId>,
    /// What it was told last that ours is.
    told: Option<RosterId>,
    /// It is to be told what ours is: then, not now.
    summary_due: bool,
    /// It has the last page.
    listens: bool,
    /// What else it is told.
    waiting: VecDeque<Page>,
    /// The entries that it gets, those first that others rest on.
    owed: VecDeque<EntryId>,
    /// What it is told aside.
    asides: VecDeque<Vec<u8>>,
    /// When it is told again, as long as it differs.
    again_at: Instant,
    pause: Duration,
    /// How many pages it may send.
    credit: PageCredit,
}

/// What came of a page.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// What came of the entries in it.
    pub merged: Merged,
    /// How many entries were put off, by whom they name as their signer: that one changes the same thing all the time.
    pub put_off: BTreeMap<Signer, usize>,
    /// Why the page was not looked at.
    pub ignored: Option<IgnoredBecause>,
    /// What the peer said aside.
    pub aside: Option<Vec<u8>>,
}

/// Why a page is not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoredBecause {
    /// It is nothing that this version knows.
    Unreadable,
    /// The peer sends more than it may. One that has a lot to tell does so for as long as that takes.
    TooMany,
}

impl<P> Default for Carriage<P> {
    fn default() -> Self {
        let (peers, paced) = Default::default();
        Self { peers, paced, relay_at: None, number: 0, stored: true }
    }
}

impl<P: Copy + Ord> Carriage<P> {
    /// A proven peer can be talked to, or can be again.
    pub fn handle_up(&mut self, now: Instant, peer: P, roster: &Roster) {
        let before = self.peers.insert(peer, Partner::new(now));
        if let (Some(before), Some(partner)) = (before, self.peers.get_mut(&peer)) {
            partner.asides = before.asides;
        }
        self.tell(now, peer, roster);
    }

    /// The peer cannot be talked to any more.
    pub fn handle_down(&mut self, peer: P) {
        self.peers.remove(&peer);
    }

    /// This member has signed something, which is in its roster: all are told.
    pub fn handle_signed(&mut self, now: Instant, roster: &Roster, signed: &[EntryId]) {
        self.peers.values_mut().for_each(|partner| partner.owe(signed.iter().copied()));
        self.tell_all(now, roster);
    }

    /// Tells a peer something that is not about rosters, up to [`ASIDE_MAX`](super::ASIDE_MAX) octets. It may get lost where
    /// the peer cannot be talked to.
    pub fn say_aside(&mut self, peer: P, said: Vec<u8>) {
        if let Some(partner) = self.peers.get_mut(&peer) {
            partner.asides.push_back(said);
            let many = partner.asides.len().saturating_sub(ASIDES_MAX);
            partner.asides.drain(..many);
        }
    }

    /// A peer has told something. Says what came of it; the roster has it then.
    pub fn handle_told(&mut self, now: Instant, peer: P, octets: &[u8], roster: &mut Roster) -> Carried {
        self.handle_told_by(now, peer, octets, roster, Roster::take)
    }

    /// The same, where `take` puts the entries into the roster.
    pub(super) fn handle_told_by(
        &mut self,
        now: Instant,
        peer: P,
        octets: &[u8],
        roster: &mut Roster,
        take: impl FnOnce(&mut Roster, Vec<UncheckedEntry>) -> Merged,
    ) -> Carried {
        let Some(partner) = self.peers.get_mut(&peer) else { return Carried::default() };
        if !partner.credit.spend(now) {
            return Carried::ignored(IgnoredBecause::TooMany);
        }
        let Some(page) = Page::read(octets) else { return Carried::ignored(IgnoredBecause::Unreadable) };
        match page {
            Page::Summary(id) => self.compare(now, peer, id, roster),
            Page::Ranges(ranges) => {
                partner.waiting.extend(differing(roster, &ranges));
            }
            Page::Listing(prefix, ids) => {
                let theirs: BTreeSet<EntryId> = ids.into_iter().filter(|id| prefix.has(*id)).collect();
                let ours = roster.ids_of(prefix).filter(|id| !theirs.contains(id));
                partner.owe(roster.order(ours).into_iter());
                let lacking: Vec<EntryId> =
                    theirs.into_iter().filter(|id| roster.get(*id).is_none()).collect();
                partner.waiting.extend((!lacking.is_empty()).then_some(Page::Wanted(lacking)));
            }
            Page::Wanted(ids) => {
                let wanted: BTreeSet<EntryId> = ids.into_iter().collect();
                partner.owe(roster.order(wanted).into_iter());
            }
            Page::Entries(entries) => return self.take(now, Some(peer), &entries, roster, take),
            Page::Aside(said) => return Carried { aside: Some(said), ..Carried::default() },
        }
        self.bound(peer);
        Carried::default()
    }

    /// Entries have come from no peer. Says what came of them; the roster has them then, and the peers are told soon.
    pub fn handle_entries(&mut self, now: Instant, entries: &[Vec<u8>], roster: &mut Roster) -> Carried {
        self.take(now, None, entries, roster, Roster::take)
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant, roster: &Roster) {
        if self.relay_at.is_some_and(|at| at <= now) {
            self.relay_at = None;
            self.tell_all(now, roster);
        }
        let due = |(peer, partner): (&P, &Partner)| {
            (partner.differs(roster) && partner.again_at <= now).then_some(*peer)
        };
        let due: Vec<P> = self.peers.iter().filter_map(due).collect();
        for peer in due {
            let Some(partner) = self.peers.get_mut(&peer) else { continue };
            partner.pause = (partner.pause * 2).min(PAUSE_MAX);
            partner.again_at = now + partner.pause;
            match partner.has.filter(|has| roster.id() > *has) {
                Some(_) => partner.waiting.push_back(Page::Ranges(ranges(roster, Prefix::ALL))),
                None => partner.summary_due = true,
            }
            self.bound(peer);
        }
    }

    /// The peer has the last page: another one can be told.
    pub fn handle_heard(&mut self, peer: P) {
        self.peers.get_mut(&peer).into_iter().for_each(|partner| partner.listens = true);
    }

    /// The next page, and for whom. Nothing is told to that peer then until [`Carriage::handle_heard`].
    pub fn poll_tell(&mut self, roster: &Roster) -> Option<(P, Vec<u8>)> {
        let stored = self.stored;
        let next = |(peer, partner): (&P, &mut Partner)| Some((*peer, partner.next_page(roster, stored)?));
        let (peer, page) = self.peers.iter_mut().find_map(next)?;
        self.number = self.number.wrapping_add(1);
        Some((peer, page.octets(self.number)))
    }

    /// When [`Carriage::handle_timeout`] is due.
    pub fn poll_timeout(&self, roster: &Roster) -> Option<Instant> {
        let differ = self.peers.values().filter(|partner| partner.differs(roster));
        differ.map(|partner| partner.again_at).chain(self.relay_at).min()
    }

    /// Whether all that this member knows is on its disk. Until it is, it does not say what its roster is: others rest on that,
    /// and it could forget it.
    pub fn note_stored(&mut self, stored: bool) {
        self.stored = stored;
    }

    /// The peers that can be talked to.
    pub fn peers(&self) -> impl Iterator<Item = P> {
        self.peers.keys().copied()
    }

    /// What the peer said last that its roster is.
    pub fn has(&self, peer: P) -> Option<RosterId> {
        self.peers.get(&peer)?.has
    }

    /// The peer has said what its roster is.
    fn compare(&mut self, now: Instant, peer: P, id: RosterId, roster: &Roster) {
        let own = roster.id();
        let Some(partner) = self.peers.get_mut(&peer) else { return };
        let is_news = partner.has.replace(id) != Some(id);
        if id == own {
            partner.pause = PAUSE;
        } else if own > id && (is_news || partner.again_at <= now) {
            // One of the two begins.
            partner.again_at = now + partner.pause;
            partner.waiting.push_back(Page::Ranges(ranges(roster, Prefix::ALL)));
        }
        self.tell(now, peer, roster);
    }

    /// Takes entries, which a peer has sent or which come from elsewhere.
    fn take(
        &mut self,
        now: Instant,
        peer: Option<P>,
        entries: &[Vec<u8>],
        roster: &mut Roster,
        take: impl FnOnce(&mut Roster, Vec<UncheckedEntry>) -> Merged,
    ) -> Carried {
        let before = roster.id();
        self.paced.retain(|_, last| now.saturating_duration_since(*last) < PACE);
        let (mut due, mut changes) = (Vec::new(), BTreeMap::new());
        let (mut refused, mut put_off) = (Vec::new(), BTreeMap::new());
        for entry in entries {
            let entry = match roster.read(entry) {
                Ok(Some(entry)) => entry,
                Ok(None) => continue,
                Err(refusal) => {
                    refused.push(refusal);
                    continue;
                }
            };
            let what = paced(entry.statement(), roster);
            if what.is_some_and(|what| !self.is_due(what) || changes.contains_key(&what)) {
                *put_off.entry(entry.statement().by).or_default() += 1;
            } else {
                changes.extend(what.map(|what| (what, entry.id())));
                due.push(entry);
            }
        }
        let mut merged = take(roster, due);
        refused.into_iter().for_each(|refusal| merged.refuse(refusal, 1));
        // Only what was signed counts: else whoever forges an entry could put off the true one.
        let taken = changes.into_iter().filter(|(_, id)| roster.get(*id).is_some());
        self.paced.extend(taken.map(|(what, _)| (what, now)));
        if roster.id() != before {
            self.relay_at.get_or_insert(now + RELAY_AFTER);
            // All others are told soon, and may take a while to say that they have it.
            self.peers.values_mut().for_each(|partner| partner.wait(now, PAUSE));
        }
        if let Some(partner) = peer.filter(|_| !put_off.is_empty()).and_then(|peer| self.peers.get_mut(&peer))
        {
            partner.wait(now, PACE);
        }
        Carried { merged, put_off, ..Carried::default() }
    }

    /// Whether an entry is heard now: who is no admin changes its keys or what is desired once in a while.
    fn is_due(&self, what: (Signer, PacedMatter)) -> bool {
        !self.paced.contains_key(&what) && self.paced.len() < PACED_MAX
    }

    fn tell_all(&mut self, now: Instant, roster: &Roster) {
        let peers: Vec<P> = self.peers.keys().copied().collect();
        peers.into_iter().for_each(|peer| self.tell(now, peer, roster));
    }

    /// Tells the peer what our roster is, unless it knows.
    fn tell(&mut self, now: Instant, peer: P, roster: &Roster) {
        let Some(partner) = self.peers.get_mut(&peer) else { return };
        if partner.told != Some(roster.id()) && !std::mem::replace(&mut partner.summary_due, true) {
            partner.again_at = now + partner.pause;
        }
        self.bound(peer);
    }

    fn bound(&mut self, peer: P) {
        if let Some(partner) = self.peers.get_mut(&peer) {
            partner.waiting.truncate(WAITING_MAX);
        }
    }
}

impl Carried {
    /// A page was not looked at.
    fn ignored(why: IgnoredBecause) -> Self {
        Self { ignored: Some(why), ..Self::default() }
    }
}

impl Partner {
    fn new(now: Instant) -> Self {
        Self {
            has: None,
            told: None,
            summary_due: false,
            listens: true,
            waiting: VecDeque::new(),
            owed: VecDeque::new(),
            asides: VecDeque::new(),
            again_at: now + PAUSE,
            pause: PAUSE,
            credit: PageCredit::new(now),
        }
    }

    /// It gets these entries.
    fn owe(&mut self, ids: impl Iterator<Item = EntryId>) {
        let owed: BTreeSet<EntryId> = self.owed.iter().copied().collect();
        let room = OWED_MAX - owed.len().min(OWED_MAX);
        self.owed.extend(ids.filter(|id| !owed.contains(id)).take(room));
    }

    /// Entries come first: after them what a roster is called says more.
    fn next_page(&mut self, roster: &Roster, stored: bool) -> Option<Page> {
        if !self.listens {
            return None;
        }
        let mut sent = Sent::default();
        while let Some(id) = self.owed.front() {
            // It may have become too much meanwhile.
            if roster.get(*id).is_some_and(|entry| !sent.add(entry.octets())) {
                break;
            }
            self.owed.pop_front();
        }
        let aside = || self.asides.pop_front().map(Page::Aside);
        let page = sent.page().or_else(aside).or_else(|| self.waiting.pop_front());
        let page = page.or_else(|| {
            let summary = (stored && std::mem::take(&mut self.summary_due)).then(|| roster.id());
            self.told = summary.or(self.told);
            summary.map(Page::Summary)
        });
        self.listens = page.is_none();
        page
    }

    /// It is left in peace for so long.
    fn wait(&mut self, now: Instant, pause: Duration) {
        (self.pause, self.again_at) = (PAUSE, now + pause);
    }

    fn differs(&self, roster: &Roster) -> bool {
        self.has != Some(roster.id())
    }
}

/// What may not change all the time, where no admin has signed it.
fn paced(statement: &Statement, roster: &Roster) -> Option<(Signer, PacedMatter)> {
    let matter = match statement.matter() {
        Matter::Keys(_) | Matter::Retired(_) => PacedMatter::Keys,
        Matter::Desired => PacedMatter::Desired,
        Matter::Later => PacedMatter::Later,
        _ => return None,
    };
    let line = roster.line_of(&statement.by)?;
    let is_admin = roster.view().member(line).is_some_and(|member| member.admin);
    (!is_admin).then_some((statement.by, matter))
}

/// What we have of each part of a prefix.
fn ranges(roster: &Roster, prefix: Prefix) -> Vec<Range> {
    prefix.parts().map(|part| roster.range(part)).collect()
}

/// The answer to what a peer has of each part: of those that differ, more.
fn differing(roster: &Roster, theirs: &[Range]) -> Vec<Page> {
    let (mut pages, mut finer) = (Vec::new(), Vec::new());
    // They do not overlap, so that a page costs no more than one look at the whole.
    let apart = theirs.windows(2).all(|two| two[0].prefix.last() < two[1].prefix.first());
    for their in theirs.iter().filter(|_| apart) {
        let own = roster.range(their.prefix);
        if own == *their {
            continue;
        }
        let few = usize::try_from(own.count.min(their.count)).is_ok_and(|count| count <= LISTED);
        let parts = ranges(roster, their.prefix);
        if few && usize::try_from(own.count).is_ok_and(|count| count <= NAMES_MAX) || parts.is_empty() {
            pages.push(Page::Listing(their.prefix, roster.ids_of(their.prefix).take(NAMES_MAX).collect()));
        } else {
            finer.extend(parts);
        }
    }
    pages.extend(finer.chunks(RANGES_MAX).map(|ranges| Page::Ranges(ranges.to_vec())));
    pages
}
