//! Those who may look, and what they are told.

use std::collections::BTreeSet;
use std::time::Duration;

use super::cluster::{MILLISECOND, SECOND, seeds};
use super::members;
use super::net::Weather;
use super::world::World;
use crate::control::{ClusterRequest, ErrorCode, Reply, Request};
use crate::host::ledger::Asker;
use crate::host::system::KernelEvent;
use crate::observe::Figures;
use crate::observe::cluster::DesiredState;
use crate::types::{Protection, Repairs, Volume};

const WAYS: [(usize, usize); 2] = [(0, 1), (1, 0)];
const METRICS: Request = Request::Metrics { pairs: None };

fn protected(seed: u64, rekey_after: Duration) -> World {
    let mut world = World::new(2, seed, Weather::FAIR);
    world.rekey_after(rekey_after);
    (0..2).for_each(|host| world.enable(host));
    world.run(3 * SECOND, None);
    assert!(world.all_protected());
    world
}

fn question(world: &mut World, asker: u64, request: &Request) {
    let moment = world.moment();
    world.on(0, |agent, _, _| agent.handle_question(moment, Asker(asker), request.clone()));
}

/// What those were told who were answered since the last call.
fn told(world: &mut World) -> Vec<(u64, Reply)> {
    world.hosts[0].replies.drain(..).map(|(asker, reply, _)| (asker.0, reply)).collect()
}

#[test]
fn one_look_serves_all_who_ask_within_a_while() {
    let mut world = protected(1, 60 * SECOND);
    told(&mut world);
    let ask_all = |world: &mut World| {
        for asker in 0..30 {
            question(world, asker, if asker % 2 == 0 { &Request::Status } else { &METRICS });
        }
    };
    ask_all(&mut world);
    world.run(10 * MILLISECOND, None);
    assert_eq!(told(&mut world).len(), 30, "the first are answered at once");
    let looks = world.hosts[0].kernel.looks;
    for _ in 0..10 {
        ask_all(&mut world);
        world.run(100 * MILLISECOND, None);
    }
    let looks = world.hosts[0].kernel.looks - looks;
    assert!((3..=5).contains(&looks), "{looks} looks in a second");
    world.run(SECOND, None);
    for (asker, reply) in told(&mut world) {
        match reply {
            Reply::Status(_) => assert_eq!(asker % 2, 0),
            Reply::Figures(figures) => assert!(asker % 2 == 1 && figures.healthy),
            // More than may wait.
            Reply::Error { code, .. } => assert_eq!(code, ErrorCode::Failed),
            other => panic!("{other:?}"),
        }
    }
}

/// Policies that cannot be read are missed only where somebody may have changed them.
#[test]
fn policies_are_read_for_figures_only_where_they_may_have_changed() {
    let mut world = protected(4, 60 * SECOND);
    let kernel = |world: &mut World, unreadable| {
        world.hosts[0].kernel.unreadable = unreadable;
        world.hosts[0].kernel.change();
    };
    world.hosts[0].kernel.unreadable = true;
    assert!(figures(&mut world).is_some_and(|figures| figures.healthy));
    kernel(&mut world, true);
    for _ in 0..3 {
        assert_eq!(figures(&mut world), None, "nothing is told that may be wrong");
    }
    kernel(&mut world, false);
    assert!(figures(&mut world).is_some(), "they are read");
    world.hosts[0].kernel.unreadable = true;
    assert!(figures(&mut world).is_some_and(|figures| figures.healthy));
}

/// Through rekeys, which change policies all the time.
#[test]
fn figures_are_the_same_whether_policies_were_read_or_are_known() {
    let mut world = protected(6, 5 * SECOND);
    for _ in 0..30 {
        world.run(700 * MILLISECOND, Some((10 * MILLISECOND, &WAYS)));
        told(&mut world);
        let looks = world.hosts[0].kernel.looks;
        question(&mut world, 1, &METRICS);
        world.run(MILLISECOND, None);
        let known = told(&mut world);
        assert_eq!(world.hosts[0].kernel.looks, looks);
        // The next look is due, and is one for a status.
        world.run(300 * MILLISECOND, None);
        question(&mut world, 2, &Request::Status);
        question(&mut world, 3, &METRICS);
        world.run(MILLISECOND, None);
        assert_eq!(world.hosts[0].kernel.looks, looks + 1);
        let read = told(&mut world);
        let of = |replies: &[(u64, Reply)]| {
            let figures = replies.iter().find_map(|(_, reply)| match reply {
                Reply::Figures(figures) => Some(figures.clone()),
                _ => None,
            });
            let figures = *figures.expect("figures");
            (
                figures.healthy,
                figures.summary,
                figures.policies.out,
                figures.policies.inbound,
                figures.problems,
            )
        };
        assert_eq!(of(&known), of(&read));
    }
}

