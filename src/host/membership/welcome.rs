//! How a member lets in who joins with a token.
//!
//! ```text
//! who joins                        member                                  its host
//!   IKE SA with the token's key ─>   the token is good, or was lately
//!   ask (again and again) ────────>  <── the roster, page by page
//!   join ─────────────────────────>  checked, and the admission signed
//!                                    poll_signed ─────────────────────────> writes it
//!                        <───────── admitted   <───────────────────────── handle_signed
//! ```
//! Nothing that somebody with a token sends counts before that, nor is kept: an entry that is refused leaves no trace. What
//! it can cost is bounded by the engine ([`JOINERS_MAX`](crate::ike::JOINERS_MAX) at a time) and by [`PageCredit`]; who is
//! refused has to begin anew. One node is admitted at a time, as it may be in the way of the next.
//!
//! A token that is not good any more is heard for a day, so that its holder learns why it is refused. It learns nothing
//! else, unless it is the node that has used the token.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Membership;
use crate::identity::{PrivateKey, PublicKey};
use crate::ike::{ControlEvent, Engine, Purpose, SessionKey, Topic};
use crate::roster::{
    EntryId, JOIN_VERSION, JoinPage, JoinRefusal, NotAJoinPage, NotEntitled, NotRedeemed, NotTaken,
    PageCredit, Redeemed, RefusalCode, Roster, SignedEntry, Signer,
};
use crate::types::{Pair, UnixTime};

/// For how many seconds a token is heard that is not good any more.
const GRACE: u64 = 24 * 60 * 60;
/// How many with such a token are heard at a time: the others have as many places at least.
const STALE_MAX: usize = 8;
/// What is told where what this member knows may be old.
const NOT_HEARD: &str =
    "this member has heard no other one since its start, so what it knows of the cluster may be old";
/// How often it is looked which tokens are heard, where nothing but the time has changed.
const LOOK: Duration = Duration::from_secs(60);

/// Those who join.
#[derive(Debug, Default)]
pub(super) struct Welcome {
    /// What this node signs with; `None` where nobody is let in.
    signing: Option<Arc<PrivateKey>>,
    /// The time of day, and when it was that.
    clock: Option<(Instant, UnixTime)>,
    /// When it was looked last which tokens are heard by then.
    looked_at: Option<Instant>,
    guests: BTreeMap<Pair, Guest>,
    /// How much may be said with a token, whoever has it and as often as he begins anew.
    credits: BTreeMap<Signer, PageCredit>,
    /// The node that is admitted once that is written, by its entry.
    pending: Option<EntryId>,
    /// What this member has signed of it, and its host has not taken yet.
    signed: Option<Vec<SignedEntry>>,
    /// How many pages were told.
    number: u32,
}

/// Somebody with a token, on an IKE SA that was admitted.
#[derive(Debug)]
struct Guest {
    /// The key of the token.
    token: Signer,
    /// The token was not good when it came.
    stale: bool,
    /// What it waits for.
    waits: Waits,
}

#[derive(Debug, PartialEq, Eq)]
enum Waits {
    /// For nothing.
    No,
    /// Another node is being admitted: this entry is looked at then.
    Turn(Vec<u8>),
    /// The node with this entry is admitted once that is written.
    Written(EntryId),
    /// It is refused, and is sent away once it has heard it.
    Leave,
}

impl Membership {
    /// Lets in who has a token from now on, which is signed with `signing`, this node's key for that. It needs to know the
    /// time, too: [`Membership::set_clock`].
    pub fn open_door(&mut self, signing: Arc<PrivateKey>) {
        self.welcome.signing = Some(signing);
    }

