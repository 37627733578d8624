//! Many hosts that are listed and not there: what they cost, and whether they keep the others waiting.

use super::cluster::{MINUTE, SECOND, seeds};
use super::net::Weather;
use super::world::World;
use crate::types::RowState;

/// Hosts that are there; all beyond are not.
const LIVE: usize = 4;

/// Live hosts, all of which list `dead` others too.
fn among(dead: usize, seed: u64) -> World {
    let mut world = World::new(LIVE, seed, Weather::FAIR);
    world.hosts.iter_mut().for_each(|host| host.file.nodes = (0..LIVE + dead).collect());
    world
}

fn live_protected(world: &World) -> bool {
    let mut ways = (0..LIVE).flat_map(|from| (0..LIVE).map(move |to| (from, to)));
    ways.all(|(from, to)| from == to || world.state(from, to) == RowState::Protected)
}

#[test]
fn the_dead_do_not_delay_the_first_protection_of_the_live() {
    seeds(2, |seed| {
        let mut world = among(5000, seed);
        (0..LIVE).for_each(|host| world.enable(host));
        assert!(world.run_until(2 * SECOND, live_protected));
    });
}

/// After a reboot; and those that were sealed and are gone are no stranger than those that were sealed and live.
#[test]
fn the_dead_do_not_delay_the_live_after_a_reboot() {
    for sealed in [0, 3000] {
        seeds(2, |seed| {
            let mut world = among(5000, seed);
            (0..LIVE).for_each(|host| world.enable(host));
            assert!(world.run_until(10 * SECOND, live_protected));
            world.run(10 * SECOND, None);
            (LIVE..LIVE + sealed).for_each(|dead| world.remember_sealed(0, dead));
            world.reboot(0);
            world.guard(0);
            world.enable(0);
            assert!(world.run_until(2 * SECOND, live_protected), "{sealed} of the dead were sealed");
        });
    }
}

#[test]
fn a_host_that_comes_alive_is_protected_soon() {
    seeds(2, |seed| {
        let mut world = among(2000, seed);
        (1..LIVE).for_each(|host| world.enable(host));
        world.run(2 * MINUTE, None);
        world.enable(0);
        // One that is not the first by rule waits for the others a moment.
        assert!(world.run_until(4 * SECOND, live_protected));
    });
}

/// On both sides of it agents go on: none begins anew when it heals.
#[test]
fn a_cut_that_heals_is_noticed_among_the_dead() {
    seeds(2, |seed| {
        let mut world = among(1000, seed);
        (0..LIVE).for_each(|host| world.enable(host));
        assert!(world.run_until(10 * SECOND, live_protected));
        world.run(MINUTE, None);
        (1..LIVE).for_each(|other| world.cut(0, other));
        // What leaves and is not answered makes the agents ask.
        world.run(3 * MINUTE, Some((SECOND / 10, &[(0, 1), (0, 2), (0, 3)])));
        world.net.cut.clear();
        (0..LIVE).for_each(|host| world.flush_sas(host));
        assert!(world.run_until(MINUTE, live_protected));
    });
}

/// What absent hosts cost does not grow with their number beyond a few hundred.
#[test]
fn thousands_of_the_dead_cost_little() {
    let sent = [500, 5000].map(|dead| {
        let mut world = among(dead, 1);
        world.enable(0);
        world.run(5 * MINUTE, None);
        let before = world.net.ike_sent;
        world.run(MINUTE, None);
        world.net.ike_sent - before
    });
    assert!(sent.iter().all(|sent| *sent <= 60 * 75), "{sent:?}");
    assert!(sent[1] >= 60 * 40, "all of them are knocked at in turn: {sent:?}");
}
