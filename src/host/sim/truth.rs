//! What hosts say of each other, of their paths and of themselves.

use std::net::SocketAddr;
use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::net::Weather;
use super::world::{LETS_OUT, World, address};
use crate::host::core::Unsent;
use crate::host::reading::Scrutiny;
use crate::types::{Direction, ReasonCode, RowState, UnixTime};

/// Hosts that tell what they are, protected.
pub(super) fn telling(hosts: usize, seed: u64, weather: Weather) -> World {
    let mut world = World::new(hosts, seed, weather);
    (0..hosts).for_each(|host| world.enable(host));
    assert!(world.run_until(120 * SECOND, World::all_protected), "seed {seed}");
    world
}

impl World {
    fn narrow(&self, from: usize, to: usize) -> Option<u16> {
        self.hosts[from].core().and_then(|core| core.narrow(self.pair(from, to)))
    }
}

#[test]
fn a_path_that_loses_large_packets_is_measured_and_looked_at_again() {
    seeds(4, |seed| {
        for weather in [Weather::FAIR, Weather::ROUGH] {
            let mut world = World::new(2, seed, weather);
            world.net.swallows = Some(1400);
            (0..2).for_each(|host| world.enable(host));
            let measured = |world: &World| world.narrow(0, 1).is_some() && world.narrow(1, 0).is_some();
            assert!(world.run_until(120 * SECOND, measured));
            for found in [world.narrow(0, 1), world.narrow(1, 0)].into_iter().flatten() {
                assert!(found <= 1400, "{found}");
                assert!(weather.loss > 0.0 || found >= 1392, "{found}");
            }
            assert_eq!(world.state(0, 1), RowState::Protected);
            assert_eq!(world.totals(0, 1, Direction::Out), 0, "probes are no traffic");
            assert_eq!(world.totals(1, 0, Direction::In), 0);
            world.net.swallows = None;
            let mended = |world: &World| world.narrow(0, 1).is_none() && world.narrow(1, 0).is_none();
            assert!(world.run_until(200 * SECOND, mended));
        }
    });
}

#[test]
fn a_path_that_passes_what_leaves_is_fine_whatever_the_weather() {
    seeds(10, |seed| {
        for weather in [Weather::FAIR, Weather::ROUGH, Weather::FOUL] {
            let mut world = telling(3, seed, weather);
            world.net.swallows = Some(usize::from(LETS_OUT));
            for _ in 0..30 {
                world.run(SECOND, None);
                let narrow = world.ways().iter().any(|(from, to)| world.narrow(*from, *to).is_some());
                assert!(!narrow || weather.loss > 0.2, "seed {seed}");
            }
        }
    });
}

#[test]
fn a_peer_whose_file_dropped_us_is_told_apart_from_one_that_was_disabled() {
    let mut world = telling(3, 1, Weather::FAIR);
    world.reconfigure(1, |file| file.nodes.retain(|node| *node != 0));
    let left = |world: &World| world.reason(0, 1).is_some_and(|(code, _)| code == ReasonCode::PeerDisabled);
    assert!(world.run_until(20 * SECOND, left), "{:?}", world.reason(0, 1));
    let (_, words) = world.reason(0, 1).unwrap();
    assert!(words.contains("does not list this host any more"), "{words}");
    world.disable(2);
    let left = |world: &World| world.reason(0, 2).is_some_and(|(code, _)| code == ReasonCode::PeerDisabled);
    assert!(world.run_until(20 * SECOND, left));
    assert!(world.reason(0, 2).unwrap().1.contains("its operator disabled it"));
}

fn refuse(world: &mut World, why: &str) {
    let pair = world.pair(0, 1);
    let [local, remote] = [pair.local, pair.remote].map(|address| SocketAddr::new(address, 500));
    let unsent = vec![Unsent { local, remote, why: why.to_owned() }];
    world.on(0, |agent, now, kernel| agent.handle_unsent(now, kernel, unsent));
}

