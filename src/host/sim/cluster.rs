//! What clusters must do, in fair and in foul weather.

use std::time::Duration;

use super::net::Weather;
use super::world::World;
use crate::types::ours::priority;
use crate::types::{Direction, EncapsulationMode, ReasonCode, RowState};

pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MILLISECOND: Duration = Duration::from_millis(1);

pub(super) fn protected(hosts: usize, seed: u64, weather: Weather) -> World {
    let mut world = World::new(hosts, seed, weather);
    (0..hosts).for_each(|host| world.enable(host));
    let done = world.run_until(120 * SECOND, World::all_protected);
    assert!(done, "seed {seed}: not all protected");
    // What was sealed a moment ago is written to the state directory by then.
    world.run(SECOND, None);
    world
}

/// As in the tests of `ike`: so many times as many cases, for a campaign.
pub(super) fn times() -> u32 {
    std::env::var("HOSTSEAL_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Runs `scenario` with several seeds; one that fails is printed.
pub(super) fn seeds(count: u64, scenario: impl Fn(u64)) {
    for seed in 0..count * u64::from(times()) {
        let run = std::panic::AssertUnwindSafe(|| scenario(seed));
        if let Err(cause) = std::panic::catch_unwind(run) {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(cause);
        }
    }
}

#[test]
fn three_hosts_are_protected_within_two_seconds_and_lose_nothing() {
    seeds(20, |seed| {
        let mut world = World::new(3, seed, Weather::FAIR);
        let ways = world.ways();
        (0..3).for_each(|host| world.enable(host));
        world.run(2 * SECOND, Some((MILLISECOND, &ways)));
        assert!(world.all_protected(), "{:?}", world.reason(0, 1));
        assert!(world.all_single());
        assert_eq!(world.total().lost, 0);
        let clear = world.total().clear;
        world.run(2 * SECOND, Some((MILLISECOND, &ways)));
        assert_eq!((world.total().lost, world.total().clear), (0, clear));
    });
}

/// On links so slow, and with packets so seldom, that none need have come in when both ends send ESP: those
/// that were sent in the clear just before are still on their way.
#[test]
fn sparse_traffic_on_slow_links_is_not_lost() {
    for delay in [1, 20, 50, 100, 200, 400] {
        seeds(20, |seed| {
            let weather = Weather { delay: (delay * MILLISECOND, delay * MILLISECOND), ..Weather::FAIR };
            let mut world = World::new(2, seed, weather);
            let ways = world.ways();
            world.enable(0);
            // The packets fall on another moment of the exchanges with every seed.
            world.run(SECOND + 23 * seed as u32 * MILLISECOND, None);
            world.enable(1);
            world.run(10 * SECOND, Some((500 * MILLISECOND, &ways)));
            assert!(world.all_protected());
            world.run(SECOND, None);
            assert_eq!(world.total().lost, 0, "delay {delay} ms");
        });
    }
}

#[test]
fn a_pair_without_traffic_is_protected_in_a_fraction_of_a_second() {
    let mut world = World::new(2, 1, Weather::FAIR);
    (0..2).for_each(|host| world.enable(host));
    world.run(200 * MILLISECOND, None);
    assert!(world.all_protected());
    let mut world = World::new(2, 1, Weather::FAIR);
    (0..2).for_each(|host| world.enable(host));
    world.run(800 * MILLISECOND, Some((MILLISECOND, &[(0, 1), (1, 0)])));
    assert!(!world.all_protected(), "what may be queued gets its time");
}

#[test]
fn enabling_one_after_the_other_loses_nothing() {
    seeds(10, |seed| {
        let mut world = World::new(3, seed, Weather::FAIR);
        let ways = world.ways();
        for host in 0..3 {
            world.enable(host);
            world.run(5 * SECOND, Some((10 * MILLISECOND, &ways)));
        }
        assert!(world.run_until(60 * SECOND, World::all_protected));
        assert_eq!(world.total().lost, 0);
    });
}

#[test]
fn a_strict_host_sends_nothing_in_the_clear_and_is_joined_by_the_others() {
    seeds(20, |seed| {
        let mut world = World::new(2, seed, Weather::FAIR);
        let strict = (seed % 2) as usize;
        world.enable_with(strict, true, None);
        world.run(5 * SECOND, Some((10 * MILLISECOND, &[(strict, 1 - strict)])));
        assert_eq!(world.state(strict, 1 - strict), RowState::Blocked);
        world.enable(1 - strict);
        world.run(20 * SECOND, Some((10 * MILLISECOND, &[(strict, 1 - strict)])));
        assert!(world.all_protected(), "{:?}", world.reason(0, 1));
        assert_eq!(world.total().clear, 0);
    });
}

#[test]
fn a_host_that_is_enabled_strictly_afterwards_is_closed_at_once() {
    let mut world = World::new(2, 1, Weather::FAIR);
    world.enable(0);
    world.run(SECOND, Some((10 * MILLISECOND, &[(0, 1)])));
    world.run(MILLISECOND, None);
    let clear = world.total().clear;
    assert!(clear > 0);
    world.enable_with(0, true, None);
    world.run(SECOND, Some((10 * MILLISECOND, &[(0, 1)])));
    assert_eq!(world.total().clear, clear);
    // And stays so when it starts anew.
    world.reboot(0);
    world.enable(0);
    world.run(SECOND, Some((10 * MILLISECOND, &[(0, 1)])));
    assert_eq!((world.total().clear, world.state(0, 1)), (clear, RowState::Blocked));
}

#[test]
fn disable_everywhere_leaves_nothing_and_loses_nothing() {
    seeds(20, |seed| {
        let mut world = protected(3, seed, Weather::FAIR);
        let ways = world.ways();
        (0..3).for_each(|host| world.disable(host));
        world.run(5 * SECOND, Some((MILLISECOND, &ways)));
        for host in &world.hosts {
            assert!(host.kernel.state.sas.is_empty() && host.kernel.state.policies.is_empty());
        }
        assert_eq!(world.total().lost, 0);
        assert!(world.total().clear > 0);
    });
}

#[test]
fn one_host_goes_back_to_the_clear_and_comes_again() {
    seeds(20, |seed| {
        let mut world = protected(3, seed, Weather::FAIR);
        let ways = world.ways();
        world.disable(1);
        world.run(6 * SECOND, Some((MILLISECOND, &ways)));
        assert_eq!(world.state(0, 1), RowState::Clear);
        assert_eq!(world.reason(0, 1).unwrap().0, ReasonCode::PeerDisabled);
        assert_eq!(world.state(0, 2), RowState::Protected);
        world.kill(1);
        world.enable(1);
        world.run(6 * SECOND, Some((MILLISECOND, &ways)));
        assert!(world.all_protected(), "{:?} {:?}", world.reason(0, 1), world.reason(1, 0));
        assert_eq!(world.total().lost, 0);
    });
}

#[test]
fn rekeys_lose_nothing_and_totals_are_exact() {
    seeds(5, |seed| {
        let mut world = World::new(2, seed, Weather::FAIR);
        world.rekey_after(2 * SECOND);
        (0..2).for_each(|host| world.enable(host));
        assert!(world.run_until(10 * SECOND, World::all_protected));
        let before = [(0, 1), (1, 0)]
            .map(|(a, b)| (world.totals(a, b, Direction::Out), world.totals(a, b, Direction::In)));
        world.run(30 * SECOND, Some((MILLISECOND, &[(0, 1), (1, 0)])));
        world.run(10 * MILLISECOND, None);
        let total = world.total();
        assert_eq!((total.lost, total.clear), (0, 0));
        for (at, (a, b)) in [(0, 1), (1, 0)].into_iter().enumerate() {
            let sent = world.tally[&(a, b)].sent;
            assert_eq!(world.totals(a, b, Direction::Out) - before[at].0, sent);
            assert_eq!(world.totals(b, a, Direction::In) - before[1 - at].1, sent);
        }
    });
}

#[test]
fn a_killed_agent_loses_nothing_and_its_successor_takes_over() {
    seeds(20, |seed| {
        for victim in 0..2 {
            let mut world = protected(2, seed, Weather::FAIR);
            let ways = world.ways();
            world.kill(victim);
            world.run(20 * SECOND, Some((10 * MILLISECOND, &ways)));
            world.enable(victim);
            world.run(60 * SECOND, Some((10 * MILLISECOND, &ways)));
            assert_eq!((world.total().lost, world.total().clear), (0, 0), "victim {victim}");
            assert!(world.all_protected());
            assert!(world.all_single(), "victim {victim}: old SAs are left");
        }
    });
}

#[test]
fn flushed_sas_come_back_within_a_second_and_nothing_is_clear() {
    seeds(20, |seed| {
        let mut world = protected(2, seed, Weather::FAIR);
        world.flush_sas(0);
        world.run(SECOND, None);
        world.run(2 * SECOND, Some((MILLISECOND, &[(0, 1), (1, 0)])));
        assert_eq!((world.total().lost, world.total().clear), (0, 0));
        assert!(world.hosts[0].core().unwrap().drift() > 0);
        assert!(world.run_until(60 * SECOND, World::all_single));
    });
}

/// What is dead counts for nothing: neither end refuses the next child since it remembers too many.
#[test]
fn a_storm_of_flushes_leaves_the_pair_protected() {
    // What is lost is sent again, after a while.
    for (weather, patience) in [(Weather::FAIR, SECOND), (Weather::ROUGH, 5 * SECOND)] {
        seeds(10, |seed| {
            for hosts in [&[0][..], &[1], &[0, 1]] {
                let mut world = protected(2, seed, Weather::FAIR);
                world.net.weather = weather;
                for _ in 0..40 {
                    hosts.iter().for_each(|host| world.flush_sas(*host));
                    world.run(50 * MILLISECOND, None);
                }
                let settled = |world: &World| world.all_protected() && world.all_single();
                world.net.weather = Weather::FAIR;
                let done = world.run_until(patience, World::all_protected);
                assert!(done, "{hosts:?} {:?} {:?}", world.reason(0, 1), world.reason(1, 0));
                assert!(world.run_until(60 * SECOND, settled));
                assert_eq!(world.total().clear, 0);
            }
        });
    }
}

#[test]
fn flushed_policies_are_back_at_once() {
    let mut world = protected(2, 1, Weather::FAIR);
    world.flush_policies(0);
    // The agent hears of it before the next packet leaves.
    world.run(Duration::ZERO, None);
    world.run(2 * SECOND, Some((MILLISECOND, &[(0, 1), (1, 0)])));
    assert_eq!((world.total().lost, world.total().clear), (0, 0));
    assert!(world.hosts[0].core().unwrap().drift() > 0);
}

#[test]
fn a_rebooted_host_is_back_without_a_clear_packet() {
    seeds(20, |seed| {
        for victim in 0..2 {
            let mut world = protected(2, seed, Weather::FAIR);
            world.reboot(victim);
            world.enable(victim);
            world.run(60 * SECOND, Some((10 * MILLISECOND, &[(0, 1), (1, 0)])));
            assert_eq!(world.total().clear, 0);
            assert!(world.all_protected() && world.all_single(), "victim {victim}");
        }
    });
}

/// The other end does not know that anything is lacking: the one that starts anew begins, whichever it is.
#[test]
fn a_rebooted_host_waits_for_nobody() {
    seeds(20, |seed| {
        for victim in 0..2 {
            let mut world = protected(2, seed, Weather::FAIR);
            world.reboot(victim);
            world.enable(victim);
            assert!(world.run_until(300 * MILLISECOND, World::all_protected), "victim {victim}");
        }
    });
}

/// Then everybody begins, towards everybody.
#[test]
fn a_cluster_that_starts_anew_as_a_whole_is_back_at_once() {
    seeds(20, |seed| {
        let mut world = protected(5, seed, Weather::FAIR);
        (0..5).for_each(|host| world.reboot(host));
        (0..5).for_each(|host| world.enable(host));
        assert!(world.run_until(SECOND, World::all_protected));
        assert!(world.run_until(60 * SECOND, World::all_single));
        assert_eq!(world.total().clear, 0);
    });
}

#[test]
fn a_guard_keeps_a_rebooted_host_closed_and_its_agent_goes_on_from_there() {
    seeds(5, |seed| {
        for victim in 0..2 {
            let other = 1 - victim;
            let mut world = protected(2, seed, Weather::FAIR);
            world.reboot(victim);
            world.guard(victim);
            let of_pairs = |world: &World| {
                let mut policies = world.hosts[victim].kernel.state.policies.clone();
                policies.retain(|_, policy| policy.priority == priority::PAIR);
                policies
            };
            let policies = of_pairs(&world);
            world.guard(victim);
            // One without a guard sends clear packets: what was sealed here takes none.
            world.reboot(other);
            world.run(SECOND, Some((MILLISECOND, &[(0, 1), (1, 0)])));
            world.run(SECOND, None);
            assert_eq!(world.tally[&(victim, other)].clear, 0, "victim {victim}");
            let received = world.tally[&(other, victim)];
            assert_eq!(received.lost, received.sent, "victim {victim}");
            world.enable(victim);
            world.enable(other);
            // But for the guard, which is as broad as it must be before addresses are known.
            assert_eq!(of_pairs(&world), policies, "the agent's first step is done");
            world.run(20 * SECOND, Some((10 * MILLISECOND, &[(victim, other)])));
            assert_eq!(world.tally[&(victim, other)].clear, 0, "victim {victim}");
            assert!(world.all_protected() && world.all_single(), "victim {victim}");
        }
    });
}

#[test]
fn another_secret_is_never_protected_and_both_sides_say_why() {
    let mut world = World::new(3, 1, Weather::FAIR);
    world.give_other_secret(2);
    let ways = world.ways();
    (0..3).for_each(|host| world.enable(host));
    world.run(30 * SECOND, Some((10 * MILLISECOND, &ways)));
    for (a, b) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
        assert_eq!(world.state(a, b), RowState::Clear);
        assert_eq!(world.reason(a, b).unwrap().0, ReasonCode::AuthFailed, "{a} -> {b}");
    }
    assert_eq!((world.state(0, 1), world.state(1, 0)), (RowState::Protected, RowState::Protected));
    assert_eq!(world.total().lost, 0);
}

#[test]
fn a_pair_whose_esp_is_dropped_stays_clear_and_says_so() {
    for one_way in [false, true] {
        let mut world = World::new(2, 1, Weather::FAIR);
        world.encapsulation(EncapsulationMode::Never);
        let (a, b) = (world.hosts[0].address, world.hosts[1].address);
        world.net.esp_blocked.insert((a, b));
        if !one_way {
            world.net.esp_blocked.insert((b, a));
        }
        (0..2).for_each(|host| world.enable(host));
        world.run(30 * SECOND, Some((MILLISECOND, &[(0, 1), (1, 0)])));
        assert_eq!(world.total().lost, 0, "one way: {one_way}");
        for (from, to) in [(0, 1), (1, 0)] {
            assert_ne!(world.state(from, to), RowState::Protected);
            assert_eq!(world.reason(from, to).unwrap().0, ReasonCode::EspBlocked, "one way: {one_way}");
        }
        world.net.esp_blocked.clear();
        world.run(30 * SECOND, Some((MILLISECOND, &[(0, 1), (1, 0)])));
        assert!(world.all_protected(), "heals when the firewall is opened");
        assert_eq!(world.total().lost, 0);
    }
}

/// Runs traffic on `ways` until both hosts say that ESP is blocked; says how long that took.
fn await_blocked(world: &mut World, ways: &[(usize, usize)], most: Duration) -> Duration {
    let blocked = |world: &World| {
        [(0, 1), (1, 0)].into_iter().all(|(from, to)| {
            world.state(from, to) == RowState::Blocked
                && world.reason(from, to).is_some_and(|(code, _)| code == ReasonCode::EspBlocked)
        })
    };
    let begun = world.now;
    while !blocked(world) && world.now < begun + most {
        world.run(SECOND, Some((100 * MILLISECOND, ways)));
    }
    assert!(blocked(world), "{:?} {:?}", world.reason(0, 1), world.reason(1, 0));
    world.now - begun
}

#[test]
fn esp_that_stops_getting_through_is_named_and_heals() {
    let both: &[(usize, usize)] = &[(0, 1), (1, 0)];
    for (seed, ways) in [both, &both[..1], &both[1..]].into_iter().enumerate() {
        for blocked in [both, &both[..1], &both[1..]] {
            // Traffic in the free direction alone arrives.
            if ways.len() == 1 && blocked.len() == 1 && ways != blocked {
                continue;
            }
            let mut world = World::new(2, seed as u64, Weather::FAIR);
            world.encapsulation(EncapsulationMode::Never);
            (0..2).for_each(|host| world.enable(host));
            assert!(world.run_until(10 * SECOND, World::all_protected));
            world.run(100 * SECOND, Some((100 * MILLISECOND, both)));
            for (from, to) in blocked {
                world.net.esp_blocked.insert((world.hosts[*from].address, world.hosts[*to].address));
            }
            await_blocked(&mut world, ways, 64 * SECOND);
            world.run(100 * SECOND, Some((100 * MILLISECOND, ways)));
            world.net.esp_blocked.clear();
            assert!(world.run_until(11 * SECOND, World::all_protected), "{ways:?} {blocked:?}");
            assert_eq!(world.total().clear, 0);
        }
    }
}

#[test]
fn esp_that_is_blocked_through_many_rekeys_heals() {
    for seed in 0..5 {
        let mut world = World::new(2, seed, Weather::FAIR);
        world.rekey_after(20 * SECOND);
        world.encapsulation(EncapsulationMode::Never);
        (0..2).for_each(|host| world.enable(host));
        assert!(world.run_until(10 * SECOND, World::all_protected));
        let (a, b) = (world.hosts[0].address, world.hosts[1].address);
        world.net.esp_blocked.extend([(a, b), (b, a)]);
        await_blocked(&mut world, &[], 30 * SECOND);
        world.run(600 * SECOND, None);
        world.net.esp_blocked.clear();
        assert!(world.run_until(120 * SECOND, |world| world.all_protected() && world.all_single()));
        assert_eq!(world.total().clear, 0);
    }
}

/// Neither silence, nor traffic one way, nor a network that loses a third of words and probes.
#[test]
fn esp_that_gets_through_is_never_called_blocked() {
    let one_way: &[(usize, usize)] = &[(0, 1)];
    for (weather, ways) in [(Weather::FAIR, &[][..]), (Weather::FAIR, one_way), (Weather::FOUL, one_way)] {
        for seed in 0..5 {
            let mut world = protected(2, seed, Weather::FAIR);
            world.net.weather = weather;
            for second in 0..1800 {
                world.run(SECOND, Some((100 * MILLISECOND, ways)));
                assert!(world.all_protected(), "seed {seed}, second {second}: {:?}", world.reason(0, 1));
            }
            assert_eq!((world.total().lost, world.total().clear), (0, 0));
        }
    }
}

#[test]
fn foul_weather_ends_with_one_pair_of_sas_and_the_same_keys() {
    seeds(40, |seed| {
        let mut world = World::new(3, seed, Weather::FOUL);
        world.rekey_after(20 * SECOND);
        (0..3).for_each(|host| world.enable(host));
        world.run(120 * SECOND, None);
        world.net.weather = Weather::FAIR;
        assert!(world.run_until(90 * SECOND, |world| world.all_protected() && world.all_single()));
    });
}

/// Sessions cross, and live ones are taken for dead: the ends remember different children.
#[test]
fn a_storm_leaves_nobody_behind() {
    seeds(200, |seed| {
        let mut world = World::new(3, seed, Weather::STORM);
        (0..3).for_each(|host| world.enable(host));
        world.run(60 * SECOND, None);
        world.net.weather = Weather::FAIR;
        assert!(world.run_until(120 * SECOND, |world| world.all_protected() && world.all_single()));
        let ways = world.ways();
        world.run(SECOND, Some((10 * MILLISECOND, &ways)));
        assert_eq!((world.total().lost, world.total().clear), (0, 0));
    });
}

#[test]
fn partitions_heal() {
    seeds(10, |seed| {
        let mut world = protected(4, seed, Weather::FAIR);
        let addresses: Vec<_> = world.hosts.iter().map(|host| host.address).collect();
        for (a, b) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
            world.net.cut.insert((addresses[a], addresses[b]));
        }
        let ways = world.ways();
        world.run(120 * SECOND, Some((SECOND, &ways)));
        world.net.cut.clear();
        world.run(120 * SECOND, Some((SECOND, &ways)));
        assert!(world.all_protected());
        assert_eq!(world.total().clear, 0);
        assert!(world.run_until(60 * SECOND, World::all_single));
    });
}

