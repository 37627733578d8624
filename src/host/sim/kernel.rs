//! A kernel's tables without a kernel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use super::net::{Inner, Packet};
use super::proving::SimProof;
use super::world::LETS_OUT;
use crate::host::ProbeFate;
use crate::host::core::{ProbeDatagram, Unsent};
use crate::host::kernel::{Kernel, Unreadable};
use crate::host::ports::Sockets;
use crate::host::setup::{IkePorts, Setup};
use crate::host::system::{Facts, Here, KernelEvent, System};
use crate::ike::Transmit;
use crate::protect::policies;
use crate::types::{
    Action, Block, Direction, Family, KernelState, KeySource, Op, OpError, Pair, PolicyDirection, PolicyId,
    PolicyReading, Problem, Sa, SaId, SaReading, SaTable, Spi, Unready,
};

/// What becomes of an outbound packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaves {
    Clear,
    Esp(SaId),
    Dropped,
}

#[derive(Default)]
pub(super) struct SimKernel {
    pub(super) state: KernelState,
    /// Keys by SA, to compare both ends and to see that none is ever used twice.
    pub(super) keys: BTreeMap<SaId, Vec<u8>>,
    every_key: BTreeSet<Vec<u8>>,
    /// Inbound SAs that are there without the outbound one of their child: their peer has proven nothing yet.
    unproven: BTreeMap<SaId, Pair>,
    /// Policies that a packet has met since they were written.
    used: BTreeSet<PolicyId>,
    /// What happened that the agent was not told yet.
    pub(super) events: VecDeque<KernelEvent>,
    /// What its agent has sent and the network does not have yet.
    pub(super) sent: Vec<Packet>,
    /// The addresses of the host.
    pub(super) here: Here,
    /// Where another program has the port of IKE.
    pub(super) taken: BTreeSet<IpAddr>,
    /// When the next policy goes by itself.
    pub(super) next_expiry: Option<Instant>,
    /// When SAs go by themselves, where they do.
    sa_ends: Option<BTreeMap<SaId, Instant>>,
    /// After how many more operations the agent that asks for them dies.
    pub(super) fuse: Option<usize>,
    /// The proof that is being made.
    pub(super) proof: SimProof,
    /// Its states can be listed, its policies not.
    pub(super) unreadable: bool,
    /// How often it was read as a whole.
    pub(super) looks: usize,
    /// What it cannot encrypt for want of.
    pub(super) lacks: Option<Unready>,
}

/// What an agent unwinds with that dies in the middle of its work.
pub(super) struct Death;

impl SimKernel {
    /// Of a host with these addresses.
    pub(super) fn at(addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut kernel = Self::default();
        kernel.has(addresses);
        kernel
    }

    /// The host has these addresses now.
    pub(super) fn has(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let own: BTreeSet<IpAddr> = addresses.into_iter().collect();
        self.here = Here { present: own.clone(), own };
    }

    /// It starts anew, with nothing in its tables.
    pub(super) fn restart(&mut self) {
        *self = Self { here: std::mem::take(&mut self.here), ..Self::default() };
    }

    /// Somebody has changed something.
    pub(super) fn change(&mut self) {
        self.events.push_back(KernelEvent::Changed { by_us: false });
    }

    fn apply_one(&mut self, op: &Op, keys: &dyn KeySource) -> Result<(), OpError> {
        if let Op::DeleteSa(id) = op {
            let ended = |reading: &SaReading| KernelEvent::SaEnded { reading: *reading, by_us: true };
            self.events.extend(self.state.sas.get(id).map(ended));
        }
        self.state.apply(op)?;
        match op {
            Op::AddSa(sa) => {
                let key = keys.key(sa.id()).expect("an SA is added with its key").expose().to_vec();
                assert!(self.every_key.insert(key.clone()), "a key lives once");
                self.keys.insert(sa.id(), key);
            }
            Op::DeleteSa(id) => {
                self.keys.remove(id);
                self.unproven.remove(id);
            }
            Op::AddPolicy { policy, .. } | Op::UpdatePolicy { policy, .. } => {
                self.used.remove(&policy.id());
            }
            Op::DeletePolicy { .. } => {}
        }
        // Invariant 10, after every prefix.
        let bad = self.unproven.iter().find(|(_, pair)| !self.accepts_clear(**pair));
        assert_eq!(bad, None, "an SA of an unproven party on a sealed pair");
        self.burn();
        Ok(())
    }

