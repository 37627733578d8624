//! A host that joins a cluster with a token: whom it asks, what it believes, and what comes of it.
//!
//! ```text
//! seeds of the token ── IKE SAs with the key of the token ── the first one that answers
//!   ask (again and again) ──>   <── the roster, page by page
//!   is it of the token's cluster? is who answers a member there? is the token in it?
//!   join ──>   <── admitted
//!   is this node a member there? then the roster is its own
//! ```
//! Nobody is believed before that: whoever answers in a member's place learns which token is used, and is found out. The
//! keys and the entry of the node are the same each time that it tries, so it can be cut off anywhere and begin again.
//!
//! The verbs are those of all state machines (`ike`): after each input drain [`Joiner::poll_step`] and
//! [`Joiner::poll_transmit`], then look at [`Joiner::poll_outcome`] and [`Joiner::poll_timeout`].

mod error;
mod seeds;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::error::{JoinError, JoinErrorKind, SeedTrouble};
use self::seeds::{Contact, ContactState};
use crate::identity::{PrivateKey, PublicKey};
use crate::ike::reason::{Reason, Refusal};
use crate::ike::{ControlEvent, Engine, Entropy, Event, Failure, Purpose, SessionKey, Topic, Transmit};
use crate::observe::explain;
use crate::roster::{
    ClusterId, EntryId, HeardRoster, JOIN_VERSION, Join, JoinPage, JoinRefusal, Keys, NotARoster,
    RefusalCode, Roster, Saying, SignedEntry, Signer, Site, Statement, Token, Version,
};
use crate::types::{NodeName, Pair, UnixTime};

/// How long a seed is left in peace that answered while another one was talked to, or was silent in the midst of it.
const SEED_AGAIN: Duration = Duration::from_secs(3);
/// How long is waited for others when somebody has refused: it may not have heard of the token yet, or be nobody.
const OTHERS: Duration = Duration::from_secs(5);
/// How long a member may be silent: as long as an IKE SA.
const SILENCE: Duration = Duration::from_secs(16);
/// When something is said again that was not answered: a member hears only so much at a time.
const AGAIN: Duration = Duration::from_secs(2);
/// How long whoever is talked to may take in all: a roster has so many pages at most.
const TALK_MAX: Duration = Duration::from_secs(300);
/// How often the roster is heard again, where it changed meanwhile.
const ROUNDS_MAX: u32 = 3;

/// What a host joins with.
pub struct JoinOrder {
    /// What it was given.
    pub token: Token,
    /// What it says that it is.
    pub site: Site,
    /// From which of its addresses it reaches a seed. Seeds that are not in it are not tried.
    pub sources: BTreeMap<IpAddr, IpAddr>,
    /// The addresses of its peers where it runs by a file: the cluster has to know all of them, or it would drop them.
    pub peers: BTreeSet<IpAddr>,
    /// How long it tries to find a member that talks to it.
    pub patience: Duration,
}

/// A host that has joined.
#[derive(Debug)]
pub struct JoinedRoster {
    /// What it has heard, in which it is a member: to be kept.
    pub roster: Roster,
    /// Its own first entry there.
    pub own: EntryId,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JoinStep {
    /// A seed is asked.
    Asks(SocketAddr),
    /// It has answered, and has a key that is to be a member's.
    Answered(SocketAddr),
    /// So many entries of the roster have come.
    Heard(usize),
    /// The roster is good, and the member there is asked to admit this node.
    Joins(SocketAddr),
}

impl fmt::Display for JoinStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JoinStep::Asks(seed) => write!(f, "asking {seed}"),
            JoinStep::Answered(seed) => write!(f, "{seed} answers"),
            JoinStep::Heard(entries) => write!(f, "{entries} entries of the roster have come"),
            JoinStep::Joins(seed) => write!(f, "asking {seed} to admit this node"),
        }
    }
}

/// A host that joins.
pub struct Joiner {
    engine: Engine,
    cluster: (String, ClusterId),
    /// The key of the token.
    invite: Signer,
    keys: Keys,
    /// What this node has signed.
    join: SignedEntry,
    peers: BTreeSet<IpAddr>,
    seeds: Vec<Contact>,
    talk: Option<Conversation>,
    known: Known,
    /// Since when it is that one of which something is known.
    known_since: Instant,
    rounds: u32,
    /// How many pages were told.
    number: u32,
    give_up_at: Instant,
    /// When somebody refused first.
    refused_at: Option<Instant>,
    /// How long ago the token was over by the clock of this host.
    expired: Option<Duration>,
    steps: VecDeque<JoinStep>,
    over: bool,
    outcome: Option<Result<JoinedRoster, JoinError>>,
}