#[test]
fn an_address_that_was_away_is_protected_again_at_once() {
    seeds(10, |seed| {
        for away in [SECOND, 20 * SECOND, 200 * SECOND] {
            let mut world = protected(3, seed, Weather::FAIR);
            let ways = world.ways();
            world.set_address(1, false);
            world.run(away, Some((100 * MILLISECOND, &ways)));
            assert_eq!(world.state(1, 0), RowState::Blocked);
            assert_eq!(world.reason(1, 0).unwrap().0, ReasonCode::NoAddress);
            assert_eq!(world.state(0, 2), RowState::Protected, "the others do not notice");
            world.set_address(1, true);
            let lost = world.total().lost;
            world.run(60 * SECOND, Some((100 * MILLISECOND, &ways)));
            assert_eq!((world.total().lost, world.total().clear), (lost, 0), "away for {away:?}");
            assert!(world.all_protected() && world.all_single(), "away for {away:?}");
        }
    });
}

#[test]
fn an_address_that_comes_late_is_protected_soon() {
    seeds(10, |seed| {
        for late in 0..2 {
            let mut world = World::new(2, seed, Weather::FAIR);
            world.set_address(late, false);
            (0..2).for_each(|host| world.enable(host));
            world.set_address(late, false);
            world.run(100 * SECOND, None);
            assert_eq!(world.reason(late, 1 - late).unwrap().0, ReasonCode::NoAddress);
            world.set_address(late, true);
            assert!(world.run_until(3 * SECOND, World::all_protected), "late: {late}");
        }
    });
}

#[test]
fn two_hundred_hosts_converge() {
    let world = protected(200, 1, Weather::FAIR);
    assert!(world.all_single());
}
