//! Where the deciders meet: the key exchange ([`Engine`]) and the pairs ([`PairMachine`]) on one side, a
//! kernel on the other. It has no clock, socket or file either: simulations run this very code.
//!
//! Everything that comes in ends in [`Core::settle`]: drain what the engine has to say, bring the kernel
//! to what the pairs want, carry out what they order, until nothing moves any more.

mod apply;
mod bound;
mod counts;
mod cut;
mod exam;
mod farewell;
mod inquiry;
mod journal;
mod line;
mod members;
mod memory;
mod moves;
mod reconfigure;
mod settle;
mod silence;
mod sizing;
mod totals;
mod unsent;
mod view;
mod why;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::counts::CoreCounts;
use self::cut::Keyless;
pub use self::exam::EXAMS_MOST;
use self::exam::Exams;
use self::journal::Journal;
pub use self::reconfigure::SchemeChange;
use self::silence::Acquaintance;
use self::sizing::Search;
pub use self::unsent::Unsent;
use self::why::Cause;
pub use self::why::{ToldReason, Withholding};
use super::absent::Absent;
use super::accounts::Accounts;
use super::holdings::{Holdings, Scope};
use super::kernel::{Kernel, Unreadable, Vault};
use super::membership::Membership;
use super::pairs::{Pairs, Shared};
use super::probe;
use super::scheme::Scheme;
use super::seldom::Seldom;
use super::timers::Timers;
use crate::identity::Proven;
use crate::ike::{Engine, Transmit};
use crate::observe::About;
use crate::protect::{PairMachine, report};
use crate::store::PairRecord;
use crate::types::stranger::Strangers;
use crate::types::{Pair, Repairs, RowState, Sa, SaId, SaReading, Spi, UnixTime, Vrfs};

/// How often sessions are looked through, and counters read where nothing depends on them.
pub const TICK: Duration = Duration::from_secs(30);

/// A probe to be sent by whoever has sockets, through `sa` and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeDatagram {
    /// The outbound SA.
    pub sa: Sa,
    /// From where.
    pub local: IpAddr,
    /// Where to.
    pub remote: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
    /// Octets of its packet before ESP, where it asks whether a packet of that size gets through.
    pub size: Option<u16>,
}

impl ProbeDatagram {
    /// Whether the kernel may count it and refuse it then.
    pub fn may_count(&self) -> bool {
        self.size.is_some() && self.local.is_ipv6()
    }
}

/// What has changed of the saved state, and so how soon it is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Persist {
    /// What SAs have counted.
    Figures,
    /// Pairs that are protected or dropped from now on, or are not any more; what their keys rest on; which pairs there
    /// are. Nobody is told before it is written.
    Seals,
}