#[test]
fn what_this_host_does_not_let_out_is_no_silence_of_the_peer() {
    let mut world = World::new(2, 1, Weather::FAIR);
    world.cut(0, 1);
    world.enable(0);
    world.run(100 * MILLISECOND, None);
    refuse(&mut world, "prohibited");
    let says = |world: &World| world.reason(0, 1).is_some_and(|it| it.1.contains("prohibited"));
    assert_eq!(world.reason(0, 1).map(|(code, _)| code), Some(ReasonCode::KernelError));
    assert!(says(&world), "at once");
    world.run(9 * SECOND, None);
    assert!(says(&world), "the attempt had no answer because of it");
    world.run(60 * SECOND, None);
    assert_eq!(world.reason(0, 1).map(|(code, _)| code), Some(ReasonCode::NoAnswer), "it is over");
}

#[test]
fn a_moment_without_a_route_says_nothing_of_a_pair_that_is_protected() {
    let mut world = telling(2, 1, Weather::FAIR);
    refuse(&mut world, "unreachable");
    assert_eq!((world.state(0, 1), world.reason(0, 1)), (RowState::Protected, None));
    let machine = &world.hosts[0].core().unwrap().pairs()[&world.pair(0, 1)];
    assert_eq!(machine.unrenewed(), None);
}

#[test]
fn a_pair_that_comes_back_is_not_blamed_for_what_it_could_not_send_before() {
    let mut world = telling(3, 1, Weather::FAIR);
    refuse(&mut world, "unreachable");
    world.reconfigure(0, |file| file.nodes.retain(|node| *node != 1));
    let pair = world.pair(0, 1);
    let gone = |world: &World| !world.hosts[0].core().unwrap().pairs().contains_key(&pair);
    assert!(world.run_until(20 * SECOND, gone));
    world.cut(0, 1);
    world.reconfigure(0, |file| file.nodes.push(1));
    let failed = |world: &World| world.reason(0, 1).is_some_and(|(code, _)| code != ReasonCode::InProgress);
    assert!(world.run_until(60 * SECOND, failed));
    assert_eq!(world.reason(0, 1).map(|(code, _)| code), Some(ReasonCode::NoAnswer));
}

/// `status --watch` asks for one each second, and those who follow for four.
#[test]
fn what_is_known_of_thousands_of_pairs_is_told_at_once() {
    const PAIRS: usize = 5_000;
    let mut world = World::new(1, 1, Weather::FAIR);
    world.hosts[0].file.nodes = (0..=PAIRS).collect();
    world.enable(0);
    world.run(5 * SECOND, None);
    let agent = world.hosts[0].agent.as_ref().unwrap();
    let began = std::time::Instant::now();
    let snapshot = agent.snapshot_of(world.now, Scrutiny::Whole, |_| true);
    println!("a snapshot of {PAIRS} pairs: {:?}", began.elapsed());
    let began = std::time::Instant::now();
    let told = agent.snapshot_of(world.now, Scrutiny::Whole, |pair| pair.remote == address(7));
    println!("for one who follows: {:?}", began.elapsed());
    assert_eq!((told.states.len(), told.pairs.len()), (PAIRS, 1));
    assert_eq!(snapshot.pairs.len(), PAIRS);
    assert!(snapshot.pairs.values().all(|known| known.reason.is_some()));
}

/// SAs live on for as long, whatever the clock that can be set is set to.
#[test]
fn a_clock_that_was_set_ends_no_sa() {
    const DAY: u64 = 86_400;
    let mut world = telling(2, 1, Weather::FAIR);
    world.run(100 * SECOND, None);
    let core = world.hosts[0].core().unwrap();
    for (made, left) in [(5 * DAY, DAY), (7 * DAY, DAY), (5 * DAY - 100, DAY)] {
        let mut sas = world.hosts[0].kernel.state.sas.clone();
        for reading in sas.values_mut() {
            (reading.added, reading.hard_seconds) = (made, Some(left));
        }
        core.date(world.now, UnixTime(6 * DAY), &mut sas);
        let ages: Vec<u64> = sas.values().map(|reading| 6 * DAY - reading.added).collect();
        assert!(!ages.is_empty() && ages.iter().all(|age| (100..200).contains(age)), "{made}: {ages:?}");
    }
    // The clock was set back, and the kernel waits for it.
    world.now += Duration::from_secs(2 * DAY);
    let mut sas = world.hosts[0].kernel.state.sas.clone();
    sas.values_mut().for_each(|reading| (reading.added, reading.hard_seconds) = (6 * DAY, Some(DAY)));
    world.hosts[0].core().unwrap().date(world.now, UnixTime(6 * DAY + 5), &mut sas);
    assert!(sas.values().all(|reading| reading.added == 6 * DAY));
}