    /// Removes the policies whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.state.policies.retain(|_, policy| policy.until.is_none_or(|until| until > now));
        let over = |(id, end): (&SaId, &Instant)| (*end <= now).then_some(*id);
        let over: Vec<SaId> = self.sa_ends.iter().flatten().filter_map(over).collect();
        for id in over {
            self.keys.remove(&id);
            let gone = self.state.sas.remove(&id);
            self.events.extend(gone.map(|reading| KernelEvent::SaEnded { reading, by_us: false }));
        }
        self.note_sas(now);
        self.note_expiry();
        self.change();
    }

    fn note_expiry(&mut self) {
        let policies = self.state.policies.values().filter_map(|policy| policy.until);
        self.next_expiry = policies.chain(self.sa_ends.iter().flatten().map(|(_, end)| *end)).min();
    }

    /// From now on SAs go by themselves at the end of their lifetime.
    pub(super) fn end_sas(&mut self, now: Instant) {
        self.sa_ends = Some(BTreeMap::new());
        self.note_sas(now);
    }

    /// Sees when new SAs go by themselves.
    pub(super) fn note_sas(&mut self, now: Instant) {
        let Some(ends) = &mut self.sa_ends else { return };
        ends.retain(|id, _| self.state.sas.contains_key(id));
        for (id, sa) in &self.state.sas {
            let hard = sa.hard_seconds.map(Duration::from_secs);
            hard.iter().for_each(|hard| _ = ends.entry(*id).or_insert(now + *hard));
        }
        self.note_expiry();
    }

    /// The time of day is set by so many seconds: the kernel counts lifetimes by it.
    pub(super) fn shift_ends(&mut self, now: Instant, by: i64) {
        let step = Duration::from_secs(by.unsigned_abs());
        for end in self.sa_ends.iter_mut().flat_map(BTreeMap::values_mut) {
            *end = if by < 0 { *end + step } else { end.checked_sub(step).unwrap_or(now).max(now) };
        }
        self.note_expiry();
    }

    /// Another operation is done: the agent may not live to hear of it.
    fn burn(&mut self) {
        if let Some(left) = &mut self.fuse {
            *left -= 1;
            if *left == 0 {
                self.fuse = None;
                resume_unwind(Box::new(Death));
            }
        }
    }

    fn action(&self, pair: Pair, direction: PolicyDirection) -> Option<Action> {
        let guard = PolicyId::between(direction, Block::any(pair.remote), Block::host(pair.remote));
        let policies = &self.state.policies;
        policies.get(&PolicyId::of(pair, direction)).or_else(|| policies.get(&guard))?.action
    }

    /// What becomes of a packet of this host to `pair.remote`.
    pub(super) fn leaves(&self, pair: Pair) -> Leaves {
        match self.action(pair, PolicyDirection::Out) {
            None => Leaves::Clear,
            Some(Action::Seal { through }) => {
                self.state.sends(pair, through).map_or(Leaves::Dropped, |sa| Leaves::Esp(sa.id))
            }
            Some(_) => Leaves::Dropped,
        }
    }

    /// Whether a clear packet from `pair.remote` is let in.
    pub(super) fn accepts_clear(&self, pair: Pair) -> bool {
        matches!(self.action(pair, PolicyDirection::In), None | Some(Action::Accept))
    }

    /// A packet of a pair, clear or out of ESP, meets what is asked about inbound packets.
    pub(super) fn meet_inbound(&mut self, pair: Pair) {
        self.used.insert(policies::inbound(pair, Action::Accept)[0].id());
    }

    /// Counts a packet on an SA; `false` when there is none.
    pub(super) fn count(&mut self, id: SaId, bytes: u64) -> bool {
        let Some(reading) = self.state.sas.get_mut(&id) else {
            return false;
        };
        reading.packets += 1;
        reading.bytes += bytes;
        true
    }

    /// Whether the ESP of an SA goes in UDP.
    pub(super) fn is_in_udp(&self, id: SaId) -> bool {
        self.state.sas.get(&id).is_some_and(|sa| sa.encapsulated)
    }

    /// Takes a packet in: it must come as its SA says (docs/kernel.md, fact 18h).
    pub(super) fn receive(&mut self, id: SaId, in_udp: bool, bytes: u64) -> bool {
        self.is_in_udp(id) == in_udp && self.count(id, bytes)
    }

    /// Makes all SAs such that an agent of an older version has made: they bind packets to nobody.
    pub(super) fn unbind(&mut self) {
        self.state.sas.values_mut().for_each(|sa| sa.bound = false);
    }

    /// Removes SAs as a stranger's flush does, without telling their figures.
    pub(super) fn flush(&mut self) {
        self.state.sas.clear();
        self.keys.clear();
    }

    /// The outbound SAs to and inbound SAs from a peer.
    pub(super) fn spis(&self, pair: Pair, direction: Direction) -> Vec<Spi> {
        let sas = self.state.sas.values();
        let of_pair = sas.filter(|sa| sa.is_between(pair) && sa.direction(pair) == direction);
        of_pair.map(|sa| sa.id.spi).collect()
    }
}

