//! A member of a cluster: what it knows of the others, and how its roster comes to be theirs.
//!
//! It keeps a control IKE SA with other members, whether traffic is protected or not, and tells them on it what is new.
//! Who is a member follows from the roster, and nothing else: a node that is gone is not talked to any more.

mod detours;
mod machines;
mod refused;
mod stand_ins;
mod welcome;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::machines::{MachineStart, MachineVerdict, Machines, WaitingMachine};
use self::refused::Refusals;
pub use self::refused::{Annoyance, Nuisance};
use self::stand_ins::StandIns;
use self::welcome::Welcome;
use crate::identity::{PrivateKey, PublicKey};
use crate::ike::reason::Reason;
use crate::ike::{ControlEvent, ControlSettings, Engine, Posture, Purpose, SessionKey, TOLD_MAX, Topic};
use crate::observe::cluster_figures::RefusedCounts;
use crate::roster::{
    Carriage, Carried, ClusterId, EntryId, JOIN_VERSION, Member, Merged, PAGE_MAX, Ring, Roster, RosterId,
    SignedEntry, Signer, Site,
};
use crate::types::Pair;

// Each page is told at once.
const _: () = assert!(PAGE_MAX <= TOLD_MAX);

/// How long a member that is out, or that this one leaves, has to hear of it.
const PARTING: Duration = Duration::from_secs(5);
/// How long all members are talked to after somebody here has asked for that, where there are too many for each to talk to
/// each all the time.
const CALL: Duration = Duration::from_secs(60);
/// How long it takes at most to reach those who can be.
const CALLING: Duration = Duration::from_secs(7);
/// So much that members have said aside waits to be looked at.
const ASIDES_MAX: usize = 128;
/// The version of the mark.
const VERSION: u8 = 1;
/// The octets of a mark.
const LENGTH: usize = 1 + 32 + 16 + 16;

/// What this end says of itself where a control IKE SA begins, inside the encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberMark {
    /// Which cluster it belongs to.
    pub cluster: ClusterId,
    /// Which machine it is: a copied image has the keys of another one.
    pub machine: [u8; 16],
    /// Which start of that machine it is.
    pub boot: [u8; 16],
}

/// A member of a cluster.
pub struct Membership {
    roster: Roster,
    /// The first entry of this node.
    own: EntryId,
    /// What this node proves itself with.
    key: Arc<PrivateKey>,
    mark: MemberMark,
    carriage: Carriage<EntryId>,
    /// With whom there may be a control IKE SA: all others, and those that are parting.
    kept: BTreeMap<Pair, EntryId>,
    /// Of these, those with whom this member keeps one. The others keep theirs with this one when they like.
    near: BTreeSet<Pair>,
    /// The members that were met where the roster says that they are, by these pairs.
    met: BTreeMap<EntryId, Pair>,
    /// The addresses that this host has; empty as long as nobody has said so.
    here: BTreeSet<IpAddr>,
    /// Until when all are near, and since when some of them are.
    called: Option<(Instant, Instant)>,
    /// When those who call this member, or have called it, are asked whether they are there.
    check_at: Option<Instant>,
    /// The members as they were when the roster was looked at last, this one among them.
    known: BTreeMap<EntryId, Member>,
    /// Those that are talked to until they know that this is over, or until then: they are out, or this node is.
    parting: BTreeMap<EntryId, Instant>,
    machines: Machines,
    stand_ins: StandIns,
    /// What members have said aside, and nobody has looked at.
    asides: VecDeque<(EntryId, Vec<u8>)>,
    /// Some other member has said what its roster is, or there was none when this one began.
    heard: bool,
    unsaved: bool,
    changed: bool,
    refusals: Refusals,
    welcome: Welcome,
}

impl MemberMark {
    /// As it is said.
    pub fn octets(&self) -> Vec<u8> {
        let octets = [&[VERSION], self.cluster.octets().as_slice(), &self.machine, &self.boot];
        octets.concat()
    }

