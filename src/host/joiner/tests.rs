//! Hosts join members with real engines over a network that loses: whatever is lost, and whoever lies.

mod attack;
mod world;

use std::net::SocketAddr;

use self::world::{MILLISECOND, SECOND, World, any, copy, token};
use super::{JoinErrorKind, JoinStep, SeedTrouble};
use crate::host::membership::tests::{NOW, address, cluster, keys, sign, site};
use crate::roster::{
    AddressBlock, EntryId, Gone, HeldOutBecause, Invite, Listed, RefusalCode, Roster, Saying, Seconds,
    SignedEntry, Signer, Site, Statement, Version,
};
use crate::types::{Block, UnixTime};

fn code(world: &World) -> RefusalCode {
    match world.refusal() {
        (JoinErrorKind::Refused(_, refusal), _) => refusal.code,
        (JoinErrorKind::NoMember(seeds), words) => match &seeds[..] {
            [(_, SeedTrouble::Refused(refusal))] => refusal.code,
            other => panic!("{other:?}: {words}"),
        },
        other => panic!("{other:?}"),
    }
}

fn at(member: usize) -> SocketAddr {
    SocketAddr::new(address(member), 500)
}

#[test]
fn a_host_joins_within_moments_and_all_know_it() {
    let (roster, lines) = cluster(3);
    let mut world = World::new(1, &roster, &lines);
    world.run(5 * SECOND);
    world.invite_and_join(3, &[1, 2]);
    let begun = world.now;
    world.finish(SECOND);
    assert!(world.now - begun < 100 * MILLISECOND, "{:?}", world.now - begun);
    let steps = &world.guests[0].steps;
    let [JoinStep::Asks(one), JoinStep::Answered(other), .., JoinStep::Joins(last)] = &steps[..] else {
        panic!("{steps:?}");
    };
    assert_eq!([*one, *other, *last], [at(1); 3]);
    let joined = world.outcome().as_ref().unwrap();
    assert_eq!(joined.roster.view().member(joined.own).unwrap().site, site(3));
    world.run(SECOND);
    world.become_member(0);
    assert!(world.run_until(10 * SECOND, |world| {
        let first = world.hosts[0].member.roster().id();
        world.hosts.iter().all(|host| host.member.roster().id() == first)
    }));
    assert_eq!(world.names(), ["n0", "n1", "n2", "n3"]);
    // Nothing is left of the IKE SA by which it came.
    assert!(world.hosts.iter().all(|host| host.engine.counters().joiners == 0));
}

#[test]
fn it_joins_over_any_network() {
    for seed in 0..12 {
        let (roster, lines) = cluster(3);
        let mut world = World::new(100 + seed, &roster, &lines);
        world.run(5 * SECOND);
        (world.loss, world.twice) = (u32::try_from(seed % 5).unwrap() * 10, 20);
        world.invite_and_join(3, &[0, 1, 2]);
        world.finish(300 * SECOND);
        assert!(world.outcome().is_ok(), "{seed}: {}", world.refusal().1);
        world.loss = 0;
        world.become_member(0);
        world.run(300 * SECOND);
        assert_eq!(world.names(), ["n0", "n1", "n2", "n3"], "{seed}");
    }
}

#[test]
fn the_first_seed_that_answers_is_enough() {
    let (roster, lines) = cluster(3);
    let mut world = World::new(2, &roster, &lines);
    world.run(5 * SECOND);
    world.cut.extend([(3, 0), (3, 1)]);
    world.invite_and_join(3, &[0, 1, 2]);
    let begun = world.now;
    world.finish(2 * SECOND);
    assert!(world.outcome().is_ok() && world.now - begun < SECOND);
}

