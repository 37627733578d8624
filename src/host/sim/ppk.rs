//! Post-quantum preshared keys: hosts get them one after the other under traffic, replace them, and say what is wrong.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::files::File;
use super::net::Weather;
use super::world::World;
use crate::identity::PpkUse;
use crate::ike::forget_early_ppks;
use crate::types::{Method, ReasonCode, RowState};

const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];
const REKEY: Duration = Duration::from_secs(60);

impl World {
    /// What the PPK in the keys of a host is called.
    fn ppk(&self, from: usize, to: usize) -> Option<String> {
        let core = self.hosts[from].core()?;
        let pair = self.pair(from, to);
        let in_spi = core.pairs().get(&pair)?.settled_child()?;
        core.engine().ppk_of(pair, in_spi).as_ref().and_then(PpkUse::id).map(str::to_owned)
    }

    pub(super) fn all_have_ppk(&self, id: &str) -> bool {
        self.all_protected() && WAYS.iter().all(|(from, to)| self.ppk(*from, *to).as_deref() == Some(id))
    }

    /// The agents of these hosts alone know nothing of PPKs in IKE_INTERMEDIATE.
    fn have_earlier(&self, hosts: &[usize]) {
        forget_early_ppks(hosts.iter().map(|at| self.hosts[*at].address));
    }

    fn take_on(&mut self, at: usize, change: impl FnOnce(&mut File)) {
        self.reconfigure(at, change);
        self.run(5 * SECOND, Some((10 * MILLISECOND, &WAYS)));
    }
}

/// Whose agents may be earlier ones.
const EARLIER: [&[usize]; 4] = [&[], &[0], &[1], &[0, 1]];

/// Keys that are derived have no PPK.
fn negotiating(seed: u64) -> World {
    let mut world = World::new(2, seed, Weather::FAIR);
    for host in &mut world.hosts {
        (host.file.method, host.file.accept) = (Method::Ike, vec![Method::Ike]);
    }
    world
}

fn protected(seed: u64) -> World {
    let mut world = negotiating(seed);
    world.rekey_after(REKEY);
    (0..2).for_each(|host| world.enable(host));
    world.run(3 * SECOND, None);
    assert!(world.all_protected());
    world
}

#[test]
fn a_ppk_comes_is_required_and_is_replaced_and_no_packet_notices() {
    seeds(12, |seed| {
        let mut world = protected(seed);
        world.have_earlier(EARLIER[usize::try_from(seed / 2 % 4).unwrap()]);
        let clear = world.total().clear;
        let first = usize::from(seed % 2 == 0);
        for at in [first, 1 - first] {
            world.take_on(at, |file| (file.ppks, file.ppk_required) = (vec![("one", 1)], false));
        }
        assert!(world.all_have_ppk("one"));
        for at in [first, 1 - first] {
            world.take_on(at, |file| file.ppk_required = true);
        }
        for at in [first, 1 - first] {
            world.take_on(at, |file| file.ppks = vec![("two", 2), ("one", 1)]);
            assert!(world.all_protected());
        }
        assert!(world.run_until(60 * SECOND, |world| world.all_have_ppk("two")));
        for at in [1 - first, first] {
            world.take_on(at, |file| file.ppks = vec![("two", 2)]);
        }
        world.run(2 * REKEY, Some((10 * MILLISECOND, &WAYS)));
        assert!(world.all_have_ppk("two"));
        assert_eq!((world.total().lost, world.total().clear), (0, clear), "{seed}");
        world.have_earlier(&[]);
    });
}

/// Earlier agents are replaced one after the other: neither kind is left without the PPK.
#[test]
fn earlier_agents_are_replaced_and_no_packet_notices() {
    seeds(6, |seed| {
        let mut world = negotiating(seed);
        world.have_earlier(&[0, 1]);
        world.rekey_after(REKEY);
        for host in 0..2 {
            (world.hosts[host].file.ppks, world.hosts[host].file.ppk_required) = (vec![("one", 1)], true);
            world.enable(host);
        }
        world.run(3 * SECOND, None);
        assert!(world.all_have_ppk("one"));
        let clear = world.total().clear;
        let first = usize::from(seed % 2 == 0);
        for (at, left) in [(first, &[1 - first][..]), (1 - first, &[])] {
            world.kill(at);
            world.have_earlier(left);
            world.start(at);
            world.run(2 * REKEY, Some((10 * MILLISECOND, &WAYS)));
            assert!(world.all_have_ppk("one"), "{seed}");
        }
        assert_eq!((world.total().lost, world.total().clear), (0, clear), "{seed}");
    });
}