    /// Reads what another member has said; what follows is of a later version.
    pub fn read(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; LENGTH] = octets.first_chunk()?;
        let ([version], rest) = octets.split_first_chunk::<1>()?;
        let (cluster, rest) = rest.split_first_chunk::<32>()?;
        let (machine, boot) = rest.split_first_chunk::<16>()?;
        let mark = Self { cluster: ClusterId::new(*cluster), machine: *machine, boot: boot.try_into().ok()? };
        (*version == VERSION).then_some(mark)
    }
}

impl Membership {
    /// The member whose first entry is `own`, with this roster, which proves itself with `key`.
    pub fn new(
        roster: Roster,
        own: EntryId,
        key: Arc<PrivateKey>,
        (machine, boot): ([u8; 16], [u8; 16]),
    ) -> Self {
        let mark = MemberMark { cluster: roster.cluster(), machine, boot };
        let is_other = |member: &Member| member.keys.is_some() && member.line != own;
        let heard = !roster.view().members.iter().any(is_other);
        Self {
            roster,
            own,
            key,
            mark,
            carriage: Carriage::default(),
            kept: BTreeMap::new(),
            near: BTreeSet::new(),
            met: BTreeMap::new(),
            here: BTreeSet::new(),
            called: None,
            check_at: None,
            known: BTreeMap::new(),
            parting: BTreeMap::new(),
            machines: Machines::default(),
            stand_ins: StandIns::default(),
            asides: VecDeque::new(),
            heard,
            unsaved: false,
            changed: false,
            refusals: Refusals::default(),
            welcome: Welcome::default(),
        }
    }

    /// The first entry of this node.
    pub fn own(&self) -> EntryId {
        self.own
    }

    /// What this node proves itself with.
    pub fn key(&self) -> &PublicKey {
        self.key.public()
    }

    /// What it knows.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Whether the roster has changed since this was asked last, and is to be written.
    pub fn poll_save(&mut self) -> bool {
        std::mem::take(&mut self.unsaved)
    }

    /// What was to be written when that was asked last is on the disk.
    pub fn handle_stored_roster(&mut self, now: Instant, engine: &mut Engine) {
        self.carriage.note_stored(!self.unsaved);
        self.tell(now, engine);
    }

    /// Whether the roster has changed since this was asked last.
    pub fn poll_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// The next thing that a member has said aside.
    pub fn poll_aside(&mut self) -> Option<(EntryId, Vec<u8>)> {
        self.asides.pop_front()
    }

    /// Whether some other member has said what its roster is, or there was none when this one began: before that, what is
    /// known here may be old, as it is after a backup was restored.
    pub fn is_up_to_date(&self) -> bool {
        self.heard
    }

    /// Whether all that this member is to talk to know what it knows, and have it on their disks.
    pub fn is_known_to_all(&self) -> bool {
        let view = self.roster.view();
        let neighbours = Ring::of(view).neighbours(self.own);
        // Nobody talks to who is held out, and who comes back must know somebody.
        view.held_out.is_empty()
            && neighbours.into_iter().all(|line| self.has(line) == Some(self.roster.id()))
    }

    /// From now on this node signs with the first key, and proves itself with the second.
    pub fn change_keys(&mut self, signing: Arc<PrivateKey>, ike: Arc<PrivateKey>) {
        self.key = ike;
        self.open_door(signing);
    }

    /// The members that can be talked to now.
    pub fn reached(&self) -> impl Iterator<Item = EntryId> {
        self.carriage.peers()
    }

    /// How many of those that this member keeps a control IKE SA with cannot be talked to now.
    pub fn unreached(&self) -> usize {
        let reached: BTreeSet<EntryId> = self.reached().collect();
        let lines: BTreeSet<&EntryId> = self.near.iter().filter_map(|pair| self.kept.get(pair)).collect();
        let missing = |line: &&EntryId| !reached.contains(*line) && !self.parting.contains_key(*line);
        lines.into_iter().filter(missing).count()
    }

    /// What a member that can be talked to said last that its roster is.
    pub fn has(&self, line: EntryId) -> Option<RosterId> {
        self.carriage.has(line)
    }

