//! New keys for all nodes of a cluster, with nodes that die and nodes that are away meanwhile.

use rand::RngExt as _;

use super::cluster::{MILLISECOND, SECOND};
use super::members::{protected, talking};
use super::world::World;
use crate::control::ClusterRequest;
use crate::identity::PublicKey;
use crate::roster::{KeyStage, Member};

impl World {
    fn roster_of<T>(&self, at: usize, read: impl Fn(&crate::roster::Roster) -> T) -> Option<T> {
        self.hosts[at].agent.as_ref().and_then(|agent| agent.roster()).map(|(roster, _)| read(roster))
    }

    /// Where the host `at` sees all nodes.
    fn stages(&self, at: usize) -> Vec<Option<KeyStage>> {
        let stages = |roster: &crate::roster::Roster| {
            roster.view().members.iter().map(|member| roster.key_stage(member)).collect()
        };
        self.roster_of(at, stages).unwrap_or_default()
    }

    fn have_new_keys(&self) -> bool {
        let current = |at: usize| self.stages(at).iter().all(|stage| *stage == Some(KeyStage::Current));
        self.is_one_roster() && (0..self.hosts.len()).all(current)
    }

    /// The keys by which all nodes prove themselves, as the host `at` knows them.
    fn ike_keys(&self, at: usize) -> Vec<PublicKey> {
        let key = |member: &Member| member.keys.as_ref().unwrap().ike.public_key().unwrap();
        self.roster_of(at, |roster| roster.view().members.iter().map(key).collect()).unwrap()
    }

    /// Whether each pair rests on the newest keys of both of its ends, and is protected.
    fn rests_on_new_keys(&self) -> bool {
        let keys = self.ike_keys(0);
        let own = |at: usize| self.hosts[at].core().is_some_and(|core| core.proves_itself_with(&keys[at]));
        self.all_protected() && (0..self.hosts.len()).all(own)
    }
}

#[test]
fn all_nodes_get_new_keys_and_no_pair_notices() {
    for seed in 0..4 {
        let mut world = protected(5, seed);
        let (ways, before, clear) = (world.ways(), world.ike_keys(0), world.total().clear);
        let refused = world.order(1, ClusterRequest::Rotate).unwrap_err();
        assert!(refused.contains("the admins are n0"), "{refused}");
        world.order(0, ClusterRequest::Rotate).unwrap();
        world.run(20 * SECOND, Some((20 * MILLISECOND, &ways)));
        assert!(world.have_new_keys(), "{seed}: {:?}", world.stages(0));
        assert!(world.rests_on_new_keys());
        let after = world.ike_keys(4);
        assert!(before.iter().zip(&after).all(|(before, after)| before != after));
        // A host that starts anew has the new ones, too.
        world.kill(2);
        world.start(2);
        assert!(world.run_until(60 * SECOND, World::rests_on_new_keys));
        assert_eq!((world.total().lost, world.total().clear), (0, clear), "{seed}");
        // And once more.
        world.order(0, ClusterRequest::Rotate).unwrap();
        world.run(20 * SECOND, Some((20 * MILLISECOND, &ways)));
        assert!(world.have_new_keys() && world.rests_on_new_keys());
        assert!(world.ike_keys(1).iter().all(|key| !before.contains(key) && !after.contains(key)));
        assert_eq!((world.total().lost, world.total().clear), (0, clear), "{seed}");
    }
}

#[test]
fn it_goes_on_whoever_dies_at_whatever_moment() {
    for seed in 0..8 {
        let mut world = protected(4, seed);
        let (ways, before, clear) = (world.ways(), world.ike_keys(0), world.total().clear);
        world.hosts.iter_mut().for_each(|host| host.disk.delay = 3 * MILLISECOND);
        world.order(0, ClusterRequest::Rotate).unwrap();
        for _ in 0..60 {
            let pause = world.rng.random_range(1..400);
            world.run(pause * MILLISECOND, Some((20 * MILLISECOND, &ways)));
            let victim = world.rng.random_range(0..4);
            world.kill(victim);
            world.run(10 * MILLISECOND, Some((20 * MILLISECOND, &ways)));
            world.start(victim);
        }
        assert!(world.run_until(120 * SECOND, World::have_new_keys), "{seed}: {:?}", world.stages(0));
        assert!(world.run_until(120 * SECOND, World::rests_on_new_keys), "{seed}");
        assert!(world.ike_keys(3).iter().all(|key| !before.contains(key)));
        assert_eq!((world.total().lost, world.total().clear), (0, clear), "{seed}");
    }
}

