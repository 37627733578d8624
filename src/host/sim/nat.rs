//! Hosts behind NATs that change their addresses.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND};
use super::net::Weather;
use super::world::World;
use crate::types::{Direction, Method};

const BOTH: &[(usize, usize)] = &[(0, 1), (1, 0)];

/// Two hosts that are being enabled, with NATs before those of them that are `behind` one.
fn world(behind: &[usize], method: Method, weather: Weather) -> World {
    let mut world = World::new(2, 50 + behind.iter().sum::<usize>() as u64, weather);
    behind.iter().for_each(|at| world.put_behind_nat(*at));
    for at in 0..2 {
        let file = &mut world.hosts[at].file;
        (file.method, file.accept) = (method, vec![method]);
    }
    world.rekey_after(Duration::from_secs(60));
    (0..2).for_each(|host| world.enable(host));
    world
}

fn each(test: impl Fn(&[usize], Method)) {
    for behind in [&[0][..], &[1], &[0, 1]] {
        Method::ALL.into_iter().for_each(|method| test(behind, method));
    }
}

#[test]
fn nothing_is_lost_through_enabling_rekeys_and_disabling() {
    each(|behind, method| {
        let mut world = world(behind, method, Weather::FAIR);
        world.run(12 * SECOND, Some((MILLISECOND, BOTH)));
        assert!(world.all_protected() && world.all_in_udp(), "{behind:?} {method}");
        assert_eq!(world.total().lost, 0);
        world.tally.clear();
        world.run(300 * SECOND, Some((10 * MILLISECOND, BOTH)));
        assert!(world.all_protected() && world.all_in_udp(), "{behind:?} {method}");
        assert_eq!((world.total().lost, world.total().clear), (0, 0), "{behind:?} {method}");
        assert!(world.totals(0, 1, Direction::Out) >= 30_000);
        (0..2).for_each(|host| world.disable(host));
        world.run(20 * SECOND, Some((10 * MILLISECOND, BOTH)));
        assert_eq!(world.total().lost, 0, "{behind:?} {method}");
        assert!(world.hosts.iter().all(|host| host.kernel.state.sas.is_empty()));
    });
}

#[test]
fn agents_die_and_hosts_reboot() {
    each(|behind, method| {
        let mut world = world(behind, method, Weather::FAIR);
        assert!(world.run_until(20 * SECOND, |world| world.all_protected() && world.all_single()));
        world.run(10 * SECOND, None);
        for at in 0..2 {
            world.tally.clear();
            world.kill(at);
            world.run(5 * SECOND, Some((10 * MILLISECOND, BOTH)));
            world.start(at);
            world.run(20 * SECOND, Some((10 * MILLISECOND, BOTH)));
            assert!(world.all_protected() && world.all_single() && world.all_in_udp());
            assert_eq!((world.total().lost, world.total().clear), (0, 0), "{behind:?} {method} {at}");
            world.reboot(at);
            world.guard(at);
            world.run(SECOND, Some((10 * MILLISECOND, BOTH)));
            world.start(at);
            assert!(world.run_until(60 * SECOND, |world| world.all_protected() && world.all_single()));
            assert_eq!((world.total().clear, world.total().leaked), (0, 0), "{behind:?} {method} {at}");
        }
    });
}

#[test]
fn foul_weather_does_no_harm() {
    each(|behind, method| {
        let mut world = world(behind, method, Weather::FOUL);
        assert!(world.run_until(120 * SECOND, World::all_protected), "{behind:?} {method}");
        world.run(120 * SECOND, Some((100 * MILLISECOND, BOTH)));
        world.net.weather = Weather::FAIR;
        assert!(world.run_until(60 * SECOND, |world| world.all_protected() && world.all_single()));
    });
}
