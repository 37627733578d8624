//! Trials: what is not confirmed goes back at both ends, whoever is dead or out of reach by then.

use std::time::{Duration, Instant};

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::kernel::Leaves;
use super::net::Weather;
use super::world::World;
use crate::types::{ReasonCode, RowState};

const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];
/// How long after its end everything has gone back, whoever is dead.
const GONE: Duration = Duration::from_secs(10);

/// Two hosts of which `tried` is on trial for 20 seconds, protected; and when the trial ends.
fn on_trial(seed: u64, tried: usize) -> (World, Instant) {
    let mut world = World::new(2, seed, Weather::FAIR);
    let end = world.now + 20 * SECOND;
    world.enable_with(tried, false, Some(end));
    world.enable(1 - tried);
    world.run(5 * SECOND, Some((10 * MILLISECOND, &WAYS)));
    assert!(world.all_protected(), "{:?}", world.reason(0, 1));
    for at in 0..2 {
        assert!(!world.is_saved_as_sealed(at, 1 - at), "nothing is final yet");
        assert!(world.hosts[at].kernel.next_expiry.is_some_and(|at| at > end && at < end + GONE));
    }
    (world, end)
}

/// Both hosts send and accept clear packets.
fn assert_clear(world: &World) {
    for (from, to) in WAYS {
        let kernel = &world.hosts[from].kernel;
        assert_eq!(kernel.leaves(world.pair(from, to)), Leaves::Clear, "{from} -> {to}");
        assert!(kernel.accepts_clear(world.pair(from, to)), "{to} -> {from}");
    }
}

fn run_to(world: &mut World, end: Instant) {
    let rest = end.saturating_duration_since(world.now);
    world.run(rest, Some((10 * MILLISECOND, &WAYS)));
}

#[test]
fn what_nobody_confirms_goes_back_at_both_ends_and_loses_nothing() {
    seeds(20, |seed| {
        let tried = (seed % 2) as usize;
        let (mut world, end) = on_trial(seed, tried);
        run_to(&mut world, end - SECOND);
        assert!(world.all_protected());
        run_to(&mut world, end + GONE);
        assert_clear(&world);
        assert_eq!(world.total().lost, 0);
        let kernel = &world.hosts[tried].kernel.state;
        assert!(kernel.sas.is_empty() && kernel.policies.is_empty());
        assert_eq!(world.state(tried, 1 - tried), RowState::Off);
        assert_eq!(world.state(1 - tried, tried), RowState::Clear);
        assert_eq!(world.reason(1 - tried, tried).unwrap().0, ReasonCode::PeerDisabled);
    });
}

/// The end that is done first lets go of the sessions. The other, still on its way, must not begin anew.
#[test]
fn an_end_that_comes_late_begins_nothing_anew() {
    seeds(20, |seed| {
        for late in 0..2 {
            let tried = (seed % 2) as usize;
            let (mut world, end) = on_trial(seed, tried);
            run_to(&mut world, end);
            world.starve(late, 30 * MILLISECOND);
            run_to(&mut world, end + GONE);
            assert_clear(&world);
            assert_eq!(world.total().lost, 0);
            assert_eq!(world.state(tried, 1 - tried), RowState::Off);
            assert_eq!(world.state(1 - tried, tried), RowState::Clear);
        }
    });
}

#[test]
fn dead_agents_do_not_keep_it() {
    seeds(20, |seed| {
        for dead in [&[0][..], &[1], &[0, 1]] {
            let (mut world, end) = on_trial(seed, (seed % 2) as usize);
            dead.iter().for_each(|at| world.kill(*at));
            run_to(&mut world, end + GONE);
            assert_clear(&world);
            assert_eq!(world.total().lost, 0, "dead: {dead:?}");
        }
    });
}

#[test]
fn an_agent_that_starts_anew_goes_on_with_it() {
    seeds(20, |seed| {
        for restarted in 0..2 {
            let (mut world, end) = on_trial(seed, 0);
            world.kill(restarted);
            world.run(SECOND, Some((10 * MILLISECOND, &WAYS)));
            world.enable(restarted);
            run_to(&mut world, end - SECOND);
            assert!(world.all_protected(), "{:?} {:?}", world.reason(0, 1), world.reason(1, 0));
            run_to(&mut world, end + GONE);
            assert_clear(&world);
            assert_eq!(world.total().lost, 0, "restarted: {restarted}");
        }
    });
}

#[test]
fn what_is_confirmed_stays_however_often_that_is_said() {
    seeds(20, |seed| {
        let tried = (seed % 2) as usize;
        let (mut world, end) = on_trial(seed, tried);
        for _ in 0..2 {
            world.confirm(tried);
            world.run(SECOND, Some((10 * MILLISECOND, &WAYS)));
        }
        for at in 0..2 {
            assert!(world.is_saved_as_sealed(at, 1 - at));
            assert_eq!(world.hosts[at].kernel.next_expiry, None);
        }
        run_to(&mut world, end + GONE);
        assert!(world.all_protected());
        assert_eq!(world.total().lost, 0);
    });
}

#[test]
fn it_ends_at_both_ends_of_a_network_that_is_cut() {
    seeds(20, |seed| {
        let (mut world, end) = on_trial(seed, (seed % 2) as usize);
        world.cut(0, 1);
        run_to(&mut world, end + GONE);
        world.net.cut.clear();
        let lost = world.total().lost;
        world.run(5 * SECOND, Some((10 * MILLISECOND, &WAYS)));
        assert_clear(&world);
        assert_eq!(world.total().lost, lost);
    });
}

#[test]
fn ends_that_disagree_since_the_confirmation_was_lost_meet_again() {
    seeds(20, |seed| {
        let tried = (seed % 2) as usize;
        let (mut world, end) = on_trial(seed, tried);
        world.cut(0, 1);
        world.confirm(tried);
        run_to(&mut world, end + GONE);
        assert_eq!(world.state(1 - tried, tried), RowState::Clear);
        assert!(world.is_saved_as_sealed(tried, 1 - tried), "its operator has said so");
        world.net.cut.clear();
        let ways = WAYS;
        world.run(120 * SECOND, Some((SECOND, &ways)));
        assert!(world.all_protected(), "{:?} {:?}", world.reason(0, 1), world.reason(1, 0));
        let lost = world.total().lost;
        world.run(2 * SECOND, Some((10 * MILLISECOND, &ways)));
        assert_eq!(world.total().lost, lost);
    });
}

#[test]
fn of_two_trials_the_earlier_one_counts_until_both_are_confirmed() {
    seeds(20, |seed| {
        for confirmed in [&[][..], &[0], &[1], &[0, 1]] {
            let mut world = World::new(2, seed, Weather::FAIR);
            let (first, second) = (world.now + 20 * SECOND, world.now + 40 * SECOND);
            world.enable_with(0, false, Some(first));
            world.enable_with(1, false, Some(second));
            world.run(5 * SECOND, Some((10 * MILLISECOND, &WAYS)));
            assert!(world.all_protected());
            confirmed.iter().for_each(|at| world.confirm(*at));
            run_to(&mut world, first + GONE);
            assert_eq!(world.all_protected(), confirmed.contains(&0), "confirmed: {confirmed:?}");
            run_to(&mut world, second + GONE);
            assert_eq!(world.all_protected(), confirmed.len() == 2, "confirmed: {confirmed:?}");
            assert_eq!(world.total().lost, 0, "confirmed: {confirmed:?}");
        }
    });
}