    /// The members for which two machines have spoken: one of them has a copy of the other's keys.
    pub fn duplicates(&self, now: Instant) -> impl Iterator<Item = EntryId> {
        self.machines.duplicates(now)
    }

    /// Whether whoever has the keys of this member has said that it belongs to another cluster.
    pub fn is_elsewhere(&self, now: Instant, line: EntryId) -> bool {
        self.stand_ins.is_elsewhere(now, line)
    }

    /// Why somebody who has answered in the place of this member is not talked to: one end has not taken the other's proof, or
    /// it takes part in no cluster. Whoever is on the path can make it so.
    pub fn unproven(&self, line: EntryId) -> Option<&Reason> {
        self.stand_ins.unproven(line)
    }

    /// Whether the other host of `pair` was removed and is no member, or this one is none any more.
    pub fn is_over(&self, pair: Pair) -> bool {
        let view = self.roster.view();
        let has = |site: &Site| site.addresses.contains(&pair.remote);
        let is_out =
            view.removed.iter().any(|it| has(&it.site)) && !view.members.iter().any(|it| has(&it.site));
        view.member(self.own).is_none() || is_out
    }

    /// What this member goes on sending that is refused.
    pub fn annoyance(&self, now: Instant, line: EntryId) -> Option<Annoyance> {
        self.refusals.of_member(now, line)
    }

    /// What members have sent and this one has not taken, by why.
    pub fn refused(&self) -> &RefusedCounts {
        self.refusals.counts()
    }

    /// What control IKE SAs are made with. The others prove themselves with what the roster says of them.
    pub fn control_settings(&self) -> ControlSettings {
        let mut members: BTreeMap<IpAddr, Vec<PublicKey>> = BTreeMap::new();
        let parting = self.parting.keys().filter_map(|line| self.known.get(line));
        for member in self.others().chain(parting) {
            let keys: Vec<PublicKey> = ike_keys(member).collect();
            for address in member.site.addresses.iter().chain(&member.formerly).collect::<BTreeSet<_>>() {
                members.entry(*address).or_default().extend(keys.iter().cloned());
            }
        }
        let (mark, welcome) = (self.mark.octets().into(), Arc::from([JOIN_VERSION]));
        ControlSettings { key: self.key.clone(), members, invites: self.tokens(), mark, welcome }
    }

    /// An engine begins that knows nothing of this member yet.
    pub fn begin(&mut self, now: Instant, engine: &mut Engine) {
        for line in std::mem::take(&mut self.kept).into_values() {
            self.part(now, engine, line);
        }
        self.met.clear();
        self.machines.begin();
        self.near.clear();
        self.called = None;
        self.welcome.begin();
        self.look(now, engine);
    }

    /// Looks at who is a member now, and by which keys.
    pub fn look(&mut self, now: Instant, engine: &mut Engine) {
        self.note_parting(now);
        // What has failed before is tried soon again: who was away may be back, as something new was heard.
        engine.reconfigure_control(now, self.control_settings());
        self.keep(now, engine);
    }

    /// Who has come to be out and is decent is told so, and who leaves tells it.
    fn note_parting(&mut self, now: Instant) {
        let view = self.roster.view();
        let leaves = view.member(self.own).is_none() && self.known.contains_key(&self.own);
        let decent = |line: &EntryId| view.removed.iter().any(|it| it.line == *line && !it.compromised);
        let goes = |line: &EntryId| self.known.contains_key(line) && decent(line);
        // Nobody else is called for that.
        let reached: BTreeSet<EntryId> = self.reached().collect();
        let talks = |(pair, line): &(&Pair, &EntryId)| self.near.contains(pair) || reached.contains(line);
        let over = self.kept.iter().filter(talks).map(|(_, line)| *line);
        let over: Vec<EntryId> = over.filter(|line| leaves || goes(line)).collect();
        for line in over {
            self.parting.entry(line).or_insert(now + PARTING);
        }
        self.known.extend(view.members.iter().map(|member| (member.line, member.clone())));
        let parting = &self.parting;
        self.known.retain(|line, _| view.member(*line).is_some() || parting.contains_key(line));
    }

