//! The stages of a pair up to sealed, and what stands in the way.

use std::collections::BTreeMap;
use std::time::Duration;

use super::link::{Link, MOMENT, pair, rules};
use crate::protect::reason::{PairReason, Unwritten};
use crate::protect::timing::{IN_GRACE, KERNEL_RETRY, QUIET_GRACE, SEAL_GRACE, quiet_grace};
use crate::protect::{Indexes, Order, PairMachine, plan};
use crate::types::{
    Action, Direction, EspSuite, KernelState, Limits, Op, ReasonCode, Reqid, RowState, Sa, SaId, Spi, Through,
};

#[test]
fn a_child_proven_both_ways_carries_traffic_and_seals_after_a_grace() {
    let mut link = Link::new();
    assert_eq!(link.states(), [RowState::Negotiating; 2]);
    assert!(link.reason(0).starts_with("agreeing keys"), "{}", link.reason(0));
    let [a, b] = link.agree(0, false);
    link.apply(0);
    assert!(link.reason(0).starts_with("agreed keys, proving"), "{}", link.reason(0));
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(b) }));
    assert_eq!(link.outbound(1), Some(Action::Seal { through: Through::Sa(a) }));
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

/// The peer acts on what it is told: it sends ESP to who says that it has the SAs.
#[test]
fn nothing_is_told_of_a_child_before_the_kernel_has_its_sas() {
    let mut link = Link::new();
    let [a, _] = link.agree(0, false);
    let told = |link: &mut Link| {
        let mut orders = std::iter::from_fn(|| link.ends[0].machine.poll_order());
        orders.find_map(|order| match order {
            Order::Tell { in_spi, report, .. } if in_spi == a => Some(report.flags.installed),
            _ => None,
        })
    };
    let now = link.now;
    link.ends[0].machine.handle_timeout(now);
    assert_eq!(told(&mut link), None);
    link.apply(0);
    assert_eq!(told(&mut link), Some(true));
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
fn the_time_until_a_probe_leaves_lengthens_no_grace() {
    let mut link = Link::new();
    (link.traffic, link.busy) = (false, 20 * QUIET_GRACE);
    link.pass(MOMENT);
    link.agree(0, false);
    link.work();
    assert_eq!(link.states(), [RowState::Negotiating; 2]);
    link.pass(QUIET_GRACE);
    assert_eq!(link.states(), [RowState::Protected; 2]);
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
    assert_eq!(quiet_grace(milliseconds(100)), milliseconds(100));
    assert_eq!(quiet_grace(milliseconds(1800)), SEAL_GRACE);
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
        let way = if blocked == [false; 2] { "in either direction" } else { "from this host to the other" };
        let words = link.reason(sender);
        assert!(
            roundless || words.contains(&format!("does not get through {way}: open")),
            "{blocked:?}: {words}"
        );
        assert_eq!(link.outbound(sender), None, "the blocked way stays clear: {blocked:?}");
        assert_eq!(link.ends[sender].machine.reason().unwrap().code(), ReasonCode::EspBlocked);
        link.esp = [true; 2];
        link.pass(Duration::from_secs(20));
        assert_eq!(link.states(), [RowState::Protected; 2]);
    }
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
        end.machine = PairMachine::new(pair, rules(pair), true, link.now);
        end.machine.enable(link.now, false, None);
    }
    link.work();
    assert_eq!((link.outbound(0), link.outbound(1)), (Some(Action::Block), Some(Action::Block)));
    assert_eq!(link.states(), [RowState::Blocked; 2]);
    let [a, b] = link.agree(0, false);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(b) }));
    assert_eq!(link.outbound(1), Some(Action::Seal { through: Through::Sa(a) }));
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

#[test]
fn a_foreign_peer_is_believed_without_words_or_probes() {
    let mut link = Link::new();
    let [a, b] = link.agree(0, true);
    link.work();
    assert_eq!(link.outbound(0), None);
    link.ends[0].machine.handle_foreign_ready(link.now, a);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(b) }));
    link.pass(SEAL_GRACE);
    assert_eq!(link.state(0), RowState::Protected);
    assert_eq!(link.count(0, |order| matches!(order, Order::Tell { .. } | Order::Probe { .. })), 0);
}

#[test]
fn a_refused_sa_refuses_the_child() {
    let mut link = Link::new();
    link.agree(0, false);
    let machine = &mut link.ends[0].machine;
    let id = SaId::of(pair(), Direction::Out, Spi(2));
    let error = crate::types::OpError::Refused { op: "add".to_owned(), reason: "no memory".to_owned() };
    machine.handle_applied(link.now, &BTreeMap::from([(id, error)]), None);
    let orders: Vec<Order> = std::iter::from_fn(|| machine.poll_order()).collect();
    assert!(orders.contains(&Order::Installed { in_spi: Spi(1), ok: false }));
    assert!(machine.desired().fresh.is_empty() && machine.desired().keep.is_empty());
    assert_eq!(machine.reason().unwrap().code(), ReasonCode::KernelError);
}

#[test]
fn a_pair_is_not_called_protected_while_the_kernel_refuses_its_policies() {
    let mut link = Link::sealed();
    let machine = &mut link.ends[0].machine;
    let (op, reason) = ("update policy in".to_owned(), "no memory".to_owned());
    let unwritten = Unwritten::Refused(crate::types::OpError::Refused { op, reason });
    machine.handle_applied(link.now, &BTreeMap::new(), Some(unwritten.clone()));
    assert_eq!(machine.row_state(), RowState::Clear);
    assert_eq!(machine.reason(), Some(PairReason::Unwritten(unwritten)));
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
    assert_eq!(link.ends[0].machine.reason(), Some(PairReason::NoAddress));
    assert!(link.reason(0).contains("10.0.0.1"), "{}", link.reason(0));
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
                assert_eq!(link.ends[at].machine.reason().unwrap().code(), ReasonCode::EspBlocked);
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
        reqid: Reqid::COMMON,
        suite,
        encapsulation: None,
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

/// A responder knows that a foreign peer is ready when its first packet comes.
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
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(b) }));
    assert!(!link.ends[1].machine.handle_first_packet(now, SaId::of(pair().mirrored(), Direction::In, b)));
}
