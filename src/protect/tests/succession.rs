//! Children that replace others, and SAs of an agent before.

use std::time::Duration;

use super::link::{Link, MOMENT, pair, token};
use crate::protect::reason::PairReason;
use crate::protect::report::{Flags, Passage, Probe, Report};
use crate::protect::timing::{IN_GRACE, OUT_GRACE, PACE_LEADER, PACE_OTHER, SEAL_GRACE, UNSETTLED_PATIENCE};
use crate::protect::{Order, policies};
use crate::types::{Action, Direction, ReasonCode, Reqid, RowState, SaReading, Spi, Through};

#[test]
fn a_rekey_moves_the_policy_then_the_old_child_goes_step_by_step() {
    let mut link = Link::sealed();
    let [a, b] = link.agree(1, false);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(b) }));
    assert_eq!(link.outbound(1), Some(Action::Seal { through: Through::Sa(a) }));
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
    assert!(
        led == Some(Action::Seal { through: Through::Sa(second[1]) })
            || led == Some(Action::Seal { through: Through::Sa(first[1]) })
    );
    let peers =
        if led == Some(Action::Seal { through: Through::Sa(second[1]) }) { second[0] } else { first[0] };
    assert_eq!(link.outbound(1), Some(Action::Seal { through: Through::Sa(peers) }));
    link.pass(Duration::from_secs(30));
    assert_eq!((link.ends[0].kernel.sas.len(), link.ends[1].kernel.sas.len()), (2, 2));
}

#[test]
fn an_orphan_serves_until_another_child_has_taken_over() {
    let mut link = Link::sealed();
    link.ends[0].machine.handle_closed(link.now, Spi(1), false);
    link.work();
    link.pass(Duration::from_secs(60));
    assert_eq!(link.state(0), RowState::Protected);
    assert_eq!(link.ends[0].machine.unrenewed(), None);
    link.ends[0].machine.handle_failure(link.now, ReasonCode::NoAnswer);
    assert_eq!(link.state(0), RowState::Protected);
    let warning = PairReason::NoKeys(ReasonCode::NoAnswer);
    assert_eq!(link.ends[0].machine.unrenewed(), Some(&warning));
    link.agree(0, false);
    link.work();
    assert_eq!(link.ends[0].machine.unrenewed(), None);
    link.pass(Duration::from_secs(60));
    assert_eq!(link.ends[0].kernel.sas.len(), 2);
    assert_eq!(link.state(0), RowState::Protected);
}

/// Each of two sessions has a child, and the one that this end is deleting turns out to carry, too.
#[test]
fn nothing_is_sent_through_a_child_whose_session_is_being_deleted() {
    for dooms in [false, true] {
        let mut link = Link::sealed();
        link.esp = [false; 2];
        let [a, b] = link.agree(1, false);
        if dooms {
            link.ends[0].machine.handle_doomed(link.now, a);
        }
        link.work();
        link.esp = [true; 2];
        link.pass(OUT_GRACE);
        let expected = if dooms { Spi(2) } else { b };
        assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(expected) }));
        assert_eq!(link.states(), [RowState::Protected; 2]);
        assert!(link.ends[0].kernel.sas.keys().any(|id| id.spi == a), "the peer may send until it has heard");
    }
}

/// The report of the successor may be lost with its session: the peer must not take the old child for the one that
/// both send through.
#[test]
fn the_peer_is_told_once_that_a_child_is_not_sent_through_any_more() {
    let mut link = Link::sealed();
    link.ends[0].orders.clear();
    link.agree(1, false);
    link.work();
    let leaves =
        |order: &Order| matches!(order, Order::Tell { in_spi: Spi(1), report, .. } if !report.flags.sending);
    assert_eq!(link.count(0, leaves), 1);
    link.pass(Duration::from_secs(30));
    assert_eq!(link.count(0, leaves), 1);
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
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(Spi(2)) }));
    link.pass(Duration::from_secs(60));
    assert_eq!(link.ends[0].kernel.sas.len(), 2);
    let [_, b] = link.agree(0, false);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(b) }));
    assert_eq!(link.ends[0].kernel.sas.len(), 4);
    link.pass(Duration::from_secs(30));
    assert_eq!(link.ends[0].kernel.sas.len(), 2);
}

