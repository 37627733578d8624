//! What SAs rest on is taken away while the agent is not there to see it.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::net::Weather;
use super::world::World;
use crate::types::{ReasonCode, RowState};

const REKEY: Duration = Duration::from_secs(60);
const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];

/// Two hosts, protected; the agent of `victim` dies, and its secret is another one when the next one starts.
fn without_its_secret(seed: u64, victim: usize) -> World {
    let mut world = World::new(2, seed, Weather::FAIR);
    world.rekey_after(REKEY);
    (0..2).for_each(|host| world.enable(host));
    world.run(3 * SECOND, None);
    assert!(world.all_protected());
    world.kill(victim);
    world.give_other_secret(victim);
    world.start(victim);
    world
}

#[test]
fn sas_whose_proof_is_gone_end_in_time_however_often_the_agent_starts() {
    seeds(10, |seed| {
        for (victim, restarts) in [(0, 0), (1, 0), (0, 2), (1, 2)] {
            let mut world = without_its_secret(seed, victim);
            for _ in 0..restarts {
                world.run(REKEY / 4, Some((10 * MILLISECOND, &WAYS)));
                world.kill(victim);
                world.start(victim);
            }
            world.run(REKEY / 4, Some((10 * MILLISECOND, &WAYS)));
            assert_eq!(world.state(victim, 1 - victim), RowState::Protected, "they serve until then");
            let total = world.total();
            assert_eq!((total.lost, total.clear), (0, 0));
            world.run(REKEY + SECOND - (restarts + 1) * (REKEY / 4), None);
            assert_eq!(world.state(victim, 1 - victim), RowState::Blocked, "{restarts} restarts");
            assert_eq!(world.reason(victim, 1 - victim).unwrap().0, ReasonCode::AuthFailed);
            assert!(world.hosts[victim].kernel.state.sas.is_empty());
            world.run(SECOND, Some((10 * MILLISECOND, &WAYS)));
            assert_eq!(world.total().clear, 0);
        }
    });
}

#[test]
fn a_proof_that_is_accepted_again_in_time_changes_nothing() {
    seeds(10, |seed| {
        let mut world = without_its_secret(seed, 0);
        world.run(REKEY / 2, None);
        world.reconfigure(0, |file| file.secret = [7; 32]);
        world.run(2 * REKEY, Some((100 * MILLISECOND, &WAYS)));
        assert!(world.all_protected());
        assert_eq!((world.total().lost, world.total().clear), (0, 0));
    });
}
