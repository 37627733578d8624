//! Files that change while everything is at work, host by host.

use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND, protected, seeds};
use super::files::File;
use super::net::Weather;
use super::world::{Host, Tally, World};
use crate::identity::{Secret, SecretId};
use crate::protect::PairMachine;
use crate::types::{Direction, EspProposal, Method, Proposals, ReasonCode, RowState, Spi};

const OLD: [u8; 32] = [7; 32];
const NEW: [u8; 32] = [9; 32];

/// The outbound SAs of the ways among `hosts`.
fn spis(world: &World, hosts: &[usize]) -> Vec<Vec<Spi>> {
    let ways = world.ways().into_iter().filter(|(from, to)| hosts.contains(from) && hosts.contains(to));
    ways.map(|(from, to)| world.hosts[from].kernel.spis(world.pair(from, to), Direction::Out)).collect()
}

/// What became of the packets among `hosts`.
fn among(world: &World, hosts: &[usize]) -> Tally {
    let inside = world.tally.iter().filter(|((from, to), _)| hosts.contains(from) && hosts.contains(to));
    inside.fold(Tally::default(), |sum, (_, tally)| Tally {
        sent: sum.sent + tally.sent,
        lost: sum.lost + tally.lost,
        clear: sum.clear + tally.clear,
        leaked: sum.leaked + tally.leaked,
    })
}

fn run(world: &mut World, time: Duration) {
    let ways = world.ways();
    world.run(time, Some((10 * MILLISECOND, &ways)));
}

/// The secrets that the pairs of all hosts rest on.
fn secrets(world: &World) -> Vec<Option<SecretId>> {
    let secret = |(from, to): (usize, usize)| {
        let (core, pair) = (world.hosts[from].core()?, world.pair(from, to));
        core.engine().secret_of(pair, core.pairs().get(&pair)?.settled_child()?)
    };
    world.ways().into_iter().map(secret).collect()
}

#[test]
fn a_node_comes_at_different_times_and_nothing_else_moves() {
    seeds(10, |seed| {
        let mut world = World::new(4, seed, Weather::FAIR);
        for host in 0..3 {
            world.hosts[host].file.nodes = vec![0, 1, 2];
            world.enable(host);
        }
        run(&mut world, 5 * SECOND);
        world.tally.clear();
        let before = spis(&world, &[0, 1, 2]);
        world.enable(3);
        for host in [1, 0, 2] {
            run(&mut world, 3 * SECOND);
            world.reconfigure(host, |file| file.nodes.push(3));
        }
        run(&mut world, 10 * SECOND);
        assert!(world.all_protected());
        let unlisted = |host: &Host| host.core().unwrap().engine().unlisted(world.now).count();
        assert_eq!(world.hosts.iter().map(unlisted).sum::<usize>(), 0, "all are listed by now");
        assert!(world.run_until(30 * SECOND, World::all_single));
        assert_eq!(spis(&world, &[0, 1, 2]), before);
        assert_eq!(world.total().lost, 0);
        assert_eq!(among(&world, &[0, 1, 2]).clear, 0);
    });
}

#[test]
fn a_node_goes_at_different_times_and_nothing_else_moves() {
    seeds(10, |seed| {
        let mut world = protected(4, seed, Weather::FAIR);
        let before = spis(&world, &[0, 1, 2]);
        for host in [1, 0, 2] {
            world.reconfigure(host, |file| file.nodes.retain(|node| *node != 3));
            run(&mut world, 3 * SECOND);
        }
        run(&mut world, 5 * SECOND);
        for host in 0..3 {
            assert_eq!(world.hosts[host].core().unwrap().pairs().len(), 2);
            assert_eq!(world.state(3, host), RowState::Clear);
            assert_eq!(world.reason(3, host).unwrap().0, ReasonCode::PeerDisabled);
        }
        assert_eq!(spis(&world, &[0, 1, 2]), before);
        world.disable(3);
        run(&mut world, 5 * SECOND);
        assert!(
            world.hosts[3].kernel.state.policies.is_empty() && world.hosts[3].kernel.state.sas.is_empty()
        );
        assert_eq!(world.total().lost, 0);
        assert_eq!(among(&world, &[0, 1, 2]).clear, 0);
    });
}

