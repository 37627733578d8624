//! All pairs and all sessions: who initiates and when, which session of several stays, what is bounded.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::ike::auth::peer;
use crate::ike::handshake::cookie::CookieJar;
use crate::ike::handshake::first_request::Attempt;
use crate::ike::handshake::initiate::AwaitInitResponse;
use crate::ike::handshake::initiation::Initiation;
use crate::ike::handshake::resume::AwaitResumeResponse;
use crate::ike::handshake::session::Session;
use crate::ike::limits::{
    BEGUN_AT_ONCE, DATAGRAM_MAX, INITIATING_MAX, PACKET_MAX, SECOND_INITIATOR_WAIT, TRIES_ESTABLISHED,
    TRIES_FAREWELL,
};
use crate::ike::outbox::{Cx, FailureScope, Outbox};
use crate::ike::path::{Bond, Path};
use crate::ike::session::established::Established;
use crate::ike::session::life::Life;
use crate::ike::session::nat::{Content, Nat, wrap};
use crate::ike::session::pending::Task;
use crate::ike::wire::{Message, Payload};
use crate::ike::{Entropy, Event, Octets, Posture, Purpose, Settings, Topic, Transmit};
use crate::types::{EncapsulationMode, Method, Pair, Spi, UnixTime};
use drawn::Drawn;
use keep::{Keep, Lack};
use knock::{Knocks, Standing};
use late::{LateAnswers, Lateness};
use table::{Due, SessionKey, Table};
use unlisted::UnlistedInitiators;
use vain::Vain;

/// IKEv2 for all pairs of this host.
///
/// After each call of a method that takes the time, drain [`Engine::poll_event`] and then
/// [`Engine::poll_transmit`]; then look at [`Engine::poll_timeout`].
pub struct Engine {
    pub(super) settings: Settings,
    entropy: Drawn,
    pub(super) pairs: HashMap<Bond, Keep>,
    /// The pairs that may be kept some day.
    listed: BTreeSet<Pair>,
    table: Table,
    /// The pairs whose inbound SA may be in the kernel before the peer has proven itself.
    ahead: HashSet<Pair>,
    knocks: Knocks,
    late: Lateness,
    late_answers: LateAnswers,
    /// How long the next datagram had waited.
    waited: Duration,
    cookies: CookieJar,
    unlisted: UnlistedInitiators,
    vain: Vain,
    out: Outbox,
    /// How we introduce ourselves.
    pub(super) vendor_id: Payload,
    /// The most octets of a packet of ours, with its IP header.
    pub(super) packet_max: usize,
    /// The time of the last input.
    now: Option<Instant>,
    /// The time of day, and when it was that.
    clock: Option<(Instant, UnixTime)>,
}

/// What a session is handed, out of the engine's fields: a macro, since a method would borrow them all.
macro_rules! cx {
    ($engine:ident, $now:ident) => {
        Cx {
            now: $now,
            wall: $engine.wall($now),
            late: $engine.late.at($now),
            settings: &$engine.settings,
            vendor_id: &$engine.vendor_id,
            packet_max: $engine.packet_max,
            came: None,
            ahead: &$engine.ahead,
            fragment_room: 0,
            entropy: &mut $engine.entropy,
            out: &mut $engine.out,
        }
    };
}

mod adjust;
mod admission;
pub(super) mod budget;
mod control;
mod drawn;
mod expiry;
pub(super) mod keep;
pub(super) mod knock;
mod late;
mod sessions;
pub(super) mod table;
pub(super) mod unlisted;
mod vain;
mod view;

impl Engine {
    /// An engine that keeps nothing yet.
    pub fn new(settings: Settings, entropy: Box<dyn Entropy + Send>) -> Self {
        Self {
            settings,
            entropy: Drawn::from(entropy),
            pairs: HashMap::new(),
            listed: BTreeSet::new(),
            table: Table::default(),
            knocks: Knocks::default(),
            late: Lateness::default(),
            late_answers: LateAnswers::default(),
            waited: Duration::ZERO,
            ahead: HashSet::new(),
            cookies: CookieJar::default(),
            unlisted: UnlistedInitiators::default(),
            vain: Vain::default(),
            out: Outbox::default(),
            vendor_id: peer::vendor_id(),
            packet_max: PACKET_MAX,
            now: None,
            clock: None,
        }
    }