    /// Those who know that it is over are talked to no more.
    fn part_from(&mut self, now: Instant, engine: &mut Engine) {
        let (carriage, id) = (&self.carriage, self.roster.id());
        let knows = |(line, at): (&EntryId, &Instant)| *at <= now || carriage.has(*line) == Some(id);
        let over: Vec<EntryId> = self.parting.iter().filter(|it| knows(*it)).map(|(line, _)| *line).collect();
        self.forget(now, engine, &over);
    }

    /// It is over with these, who were still talked to.
    fn forget(&mut self, now: Instant, engine: &mut Engine, lines: &[EntryId]) {
        let mut parted = false;
        for line in lines {
            parted |= self.parting.remove(line).is_some();
            self.known.retain(|known, _| known != line || self.roster.view().member(*line).is_some());
        }
        if parted {
            self.look(now, engine);
        }
    }

    /// Talks to all members from now on, for a while. Says which of them may be reached soon.
    pub fn call(&mut self, now: Instant, engine: &mut Engine) -> BTreeSet<EntryId> {
        let is_far = |pair: &Pair| !self.near.contains(pair);
        let begins = self.kept.keys().any(is_far);
        let since = self.called.map_or(now, |(_, since)| since);
        if begins || self.called.is_some() {
            self.called = Some((now + CALL, if begins { now } else { since }));
        }
        if begins {
            self.keep(now, engine);
        }
        let fresh = self.called.is_some_and(|(_, since)| now < since + CALLING);
        let reached: BTreeSet<EntryId> = self.reached().collect();
        let soon = self.kept.values().filter(|line| fresh && !reached.contains(line));
        soon.copied().collect()
    }

    /// Keeps a control IKE SA with each member that this one talks to, and answers the others. Nobody else gets one.
    fn keep(&mut self, now: Instant, engine: &mut Engine) {
        let (mut wanted, mut near) = self.wanted();
        for (pair, line) in self.kept.iter().filter(|(_, line)| self.parting.contains_key(line)) {
            wanted.insert(*pair, *line);
            near.extend(self.near.get(pair));
        }
        let before = std::mem::take(&mut self.kept);
        let mut ended = Vec::new();
        let is_same = |pair: &Pair, line: &EntryId| wanted.get(pair) == Some(line);
        for (pair, line) in &before {
            let comes_to_be_far = self.near.contains(pair) && !near.contains(pair);
            if comes_to_be_far || !is_same(pair, line) {
                engine.end_control(now, *pair);
                ended.push(*line);
            }
        }
        for (pair, line) in &wanted {
            let (was_near, is_near) = (self.near.contains(pair), near.contains(pair));
            if was_near != is_near || before.get(pair) != Some(line) {
                let posture = if is_near { Posture::Active } else { Posture::Passive };
                engine.keep_control(now, *pair, posture);
            }
        }
        self.machines.retain(|line| self.known.contains_key(&line));
        self.stand_ins.retain(|line| self.known.contains_key(&line));
        self.met.retain(|line, pair| wanted.get(pair) == Some(line));
        (self.kept, self.near) = (wanted, near);
        ended.into_iter().for_each(|line| self.part(now, engine, line));
        self.tell(now, engine);
    }

    /// Asks those who have called whether they are there: nobody else would notice that they are not.
    fn check_callers(&mut self, now: Instant, engine: &mut Engine) {
        let reached: BTreeSet<EntryId> = self.reached().collect();
        let calls = |(pair, line): &(&Pair, &EntryId)| !self.near.contains(pair) && reached.contains(line);
        let callers: Vec<Pair> = self.kept.iter().filter(calls).map(|(pair, _)| *pair).collect();
        self.check_at = (!callers.is_empty()).then_some(now + CALL);
        callers.into_iter().for_each(|pair| engine.check_control(now, pair));
    }

