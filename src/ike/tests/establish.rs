//! From nothing to one child, and back.

use std::time::Duration;

use super::net::{Host, Net, SECRET, Weather, assert_mirrored, by, by_each_method, pair, seeds};
use crate::ike::{FailureCode, Posture, Settings};
use crate::types::{Method, Proposals};

const SECOND: Duration = Duration::from_secs(1);

/// ```text
/// a  --- IKE_SA_INIT or IKE_SESSION_RESUME --->  b
/// a  <-- IKE_SA_INIT or IKE_SESSION_RESUME ----  b
/// a  --- IKE_AUTH ------>  b   b: ChildAgreed, installed
/// a  <-- IKE_AUTH -------  b   a: ChildAgreed, installed
/// a  --- told: seen ----->  b
/// a  <-- told: seen ------  b
/// ```
fn two_messages_each_way_make_a_child(method: Method) {
    let mut net = Net::two_by(method, 1);
    net.keep(0, 1);
    net.run(Duration::from_millis(20));
    net.assert_one_pair(0, 1);
    let child = &net.hosts[0].children[&net.child_of(0)].child;
    assert!(child.initiator && !child.foreign && child.suite.esn);
    assert_eq!(child.suite.key_bits, 256);
    let exchanges: Vec<u8> = net.sent.iter().map(|transmit| transmit.bytes[18]).collect();
    let first = method.exchange().0;
    assert_eq!(exchanges[..6], [first, first, 35, 35, 37, 37]);
    assert!(net.hosts[0].failures.is_empty() && net.hosts[1].failures.is_empty());
    // Nothing but rekeys is ahead.
    for host in &net.hosts {
        let (at, reason) = host.engine.poll_timeout().unwrap();
        assert!(at > net.now + 60 * SECOND, "{reason}");
    }
}

fn the_other_end_initiates_when_the_first_does_not(method: Method) {
    let mut net = Net::two_by(method, 2);
    let now = net.now;
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Passive);
    net.hosts[1].engine.keep(now, pair(1, 0), Posture::Active);
    net.run(SECOND);
    assert!(net.sent.is_empty(), "it waits for its turn");
    net.run(SECOND);
    net.assert_one_pair(0, 1);
    assert!(!net.hosts[0].children[&net.child_of(0)].child.initiator);
}

fn another_secret_fails_on_both_sides_and_makes_nothing(method: Method) {
    let mut net = Net::new(4, [by(method, SECRET), by(method, [8; 32])]);
    net.keep(0, 1);
    net.run(10 * SECOND);
    for host in &net.hosts {
        assert!(host.failures.contains(&FailureCode::AuthFailed));
        let counters = host.engine.counters();
        // Whoever says that a ticket is not taken has proven nothing: the attempt goes on.
        if method == Method::Ike {
            assert!(counters.failures.auth_failed > 0 && counters.handshakes.failed > 0, "{counters:?}");
        }
        assert_eq!(counters.handshakes.done, 0);
        assert!(host.children.is_empty());
    }
    assert!(!net.hosts[0].engine.summary(pair(0, 1)).unwrap().established);
    // Attempts become rarer: 1, 2, 4, 8, … seconds.
    let before = net.sent.len();
    net.run(60 * SECOND);
    // Nobody has proven that a ticket is not taken, so that the request is sent again until it is given up.
    let most = if method == Method::Ike { 60 } else { 180 };
    assert!(net.sent.len() - before < most, "{}", net.sent.len() - before);
}

fn nobody_there_is_no_answer_after_some_tries(method: Method) {
    let mut net = Net::two_by(method, 7);
    let now = net.now;
    net.hosts[0].engine.keep(now, pair(0, 1), Posture::Active);
    net.run(Duration::from_millis(999));
    assert_eq!(net.hosts[1].engine.counters().unknown_pair, 6, "at first it asks often");
    net.run(Duration::from_millis(7_700));
    assert_eq!(net.hosts[0].failures, [FailureCode::NoAnswer]);
    let counters = net.hosts[0].engine.counters();
    assert_eq!((counters.failures.no_answer, counters.handshakes.failed), (1, 1));
    assert_eq!(net.hosts[1].engine.counters().unknown_pair, 10);
    net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
    net.run(4 * SECOND);
    net.assert_one_pair(0, 1);
    assert_eq!(net.hosts[0].engine.summary(pair(0, 1)).unwrap().last_failure, None);
}