/// A datagram that came in on UDP.
#[derive(Debug)]
pub struct Datagram {
    /// Our end.
    pub local: SocketAddr,
    /// The sender.
    pub remote: SocketAddr,
    /// When this host got it.
    pub arrived: Instant,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// The joined deciders of one host.
pub struct Core {
    scheme: Scheme,
    engine: Engine,
    /// Where this host is a member of a cluster.
    membership: Option<Membership>,
    pairs: Pairs,
    /// What the keys of pairs rest on, as far as it is known; also those that an agent before this one left.
    proven: BTreeMap<Pair, Proven>,
    /// Pairs that have left the scheme, on their way to the clear.
    leaving: BTreeSet<Pair>,
    /// The addresses that this host has, as far as was told.
    present: BTreeSet<IpAddr>,
    /// Whether the pairs of the scheme are to be protected.
    wanted: bool,
    known: Holdings,
    vault: Vault,
    accounts: Accounts,
    absent: Absent,
    timers: Timers<Pair>,
    /// Pairs whose paths may forget them, or are reminded.
    memories: Timers<Pair>,
    /// When this host goes back to the clear, unless that is confirmed.
    trial: Option<Instant>,
    trial_ended: bool,
    /// Pairs that may have orders.
    touched: BTreeSet<Pair>,
    /// Pairs that stand otherwise than when that was last told.
    changed: BTreeSet<Pair>,
    /// Why no keys can be agreed, while this host has no secret.
    keyless: Option<Keyless>,
    /// When SAs end that are made now, beside their own limits.
    bound: Option<Instant>,
    /// Messages to peers from before that which have not left yet.
    farewells: VecDeque<Transmit>,
    /// A peer has said that it was cut off.
    farewell_heard: bool,
    /// Parts of the kernel that may have to change.
    dirty: BTreeSet<Scope>,
    /// The pairs that something in the kernel may have to change for, and for no other.
    moved: BTreeSet<Pair>,
    /// What the pairs with a peer had in common when its part of the kernel was last brought in order as a whole.
    shared: BTreeMap<IpAddr, Shared>,
    /// Pairs that want to know whether a packet has met their inbound policies.
    asking: BTreeSet<Pair>,
    probes: VecDeque<ProbeDatagram>,
    /// What peers have asked or answered, and on which pair.
    inquiries: VecDeque<(Pair, Vec<u8>)>,
    /// How long the datagram that is being handled had waited to be read.
    waited: Duration,
    persist: Option<Persist>,
    look_again: bool,
    /// The log has said that the limits of SAs are reached too soon.
    outrun: bool,
    /// Changes that strangers made us repair.
    repairs: Repairs,
    journal: Journal,
    /// How pairs stood, and whether their ESP was in UDP, before the input that is being handled.
    stood: BTreeMap<Pair, (RowState, Option<bool>)>,
    acquaintances: BTreeMap<Pair, Acquaintance>,
    searches: BTreeMap<Pair, Search>,
    /// What `doctor` asks peers, here and there.
    exams: Exams,
    /// What a peer told of itself last.
    told: Option<Arc<About>>,
    /// Why this host cannot send to a peer, of the attempt at keys that goes on.
    unsent: BTreeMap<Pair, Unsent>,
    /// The VRFs that addresses of this host are in.
    vrfs: Vrfs,
    /// Why the last attempt at keys of a pair failed, if one has.
    causes: BTreeMap<Pair, Cause>,
    /// When the counters were listened to last.
    listened: Option<Instant>,
    /// When sessions beside those in use were retired last.
    tidied: Option<Instant>,
    /// The time of day, and when it was that.
    clock: Option<(Instant, UnixTime)>,
    /// What other software has in the kernel, where it was read since that was last asked for.
    strangers: Strangers,
    /// It was read since that was last asked.
    strangers_read: bool,
    /// Whether the kernel could be read the last time.
    was_read: bool,
    /// What is said of the failures of those who have proven nothing.
    hearsay: Seldom<&'static str>,
    /// And of those with peers that have proven who they are.
    failures: Seldom<(Pair, &'static str)>,
    /// When it was said last that the kernel wishes for an SA.
    wishes: Seldom<()>,
}

/// Inputs.
impl Core {
    /// A host whose pairs are all off. `sealed` are those that were persisted as sealed.
    pub fn new(
        scheme: Scheme,
        mut engine: Engine,
        accounts: Accounts,
        sealed: &BTreeSet<Pair>,
        now: Instant,
    ) -> Self {
        let pairs = scheme.machines(sealed, now);
        engine.list(scheme.pairs.iter().copied().collect());
        Self {
            scheme,
            engine,
            membership: None,
            pairs,
            proven: BTreeMap::new(),
            leaving: BTreeSet::new(),
            present: BTreeSet::new(),
            wanted: false,
            known: Holdings::default(),
            vault: Vault::default(),
            accounts,
            absent: Absent::default(),
            timers: Timers::default(),
            memories: Timers::default(),
            trial: None,
            trial_ended: false,
            touched: BTreeSet::new(),
            changed: BTreeSet::new(),
            keyless: None,
            bound: None,
            farewells: VecDeque::new(),
            farewell_heard: false,
            dirty: BTreeSet::new(),
            moved: BTreeSet::new(),
            shared: BTreeMap::new(),
            asking: BTreeSet::new(),
            probes: VecDeque::new(),
            inquiries: VecDeque::new(),
            waited: Duration::ZERO,
            persist: None,
            look_again: false,
            outrun: false,
            repairs: Repairs::default(),
            journal: Journal::default(),
            stood: BTreeMap::new(),
            acquaintances: BTreeMap::new(),
            searches: BTreeMap::new(),
            exams: Exams::default(),
            told: None,
            unsent: BTreeMap::new(),
            vrfs: Vrfs::new(),
            causes: BTreeMap::new(),
            listened: None,
            tidied: None,
            clock: None,
            strangers: Strangers::default(),
            strangers_read: false,
            was_read: false,
            hearsay: Seldom::default(),
            failures: Seldom::default(),
            wishes: Seldom::default(),
        }
    }