    /// Something happened to the control IKE SAs of `pair` ([`Purpose::Control`](crate::ike::Purpose)).
    pub fn handle_control(&mut self, now: Instant, engine: &mut Engine, pair: Pair, event: ControlEvent) {
        let Some(line) = self.kept.get(&pair).copied() else { return };
        match event {
            // An address is that of one member at a time, but who is out may still be talked to where another one comes.
            ControlEvent::Introduced { session, key, .. } if !self.has_key(line, &key) => {
                engine.refuse(now, session);
            }
            ControlEvent::Introduced { session, mark, .. } => {
                self.meet(now, engine, (pair, line), session, &mark);
            }
            ControlEvent::Heard => self.carriage.handle_heard(line),
            ControlEvent::Ended => {
                self.part(now, engine, line);
                if !self.reached().any(|reached| reached == line) {
                    // Soon, and with all others who are gone by then.
                    self.parting.entry(line).and_modify(|until| *until = now);
                }
                if self.met.get(&line) == Some(&pair) {
                    self.met.remove(&line);
                    self.keep_if_moved(now, engine, line);
                }
                while let Some(newcomer) = self.machines.poll_free() {
                    self.judge(now, engine, newcomer, MachineVerdict::Admit);
                }
            }
            // Where a member was before, anybody may be.
            ControlEvent::Failed { failure, .. } if self.place_of(line) == Some(pair) => {
                self.stand_ins.note_failure(line, failure);
            }
            ControlEvent::Failed { .. } => {}
        }
        self.tell(now, engine);
    }

    /// The peer of `pair` has told something on a control IKE SA.
    pub fn handle_told(&mut self, now: Instant, engine: &mut Engine, pair: Pair, octets: &[u8]) {
        let Some(line) = self.kept.get(&pair).copied() else { return };
        let mut carried = self.carriage.handle_told(now, line, octets, &mut self.roster);
        self.heard |= self.carriage.has(line).is_some();
        if let Some(said) = carried.aside.take() {
            self.asides.push_back((line, said));
            self.asides.truncate(ASIDES_MAX);
        }
        self.note_refused(now, line, &carried);
        self.handle_merged(now, engine, &carried.merged);
        self.part_from(now, engine);
        self.tell(now, engine);
    }

    /// Counts what was refused, and says in the log who goes on with what.
    fn note_refused(&mut self, now: Instant, line: EntryId, carried: &Carried) {
        let is_own = |signer: &Signer| self.roster.line_of(signer) == Some(line);
        let Some((annoys, left_out)) = self.refusals.note(now, line, carried, is_own) else { return };
        let (node, words) = (self.name(line), annoys.words());
        match left_out {
            0 => tracing::warn!(node, "{words}"),
            left_out => tracing::warn!(node, left_out, "{words}"),
        }
    }

    /// Says how much more was refused, where nothing was said of that since.
    pub fn tell_left_out(&mut self, now: Instant) {
        for (line, pages) in self.refusals.left_out(now) {
            tracing::warn!(node = self.name(line), "has sent {pages} more pages with what is refused");
        }
    }

    /// What people call a member.
    fn name(&self, line: EntryId) -> &str {
        let known = self.known.get(&line).map(|member| member.site.name.as_str());
        known.unwrap_or("a node that is gone")
    }

    /// Entries have come from a store that members share. Says what came of them.
    pub fn handle_stored(&mut self, now: Instant, engine: &mut Engine, entries: &[Vec<u8>]) -> Carried {
        let carried = self.carriage.handle_entries(now, entries, &mut self.roster);
        self.handle_merged(now, engine, &carried.merged);
        self.tell(now, engine);
        carried
    }

    /// A store that members share has said everything that it knows, which is as good as if a member had.
    pub fn handle_store_listed(&mut self) {
        self.heard = true;
    }

    /// Tells a member something that is not about rosters.
    pub fn say_aside(&mut self, now: Instant, engine: &mut Engine, line: EntryId, said: Vec<u8>) {
        self.carriage.say_aside(line, said);
        self.tell(now, engine);
    }

