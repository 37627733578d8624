//! Two machines face to face, with a key exchange and a network that do what the test says.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::status::{ReasonCode, RowState};
use crate::model::word::Flags;
use crate::model::{
    Action, Direction, EspSuite, KernelState, Limits, NewChild, Op, Pair, Sa, SaId, SaKey, Spi, Word,
};
use crate::protect::timing::{
    IN_GRACE, KERNEL_RETRY, OPEN_PATIENCE, OUT_GRACE, QUIET_GRACE, SEAL_GRACE, TRIAL_GUARD, TRIAL_IN,
    TRIAL_OUT, TRIAL_PATIENCE, UNSETTLED_PATIENCE, quiet_grace,
};
use crate::protect::{Adopted, Child, Indexes, Order, PairMachine, Posture, plan, policies};

struct End {
    machine: PairMachine,
    kernel: KernelState,
    orders: Vec<Order>,
}

/// `a` has the smaller address: it initiates and leads.
struct Link {
    now: Instant,
    ends: [End; 2],
    /// ESP passes from `a` to `b`, and from `b` to `a`.
    esp: [bool; 2],
    /// Packets come in on both ends.
    traffic: bool,
    /// The ends do not tell each other of rounds, as agents of before did not.
    roundless: bool,
    children: BTreeMap<Spi, Spi>,
    next_spi: u32,
}

fn pair() -> Pair {
    Pair::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()).unwrap()
}

fn token(in_spi: Spi) -> [u8; 16] {
    [in_spi.0.to_be_bytes(); 4].concat().try_into().unwrap()
}

impl Link {
    fn new() -> Self {
        let now = Instant::now();
        let end = |pair| End {
            machine: PairMachine::new(pair, false, true, now),
            kernel: KernelState::default(),
            orders: Vec::new(),
        };
        let ends = [end(pair()), end(pair().mirrored())];
        let (esp, children) = ([true; 2], BTreeMap::new());
        let mut link = Self { now, ends, esp, traffic: true, roundless: false, children, next_spi: 1 };
        for at in 0..2 {
            link.ends[at].machine.enable(now, false, None);
        }
        link.work();
        link
    }