/// A version to come names several SAs by their reqid. What it leaves serves an agent of this one, too.
#[test]
fn a_set_that_was_left_serves_until_a_child_has_taken_over() {
    let mut link = Link::sealed();
    let reqid = Reqid::new(0x6873_0007).unwrap();
    let set = Some(Action::Seal { through: Through::Set(reqid) });
    let kernel = &mut link.ends[0].kernel;
    let outbound = |sa: &&mut SaReading| sa.direction(pair()) == Direction::Out;
    kernel.sas.values_mut().filter(outbound).for_each(|sa| sa.reqid = reqid);
    kernel.policies.get_mut(&policies::outbound(pair(), Action::Block).id()).unwrap().action = set;
    link.replace_agent();
    link.work();
    link.pass(Duration::from_secs(60));
    assert_eq!((link.state(0), link.outbound(0)), (RowState::Protected, set));
    assert_eq!(link.ends[0].kernel.sas.len(), 2);
    let [_, b] = link.agree(0, false);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(b) }));
    link.pass(OUT_GRACE - MOMENT);
    assert!(link.ends[0].kernel.sas.values().any(|sa| sa.reqid == reqid), "packets may hold the old route");
    link.pass(Duration::from_secs(30));
    assert_eq!(link.ends[0].kernel.sas.len(), 2);
    assert_eq!(link.states(), [RowState::Protected; 2]);
}

/// However often keys are replaced, each child that was replaced goes in its time.
#[test]
fn succession_comes_to_an_end_under_steady_rekeys() {
    for every in [900, 1500, 2000] {
        let mut link = Link::sealed();
        for rekey in 0..60 {
            link.agree(rekey % 2, false);
            link.work();
            link.pass(every * MOMENT);
            let most = 2 * (2 + (OUT_GRACE + IN_GRACE).as_millis() as usize / every as usize);
            for end in &link.ends {
                assert!(
                    end.kernel.sas.len() <= most,
                    "{} SAs at one rekey in {every} ms",
                    end.kernel.sas.len()
                );
            }
        }
    }
}

/// One end goes back to the child before, as the session of the newer one is gone there: what it sends that way then
/// has its grace once more when both have settled on a third.
#[test]
fn a_child_that_is_gone_back_to_goes_in_its_time() {
    let mut link = Link::sealed();
    let [a, _] = link.agree(0, false);
    link.work();
    link.ends[0].machine.handle_closed(link.now, a, false);
    link.work();
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(Spi(2)) }));
    // The other end has not settled there: nothing leaves.
    link.ends[1].machine.handle_closed(link.now, Spi(2), false);
    link.pass(2 * OUT_GRACE);
    link.agree(0, false);
    link.work();
    link.pass(OUT_GRACE - MOMENT);
    assert!(link.ends[0].kernel.sas.keys().any(|id| id.spi == Spi(2)), "packets may hold the old route");
    link.pass(Duration::from_secs(30));
    for end in &link.ends {
        assert_eq!(end.kernel.sas.len(), 2);
    }
}

/// Agents are killed while keys are replaced every two seconds: what they leave is not there for ever.
#[test]
fn what_killed_agents_left_goes_under_steady_rekeys() {
    let mut link = Link::sealed();
    for kill in 0..60 {
        if kill % 3 == 0 {
            link.replace_agent();
            // For the peer, the sessions with the agent that is gone are gone too, silently.
            let known: Vec<Spi> = link.children.keys().copied().filter(|spi| spi.0 % 2 == 0).collect();
            for spi in known {
                link.ends[1].machine.handle_closed(link.now, spi, false);
            }
        }
        link.agree(kill % 2, false);
        link.work();
        link.pass(Duration::from_secs(2));
        for end in &link.ends {
            assert!(end.kernel.sas.len() <= 8, "{} SAs after {kill} rekeys", end.kernel.sas.len());
        }
    }
}