/// A probe that came in was taken for a packet, until its host heard of it.
#[test]
fn a_counter_stands_still_rather_than_go_back() {
    let mut world = protected(3, 60 * SECOND);
    world.run(SECOND, Some((10 * MILLISECOND, &WAYS)));
    let mut received = |ahead: u64| {
        let sas = &mut world.hosts[0].kernel.state.sas;
        let before = sas.clone();
        sas.values_mut().for_each(|sa| sa.packets += ahead);
        told(&mut world);
        question(&mut world, 1, &METRICS);
        world.run(SECOND, None);
        let [(1, Reply::Figures(figures))] = &told(&mut world)[..] else { panic!("no figures") };
        let received = figures.volume.unwrap().rx.packets;
        assert_eq!(figures.pairs.as_ref().unwrap()[0].rx.packets, received);
        world.hosts[0].kernel.state.sas = before;
        received
    };
    let [exact, ahead, held] = [0, 1, 0].map(&mut received);
    assert_eq!((ahead, held), (exact + 1, ahead));
}

#[test]
fn orders_are_refused_by_name() {
    let mut world = protected(2, 60 * SECOND);
    told(&mut world);
    let preview = Request::Preview { file: "f".into(), text: String::new() };
    let cluster = Request::Cluster(ClusterRequest::Leave);
    for (request, name) in [
        (Request::Disable, "\"disable\""),
        (Request::Enable, "\"enable\""),
        (Request::Confirm, "\"confirm\""),
        (Request::Reload, "\"reload\""),
        (Request::Plan, "\"plan\""),
        (preview, "\"plan\" with another file"),
        (cluster, "an order about the cluster"),
    ] {
        question(&mut world, 7, &request);
        world.run(SECOND, None);
        let [(7, Reply::Error { code: ErrorCode::NotPermitted, message })] = &told(&mut world)[..] else {
            panic!("{request:?}");
        };
        assert!(message.starts_with(name), "{message}");
    }
    for request in [Request::Ping, Request::Follow { after: 0, hold_ms: 0 }] {
        question(&mut world, 8, &request);
        world.run(SECOND, None);
        let [(8, reply)] = &told(&mut world)[..] else { panic!("{request:?}") };
        assert!(!matches!(reply, Reply::Error { .. }), "{reply:?}");
    }
    question(&mut world, 9, &Request::Cluster(ClusterRequest::Status));
    world.run(SECOND, None);
    let [(9, Reply::Error { code, .. })] = &told(&mut world)[..] else { panic!("it is no member") };
    assert_eq!(*code, ErrorCode::Cluster);
    // Orders take no more of the agent's time than questions.
    question(&mut world, 7, &Request::Disable);
    world.run(MILLISECOND, None);
    told(&mut world);
    question(&mut world, 7, &Request::Disable);
    world.run(100 * MILLISECOND, None);
    assert!(told(&mut world).is_empty(), "the second waits for its turn");
    world.run(SECOND, None);
    assert_eq!(told(&mut world).len(), 1);
    assert!(world.all_protected());
}

fn figures(world: &mut World) -> Option<Figures> {
    told(world);
    question(world, 9, &METRICS);
    world.run(SECOND, Some((10 * MILLISECOND, &WAYS)));
    told(world).into_iter().find_map(|(_, reply)| match reply {
        Reply::Figures(figures) => Some(*figures),
        _ => None,
    })
}

/// Over rekeys, deaths and reboots, a total grows or begins anew at 0.
#[test]
fn no_total_of_a_host_goes_back() {
    seeds(10, |seed| {
        let mut world = protected(seed, 5 * SECOND);
        let (mut before, mut anew) = (Volume::default(), 0);
        for step in 0..60 {
            match step % 20 {
                5 => world.kill(0),
                7 => world.start(0),
                // It writes what it has told.
                15 => world.stop(0),
                16 => world.start(0),
                _ => {}
            }
            let Some(figures) = figures(&mut world) else { continue };
            let volume = figures.volume.unwrap();
            if volume.tx.packets < before.tx.packets {
                anew += 1;
                assert!(volume.tx.packets < 500, "{step}: {volume:?} after {before:?}");
            }
            assert_eq!(figures.protection, Protection::On);
            before = volume;
        }
        assert!(before.tx.packets > 1000 && anew <= 3, "{before:?}, anew {anew} times");
    });
}