#[test]
fn two_join_at_once_by_one_member_and_by_two() {
    for by in [0, 1] {
        let (roster, lines) = cluster(2);
        let mut world = World::new(3, &roster, &lines);
        world.writing = 300 * MILLISECOND;
        world.run(5 * SECOND);
        for seed in [2, 3] {
            world.invite(&any(seed), seed);
        }
        world.run(SECOND);
        for (guest, member) in [(2, 0), (3, by)] {
            let seed = u8::try_from(guest).unwrap();
            let token = token(world.hosts[0].member.roster(), &any(seed), seed, &[member]);
            world.join(guest, token);
        }
        world.finish(10 * SECOND);
        assert!(world.guests.iter().all(|guest| guest.outcome.as_ref().unwrap().is_ok()));
        world.run(5 * SECOND);
        assert_eq!(world.names(), ["n0", "n1", "n2", "n3"]);
    }
}

#[test]
fn what_a_token_is_not_for_is_refused_in_words_that_say_so() {
    let block = |text: [u8; 4]| AddressBlock(Block::new(text.into(), 24).unwrap());
    let name = |text: &str| Some(text.parse().unwrap());
    let cases: [(Invite, usize, RefusalCode, &str); 4] = [
        (Invite { name: name("x"), ..any(9) }, 9, RefusalCode::TokenOfOther, "is for the node x"),
        (
            Invite { within: vec![block([10, 9, 0, 0])], ..any(9) },
            9,
            RefusalCode::TokenOfOther,
            "not for a node at 10.0.0.10",
        ),
        (
            Invite { addresses: vec![[10, 0, 0, 7].into()], ..any(9) },
            9,
            RefusalCode::TokenOfOther,
            "not for a node at 10.0.0.10",
        ),
        (Invite { expires: Seconds(NOW.0), ..any(9) }, 9, RefusalCode::TokenExpired, "has expired"),
    ];
    for (invite, like, expected, words) in cases {
        let (roster, lines) = cluster(2);
        let mut world = World::new(4, &roster, &lines);
        world.invite(&invite, 9);
        world.run(5 * SECOND);
        let before = world.hosts[1].member.roster().id();
        let token = token(world.hosts[0].member.roster(), &invite, 9, &[1]);
        world.join_as(9, token, site(like), 9);
        world.finish(20 * SECOND);
        assert_eq!(code(&world), expected);
        let said = world.refusal().1;
        assert!(said.contains(words) && said.contains("10.0.0.2:500 refuses"), "{said}");
        world.run(5 * SECOND);
        assert_eq!(world.hosts[1].member.roster().id(), before, "nothing is left of it");
    }
}

#[test]
fn an_address_of_another_node_is_refused() {
    let (roster, lines) = cluster(2);
    let mut world = World::new(5, &roster, &lines);
    world.invite(&any(9), 9);
    world.run(5 * SECOND);
    let token = token(world.hosts[0].member.roster(), &any(9), 9, &[1]);
    let site = Site { name: "n9".parse().unwrap(), ..site(0) };
    world.join_as(9, token, site, 9);
    world.finish(20 * SECOND);
    assert_eq!(code(&world), RefusalCode::AddressTaken);
    assert!(world.refusal().1.contains("10.0.0.1 belongs to another node"), "{}", world.refusal().1);
}

/// The second one has other keys. It learns that the token is used, and nothing else: not one entry of the roster.
#[test]
fn a_token_is_good_for_one_node() {
    let (roster, lines) = cluster(2);
    let mut world = World::new(6, &roster, &lines);
    world.run(5 * SECOND);
    world.invite_and_join(3, &[0]);
    world.finish(5 * SECOND);
    assert!(world.outcome().is_ok());
    for member in [0, 1] {
        let token = token(world.hosts[0].member.roster(), &any(3), 3, &[member]);
        world.join(4, token);
        world.finish(20 * SECOND);
        assert_eq!(code(&world), RefusalCode::TokenUsed);
        assert!(world.refusal().1.contains("the token was used already: ask an admin"));
        let steps = &world.guests.last().unwrap().steps;
        assert!(!steps.iter().any(|step| matches!(step, JoinStep::Heard(_))), "{steps:?}");
    }
    world.run(5 * SECOND);
    assert_eq!(world.names(), ["n0", "n1", "n3"]);
}

