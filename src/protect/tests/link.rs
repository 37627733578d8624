//! Two machines face to face, with a key exchange and a network that do what the test says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::observe::explain;
use crate::protect::report::{Flags, Report};
use crate::protect::timing::SEAL_GRACE;
use crate::protect::{Adopted, AdoptedSa, Child, Indexes, Order, PairMachine, Rules, plan, policies};
use crate::types::{
    Action, EspSuite, KernelState, Limits, NewChild, Op, Pair, RowState, SaId, SaKey, SaReading, Spi,
};

pub(super) struct End {
    pub(super) machine: PairMachine,
    pub(super) kernel: KernelState,
    pub(super) orders: Vec<Order>,
}

/// `a` has the smaller address: it initiates and leads.
pub(super) struct Link {
    pub(super) now: Instant,
    pub(super) ends: [End; 2],
    /// ESP passes from `a` to `b`, and from `b` to `a`.
    pub(super) esp: [bool; 2],
    /// Packets come in on both ends.
    pub(super) traffic: bool,
    /// What passes from the order for a probe until it leaves.
    pub(super) busy: Duration,
    /// The ends do not tell each other of rounds, as earlier agents did not.
    pub(super) roundless: bool,
    pub(super) children: BTreeMap<Spi, Spi>,
    pub(super) next_spi: u32,
}

/// What the machine of a pair goes by, unless it says otherwise.
pub(super) fn rules(pair: Pair) -> Rules {
    Rules { leads: pair.local < pair.remote, allow_peer_disable: true }
}

pub(super) fn pair() -> Pair {
    Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap()
}

pub(super) fn token(in_spi: Spi) -> [u8; 16] {
    [in_spi.0.to_be_bytes(); 4].concat().try_into().unwrap()
}

/// What the next agent of an end finds of an SA.
pub(super) fn found(sa: &SaReading, pair: Pair) -> (SaId, AdoptedSa) {
    (sa.id, AdoptedSa { direction: sa.direction(pair), reqid: sa.reqid })
}