    /// This node has signed something: it counts here, and the others are told.
    pub fn handle_signed(&mut self, now: Instant, engine: &mut Engine, entries: &[SignedEntry]) {
        let merged = self.roster.merge(entries.iter().map(SignedEntry::octets));
        let signed: Vec<EntryId> = entries.iter().map(SignedEntry::id).collect();
        self.carriage.handle_signed(now, &self.roster, &signed);
        self.handle_merged(now, engine, &merged);
        self.tell(now, engine);
        self.note_written(now, engine, &signed);
    }

    /// The roster has new entries: who is talked to follows from them.
    fn handle_merged(&mut self, now: Instant, engine: &mut Engine, merged: &Merged) {
        if merged.taken > 0 {
            (self.unsaved, self.changed) = (true, true);
            self.carriage.note_stored(false);
            self.look(now, engine);
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant, engine: &mut Engine) {
        self.carriage.handle_timeout(now, &self.roster);
        if self.called.is_some_and(|(until, _)| until <= now) {
            self.called = None;
            self.keep(now, engine);
        }
        if self.check_at.is_some_and(|at| at <= now) {
            self.check_callers(now, engine);
        }
        self.decide(now, engine);
        self.part_from(now, engine);
        self.tell(now, engine);
    }

    /// When [`Membership::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let carriage = self.carriage.poll_timeout(&self.roster);
        let called = self.called.map(|(until, _)| until);
        let own = [carriage, called, self.check_at, self.machines.poll_timeout()].into_iter().flatten();
        own.chain(self.parting.values().copied()).min()
    }

    /// Whether the member proves itself with that key.
    fn has_key(&self, line: EntryId, key: &PublicKey) -> bool {
        self.known.get(&line).is_some_and(|member| ike_keys(member).any(|its| its == *key))
    }

    /// A proven peer says which machine it is. While another one speaks for the member and answers, it does not take its
    /// place.
    fn meet(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        (pair, line): (Pair, EntryId),
        session: SessionKey,
        mark: &[u8],
    ) {
        let Some(mark) = MemberMark::read(mark) else { return engine.refuse(now, session) };
        if mark.cluster != self.mark.cluster {
            self.stand_ins.note_elsewhere(now, line);
            return engine.refuse(now, session);
        }
        let start = MachineStart::from(mark);
        match self.machines.meet(now, (pair, line), session, start) {
            Some(MachineVerdict::Admit) => self.let_speak(now, engine, (pair, line), session, start),
            Some(MachineVerdict::Refuse) => engine.refuse(now, session),
            None => engine.check_control(now, self.speaks_on(engine, line).unwrap_or(pair)),
        }
    }

    /// Decides about the newcomers that have waited long enough.
    fn decide(&mut self, now: Instant, engine: &mut Engine) {
        // The one that speaks may do so at another address.
        let heard = |kept: &BTreeMap<Pair, EntryId>, engine: &Engine, line| {
            let pairs = kept.iter().filter(|(_, of)| **of == line);
            pairs.filter_map(|(pair, _)| engine.control(*pair, Purpose::Control)?.heard).max()
        };
        while let Some((newcomer, verdict)) =
            self.machines.poll_newcomer(now, |line| heard(&self.kept, engine, line))
        {
            self.judge(now, engine, newcomer, verdict);
        }
    }

    /// A newcomer hears what has become of it.
    fn judge(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        newcomer: WaitingMachine,
        verdict: MachineVerdict,
    ) {
        let WaitingMachine { pair, line, session, start, .. } = newcomer;
        // Who is a member, and by which addresses, may have changed meanwhile.
        if verdict == MachineVerdict::Admit && self.kept.get(&pair) == Some(&line) {
            self.let_speak(now, engine, (pair, line), session, start);
        } else {
            engine.refuse(now, session);
        }
    }