    /// What an agent before this one has written down of what the keys of pairs rest on.
    pub fn recall(&mut self, records: &BTreeMap<Pair, PairRecord>) {
        let proven = records.iter().filter_map(|(pair, record)| Some((*pair, record.proven.clone()?)));
        self.proven.extend(proven);
    }

    /// The time of day is `wall` at `now`.
    pub fn set_clock(&mut self, now: Instant, wall: UnixTime) {
        self.clock = Some((now, wall));
        self.engine.set_clock(now, wall);
        self.with_membership(|members, engine| members.set_clock(now, wall, engine));
    }

    /// The time of day at `now`, where that was ever told.
    fn wall(&self, now: Instant) -> Option<UnixTime> {
        self.clock.map(|(then, wall)| wall.after(now.saturating_duration_since(then)))
    }

    fn persist(&mut self, what: Persist) {
        self.persist = self.persist.max(Some(what));
    }

    /// Takes over what the kernel holds and protects all pairs; `strict` seals them at once. With a `trial`
    /// they go back to the clear at that time, unless [`Core::confirm`] comes before.
    ///
    /// # Errors
    /// When the kernel cannot be read; nothing has been changed then.
    pub fn enable(
        &mut self,
        now: Instant,
        kernel: &mut dyn Kernel,
        strict: bool,
        trial: Option<Instant>,
    ) -> Result<(), Unreadable> {
        self.take_over(now, kernel)?;
        self.trial = trial;
        self.wanted = true;
        for pair in self.scheme.pairs.clone() {
            if !self.leaving.contains(&pair) {
                let strict = strict || self.scheme.blocked.contains(&pair);
                self.with_pair(pair, |machine| machine.enable(now, strict, trial));
            }
        }
        self.hold_back(now);
        self.settle(now, kernel);
        Ok(())
    }

    /// The protection that was on trial is to stay.
    pub fn confirm(&mut self, now: Instant, kernel: &mut dyn Kernel) {
        self.trial = None;
        self.each_pair(|machine| machine.confirm(now));
        self.settle(now, kernel);
    }

    /// Takes all pairs back to the clear; [`Core::is_off`] tells when they are. What an agent before this
    /// one left in the kernel goes that way too.
    ///
    /// # Errors
    /// When the kernel cannot be read; nothing has been changed then.
    pub fn disable(&mut self, now: Instant, kernel: &mut dyn Kernel) -> Result<(), Unreadable> {
        self.trial = None;
        self.wanted = false;
        if self.is_off() {
            self.take_over(now, kernel)?;
            self.each_pair(|machine| machine.meet(now));
        }
        self.each_pair(|machine| machine.disable(now));
        self.settle(now, kernel);
        Ok(())
    }

    fn take_over(&mut self, now: Instant, kernel: &mut dyn Kernel) -> Result<(), Unreadable> {
        let actual = kernel.read()?;
        if self.is_off() {
            for (pair, id, direction) in self.pairs.adopt(&actual) {
                let born = actual.sas.get(&id).map_or(now, |reading| self.instant_of(reading.added, now));
                self.accounts.begin(id, pair, direction, born);
            }
            // What they counted before says nothing of now.
            self.accounts.moved(&actual.sas);
            self.accounts.forget_remembered(self.wall(now), &actual.sas);
            self.limit_adopted(now);
        }
        self.learn(actual);
        Ok(())
    }