/// By two members that are cut off from each other: both are out once these have found each other again.
#[test]
fn a_token_that_is_used_twice_is_seen_when_the_members_meet() {
    let (roster, lines) = cluster(2);
    let mut world = World::new(7, &roster, &lines);
    world.run(5 * SECOND);
    world.invite(&any(3), 3);
    world.run(SECOND);
    world.cut.insert((0, 1));
    for (guest, member) in [(3, 0), (4, 1)] {
        let token = token(world.hosts[0].member.roster(), &any(3), 3, &[member]);
        world.join(guest, token);
    }
    world.finish(10 * SECOND);
    assert!(world.guests.iter().all(|guest| guest.outcome.as_ref().unwrap().is_ok()));
    world.cut.clear();
    world.run(120 * SECOND);
    assert_eq!(world.names(), ["n0", "n1"]);
    let held_out = &world.hosts[0].member.roster().view().held_out;
    assert_eq!(held_out.len(), 2);
    assert!(held_out.iter().all(|out| out.why == HeldOutBecause::TokenUsedTwice));
    // Whoever of them begins again hears it.
    let token = token(world.hosts[0].member.roster(), &any(3), 3, &[1]);
    world.join(3, token);
    world.finish(10 * SECOND);
    let (kind, words) = world.refusal();
    assert_eq!(kind, JoinErrorKind::HeldOut(HeldOutBecause::TokenUsedTwice));
    assert!(words.contains("an admin of prod decides"), "{words}");
}

#[test]
fn a_token_that_was_taken_back_and_a_node_that_was_removed_are_refused() {
    let (roster, lines) = cluster(2);
    let mut world = World::new(8, &roster, &lines);
    let invite = world.invite(&any(3), 3);
    world.say(0, Saying::Gone(Gone { of: invite, kept: Vec::new(), compromised: false }));
    world.run(5 * SECOND);
    let back = token(world.hosts[0].member.roster(), &any(3), 3, &[1]);
    world.join(3, back);
    world.finish(20 * SECOND);
    assert_eq!(code(&world), RefusalCode::TokenTakenBack);
    world.invite_and_join(4, &[0]);
    world.finish(10 * SECOND);
    let own = world.outcome().as_ref().unwrap().own;
    world.say(0, Saying::Gone(Gone { of: own, kept: Vec::new(), compromised: false }));
    world.run(SECOND);
    let again = token(world.hosts[0].member.roster(), &any(4), 4, &[1]);
    world.join(4, again);
    world.finish(20 * SECOND);
    assert_eq!(code(&world), RefusalCode::Removed);
    assert!(world.refusal().1.contains("the node n4 was removed"), "{}", world.refusal().1);
}

/// The clock of the member decides. That of the joiner gives a hint where something else is wrong.
#[test]
fn the_time_of_a_token_is_judged_by_the_member_alone() {
    let (roster, lines) = cluster(1);
    let mut world = World::new(9, &roster, &lines);
    let over = Invite { expires: Seconds(NOW.0 + 100), ..any(9) };
    world.invite(&over, 9);
    world.run(SECOND);
    world.hosts[0].ahead = 200;
    let good = token(&roster, &over, 9, &[0]);
    world.join(9, good);
    world.finish(10 * SECOND);
    assert_eq!(code(&world), RefusalCode::TokenExpired);
    // The joiner's clock is what is wrong.
    world.hosts[0].ahead = 0;
    let mut early = token(&roster, &over, 9, &[0]);
    early.expires = UnixTime(NOW.0 - 7200);
    world.join(9, early);
    world.finish(10 * SECOND);
    assert!(world.outcome().is_ok());
    let mut nobody = token(&roster, &over, 9, &[7]);
    nobody.expires = UnixTime(NOW.0 - 7200);
    world.join(8, nobody);
    world.finish(100 * SECOND);
    let (kind, words) = world.refusal();
    assert_eq!(kind, JoinErrorKind::NoMember(vec![(at(7), SeedTrouble::Silent)]));
    assert!(words.contains("no member of prod answers: asked 10.0.0.8:500"), "{words}");
    assert!(words.ends_with("By the clock of this host the token expired 2h ago"), "{words}");
}