    /// The key exchange agreed a child that `initiator` asked for; returns the names of `a` and `b`.
    fn agree(&mut self, initiator: usize, foreign: bool) -> [Spi; 2] {
        let spis = [Spi(self.next_spi), Spi(self.next_spi + 1)];
        self.next_spi += 2;
        self.children.extend([(spis[0], spis[1]), (spis[1], spis[0])]);
        for at in 0..2 {
            let new = NewChild {
                pair: if at == 0 { pair() } else { pair().mirrored() },
                in_spi: spis[at],
                out_spi: spis[1 - at],
                suite: EspSuite { key_bits: 256, esn: true },
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
    fn work(&mut self) {
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

    fn apply(&mut self, at: usize) -> bool {
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

    fn carry_out(&mut self, at: usize, order: Order) {
        let other = 1 - at;
        match order {
            Order::Say { in_spi, flags } => {
                let flags = Flags { rounds: flags.rounds.filter(|_| !self.roundless), ..flags };
                let word = Word { spi: in_spi, token: token(in_spi), revision: 0, flags };
                let theirs = self.children[&in_spi];
                self.ends[other].machine.handle_word(self.now, theirs, &word, Duration::ZERO);
            }
            Order::Probe { sa, token } => {
                assert!(self.ends[at].kernel.sas.contains_key(&sa.id()), "a probe needs its SA");
                if self.esp[at] && self.ends[other].kernel.sas.contains_key(&sa.id()) {
                    assert!(
                        self.ends[other].machine.handle_probe(self.now, &token, Duration::ZERO).is_some()
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
    fn close(&mut self, in_spi: Spi, by: usize) {
        let theirs = self.children[&in_spi];
        self.ends[by].machine.handle_closed(self.now, in_spi, false);
        self.ends[1 - by].machine.handle_closed(self.now, theirs, true);
    }

    fn pass(&mut self, time: Duration) {
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
    fn replace_agent(&mut self) {
        let kernel = &self.ends[0].kernel;
        let sas = kernel.sas.values().map(|sa| (sa.id, sa.direction(pair()))).collect();
        let outbound = match self.outbound(0) {
            Some(Action::Seal { spi }) => Some(spi),
            _ => None,
        };
        let [inbound, _] = policies::inbound(pair(), Action::Require);
        let inbound = kernel.policies.get(&inbound.id()).and_then(|policy| policy.action);
        let mut successor = PairMachine::new(pair(), true, true, self.now);
        successor.adopt(Adopted { sas, outbound, inbound, until: None });
        successor.enable(self.now, false, None);
        self.ends[0].machine = successor;
    }

    fn state(&self, at: usize) -> RowState {
        self.ends[at].machine.row_state()
    }

    fn reason(&self, at: usize) -> String {
        self.ends[at].machine.reason().map(|(_, words)| words).unwrap_or_default()
    }

    fn states(&self) -> [RowState; 2] {
        [self.state(0), self.state(1)]
    }

    fn outbound(&self, at: usize) -> Option<Action> {
        let pair = if at == 0 { pair() } else { pair().mirrored() };
        self.ends[at].kernel.policies.get(&policies::outbound(pair, Action::Block).id())?.action
    }

    fn count(&self, at: usize, wanted: impl Fn(&Order) -> bool) -> usize {
        self.ends[at].orders.iter().filter(|order| wanted(order)).count()
    }

    fn sealed() -> Self {
        let mut link = Self::new();
        link.agree(0, false);
        link.work();
        link.pass(SEAL_GRACE);
        assert_eq!(link.states(), [RowState::Protected; 2]);
        link
    }
}

const MOMENT: Duration = Duration::from_millis(1);

#[test]
fn a_child_proven_both_ways_carries_traffic_and_seals_after_a_grace() {
    let mut link = Link::new();
    assert_eq!(link.states(), [RowState::Negotiating; 2]);
    assert!(link.reason(0).starts_with("agreeing keys"), "{}", link.reason(0));
    let [a, b] = link.agree(0, false);
    link.apply(0);
    assert!(link.reason(0).starts_with("agreed keys, proving"), "{}", link.reason(0));
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: b }));
    assert_eq!(link.outbound(1), Some(Action::Seal { spi: a }));
    assert_eq!(link.states(), [RowState::Negotiating; 2]);
    assert!(link.reason(0).starts_with("sending ESP"), "{}", link.reason(0));
    link.pass(SEAL_GRACE - MOMENT);
    assert!(!link.ends[0].machine.is_sealed());
    link.pass(MOMENT);
    assert_eq!(link.states(), [RowState::Protected; 2]);
    for at in 0..2 {
        assert_eq!(link.count(at, |order| *order == Order::Persist), 1);
        assert_eq!(link.count(at, |order| matches!(order, Order::Settled { .. })), 1);
    }
}

#[test]
fn where_nothing_comes_in_a_shorter_grace_does() {
    let mut link = Link::new();
    link.traffic = false;
    link.pass(MOMENT);
    link.agree(0, false);
    link.work();
    link.pass(QUIET_GRACE - MOMENT);
    assert_eq!(link.states(), [RowState::Negotiating; 2]);
    link.pass(MOMENT);
    assert_eq!(link.states(), [RowState::Protected; 2]);
    for at in 0..2 {
        assert_eq!(link.count(at, |order| *order == Order::ReadUse), 1);
        assert_eq!(link.count(at, |order| *order == Order::Persist), 1);
    }
}

#[test]
fn any_doubt_that_nothing_came_in_leaves_the_full_grace() {
    let come_in: fn(&mut Link) = |link| link.traffic = true;
    let write_again: fn(&mut Link) = |link| {
        let now = link.now;
        link.ends.iter_mut().for_each(|end| end.machine.handle_written(now));
    };
    let doubts = [("packets come in", come_in), ("the policies were written again", write_again)];
    for (doubt, arrange) in doubts {
        let mut link = Link::new();
        link.traffic = false;
        link.pass(MOMENT);
        link.agree(0, false);
        link.work();
        link.pass(MOMENT);
        arrange(&mut link);
        link.pass(SEAL_GRACE - 2 * MOMENT);
        assert_eq!(link.states(), [RowState::Negotiating; 2], "{doubt}");
        link.pass(MOMENT);
        assert_eq!(link.states(), [RowState::Protected; 2], "{doubt}");
    }
}

#[test]
fn the_shorter_grace_follows_the_round_trip() {
    let milliseconds = Duration::from_millis;
    assert_eq!(quiet_grace(milliseconds(0)), QUIET_GRACE);
    assert_eq!(quiet_grace(milliseconds(100)), milliseconds(400));
    assert_eq!(quiet_grace(milliseconds(800)), SEAL_GRACE);
}

#[test]
fn esp_that_does_not_get_through_moves_nothing() {
    let ways = [[true, false], [false, true], [false, false]];
    for (blocked, roundless) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let mut link = Link::new();
        link.esp = blocked;
        link.roundless = roundless;
        link.agree(0, false);
        link.work();
        link.pass(Duration::from_secs(20));
        for at in 0..2 {
            // The end whose packets arrive may not know that, but it does not require what cannot come.
            assert_ne!(link.state(at), RowState::Protected, "{blocked:?}");
            assert!(!link.ends[at].machine.is_sealed());
        }
        let sender = usize::from(blocked[0]);
        assert_eq!(link.outbound(sender), None, "the blocked way stays clear: {blocked:?}");
        assert_eq!(link.ends[sender].machine.reason().unwrap().0, ReasonCode::EspBlocked);
        link.esp = [true; 2];
        link.pass(Duration::from_secs(20));
        assert_eq!(link.states(), [RowState::Protected; 2]);
    }
}

#[test]
fn a_rekey_moves_the_policy_then_the_old_child_goes_step_by_step() {
    let mut link = Link::sealed();
    let [a, b] = link.agree(1, false);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: b }));
    assert_eq!(link.outbound(1), Some(Action::Seal { spi: a }));
    assert_eq!(link.ends[0].kernel.sas.len(), 4);
    link.pass(OUT_GRACE - MOMENT);
    assert_eq!(link.ends[0].kernel.sas.len(), 4);
    link.pass(MOMENT);
    assert_eq!(link.ends[0].kernel.sas.len(), 3, "the old outbound SA is gone, the inbound one is not");
    assert_eq!(link.count(1, |order| matches!(order, Order::Delete { .. })), 1, "who initiated deletes");
    assert_eq!(link.count(0, |order| matches!(order, Order::Delete { .. })), 0);
    link.pass(IN_GRACE);
    for at in 0..2 {
        assert_eq!(link.ends[at].kernel.sas.len(), 2);
        assert_eq!(link.state(at), RowState::Protected);
    }
}

#[test]
fn children_that_crossed_end_on_the_one_that_the_smaller_address_leads() {
    let mut link = Link::sealed();
    // Each end sees its own child as the newer one.
    let first = link.agree(0, false);
    let second = link.agree(1, false);
    link.ends[1].machine.handle_timeout(link.now);
    link.work();
    let led = link.outbound(0);
    assert!(led == Some(Action::Seal { spi: second[1] }) || led == Some(Action::Seal { spi: first[1] }));
    let peers = if led == Some(Action::Seal { spi: second[1] }) { second[0] } else { first[0] };
    assert_eq!(link.outbound(1), Some(Action::Seal { spi: peers }));
    link.pass(Duration::from_secs(30));
    assert_eq!((link.ends[0].kernel.sas.len(), link.ends[1].kernel.sas.len()), (2, 2));
}

#[test]
fn disabling_one_end_takes_both_to_the_clear_in_stages() {
    let mut link = Link::sealed();
    link.ends[0].machine.disable(link.now);
    link.work();
    assert_eq!((link.outbound(0), link.outbound(1)), (None, None));
    assert_eq!(link.ends[0].kernel.sas.len(), 2, "SAs outlive what is under way");
    link.pass(IN_GRACE);
    assert!(link.ends[0].kernel.sas.is_empty() && link.ends[0].kernel.policies.is_empty());
    assert_eq!(link.state(0), RowState::Off);
    assert_eq!(link.state(1), RowState::Clear);
    assert_eq!(link.ends[1].machine.reason().unwrap().0, ReasonCode::PeerDisabled);
    assert_eq!(link.count(0, |order| *order == Order::Posture(Posture::Forget)), 1);
    assert_eq!(link.count(1, |order| *order == Order::Posture(Posture::Passive)), 1);
    // And again.
    link.ends[0].machine.enable(link.now, false, None);
    link.agree(0, false);
    link.work();
    link.pass(SEAL_GRACE);
    assert_eq!(link.states(), [RowState::Protected; 2]);
}

#[test]
fn a_peer_may_not_open_a_pair_where_that_is_forbidden() {
    let mut link = Link::new();
    let pair = pair().mirrored();
    link.ends[1].machine = PairMachine::new(pair, false, false, link.now);
    link.ends[1].machine.enable(link.now, false, None);
    link.agree(0, false);
    link.work();
    link.pass(SEAL_GRACE);
    link.ends[0].machine.disable(link.now);
    link.work();
    link.pass(Duration::from_secs(10));
    assert_eq!(link.state(0), RowState::Off);
    assert!(link.ends[1].machine.is_sealed());
    assert!(matches!(link.outbound(1), Some(Action::Seal { .. })));
}

#[test]
fn a_sealed_pair_without_a_child_is_blocked_and_an_unsealed_one_clear() {
    let mut link = Link::sealed();
    link.close(Spi(2), 1);
    link.work();
    link.pass(IN_GRACE);
    assert_eq!(link.state(0), RowState::Blocked);
    assert!(matches!(link.outbound(0), Some(Action::Seal { .. })));

    let mut link = Link::new();
    link.agree(0, false);
    link.work();
    link.close(Spi(2), 1);
    link.work();
    assert_eq!(link.outbound(0), None);
    assert!(!link.ends[0].machine.is_sealed());
}

/// As after a reboot: what was sealed is remembered, and no SA is left.
#[test]
fn a_pair_that_starts_sealed_blocks_until_it_has_something_to_send_through() {
    let mut link = Link::sealed();
    for (end, pair) in link.ends.iter_mut().zip([pair(), pair().mirrored()]) {
        end.kernel = KernelState::default();
        end.machine = PairMachine::new(pair, true, true, link.now);
        end.machine.enable(link.now, false, None);
    }
    link.work();
    assert_eq!((link.outbound(0), link.outbound(1)), (Some(Action::Block), Some(Action::Block)));
    assert_eq!(link.states(), [RowState::Blocked; 2]);
    let [a, b] = link.agree(0, false);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: b }));
    assert_eq!(link.outbound(1), Some(Action::Seal { spi: a }));
    assert_eq!(link.states(), [RowState::Protected; 2]);
}

#[test]
fn a_pair_that_is_enabled_strictly_is_sealed_at_once_and_keyed_from_there() {
    let mut link = Link::new();
    link.ends[0].machine.enable(link.now, true, None);
    link.work();
    assert_eq!((link.outbound(0), link.outbound(1)), (Some(Action::Block), None));
    assert_eq!(link.states(), [RowState::Blocked, RowState::Negotiating]);
    assert_eq!(link.count(0, |order| *order == Order::Persist), 1);
    link.agree(0, false);
    link.work();
    assert_eq!(link.state(0), RowState::Protected, "the peer already sends ESP");
    link.pass(SEAL_GRACE);
    assert_eq!(link.states(), [RowState::Protected; 2]);
}

/// The ends of all policies in the kernel, each once.
fn ends(end: &End) -> Vec<Option<Instant>> {
    let mut ends: Vec<_> = end.kernel.policies.values().map(|policy| policy.until).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

impl Link {
    /// The first end is on trial for a minute; both are protected. And when it ends.
    fn on_trial() -> (Self, Instant) {
        let mut link = Self::new();
        let end = link.now + Duration::from_secs(60);
        link.ends[0].machine.enable(link.now, false, Some(end));
        link.agree(0, false);
        link.work();
        link.pass(SEAL_GRACE);
        assert_eq!(link.states(), [RowState::Protected; 2]);
        (link, end)
    }
}

#[test]
fn on_trial_both_kernels_let_go_by_themselves_inbound_first() {
    let (mut link, end) = Link::on_trial();
    for at in 0..2 {
        assert_eq!(ends(&link.ends[at]), [Some(end + TRIAL_IN), Some(end + TRIAL_OUT)]);
        assert_eq!(link.ends[at].machine.guard_until(), Some(end + TRIAL_GUARD));
        assert_eq!(link.ends[at].machine.trial_end(), Some(end));
        assert_eq!(link.count(at, |order| *order == Order::Persist), 0, "nothing is final");
    }
    link.ends[0].machine.confirm(link.now);
    link.work();
    for at in 0..2 {
        assert_eq!(ends(&link.ends[at]), [None]);
        assert!(link.ends[at].machine.is_saved_as_sealed());
        assert_eq!(link.count(at, |order| *order == Order::Persist), 1);
    }
    link.pass(Duration::from_secs(120));
    assert_eq!(link.states(), [RowState::Protected; 2]);
}

#[test]
fn the_other_end_of_a_trial_opens_in_time_and_stays_if_it_hears_of_the_confirmation_late() {
    let (mut link, end) = Link::on_trial();
    let now = end;
    link.ends[1].machine.handle_timeout(now);
    assert!(!link.ends[1].machine.is_sealed(), "it accepts clear packets");
    let until = link.ends[1].machine.desired().policies.iter().filter_map(|policy| policy.until).max();
    assert_eq!(until, Some(end + TRIAL_PATIENCE + TRIAL_OUT), "and would let go if its agent died now");
    link.now = now;
    link.ends[0].machine.confirm(now);
    link.work();
    assert_eq!(link.ends[1].machine.trial_end(), None);
    link.pass(SEAL_GRACE);
    assert!(link.ends[1].machine.is_saved_as_sealed());
    assert!(matches!(link.outbound(1), Some(Action::Seal { .. })));
}

#[test]
fn a_trial_opens_no_pair_that_was_sealed_before() {
    let mut link = Link::new();
    let pair = pair().mirrored();
    link.ends[1].machine = PairMachine::new(pair, true, false, link.now);
    link.ends[1].machine.enable(link.now, false, None);
    let end = link.now + Duration::from_secs(60);
    link.ends[0].machine.enable(link.now, false, Some(end));
    link.agree(0, false);
    link.work();
    link.pass(SEAL_GRACE);
    assert_eq!(link.states(), [RowState::Protected; 2]);
    assert_eq!(ends(&link.ends[1]), [None]);
    link.pass(Duration::from_secs(60));
    link.ends[0].machine.disable(link.now);
    link.work();
    link.pass(Duration::from_secs(60));
    assert_eq!(link.state(0), RowState::Off);
    assert!(link.ends[1].machine.is_saved_as_sealed());
}

#[test]
fn what_an_agent_before_left_on_trial_is_taken_over_as_such() {
    let (mut link, end) = Link::on_trial();
    let sas = link.ends[1].kernel.sas.values().map(|sa| (sa.id, sa.direction(pair().mirrored()))).collect();
    let mut successor = PairMachine::new(pair().mirrored(), false, true, link.now);
    successor.adopt(Adopted {
        sas,
        outbound: Some(Spi(1)),
        inbound: Some(Action::Require),
        until: Some(end),
    });
    successor.enable(link.now, false, None);
    link.ends[1].machine = successor;
    link.work();
    assert_eq!(link.state(1), RowState::Protected);
    assert_eq!(ends(&link.ends[1]), [Some(end + TRIAL_IN), Some(end + TRIAL_OUT)]);
    assert!(!link.ends[1].machine.is_saved_as_sealed());
    link.now = end;
    link.ends[1].machine.handle_timeout(end);
    assert!(!link.ends[1].machine.is_sealed());
}

#[test]
fn an_orphan_serves_until_another_child_has_taken_over() {
    let mut link = Link::sealed();
    link.ends[0].machine.handle_closed(link.now, Spi(1), false);
    link.work();
    link.pass(Duration::from_secs(60));
    assert_eq!(link.state(0), RowState::Protected);
    assert_eq!(link.ends[0].machine.unrenewed(), None);
    link.ends[0].machine.handle_failure(link.now, ReasonCode::NoAnswer, "no answer".to_owned());
    assert_eq!(link.state(0), RowState::Protected);
    let warning = Some((ReasonCode::NoAnswer, "no answer".to_owned()));
    assert_eq!(link.ends[0].machine.unrenewed(), warning.as_ref());
    link.agree(0, false);
    link.work();
    assert_eq!(link.ends[0].machine.unrenewed(), None);
    link.pass(Duration::from_secs(60));
    assert_eq!(link.ends[0].kernel.sas.len(), 2);
    assert_eq!(link.state(0), RowState::Protected);
}

#[test]
fn a_lost_sa_is_replaced_and_never_installed_again() {
    let mut link = Link::sealed();
    link.ends[0].kernel.sas.clear();
    link.ends[0].machine.handle_reading(link.now, |_| false);
    link.work();
    assert_eq!(link.state(0), RowState::Blocked);
    assert_eq!(link.count(0, |order| *order == Order::Rekey { in_spi: Spi(1) }), 1);
    assert!(link.ends[0].kernel.sas.is_empty());
    link.agree(0, false);
    link.work();
    assert_eq!(link.states(), [RowState::Protected; 2]);
}

#[test]
fn adopted_sas_serve_until_a_child_has_taken_over() {
    let mut link = Link::sealed();
    link.replace_agent();
    link.work();
    assert_eq!(link.state(0), RowState::Protected);
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: Spi(2) }));
    link.pass(Duration::from_secs(60));
    assert_eq!(link.ends[0].kernel.sas.len(), 2);
    let [_, b] = link.agree(0, false);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: b }));
    assert_eq!(link.ends[0].kernel.sas.len(), 4);
    link.pass(Duration::from_secs(30));
    assert_eq!(link.ends[0].kernel.sas.len(), 2);
}

