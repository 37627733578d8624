//! Secrets that come late, are withdrawn and come again, as a key in somebody else's hands does.

use proptest::prelude::*;

use super::cluster::{MILLISECOND, SECOND};
use super::files::Place;
use super::kernel::Leaves;
use super::members;
use super::net::Weather;
use super::world::World;
use crate::host::core::Withholding;
use crate::types::{Protection, ReasonCode, RowState};

const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];

impl World {
    /// The source of a host gives its secret, or withdraws it.
    fn give(&mut self, at: usize, given: bool) {
        let why = Withholding { code: ReasonCode::KeyRevoked, words: "the secret was withdrawn".into() };
        let (secrets, moment) = (given.then(|| self.secrets(at)).ok_or(why), self.moment());
        self.on(at, |agent, _, kernel| agent.handle_secret(moment, kernel, secrets));
    }

    /// No SA is left, and no packet leaves or is taken in, in the clear or otherwise.
    fn assert_closed(&self, at: usize) {
        let (kernel, pair) = (&self.hosts[at].kernel, self.pair(at, 1 - at));
        assert!(kernel.state.sas.is_empty(), "{at}");
        assert_eq!(kernel.leaves(pair), Leaves::Dropped, "{at}");
        assert!(!kernel.accepts_clear(pair), "{at}");
    }
}

/// Two hosts that get their secrets from elsewhere, protected.
fn protected(seed: u64) -> World {
    let mut world = World::new(2, seed, Weather::FAIR);
    for at in 0..2 {
        world.hosts[at].file.place = Place::Elsewhere;
        world.start(at);
        world.give(at, true);
        world.enable(at);
    }
    assert!(world.run_until(10 * SECOND, World::all_protected));
    // And that is on the disk.
    world.run(3 * SECOND, None);
    world
}

#[test]
fn a_secret_that_is_withdrawn_leaves_no_sa_and_nothing_clear_and_all_comes_back_with_it() {
    for seed in 0..8 {
        let mut world = protected(seed);
        let at = (seed % 2) as usize;
        world.give(at, false);
        // At once, before any time has passed.
        world.assert_closed(at);
        let row = world.status(at).peers.remove(0);
        assert_eq!((row.state, row.reason_code), (RowState::Blocked, Some(ReasonCode::KeyRevoked)));
        assert!(row.reason.is_some_and(|words| words.contains("was withdrawn")));
        // The other was told, and cannot agree anything.
        world.run(SECOND, Some((10 * MILLISECOND, &WAYS)));
        assert_eq!(world.hosts[1 - at].kernel.leaves(world.pair(1 - at, at)), Leaves::Dropped);
        world.run(100 * SECOND, Some((SECOND, &WAYS)));
        (0..2).for_each(|at| world.assert_closed(at));
        assert!(world.status(at).config_error.is_some());
        assert_eq!((world.total().clear, world.total().leaked), (0, 0));
        world.give(at, true);
        assert!(world.run_until(120 * SECOND, |world| world.all_protected() && world.all_single()));
        let lost = world.total().lost;
        world.run(2 * SECOND, Some((10 * MILLISECOND, &WAYS)));
        assert_eq!((world.total().lost, world.total().clear), (lost, 0));
        assert!(world.status(at).is_healthy());
    }
}

/// It never goes back to clear packets that a pair has begun to encrypt.
#[test]
fn a_pair_that_has_begun_to_send_esp_is_closed_too() {
    let mut world = World::new(2, 1, Weather::FAIR);
    (0..2).for_each(|at| world.enable(at));
    let begun = |world: &World| matches!(world.hosts[0].kernel.leaves(world.pair(0, 1)), Leaves::Esp(_));
    while !begun(&world) {
        world.run(MILLISECOND, None);
    }
    assert!(!world.is_saved_as_sealed(0, 1), "both still take clear packets");
    world.give(0, false);
    world.assert_closed(0);
}

/// Its kernel goes on meanwhile as an agent before it has left it.
#[test]
fn a_host_starts_without_its_secret_and_goes_on_by_itself_when_that_comes() {
    for reboots in [false, true] {
        let mut world = protected(3);
        let before = world.hosts[0].kernel.state.clone();
        match reboots {
            true => {
                world.reboot(0);
                world.guard(0);
            }
            false => world.kill(0),
        }
        world.start(0);
        world.run(5 * SECOND, Some((10 * MILLISECOND, &WAYS)));
        let status = world.status(0);
        assert_eq!((status.protection, status.is_healthy()), (Protection::On, false));
        assert!(status.config_error.is_some_and(|words| words.contains("waits for its secret")));
        if reboots {
            world.assert_closed(0);
        } else {
            assert_eq!(world.hosts[0].kernel.state.policies, before.policies, "untouched");
            assert_eq!(status.peers[0].state, RowState::Protected);
            assert_eq!(world.total().lost, 0);
        }
        world.give(0, true);
        assert!(world.run_until(60 * SECOND, |world| world.all_protected() && world.all_single()));
        assert_eq!((world.total().clear, world.total().leaked), (0, 0));
    }
}

