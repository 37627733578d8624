//! An address that moves between hosts.

use std::net::{IpAddr, Ipv4Addr};

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::files::name;
use super::kernel::Leaves;
use super::net::Weather;
use super::world::World;
use crate::config::Floating;
use crate::types::{Direction, Pair, RowState, SaId};

/// The address.
pub(super) const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 0, 1));

/// Where it may be, and where it is.
pub(super) struct Vip {
    hosts: Vec<usize>,
    pub(super) at: Option<usize>,
}

impl World {
    /// All files say that these hosts may have the address; for agents that start.
    fn float_between(&mut self, hosts: &[usize]) {
        self.vip = Some(Vip { hosts: hosts.to_vec(), at: None });
    }

    /// The address is there now and nowhere else: first it leaves, then it comes.
    fn move_to(&mut self, at: Option<usize>) {
        let vip = self.vip.as_mut().expect("the address floats");
        let left = std::mem::replace(&mut vip.at, at);
        for host in left.into_iter().chain(at) {
            let vip = (at == Some(host)).then_some(VIP);
            self.know(host, vip.as_slice());
        }
    }

    /// What all files say of it.
    pub(super) fn floating(&self) -> Option<Floating> {
        let vip = self.vip.as_ref()?;
        let nodes = vip.hosts.iter().map(|host| name(*host)).collect();
        Some(Floating { name: name(1000), addresses: vec![VIP], nodes })
    }

    fn row(&self, at: usize, pair: Pair) -> RowState {
        let machine = self.hosts[at].core().and_then(|core| core.pairs().get(&pair));
        machine.map_or(RowState::Off, |machine| machine.row_state())
    }

    /// Whether a host and the one with the address have one pair of SAs for it, and nobody else has any.
    fn is_settled_with_vip(&self, from: usize) -> bool {
        let here = self.vip.as_ref().and_then(|vip| vip.at).expect("somebody has the address");
        let pair = Pair { local: self.hosts[from].address, remote: VIP };
        let mirror = Pair { local: VIP, remote: self.hosts[from].address };
        let out = self.hosts[from].kernel.spis(pair, Direction::Out);
        let others = (0..self.hosts.len()).filter(|host| *host != here && *host != from);
        let rest = others.flat_map(|host| self.hosts[host].kernel.spis(mirror, Direction::In)).count();
        match self.hosts[from].kernel.leaves(pair) {
            Leaves::Esp(SaId { spi, .. }) => {
                out == [spi] && self.hosts[here].kernel.spis(mirror, Direction::In) == [spi] && rest == 0
            }
            _ => false,
        }
    }
}

impl World {
    /// Whether packets between a host and the one with the address arrive as ESP, in both directions.
    fn reaches_vip(&self, from: usize) -> bool {
        let here = self.vip.as_ref().and_then(|vip| vip.at).expect("somebody has the address");
        let pair = Pair { local: self.hosts[from].address, remote: VIP };
        let mirror = Pair { local: VIP, remote: self.hosts[from].address };
        let arrives =
            |[from, to]: [usize; 2], out: Pair, inbound: Pair| match self.hosts[from].kernel.leaves(out) {
                Leaves::Esp(SaId { spi, .. }) => {
                    self.hosts[to].kernel.spis(inbound, Direction::In).contains(&spi)
                }
                _ => false,
            };
        arrives([from, here], pair, mirror) && arrives([here, from], mirror, pair)
    }
}

/// Three hosts, all of them enabled: the first or the last may have the address, and the last has it.
fn with_the_last(seed: u64) -> World {
    let mut world = World::new(3, seed, Weather::FAIR);
    world.float_between(&[0, 2]);
    world.move_to(Some(2));
    (0..3).for_each(|host| world.enable(host));
    world
}

fn is_settled(world: &World) -> bool {
    world.all_protected() && world.is_settled_with_vip(1)
}