/// A token that nobody has made, or that is of another cluster: the members do not know its key.
#[test]
fn a_token_of_another_cluster_is_not_taken() {
    let (roster, lines) = cluster(2);
    let mut world = World::new(10, &roster, &lines);
    world.invite(&any(3), 3);
    world.run(5 * SECOND);
    let other = token(&roster, &any(99), 99, &[0, 1]);
    world.join(9, other);
    world.finish(20 * SECOND);
    let (kind, words) = world.refusal();
    let trouble = SeedTrouble::TokenNotTaken;
    assert_eq!(kind, JoinErrorKind::NoMember(vec![(at(0), trouble.clone()), (at(1), trouble)]));
    assert!(words.starts_with("the token is not known at 10.0.0.1:500, 10.0.0.2:500: it is of"), "{words}");
}

/// Wherever it dies, and as often as it does, it joins with the same keys at last, and once.
#[test]
fn it_dies_at_any_moment_and_begins_again() {
    for died in 1..40 {
        let (roster, lines) = cluster(2);
        let mut world = World::new(14, &roster, &lines);
        world.run(5 * SECOND);
        world.invite(&any(3), 3);
        world.run(SECOND);
        let order = |world: &World| token(world.hosts[0].member.roster(), &any(3), 3, &[0, 1]);
        let first = order(&world);
        world.join(9, first);
        let end = |world: &World| world.guests[0].came >= died || world.guests[0].outcome.is_some();
        assert!(world.run_until(10 * SECOND, end));
        let over = world.guests[0].outcome.is_some();
        world.guests.clear();
        let again = order(&world);
        world.join(9, again);
        world.finish(30 * SECOND);
        assert!(world.outcome().is_ok(), "{died}: {}", world.refusal().1);
        world.run(SECOND);
        assert_eq!(world.names(), ["n0", "n1", "n9"], "{died}");
        if over {
            return;
        }
    }
    panic!("it never came to an end");
}

/// It was admitted, the answer was lost, and it begins again under another name: the token is used.
#[test]
fn it_cannot_become_another_node_meanwhile() {
    let (roster, lines) = cluster(1);
    let mut world = World::new(15, &roster, &lines);
    world.invite_and_join(3, &[0]);
    let known = |world: &World| world.names().len() == 2;
    assert!(world.run_until(5 * SECOND, known));
    world.guests.clear();
    let other = token(world.hosts[0].member.roster(), &any(3), 3, &[0]);
    world.join_as(3, other, site(4), 3);
    world.finish(20 * SECOND);
    assert_eq!(code(&world), RefusalCode::TokenUsed);
    assert_eq!(world.names(), ["n0", "n3"]);
}

/// What is told was written before: a member that dies between both has admitted nobody, or everybody knows it.
#[test]
fn a_member_dies_between_writing_and_telling() {
    for written in [false, true] {
        let (roster, lines) = cluster(1);
        let mut world = World::new(16, &roster, &lines);
        world.writing = 1000 * SECOND;
        world.invite_and_join(3, &[0]);
        world.run(5 * SECOND);
        assert_eq!(world.hosts[0].signed(), 1, "it is signed");
        assert_eq!(world.names(), ["n0"], "and counts nowhere");
        assert!(world.guests[0].outcome.is_none(), "nor is it told");
        // Nor is it to whoever comes again.
        let again = token(world.hosts[0].member.roster(), &any(3), 3, &[0]);
        world.guests.clear();
        world.join(3, again);
        world.run(10 * SECOND);
        assert!(world.guests[0].outcome.is_none());
        if written {
            world.hosts[0].write();
        }
        world.writing = MILLISECOND;
        world.restart(0);
        world.finish(120 * SECOND);
        assert!(world.outcome().is_ok(), "{written}: {}", world.refusal().1);
        assert_eq!(world.names(), ["n0", "n3"]);
    }
}

