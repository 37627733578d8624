//! What agents write to their state directories, and how often.

use super::cluster::{MINUTE, SECOND};
use super::net::Weather;
use super::world::World;

/// Keys that are replaced every two seconds make for figures alone, and figures are written now and then.
#[test]
fn rekeys_write_nothing_at_once() {
    for seed in 0..4 {
        let mut world = World::new(2, seed, Weather::FAIR);
        world.rekey_after(2 * SECOND);
        (0..2).for_each(|host| world.enable(host));
        assert!(world.run_until(MINUTE, World::all_protected));
        world.hosts.iter_mut().for_each(|host| host.disk.octets = 1 << 20);
        world.run(MINUTE, None);
        let before: Vec<u64> = world.hosts.iter().map(|host| host.disk.writes).collect();
        world.run(10 * MINUTE, None);
        for (host, before) in world.hosts.iter().zip(before) {
            // A state of so many octets is written each 256 s.
            assert!(host.disk.writes - before <= 3, "seed {seed}: {} writes", host.disk.writes - before);
        }
    }
}