#[test]
fn a_node_that_is_away_is_waited_for_and_knows_all_when_it_comes_back() {
    for seed in 0..4 {
        let mut world = protected(4, seed);
        let clear = world.total().clear;
        world.kill(3);
        world.run(5 * SECOND, None);
        world.order(0, ClusterRequest::Rotate).unwrap();
        world.run(600 * SECOND, None);
        let (offered, due) = (Some(KeyStage::Offered), Some(KeyStage::Due));
        assert_eq!(world.stages(1), [offered, offered, offered, due]);
        let refused = world.order(0, ClusterRequest::Rotate).unwrap_err();
        assert!(refused.contains("waits for n0, n1, n2, n3"), "{refused}");
        world.start(3);
        assert!(world.run_until(120 * SECOND, World::have_new_keys), "{seed}: {:?}", world.stages(1));
        assert!(world.run_until(60 * SECOND, World::rests_on_new_keys));
        assert_eq!(world.total().clear, clear, "{seed}");
    }
}

#[test]
fn without_a_node_that_is_removed_meanwhile_it_comes_to_its_end() {
    let mut world = protected(4, 1);
    world.kill(3);
    world.order(0, ClusterRequest::Rotate).unwrap();
    world.run(20 * SECOND, None);
    assert!(world.stages(1).contains(&Some(KeyStage::Offered)));
    let node = "n3".parse().unwrap();
    world.order(0, ClusterRequest::Remove { node, address: None, compromised: false }).unwrap();
    let current = |world: &World| world.stages(2).iter().all(|stage| *stage == Some(KeyStage::Current));
    assert!(world.run_until(30 * SECOND, current), "{:?}", world.stages(2));
}

#[test]
fn a_cluster_in_the_clear_gets_new_keys_too() {
    let mut world = talking(3, 2);
    let before = world.ike_keys(0);
    world.order(0, ClusterRequest::Rotate).unwrap();
    assert!(world.run_until(30 * SECOND, World::have_new_keys), "{:?}", world.stages(0));
    assert!(world.ike_keys(2).iter().all(|key| !before.contains(key)));
    world.order(2, ClusterRequest::Enable { try_s: None }).unwrap();
    assert!(world.run_until(30 * SECOND, World::rests_on_new_keys));
}

/// A node that cannot write down what it hears would have forgotten the new keys after its next start.
#[test]
fn a_node_whose_disk_is_full_is_waited_for() {
    for seed in 0..4 {
        let mut world = protected(4, seed);
        world.hosts[2].disk.keeps_no_roster = true;
        world.order(0, ClusterRequest::Rotate).unwrap();
        world.run(60 * SECOND, None);
        let offered = Some(KeyStage::Offered);
        assert!(world.stages(1).contains(&offered), "{seed}: {:?}", world.stages(1));
        world.kill(2);
        world.hosts[2].disk.keeps_no_roster = false;
        world.start(2);
        assert!(world.run_until(120 * SECOND, World::have_new_keys), "{seed}: {:?}", world.stages(1));
        assert!(world.run_until(60 * SECOND, World::rests_on_new_keys));
    }
}

#[test]
fn an_old_key_is_worth_nothing_once_its_node_has_changed_over() {
    let mut world = protected(3, 3);
    let before = world.ike_keys(0);
    world.order(0, ClusterRequest::Rotate).unwrap();
    assert!(world.run_until(30 * SECOND, World::have_new_keys));
    let members = world.hosts[1].core().and_then(|core| core.membership()).unwrap();
    let taken: Vec<PublicKey> = members.control_settings().members.into_values().flatten().collect();
    assert!(!taken.is_empty() && taken.iter().all(|key| !before.contains(key)));
    let knows_none = |world: &World| {
        let config = &world.hosts[1].agent.as_ref().unwrap().setup().config;
        config.nodes.iter().all(|node| node.previous_public_key.is_none())
    };
    assert!(world.run_until(SECOND, knows_none));
}
