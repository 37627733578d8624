//! Settings of a cluster: shown before they are changed, and on trial.

use super::cluster::{MILLISECOND, SECOND};
use super::members::protected;
use super::world::World;
use crate::control::{ClusterReply, ClusterRequest, Request, SettingsOrder};
use crate::observe::cluster::ClusterStatus;
use crate::types::{NodeName, ProblemCode};

const SETTINGS: &str = "[esp]\nreplay_window = 128\n";

impl ClusterStatus {
    /// Who is said to go by something else.
    fn differ(&self) -> Vec<&str> {
        let differ = self.problems.iter().filter(|problem| problem.code == ProblemCode::ConfigDiffers);
        differ.filter_map(|problem| problem.node.as_ref()).map(NodeName::as_str).collect()
    }
}

impl World {
    fn all_have(&self, replay_window: u32) -> bool {
        let mut agents = self.hosts.iter().filter_map(|host| host.agent.as_ref());
        agents.all(|agent| agent.setup().config.esp.replay_window == replay_window)
    }

    pub(super) fn toml(&mut self, at: usize) -> String {
        match self.order(at, ClusterRequest::Settings) {
            Ok(ClusterReply::Settings { toml, .. }) => toml,
            other => panic!("{other:?}"),
        }
    }
}

fn on_trial(seconds: u64) -> ClusterRequest {
    ClusterRequest::SetSettings(SettingsOrder { try_s: Some(seconds), ..SettingsOrder::of(SETTINGS) })
}

/// Who has made settings from those of before would undo what was changed since, or make a trial last.
#[test]
fn settings_that_were_made_from_others_than_those_of_now_are_refused() {
    let mut world = protected(2, 3);
    let entry = |world: &mut World| match world.order(0, ClusterRequest::Settings) {
        Ok(ClusterReply::Settings { entry, .. }) => entry,
        other => panic!("{other:?}"),
    };
    let after = |entry: &str, toml: &str| {
        let after = Some(entry.to_owned());
        ClusterRequest::SetSettings(SettingsOrder { after, ..SettingsOrder::of(toml) })
    };
    let first = entry(&mut world);
    assert_eq!(first, "");
    world.order(0, after(&first, SETTINGS)).unwrap();
    let refused = world.order(0, after(&first, "")).unwrap_err();
    assert!(refused.contains("changed the settings meanwhile") && world.toml(0) == SETTINGS, "{refused}");
    let second = entry(&mut world);
    world.order(0, after(&second, "")).unwrap();
    world.order(0, on_trial(60)).unwrap();
    let tried = entry(&mut world);
    for entry in [&second, &tried] {
        world.order(0, after(entry, SETTINGS)).unwrap_err();
    }
    world.run(70 * SECOND, None);
    assert_eq!(world.toml(0), "", "the trial did not come to last");
}

#[test]
fn settings_on_trial_go_back_everywhere_also_where_their_node_is_dead_and_stay_where_they_are_confirmed() {
    for seed in 0..4 {
        let (mut world, confirms) = (protected(4, seed), seed % 2 == 1);
        let ways = world.ways();
        world.order(0, on_trial(40)).unwrap();
        world.run(4 * SECOND, Some((50 * MILLISECOND, &ways)));
        assert!(world.all_have(128), "{seed}");
        assert_eq!(world.toml(2), SETTINGS);
        let status = world.cluster_status(1);
        assert!(status.settings_try_end_in_s.is_some_and(|left| left <= 40) && status.is_healthy());
        if confirms {
            assert!(world.order(1, ClusterRequest::Confirm).unwrap_err().contains("the admins are n0"));
            world.order(0, ClusterRequest::Confirm).unwrap();
        } else {
            world.kill(0);
        }
        world.run(40 * SECOND, Some((50 * MILLISECOND, &ways)));
        assert!(world.all_have(if confirms { 128 } else { 4096 }), "{seed}");
        if !confirms {
            world.start(0);
        }
        assert!(world.run_until(60 * SECOND, World::all_protected));
        world.run(3 * SECOND, Some((50 * MILLISECOND, &ways)));
        assert!(world.all_have(if confirms { 128 } else { 4096 }), "{seed}");
        assert_eq!(world.toml(3), if confirms { SETTINGS } else { "" });
        assert_eq!((world.total().lost, world.total().leaked), (0, 0), "{seed}");
        assert!(world.order(0, ClusterRequest::Confirm).unwrap_err().contains("no trial"));
        let status = world.cluster_status(1);
        assert!(status.settings_try_end_in_s.is_none() && status.is_healthy(), "{status:?}");
    }
}

