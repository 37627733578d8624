//! The way back to the clear.

use std::time::Duration;

use super::link::{Link, MOMENT, pair, rules, token};
use crate::protect::report::{Flags, Report};
use crate::protect::timing::{IN_GRACE, OPEN_PATIENCE, PART_GRACE, SEAL_GRACE};
use crate::protect::{IkeOrder, Order, PairMachine, Rules};
use crate::types::{Action, Direction, ReasonCode, RowState, SaId, Spi, Through};

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
    assert_eq!(link.ends[1].machine.reason().unwrap().code(), ReasonCode::PeerDisabled);
    assert_eq!(link.count(0, |order| *order == Order::Ike(IkeOrder::Forget)), 1);
    assert_eq!(link.count(1, |order| *order == Order::Ike(IkeOrder::Passive)), 1);
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
    link.ends[1].machine =
        PairMachine::new(pair, Rules { allow_peer_disable: false, ..rules(pair) }, false, link.now);
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
fn the_peer_is_told_before_a_successor_goes_to_the_clear() {
    let mut link = Link::sealed();
    link.replace_agent();
    link.ends[0].machine.disable(link.now);
    link.work();
    link.pass(MOMENT);
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(Spi(2)) }), "nobody to tell yet");
    assert!(link.ends[0].machine.is_sealed());
    link.agree(0, false);
    link.work();
    assert_eq!((link.outbound(0), link.outbound(1)), (None, None));
    link.pass(2 * IN_GRACE);
    assert_eq!(link.state(0), RowState::Off);
    assert_eq!(link.ends[1].machine.reason().unwrap().code(), ReasonCode::PeerDisabled);
    assert!(link.ends.iter().all(|end| end.kernel.sas.is_empty()));
}

/// The wish of this host counts, or the pair would be wanted as before once it is in the clear.
#[test]
fn a_peer_that_disables_while_a_successor_waits_to_tell_it_leaves_nothing_either() {
    let mut link = Link::sealed();
    link.replace_agent();
    link.ends[0].machine.disable(link.now);
    link.work();
    link.agree(0, false);
    // It says so before this end has installed the child by which it could be told.
    link.ends[1].machine.disable(link.now);
    link.apply(1);
    while let Some(order) = link.ends[1].machine.poll_order() {
        link.carry_out(1, order);
    }
    link.work();
    link.pass(OPEN_PATIENCE + 2 * IN_GRACE);
    assert_eq!(link.states(), [RowState::Off; 2]);
    assert!(link.ends.iter().all(|end| end.kernel.sas.is_empty() && end.kernel.policies.is_empty()));
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
    link.ends[0].machine = PairMachine::new(pair(), rules(pair()), true, link.now);
    let machine = &mut link.ends[1].machine;
    let flags = Flags { installed: true, seen: true, sending: true, open: true, ..Flags::default() };
    let report = Report { token: token(Spi(1)), revision: 9, flags };
    machine.handle_report(link.now, Spi(2), &report, Duration::ZERO);
    link.apply(1);
    assert_eq!(link.outbound(1), None);
    link.pass(60 * IN_GRACE);
    let incoming = SaId::of(pair().mirrored(), Direction::In, Spi(2));
    assert!(link.ends[1].kernel.sas.contains_key(&incoming));
    let stopped = Report { revision: 10, flags: Flags { sending: false, ..flags }, ..report };
    link.ends[1].machine.handle_report(link.now, Spi(2), &stopped, Duration::ZERO);
    link.pass(IN_GRACE - MOMENT);
    assert!(link.ends[1].kernel.sas.contains_key(&incoming), "packets are still under way");
    link.pass(MOMENT);
    assert!(link.ends[1].kernel.sas.is_empty());
}

/// As when both hear of it in one roster.
#[test]
fn who_parts_from_a_peer_that_goes_to_the_clear_waits_for_what_is_under_way() {
    let mut link = Link::sealed();
    link.ends[0].machine.part(link.now);
    link.ends[1].machine.disable(link.now);
    link.work();
    assert_eq!((link.outbound(0), link.outbound(1)), (None, None));
    link.pass(PART_GRACE - MOMENT);
    assert!(!link.ends[0].kernel.sas.is_empty(), "packets are still under way");
    link.pass(MOMENT);
    assert!(link.ends[0].kernel.sas.is_empty());
    assert_eq!(link.state(0), RowState::Off);
    link.pass(IN_GRACE);
    assert_eq!(link.state(1), RowState::Off);
}

/// The peer of an ordinary `disable` may only be slow.
#[test]
fn only_a_peer_that_this_host_parts_from_is_not_waited_for_when_it_does_not_answer() {
    for parts in [false, true] {
        let mut link = Link::sealed();
        let machine = &mut link.ends[0].machine;
        if parts {
            machine.part(link.now);
        } else {
            machine.disable(link.now);
        }
        while link.apply(0) {}
        assert!(link.outbound(0).is_some(), "it may answer");
        let machine = &mut link.ends[0].machine;
        machine.handle_silence(link.now, true);
        while link.apply(0) {}
        assert_eq!(link.ends[0].kernel.sas.is_empty(), parts);
        assert_eq!(link.outbound(0).is_none(), parts);
    }
}

/// A peer that is not hostseal says nothing of what it sends.
#[test]
fn who_parts_from_a_foreign_peer_waits_longer_for_what_is_under_way() {
    let mut link = Link::new();
    let [a, _] = link.agree(0, true);
    link.work();
    link.ends[0].machine.handle_foreign_ready(link.now, a);
    link.work();
    link.pass(SEAL_GRACE);
    link.ends[0].machine.part(link.now);
    link.work();
    assert_eq!(link.outbound(0), None);
    link.pass(IN_GRACE - MOMENT);
    assert!(!link.ends[0].kernel.sas.is_empty(), "it may still send ESP");
    link.pass(MOMENT);
    assert!(link.ends[0].kernel.sas.is_empty());
}

/// It answers and does not go to the clear: it may not have heard of it yet.
#[test]
fn who_parts_from_a_peer_that_stays_sealed_gives_it_as_much_time_as_ever() {
    let mut link = Link::sealed();
    link.ends[1].machine.go_by(Rules { allow_peer_disable: false, ..rules(pair().mirrored()) });
    link.ends[0].machine.part(link.now);
    link.work();
    link.pass(OPEN_PATIENCE - MOMENT);
    assert!(link.outbound(0).is_some());
    link.pass(IN_GRACE);
    assert!(!link.ends[0].kernel.sas.is_empty(), "it sends ESP");
    link.pass(MOMENT);
    assert!(link.ends[0].kernel.sas.is_empty());
    assert_eq!(link.state(0), RowState::Off);
}