#[test]
fn an_address_takes_its_protection_along() {
    for seed in 0..40 {
        let mut world = World::new(4, seed, if seed % 2 == 0 { Weather::FAIR } else { Weather::ROUGH });
        world.float_between(&[0, 2]);
        world.move_to(Some(0));
        (0..4).for_each(|host| world.enable(host));
        let with_vip = |world: &World, here: usize| {
            (0..4).filter(|host| *host != here).all(|host| {
                let pair = Pair { local: world.hosts[host].address, remote: VIP };
                let mirror = Pair { local: VIP, remote: world.hosts[host].address };
                world.row(host, pair) == RowState::Protected && world.row(here, mirror) == RowState::Protected
            })
        };
        assert!(world.run_until(60 * SECOND, |world| world.all_protected() && with_vip(world, 0)), "{seed}");
        for here in [2, 0, 2] {
            // A host which has it no more may have it again, and there is a time in between without it.
            world.move_to(None);
            world.run(SECOND / 10, None);
            world.move_to(Some(here));
            let other = 2 - here;
            for host in (0..4).filter(|host| *host != here) {
                let pair = Pair { local: VIP, remote: world.hosts[host].address };
                let kernel = &world.hosts[here].kernel;
                assert!(!matches!(kernel.leaves(pair), Leaves::Clear), "seed {seed}: clear at once");
                assert!(!kernel.accepts_clear(pair), "seed {seed}: accepts clear at once");
            }
            let settled = |world: &World| {
                with_vip(world, here)
                    && (0..4).filter(|it| *it != here).all(|it| world.is_settled_with_vip(it))
            };
            assert!(world.run_until(60 * SECOND, settled), "seed {seed}: not with {here}");
            for host in 0..4 {
                world.look(host);
            }
            assert!(settled(&world), "seed {seed}: a reading of the tables changes nothing");
            let own = Pair { local: VIP, remote: world.hosts[1].address };
            assert_eq!(world.row(other, own), RowState::Off, "it is elsewhere");
            assert!(!world.hosts[other].kernel.accepts_clear(own), "it would find its pairs blocked");
        }
        assert!(world.all_protected(), "{seed}");
    }
}

/// From whoever had it, and from one whose agent is dead or whose host is cut off.
#[test]
fn an_address_is_back_within_a_second_of_its_move() {
    for (lost, name) in ["it moves", "the agent is dead", "the host is cut off"].into_iter().enumerate() {
        seeds(20, |seed| {
            let mut world = World::new(4, seed, Weather::FAIR);
            world.float_between(&[0, 2]);
            world.move_to(Some(0));
            (0..4).for_each(|host| world.enable(host));
            let settled = |world: &World| world.all_protected() && world.is_settled_with_vip(1);
            assert!(world.run_until(60 * SECOND, settled));
            // Whenever that is: what is due every few seconds falls on another moment with every seed.
            world.run(10 * SECOND + 173 * seed as u32 * MILLISECOND, None);
            match lost {
                0 => {}
                1 => world.kill(0),
                _ => (1..4).for_each(|other| world.cut(0, other)),
            }
            world.move_to(Some(2));
            assert!(
                world.run_until(SECOND, |world| [1, 3].iter().all(|from| world.reaches_vip(*from))),
                "{name}"
            );
        });
    }
}

#[test]
fn who_has_the_address_finds_nothing_in_the_way_inside() {
    let mut world = with_the_last(5);
    assert!(world.run_until(30 * SECOND, World::all_protected));
    world.move_to(Some(0));
    assert!(world.run_until(30 * SECOND, |world| world.is_settled_with_vip(1)));
    let inside = Pair { local: world.hosts[0].address, remote: VIP };
    assert_eq!(world.hosts[0].kernel.leaves(inside), Leaves::Clear, "its own traffic with itself");
    assert_eq!(world.row(0, inside), RowState::Off);
}

#[test]
fn a_host_that_disables_leaves_nothing_of_the_address() {
    let mut world = with_the_last(6);
    assert!(world.run_until(30 * SECOND, is_settled));
    (0..3).for_each(|host| world.disable(host));
    world.run(30 * SECOND, None);
    for host in &world.hosts {
        assert!(host.kernel.state.policies.is_empty() && host.kernel.state.sas.is_empty());
    }
}

#[test]
fn an_agent_that_starts_without_the_address_drops_what_it_had_for_it() {
    let mut world = with_the_last(7);
    assert!(world.run_until(30 * SECOND, is_settled));
    world.stop(2);
    world.move_to(Some(0));
    world.start(2);
    assert!(world.run_until(30 * SECOND, is_settled));
}
