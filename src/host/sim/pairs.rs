//! How the pairs of all members stand, for those who look.

use super::cluster::SECOND;
use super::members::protected;
use super::net::Weather;
use super::world::World;
use crate::control::{ClusterReply, ClusterRequest, Reply, Request};
use crate::host::ledger::Asker;
use crate::observe::member_pairs::{ClusterPairs, NodePairs, NodeVoice, PairStanding};
use crate::types::RowState;

fn pairs(world: &mut World, at: usize) -> ClusterPairs {
    match world.order(at, ClusterRequest::Pairs) {
        Ok(ClusterReply::Pairs(pairs)) => *pairs,
        other => panic!("{other:?}"),
    }
}

/// How a node says that its pairs stand.
fn standings(node: &NodePairs) -> Option<Vec<PairStanding>> {
    node.said.as_ref().map(|said| said.iter().filter_map(|word| word.standing()).collect())
}

#[test]
fn each_member_says_how_its_pairs_stand_and_who_is_away_says_nothing() {
    let mut world = protected(3, 1);
    let seen = pairs(&mut world, 0);
    assert_eq!((seen.total, seen.nodes.len()), (3, 3));
    for node in &seen.nodes {
        assert_eq!(node.voice, NodeVoice::Member);
        assert_eq!(standings(node), Some(vec![PairStanding::Protected; 2]), "{node:?}");
    }
    world.kill(2);
    assert_eq!(pairs(&mut world, 0), seen, "it is known already");
    world.run(10 * SECOND, None);
    let later = pairs(&mut world, 0);
    assert!(later.time >= seen.time.after(10 * SECOND));
    let said: Vec<bool> = later.nodes.iter().map(|node| node.said.is_some()).collect();
    assert_eq!(said, [true, true, false]);
    // What a host says that is in the clear on purpose.
    world.disable(1);
    world.run(12 * SECOND, None);
    let seen = pairs(&mut world, 0);
    let off = seen.nodes[1].said.as_ref().expect("its agent runs");
    assert!(off.iter().all(|word| word.state == Some(RowState::Off)), "{off:?}");
}

/// However many look, and at however many hosts.
#[test]
fn members_are_asked_once_in_ten_seconds_for_all_who_look() {
    let mut world = protected(3, 2);
    pairs(&mut world, 0);
    let looks = world.hosts[1].kernel.looks;
    let question = Request::Cluster(ClusterRequest::Pairs);
    for asker in 0..32 {
        let moment = world.moment();
        world.on(0, |agent, _, _| agent.handle_question(moment, Asker(1000 + asker), question.clone()));
        world.ask(0, question.clone());
        world.run(SECOND, None);
    }
    let looks = world.hosts[1].kernel.looks - looks;
    assert!((3..=4).contains(&looks), "{looks} looks in 32 seconds");
    let told = world.hosts[0].replies.iter().filter(|(asker, reply, _)| {
        asker.0 >= 1000 && matches!(reply, Reply::Cluster(ClusterReply::Pairs(_)))
    });
    assert!(told.count() >= 30, "nobody waits for long");
}

#[test]
fn nobody_is_asked_about_more_pairs_than_anybody_looks_at() {
    let mut world = World::of_members(65, 3, Weather::FAIR);
    assert!(world.run_until(20 * SECOND, World::is_one_roster));
    world.run(5 * SECOND, None);
    let begun = world.now;
    let seen = pairs(&mut world, 7);
    assert_eq!((seen.total, seen.nodes.len()), (65, 0));
    assert!(world.now - begun < SECOND, "nobody is waited for");
}