#[test]
fn the_peer_is_told_before_a_successor_goes_to_the_clear() {
    let mut link = Link::sealed();
    link.replace_agent();
    link.ends[0].machine.disable(link.now);
    link.work();
    link.pass(MOMENT);
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: Spi(2) }), "nobody to tell yet");
    assert!(link.ends[0].machine.is_sealed());
    link.agree(0, false);
    link.work();
    assert_eq!((link.outbound(0), link.outbound(1)), (None, None));
    link.pass(2 * IN_GRACE);
    assert_eq!(link.state(0), RowState::Off);
    assert_eq!(link.ends[1].machine.reason().unwrap().0, ReasonCode::PeerDisabled);
    assert!(link.ends.iter().all(|end| end.kernel.sas.is_empty()));
}

#[test]
fn a_successor_that_meets_nobody_goes_to_the_clear_all_the_same() {
    let mut link = Link::sealed();
    link.replace_agent();
    link.ends[0].machine.disable(link.now);
    link.work();
    link.pass(OPEN_PATIENCE + IN_GRACE);
    assert_eq!(link.state(0), RowState::Off);
    assert!(link.ends[0].kernel.sas.is_empty() && link.ends[0].kernel.policies.is_empty());
}

/// The file may be older than the kernel: it is written after it.
#[test]
fn a_successor_believes_the_kernel_that_a_pair_was_opened() {
    let mut link = Link::sealed();
    link.ends[1].machine.disable(link.now);
    link.work();
    link.replace_agent();
    assert!(!link.ends[0].machine.is_sealed());
    link.work();
    assert_ne!(link.state(0), RowState::Blocked);
}