    /// SAs that an agent before this one left end in time where what they rest on is over, or not accepted any more. An
    /// engine without a secret cannot tell.
    fn limit_adopted(&mut self, now: Instant) {
        if self.awaits_secret() {
            return;
        }
        for (pair, proven) in &mut self.proven {
            let end = self.engine.end_of(now, *pair, proven);
            self.pairs.get_mut(*pair).into_iter().for_each(|machine| machine.end_adopted(now, end));
            self.touched.insert(*pair);
        }
        self.persist(Persist::Seals);
    }

    /// Datagrams came in on UDP. The kernel gets what they lead to in one go.
    pub fn handle_datagrams(&mut self, now: Instant, kernel: &mut dyn Kernel, datagrams: &[Datagram]) {
        for Datagram { local, remote, arrived, bytes } in datagrams {
            self.waited = now.saturating_duration_since(*arrived);
            let ends = (local.ip(), remote.ip());
            if let Some(token) = probe::decode_try(bytes) {
                self.handle_try(now, ends, &token);
                continue;
            }
            match (probe::decode(bytes), probe::decode_size(bytes)) {
                (Some(probe), _) => self.handle_probe(now, local.ip(), remote.ip(), &probe),
                (None, Some(probe)) => self.handle_size_probe(now, ends, probe, bytes.len()),
                (None, None) => {
                    if local.port() == self.scheme.port {
                        self.note_knock(now, ends, bytes);
                    }
                    self.engine.note_waited(self.waited);
                    self.engine.handle_datagram(now, *local, *remote, bytes);
                }
            }
            self.drain_events(now);
        }
        self.waited = Duration::ZERO;
        self.settle(now, kernel);
    }

    fn handle_probe(&mut self, now: Instant, local: IpAddr, remote: IpAddr, probe: &report::Probe) {
        if let Some(pair) = Pair::new(local, remote)
            && let waited = self.waited
            && let Some(id) =
                self.with_pair(pair, |machine| machine.handle_probe(now, probe, waited)).flatten()
        {
            self.accounts.probe(id, probe::counted(probe::LENGTH));
        }
    }

    /// A probe left through its SA.
    pub fn handle_probe_sent(&mut self, now: Instant, probe: &ProbeDatagram) {
        let sa = &probe.sa;
        self.accounts.probe(sa.id(), probe::counted(probe.bytes.len()));
        if let Some(size) = probe.size {
            self.handle_size_sent(now, sa.pair, size, true);
        } else if let Some(machine) = self.pairs.get_mut(sa.pair) {
            machine.handle_probe_sent(now, sa.id());
        }
    }

    /// There was no room for a probe on this host: that says nothing of the path.
    pub fn handle_probe_unsent(&mut self, probe: &ProbeDatagram) {
        match probe.size {
            Some(size) => self.handle_size_unsent(probe.sa.pair, size),
            None => {
                let machine = self.pairs.get_mut(probe.sa.pair);
                machine.into_iter().for_each(|machine| machine.handle_probe_unsent(probe.sa.id()));
            }
        }
    }

    /// A probe is larger than what this host lets out to there. `readings` are those of its SA before and after, where
    /// the kernel may have counted it all the same.
    pub fn handle_probe_refused(
        &mut self,
        now: Instant,
        probe: &ProbeDatagram,
        readings: Option<(SaReading, SaReading)>,
    ) {
        let own = probe::counted(probe.bytes.len());
        if readings.is_some_and(|(before, after)| after.bytes.saturating_sub(before.bytes) >= own) {
            self.accounts.probe(probe.sa.id(), own);
        }
        if let Some(size) = probe.size {
            self.handle_size_sent(now, probe.sa.pair, size, false);
        }
    }

    /// The kernel deleted an SA of ours and reported its last figures.
    pub fn handle_sa_end(&mut self, reading: &SaReading) {
        self.accounts.end(reading);
        self.persist(Persist::Figures);
    }