/// What is said with the one that answered first.
struct Conversation {
    seed: usize,
    /// When it said something that was new.
    heard_at: Instant,
    said_at: Instant,
}

/// What is known of the cluster, from whoever has this key.
enum Known {
    Nothing,
    /// A part of its roster.
    Part(PublicKey, Box<HeardRoster>),
    /// It is a member there.
    Roster(PublicKey, Box<Roster>),
}

impl Joiner {
    /// Begins. `[signing, ike]` are the keys of this node, which stay when it has to begin again.
    ///
    /// # Errors
    /// There is no way to any seed, or the keys are none for a node.
    pub fn new(
        now: Instant,
        wall: UnixTime,
        order: JoinOrder,
        [signing, ike]: [&PrivateKey; 2],
        entropy: Box<dyn Entropy + Send>,
    ) -> Result<Self, JoinError> {
        let JoinOrder { token, site, sources, peers, patience } = order;
        let expired = (token.expires < wall).then(|| wall.since(token.expires));
        let failed = |kind| JoinError::new(&token.cluster, kind, expired);
        let unusable = |words: &dyn ToString| failed(JoinErrorKind::Here(words.to_string()));
        let key = token.key().map_err(|why| unusable(&why))?;
        let signer = |key| Signer::of(key).ok_or_else(|| unusable(&"the keys of this node are none for it"));
        let (invite, keys) = (signer(&key)?, Keys { signing: signer(signing)?, ike: signer(ike)? });
        let says = Saying::Join(Join { site, keys: keys.clone() });
        let statement =
            Statement { by: invite, version: Version::default(), after: Vec::new(), basis: None, says };
        let join = SignedEntry::sign(token.id, statement, &[&key, signing, ike]);
        let join = join.map_err(|why| unusable(&why))?;
        let port = token.seeds.first().map_or(0, SocketAddr::port);
        let seeds = seeds::contacts(now, &token.seeds, port, &sources);
        if seeds.is_empty() {
            return Err(JoinError::no_way(&token));
        }
        Ok(Self {
            engine: Engine::new(seeds::settings(&token.cluster, key, port), entropy),
            cluster: (token.cluster.clone(), token.id),
            invite,
            keys,
            join,
            peers,
            seeds,
            talk: None,
            known: Known::Nothing,
            known_since: now,
            rounds: 0,
            number: 0,
            give_up_at: now + patience,
            refused_at: None,
            expired,
            steps: VecDeque::new(),
            over: false,
            outcome: None,
        })
    }

    /// The port of IKE, on both ends.
    pub fn port(&self) -> u16 {
        self.seeds.first().map_or(0, |seed| seed.at.port())
    }

    /// The addresses that it sends from.
    pub fn sources(&self) -> BTreeSet<IpAddr> {
        self.seeds.iter().map(|seed| seed.pair.local).collect()
    }

    /// A datagram has come.
    pub fn handle_datagram(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, bytes: &[u8]) {
        self.engine.handle_datagram(now, local, remote, bytes);
        self.settle(now);
    }