    /// The time of day is `wall` at `now`: tokens are judged by it. To be said as to the engine, again from time to time.
    pub fn set_clock(&mut self, now: Instant, wall: UnixTime, engine: &mut Engine) {
        self.welcome.clock = Some((now, wall));
        if self.welcome.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK) {
            self.welcome.looked_at = Some(now);
            engine.reconfigure_control(now, self.control_settings());
        }
    }

    /// The keys of the tokens that are heard now.
    pub(super) fn tokens(&self) -> Vec<PublicKey> {
        let Some((_, wall)) = self.welcome.clock.filter(|_| self.welcome.signing.is_some()) else {
            return Vec::new();
        };
        let invites = self.roster.recent_invites(wall, GRACE);
        invites.filter_map(|invite| invite.key.public_key().ok()).collect()
    }

    /// Something happened to the IKE SAs of somebody who joins ([`Purpose::Join`]).
    pub fn handle_join(&mut self, now: Instant, engine: &mut Engine, pair: Pair, event: ControlEvent) {
        match event {
            ControlEvent::Introduced { session, key, .. } => self.receive(now, engine, pair, (session, &key)),
            ControlEvent::Heard => {
                if self.welcome.guests.get(&pair).is_some_and(|guest| guest.waits == Waits::Leave) {
                    self.welcome.guests.remove(&pair);
                    engine.end_join(now, pair);
                }
            }
            ControlEvent::Ended => drop(self.welcome.guests.remove(&pair)),
            ControlEvent::Failed { .. } => {}
        }
    }

    /// Somebody who joins has told something ([`Topic::Join`]). What this node signs then, [`Membership::poll_signed`] has.
    pub fn handle_join_told(&mut self, now: Instant, engine: &mut Engine, pair: Pair, octets: &[u8]) {
        let Some(guest) = self.welcome.guests.get_mut(&pair) else { return };
        // Whoever says more than is heard has to say it again later.
        let credit = self.welcome.credits.entry(guest.token).or_insert_with(|| PageCredit::new(now));
        if guest.waits == Waits::Leave || !credit.spend(now) {
            return;
        }
        match JoinPage::read(octets) {
            Ok(JoinPage::Ask { join, after }) => self.handle_ask(now, engine, pair, (join, after)),
            Ok(JoinPage::Join(entry)) => self.take(now, engine, pair, entry),
            Err(NotAJoinPage::Version(version)) => {
                let words = format!("this member speaks version {JOIN_VERSION}, and not {version}");
                let refusal = JoinRefusal { code: RefusalCode::Version, words };
                self.refuse(now, engine, pair, refusal);
            }
            // What only a member says, or nobody.
            Ok(JoinPage::Entries { .. } | JoinPage::Admitted(_) | JoinPage::Refused(_))
            | Err(NotAJoinPage::Malformed) => {}
        }
    }

    /// What this node has signed because somebody has joined. To be written with the roster, and then given to
    /// [`Membership::handle_signed`]; or to [`Membership::handle_not_written`].
    pub fn poll_signed(&mut self) -> Option<Vec<SignedEntry>> {
        self.welcome.signed.take()
    }

    /// What [`Membership::poll_signed`] gave cannot be written: nobody has joined by it. Who has tried says it again.
    pub fn handle_not_written(&mut self, now: Instant, engine: &mut Engine, entries: &[SignedEntry]) {
        let ids: Vec<EntryId> = entries.iter().map(SignedEntry::id).collect();
        if let Some(pending) = self.welcome.pending.take_if(|pending| ids.contains(pending)) {
            let guests = self.welcome.guests.values_mut();
            let waiting = guests.filter(|guest| guest.waits == Waits::Written(pending));
            waiting.for_each(|guest| guest.waits = Waits::No);
            self.go_on(now, engine);
        }
    }

    /// What this node has signed is written, and in the roster: who has joined by it may know, and the next one may come.
    pub(super) fn note_written(&mut self, now: Instant, engine: &mut Engine, ids: &[EntryId]) {
        if let Some(pending) = self.welcome.pending.take_if(|pending| ids.contains(pending)) {
            let waits =
                |(pair, guest): (&Pair, &Guest)| (guest.waits == Waits::Written(pending)).then_some(*pair);
            let waiting: Vec<Pair> = self.welcome.guests.iter().filter_map(waits).collect();
            waiting.into_iter().for_each(|pair| self.tell_admitted(now, engine, pair, pending));
            self.go_on(now, engine);
        }
    }

    /// The next one whose turn it is.
    fn go_on(&mut self, now: Instant, engine: &mut Engine) {
        while self.welcome.pending.is_none() {
            let next = self.welcome.guests.iter_mut().find_map(|(pair, guest)| match &mut guest.waits {
                Waits::Turn(entry) => Some((*pair, std::mem::take(entry))),
                _ => None,
            });
            let Some((pair, entry)) = next else { return };
            self.take(now, engine, pair, entry);
        }
    }

    /// Somebody has proven that it has a token.
    fn receive(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        pair: Pair,
        (session, key): (SessionKey, &PublicKey),
    ) {
        let gone = |pair: &Pair| engine.control(*pair, Purpose::Join).is_none_or(|it| it.sessions == 0);
        self.welcome.guests.retain(|pair, _| !gone(pair));
        let token = key.point().try_into().ok().map(Signer::new);
        let Some((token, wall)) = token.zip(self.welcome.wall(now)) else {
            return engine.refuse(now, session);
        };
        let stale = self.roster.open_invite(&token, wall).is_err();
        let others = self.welcome.guests.iter().filter(|(other, guest)| **other != pair && guest.stale);
        if stale && others.count() >= STALE_MAX {
            return engine.refuse(now, session);
        }
        self.welcome.credits.retain(|_, credit| !credit.is_full(now));
        self.welcome.guests.insert(pair, Guest { token, stale, waits: Waits::No });
        engine.admit(now, session);
    }

    /// The next page of the roster, for those who may see it.
    fn handle_ask(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        pair: Pair,
        (join, after): (EntryId, Option<EntryId>),
    ) {
        let wall = self.welcome.wall(now);
        let Some((guest, wall)) = self.welcome.guests.get_mut(&pair).zip(wall) else { return };
        if self.welcome.pending == Some(join) {
            guest.waits = Waits::Written(join);
            return;
        }
        match may_see(&self.roster, &guest.token, join, wall) {
            Ok(()) => {
                let page = JoinPage::of_roster(&self.roster, after);
                self.welcome.tell(now, engine, pair, &page);
            }
            Err(refusal) => self.refuse(now, engine, pair, refusal),
        }
    }

    /// The entry of a node that joins: admits it, or says why not.
    fn take(&mut self, now: Instant, engine: &mut Engine, pair: Pair, entry: Vec<u8>) {
        let is_busy = self.welcome.pending.is_some();
        let Some(guest) = self.welcome.guests.get_mut(&pair) else { return };
        match &guest.waits {
            // It says it once more.
            Waits::Written(_) => return,
            _ if is_busy => {
                guest.waits = Waits::Turn(entry);
                return;
            }
            _ => guest.waits = Waits::No,
        }
        let token = guest.token;
        if !self.is_up_to_date() {
            let refusal = JoinRefusal { code: RefusalCode::NotReady, words: NOT_HEARD.to_owned() };
            return self.refuse(now, engine, pair, refusal);
        }
        match self.admit(&entry, token, now) {
            Ok(id) if self.welcome.pending == Some(id) => self.welcome.wait_for(pair, id),
            Ok(id) => self.tell_admitted(now, engine, pair, id),
            Err(why) => {
                let refusal = JoinRefusal { code: RefusalCode::from(&why), words: why.to_string() };
                self.refuse(now, engine, pair, refusal);
            }
        }
    }

    /// Signs that the node may join, if it may. Says which entry is that node's.
    fn admit(&mut self, entry: &[u8], token: Signer, now: Instant) -> Result<EntryId, NotRedeemed> {
        let signing = self.welcome.signing.as_ref();
        let (signing, wall) = signing.zip(self.welcome.wall(now)).ok_or(NotEntitled::NoMember)?;
        let by = Signer::of(signing).ok_or(NotEntitled::NoMember)?;
        let Redeemed { join, admission } = self.roster.redeem(entry, token, by, wall)?;
        let id = join.id();
        if !self.roster.counts(id) {
            let admission = SignedEntry::sign(self.roster.cluster(), admission, &[signing])
                .map_err(|_| NotRedeemed::Entry(NotTaken::NotSigned))?;
            self.welcome.pending = Some(id);
            self.welcome.signed = Some(vec![join, admission]);
        }
        Ok(id)
    }

    /// The node with this entry is admitted, unless the roster has not taken that.
    fn tell_admitted(&mut self, now: Instant, engine: &mut Engine, pair: Pair, id: EntryId) {
        let Some(guest) = self.welcome.guests.get_mut(&pair) else { return };
        guest.waits = Waits::No;
        let admissions: Vec<Vec<u8>> =
            self.roster.admissions(id).map(|entry| entry.octets().to_vec()).collect();
        if admissions.is_empty() {
            let why = NotRedeemed::Entry(NotTaken::Full);
            let refusal = JoinRefusal { code: RefusalCode::from(&why), words: why.to_string() };
            return self.refuse(now, engine, pair, refusal);
        }
        self.welcome.tell(now, engine, pair, &JoinPage::Admitted(admissions));
    }

    fn refuse(&mut self, now: Instant, engine: &mut Engine, pair: Pair, refusal: JoinRefusal) {
        if let Some(guest) = self.welcome.guests.get_mut(&pair) {
            guest.waits = Waits::Leave;
            self.welcome.tell(now, engine, pair, &JoinPage::Refused(refusal));
        }
    }
}