    /// The kernel asks for a successor of an SA: it has counted up to a soft limit. Or it reports the first
    /// packet of one that was told to.
    pub fn handle_sa_dying(&mut self, now: Instant, kernel: &mut dyn Kernel, reading: &SaReading) {
        let pair = [(reading.id.destination, reading.source), (reading.source, reading.id.destination)]
            .into_iter()
            .filter_map(|(local, remote)| Pair::new(local, remote))
            .find(|pair| self.pairs.get(*pair).is_some());
        if let Some((pair, in_spi)) =
            pair.and_then(|pair| Some((pair, self.pairs.get(pair)?.child_of(reading.id)?)))
        {
            let first = self.with_pair(pair, |machine| machine.handle_first_packet(now, reading.id));
            if first != Some(true) {
                self.replace_worn(now, pair, in_spi);
            }
        }
        self.settle(now, kernel);
    }

    /// The kernel wishes for an SA. Keys are agreed ahead of traffic, and where there are none a pair is blocked: nothing is
    /// done for it. One line a minute counts them.
    pub fn refuse_sa(&mut self, now: Instant, pair: Pair) {
        if let Some(others) = self.wishes.note(now, ()) {
            tracing::debug!(
                "{pair}: packets find no SA, and keys are not agreed on demand ({others} more before)"
            );
        }
    }

    /// An SA has carried as much as it should.
    fn replace_worn(&mut self, now: Instant, pair: Pair, in_spi: Spi) {
        let at_once = self.with_pair(pair, |machine| machine.handle_worn(now, in_spi));
        if at_once == Some(false) && !std::mem::replace(&mut self.outrun, true) {
            tracing::warn!(
                "{pair}: keys reach keying.rekey_bytes or keying.rekey_packets sooner than they can be replaced: \
                 raise the limit"
            );
        }
    }

    /// Authentic ESP came in UDP from another port than an inbound SA of ours says: a NAT has let the peer in anew.
    pub fn handle_mapping(&mut self, now: Instant, kernel: &mut dyn Kernel, id: SaId, remote: SocketAddr) {
        if let Some(pair) = Pair::new(id.destination, remote.ip()) {
            self.engine.peer_moved(now, pair, id.spi, remote.port());
        }
        self.settle(now, kernel);
    }

    /// Somebody else changed the kernel's tables, or may have: reads them and repairs what is ours.
    pub fn look_again(&mut self, now: Instant, kernel: &mut dyn Kernel) {
        match kernel.read() {
            Ok(actual) => {
                self.look_again = false;
                self.repairs.sas += self.known.sas().filter(|id| !actual.sas.contains_key(id)).count() as u64;
                self.accounts.lose_missing(&actual.sas);
                self.persist(Persist::Figures);
                actual.sas.values().for_each(|reading| self.accounts.note(reading));
                self.each_pair(|machine| machine.handle_reading(now, |id| actual.sas.contains_key(&id)));
                self.learn(actual);
                self.note_repairs();
            }
            Err(error) => {
                self.was_read = false;
                tracing::error!("{error}");
            }
        }
        self.settle(now, kernel);
    }

    /// This host has these unicast addresses now, up or not: the guard names them with the next input.
    pub fn know_own(&mut self, own: BTreeSet<IpAddr>) {
        if self.pairs.know(own) {
            self.dirty.extend(self.pairs.scopes());
        }
    }

    /// These addresses of this host are in VRFs, which is why pairs with them get no keys.
    pub fn know_vrfs(&mut self, vrfs: Vrfs) {
        self.vrfs = vrfs;
    }

    /// Packets can leave from these addresses of this host now. Pairs whose address has come back are keyed
    /// without the pause that failures have earned them.
    pub fn handle_addresses(&mut self, now: Instant, kernel: &mut dyn Kernel, present: &BTreeSet<IpAddr>) {
        self.present.clone_from(present);
        self.place(now);
        let mut returned = BTreeSet::new();
        for pair in self.scheme.pairs.clone() {
            let here = present.contains(&pair.local) || self.scheme.floating.contains_key(&pair.local);
            if self.with_machine(pair, |machine| machine.handle_address(now, here)) == Some(true) {
                returned.insert(pair.local);
                self.engine.path_is_back(now, pair);
            }
        }
        for address in returned {
            tracing::info!("this host has its address {address} again");
        }
        self.settle(now, kernel);
    }

