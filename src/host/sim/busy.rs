//! Agents that get no turn for seconds: what waits in a host says nothing of the path to it.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::net::Weather;
use super::world::World;
use crate::types::ReasonCode;

impl World {
    /// Whether one of two hosts says that ESP does not get through, or goes around.
    fn accuses_the_path(&self) -> bool {
        let accuses = |from: usize, to: usize| {
            let reason = self.reason(from, to);
            reason.is_some_and(|(code, words)| code == ReasonCode::EspBlocked || words.contains("in UDP"))
        };
        accuses(0, 1) || accuses(1, 0) || self.any_in_udp()
    }
}

/// Each host in its turn, or both, at each moment of the way to protection.
#[test]
fn a_host_that_is_busy_does_not_accuse_the_path() {
    const WHO: [&[usize]; 3] = [&[0], &[1], &[0, 1]];
    seeds(4, |seed| {
        for (who, after) in WHO.into_iter().flat_map(|who| (1..8).map(move |after| (who, after))) {
            for (weather, busy) in [(Weather::FAIR, 4), (Weather::FAIR, 7), (Weather::ROUGH, 5)] {
                let mut world = World::new(2, seed, weather);
                (0..2).for_each(|host| world.enable(host));
                let exchange = weather.delay.1 * after;
                world.run(exchange, None);
                who.iter().for_each(|host| world.starve(*host, busy * SECOND));
                let accused = world.run_until(30 * SECOND, World::accuses_the_path);
                let case = format!("{who:?} busy for {busy} s after {exchange:?}");
                assert!(!accused, "{case}: {:?} {:?}", world.reason(0, 1), world.reason(1, 0));
                assert!(world.all_protected(), "{case}: {:?} {:?}", world.reason(0, 1), world.reason(1, 0));
            }
        }
    });
}

/// It gets short turns, and so sends what is due, and reads late whatever comes.
#[test]
fn a_host_that_is_always_late_does_not_accuse_the_path() {
    seeds(4, |seed| {
        for pause in [300 * MILLISECOND, 900 * MILLISECOND, 2 * SECOND, Duration::from_millis(3_300)] {
            let mut world = World::new(2, seed, Weather::FAIR);
            (0..2).for_each(|host| world.enable(host));
            for _ in 0..20 {
                world.starve(1, pause);
                let accused = world.run_until(pause + MILLISECOND, World::accuses_the_path);
                assert!(!accused, "{pause:?}: {:?} {:?}", world.reason(0, 1), world.reason(1, 0));
            }
            world.run(10 * SECOND, None);
            assert!(world.all_protected(), "{pause:?}");
        }
    });
}