#[test]
fn many_join_at_once_and_each_is_let_in_at_last() {
    let (roster, lines) = cluster(2);
    let mut world = World::new(17, &roster, &lines);
    world.run(5 * SECOND);
    for seed in 10..40 {
        world.invite(&any(seed), seed);
    }
    world.run(SECOND);
    for at in 10..40 {
        let seed = u8::try_from(at).unwrap();
        let token = token(world.hosts[0].member.roster(), &any(seed), seed, &[0, 1]);
        world.join(at, token);
    }
    world.finish(60 * SECOND);
    for guest in &world.guests {
        assert!(guest.outcome.as_ref().unwrap().is_ok(), "{:?}", guest.outcome);
    }
    world.run(20 * SECOND);
    assert_eq!(world.names().len(), 32);
}

/// What one signs may be in the way of the next: they come one after the other, and none waits for long.
#[test]
fn of_two_that_want_the_same_at_once_one_is_let_in() {
    let (roster, lines) = cluster(1);
    let mut world = World::new(23, &roster, &lines);
    world.writing = 500 * MILLISECOND;
    for seed in [2, 3, 4] {
        world.invite(&any(seed), seed);
    }
    world.run(SECOND);
    for (host, name) in [(2, 2), (3, 2), (4, 4)] {
        let seed = u8::try_from(host).unwrap();
        let token = token(&roster, &any(seed), seed, &[0]);
        let site = Site { name: site(name).name, ..site(host) };
        world.join_as(host, token, site, host);
    }
    let begun = world.now;
    world.finish(20 * SECOND);
    assert!(world.now - begun < 1500 * MILLISECOND, "{:?}", world.now - begun);
    let joined: Vec<bool> = world.guests.iter().map(|it| it.outcome.as_ref().unwrap().is_ok()).collect();
    assert!(joined[2] && joined[0] != joined[1], "{joined:?}");
    assert_eq!(world.names(), ["n0", "n2", "n4"]);
}

/// It goes on although those whom it has let in do not talk to it yet.
#[test]
fn the_first_node_lets_in_one_after_the_other() {
    let (roster, lines) = cluster(1);
    let mut world = World::new(28, &roster, &lines);
    for at in 3..6 {
        world.invite_and_join(at, &[0]);
        world.finish(5 * SECOND);
        assert!(world.outcome().is_ok(), "{at}: {}", world.refusal().1);
    }
    assert_eq!(world.names(), ["n0", "n3", "n4", "n5"]);
}

/// After a start it may know what an older backup knew.
#[test]
fn a_member_that_has_heard_nobody_lets_nobody_in() {
    let (roster, lines) = cluster(2);
    let mut world = World::new(27, &roster, &lines);
    world.cut.insert((0, 1));
    world.invite_and_join(3, &[0]);
    world.run(30 * SECOND);
    assert!(world.guests[0].outcome.is_none());
    assert_eq!(world.hosts[0].signed(), 0);
    world.cut.clear();
    world.finish(30 * SECOND);
    assert!(world.outcome().is_ok(), "{}", world.refusal().1);
    world.cut.insert((0, 1));
    world.restart(0);
    world.invite_and_join(4, &[0]);
    world.finish(100 * SECOND);
    assert_eq!(code(&world), RefusalCode::NotReady);
    assert!(world.refusal().1.contains("has heard no other one since its start"), "{}", world.refusal().1);
}

#[test]
fn who_cannot_be_written_down_is_not_let_in_until_he_can() {
    let (roster, lines) = cluster(1);
    let mut world = World::new(24, &roster, &lines);
    world.hosts[0].refuses_writes = true;
    world.invite_and_join(3, &[0]);
    world.run(30 * SECOND);
    assert!(world.guests[0].outcome.is_none());
    assert_eq!(world.names(), ["n0"]);
    world.hosts[0].refuses_writes = false;
    world.finish(5 * SECOND);
    assert!(world.outcome().is_ok());
    assert_eq!(world.names(), ["n0", "n3"]);
}