/// What began it may die before its own outbound policy is gone.
#[test]
fn inbound_sas_stay_until_the_end_that_disables_has_stopped_sending() {
    let mut link = Link::sealed();
    // Dead once it has said that it is open.
    link.ends[0].machine = PairMachine::new(pair(), true, true, link.now);
    let machine = &mut link.ends[1].machine;
    let flags = Flags { installed: true, seen: true, sending: true, open: true, ..Flags::default() };
    let word = Word { spi: Spi(1), token: token(Spi(1)), revision: 9, flags };
    machine.handle_word(link.now, Spi(2), &word, Duration::ZERO);
    link.apply(1);
    assert_eq!(link.outbound(1), None);
    link.pass(60 * IN_GRACE);
    let incoming = SaId::of(pair().mirrored(), Direction::In, Spi(2));
    assert!(link.ends[1].kernel.sas.contains_key(&incoming));
    let stopped = Word { revision: 10, flags: Flags { sending: false, ..flags }, ..word };
    link.ends[1].machine.handle_word(link.now, Spi(2), &stopped, Duration::ZERO);
    link.pass(IN_GRACE - MOMENT);
    assert!(link.ends[1].kernel.sas.contains_key(&incoming), "packets are still under way");
    link.pass(MOMENT);
    assert!(link.ends[1].kernel.sas.is_empty());
}

