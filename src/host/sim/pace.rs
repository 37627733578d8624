//! Keys that are replaced again and again, under traffic.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::net::Weather;
use super::world::World;

const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];

fn sas(world: &World) -> [usize; 2] {
    [0, 1].map(|host| world.hosts[host].kernel.state.sas.len())
}

/// Sixty kills at a rekey every two seconds: what the dead agents left goes while the rekeys go on.
#[test]
fn what_killed_agents_left_goes_while_rekeys_go_on() {
    seeds(4, |seed| {
        let mut world = World::new(2, seed, Weather::FAIR);
        world.rekey_after(2 * SECOND);
        (0..2).for_each(|host| world.enable(host));
        assert!(world.run_until(10 * SECOND, World::all_protected));
        for kill in 0..60 {
            world.run(Duration::from_millis(700 + 13 * kill), Some((5 * MILLISECOND, &WAYS)));
            let victim = (kill % 2) as usize;
            world.kill(victim);
            world.enable(victim);
        }
        world.run(60 * SECOND, Some((5 * MILLISECOND, &WAYS)));
        let left = sas(&world);
        assert!(left.iter().all(|sas| *sas <= 10), "{left:?}");
        assert_eq!(world.total().lost, 0);
    });
}