    /// The time of day is `wall` at `now`: certificates are judged by it. To be said again from time to time,
    /// since clocks are set.
    pub fn set_clock(&mut self, now: Instant, wall: UnixTime) {
        self.clock = Some((now, wall));
        self.end_expired(now, wall);
    }

    fn wall(&self, now: Instant) -> Option<UnixTime> {
        self.clock.map(|(then, wall)| wall.after(now.saturating_duration_since(then)))
    }

    // ------------------------------------------------------------------ what the agent wants

    /// These pairs may be kept some day: who begins IKE between their addresses is listed, even while they are
    /// not kept.
    pub fn list(&mut self, pairs: BTreeSet<Pair>) {
        self.unlisted.retain(|pair| !pairs.contains(&pair));
        self.listed = pairs;
    }

    /// Keeps `pair` keyed from now on, or only answers its peer. Saying it again changes nothing.
    pub fn keep(&mut self, now: Instant, pair: Pair, posture: Posture) {
        self.now = Some(now);
        self.keep_bond(now, pair.into(), posture);
    }

    fn keep_bond(&mut self, now: Instant, bond: Bond, posture: Posture) {
        let Self { pairs, entropy, .. } = self;
        let new = || Keep::new(posture, Life::begin(entropy));
        pairs.entry(bond).or_insert_with(new).posture = posture;
        self.reconsider(now, bond);
    }

    /// Begins anew with `pair`: silently drops all sessions, as another agent that takes over does. The peer
    /// learns of it from the next one.
    pub fn begin_anew(&mut self, now: Instant, pair: Pair) {
        self.now = Some(now);
        let Some(keep) = self.pairs.get_mut(&pair.into()) else { return };
        keep.life = Life::begin(&mut self.entropy);
        std::mem::take(&mut keep.sessions).into_iter().for_each(|key| self.table.remove(key));
        self.reconsider(now, pair);
    }

    /// Whether the inbound SA of a foreign peer may be in the kernel before that peer has proven itself
    /// ([`Event::InboundAhead`]). Whoever answers in the peer's place has its key too, so this is only for pairs that
    /// accept clear packets anyway. Once it is no longer allowed, such SAs go.
    pub fn allow_ahead(&mut self, pair: Pair, allowed: bool) {
        if allowed {
            self.ahead.insert(pair);
        } else if self.ahead.remove(&pair)
            && let Some(now) = self.now
        {
            for key in self.sessions_of(pair) {
                self.work_on(now, key, |mut session, cx| {
                    session.withdraw_ahead(cx);
                    Some(session)
                });
            }
        }
    }

    /// Ends all sessions of `pair`, telling the peer, and ignores its datagrams from now on, except those
    /// that end the sessions. What [`Engine::tell`] was given before goes with it.
    pub fn forget(&mut self, now: Instant, pair: Pair) {
        self.forget_bond(now, pair.into());
    }

    fn forget_bond(&mut self, now: Instant, bond: Bond) {
        self.now = Some(now);
        let Some(keep) = self.pairs.remove(&bond) else { return };
        self.table.move_timer(bond, keep.next_try.map(|(at, _)| at), None);
        for key in keep.sessions {
            self.work_on(now, key, |session, _| match session {
                Session::Established(mut state) => {
                    state.close(TRIES_FAREWELL);
                    Some(Session::Established(state))
                }
                _ => None,
            });
        }
    }