#[test]
fn a_foreign_peer_is_believed_without_words_or_probes() {
    let mut link = Link::new();
    let [a, b] = link.agree(0, true);
    link.work();
    assert_eq!(link.outbound(0), None);
    link.ends[0].machine.handle_foreign_ready(link.now, a);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: b }));
    link.pass(SEAL_GRACE);
    assert_eq!(link.state(0), RowState::Protected);
    assert_eq!(link.count(0, |order| matches!(order, Order::Say { .. } | Order::Probe { .. })), 0);
}

#[test]
fn a_refused_sa_refuses_the_child() {
    let mut link = Link::new();
    link.agree(0, false);
    let machine = &mut link.ends[0].machine;
    let id = SaId::of(pair(), Direction::Out, Spi(2));
    let error = crate::model::OpError::Refused { op: "add".to_owned(), reason: "no memory".to_owned() };
    machine.handle_applied(link.now, &BTreeMap::from([(id, error)]), None);
    let orders: Vec<Order> = std::iter::from_fn(|| machine.poll_order()).collect();
    assert!(orders.contains(&Order::Installed { in_spi: Spi(1), ok: false }));
    assert!(machine.desired().fresh.is_empty() && machine.desired().keep.is_empty());
    assert_eq!(machine.reason().unwrap().0, ReasonCode::KernelError);
}