impl Link {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let end = |pair| End {
            machine: PairMachine::new(pair, rules(pair), false, now),
            kernel: KernelState::default(),
            orders: Vec::new(),
        };
        let ends = [end(pair()), end(pair().mirrored())];
        let (esp, children) = ([true; 2], BTreeMap::new());
        let (traffic, busy, roundless) = (true, Duration::ZERO, false);
        let mut link = Self { now, ends, esp, traffic, busy, roundless, children, next_spi: 1 };
        for at in 0..2 {
            link.ends[at].machine.enable(now, false, None);
        }
        link.work();
        link
    }

    /// The key exchange agreed a child that `initiator` asked for; returns the names of `a` and `b`.
    pub(super) fn agree(&mut self, initiator: usize, foreign: bool) -> [Spi; 2] {
        let spis = [Spi(self.next_spi), Spi(self.next_spi + 1)];
        self.next_spi += 2;
        self.children.extend([(spis[0], spis[1]), (spis[1], spis[0])]);
        for at in 0..2 {
            let new = NewChild {
                pair: if at == 0 { pair() } else { pair().mirrored() },
                in_spi: spis[at],
                out_spi: spis[1 - at],
                suite: EspSuite { key_bits: 256, esn: true },
                encapsulation: None,
                in_key: SaKey::new(vec![0; 36]),
                out_key: SaKey::new(vec![0; 36]),
                initiator: at == initiator,
                foreign,
            };
            let child = Child::new(&new, token(spis[at]), None, 4096, Limits::default());
            assert!(self.ends[at].machine.handle_child(self.now, child));
        }
        spis
    }

    /// Lets both ends and their kernels do what is to be done now.
    pub(super) fn work(&mut self) {
        loop {
            let mut moved = false;
            for at in 0..2 {
                moved |= self.apply(at);
                while let Some(order) = self.ends[at].machine.poll_order() {
                    moved = true;
                    self.carry_out(at, order);
                }
            }
            if !moved {
                return;
            }
        }
    }

    pub(super) fn apply(&mut self, at: usize) -> bool {
        let End { machine, kernel, .. } = &mut self.ends[at];
        let desired = machine.desired();
        let ops = plan(&desired, kernel, &mut Indexes::of(kernel)).ops;
        for op in &ops {
            kernel.apply(op).unwrap();
            if let Op::AddPolicy { policy, .. } | Op::UpdatePolicy { policy, .. } = op
                && policies::inbound_pair(policy).is_some()
            {
                machine.handle_written(self.now);
            }
        }
        machine.handle_applied(self.now, &BTreeMap::new(), None);
        machine.desired() != desired
    }

    pub(super) fn carry_out(&mut self, at: usize, order: Order) {
        let other = 1 - at;
        match order {
            // Whatever it would wait for comes at once here.
            Order::Tell { in_spi, report: report @ Report { flags, .. }, .. } => {
                let rounds = flags.rounds.filter(|_| !self.roundless);
                let flags = Flags { rounds, heeds: flags.heeds && !self.roundless, ..flags };
                let report = Report { flags, ..report };
                let theirs = self.children[&in_spi];
                self.ends[other].machine.handle_report(self.now, theirs, &report, Duration::ZERO);
            }
            Order::Probe { sa, probe } => {
                assert!(self.ends[at].kernel.sas.contains_key(&sa.id()), "a probe needs its SA");
                self.now += self.busy;
                self.ends[at].machine.handle_probe_sent(self.now, sa.id());
                if self.esp[at] && self.ends[other].kernel.sas.contains_key(&sa.id()) {
                    assert!(
                        self.ends[other].machine.handle_probe(self.now, &probe, Duration::ZERO).is_some()
                    );
                }
            }
            Order::Delete { in_spi } => self.close(in_spi, at),
            Order::ReadUse => self.ends[at].machine.handle_use(self.now, self.traffic),
            _ => {}
        }
        self.ends[at].orders.push(order);
    }

    /// The key exchange deletes a child because `by` wants it.
    pub(super) fn close(&mut self, in_spi: Spi, by: usize) {
        let theirs = self.children[&in_spi];
        self.ends[by].machine.handle_closed(self.now, in_spi, false);
        self.ends[1 - by].machine.handle_closed(self.now, theirs, true);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let next = self.ends.iter().filter_map(|end| end.machine.poll_timeout()).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.now = end;
                return;
            };
            self.now = self.now.max(next);
            for at in 0..2 {
                self.ends[at].machine.handle_timeout(self.now);
            }
            self.work();
        }
    }

    /// The agent of `a` is killed; the next one finds what its kernel holds.
    pub(super) fn replace_agent(&mut self) {
        let kernel = &self.ends[0].kernel;
        let sas = kernel.sas.values().map(|sa| found(sa, pair())).collect();
        let outbound = match self.outbound(0) {
            Some(Action::Seal { through }) => Some(through),
            _ => None,
        };
        let [inbound, _] = policies::inbound(pair(), Action::Require);
        let inbound = kernel.policies.get(&inbound.id()).and_then(|policy| policy.action);
        let mut successor = PairMachine::new(pair(), rules(pair()), true, self.now);
        successor.adopt(Adopted { sas, outbound, inbound, ..Adopted::default() });
        successor.enable(self.now, false, None);
        self.ends[0].machine = successor;
    }

    pub(super) fn state(&self, at: usize) -> RowState {
        self.ends[at].machine.row_state()
    }

    pub(super) fn reason(&self, at: usize) -> String {
        let machine = &self.ends[at].machine;
        machine.reason().and_then(|reason| explain::of_pair(machine.pair(), &reason)).unwrap_or_default()
    }

    pub(super) fn states(&self) -> [RowState; 2] {
        [self.state(0), self.state(1)]
    }

    pub(super) fn outbound(&self, at: usize) -> Option<Action> {
        let pair = if at == 0 { pair() } else { pair().mirrored() };
        self.ends[at].kernel.policies.get(&policies::outbound(pair, Action::Block).id())?.action
    }

    pub(super) fn count(&self, at: usize, wanted: impl Fn(&Order) -> bool) -> usize {
        self.ends[at].orders.iter().filter(|order| wanted(order)).count()
    }

    pub(super) fn sealed() -> Self {
        let mut link = Self::new();
        link.agree(0, false);
        link.work();
        link.pass(SEAL_GRACE);
        assert_eq!(link.states(), [RowState::Protected; 2]);
        link
    }
}

pub(super) const MOMENT: Duration = Duration::from_millis(1);
