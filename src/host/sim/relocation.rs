//! Members that move to other addresses, under traffic, and with nodes that are away meanwhile.

use std::net::IpAddr;

use super::cluster::{MILLISECOND, SECOND};
use super::members::protected;
use super::net::Weather;
use super::world::{World, address};
use crate::control::{ClusterRequest, MoveOrder};
use crate::types::RowState;

/// The host that moves.
const MOVER: usize = 1;
/// Addresses that it gets: members are talked to at the lowest one that they have, so that stays in the one case, and
/// is another one at once in the other.
const NEW: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 200, 1)), IpAddr::V4(std::net::Ipv4Addr::new(9, 1, 200, 1))];

impl World {
    /// An admin says which addresses the mover has.
    fn relocate(&mut self, by: usize, addresses: &[IpAddr]) -> Result<(), String> {
        let node = format!("n{MOVER}").parse().unwrap();
        self.order(by, ClusterRequest::Move(MoveOrder { node, addresses: addresses.to_vec() })).map(drop)
    }

    /// From now on the mover's traffic goes from and to this address of it.
    fn use_address(&mut self, new: IpAddr) {
        self.hosts[MOVER].address = new;
        self.renumbered.insert(MOVER, new);
    }

    /// The mover has this address alone.
    fn renumber(&mut self, new: IpAddr) {
        let old = self.hosts[MOVER].address;
        for other in (0..self.hosts.len()).filter(|other| *other != MOVER) {
            self.net.cut.extend([(old, address(other)), (address(other), old)]);
        }
        self.use_address(new);
        self.know(MOVER, &[]);
    }

    fn have_one_roster_and_are_protected(&self) -> bool {
        self.is_one_roster() && self.all_protected() && self.all_talk()
    }
}

/// First it has both addresses, and the old one goes when nothing uses it any more.
#[test]
fn a_node_moves_under_traffic_and_nothing_is_lost_or_clear() {
    for (seed, new) in NEW.into_iter().cycle().take(6).enumerate() {
        let mut world = protected(4, seed as u64);
        world.tally.clear();
        let ways = world.ways();
        let old = world.hosts[MOVER].address;
        world.know(MOVER, &[new]);
        let weather = if seed < 3 { Weather::FAIR } else { Weather::ROUGH };
        world.net.weather = weather;
        world.relocate(0, &[old, new]).unwrap();
        world.run(20 * SECOND, Some((10 * MILLISECOND, &ways)));
        assert!(world.is_one_roster() && world.all_protected(), "seed {seed}");
        assert_eq!((world.total().lost, world.total().clear), (0, 0), "seed {seed}");
        world.use_address(new);
        world.run(5 * SECOND, Some((10 * MILLISECOND, &ways)));
        world.know(MOVER, &[old]);
        world.relocate(0, &[new]).unwrap();
        world.run(20 * SECOND, Some((10 * MILLISECOND, &ways)));
        assert!(world.run_until(60 * SECOND, World::have_one_roster_and_are_protected), "seed {seed}");
        assert_eq!((world.total().lost, world.total().clear), (0, 0), "seed {seed}");
    }
}

/// It may be the admin itself that moves, and the order is given there.
#[test]
fn an_admin_moves_itself() {
    for (seed, new) in NEW.into_iter().enumerate() {
        let mut world = protected(4, seed as u64);
        world.hosts.iter().for_each(|host| assert!(host.is_at_work()));
        let admin =
            world.order(0, ClusterRequest::Admin { node: format!("n{MOVER}").parse().unwrap(), admin: true });
        admin.unwrap();
        assert!(world.run_until(10 * SECOND, World::is_one_roster));
        world.know(MOVER, &[new]);
        world.relocate(MOVER, &[new]).unwrap();
        world.run(20 * SECOND, None);
        world.use_address(new);
        assert!(world.run_until(60 * SECOND, World::have_one_roster_and_are_protected), "seed {seed}");
    }
}

/// The host was renumbered before anybody said so: it has heard nothing, and calls from where it is.
#[test]
fn a_node_whose_old_address_is_gone_hears_where_it_is() {
    for (seed, new) in NEW.into_iter().cycle().take(4).enumerate() {
        let mut world = protected(4, seed as u64);
        world.renumber(new);
        // Its agent may start anew there.
        if seed > 1 {
            world.kill(MOVER);
            world.start(MOVER);
        }
        world.run(40 * SECOND, None);
        assert_eq!(world.state(0, 2), RowState::Protected);
        world.relocate(0, &[new]).unwrap();
        assert!(world.run_until(240 * SECOND, World::have_one_roster_and_are_protected), "seed {seed}");
        world.run(5 * SECOND, None);
        let ways = world.ways();
        world.run(2 * SECOND, Some((10 * MILLISECOND, &ways)));
        assert_eq!((world.total().lost, world.total().clear), (0, 0), "seed {seed}");
    }
}

/// It was off, or cut off, while it was moved, and knows its old address alone. So do those who start anew meanwhile.
#[test]
fn a_node_that_was_away_hears_that_it_has_moved() {
    for (seed, new) in NEW.into_iter().cycle().take(6).enumerate() {
        let mut world = protected(4, seed as u64);
        let old = world.hosts[MOVER].address;
        world.know(MOVER, &[new]);
        let others = [0, 2, 3];
        if seed % 3 == 0 {
            others.iter().for_each(|other| world.cut(MOVER, *other));
        } else {
            world.kill(MOVER);
        }
        world.relocate(0, &[new]).unwrap();
        world.run(20 * SECOND, None);
        if seed % 3 == 2 {
            others.iter().for_each(|other| {
                world.kill(*other);
                world.start(*other);
            });
        }
        others.iter().for_each(|other| world.mend(MOVER, *other));
        world.start(MOVER);
        world.run(SECOND, None);
        world.use_address(new);
        world.know(MOVER, &[old]);
        assert!(world.run_until(240 * SECOND, World::have_one_roster_and_are_protected), "seed {seed}");
    }
}

/// It is called at its old address, and calls from all that it has, but what it has by its configuration goes before that.
#[test]
fn a_program_at_an_address_of_no_node_keeps_no_node_from_its_new_one() {
    for (seed, new) in NEW.into_iter().enumerate() {
        let mut world = protected(3, seed as u64);
        let (old, other) = (world.hosts[MOVER].address, IpAddr::from([172, 17, 0, 1]));
        world.hosts[MOVER].kernel.taken = [old, other].into();
        world.renumber(new);
        world.know(MOVER, &[other]);
        world.run(20 * SECOND, None);
        world.relocate(0, &[new]).unwrap();
        assert!(world.run_until(240 * SECOND, World::have_one_roster_and_are_protected), "seed {seed}");
    }
}

#[test]
fn only_an_admin_moves_a_node_and_not_to_where_another_one_is() {
    let mut world = protected(3, 1);
    let refused = world.relocate(2, &[NEW[0]]).unwrap_err();
    assert_eq!(refused, "only an admin may do that; the admins are n0");
    let refused = world.relocate(0, &[address(2)]).unwrap_err();
    assert_eq!(refused, "10.0.0.3 is an address of the node n2");
    assert!(world.is_one_roster() && world.all_protected());
}