    /// Silently drops all sessions of `pair`: its address is at another host now, which speaks for it.
    pub fn abandon(&mut self, now: Instant, pair: Pair) {
        self.now = Some(now);
        self.sessions_of(pair).into_iter().for_each(|key| self.drop_session(now, key));
        if let Some(keep) = self.pairs.remove(&pair.into()) {
            self.table.move_timer(pair, keep.next_try.map(|(at, _)| at), None);
        }
    }

    /// The address of `pair` has come to this host: keeps the pair keyed, begins at once, and tells the peer that
    /// what it knows of that address is void (INITIAL_CONTACT, RFC 7296 section 2.4). `missed` as in [`Engine::hurry`].
    pub fn arrive(&mut self, now: Instant, pair: Pair, missed: bool) {
        self.keep(now, pair, Posture::Active);
        if let Some(keep) = self.pairs.get_mut(&pair.into()) {
            keep.arrived = true;
        }
        self.hurry(now, pair, missed);
    }

    /// The kernel's answer to [`Event::ChildAgreed`]: the SAs are installed, or they could not be. As
    /// responder the peer gets its answer only after this.
    pub fn child_installed(&mut self, now: Instant, pair: Pair, in_spi: Spi, ok: bool) {
        if let Some(keep) = self.pairs.get_mut(&pair.into()).filter(|_| ok) {
            keep.child_established();
        }
        self.with_child(now, pair, in_spi, |session, cx| session.child_installed(cx, in_spi, ok));
    }

    /// Tells the peer of `pair`, which must be hostseal: of a child, or of this host by each session that there is
    /// (instead of [`Settings::about`], which those to come begin with). It takes the place of what was to be told of
    /// `topic` before. The peer has [`Event::Told`].
    pub fn tell(&mut self, now: Instant, pair: Pair, topic: Topic, octets: Octets) {
        let tell = |session: &mut Established| session.tell(now, topic, octets.clone());
        match topic {
            Topic::Session | Topic::Question | Topic::Answer => self.with_each(now, pair, tell),
            Topic::Control => self.with_each(now, Bond { pair, purpose: Purpose::Control }, tell),
            Topic::Join => self.with_each(now, Bond { pair, purpose: Purpose::Join }, tell),
            Topic::Child(in_spi) => self.with_child(now, pair, in_spi, |session, _| tell(session)),
        }
    }

    /// What there is to tell of a child waits until then, at most, for what takes its place: nothing is asked for it,
    /// and what the peer tells of the child is not answered. `None`: it does not wait.
    pub fn hold(&mut self, now: Instant, pair: Pair, in_spi: Spi, until: Option<Instant>) {
        self.with_child(now, pair, in_spi, |session, _| session.hold_telling(in_spi, until));
    }

    /// Makes a successor of a child now.
    pub fn rekey_child(&mut self, now: Instant, pair: Pair, in_spi: Spi) {
        self.with_child(now, pair, in_spi, |session, _| session.add_task(Task::RekeyChild(in_spi)));
    }

    /// Deletes a child; [`Event::ChildClosed`] follows.
    pub fn delete_child(&mut self, now: Instant, pair: Pair, in_spi: Spi) {
        self.with_child(now, pair, in_spi, |session, _| session.delete_child(in_spi));
    }

    /// Makes a successor of the IKE SAs of `pair` now, whatever their age.
    #[cfg(any(test, fuzzing))]
    pub fn rekey_ike(&mut self, now: Instant, pair: Pair) {
        for key in self.sessions_of(pair) {
            self.with_established(now, key, |session, cx| session.succeed_ike(cx));
        }
    }

    /// Asks the peer whether it is there. A session that gets no answer is gone.
    pub fn check_liveness(&mut self, now: Instant, pair: Pair) {
        self.with_each(now, pair, |session| session.add_task(Task::Liveness));
    }

    /// What came through the inbound SA of a child was authentic and came from another UDP port of the peer's NAT.
    pub fn peer_moved(&mut self, now: Instant, pair: Pair, in_spi: Spi, port: u16) {
        self.with_child(now, pair, in_spi, |session, _| {
            let remote = session.path().remote;
            session.follow_to(SocketAddr::new(remote.ip(), port));
        });
    }