impl Kernel for SimKernel {
    fn apply(&mut self, ops: &[Op], keys: &dyn KeySource) -> Vec<Result<(), OpError>> {
        let sas = || ops.iter().filter_map(|op| if let Op::AddSa(sa) = op { Some(sa) } else { None });
        let of = |direction| sas().filter(move |sa| sa.direction == direction);
        for sa in of(Direction::Out) {
            self.unproven.retain(|_, pair| *pair != sa.pair);
        }
        let alone = |sa: &&Sa| !of(Direction::Out).any(|other| other.pair == sa.pair);
        self.unproven.extend(of(Direction::In).filter(alone).map(|sa| (sa.id(), sa.pair)));
        let results = ops.iter().map(|op| self.apply_one(op, keys)).collect();
        let lasting = |op: &Op| match op {
            Op::AddPolicy { policy, .. } | Op::UpdatePolicy { policy, .. } => policy.until.is_some(),
            _ => false,
        };
        if self.next_expiry.is_some() || ops.iter().any(lasting) {
            self.note_expiry();
        }
        results
    }

    fn read(&mut self) -> Result<KernelState, Unreadable> {
        self.looks += 1;
        if self.unreadable {
            return Err(Unreadable("no buffer space".to_owned()));
        }
        Ok(self.state.clone())
    }

    fn read_all_sas(&mut self) -> Result<SaTable, Unreadable> {
        Ok(SaTable { ours: self.state.sas.clone(), strangers: self.state.strangers.sas.clone() })
    }

    fn read_sa(&mut self, id: SaId) -> Result<Option<SaReading>, Unreadable> {
        self.proof.told += 1;
        let more = self.proof.told * self.proof.inflates;
        let more = |sa: &SaReading| SaReading { packets: sa.packets + more, ..*sa };
        Ok(self.state.sas.get(&id).map(more))
    }

    fn unused(&mut self, policies: &[PolicyReading]) -> Vec<bool> {
        let is_unused = |policy: &PolicyReading| {
            self.state.policies.get(&policy.id) == Some(policy) && !self.used.contains(&policy.id)
        };
        policies.iter().map(is_unused).collect()
    }
}

impl System for SimKernel {
    fn poll_event(&mut self) -> Option<KernelEvent> {
        self.events.pop_front()
    }

    fn sweep(&mut self) -> Result<(), String> {
        let (policies, sas) = (&self.state.policies, &self.state.sas);
        assert!(policies.is_empty() && sas.is_empty(), "what is off has left nothing");
        Ok(())
    }

    fn try_esp(&mut self, _: Family) -> Result<(), Unready> {
        self.lacks.map_or(Ok(()), Err)
    }

    fn here(&mut self) -> io::Result<Here> {
        Ok(self.here.clone())
    }

    fn holes(&mut self, _: &[Pair]) -> Vec<Problem> {
        Vec::new()
    }

    fn facts(&mut self, _: &Setup) -> io::Result<Facts> {
        Ok(Facts::default())
    }
}

impl Sockets for SimKernel {
    fn bind(&mut self, addresses: Vec<IpAddr>, _: IkePorts) -> anyhow::Result<()> {
        let taken = addresses.iter().find(|address| self.taken.contains(address));
        taken.map_or(Ok(()), |address| Err(anyhow::anyhow!("UDP {address} is taken")))
    }

    fn bind_besides(&mut self, _: &BTreeSet<IpAddr>, _: IkePorts) {}

    fn bind_missing(&mut self) {}

    fn retain(&mut self, _: &BTreeSet<IpAddr>) {}

    fn rest(&mut self) {}

    fn close(&mut self) {}

    fn send(&mut self, transmits: Vec<Transmit>) -> Vec<Unsent> {
        let packet = |Transmit { local, remote, bytes }| Packet::Ike { from: local, to: remote, bytes };
        self.sent.extend(transmits.into_iter().map(packet));
        Vec::new()
    }

    fn probe(&mut self, probe: &ProbeDatagram) -> ProbeFate {
        let id = probe.sa.id();
        if probe.size.is_some_and(|size| size > LETS_OUT) {
            return ProbeFate::TooLarge(None);
        }
        if !self.count(id, probe.bytes.len() as u64 + 8) {
            return ProbeFate::Lost;
        }
        let from = SocketAddr::new(probe.local, 40_000);
        let inner = Inner::Probe { to: probe.remote, bytes: probe.bytes.clone() };
        self.sent.push(Packet::Esp { id, from, in_udp: self.is_in_udp(id), inner });
        ProbeFate::Sent
    }
}