#[test]
fn ends_that_do_not_settle_ask_whether_the_sessions_live() {
    let mut link = Link::new();
    link.esp = [true, false];
    link.agree(0, false);
    link.work();
    link.pass(UNSETTLED_PATIENCE - MOMENT);
    assert_eq!(link.count(0, |order| *order == Order::CheckLiveness), 0);
    link.pass(MOMENT + UNSETTLED_PATIENCE);
    assert_eq!(link.count(0, |order| *order == Order::CheckLiveness), 2);

    let mut link = Link::sealed();
    link.pass(60 * UNSETTLED_PATIENCE);
    assert_eq!(link.count(0, |order| *order == Order::CheckLiveness), 0, "settled ends need not ask");
}

#[test]
fn a_newer_child_whose_session_turns_out_dead_gives_way_to_the_older() {
    let mut link = Link::sealed();
    let [a, b] = link.agree(1, false);
    // Only the first end goes on with the new child: for the other its session is gone.
    link.apply(0);
    link.ends[0].machine.handle_probe(link.now, &token(a), Duration::ZERO);
    let seen = Flags { installed: true, seen: true, ..Flags::default() };
    let word = Word { spi: b, token: token(b), revision: 1, flags: seen };
    link.ends[0].machine.handle_word(link.now, a, &word, Duration::ZERO);
    link.apply(0);
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: b }));
    link.ends[0].machine.handle_timeout(link.now + OUT_GRACE);
    link.ends[0].machine.handle_closed(link.now + OUT_GRACE, a, false);
    link.apply(0);
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: Spi(2) }), "back to the one that both know");
    assert_eq!(link.state(0), RowState::Protected);
}