/// What is not admitted does not stand in the roster, whoever has told it.
#[test]
fn an_entry_that_was_refused_leaves_no_trace() {
    let (roster, lines) = cluster(1);
    let mut world = World::new(18, &roster, &lines);
    world.invite(&any(3), 3);
    world.run(SECOND);
    let before: Vec<_> = world.hosts[0].member.roster().ids().collect();
    let taken = token(&roster, &any(3), 3, &[0]);
    world.join_as(3, taken, site(0), 3);
    world.finish(20 * SECOND);
    let (kind, words) = world.refusal();
    let [name, free] = ["n0", "n0-2"].map(|name| name.parse().unwrap());
    assert_eq!(kind, JoinErrorKind::NameTaken { name, free: Some(free) });
    assert!(
        words.contains("another node of prod is called n0") && words.ends_with("`--node n0-2`"),
        "{words}"
    );
    assert!(world.hosts[0].member.roster().ids().eq(before));
    let good = token(&roster, &any(3), 3, &[0]);
    world.join(3, good);
    world.finish(20 * SECOND);
    assert!(world.outcome().is_ok(), "the token is still good");
}

#[test]
fn it_joins_two_hundred_nodes_over_a_bad_network() {
    let (roster, lines) = cluster(200);
    // A member that talks to the first one: not all talk to each other.
    let mut ring = lines.clone();
    ring.sort_unstable();
    let first = ring.iter().position(|line| *line == lines[0]).unwrap();
    let near = lines.iter().position(|line| *line == ring[(first + 1) % 200]).unwrap();
    for loss in [0, 10] {
        let mut world = World::new(19, &roster, &lines[..1]);
        world.add(near, copy(&roster), lines[near], near);
        world.run(5 * SECOND);
        (world.loss, world.twice) = (loss, 10);
        world.invite(&any(9), 9);
        world.run(SECOND);
        let token = token(&roster, &any(9), 9, &[0, near]);
        world.join_as(220, token, site(220), 220);
        let begun = world.now;
        world.finish(600 * SECOND);
        assert!(world.outcome().is_ok(), "{loss}: {}", world.refusal().1);
        eprintln!("200 nodes, {loss} % lost: {:?}", world.now - begun);
        assert_eq!(world.outcome().as_ref().unwrap().roster.view().members.len(), 201);
    }
}

/// A cluster of member 0 whose roster is as large as can be.
fn large() -> (Roster, Vec<EntryId>) {
    let (mut roster, lines) = cluster(1);
    let [signing, _] = keys(0);
    let entries: Vec<SignedEntry> = (0..1000_u32)
        .map(|at| {
            let [_, _, a, b] = at.to_be_bytes();
            let addresses = (0..200).map(|last| [172 + a, b, 0, last].into()).collect();
            let site =
                Site { name: format!("f{at}").parse().unwrap(), addresses, inside: Default::default() };
            let says = Saying::Node(Listed { line: None, site, foreign: true, ike: None });
            let by = Signer::of(&signing).unwrap();
            let version = Version(1, 0);
            let statement = Statement { by, version, after: Vec::new(), basis: None, says };
            sign(roster.cluster(), statement, &[&signing])
        })
        .collect();
    let mut octets = 0;
    let fits = entries.iter().take_while(|entry| {
        octets += entry.octets().len();
        octets < (4 << 20) - (300 << 10)
    });
    let merged = roster.merge(fits.map(SignedEntry::octets));
    assert!(merged.refused.is_empty() && merged.taken > 800, "{merged:?}");
    (roster, lines)
}

#[test]
fn the_largest_roster_gets_through() {
    let (roster, lines) = large();
    let mut world = World::new(20, &roster, &lines);
    world.invite(&any(9), 9);
    world.run(SECOND);
    let token = token(&roster, &any(9), 9, &[0]);
    world.join(9, token);
    let begun = world.now;
    world.finish(200 * SECOND);
    assert!(world.outcome().is_ok(), "{}", world.refusal().1);
    eprintln!("{} entries: {:?}", world.hosts[0].member.roster().ids().count(), world.now - begun);
}