    /// Reads the counters, and asks peers for a sign of life that were not heard for long. Retires sessions that came
    /// up beside the one in use since.
    pub fn handle_tick(&mut self, now: Instant, kernel: &mut dyn Kernel) {
        self.journal.take_stock();
        self.tell_left_out(now);
        if self.tidied.is_none_or(|at| now >= at + TICK) {
            self.tidied = Some(now);
            for (pair, machine) in self.pairs.machines() {
                if let Some(in_spi) = machine.settled_child() {
                    self.engine.settled(now, *pair, in_spi);
                }
            }
        }
        match kernel.read_sas() {
            Ok(sas) => {
                for (pair, in_spi) in self.overdue(&sas) {
                    self.replace_worn(now, pair, in_spi);
                }
                self.listen(now, &sas);
                self.ask_the_quiet(now);
                self.measure_paths(now);
            }
            Err(error) => tracing::error!("{error}"),
        }
        self.settle(now, kernel);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant, kernel: &mut dyn Kernel) {
        if self.engine.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.engine.handle_timeout(now);
        }
        self.go_on_with_members(now);
        self.go_on_searching(now);
        self.go_on_remembering(now);
        self.go_on_examining(now);
        while let Some(pair) = self.timers.pop_due(now) {
            self.with_pair(pair, |machine| machine.handle_timeout(now));
        }
        if self.trial.is_some_and(|end| end <= now) {
            (self.trial, self.wanted) = (None, false);
            self.trial_ended = true;
            self.each_pair(|machine| machine.disable(now));
        }
        self.settle(now, kernel);
    }
}

/// Joining.
impl Core {
    /// Children whose inbound SA has reached a soft limit that the kernel does not watch.
    fn overdue(&self, sas: &BTreeMap<SaId, SaReading>) -> Vec<(Pair, Spi)> {
        let reached = |pair: Pair, id: &SaId| {
            sas.get(id).is_some_and(|sa| self.scheme.limits_of(pair).is_soft_reached(sa.bytes, sa.packets))
        };
        let pairs = self.pairs.machines().iter();
        let unwatched = pairs.flat_map(|(pair, machine)| machine.unwatched().map(move |id| (*pair, id)));
        unwatched.filter(|(pair, id)| reached(*pair, id)).map(|(pair, id)| (pair, id.spi)).collect()
    }

    /// Lets a pair take an input; its part of the kernel is looked at afterwards.
    fn with_pair<T>(&mut self, pair: Pair, input: impl FnOnce(&mut PairMachine) -> T) -> Option<T> {
        let answer = self.with_machine(pair, input)?;
        self.moved.insert(pair);
        Some(answer)
    }

    fn with_machine<T>(&mut self, pair: Pair, input: impl FnOnce(&mut PairMachine) -> T) -> Option<T> {
        let machine = self.pairs.get_mut(pair)?;
        let (was_off, was, stood) = (machine.is_off(), machine.row_state(), machine.standing());
        let carried = machine.is_in_udp();
        let answer = input(machine);
        if machine.standing() != stood {
            self.changed.insert(pair);
        }
        if machine.is_off() != was_off {
            self.dirty.insert(Scope::Common);
            self.absent.forget(pair);
        }
        self.stood.entry(pair).or_insert((was, carried));
        let takes_clear = machine.takes_clear();
        self.engine.allow_ahead(pair, takes_clear);
        self.touched.insert(pair);
        Some(answer)
    }

    fn each_pair(&mut self, mut input: impl FnMut(&mut PairMachine)) {
        for pair in self.pairs().keys().copied().collect::<Vec<_>>() {
            self.with_pair(pair, &mut input);
        }
    }
}