#[test]
fn who_starts_anew_tries_nothing_and_has_what_is_confirmed() {
    let mut world = protected(3, 1);
    world.order(0, on_trial(30)).unwrap();
    world.run(3 * SECOND, None);
    world.stop(2);
    world.start(2);
    world.run(2 * SECOND, None);
    let window = |world: &World, at: usize| {
        world.hosts[at].agent.as_ref().map(|agent| agent.setup().config.esp.replay_window)
    };
    assert_eq!((window(&world, 1), window(&world, 2)), (Some(128), Some(4096)));
    let status = world.cluster_status(1);
    assert_eq!(status.differ(), ["n2"], "{status:?}");
    assert!(status.is_healthy(), "that is meant to be so: {status:?}");
    world.order(0, ClusterRequest::Confirm).unwrap();
    assert!(world.run_until(20 * SECOND, |world| world.all_have(128)));
    assert!(world.cluster_status(1).is_healthy());
    // What replaces a trial leads back to what was before it.
    world.order(0, ClusterRequest::SetSettings(SettingsOrder::default())).unwrap();
    assert!(world.run_until(20 * SECOND, |world| world.all_have(4096)));
}

#[test]
fn each_node_says_what_would_change_there_and_nothing_does() {
    let mut world = protected(4, 2);
    world.kill(3);
    world.run(SECOND, None);
    let ask = |world: &mut World, settings: &str| match world
        .order(1, ClusterRequest::Preview(settings.to_owned()))
    {
        Ok(ClusterReply::Plans(plans)) => plans,
        other => panic!("{other:?}"),
    };
    let plans = ask(&mut world, SETTINGS);
    assert_eq!(plans.len(), 4);
    for plan in &plans[..3] {
        let said = plan.plan.as_ref().unwrap();
        assert_eq!(said.settings, ["esp.replay_window: 128, was 4096"], "{plan:?}");
        assert!(said.kernel.iter().any(|line| line.contains("a successor takes over")), "{plan:?}");
        assert_eq!(said.refused, None);
    }
    assert_eq!(plans[3].plan, None, "it is not there");
    world.run(SECOND, None);
    let plans = ask(&mut world, "[esp]\nkey_bits = 127\n");
    assert!(plans[..3].iter().all(|plan| plan.plan.as_ref().unwrap().refused.is_some()), "{plans:?}");
    world.run(5 * SECOND, None);
    assert!(world.all_have(4096));
}

/// Who answers at once says what it went by before the settings changed; the question waits for one that is not there.
#[test]
fn what_was_said_before_the_settings_changed_makes_nobody_differ() {
    let mut world = protected(4, 4);
    world.kill(3);
    world.run(SECOND, None);
    let asker = world.ask(1, Request::Cluster(ClusterRequest::Status));
    world.run(100 * MILLISECOND, None);
    world.order(0, ClusterRequest::SetSettings(SettingsOrder::of(SETTINGS))).unwrap();
    let Ok(ClusterReply::Status(status)) = world.answer(1, asker) else {
        panic!("it is asked for how all stand")
    };
    assert!(world.all_have(128), "all go by the new ones by then");
    assert_eq!(status.differ(), [""; 0], "{status:?}");
}
