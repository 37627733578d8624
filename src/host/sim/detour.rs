//! A network that drops ESP by itself and lets UDP pass.

use super::cluster::{MILLISECOND, SECOND};
use super::net::Weather;
use super::world::World;
use crate::types::{Direction, EncapsulationMode, ReasonCode, RowState};

const BOTH: &[(usize, usize)] = &[(0, 1), (1, 0)];

/// Drops ESP by itself on these ways.
fn block(world: &mut World, ways: &[(usize, usize)]) {
    for (from, to) in ways {
        world.net.esp_blocked.insert((world.hosts[*from].address, world.hosts[*to].address));
    }
}

#[test]
fn a_pair_whose_esp_is_dropped_is_protected_in_udp() {
    for (seed, ways) in [BOTH, &BOTH[..1], &BOTH[1..]].into_iter().enumerate() {
        let mut world = World::new(2, seed as u64, Weather::FAIR);
        block(&mut world, ways);
        (0..2).for_each(|host| world.enable(host));
        world.run(12 * SECOND, Some((MILLISECOND, BOTH)));
        assert!(world.all_protected() && world.all_in_udp() && world.all_single(), "{ways:?}");
        assert_eq!(world.total().lost, 0);
        // What was found out stays so, and costs nothing more.
        world.net.esp_blocked.clear();
        world.run(3600 * SECOND, Some((SECOND, BOTH)));
        assert!(world.all_protected() && world.all_in_udp());
        assert_eq!(world.total().lost, 0);
    }
}

#[test]
fn it_says_so_meanwhile_and_is_not_in_the_clear_for_good() {
    let mut world = World::new(2, 7, Weather::FAIR);
    block(&mut world, BOTH);
    (0..2).for_each(|host| world.enable(host));
    let tries =
        |world: &World| world.reason(0, 1).is_some_and(|(_, words)| words.contains("trying it in UDP"));
    assert!(world.run_until(8 * SECOND, tries));
    assert_eq!(world.state(0, 1), RowState::Negotiating);
    assert!(!world.run_until(10 * SECOND, |world| world.state(0, 1) == RowState::Clear));
    assert!(world.all_protected());
}

#[test]
fn a_sealed_pair_moves_to_udp_without_a_clear_packet() {
    for (seed, ways) in [BOTH, &BOTH[..1], &BOTH[1..]].into_iter().enumerate() {
        for weather in [Weather::FAIR, Weather::FOUL] {
            let mut world = World::new(2, 20 + seed as u64, weather);
            (0..2).for_each(|host| world.enable(host));
            assert!(world.run_until(30 * SECOND, World::all_protected));
            world.run(100 * SECOND, Some((100 * MILLISECOND, BOTH)));
            assert!(!world.all_in_udp());
            world.tally.clear();
            block(&mut world, ways);
            // Each way looks at its counters each 30 s, and needs traffic that is not answered for that.
            let traffic = if ways.len() == 1 { ways } else { BOTH };
            let begun = world.now;
            while !(world.all_in_udp() && world.all_protected()) && world.now < begun + 120 * SECOND {
                world.run(SECOND, Some((100 * MILLISECOND, traffic)));
            }
            println!("{ways:?}: moved after {:?}", world.now - begun);
            assert!(world.now < begun + 80 * SECOND, "{ways:?}");
            world.run(100 * SECOND, Some((100 * MILLISECOND, BOTH)));
            assert!(world.all_protected() && world.all_in_udp() && world.all_single(), "{ways:?}");
            assert_eq!(world.total().clear, 0);
            let lost = world.total().lost;
            world.run(100 * SECOND, Some((100 * MILLISECOND, BOTH)));
            assert_eq!(world.total().lost, lost);
        }
    }
}

/// The next agent goes on in UDP at once: nothing is lost, and the pair is never called blocked.
#[test]
fn an_agent_after_this_one_goes_on_in_udp() {
    for restarting in [0, 1] {
        let mut world = World::new(2, 20, Weather::FAIR);
        block(&mut world, BOTH);
        (0..2).for_each(|host| world.enable(host));
        world.run(12 * SECOND, None);
        assert!(world.all_in_udp());
        world.kill(restarting);
        world.run(5 * SECOND, Some((MILLISECOND, BOTH)));
        world.start(restarting);
        for _ in 0..300 {
            world.run(100 * MILLISECOND, Some((MILLISECOND, BOTH)));
            let protected = BOTH.iter().all(|(from, to)| world.state(*from, *to) == RowState::Protected);
            assert!(protected, "{:?} {:?}", world.reason(0, 1), world.reason(1, 0));
        }
        assert!(world.all_in_udp() && world.all_single());
        let tally = world.total();
        assert_eq!((tally.lost, tally.clear), (0, 0));
        assert!(world.totals(0, 1, Direction::Out) >= 35_000);
    }
}

#[test]
fn back_to_the_clear_and_by_itself_again_after_that() {
    let mut world = World::new(2, 30, Weather::FAIR);
    block(&mut world, BOTH);
    (0..2).for_each(|host| world.enable(host));
    world.run(12 * SECOND, None);
    assert!(world.all_in_udp());
    world.net.esp_blocked.clear();
    (0..2).for_each(|host| world.disable(host));
    world.run(20 * SECOND, Some((MILLISECOND, BOTH)));
    (0..2).for_each(|host| world.enable(host));
    world.run(12 * SECOND, Some((MILLISECOND, BOTH)));
    assert!(world.all_protected() && !world.all_in_udp());
    assert_eq!(world.total().lost, 0);
}

/// One host allows it and the other does not: as if there were no such thing.
#[test]
fn never_is_never() {
    let mut world = World::new(2, 40, Weather::FAIR);
    world.hosts[1].file.encapsulation = EncapsulationMode::Never;
    block(&mut world, BOTH);
    (0..2).for_each(|host| world.enable(host));
    world.run(60 * SECOND, Some((MILLISECOND, BOTH)));
    for (from, to) in [(0, 1), (1, 0)] {
        assert_eq!(world.state(from, to), RowState::Clear);
        assert_eq!(world.reason(from, to).unwrap().0, ReasonCode::EspBlocked);
    }
    assert_eq!(world.total().lost, 0);
    world.net.esp_blocked.clear();
    world.run(60 * SECOND, Some((MILLISECOND, BOTH)));
    assert!(world.all_protected() && !world.all_in_udp());
    assert_eq!(world.total().lost, 0);
}