    /// Our address of `pair` was away and is there again: what waits for an answer is sent again at once, and
    /// what failed meanwhile is tried again without a pause. The peer may have given up what we still hold.
    pub fn path_is_back(&mut self, now: Instant, pair: Pair) {
        self.now = Some(now);
        for purpose in [Purpose::Data, Purpose::Control, Purpose::Join] {
            let bond = Bond { pair, purpose };
            for key in self.sessions_of(bond) {
                self.work_on(now, key, |mut session, _| {
                    session.path_is_back(now);
                    Some(session)
                });
            }
            self.hurry_bond(now, bond, false);
        }
    }

    /// Tries to key `pair` without a pause: neither for failures before, nor for the peer, which might begin. A pair
    /// that is `missed` goes before others.
    pub fn hurry(&mut self, now: Instant, pair: Pair, missed: bool) {
        self.hurry_bond(now, pair.into(), missed);
    }

    fn hurry_bond(&mut self, now: Instant, bond: Bond, missed: bool) {
        let Some(keep) = self.pairs.get_mut(&bond) else { return };
        if missed {
            keep.standing = Standing::Known;
        }
        let before = keep.next_try.map(|(at, _)| at);
        keep.hurry(now, self.settings.jitter, &mut self.entropy);
        let after = keep.next_try.map(|(at, _)| at);
        self.table.move_timer(bond, before, after);
    }

    /// Traffic flows both ways on this child: the session that has it stays, the other sessions of the
    /// pair are retired.
    pub fn settled(&mut self, now: Instant, pair: Pair, in_spi: Spi) {
        self.now = Some(now);
        let Some(winner) = self.session_of(pair, in_spi) else { return };
        let Some(state) = self.established(winner) else { return };
        let (greeted, begun, foreign) = (state.greeted().initial_contact, state.begun(), state.is_foreign());
        for key in self.sessions_of(pair) {
            let Some(other) = self.established(key).filter(|it| key != winner && !it.is_closing()) else {
                continue;
            };
            // RFC 7296 section 2.4: the peer knows nothing of what was before its INITIAL_CONTACT.
            let stale = greeted && other.since() < begun;
            // Only one end decides, or both would delete the session that the other prefers.
            let decides = foreign || self.settings.inside.initiates(pair);
            self.work_on(now, key, |session, cx| match session {
                Session::Established(mut state) if stale => {
                    state.end_children(cx, false);
                    None
                }
                Session::Established(mut state) => {
                    if decides {
                        state.doom_children(cx);
                        state.close(TRIES_ESTABLISHED);
                    } else {
                        state.add_task(Task::Liveness);
                    }
                    Some(Session::Established(state))
                }
                other => Some(other),
            });
        }
    }

    /// ESP by itself does not get through between the hosts of `pair`. If the settings allow it and the peer takes
    /// it, ESP is tried in UDP, beside the SAs that serve. Says whether it is.
    pub fn encapsulate(&mut self, now: Instant, pair: Pair) -> bool {
        let Some(keep) = self.pairs.get_mut(&pair.into()) else { return false };
        keep.esp_blocked = true;
        self.reconsider(now, pair);
        self.settings.encapsulation == EncapsulationMode::Auto
    }

    // ------------------------------------------------------------------ input

    /// The next datagram had `waited` to be read. If it belongs to a known IKE SA, that says how late this host is;
    /// anybody can send others.
    pub fn note_waited(&mut self, waited: Duration) {
        self.waited = waited;
    }