/// Nobody changes a file then.
#[test]
fn a_ppk_is_required_when_the_time_without_is_over() {
    let mut world = protected(1);
    let end = world.wall().after(3 * REKEY);
    let optional = |file: &mut File| {
        (file.ppks, file.ppk_required, file.ppk_until) = (vec![("one", 1)], false, Some(end));
    };
    world.take_on(0, optional);
    // Something is wrong with its file when the time is over.
    world.hosts[0].file.is_broken = true;
    world.run(2 * REKEY, None);
    assert!(world.all_protected() && world.ppk(0, 1).is_none(), "the other has none");
    world.run(4 * REKEY, None);
    let row = world.status(0).peers.remove(0);
    assert_eq!((row.state, row.reason_code), (RowState::Blocked, Some(ReasonCode::PpkMissing)));
    assert_eq!(world.hosts[0].disk.saved.ppks_required_since, Some(end));
    world.reconfigure(1, optional);
    assert!(world.run_until(2 * REKEY, |world| world.all_have_ppk("one")));
    world.take_on(0, |file| file.is_broken = false);
    assert!(world.status(0).is_healthy(), "nothing is optional any more");
}

#[test]
fn a_row_says_what_is_wrong_with_the_ppk() {
    type Keys = Vec<(&'static str, u8)>;
    let cases: [(Keys, Keys, ReasonCode, &str); 3] = [
        (vec![("one", 1)], vec![], ReasonCode::PpkMissing, "the peer uses no PPK"),
        (vec![("one", 1)], vec![("two", 2)], ReasonCode::PpkUnknown, "which is not known here"),
        (vec![("one", 1)], vec![("one", 9)], ReasonCode::PpkWrong, "another key for PPK \"one\""),
    ];
    for (a, b, code, words) in cases {
        seeds(4, |seed| {
            let mut world = negotiating(seed);
            for (at, keys) in [&a, &b].into_iter().enumerate() {
                world.hosts[at].file.ppks.clone_from(keys);
            }
            (0..2).for_each(|host| world.enable(host));
            world.run(10 * SECOND, Some((50 * MILLISECOND, &WAYS)));
            assert!(WAYS.iter().all(|(from, to)| world.state(*from, *to) != RowState::Protected));
            let told: Vec<_> = WAYS.iter().filter_map(|(from, to)| world.reason(*from, *to)).collect();
            assert!(told.iter().any(|it| it.0 == code && it.1.contains(words)), "{told:?}");
        });
    }
}

/// One is required while the agent of a host is dead: what it finds has none, serves, and is replaced.
#[test]
fn an_agent_that_starts_replaces_what_has_no_ppk() {
    seeds(10, |seed| {
        let mut world = protected(seed);
        let clear = world.total().clear;
        world.kill(0);
        world.hosts[0].file.ppks = vec![("one", 1)];
        world.start(0);
        world.run(REKEY / 4, Some((10 * MILLISECOND, &WAYS)));
        assert!(world.all_protected(), "what is there serves for a while");
        world.take_on(1, |file| (file.ppks, file.ppk_required) = (vec![("one", 1)], true));
        assert!(world.run_until(60 * SECOND, |world| world.all_have_ppk("one")));
        assert_eq!((world.total().lost, world.total().clear), (0, clear), "{seed}");
        // The other way round: nobody has it there, and what has none ends.
        let mut world = protected(seed);
        world.kill(0);
        world.hosts[0].file.ppks = vec![("one", 1)];
        world.start(0);
        world.run(REKEY + 5 * SECOND, None);
        assert_eq!(world.state(0, 1), RowState::Blocked);
        assert!(world.hosts[0].kernel.state.sas.is_empty());
    });
}
