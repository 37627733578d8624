//! Every prefix safe, idempotent, strangers untouched.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::policies::{Packet, Verdict, verdict};
use crate::config::Exemptions;
use crate::protect::{Desired, Indexes, plan, policies};
use crate::types::ours::is_our_policy;
use crate::types::{
    Action, Block, Direction, EspSuite, Exemption, KernelState, Limits, Op, Pair, Policy, PolicyDirection,
    PolicyReading, Ports, Reqid, Sa, Selector, Spi, Through,
};

fn address(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn pair() -> Pair {
    Pair { local: address(1), remote: address(2) }
}

fn sa(direction: Direction, spi: u32) -> Sa {
    Sa {
        pair: pair(),
        direction,
        spi: Spi(spi),
        reqid: Reqid::COMMON,
        suite: EspSuite { key_bits: 256, esn: true },
        encapsulation: None,
        replay_window: 4096,
        limits: Limits::default(),
    }
}

/// A stage of a pair with its guard and exemptions, as the machine would want it.
#[derive(Debug, Clone)]
struct Stage {
    sealed: bool,
    /// All pairs with the peer are sealed.
    guarded: bool,
    outbound: Option<u32>,
    sas: Vec<(bool, u32)>,
    exempt: Vec<Exemption>,
}

impl Stage {
    fn desired(&self, fresh: bool) -> Desired {
        let mut desired = Desired::default();
        let sas = self
            .sas
            .iter()
            .map(|(inbound, spi)| sa(if *inbound { Direction::In } else { Direction::Out }, *spi));
        if fresh {
            desired.fresh.extend(sas);
        } else {
            desired.keep.extend(sas.map(|sa| sa.id()));
        }
        let action = if self.sealed { Action::Require } else { Action::Accept };
        desired.policies.extend(policies::inbound(pair(), action));
        let seal = self.outbound.map(|spi| Action::Seal { through: Through::Sa(Spi(spi)) });
        let outbound = seal.or(self.sealed.then_some(Action::Block));
        desired.policies.extend(outbound.map(|action| policies::outbound(pair(), action)));
        let exempt = Exemptions::of_all(self.exempt.iter().cloned());
        desired.policies.extend(policies::exempt(pair().remote, &exempt));
        desired.policies.extend(policies::neighbour_discovery());
        if self.sealed && self.guarded {
            desired.policies.extend(policies::block(Block::host(address(9)), pair().remote));
        }
        desired
    }
}

fn stage(sealed: impl Strategy<Value = bool>) -> impl Strategy<Value = Stage> {
    let exempt = prop::sample::subsequence(vec!["tcp/22", "udp/6000-6010", "icmp"], 0..=3);
    let spi = 1..6u32;
    (sealed, any::<bool>(), prop::option::of(spi.clone()), vec((any::<bool>(), spi), 0..6), exempt).prop_map(
        |(sealed, guarded, outbound, mut sas, exempt)| {
            sas.sort_unstable();
            sas.dedup();
            let exempt = exempt.into_iter().filter_map(|entry| entry.parse().ok()).collect();
            Stage { sealed, guarded, outbound, sas, exempt }
        },
    )
}

/// Policies of other IPsec software, some with selectors that we want too.
fn strangers() -> impl Strategy<Value = Vec<PolicyReading>> {
    let direction =
        prop::sample::select(vec![PolicyDirection::In, PolicyDirection::Out, PolicyDirection::Forward]);
    let block =
        prop::sample::select(vec![Block::host(address(1)), Block::host(address(2)), Block::any(address(1))]);
    let stranger = (direction, block.clone(), block, any::<bool>(), 1..2000u32);
    vec(stranger, 0..5).prop_map(|all| {
        all.into_iter()
            .enumerate()
            .map(|(at, (direction, source, destination, allow, priority))| {
                let selector = Selector {
                    protocol: 17,
                    source_ports: Ports::one(at as u16 + 1),
                    ..Selector::between(source, destination)
                };
                let selector = if at == 0 { Selector::between(source, destination) } else { selector };
                let policy = Policy { direction, selector, action: Action::Allow, priority, until: None };
                PolicyReading {
                    id: policy.id(),
                    index: 8 * (at as u32 + 1),
                    priority,
                    action: allow.then_some(policy.action),
                    until: None,
                }
            })
            .collect()
    })
}

fn apply(state: &mut KernelState, ops: &[Op]) {
    for op in ops {
        state.apply(op).unwrap_or_else(|error| panic!("{error}"));
    }
}

fn kernel(stage: &Stage, strangers: &[PolicyReading]) -> KernelState {
    let mut state = KernelState::default();
    state.policies.extend(strangers.iter().map(|stranger| (stranger.id, *stranger)));
    let first = plan(&stage.desired(true), &state, &mut Indexes::of(&state));
    apply(&mut state, &first.ops);
    state
}

proptest! {
    #[test]
    fn a_plan_leads_to_what_is_desired_and_a_second_finds_nothing(
        before in stage(any::<bool>()), after in stage(any::<bool>()), strangers in strangers()
    ) {
        let mut state = kernel(&before, &strangers);
        let desired = after.desired(true);
        let first = plan(&desired, &state, &mut Indexes::of(&state));
        apply(&mut state, &first.ops);
        for policy in &desired.policies {
            let there = &state.policies[&policy.id()];
            prop_assert!(!is_our_policy(there) || there.action == Some(policy.action));
        }
        prop_assert_eq!(state.sas.len(), after.sas.len());
        let second = plan(&desired, &state, &mut Indexes::of(&state));
        prop_assert!(second.ops.is_empty(), "{:?}", second.ops);
        prop_assert_eq!(first.conflicts, second.conflicts);
    }

    #[test]
    fn strangers_are_never_touched_and_reported_where_they_are_in_the_way(
        before in stage(any::<bool>()), after in stage(any::<bool>()), strangers in strangers()
    ) {
        let mut state = kernel(&before, &strangers);
        let planned = plan(&after.desired(true), &state, &mut Indexes::of(&state));
        apply(&mut state, &planned.ops);
        for stranger in &strangers {
            prop_assert_eq!(state.policies.get(&stranger.id), Some(stranger));
            let wanted = after.desired(true).policies.iter().any(|policy| policy.id() == stranger.id);
            prop_assert_eq!(planned.conflicts.contains(stranger), wanted);
        }
        // And the way out leaves them alone too.
        let out = plan(&Desired::default(), &state, &mut Indexes::of(&state));
        apply(&mut state, &out.ops);
        prop_assert!(state.sas.is_empty());
        prop_assert_eq!(state.policies.len(), strangers.len());
    }

    #[test]
    fn a_sealed_pair_is_protected_or_dropped_after_every_prefix(
        before in stage(Just(true)), after in stage(Just(true))
    ) {
        let mut state = kernel(&before, &[]);
        let planned = plan(&after.desired(true), &state, &mut Indexes::of(&state));
        for op in &planned.ops {
            state.apply(op).unwrap();
            for (direction, packet) in [
                (PolicyDirection::Out, Packet::tcp(pair().local, 40_000, pair().remote, 80)),
                (PolicyDirection::In, Packet::tcp(pair().remote, 40_000, pair().local, 80)),
                (PolicyDirection::In, Packet::tcp(pair().remote, 22, pair().local, 80)),
            ] {
                let verdict = verdict(&state, direction, &packet);
                prop_assert!(!matches!(verdict, Verdict::Clear), "after {op}: {packet:?} {direction:?}");
            }
        }
    }

    #[test]
    fn a_key_is_never_installed_a_second_time(stage in stage(any::<bool>())) {
        let mut state = kernel(&stage, &[]);
        state.sas.clear();
        let planned = plan(&stage.desired(false), &state, &mut Indexes::of(&state));
        prop_assert!(planned.ops.is_empty(), "{:?}", planned.ops);
    }
}

/// Several SAs of a pair (one a CPU) are switched by the reqid that their template names.
#[test]
fn a_set_is_there_whole_before_the_policy_names_it_and_goes_after() {
    let generation = |number: u32| {
        let reqid = Reqid::new(0x6873_0010 + number).unwrap();
        let sas = (0..3).map(|cpu| Sa { reqid, ..sa(Direction::Out, 10 * number + cpu) });
        (Through::Set(reqid), sas.collect::<Vec<Sa>>())
    };
    let desired = |through, fresh: &[Sa], keep: &[Sa]| Desired {
        fresh: fresh.to_vec(),
        keep: keep.iter().map(Sa::id).collect(),
        policies: vec![policies::outbound(pair(), Action::Seal { through })],
        ..Desired::default()
    };
    let ((one, ones), (two, twos)) = (generation(1), generation(2));
    let mut state = KernelState::default();
    let mut lead = |desired: &Desired, named: &dyn Fn(Option<Through>)| {
        let ops = plan(desired, &state, &mut Indexes::of(&state)).ops;
        for op in &ops {
            state.apply(op).unwrap();
            let out = state.policies.get(&policies::outbound(pair(), Action::Block).id());
            let through = out.and_then(|policy| match policy.action {
                Some(Action::Seal { through }) => Some(through),
                _ => None,
            });
            named(through);
            if let Some(through) = through {
                let whole = state.sas.values().filter(|sa| through.names(sa.id.spi, sa.reqid)).count();
                assert_eq!(whole, 3, "after {op}");
                assert!(state.sends(pair(), through).is_some());
            }
        }
        ops
    };
    assert_eq!(lead(&desired(one, &ones, &[]), &|_| {}).len(), 4);
    let switch = lead(&desired(two, &twos, &ones), &|through| assert!(through.is_some()));
    assert!(matches!(switch.last(), Some(Op::UpdatePolicy { .. })) && switch.len() == 4, "{switch:?}");
    let retire = lead(&desired(two, &[], &twos), &|through| assert_eq!(through, Some(two)));
    assert!(retire.iter().all(|op| matches!(op, Op::DeleteSa(_))) && retire.len() == 3, "{retire:?}");
}

#[test]
fn inbound_goes_in_before_what_sends_and_out_after_it() {
    let sealed = Stage {
        sealed: true,
        guarded: true,
        outbound: Some(1),
        sas: vec![(false, 1), (true, 2)],
        exempt: Vec::new(),
    };
    let mut state = KernelState::default();
    let there = plan(&sealed.desired(true), &state, &mut Indexes::of(&state)).ops;
    let place = |ops: &[Op], wanted: &dyn Fn(&Op) -> bool| ops.iter().position(wanted).unwrap();
    let is_add_in = |op: &Op| matches!(op, Op::AddSa(sa) if sa.direction == Direction::In);
    let is_seal =
        |op: &Op| matches!(op, Op::AddPolicy { policy, .. } if matches!(policy.action, Action::Seal { .. }));
    let is_block = |op: &Op| matches!(op, Op::AddPolicy { policy, .. } if policy.action == Action::Block);
    assert!(place(&there, &is_block) < place(&there, &is_add_in));
    assert!(place(&there, &is_add_in) < place(&there, &is_seal));

    apply(&mut state, &there);
    let back = plan(&Desired::default(), &state, &mut Indexes::of(&state)).ops;
    let guard = policies::block(Block::host(address(9)), pair().remote)[0].id();
    let out = policies::outbound(pair(), Action::Block).id();
    let place_of = |policy| place(&back, &|op| matches!(op, Op::DeletePolicy { id, .. } if *id == policy));
    assert!(place_of(guard) < place_of(out));
    assert!(place_of(out) < place(&back, &|op| matches!(op, Op::DeleteSa(_))));
}

#[test]
fn a_policy_is_written_again_when_its_end_moves_and_not_for_a_second() {
    let now = Instant::now();
    let after = |seconds: f32| Some(now + Duration::from_secs_f32(seconds));
    let blocks = |until| Desired {
        policies: vec![policies::outbound(pair(), Action::Block).lasting(until)],
        ..Desired::default()
    };
    let mut state = KernelState::default();
    let mut written = |until| {
        let ops = plan(&blocks(until), &state, &mut Indexes::of(&state)).ops;
        apply(&mut state, &ops);
        ops.len()
    };
    assert_eq!(written(after(60.0)), 1);
    assert_eq!(written(after(61.9)), 0, "the kernel counts whole seconds");
    assert_eq!(written(after(30.0)), 1, "earlier");
    assert_eq!(written(after(90.0)), 1, "later");
    assert_eq!(written(None), 1, "for good");
    assert_eq!(written(None), 0);
    assert_eq!(written(after(90.0)), 1);
}

#[test]
fn indexes_are_ours_and_distinct() {
    let sealed =
        Stage { sealed: true, guarded: true, outbound: Some(1), sas: Vec::new(), exempt: Vec::new() };
    let state = kernel(&sealed, &[]);
    let mut indexes: Vec<u32> = state.policies.values().map(|policy| policy.index).collect();
    assert!(state.policies.values().all(is_our_policy));
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), state.policies.len());
}

/// Sockets that hold a route which an exemption let pass must look for their way again.
#[test]
fn an_exemption_that_goes_is_followed_by_a_policy_that_is_written() {
    let with = Stage {
        sealed: true,
        guarded: true,
        outbound: Some(1),
        sas: vec![],
        exempt: vec!["icmp".parse().unwrap()],
    };
    let mut state = KernelState::default();
    let lead = |state: &mut KernelState, stage: &Stage| {
        let ops = plan(&stage.desired(false), state, &mut Indexes::of(state)).ops;
        ops.iter().for_each(|op| state.apply(op).unwrap());
        ops
    };
    lead(&mut state, &with);
    let without = Stage { exempt: vec![], ..with };
    let ops = lead(&mut state, &without);
    assert!(matches!(ops.last(), Some(Op::UpdatePolicy { .. })), "{ops:?}");
    assert_eq!(ops.iter().filter(|op| matches!(op, Op::DeletePolicy { .. })).count(), 2);
    assert!(lead(&mut state, &without).is_empty());
}