    /// Takes in a UDP payload that came from `remote` to `local`.
    pub fn handle_datagram(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        self.now = Some(now);
        let waited = std::mem::take(&mut self.waited);
        let bytes = match Content::of(bytes, local.port() == self.settings.nat_port) {
            Content::Ike(bytes) => bytes,
            Content::Keepalive => return,
            Content::Stray => {
                self.out.counters.malformed += 1;
                return;
            }
        };
        let parsed = (bytes.len() <= DATAGRAM_MAX).then(|| Message::parse(bytes));
        let Some(Ok(message)) = parsed else {
            self.out.counters.malformed += 1;
            return;
        };
        let header = &message.header;
        if header.exchange.is_first() && !header.flags.response {
            self.handle_first_request(now, (local, remote), waited, &message, bytes);
            return;
        }
        let ours = if header.flags.from_initiator { header.responder_spi } else { header.initiator_spi };
        let Some(key) = self.table.by_spi(ours) else {
            self.out.counters.unknown_spi += 1;
            return;
        };
        let path = self.table.get(key).map(Session::path);
        if path.is_none_or(|path| (path.local.ip(), path.remote.ip()) != (local.ip(), remote.ip())) {
            self.out.counters.unexpected += 1;
            return;
        }
        self.late.note(now, waited);
        self.work_on(now, key, |session, cx| {
            cx.came = Some((local, remote));
            session.handle_message(cx, &message, bytes)
        });
        self.use_room(now);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
        while let Some((at, due)) = self.table.first_due()
            && at <= now
        {
            match due {
                Due::Session(key) => self.work_on(now, key, |session, cx| session.handle_timeout(cx)),
                Due::Pair(bond) => self.try_now(now, bond),
            }
        }
        self.use_room(now);
    }

    // ------------------------------------------------------------------ output