/// A link that uses up the limits of SAs in no time does not get new ones faster than the old ones can go.
#[test]
fn worn_children_are_succeeded_at_a_pace() {
    for (at, pace) in [(0, PACE_LEADER), (1, PACE_OTHER)] {
        let mut link = Link::sealed();
        let rekeys = |link: &Link| link.count(at, |order| matches!(order, Order::Rekey { .. }));
        let worn = [Spi(1), Spi(2)][at];
        // It is a second old.
        assert!(!link.ends[at].machine.handle_worn(link.now, worn));
        link.pass(pace - SEAL_GRACE - MOMENT);
        assert_eq!(rekeys(&link), 0);
        link.pass(MOMENT);
        assert_eq!(rekeys(&link), 1);
        let next = link.agree(at, false)[at];
        link.work();
        assert!(link.ends[at].machine.handle_worn(link.now, worn), "it has a successor already");
        link.pass(2 * pace);
        assert_eq!(rekeys(&link), 1);
        assert!(link.ends[at].machine.handle_worn(link.now, next), "no other was made of late");
        link.work();
        assert_eq!(rekeys(&link), 2);
    }
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
    link.ends[0].machine.handle_probe(
        link.now,
        &Probe { token: token(a), passage: Passage::Unsaid },
        Duration::ZERO,
    );
    let seen = Flags { installed: true, seen: true, ..Flags::default() };
    let report = Report { token: token(b), revision: 1, flags: seen };
    link.ends[0].machine.handle_report(link.now, a, &report, Duration::ZERO);
    link.apply(0);
    assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(b) }));
    link.ends[0].machine.handle_timeout(link.now + OUT_GRACE);
    link.ends[0].machine.handle_closed(link.now + OUT_GRACE, a, false);
    link.apply(0);
    assert_eq!(
        link.outbound(0),
        Some(Action::Seal { through: Through::Sa(Spi(2)) }),
        "back to the one that both know"
    );
    assert_eq!(link.state(0), RowState::Protected);
}

/// A probe that says that one has come spares the round trip of a report; earlier agents do not know such probes.
#[test]
fn a_probe_answers_a_probe_where_the_peer_heeds_it() {
    for heeds in [true, false] {
        let mut link = Link::sealed();
        let [a, b] = link.agree(0, false);
        let says = |spi, flags| Report { token: token(spi), revision: 0, flags };
        let now = link.now;
        link.apply(0);
        link.apply(1);
        let asks = says(a, Flags { heeds, ..Flags::default() });
        link.ends[1].machine.handle_report(now, b, &asks, Duration::ZERO);
        let installed = says(b, Flags { installed: true, ..Flags::of_new_child() });
        link.ends[0].machine.handle_report(now, a, &installed, Duration::ZERO);
        let probes = |link: &mut Link, at: usize| {
            let orders = std::iter::from_fn(|| link.ends[at].machine.poll_order());
            orders
                .filter_map(|order| if let Order::Probe { probe, .. } = order { Some(probe) } else { None })
                .collect()
        };
        let first: Vec<Probe> = probes(&mut link, 0);
        assert_eq!(first, [Probe { token: token(b), passage: Passage::Unsaid }]);
        assert!(link.ends[1].machine.handle_probe(now, &first[0], Duration::ZERO).is_some());
        let second: Vec<Probe> = probes(&mut link, 1);
        let passage = if heeds { Passage::In } else { Passage::Unsaid };
        assert_eq!(second, [Probe { token: token(a), passage }], "before any report that it is installed");
        assert!(link.ends[0].machine.handle_probe(now, &second[0], Duration::ZERO).is_some());
        link.apply(0);
        let expected = if heeds { b } else { Spi(2) };
        assert_eq!(link.outbound(0), Some(Action::Seal { through: Through::Sa(expected) }));
        assert_eq!(
            link.outbound(1),
            Some(Action::Seal { through: Through::Sa(Spi(1)) }),
            "nothing was reported of its probe"
        );
    }
}

/// Where reports are late, an end that has answered a probe would not hear that its own has come.
#[test]
fn a_probe_that_comes_again_is_answered_until_its_sender_knows_of_both_ways() {
    let mut link = Link::sealed();
    let [a, b] = link.agree(0, false);
    link.apply(0);
    link.apply(1);
    let installed = Flags { installed: true, ..Flags::of_new_child() };
    let report = Report { token: token(b), revision: 0, flags: installed };
    link.ends[0].machine.handle_report(link.now, a, &report, Duration::ZERO);
    while link.ends[0].machine.poll_order().is_some() {}
    let mut answer = |passage| {
        let probe = Probe { token: token(a), passage };
        assert!(link.ends[0].machine.handle_probe(link.now, &probe, Duration::ZERO).is_some());
        let orders = std::iter::from_fn(|| link.ends[0].machine.poll_order());
        let mut probes = orders.filter_map(|order| {
            if let Order::Probe { probe, .. } = order { Some(probe.passage) } else { None }
        });
        probes.next()
    };
    assert_eq!(answer(Passage::Unsaid), None, "a report is on its way");
    assert_eq!(answer(Passage::Unsaid), Some(Passage::In));
    assert_eq!(answer(Passage::In), Some(Passage::Both));
    assert_eq!(answer(Passage::Both), None, "or the two would go on for ever");
}