#[test]
fn a_pair_is_not_called_protected_while_the_kernel_refuses_its_policies() {
    let mut link = Link::sealed();
    let machine = &mut link.ends[0].machine;
    machine.handle_applied(link.now, &BTreeMap::new(), Some("update policy in: no memory".to_owned()));
    assert_eq!(machine.row_state(), RowState::Clear);
    assert_eq!(machine.reason().unwrap().0, ReasonCode::KernelError);
    link.pass(KERNEL_RETRY);
    assert_eq!(link.state(0), RowState::Protected, "tried again");
}

#[test]
fn without_its_address_a_pair_says_so_and_keeps_what_it_has() {
    let mut link = Link::sealed();
    let (now, spis) = (link.now, link.ends[0].kernel.sas.len());
    assert!(!link.ends[0].machine.handle_address(now, false));
    link.work();
    assert_eq!(link.states(), [RowState::Blocked, RowState::Protected]);
    let (code, words) = link.ends[0].machine.reason().unwrap();
    assert_eq!(code, ReasonCode::NoAddress);
    assert!(words.contains("10.0.0.1"), "{words}");
    assert_eq!(link.ends[0].kernel.sas.len(), spis);
    assert!(link.ends[0].machine.handle_address(now, true), "it is back");
    assert!(!link.ends[0].machine.handle_address(now, true), "that is no news any more");
    link.work();
    assert_eq!(link.states(), [RowState::Protected; 2]);
}