    /// The next datagram to send; `None` ends the step, and what it has drawn of entropy is forgotten.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        loop {
            if let Some(Transmit { local, remote, bytes }) = self.out.transmits.pop_front() {
                let bytes = wrap(bytes, local.port() == self.settings.nat_port);
                return Some(Transmit { local, remote, bytes });
            }
            let Some((now, key)) = self.now.zip(self.table.next_to_flush()) else {
                self.entropy.end();
                return None;
            };
            self.flush(now, key);
        }
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.out.events.pop_front()
    }

    /// When to call [`Engine::handle_timeout`], and why. An engine with nothing in progress has only the
    /// times of rekeys.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if let Some(now) = self.now.filter(|now| self.has_room_to_use(*now)) {
            return Some((now, "initiation that has waited for room"));
        }
        let (at, due) = self.table.first_due()?;
        let reason = match due {
            Due::Session(key) => self.table.get(key).and_then(Session::deadline).map(|(_, reason)| reason),
            Due::Pair(bond) => {
                self.pairs.get(&bond).and_then(|keep| keep.next_try).map(|(_, lack)| match lack {
                    Lack::Ike => "initiation of an IKE SA",
                    Lack::Child => "initiation of a child",
                    Lack::Proof => "initiation with the current proofs",
                    Lack::Encapsulation => "initiation with ESP in UDP, or without",
                })
            }
        };
        Some((at, reason.unwrap_or("nothing")))
    }

    /// Makes up for what a pair lacks.
    fn try_now(&mut self, now: Instant, bond: Bond) {
        let Some(keep) = self.pairs.get_mut(&bond) else { return };
        let Some((at, lack)) = keep.next_try else { return };
        if lack == Lack::Child {
            keep.next_try = None;
            self.table.move_timer(bond, Some(at), None);
            let is_in_use = |key: &SessionKey| self.established(*key).is_some_and(|it| !it.is_closing());
            if let Some(newest) = self.sessions_of(bond).into_iter().rev().find(is_in_use) {
                self.with_established(now, newest, |session, _| session.add_task(Task::NewChild));
            }
            return;
        }
        let later = keep.wait_for_turn(now, &mut self.knocks);
        keep.next_try = Some((later.unwrap_or(at), lack));
        self.table.move_timer(bond, Some(at), later);
        if later.is_none() && !std::mem::replace(&mut keep.waits, true) {
            self.knocks.wait(bond, keep.standing);
        }
    }

    /// Begins the attempts that are due, as far as there is room.
    fn use_room(&mut self, now: Instant) {
        for _ in 0..BEGUN_AT_ONCE {
            let Some(bond) = self.has_room_to_use(now).then(|| self.knocks.next()).flatten() else { return };
            let Some(keep) = self.pairs.get_mut(&bond) else { continue };
            keep.waits = false;
            // What it lacked may have come about, or be about to.
            if let Some((at, lack)) = keep.next_try
                && at <= now
                && lack != Lack::Child
            {
                self.table.move_timer(bond, Some(at), None);
                let sparse = keep.begin() || self.table.unanswered() >= INITIATING_MAX;
                let attempt = Attempt { sparse, ..keep.attempt(&self.settings, bond.purpose) };
                self.initiate(now, bond, attempt);
            }
        }
    }

    fn has_room_to_use(&self, now: Instant) -> bool {
        !self.knocks.is_empty() && self.table.taken_room() < self.late.room(now)
    }

    fn initiate(&mut self, now: Instant, bond: Bond, attempt: Attempt) {
        self.stop_listening(now, bond);
        let Bond { pair, purpose } = bond;
        let socket = |address| SocketAddr::new(address, self.settings.port);
        let nat = Nat::default();
        let path = Path { pair, purpose, local: socket(pair.local), remote: socket(pair.remote), nat };
        let mut cx = cx!(self, now);
        let started = match (cx.settings.method, purpose) {
            (Method::Derived, Purpose::Data) => AwaitResumeResponse::start(&mut cx, path, attempt),
            _ => AwaitInitResponse::start(&mut cx, path, attempt),
        };
        match started {
            Ok(first) => {
                let session = Session::Initiation(Box::new(Initiation::new(first)));
                let key = self.table.insert(session, None);
                self.add_session(bond, key);
            }
            Err(error) => cx.fail(pair, FailureScope::Ike, error),
        }
        self.note_failures(purpose);
        self.reconsider(now, bond);
    }

    /// Plans what a pair lacks.
    pub(super) fn reconsider(&mut self, now: Instant, bond: impl Into<Bond>) {
        let bond = bond.into();
        self.review_control(now, bond);
        let wall = self.wall(now);
        let Some(keep) = self.pairs.get_mut(&bond) else { return };
        let sessions = || keep.sessions.iter().filter_map(|key| self.table.get(*key));
        let established = || sessions().filter_map(Session::established).filter(|it| !it.is_closing());
        let is_on_its_way = |it: &Session| it.is_initiating() || it.introduced().is_some();
        let lack = if established().any(Established::serves) {
            let is_current = |it: &Established| it.is_current(&self.settings, wall);
            let fits = |it: &Established| it.is_encapsulated_as_wanted(&self.settings, keep.esp_blocked);
            let serves = |it: &&Established| it.serves() && is_current(it) && !it.is_aged();
            let mut serving = established().filter(serves).peekable();
            let lack = match serving.peek() {
                None => Some(Lack::Proof),
                Some(_) => (!serving.any(fits)).then_some(Lack::Encapsulation),
            };
            lack.filter(|_| !sessions().any(is_on_its_way))
        } else if established().next().is_some() {
            Some(Lack::Child)
        } else if sessions().any(is_on_its_way) {
            None
        } else {
            Some(Lack::Ike)
        };
        let lack = lack.filter(|_| self.settings.seeks(bond));
        // A session that the peer has begun gets its time, and no more: its address may be forged.
        let begun = sessions().filter_map(Session::half_open_since).min();
        let busy_until = begun.map(|begun| begun + SECOND_INITIATOR_WAIT);
        let before = keep.next_try.map(|(at, _)| at);
        let first = bond.purpose == Purpose::Join || self.settings.inside.initiates(bond.pair);
        keep.plan(now, first, lack, busy_until, self.settings.jitter, &mut self.entropy);
        let after = keep.next_try.map(|(at, _)| at);
        if before != after {
            self.table.move_timer(bond, before, after);
        }
    }
}