fn key_lengths_that_differ_leave_the_ike_sa_alone(method: Method) {
    let mut net = Net::new(
        8,
        [by(method, SECRET), Settings { esp_proposals: Proposals::of_key_bits(128), ..by(method, SECRET) }],
    );
    net.keep(0, 1);
    net.run(3 * SECOND);
    for (host, other) in [(0, 1), (1, 0)] {
        assert!(net.hosts[host].failures.contains(&FailureCode::NoProposal), "host {host}");
        let summary = net.hosts[host].engine.summary(pair(host, other)).unwrap();
        assert_eq!((summary.established, summary.children), (true, 0));
    }
}

/// The kernel of one end, then of the other, does not take the SAs at first.
fn a_kernel_that_refuses_once_gets_other_indexes(method: Method) {
    for refusing in [0, 1] {
        let mut net = Net::two_by(method, 9);
        net.hosts[refusing].kernel_refuses = 1;
        net.keep(0, 1);
        assert!(net.run_until(10 * SECOND, |net| net.is_one_pair(0, 1)), "host {refusing}");
        net.assert_one_pair(0, 1);
        let failed = net.hosts.iter().flat_map(|host| &host.failures);
        assert!(failed.clone().count() > 0);
        assert!(failed.clone().all(|code| *code != FailureCode::AuthFailed));
    }
}

/// Both ends initiate, since neither knows yet that the other does.
fn both_initiate_and_one_session_stays(method: Method) {
    let lines = |host: &Host, of: &str| host.log.iter().filter(|line| line.starts_with(of)).count();
    let mut doomed = 0;
    for seed in seeds(20) {
        let mut net = Net::two_by(method, seed);
        let now = net.now;
        // The second one gets its turn while the first one's messages are still on the way.
        net.weather.delay = 400;
        net.hosts[1].engine.keep(now, pair(1, 0), Posture::Active);
        net.run(Duration::from_millis(1450));
        net.hosts[0].engine.keep(net.now, pair(0, 1), Posture::Active);
        net.drain();
        net.run(20 * SECOND);
        net.assert_one_pair(0, 1);
        let [decides, follows] = &net.hosts[..] else { unreachable!("two hosts") };
        assert_eq!(
            lines(decides, "ChildDoomed"),
            lines(decides, "ChildAgreed") - 1,
            "said before it is gone"
        );
        assert_eq!(lines(follows, "ChildDoomed"), 0);
        doomed += lines(decides, "ChildDoomed");
    }
    assert!(doomed > 0, "no seed had two sessions");
}

fn a_deleted_child_is_made_anew(method: Method) {
    for deleting in [0, 1] {
        let mut net = Net::two_by(method, 10);
        net.keep(0, 1);
        net.run(SECOND);
        let old = net.child_of(deleting);
        net.call(deleting, |engine, now| engine.delete_child(now, pair(deleting, 1 - deleting), old));
        net.run(Duration::from_millis(100));
        net.assert_one_pair(0, 1);
        assert_ne!(net.child_of(deleting), old);
        let inits = net.sent.iter().filter(|transmit| transmit.bytes[18] == method.exchange().0).count();
        assert_eq!(inits, 2, "the IKE SA stayed");
    }
}

fn a_forgotten_pair_is_over_on_both_ends(method: Method) {
    for leaving in [0, 1] {
        let mut net = Net::two_by(method, 11);
        net.keep(0, 1);
        net.run(SECOND);
        let staying = 1 - leaving;
        net.hosts[staying].engine.keep(net.now, pair(staying, leaving), Posture::Passive);
        net.call(leaving, |engine, now| engine.forget(now, pair(leaving, staying)));
        net.run(SECOND);
        assert!(net.hosts.iter().all(|host| host.children.is_empty()));
        assert!(net.hosts[leaving].engine.summary(pair(leaving, staying)).is_none());
        assert_eq!(net.hosts[leaving].engine.counters().sessions, 0);
        assert!(net.hosts[leaving].engine.poll_timeout().is_none());
    }
}

/// A new engine without state, with and without INITIAL_CONTACT.
fn a_peer_that_restarts_gets_one_new_session(method: Method) {
    for (seed, initial_contact) in [(12, false), (13, true)] {
        for restarting in [0, 1] {
            let mut net = Net::two_by(method, seed);
            net.keep(0, 1);
            net.run(10 * SECOND);
            net.restart(restarting, Settings { initial_contact, ..by(method, SECRET) });
            net.keep(restarting, 1 - restarting);
            net.run(30 * SECOND);
            net.assert_one_pair(0, 1);
            let by_delete = net.hosts[1 - restarting].log.iter().any(|line| line.contains("void: true"));
            assert!(!by_delete, "the restarted one does not know what to delete");
        }
    }
}

