//! The agent dies after each kernel operation of each transition, and the next one repairs it.
//!
//! A point is a transition, which of the two hosts dies, after how many operations, and how long it stays
//! dead. At every point no packet is lost, none is clear that should not be, and what is left in the end is
//! what the transition was to lead to.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND};
use super::net::Weather;
use super::world::World;
use crate::host::system::KernelEvent;
use crate::protect::timing::OPEN_PATIENCE;
use crate::types::{Direction, SaId};

const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];
/// How long a transition takes at most, with all that follows it.
const TRANSITION: Duration = Duration::from_secs(10);
/// How long traffic is dense after the next start, and how long it goes on after that: old SAs may stay for
/// a while.
const REPAIR: Duration = Duration::from_secs(5);
const CALM: Duration = Duration::from_secs(80);
/// How long nobody starts a dead agent again: hardly a packet's flight; longer than every grace.
const DEAD: [Duration; 2] = [MILLISECOND, Duration::from_secs(15)];

/// A way from one state of the pair to another.
struct Transition {
    name: &'static str,
    /// Leads to where it begins.
    before: fn(&mut World),
    /// What the host that dies of it does.
    begin: fn(&mut World, usize),
    /// Whether both hosts are to be protected in the end, or clear.
    protected: bool,
    /// The other host keeps nothing, and waits for [`OPEN_PATIENCE`] at most: what a host that is dead for longer
    /// goes on sending as ESP is lost.
    other_leaves: bool,
}

const TRANSITIONS: [Transition; 7] = [
    Transition { name: "enable", before: |_| (), begin: enable_both, protected: true, other_leaves: false },
    Transition {
        name: "enable the second",
        before: |_| (),
        begin: enable_later,
        protected: true,
        other_leaves: false,
    },
    Transition { name: "rekey", before: protect, begin: rekey, protected: true, other_leaves: false },
    Transition {
        name: "disable here",
        before: protect,
        begin: World::disable,
        protected: false,
        other_leaves: false,
    },
    Transition {
        name: "disable both",
        before: protect,
        begin: disable_both,
        protected: false,
        other_leaves: true,
    },
    Transition {
        name: "disabled by the peer",
        before: protect,
        begin: |world, victim| world.disable(1 - victim),
        protected: false,
        other_leaves: true,
    },
    Transition { name: "adopt", before: protect, begin: restart, protected: true, other_leaves: false },
];

fn enable_both(world: &mut World, victim: usize) {
    world.enable(1 - victim);
    world.enable(victim);
}

fn enable_later(world: &mut World, victim: usize) {
    world.enable(1 - victim);
    run(world, 3 * SECOND);
    world.enable(victim);
}

fn disable_both(world: &mut World, victim: usize) {
    world.disable(1 - victim);
    world.disable(victim);
}

fn restart(world: &mut World, victim: usize) {
    world.kill(victim);
    world.enable(victim);
}

/// The kernel of the host asks for a successor of the SA in use.
fn rekey(world: &mut World, victim: usize) {
    let pair = world.pair(victim, 1 - victim);
    let spi = world.hosts[victim].kernel.spis(pair, Direction::Out)[0];
    let reading = world.hosts[victim].kernel.state.sas[&SaId::of(pair, Direction::Out, spi)];
    world.hosts[victim].kernel.events.push_back(KernelEvent::SaDying(reading));
    world.on(victim, |_, _, _| {});
}

/// However often the kernel wishes for an SA, nothing is done for it.
#[test]
fn a_storm_of_wishes_for_sas_moves_nothing() {
    let mut world = World::new(2, 1, Weather::FAIR);
    protect(&mut world);
    let pair = world.pair(0, 1);
    let before = world.hosts[0].kernel.state.clone();
    world.hosts[0].kernel.events.extend((0..100_000).map(|_| KernelEvent::SaWanted(pair)));
    world.on(0, |_, _, _| {});
    assert!(world.hosts[0].kernel.events.is_empty());
    assert_eq!(world.hosts[0].kernel.state, before);
    run(&mut world, SECOND);
    assert!(world.all_protected() && world.all_single());
}

fn protect(world: &mut World) {
    (0..2).for_each(|host| world.enable(host));
    assert!(world.run_until(60 * SECOND, |world| world.all_protected() && world.all_single()));
    run(world, SECOND);
}

fn run(world: &mut World, time: Duration) {
    world.run(time, Some((20 * MILLISECOND, &WAYS)));
}

/// One point: what is wrong with it, if anything. `None` when the transition has fewer operations.
fn dies_after(
    transition: &Transition,
    victim: usize,
    operations: usize,
    dead: Duration,
) -> Option<Vec<String>> {
    let mut world = World::new(2, operations as u64, Weather::FAIR);
    (transition.before)(&mut world);
    world.hosts[victim].kernel.fuse = Some(operations);
    (transition.begin)(&mut world, victim);
    let died = |world: &World| world.hosts[victim].kernel.fuse.is_none();
    let end = world.now + TRANSITION;
    while world.now < end && !died(&world) {
        run(&mut world, 10 * MILLISECOND);
    }
    if !died(&world) {
        return None;
    }
    run(&mut world, dead.min(SECOND));
    world.run(dead.saturating_sub(SECOND), Some((SECOND / 4, &WAYS)));
    world.start(victim);
    run(&mut world, REPAIR);
    world.run(CALM, Some((SECOND, &WAYS)));
    Some(transition.wrong(&world, victim, transition.other_leaves && dead > OPEN_PATIENCE))
}

impl Transition {
    /// What is not as it should be in the end.
    fn wrong(&self, world: &World, victim: usize, may_lose: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        let total = world.total();
        if (total.lost > 0 && !may_lose) || total.leaked > 0 {
            wrong.push(format!("{:?}", world.tally));
        }
        if self.protected {
            if !world.all_protected() {
                wrong.push(format!("not protected: {:?}, {:?}", world.reason(0, 1), world.reason(1, 0)));
            }
            if !world.all_single() {
                wrong.push("more than one pair of SAs".to_owned());
            }
        } else {
            let state = &world.hosts[victim].kernel.state;
            let there = &world.hosts[1 - victim].kernel.state;
            // Whoever disabled has nothing left, and the other no SA.
            let disabled = [state, there].into_iter().find(|state| state.policies.is_empty());
            let left = [state.sas.len(), there.sas.len()];
            if left != [0; 2] || disabled.is_none() {
                wrong.push(format!("left over: SAs here and there {left:?}, policies on both ends"));
            }
        }
        wrong
    }
}

#[test]
fn a_death_after_any_operation_of_any_transition_is_repaired() {
    let mut points = 0;
    let mut failures = Vec::new();
    for transition in &TRANSITIONS {
        println!("{points} points, then {}", transition.name);
        for (victim, dead) in DEAD.iter().flat_map(|dead| [(0, *dead), (1, *dead)]) {
            let mut operations = 1;
            while let Some(wrong) = dies_after(transition, victim, operations, dead) {
                let point = format!("{}, host {victim}, after {operations}, {dead:?} dead", transition.name);
                failures.extend(wrong.into_iter().map(|what| format!("{point}: {what}")));
                operations += 1;
            }
            assert!(operations > 4, "{}: host {victim} has hardly anything to do", transition.name);
            points += operations - 1;
        }
    }
    println!("{points} points");
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}