impl Welcome {
    /// An engine begins that has none of those who join.
    pub(super) fn begin(&mut self) {
        self.guests.clear();
    }

    fn wall(&self, now: Instant) -> Option<UnixTime> {
        self.clock.map(|(then, wall)| wall.after(now.saturating_duration_since(then)))
    }

    fn wait_for(&mut self, pair: Pair, id: EntryId) {
        self.guests.get_mut(&pair).into_iter().for_each(|guest| guest.waits = Waits::Written(id));
    }

    fn tell(&mut self, now: Instant, engine: &mut Engine, pair: Pair, page: &JoinPage) {
        self.number = self.number.wrapping_add(1);
        let octets = page.octets(self.number);
        engine.tell(now, pair, Topic::Join, Arc::new(move |_| octets.clone()));
    }
}

/// Whether the holder of this token may see the roster: the token is good, or it is the node that has used it.
fn may_see(roster: &Roster, token: &Signer, join: EntryId, wall: UnixTime) -> Result<(), JoinRefusal> {
    let own = roster.join_of(join).filter(|(by, _)| *by == token);
    if let Some((_, says)) = own {
        let view = roster.view();
        let line = roster.line_of(&says.keys.signing).unwrap_or(join);
        if view.removed.iter().any(|removed| removed.line == line) {
            let words = format!("the node {} was removed from the cluster", says.site.name);
            return Err(JoinRefusal { code: RefusalCode::Removed, words });
        }
        if roster.counts(join) || view.held_out.iter().any(|out| out.line == line) {
            return Ok(());
        }
    }
    roster.open_invite(token, wall).map(drop).map_err(|why| {
        let why = NotRedeemed::from(why);
        JoinRefusal { code: RefusalCode::from(&why), words: why.to_string() }
    })
}