/// The time of day and the agent's uptime are both told in whole seconds.
#[test]
fn the_start_of_an_agent_is_one_moment() {
    let mut world = World::new(2, 5, Weather::FAIR);
    world.run(700 * MILLISECOND, None);
    world.start(0);
    let mut starts = BTreeSet::new();
    for _ in 0..10 {
        world.run(300 * MILLISECOND, None);
        starts.extend(figures(&mut world).map(|figures| figures.started));
    }
    assert_eq!(starts.len(), 1, "{starts:?}");
}

/// What answers cost after the kernel was read counts too.
#[test]
fn answers_that_take_long_to_write_make_onlookers_wait() {
    let mut world = protected(1, 60 * SECOND);
    told(&mut world);
    question(&mut world, 1, &METRICS);
    world.run(10 * MILLISECOND, None);
    assert_eq!(told(&mut world).len(), 1);
    world.on(0, |agent, now, _| agent.handle_told(now, SECOND));
    question(&mut world, 2, &METRICS);
    world.run(3 * SECOND, None);
    assert!(told(&mut world).is_empty());
    world.run(2 * SECOND, None);
    assert_eq!(told(&mut world).len(), 1);
}

/// What somebody else took from the kernel and what the kernel could not tell are on record, also of a core that has ended.
#[test]
fn repairs_and_overruns_are_counted() {
    let mut world = protected(7, 60 * SECOND);
    let tally = |world: &mut World| figures(world).unwrap().tally;
    let before = tally(&mut world);
    assert_eq!((before.repairs, before.overruns), (Repairs::default(), 0));
    world.flush_policies(0);
    let policies = tally(&mut world).repairs.policies;
    assert!(policies >= 2, "{policies} policies");
    world.flush_sas(0);
    let repairs = tally(&mut world).repairs;
    assert!(repairs.sas + repairs.policies > policies, "{repairs:?}");
    world.hosts[0].kernel.events.extend([KernelEvent::Overrun, KernelEvent::Overrun]);
    assert_eq!(tally(&mut world).overruns, 2);
    world.ask(0, Request::Disable);
    assert!(world.run_until(60 * SECOND, |world| world.hosts[0].core().is_none()));
    let after = tally(&mut world);
    assert!(after.repairs.policies >= repairs.policies && after.overruns == 2, "{after:?}");
}

/// What others have ordered is not written either where the disk is full.
#[test]
fn a_member_tells_of_an_order_that_is_not_written() {
    let mut world = members::protected(3, 1);
    let pending = |world: &mut World| figures(world).unwrap().cluster_part.unwrap().pending;
    world.hosts[0].disk.keeps_no_roster = true;
    world.order(1, ClusterRequest::Enable { try_s: None }).unwrap();
    world.run(20 * SECOND, None);
    assert_eq!(pending(&mut world), 1);
    world.hosts[0].disk.keeps_no_roster = false;
    // The longest pause before it is tried again.
    world.run(60 * SECOND, None);
    assert_eq!(pending(&mut world), 0);
}

/// Nobody is asked for it.
#[test]
fn a_member_tells_what_it_knows_of_its_cluster() {
    assert!(figures(&mut protected(1, 60 * SECOND)).unwrap().cluster_part.is_none());
    let mut world = members::protected(3, 1);
    let part = |world: &mut World| figures(world).unwrap().cluster_part.unwrap();
    let all = part(&mut world);
    assert_eq!((all.nodes.joined, all.unheard, all.differing, all.conflicts), (3, 0, 0, 0), "{all:?}");
    assert_eq!((all.desired, all.overridden, all.pending), (DesiredState::On, false, 0));
    assert_eq!(all.roster_id, world.cluster_status(1).roster_id);
    world.ask(0, Request::Disable);
    world.run(5 * SECOND, None);
    assert!(part(&mut world).overridden);
    world.kill(2);
    // It is noticed once it is asked something.
    let is_missed = |world: &mut World| {
        world.cluster_status(0);
        world.run(10 * SECOND, None);
        part(world).unheard == 1
    };
    assert!((0..60).any(|_| is_missed(&mut world)));
}
