//! Pairs whose other host is not there yet.

use std::time::Duration;

use super::link::{Link, MOMENT, pair, rules};
use crate::protect::PairMachine;
use crate::protect::timing::{ABSENCE_PATIENCE, IN_GRACE};
use crate::types::{ReasonCode, RowState};

fn waits(link: &Link) -> bool {
    link.ends[0].machine.is_waiting()
}

fn fail(link: &mut Link, code: ReasonCode) {
    let now = link.now;
    link.ends[0].machine.handle_failure(now, code);
}

#[test]
fn a_peer_that_proves_nothing_is_waited_for() {
    let mut link = Link::new();
    link.pass(ABSENCE_PATIENCE - MOMENT);
    assert!(!waits(&link));
    link.pass(MOMENT);
    assert!(waits(&link) && link.state(0) == RowState::Negotiating);
    fail(&mut link, ReasonCode::NoAnswer);
    assert!(waits(&link) && link.state(0) == RowState::Clear);
    for code in [ReasonCode::AuthFailed, ReasonCode::NoProposal, ReasonCode::PeerRefused] {
        fail(&mut link, code);
        assert!(!waits(&link), "{code:?}");
    }
    fail(&mut link, ReasonCode::NoAnswer);
    assert!(waits(&link));
    link.agree(0, false);
    assert!(!waits(&link), "it has proven itself");
    link.work();
    link.pass(Duration::from_secs(1));
    assert_eq!(link.states(), [RowState::Protected; 2]);
}

#[test]
fn one_that_proved_itself_and_went_away_before_the_pair_was_protected_is_waited_for() {
    let mut link = Link::new();
    link.agree(0, false);
    link.close(crate::types::Spi(2), 1);
    link.pass(ABSENCE_PATIENCE - MOMENT);
    assert!(!waits(&link));
    link.pass(MOMENT);
    assert!(waits(&link));
}

#[test]
fn one_that_a_pair_was_protected_with_is_missed_instead() {
    let mut link = Link::sealed();
    link.close(crate::types::Spi(2), 1);
    link.work();
    link.pass(IN_GRACE + ABSENCE_PATIENCE);
    fail(&mut link, ReasonCode::NoAnswer);
    assert!(link.state(0) == RowState::Blocked && !waits(&link));

    // As after a reboot.
    let mut machine = PairMachine::new(pair(), rules(pair()), true, link.now);
    machine.enable(link.now, false, None);
    machine.handle_timeout(link.now + ABSENCE_PATIENCE);
    assert!(machine.row_state() == RowState::Blocked && !machine.is_waiting());
}

#[test]
fn strict_waits_too() {
    let mut link = Link::new();
    let now = link.now;
    link.ends[0].machine.enable(now, true, None);
    link.work();
    link.pass(ABSENCE_PATIENCE);
    assert!(link.state(0) == RowState::Blocked && waits(&link));
}

#[test]
fn a_second_order_gives_the_peer_as_much_time_again_and_a_failed_one_another_chance() {
    let mut link = Link::new();
    link.pass(ABSENCE_PATIENCE);
    fail(&mut link, ReasonCode::AuthFailed);
    assert_eq!(link.state(0), RowState::Clear);
    let now = link.now;
    link.ends[0].machine.enable(now, false, None);
    assert_eq!(link.state(0), RowState::Negotiating);
    let hurry = std::iter::from_fn(|| link.ends[0].machine.poll_order())
        .filter(|order| *order == crate::protect::Order::Hurry);
    assert_eq!(hurry.count(), 1);
    link.pass(ABSENCE_PATIENCE - MOMENT);
    assert!(!waits(&link));
    link.pass(MOMENT);
    assert!(waits(&link));
}

#[test]
fn a_host_that_is_off_waits_for_nobody() {
    let mut link = Link::new();
    link.pass(ABSENCE_PATIENCE);
    let now = link.now;
    link.ends[0].machine.disable(now);
    link.work();
    link.pass(Duration::from_secs(10));
    assert!(!waits(&link));
}