fn a_peer_that_is_gone_is_noticed_when_asked_for(method: Method) {
    let mut net = Net::two_by(method, 14);
    net.keep(0, 1);
    net.run(SECOND);
    net.cut = Box::new(|_| true);
    net.run(600 * SECOND);
    assert!(net.hosts[0].engine.summary(pair(0, 1)).unwrap().established, "idle sessions are left alone");
    net.call(0, |engine, now| engine.check_liveness(now, pair(0, 1)));
    net.run(20 * SECOND);
    assert!(net.hosts[0].children.is_empty());
    assert_eq!(net.hosts[0].failures[0], FailureCode::NoAnswer);
}

fn bad_weather_only_delays(method: Method) {
    for seed in seeds(60) {
        let mut net = Net::two_by(method, 1000 + seed);
        net.weather = Weather { loss: 30, duplication: 20, delay: 300 };
        net.keep(0, 1);
        assert!(net.run_until(120 * SECOND, |net| net.is_one_pair(0, 1)));
        net.run(30 * SECOND);
        net.weather = Weather::default();
        // A session whose end the peer did not hear of is found out when it is asked about.
        for (host, other) in [(0, 1), (1, 0)] {
            net.call(host, |engine, now| engine.check_liveness(now, pair(host, other)));
        }
        assert!(net.run_until(120 * SECOND, |net| net.is_one_pair(0, 1)));
        net.run(40 * SECOND);
        net.assert_one_pair(0, 1);
    }
}

fn twelve_hosts_converge(method: Method) {
    let count = 12;
    let spread = || Settings { jitter: Duration::from_millis(200), ..by(method, SECRET) };
    let mut net = Net::new(15, (0..count).map(|_| spread()));
    for a in 0..count {
        for b in a + 1..count {
            net.keep(a, b);
        }
    }
    net.run(5 * SECOND);
    for a in 0..count {
        for b in a + 1..count {
            let mine = net.hosts[a].children.values().filter(|it| it.child.pair == pair(a, b));
            let theirs = net.hosts[b].children.values().filter(|it| it.child.pair == pair(b, a));
            let (mine, theirs): (Vec<_>, Vec<_>) = (mine.collect(), theirs.collect());
            assert_eq!((mine.len(), theirs.len()), (1, 1));
            assert_mirrored(&mine[0].child, &theirs[0].child);
        }
    }
}

/// After two minutes without an answer the pauses are long; not so once the address is there again.
fn a_path_that_is_back_is_used_at_once(method: Method) {
    for seed in seeds(20) {
        let mut net = Net::two_by(method, seed);
        net.cut = Box::new(|_| true);
        net.keep(0, 1);
        net.run(120 * SECOND);
        net.cut = Box::new(|_| false);
        net.call(0, |engine, now| engine.path_is_back(now, pair(0, 1)));
        assert!(net.run_until(SECOND, |net| net.is_one_pair(0, 1)), "seed {seed}");
    }
}

/// The peer has given a session up that this end still holds: asked at once, it does not answer.
fn a_session_that_died_while_the_path_was_away_is_made_anew(method: Method) {
    let mut net = Net::two_by(method, 16);
    net.keep(0, 1);
    net.run(SECOND);
    net.restart(1, by(method, SECRET));
    net.hosts[1].engine.keep(net.now, pair(1, 0), Posture::Passive);
    let old = net.child_of(0);
    net.call(0, |engine, now| engine.path_is_back(now, pair(0, 1)));
    assert!(net.run_until(20 * SECOND, |net| net.is_one_pair(0, 1) && net.child_of(0) != old));
}

by_each_method![
    two_messages_each_way_make_a_child,
    the_other_end_initiates_when_the_first_does_not,
    another_secret_fails_on_both_sides_and_makes_nothing,
    nobody_there_is_no_answer_after_some_tries,
    key_lengths_that_differ_leave_the_ike_sa_alone,
    a_kernel_that_refuses_once_gets_other_indexes,
    both_initiate_and_one_session_stays,
    a_deleted_child_is_made_anew,
    a_forgotten_pair_is_over_on_both_ends,
    a_peer_that_restarts_gets_one_new_session,
    a_peer_that_is_gone_is_noticed_when_asked_for,
    bad_weather_only_delays,
    twelve_hosts_converge,
    a_path_that_is_back_is_used_at_once,
    a_session_that_died_while_the_path_was_away_is_made_anew,
];