    fn let_speak(
        &mut self,
        now: Instant,
        engine: &mut Engine,
        (pair, line): (Pair, EntryId),
        session: SessionKey,
        start: MachineStart,
    ) {
        // It may have lost its patience.
        if !engine.is_introduced(pair, session) {
            return;
        }
        if self.machines.is_another(line, start) {
            self.end_elsewhere(now, engine, (pair, line));
        }
        let is_to_answer = self.machines.note_admitted(now, line, start);
        self.stand_ins.forget(line);
        if !self.near.contains(&pair) {
            self.check_at.get_or_insert(now + CALL);
        }
        engine.admit(now, session);
        if is_to_answer {
            engine.check_control(now, pair);
        }
        // What it had heard it may have lost with its last start.
        self.carriage.handle_up(now, line, &self.roster);
        if self.place_of(line) == Some(pair) {
            self.met.insert(line, pair);
            self.keep_if_moved(now, engine, line);
        }
    }

    /// Whoever speaks for the member at its other addresses has to come back, if it is there: that it does says that both
    /// are.
    fn end_elsewhere(&self, now: Instant, engine: &mut Engine, (pair, line): (Pair, EntryId)) {
        for (other, _) in self.kept.iter().filter(|(other, of)| **of == line && **other != pair) {
            if let Some(posture) = engine.control(*other, Purpose::Control).map(|it| it.posture) {
                engine.end_control(now, *other);
                engine.keep_control(now, *other, posture);
            }
        }
    }

    /// An IKE SA with the member is no more. If there is another one, it goes on there; otherwise nobody can talk to it.
    fn part(&mut self, now: Instant, engine: &Engine, line: EntryId) {
        self.carriage.handle_down(line);
        if self.speaks_on(engine, line).is_some() {
            self.carriage.handle_up(now, line, &self.roster);
        } else {
            self.machines.part(line);
        }
    }

    /// Tells the others what there is to tell.
    fn tell(&mut self, now: Instant, engine: &mut Engine) {
        while let Some((line, page)) = self.carriage.poll_tell(&self.roster) {
            if let Some(pair) = self.speaks_on(engine, line) {
                engine.tell(now, pair, Topic::Control, Arc::new(move |_| page.clone()));
            }
        }
    }

    /// The other members that speak for themselves.
    fn others(&self) -> impl Iterator<Item = &Member> {
        let members = self.roster.view().members.iter();
        members.filter(|member| member.keys.is_some() && member.line != self.own)
    }

    /// All others, each by the addresses of both; and those of them that this member talks to.
    fn wanted(&self) -> (BTreeMap<Pair, EntryId>, BTreeSet<Pair>) {
        let view = self.roster.view();
        let Some(own) = view.member(self.own) else { return Default::default() };
        let neighbours: BTreeSet<EntryId> = Ring::of(view).neighbours(self.own).into_iter().collect();
        let all = self.others().filter_map(|member| Some((pair(own, member)?, member.line)));
        let mut all: BTreeMap<Pair, EntryId> = all.collect();
        let strays = self.strays();
        for member in self.others() {
            for pair in self.detours(own, member, &strays) {
                all.entry(pair).or_insert(member.line);
            }
        }
        let is_near = |line: &EntryId| self.called.is_some() || neighbours.contains(line);
        let near = all.iter().filter(|(_, line)| is_near(line)).map(|(pair, _)| *pair).collect();
        (all, near)
    }
}

/// What a member proves itself with, as long as that counts.
fn ike_keys(member: &Member) -> impl Iterator<Item = PublicKey> {
    let newest = member.keys.as_ref().map(|keys| keys.ike);
    newest.into_iter().chain(member.previous_ike).filter_map(|key| key.public_key().ok())
}

/// The addresses by which two members talk: each end chooses the same.
fn pair(own: &Member, other: &Member) -> Option<Pair> {
    let first = |member: &Member, is_v4: bool| {
        let of_family = member.site.addresses.iter().filter(|address| address.is_ipv4() == is_v4);
        of_family.min().copied()
    };
    [true, false]
        .into_iter()
        .find_map(|is_v4| Some(Pair { local: first(own, is_v4)?, remote: first(other, is_v4)? }))
}

#[cfg(test)]
pub(super) mod tests;