#[test]
fn a_node_that_comes_back_on_its_way_out_is_protected_again() {
    seeds(40, |seed| {
        let mut world = protected(3, seed, Weather::FAIR);
        let before = spis(&world, &[0, 1]);
        world.reconfigure(0, |file| file.nodes = vec![0, 1]);
        run(&mut world, Duration::from_millis(seed * 120));
        world.reconfigure(0, |file| file.nodes = vec![0, 1, 2]);
        run(&mut world, 15 * SECOND);
        assert!(world.all_protected() && world.all_single(), "{:?}", world.reason(0, 2));
        assert_eq!(spis(&world, &[0, 1]), before);
        assert_eq!(world.total().lost, 0);
        assert_eq!(among(&world, &[0, 1]).clear, 0);
    });
}

fn rotating(file: &mut File) {
    (file.secret, file.previous) = (NEW, Some(OLD));
}

#[test]
fn a_secret_is_rotated_host_by_host_under_loss() {
    seeds(20, |seed| {
        let mut world = protected(4, seed, Weather::FAIR);
        world.net.weather = Weather { loss: 0.3, ..Weather::FOUL };
        for host in [2, 0, 3, 1] {
            world.reconfigure(host, rotating);
            run(&mut world, 20 * SECOND);
        }
        world.net.weather = Weather::FAIR;
        let new = Some(Secret::new(NEW).id());
        let done = |world: &World| secrets(world).iter().all(|secret| *secret == new);
        assert!(world.run_until(1200 * SECOND, done), "{:?}", secrets(&world));
        for host in 0..4 {
            world.reconfigure(host, |file| file.previous = None);
            run(&mut world, SECOND);
        }
        assert!(world.run_until(60 * SECOND, |world| world.all_single() && world.all_protected()));
        assert_eq!((world.total().lost, world.total().clear), (0, 0));
    });
}

/// How the keys of the pairs of all hosts were made.
fn methods(world: &World) -> Vec<Option<Method>> {
    let method = |(from, to): (usize, usize)| {
        let (core, pair) = (world.hosts[from].core()?, world.pair(from, to));
        core.engine().method_of(pair, core.pairs().get(&pair)?.settled_child()?)
    };
    world.ways().into_iter().map(method).collect()
}

#[test]
fn the_method_of_keying_is_changed_host_by_host_under_loss() {
    seeds(20, |seed| {
        let mut world = protected(4, seed, Weather::FAIR);
        let from = world.hosts[0].file.method;
        let to = if from == Method::Ike { Method::Derived } else { Method::Ike };
        world.net.weather = Weather { loss: 0.2, ..Weather::FOUL };
        for host in [2, 0, 3, 1] {
            world.reconfigure(host, |file| file.accept = Method::ALL.to_vec());
            run(&mut world, 5 * SECOND);
        }
        assert!(methods(&world).iter().all(|method| *method == Some(from)), "accepting changes nothing");
        for host in [1, 3, 0, 2] {
            world.reconfigure(host, |file| file.method = to);
            run(&mut world, 20 * SECOND);
        }
        world.net.weather = Weather::FAIR;
        let done = |world: &World| methods(world).iter().all(|method| *method == Some(to));
        assert!(world.run_until(1200 * SECOND, done), "{:?}", methods(&world));
        for host in 0..4 {
            world.reconfigure(host, |file| file.accept = vec![to]);
            run(&mut world, SECOND);
        }
        assert!(world.run_until(60 * SECOND, |world| world.all_single() && world.all_protected()));
        assert_eq!((world.total().lost, world.total().clear), (0, 0));
    });
}

