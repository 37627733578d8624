//! Pairs on trial.

use std::time::{Duration, Instant};

use super::link::{End, Link, found, pair, rules};
use crate::protect::timing::{SEAL_GRACE, TRIAL_GUARD, TRIAL_IN, TRIAL_OUT, TRIAL_PATIENCE};
use crate::protect::{Adopted, Beside, Order, PairMachine, Rules};
use crate::types::{Action, RowState, Spi, Through};

/// The ends of all policies in the kernel, each once.
fn ends(end: &End) -> Vec<Option<Instant>> {
    let mut ends: Vec<_> = end.kernel.policies.values().map(|policy| policy.until).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

impl Link {
    /// The first end is on trial for a minute; both are protected. And when it ends.
    pub(super) fn on_trial() -> (Self, Instant) {
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
        let beside = Beside::of([&link.ends[at].machine].into_iter()).unwrap();
        assert_eq!(beside.guard_until(), Some(end + TRIAL_GUARD));
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
    link.ends[1].machine =
        PairMachine::new(pair, Rules { allow_peer_disable: false, ..rules(pair) }, true, link.now);
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
    let sas = link.ends[1].kernel.sas.values().map(|sa| found(sa, pair().mirrored())).collect();
    let mut successor = PairMachine::new(pair().mirrored(), rules(pair().mirrored()), false, link.now);
    successor.adopt(Adopted {
        sas,
        outbound: Some(Through::Sa(Spi(1))),
        inbound: Some(Action::Require),
        until: Some(end),
        ..Adopted::default()
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
