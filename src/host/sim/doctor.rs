//! What `doctor` has an agent find out of the paths to its peers.

use std::time::Duration;

use super::cluster::{SECOND, protected, seeds};
use super::members;
use super::net::Weather;
use super::world::{NAT_PORT, PORT, World, address};
use crate::control::{ClusterReply, ClusterRequest, DoctorReply, DoctorRequest, Reply, Request};
use crate::observe::doctor::{BothWays, PairFinding};
use crate::types::RowState;

const OPEN: BothWays = BothWays { out: Some(true), inward: Some(true) };
/// It is promised that it takes no longer.
const LONGEST: Duration = Duration::from_secs(15);

impl World {
    fn examine(&mut self, at: usize) -> Vec<PairFinding> {
        let asker = self.ask(at, Request::Doctor(DoctorRequest::default()));
        let told = move |world: &World| world.hosts[at].replies.iter().any(|(to, ..)| *to == asker);
        assert!(self.run_until(LONGEST, told), "it takes too long");
        let reply = self.hosts[at].replies.iter().find(|(to, ..)| *to == asker).map(|(_, reply, _)| reply);
        match reply {
            Some(Reply::Doctor(DoctorReply { findings })) => findings.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// What the first host finds of its only peer.
    fn examined(&mut self) -> PairFinding {
        let [finding] = &self.examine(0)[..] else { panic!("one pair") };
        finding.clone()
    }
}

#[test]
fn an_open_path_is_open_each_way_and_nothing_changes() {
    seeds(6, |seed| {
        for weather in [Weather::FAIR, Weather::ROUGH] {
            let mut world = protected(3, seed, weather);
            world.run(30 * SECOND, None);
            let before = world.total().lost;
            let findings = world.examine(0);
            assert_eq!(findings.len(), 2);
            for finding in findings {
                assert!(finding.asked && finding.round_trip_us.is_some(), "{finding:?}");
                // Clocks are read in whole seconds.
                assert!(finding.ahead_s.is_some_and(|seconds| seconds.abs() <= 1), "{finding:?}");
                let ways = finding.ways;
                assert!([ways.ike, ways.nat, ways.esp].iter().all(|way| way.are_open()), "{finding:?}");
                assert!(finding.size.is_some_and(|(size, fine)| fine && size >= 1280), "{finding:?}");
            }
            let again = world.examine(0);
            assert!(again.iter().all(|finding| finding.ways.nat.are_open()), "at once again: {again:?}");
            world.run(10 * SECOND, None);
            assert!(world.all_protected() && world.all_single());
            assert_eq!(world.total().lost, before);
        }
    });
}

#[test]
fn what_is_closed_is_found_with_its_direction() {
    seeds(4, |seed| {
        let (here, there) = (address(0), address(1));
        let closed = |out, inward| BothWays { out: Some(out), inward: Some(inward) };
        for (from, to, ways) in [(here, there, closed(false, true)), (there, here, closed(true, false))] {
            // Port 4500 is in nobody's way.
            let mut world = protected(2, seed, Weather::FAIR);
            world.net.udp_blocked.insert((from, to, NAT_PORT));
            let finding = world.examined();
            assert_eq!((finding.ways.ike, finding.ways.nat, finding.ways.esp), (OPEN, ways, OPEN));
            // ESP of a pair that is protected is dropped from now on.
            let mut world = protected(2, seed, Weather::FAIR);
            world.net.esp_blocked.insert((from, to));
            let finding = world.examined();
            assert_eq!((finding.ways.ike, finding.ways.esp), (OPEN, ways));
            // Without IKE nobody can be asked, and what comes from there is seen.
            let mut world = protected(2, seed, Weather::FAIR);
            world.net.udp_blocked.insert((from, to, PORT));
            let finding = world.examined();
            assert!(finding.asked && finding.round_trip_us.is_none(), "{finding:?}");
            assert_eq!(world.state(0, 1), RowState::Protected, "its SAs stay");
        }
    });
}

/// The other host's requests come, and nothing that this one sends gets there.
#[test]
fn a_host_that_is_heard_and_does_not_hear_knocks() {
    for (from, to, knocks) in [(0, 1, true), (1, 0, false)] {
        let mut world = World::new(2, 1, Weather::FAIR);
        world.net.udp_blocked.insert((address(from), address(to), PORT));
        (0..2).for_each(|host| world.enable(host));
        world.run(30 * SECOND, None);
        let finding = world.examined();
        assert_eq!((finding.asked, finding.knocks), (false, knocks));
    }
}

#[test]
fn a_path_that_loses_large_packets_is_measured_at_once() {
    let mut world = protected(2, 1, Weather::FAIR);
    world.run(10 * SECOND, None);
    world.net.swallows = Some(1300);
    let (size, fine) = world.examined().size.expect("it is found in time");
    assert!(!fine && (1290..=1300).contains(&size), "{size}");
}

#[test]
fn a_host_that_is_dead_is_not_waited_for_and_one_that_is_off_asks_nobody() {
    let mut world = protected(2, 1, Weather::FAIR);
    world.kill(1);
    let finding = world.examined();
    assert!(finding.asked && finding.round_trip_us.is_none() && !finding.knocks, "{finding:?}");
    let mut world = World::new(2, 1, Weather::FAIR);
    world.start(0);
    assert!(world.examine(0).is_empty());
}

/// Whoever asks while another one waits gets the same answer; and both ends can ask at once.
#[test]
fn questions_do_not_get_in_each_others_way() {
    let mut world = protected(2, 1, Weather::FAIR);
    world.run(10 * SECOND, None);
    let first = world.ask(0, Request::Doctor(DoctorRequest::default()));
    let other = world.ask(0, Request::Doctor(DoctorRequest { node: Some("n1".parse().unwrap()) }));
    let theirs = world.ask(1, Request::Doctor(DoctorRequest::default()));
    world.run(LONGEST, None);
    let reply = |at: usize, asker| {
        let found = world.hosts[at].replies.iter().find(|(to, ..)| *to == asker);
        found.map(|(_, reply, _)| reply).expect("an answer")
    };
    for (at, asker) in [(0, first), (1, theirs)] {
        let Reply::Doctor(DoctorReply { findings }) = reply(at, asker) else { panic!("an answer") };
        assert!(findings[0].ways.ike.are_open() && findings[0].ways.esp.are_open(), "{findings:?}");
    }
    assert!(matches!(reply(0, other), Reply::Error { .. }), "one at a time");
}

/// Each time both ends send a few datagrams.
#[test]
fn a_peer_that_asks_again_and_again_gets_datagrams_once_a_second() {
    let mut world = protected(2, 1, Weather::FAIR);
    world.run(10 * SECOND, None);
    let (began, sent) = (world.now, world.net.ike_sent);
    for _ in 0..6 {
        assert!(world.examined().ways.nat.are_open());
    }
    let took = world.now - began;
    assert!(took >= 5 * SECOND, "{took:?}");
    assert!(world.net.ike_sent - sent < 6 * 40, "{}", world.net.ike_sent - sent);
}

#[test]
fn each_member_says_what_its_checks_find() {
    let mut world = members::protected(3, 1);
    world.kill(2);
    let Ok(ClusterReply::Checks(said)) = world.order(0, ClusterRequest::Checks) else { panic!("an answer") };
    let [one] = &said[..] else { panic!("{said:?}") };
    assert_eq!(one.node.as_str(), "n1");
    assert!(one.checks.ok > 3 && one.checks.more == 0, "{one:?}");
}