/// First every host takes it, then every host insists on it, with ML-KEM: while IKE is lost nobody is locked out.
#[test]
fn a_key_exchange_of_the_data_comes_host_by_host_under_loss() {
    let with = "aes256gcm16-x25519-ke1_mlkem768-esn".parse::<EspProposal>().unwrap();
    let both = [vec![with.clone()], Proposals::default().iter().cloned().collect()].concat();
    let lists = [both, vec![with]].map(|list| Proposals::new(list).unwrap());
    let all_have_it = |world: &World| {
        world.ways().into_iter().all(|(from, to)| {
            let (core, pair) = (world.hosts[from].core().unwrap(), world.pair(from, to));
            let child = core.pairs().get(&pair).and_then(PairMachine::settled_child);
            child.is_some_and(|in_spi| core.engine().key_exchange_of(pair, in_spi).is_some())
        })
    };
    seeds(10, |seed| {
        let mut world = World::new(4, seed, Weather::FAIR);
        world.rekey_after(20 * SECOND);
        (0..4).for_each(|host| world.enable(host));
        assert!(world.run_until(120 * SECOND, World::all_protected));
        world.run(SECOND, None);
        world.tally.clear();
        world.net.weather = Weather { loss: 0.2, ..Weather::FOUL };
        for list in &lists {
            for host in [2, 0, 3, 1] {
                world.reconfigure(host, |file| file.esp_proposals = list.clone());
                run(&mut world, 10 * SECOND);
            }
        }
        run(&mut world, 60 * SECOND);
        world.net.weather = Weather::FAIR;
        // The first child of an IKE SA that had to be made anew has the key exchange once it is rekeyed.
        run(&mut world, 30 * SECOND);
        world.rekey_after(3600 * SECOND);
        (0..4).for_each(|host| world.reconfigure(host, |_| {}));
        assert!(world.run_until(120 * SECOND, |world| world.all_single() && world.all_protected()));
        let method = world.hosts[0].file.method;
        assert_eq!(all_have_it(&world), method == Method::Ike);
        assert_eq!((world.total().lost, world.total().clear), (0, 0));
    });
}

/// In the middle of a rotation nobody is locked out, whoever dies.
#[test]
fn agents_that_start_in_the_middle_of_a_rotation_find_each_other() {
    seeds(10, |seed| {
        let mut world = protected(3, seed, Weather::FAIR);
        world.reconfigure(0, rotating);
        run(&mut world, 2 * SECOND);
        for host in 0..3 {
            world.kill(host);
            world.enable(host);
        }
        run(&mut world, 30 * SECOND);
        assert!(world.all_protected());
        assert!(world.run_until(60 * SECOND, World::all_single));
        assert_eq!((world.total().lost, world.total().clear), (0, 0));
    });
}

#[test]
fn what_is_only_true_of_new_sas_comes_with_successors() {
    let changes: [fn(&mut File); 3] = [
        |file| file.esp_proposals = Proposals::of_key_bits(128),
        |file| file.replay_window = 64,
        |file| file.rekey_after = 2 * SECOND,
    ];
    seeds(5, |seed| {
        for change in changes {
            let mut world = protected(3, seed, Weather::FAIR);
            let before = spis(&world, &[0, 1, 2]);
            for host in [1, 0, 2] {
                world.reconfigure(host, change);
                run(&mut world, 2 * SECOND);
            }
            run(&mut world, 10 * SECOND);
            world.rekey_after(3600 * SECOND);
            for host in 0..3 {
                world.reconfigure(host, |_| {});
            }
            run(&mut world, 10 * SECOND);
            assert!(world.all_protected() && world.run_until(60 * SECOND, World::all_single));
            let after = spis(&world, &[0, 1, 2]);
            assert!(before.iter().zip(&after).all(|(before, after)| before != after), "all are new");
            assert_eq!((world.total().lost, world.total().clear), (0, 0));
        }
    });
}

#[test]
fn sas_that_bind_packets_to_nobody_leave_at_once_and_without_a_loss() {
    seeds(10, |seed| {
        let mut world = protected(3, seed, Weather::FAIR);
        let at = (seed % 3) as usize;
        world.hosts[at].kernel.unbind();
        let unbound =
            |world: &World| world.hosts[at].kernel.state.sas.values().filter(|sa| !sa.bound).count();
        assert!(unbound(&world) >= 4);
        world.kill(at);
        world.enable(at);
        let actual = world.hosts[at].kernel.state.clone();
        let shown = world.hosts[at].core().map(|core| core.plan(actual).replaced.len());
        assert_eq!(shown, Some(unbound(&world)), "`plan` names each of them");
        run(&mut world, 10 * SECOND);
        assert_eq!(unbound(&world), 0);
        assert!(world.all_protected());
        assert_eq!((world.total().lost, world.total().clear), (0, 0));
    });
}

#[test]
fn a_file_that_says_the_same_changes_nothing() {
    let mut world = protected(3, 1, Weather::FAIR);
    let before: Vec<_> = world.hosts.iter().map(|host| host.kernel.state.clone()).collect();
    for host in 0..3 {
        world.reconfigure(host, |_| {});
    }
    world.run(10 * SECOND, None);
    for (host, before) in world.hosts.iter().zip(&before) {
        assert_eq!(host.kernel.state.policies, before.policies);
        assert!(host.kernel.state.sas.keys().eq(before.sas.keys()));
    }
}