    /// Time has passed. To be called at first, too.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.engine.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.engine.handle_timeout(now);
        }
        self.settle(now);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.engine.poll_transmit()
    }

    /// How far it is, for whoever looks on.
    pub fn poll_step(&mut self) -> Option<JoinStep> {
        self.steps.pop_front()
    }

    /// What has come of it. There is nothing more to do then than to send what [`Joiner::poll_transmit`] still has: it
    /// says goodbye.
    pub fn poll_outcome(&mut self) -> Option<Result<JoinedRoster, JoinError>> {
        self.outcome.take()
    }

    /// When [`Joiner::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let engine = self.engine.poll_timeout().map(|(at, _)| at);
        let own = match (&self.talk, self.over) {
            (_, true) => None,
            (Some(talk), _) => Some((talk.heard_at + SILENCE).min(talk.said_at + AGAIN)),
            (None, _) => {
                let idle = self.seeds.iter().filter_map(|seed| match seed.standing {
                    ContactState::Idle(at) => Some(at),
                    ContactState::Asked | ContactState::Out => None,
                });
                idle.chain([self.gives_up_at()]).min()
            }
        };
        engine.into_iter().chain(own).min()
    }

    /// Hears what the engine has to say, and does what is due.
    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.engine.poll_event() {
            match event {
                Event::Control { pair, purpose: Purpose::Join, event } => {
                    self.handle_control(now, pair, event);
                }
                Event::Told { pair, topic: Topic::Join, octets } => self.handle_told(now, pair, &octets),
                // Nobody is asked for anything else.
                _ => {}
            }
        }
        if !self.over {
            self.pursue(now);
        }
    }

    fn handle_control(&mut self, now: Instant, pair: Pair, event: ControlEvent) {
        let Some(at) = self.seeds.iter().position(|seed| seed.pair == pair) else { return };
        match event {
            ControlEvent::Introduced { session, key, mark } => {
                self.meet(now, at, session, (key, &mark));
            }
            ControlEvent::Ended => {
                if self.talk.take_if(|talk| talk.seed == at).is_some() {
                    self.seeds[at].trouble.get_or_insert(SeedTrouble::StoppedAnswering);
                }
            }
            ControlEvent::Failed { failure, .. } => self.note_failure(now, at, failure),
            ControlEvent::Heard => {}
        }
    }

    /// A seed has proven that it has `key`.
    fn meet(&mut self, now: Instant, at: usize, session: SessionKey, (key, mark): (PublicKey, &[u8])) {
        let is_busy = self.talk.as_ref().is_some_and(|talk| talk.seed != at);
        if self.over || is_busy || self.seeds[at].standing == ContactState::Out {
            self.engine.refuse(now, session);
            self.leave(now, at, ContactState::Idle(now + SEED_AGAIN));
            return;
        }
        if mark.first() != Some(&JOIN_VERSION) {
            self.engine.refuse(now, session);
            return self.rule_out(now, at, SeedTrouble::Version(mark.first().copied()));
        }
        self.engine.admit(now, session);
        self.steps.push_back(JoinStep::Answered(self.seeds[at].at));
        let is_known = match &self.known {
            Known::Nothing => false,
            Known::Part(of, _) | Known::Roster(of, _) => *of == key,
        };
        if !is_known {
            self.known = Known::Part(key, Box::new(HeardRoster::new(self.cluster.1)));
            self.known_since = now;
        }
        self.talk = Some(Conversation { seed: at, heard_at: now, said_at: now });
        self.say(now);
    }

    fn note_failure(&mut self, now: Instant, at: usize, failure: Failure) {
        let trouble = match failure.reason {
            Reason::Unanswered(_) => SeedTrouble::Silent,
            Reason::Refused(Refusal::Authentication) if self.seeds[at].standing == ContactState::Asked => {
                self.refused_at.get_or_insert(now);
                SeedTrouble::TokenNotTaken
            }
            reason => SeedTrouble::Failed(explain::words(&reason)),
        };
        // What it has said itself says more than that it is silent now.
        let said = |trouble: &SeedTrouble| !matches!(trouble, SeedTrouble::Silent);
        if let Some(seed) = self.seeds.get_mut(at).filter(|seed| seed.standing == ContactState::Asked)
            && (said(&trouble) || !seed.trouble.as_ref().is_some_and(said))
        {
            seed.trouble = Some(trouble);
        }
    }

    fn handle_told(&mut self, now: Instant, pair: Pair, octets: &[u8]) {
        let Some(talk) = self.talk.as_mut().filter(|talk| self.seeds[talk.seed].pair == pair) else { return };
        let at = talk.seed;
        match JoinPage::read(octets) {
            Ok(JoinPage::Entries { entries, more }) => self.hear(now, at, entries, more),
            Ok(JoinPage::Admitted(entries)) => {
                talk.heard_at = now;
                self.conclude(now, at, &entries);
            }
            Ok(JoinPage::Refused(refusal)) => self.handle_refusal(now, at, refusal),
            // Whatever it is, it says nothing that was asked for.
            Ok(JoinPage::Ask { .. } | JoinPage::Join(_)) | Err(_) => {}
        }
    }

    /// More of the roster has come.
    fn hear(&mut self, now: Instant, at: usize, entries: Vec<Vec<u8>>, more: bool) {
        let Known::Part(_, heard) = &mut self.known else { return };
        match heard.add(entries) {
            Err(NotARoster::OtherCluster) => return self.rule_out(now, at, SeedTrouble::OtherCluster),
            Err(NotARoster::Unreadable) => return self.rule_out(now, at, SeedTrouble::LaterEntries),
            Err(NotARoster::TooLong) => return self.rule_out(now, at, SeedTrouble::Nonsense),
            // It came twice.
            Ok(false) if more => return,
            Ok(_) => {}
        }
        self.steps.push_back(JoinStep::Heard(heard.count()));
        self.talk.iter_mut().for_each(|talk| talk.heard_at = now);
        if more {
            return self.say(now);
        }
        let Known::Part(key, heard) = std::mem::replace(&mut self.known, Known::Nothing) else { return };
        match heard.into_roster() {
            Some(roster) => self.judge(now, at, key, Box::new(roster)),
            None => self.rule_out(now, at, SeedTrouble::Nonsense),
        }
    }

    /// A whole roster has come from whoever has `key`.
    fn judge(&mut self, now: Instant, at: usize, key: PublicKey, roster: Box<Roster>) {
        let is_member = roster.view().members.iter().any(|member| {
            let ike = member.keys.as_ref().and_then(|keys| keys.ike.public_key().ok());
            ike.as_ref() == Some(&key)
        });
        if !is_member {
            return self.rule_out(now, at, SeedTrouble::NoMember);
        }
        // What was taken back since then must not count here: only a roster that has the token is new enough.
        if !roster.has_invite(&self.invite) {
            return self.rule_out(now, at, SeedTrouble::OldRoster);
        }
        if let Some(own) = self.standing(&roster) {
            return self.end(now, own.map(|own| JoinedRoster { roster: *roster, own }));
        }
        let unknown = self.unknown_peers(&roster);
        if !unknown.is_empty() {
            return self.end(now, Err(JoinErrorKind::PeersUnknown(unknown)));
        }
        self.known = Known::Roster(key, roster);
        self.steps.push_back(JoinStep::Joins(self.seeds[at].at));
        self.say(now);
    }

    /// Peers of this host that are none in the roster.
    fn unknown_peers(&self, roster: &Roster) -> BTreeSet<IpAddr> {
        let view = roster.view();
        let of_nodes = view.members.iter().flat_map(|member| &member.site.addresses);
        let floating = view.floating.iter().flat_map(|floating| &floating.says.addresses);
        let known: BTreeSet<IpAddr> = of_nodes.chain(floating).copied().collect();
        self.peers.difference(&known).copied().collect()
    }

    /// What the roster says of this node: its first entry, or why it is none; `None` where it does not know it.
    fn standing(&self, roster: &Roster) -> Option<Result<EntryId, JoinErrorKind>> {
        let view = roster.view();
        let keys = |keys: &Keys| keys.signing == self.keys.signing;
        let own = view.members.iter().find(|member| member.keys.as_ref().is_some_and(keys));
        if let Some(member) = own {
            let same = member.keys.as_ref() == Some(&self.keys);
            return Some(if same { Ok(member.line) } else { Err(JoinErrorKind::OtherKeys) });
        }
        let line = roster.line_of(&self.keys.signing).unwrap_or(self.join.id());
        if let Some(out) = view.held_out.iter().find(|out| out.line == line) {
            return Some(Err(JoinErrorKind::HeldOut(out.why.clone())));
        }
        let removed = view.removed.iter().any(|removed| removed.line == line);
        removed.then_some(Err(JoinErrorKind::Removed))
    }

    /// A member says that this node is admitted by `entries`.
    fn conclude(&mut self, now: Instant, at: usize, entries: &[Vec<u8>]) {
        let (key, mut roster) = match std::mem::replace(&mut self.known, Known::Nothing) {
            Known::Roster(key, roster) => (key, roster),
            // It was admitted before, and is heard now.
            part => {
                self.known = part;
                return self.say(now);
            }
        };
        roster.merge([self.join.octets()].into_iter().chain(entries.iter().map(Vec::as_slice)));
        if let Some(own) = self.standing(&roster) {
            return self.end(now, own.map(|own| JoinedRoster { roster: *roster, own }));
        }
        // What this rests on may have come since it was heard.
        self.rounds += 1;
        if self.rounds > ROUNDS_MAX {
            return self.rule_out(now, at, SeedTrouble::Nonsense);
        }
        self.known = Known::Part(key, Box::new(HeardRoster::new(self.cluster.1)));
        self.say(now);
    }

    /// Whoever is talked to lets this node in no further.
    fn handle_refusal(&mut self, now: Instant, at: usize, refusal: JoinRefusal) {
        if let (Known::Roster(_, roster), RefusalCode::NameTaken) = (&self.known, refusal.code)
            && let Saying::Join(Join { site, .. }) = &self.join.statement().says
        {
            let (name, free) = (site.name.clone(), free_name(roster, &site.name));
            return self.end(now, Err(JoinErrorKind::NameTaken { name, free }));
        }
        if refusal.code == RefusalCode::NotReady {
            self.seeds[at].trouble = Some(SeedTrouble::Refused(refusal));
            return self.leave(now, at, ContactState::Idle(now + SEED_AGAIN));
        }
        let is_of_member = matches!(self.known, Known::Roster(..));
        let is_its_own = matches!(
            refusal.code,
            RefusalCode::NoMember | RefusalCode::TooMuch | RefusalCode::Version | RefusalCode::Other
        );
        if is_of_member && !is_its_own {
            return self.end(now, Err(JoinErrorKind::Refused(self.seeds[at].at, refusal)));
        }
        self.rule_out(now, at, SeedTrouble::Refused(refusal));
    }

    /// Says what is to be said now to whoever is talked to.
    fn say(&mut self, now: Instant) {
        let Some(talk) = &mut self.talk else { return };
        talk.said_at = now;
        let page = match &self.known {
            Known::Roster(..) => JoinPage::Join(self.join.octets().to_vec()),
            Known::Part(_, heard) => JoinPage::Ask { join: self.join.id(), after: heard.last() },
            Known::Nothing => JoinPage::Ask { join: self.join.id(), after: None },
        };
        self.number = self.number.wrapping_add(1);
        let octets = page.octets(self.number);
        let pair = self.seeds[talk.seed].pair;
        self.engine.tell(now, pair, Topic::Join, Arc::new(move |_| octets.clone()));
    }

    /// Does what is due: asks the next seed, says something again, gives up.
    fn pursue(&mut self, now: Instant) {
        if let Some(talk) = &self.talk {
            let (at, since) = (talk.seed, talk.heard_at);
            if now >= self.known_since + TALK_MAX {
                self.rule_out(now, at, SeedTrouble::StoppedAnswering);
            } else if now >= since + SILENCE {
                self.seeds[at].trouble = Some(SeedTrouble::StoppedAnswering);
                self.leave(now, at, ContactState::Idle(now + SEED_AGAIN));
            } else if now >= talk.said_at + AGAIN {
                self.say(now);
            }
        }
        // Whoever answers with ever new keys does not go on for ever.
        if self.talk.is_none() || now >= self.give_up_at + TALK_MAX {
            if now >= self.gives_up_at() {
                return self.end(now, Err(JoinErrorKind::NoMember(self.troubles())));
            }
            for seed in &mut self.seeds {
                if matches!(seed.standing, ContactState::Idle(at) if at <= now) {
                    seed.standing = ContactState::Asked;
                    self.engine.join(now, seed.pair);
                    self.steps.push_back(JoinStep::Asks(seed.at));
                }
            }
        }
    }

    /// When it gives up, where it talks to nobody.
    fn gives_up_at(&self) -> Instant {
        let refused = self.refused_at.map(|at| at + OTHERS);
        let all_out = self.seeds.iter().all(|seed| seed.standing == ContactState::Out);
        let at_once = self.refused_at.filter(|_| all_out);
        at_once.or(refused).map_or(self.give_up_at, |at| at.min(self.give_up_at))
    }

    fn troubles(&self) -> Vec<(SocketAddr, SeedTrouble)> {
        let trouble = |seed: &Contact| seed.trouble.clone().unwrap_or(SeedTrouble::Silent);
        self.seeds.iter().map(|seed| (seed.at, trouble(seed))).collect()
    }

    /// A seed is of no use.
    fn rule_out(&mut self, now: Instant, at: usize, trouble: SeedTrouble) {
        self.seeds[at].trouble = Some(trouble);
        self.refused_at.get_or_insert(now);
        self.known = Known::Nothing;
        self.leave(now, at, ContactState::Out);
        for seed in &mut self.seeds {
            if let ContactState::Idle(begin_at) = &mut seed.standing {
                *begin_at = (*begin_at).min(now);
            }
        }
    }

    fn leave(&mut self, now: Instant, at: usize, standing: ContactState) {
        self.talk.take_if(|talk| talk.seed == at);
        if self.seeds[at].standing != ContactState::Out {
            self.seeds[at].standing = standing;
        }
        self.engine.end_join(now, self.seeds[at].pair);
    }

    fn end(&mut self, now: Instant, outcome: Result<JoinedRoster, JoinErrorKind>) {
        self.over = true;
        self.talk = None;
        for seed in &self.seeds {
            self.engine.end_join(now, seed.pair);
        }
        let outcome = outcome.map_err(|kind| JoinError::new(&self.cluster.0, kind, self.expired));
        self.outcome = Some(outcome);
    }
}

/// A name like this one that no node has.
fn free_name(roster: &Roster, name: &NodeName) -> Option<NodeName> {
    let view = roster.view();
    let taken: BTreeSet<&NodeName> = view.members.iter().map(|member| &member.site.name).collect();
    let others = (2..1000).filter_map(|number| format!("{name}-{number}").parse().ok());
    others.into_iter().find(|other| !taken.contains(other))
}
