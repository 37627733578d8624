//! What a guard has in a host's kernel, from its boot on.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::cluster::SECOND;
use super::net::Weather;
use super::world::World;
use crate::types::Block;
use crate::types::ours::priority;

/// The addresses of this host that guards block, in both directions.
fn guarded(world: &World, at: usize) -> BTreeSet<Block> {
    let policies = world.hosts[at].kernel.state.policies.values();
    let guards = policies.filter(|policy| policy.priority == priority::GUARD);
    let own = guards.flat_map(|policy| [policy.id.selector.source, policy.id.selector.destination]);
    let remote = Block::host(world.pair(at, 1 - at).remote);
    own.filter(|block| *block != remote).collect()
}

#[test]
fn it_names_addresses_as_they_come_and_go_and_is_broad_before_they_are_known() {
    let mut world = World::new(2, 1, Weather::FAIR);
    world.enable(0);
    world.enable(1);
    assert!(world.run_until(60 * SECOND, World::all_protected));
    world.run(10 * SECOND, None);
    let other = IpAddr::from([172, 17, 0, 1]);
    assert_eq!(guarded(&world, 0), BTreeSet::new(), "it has no address without a pair");
    world.know(0, &[other]);
    world.run(SECOND, None);
    assert_eq!(guarded(&world, 0), BTreeSet::from([Block::host(other)]));
    world.know(0, &[]);
    world.run(SECOND, None);
    assert_eq!(guarded(&world, 0), BTreeSet::new());
    world.reboot(0);
    world.guard(0);
    assert_eq!(guarded(&world, 0), BTreeSet::from([Block::any(other)]));
    world.start(0);
    assert_eq!(guarded(&world, 0), BTreeSet::new(), "an agent narrows it");
    assert!(world.run_until(60 * SECOND, World::all_protected));
    world.disable(0);
    world.run(20 * SECOND, None);
    assert_eq!(guarded(&world, 0), BTreeSet::new());
}