#[test]
fn esp_that_stops_getting_through_blocks_a_sealed_pair_until_it_passes_again() {
    for esp in [[true, false], [false, true], [false, false]] {
        for asks in 0..2 {
            let mut link = Link::sealed();
            let outbound = link.outbound(0);
            link.esp = esp;
            assert!(link.ends[asks].machine.prove_anew(link.now));
            link.work();
            assert!(!link.ends[asks].machine.prove_anew(link.now), "it is under way");
            assert_eq!(link.states(), [RowState::Protected; 2], "nothing is proven yet");
            link.pass(Duration::from_secs(4));
            for at in 0..2 {
                assert_eq!(link.state(at), RowState::Blocked, "{esp:?}");
                assert_eq!(link.ends[at].machine.reason().unwrap().0, ReasonCode::EspBlocked);
                assert!(link.ends[at].machine.is_sealed());
            }
            assert_eq!(link.outbound(0), outbound, "it goes on trying");
            link.pass(Duration::from_secs(600));
            link.esp = [true; 2];
            link.pass(Duration::from_secs(11));
            assert_eq!(link.states(), [RowState::Protected; 2], "{esp:?}");
            assert!(link.ends.iter().all(|end| end.machine.poll_timeout().is_none()), "all is quiet");
        }
    }
}

#[test]
fn a_proof_that_succeeds_changes_nothing_and_ends() {
    let mut link = Link::sealed();
    link.pass(IN_GRACE);
    for at in [0, 1, 1, 0] {
        assert!(link.ends[at].machine.prove_anew(link.now));
        link.work();
        assert_eq!(link.states(), [RowState::Protected; 2]);
        assert!(link.ends.iter().all(|end| end.machine.poll_timeout().is_none()));
    }
}

#[test]
fn an_agent_that_knows_no_rounds_is_asked_for_none() {
    let mut link = Link::new();
    link.roundless = true;
    link.agree(0, false);
    link.work();
    link.pass(SEAL_GRACE);
    assert_eq!(link.states(), [RowState::Protected; 2]);
    assert!(!link.ends[0].machine.prove_anew(link.now));
}

#[test]
fn an_inbound_sa_ahead_of_its_child_is_installed_once() {
    let mut link = Link::new();
    let suite = EspSuite { key_bits: 256, esn: true };
    let sa = |spi| Sa {
        pair: pair(),
        direction: Direction::In,
        spi: Spi(spi),
        suite,
        replay_window: 4096,
        limits: Limits::default(),
    };
    let now = link.now;
    assert!(link.ends[0].machine.handle_inbound_ahead(now, sa(77)));
    link.work();
    assert!(link.ends[0].kernel.sas.contains_key(&sa(77).id()) && link.ends[0].machine.is_ahead(Spi(77)));
    link.ends[0].machine.handle_closed(now, Spi(77), false);
    link.work();
    assert!(link.ends[0].kernel.sas.is_empty(), "the peer did not agree");
    assert!(link.ends[0].machine.handle_inbound_ahead(now, sa(1)));
    link.work();
    let [a, b] = link.agree(0, true);
    assert_eq!(a, Spi(1));
    let fresh = |link: &Link| {
        let desired = link.ends[0].machine.desired();
        plan(&desired, &link.ends[0].kernel, &mut Indexes::default()).ops
    };
    let added: Vec<SaId> = fresh(&link)
        .iter()
        .filter_map(|op| if let Op::AddSa(sa) = op { Some(sa.id()) } else { None })
        .collect();
    assert_eq!(added, [SaId::of(pair(), Direction::Out, b)], "the inbound one is there");
    link.work();
    assert_eq!(link.count(0, |order| *order == Order::Installed { in_spi: a, ok: true }), 1);
}

/// A responder knows that a peer without words is ready when its first packet comes.
#[test]
fn the_first_packet_of_a_stranger_switches_outbound() {
    let mut link = Link::new();
    let [a, b] = link.agree(1, true);
    link.work();
    assert_eq!(link.outbound(0), None);
    let (now, inbound) = (link.now, SaId::of(pair(), Direction::In, a));
    assert!(!link.ends[0].machine.handle_first_packet(now, SaId::of(pair(), Direction::In, b)));
    assert_eq!(link.ends[0].machine.unwatched().collect::<Vec<_>>(), [inbound]);
    assert!(link.ends[0].machine.handle_first_packet(now, inbound));
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { spi: b }));
    assert!(!link.ends[1].machine.handle_first_packet(now, SaId::of(pair().mirrored(), Direction::In, b)));
}