/// Before it knows whether it gets its secret it keeps the pairs as ever: somebody else may change the kernel's tables,
/// and what runs at boot before it may have failed.
#[test]
fn a_host_that_waits_for_its_secret_guards_its_pairs() {
    let mut world = protected(6);
    world.kill(0);
    world.start(0);
    world.flush_policies(0);
    world.run(200 * MILLISECOND, None);
    world.run(100 * SECOND, Some((10 * MILLISECOND, &WAYS)));
    assert_eq!((world.total().lost, world.total().clear), (0, 0), "what an agent before left goes on");
    let status = world.status(0);
    assert_eq!(
        (status.peers[0].state, status.agent.drift.is_some_and(|drift| drift > 0)),
        (RowState::Protected, true)
    );
    world.give(0, true);
    world.run(30 * SECOND, Some((10 * MILLISECOND, &WAYS)));
    assert!(world.all_protected() && world.all_single());
    assert_eq!((world.total().lost, world.total().clear), (0, 0));

    world.reboot(0);
    world.start(0);
    world.assert_closed(0);
    world.flush_policies(0);
    world.run(200 * MILLISECOND, None);
    world.assert_closed(0);
    world.give(0, true);
    assert!(world.run_until(60 * SECOND, |world| world.all_protected() && world.all_single()));
    assert_eq!((world.total().clear, world.total().leaked), (0, 0));
}

#[test]
fn what_an_agent_before_left_goes_too_where_the_secret_is_denied_at_the_start() {
    let mut world = protected(4);
    world.kill(0);
    world.start(0);
    world.give(0, false);
    world.assert_closed(0);
    world.give(0, true);
    assert!(world.run_until(120 * SECOND, World::all_protected));
    assert_eq!(world.total().leaked, 0);
}

#[test]
fn a_host_without_its_secret_can_still_be_disabled() {
    for restarts in [false, true] {
        let mut world = protected(5);
        match restarts {
            true => {
                world.kill(0);
                world.start(0);
            }
            false => world.give(0, false),
        }
        disable_and_enable(&mut world);
    }
}

fn disable_and_enable(world: &mut World) {
    world.disable(0);
    let off =
        |world: &World| world.state(0, 1) == RowState::Off && world.hosts[0].kernel.state.policies.is_empty();
    assert!(world.run_until(60 * SECOND, off));
    world.give(0, true);
    world.enable(0);
    assert!(world.run_until(120 * SECOND, World::all_protected), "{:?}", world.reason(1, 0));
}

/// What members say to each other does not rest on it.
#[test]
fn a_member_that_waits_for_its_secret_hears_its_cluster() {
    for mut world in [members::talking(3, 1), members::protected(3, 1)] {
        let wanted = world.hosts[0].is_at_work();
        world.kill(0);
        world.hosts[0].file.place = Place::Elsewhere;
        world.start(0);
        assert!(world.run_until(90 * SECOND, World::all_talk), "{wanted}");
        world.give(0, true);
        let done =
            |world: &World| if wanted { world.all_protected() } else { world.all_are(Protection::Off) };
        assert!(world.run_until(60 * SECOND, done), "{wanted}");
        assert_eq!((world.total().clear, world.total().leaked), (0, 0));
    }
}

/// What happens to the first of two hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Give,
    Withdraw,
    Die,
    Reboot,
    /// Somebody else removes all policies.
    Flush,
    Reload,
    Enable,
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Give),
        3 => Just(Step::Withdraw),
        1 => Just(Step::Die),
        1 => Just(Step::Reboot),
        1 => Just(Step::Flush),
        1 => Just(Step::Reload),
        1 => Just(Step::Enable),
        4 => prop_oneof![Just(1), Just(30), Just(700), Just(5_000), Just(40_000)].prop_map(Step::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// From the moment when the secret is withdrawn until it is given again the kernel holds no SA, whatever happens
    /// meanwhile, and no packet passes in the clear. In the end all is protected.
    #[test]
    fn while_the_secret_is_withdrawn_nothing_passes(
        seed in 0..1000_u64,
        steps in prop::collection::vec(step(), 1..24),
    ) {
        let mut world = protected(seed);
        let mut withdrawn = false;
        for step in steps {
            match step {
                Step::Give => (withdrawn, _) = (false, world.give(0, true)),
                Step::Withdraw => (withdrawn, _) = (true, world.give(0, false)),
                Step::Die | Step::Reboot => {
                    if step == Step::Reboot {
                        world.reboot(0);
                        world.guard(0);
                    } else {
                        world.kill(0);
                    }
                    world.start(0);
                    // Whoever withdrew it does so again where he is asked.
                    if withdrawn {
                        world.give(0, false);
                    } else if step == Step::Die {
                        world.give(0, true);
                    }
                }
                Step::Flush => world.flush_policies(0),
                Step::Reload => world.reconfigure(0, |file| file.replay_window ^= 64),
                Step::Enable => world.enable(0),
                Step::Pass(time) => world.run(MILLISECOND * time as u32, Some((50 * MILLISECOND, &WAYS))),
            }
            if withdrawn {
                // A flush is repaired within the pause between two looks.
                world.run(200 * MILLISECOND, None);
                world.assert_closed(0);
            }
        }
        prop_assert_eq!(world.total().leaked, 0);
        world.give(0, true);
        prop_assert!(world.run_until(180 * SECOND, World::all_protected), "{:?}", world.reason(0, 1));
    }
}
