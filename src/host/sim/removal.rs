//! How soon all members of a cluster are rid of one that is removed, in virtual time. The lab shows the same on real
//! packets, on machines where nobody knows how soon each host has its turn.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND};
use super::members::protected;
use super::world::World;
use crate::control::ClusterRequest;

/// How soon an order comes to all members that are there.
const CARRIED: Duration = Duration::from_millis(500);
/// How soon no other node has an SA with one that is removed.
const RID: Duration = Duration::from_secs(2);

impl World {
    /// Removes the last node by an order to the first. Returns how long it took until none of these had an SA with it.
    fn remove_last(&mut self, compromised: bool, others: &[usize]) -> Duration {
        let ordered = self.now;
        let node = format!("n{}", self.hosts.len() - 1).parse().unwrap();
        self.order(0, ClusterRequest::Remove { node, address: None, compromised }).unwrap();
        self.run_until_rid_of_last(others);
        self.now - ordered
    }

    fn run_until_rid_of_last(&mut self, others: &[usize]) {
        let last = self.hosts.len() - 1;
        let is_rid = |world: &World, at: usize| {
            let pair = world.pair(at, last);
            !world.hosts[at].kernel.state.sas.values().any(|sa| sa.is_between(pair))
        };
        let patience = self.now + 60 * SECOND;
        while !others.iter().all(|at| is_rid(self, *at)) {
            assert!(self.now < patience);
            self.run(10 * MILLISECOND, None);
        }
    }
}

/// A decent node loses nothing, so what may be under way is waited for. A node that does not answer is asked several times.
#[test]
fn a_removed_node_has_no_sas_anywhere_as_soon_as_nothing_can_be_under_way() {
    const OTHERS: [usize; 4] = [0, 1, 2, 3];
    for seed in 0..4 {
        let compromised = protected(5, seed).remove_last(true, &OTHERS);
        assert!(compromised <= CARRIED, "{seed}: {compromised:?}");
        let living = protected(5, seed).remove_last(false, &OTHERS);
        assert!(living <= RID, "{seed}: {living:?}");
        let mut world = protected(5, seed);
        world.reboot(4);
        let dead = world.remove_last(false, &OTHERS);
        assert!(dead <= RID, "{seed}: {dead:?}");
        println!("seed {seed}: compromised {compromised:?}, living {living:?}, dead {dead:?}");
    }
}

/// However long it was cut off, and whatever it tried meanwhile.
#[test]
fn who_was_cut_off_hears_of_a_removal_soon_after_the_heal() {
    let mut longest = Duration::ZERO;
    for seed in 0..12 {
        let mut world = protected(5, seed);
        let others = [0, 1, 2];
        others.iter().for_each(|other| world.cut(*other, 3));
        world.run(Duration::from_secs(7 * seed), None);
        world.remove_last(true, &others);
        world.run(20 * SECOND + 137 * MILLISECOND, None);
        others.iter().for_each(|other| world.mend(*other, 3));
        let healed = world.now;
        world.run_until_rid_of_last(&[3]);
        longest = longest.max(world.now - healed);
    }
    assert!(longest <= RID, "{longest:?}");
}

/// The others go on telling it: it hears them soon, at whatever moment the path is mended, and does not wait for long for
/// a dead node.
#[test]
fn who_was_cut_off_is_rid_of_a_dead_node_soon_after_the_heal() {
    let mut longest = Duration::ZERO;
    for seed in 0..8 {
        let mut world = protected(5, seed);
        let others = [0, 1, 2];
        others.iter().for_each(|other| world.cut(*other, 3));
        world.reboot(4);
        let dead = world.remove_last(false, &others);
        world.run(1900 * MILLISECOND * seed as u32 + MILLISECOND, None);
        others.iter().for_each(|other| world.mend(*other, 3));
        let healed = world.now;
        world.run_until_rid_of_last(&[3]);
        longest = longest.max(world.now - healed);
        println!("seed {seed}: {dead:?}, and {:?} after the heal", world.now - healed);
    }
    assert!(longest <= RID, "{longest:?}");
}
