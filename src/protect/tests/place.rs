//! Pairs whose addresses move between hosts.

use std::time::{Duration, Instant};

use super::link::{Link, pair, rules};
use crate::protect::timing::TRIAL_GUARD;
use crate::protect::{Away, Beside, PairMachine};

const MINUTE: Duration = Duration::from_secs(60);

/// A pair whose own address is at another host.
fn elsewhere(sealed: bool, trial: Option<Instant>) -> (PairMachine, Instant) {
    let now = Instant::now();
    let mut machine = PairMachine::new(pair(), rules(pair()), sealed, now);
    machine.handle_move(now, Some(Away::Elsewhere), None);
    machine.enable(now, false, trial);
    (machine, now)
}

#[test]
fn a_seal_of_the_peers_trial_goes_with_the_address() {
    let (mut link, _) = Link::on_trial();
    let machine = &mut link.ends[1].machine;
    assert!(machine.is_sealed() && !machine.is_saved_as_sealed());
    machine.handle_move(link.now, Some(Away::Elsewhere), None);
    assert!(!machine.is_sealed(), "nobody says any more whether it is confirmed");
    machine.handle_timeout(link.now + 2 * MINUTE);
    assert!(!machine.is_sealed() && !machine.is_saved_as_sealed());
}

#[test]
fn a_seal_for_good_stays_with_the_pair() {
    let mut link = Link::sealed();
    for away in [Some(Away::Elsewhere), None] {
        link.ends[1].machine.handle_move(link.now, away, None);
        assert!(link.ends[1].machine.is_saved_as_sealed());
    }
}

#[test]
fn what_blocks_an_address_that_is_elsewhere_lasts_as_long_as_the_pairs_beside_it() {
    let lasting = |machine: &PairMachine, beside| -> Vec<Option<Instant>> {
        let desired = machine.desired_while_away(beside);
        desired.policies.iter().map(|policy| policy.until).collect()
    };
    let (on_trial, end) = Link::on_trial();
    let sealed = Link::sealed();
    let [trial, good] = [&on_trial, &sealed].map(|link| Beside::of([&link.ends[0].machine].into_iter()));
    let (machine, _) = elsewhere(false, None);
    assert_eq!(lasting(&machine, None), [], "nothing is sealed");
    assert_eq!(lasting(&machine, trial), [Some(end + TRIAL_GUARD); 3]);
    assert_eq!(lasting(&machine, good), [None; 3]);
    let (machine, _) = elsewhere(true, None);
    assert_eq!(lasting(&machine, trial), [None; 3], "it is sealed itself, for good");
}

#[test]
fn an_address_that_arrives_is_sealed_for_as_long_as_the_pairs_beside_it() {
    let (on_trial, end) = Link::on_trial();
    let sealed = Link::sealed();
    let beside = |link: &Link| Beside::of([&link.ends[1].machine].into_iter());
    let (mut machine, now) = elsewhere(false, None);
    machine.handle_move(now, None, beside(&on_trial));
    assert!(machine.is_sealed() && !machine.is_saved_as_sealed());
    assert_eq!(machine.trial_end(), Some(end));
    machine.handle_timeout(end);
    assert!(!machine.is_sealed(), "the trial has ended");
    let (mut machine, now) = elsewhere(false, None);
    machine.handle_move(now, None, beside(&sealed));
    assert!(machine.is_saved_as_sealed());
    let (mut machine, now) = elsewhere(false, Some(Instant::now() + MINUTE));
    machine.handle_move(now, None, beside(&sealed));
    assert!(machine.is_sealed() && !machine.is_saved_as_sealed(), "this host is on trial");
}

#[test]
fn pairs_beside_count_only_where_all_are_sealed() {
    let (open, sealed) = (Link::new(), Link::sealed());
    let [open, sealed] = [&open, &sealed].map(|link| &link.ends[0].machine);
    assert!(Beside::of([sealed, sealed].into_iter()).is_some());
    assert_eq!(Beside::of([sealed, open].into_iter()), None);
    assert_eq!(Beside::of(std::iter::empty()), None);
}
