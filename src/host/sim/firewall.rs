//! A stateful firewall that forgets ESP when no traffic flows.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::net::{Firewall, Weather};
use super::truth::telling;
use super::world::{World, address};
use crate::types::EncapsulationMode;

impl World {
    /// How long `from` lets a pause with `to` be, where the path forgets them.
    fn reminded_after(&self, from: usize, to: usize) -> Option<Duration> {
        self.hosts[from].core().expect("its agent runs").reminded_after(self.pair(from, to))
    }

    /// A pause of five minutes, and then traffic from `from` to `to`, of which the firewall drops this much.
    fn dropped_after_pause(&mut self, from: usize, to: usize) -> u64 {
        let dropped = |world: &Self| world.net.firewall.as_ref().map_or(0, |firewall| firewall.dropped);
        self.run(300 * SECOND, None);
        let before = dropped(self);
        self.run(30 * SECOND, Some((100 * MILLISECOND, &[(from, to)])));
        dropped(self) - before
    }
}

#[test]
fn a_path_that_forgets_twice_is_reminded() {
    seeds(6, |seed| {
        for begins in [0, 1] {
            let answers = 1 - begins;
            let mut world = telling(2, seed, Weather::FAIR);
            world.net.firewall = Some(Firewall::new(address(begins), 12 * SECOND));
            for _ in 0..2 {
                let dropped = world.dropped_after_pause(answers, begins);
                assert!(dropped > 0 && dropped < 200, "{dropped}");
                assert!(world.all_protected(), "{:?}", world.reason(answers, begins));
            }
            assert!(world.reminded_after(answers, begins).is_some());
            assert_eq!(world.dropped_after_pause(begins, answers), 0);
            for _ in 0..3 {
                assert_eq!(world.dropped_after_pause(answers, begins), 0);
            }
            assert!(world.all_protected() && !world.all_in_udp());
            assert_eq!(world.reminded_after(begins, answers), None, "only one end is in need of it");
        }
    });
}

/// Firewalls remember UDP for 30 s and longer. What NATs are reminded by (RFC 3948 section 4) reminds them as well.
#[test]
fn a_path_that_forgets_udp_has_no_time_to() {
    seeds(6, |seed| {
        for begins in [0, 1] {
            let answers = 1 - begins;
            let mut world = World::new(2, seed, Weather::FAIR);
            world.encapsulation(EncapsulationMode::Always);
            (0..2).for_each(|host| world.enable(host));
            assert!(world.run_until(30 * SECOND, |world| world.all_protected() && world.all_in_udp()));
            let mut dropped = |forgets: u32| {
                world.net.firewall = Some(Firewall::of_udp(address(begins), forgets * SECOND));
                (0..3).map(|_| world.dropped_after_pause(answers, begins)).sum::<u64>()
            };
            assert_eq!([dropped(30), dropped(12)], [0, 0]);
            assert!(dropped(2) > 0, "none remembers it for so short a time");
        }
    });
}

/// However it rains, and however one-sided the traffic is.
#[test]
fn a_path_that_forgets_nothing_is_not_accused() {
    seeds(10, |seed| {
        for weather in [Weather::FAIR, Weather::ROUGH, Weather::FOUL] {
            let mut world = telling(2, seed, weather);
            for _ in 0..10 {
                world.dropped_after_pause(1, 0);
            }
            assert_eq!([world.reminded_after(0, 1), world.reminded_after(1, 0)], [None, None]);
        }
    });
}

/// A cable that was out is no firewall, and nobody is reminded who is not there.
#[test]
fn an_outage_is_not_taken_for_it() {
    let mut world = telling(2, 3, Weather::FAIR);
    for _ in 0..4 {
        world.run(60 * SECOND, None);
        world.cut(0, 1);
        world.run(47 * SECOND, Some((100 * MILLISECOND, &[(1, 0)])));
        world.mend(0, 1);
        world.run(60 * SECOND, Some((100 * MILLISECOND, &[(1, 0), (0, 1)])));
        assert_eq!([world.reminded_after(0, 1), world.reminded_after(1, 0)], [None, None]);
    }
}
