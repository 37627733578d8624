//! Peers that give no sign of life.

use super::cluster::{MILLISECOND, SECOND, protected, seeds};
use super::net::Weather;
use super::world::World;
use crate::types::RowState;

impl World {
    /// Whether the peer `to` counts as silent on `from`.
    fn is_silent(&self, from: usize, to: usize) -> bool {
        let core = self.hosts[from].core().expect("its agent runs");
        core.silence(self.pair(from, to)).is_some_and(|silence| silence.is_silent(self.now))
    }
}

#[test]
fn a_peer_that_is_cut_off_is_silent_within_40_s_under_traffic_and_130_s_without() {
    seeds(10, |seed| {
        for (limit, traffic) in [(40, true), (130, false)] {
            let mut world = protected(3, seed, Weather::FAIR);
            world.run(100 * SECOND, None);
            world.cut(0, 1);
            let ways = [(0, 1), (1, 0)];
            world.run(limit * SECOND, traffic.then_some((100 * MILLISECOND, &ways[..])));
            for (from, to) in ways {
                assert!(world.is_silent(from, to), "{from} of {to}, traffic: {traffic}");
                assert_eq!(world.state(from, to), RowState::Protected, "its SAs stay");
            }
            for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
                assert!(!world.is_silent(from, to), "{from} of {to}");
            }
            world.mend(0, 1);
            let heard = |world: &World| ways.iter().all(|(from, to)| !world.is_silent(*from, *to));
            assert!(world.run_until(70 * SECOND, heard), "heard again");
        }
    });
}

#[test]
fn nobody_is_silent_who_is_only_idle_or_only_sent_to_whatever_the_weather() {
    seeds(6, |seed| {
        for weather in [Weather::FAIR, Weather::ROUGH, Weather::FOUL] {
            let mut world = protected(2, seed, weather);
            for step in 0..60 {
                let ways = if step < 30 { vec![] } else { vec![(0, 1)] };
                world.run(10 * SECOND, Some((200 * MILLISECOND, &ways)));
                assert!(!world.is_silent(0, 1) && !world.is_silent(1, 0), "step {step}");
                assert!(world.all_protected(), "{:?} {:?}", world.reason(0, 1), world.reason(1, 0));
            }
        }
    });
}

#[test]
fn a_killed_agent_is_silent_once_its_kernel_sends_nothing() {
    let mut world = protected(2, 1, Weather::FAIR);
    world.kill(1);
    world.run(150 * SECOND, Some((SECOND, &[(1, 0)])));
    assert!(!world.is_silent(0, 1), "its ESP comes");
    world.run(130 * SECOND, None);
    assert!(world.is_silent(0, 1));
    world.start(1);
    let protected = |world: &World| world.all_protected() && !world.is_silent(0, 1) && !world.is_silent(1, 0);
    assert!(world.run_until(70 * SECOND, protected));
}

/// An agent that goes on from what the kernel holds learns of a dead peer, too.
#[test]
fn an_agent_that_was_restarted_finds_out() {
    let mut world = protected(2, 1, Weather::FAIR);
    world.run(10 * SECOND, Some((SECOND, &[(0, 1), (1, 0)])));
    world.cut(0, 1);
    world.kill(0);
    world.start(0);
    assert_eq!(world.state(0, 1), RowState::Protected);
    world.run(6 * SECOND, None);
    assert!(!world.is_silent(0, 1), "what came before is neither heard nor missed");
    world.run(34 * SECOND, Some((SECOND, &[(0, 1)])));
    assert!(world.is_silent(0, 1));
}

/// Answers that wait because the agent got no turn are no silence of the peer.
#[test]
fn an_agent_without_a_turn_blames_nobody() {
    let mut world = protected(2, 1, Weather::FAIR);
    for _ in 0..5 {
        world.run(58 * SECOND, None);
        world.starve(0, 80 * SECOND);
        world.run(79 * SECOND, Some((SECOND, &[(0, 1)])));
        for _ in 0..200 {
            world.run(10 * MILLISECOND, Some((SECOND, &[(0, 1)])));
            assert!(!world.is_silent(0, 1) || world.hosts[0].starves.is_some());
        }
    }
}
