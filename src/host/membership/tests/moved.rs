//! Members that have moved, and others at the addresses that they had.

use std::collections::BTreeSet;

use super::super::pair;
use super::*;
use crate::roster::Listed;

impl Land {
    /// Member 0 says that another one is at this address now. Its host has it besides.
    fn relocate(&mut self, (at, line): (usize, EntryId), to: IpAddr) {
        let site = Site { addresses: vec![to], ..site(at) };
        self.say(0, Saying::Node(Listed { line: Some(line), site, foreign: false, ike: None }));
        let node = self.nodes.iter_mut().find(|node| node.at == at);
        node.into_iter().for_each(|node| node.addresses.push(to));
    }

    /// Whether member `at` of the land talks to that one, or to whoever it takes for it.
    fn talks(&self, at: usize, line: EntryId) -> bool {
        self.nodes[at].member.reached().any(|reached| reached == line)
    }
}

/// Both were at one address, one after the other. Who comes back there is not the other one, and hears of its move where
/// it is by now.
#[test]
fn of_two_with_one_former_address_neither_is_taken_for_the_other() {
    for (first, second) in [(1, 2), (2, 1)] {
        let (roster, lines) = cluster(3);
        let mut land = Land::new(21, &roster, &lines);
        land.run(5 * SECOND);
        let former = address(first);
        land.relocate((first, lines[first]), address(10 + first));
        assert!(land.run_until(30 * SECOND, |land| land.is_one() && land.talks(0, lines[first])));
        land.cut = vec![first];
        land.nodes[first].addresses.clear();
        land.relocate((second, lines[second]), former);
        land.run(30 * SECOND);
        // It does not hear that it has moved on.
        land.cut.push(second);
        land.relocate((second, lines[second]), address(10 + second));
        land.nodes[second].addresses = vec![former];
        land.run(30 * SECOND);
        assert!(!land.talks(0, lines[first]) && !land.talks(0, lines[second]));
        land.cut = vec![first];
        let end = land.now + 60 * SECOND;
        while land.now < end {
            land.step(end);
            assert!(!land.talks(0, lines[first]), "who is away is taken for somebody");
        }
        let now = land.now;
        let Node { addresses, engine, member, .. } = &mut land.nodes[second];
        *addresses = vec![address(10 + second)];
        member.handle_here(now, engine, &addresses.iter().copied().collect());
        let hears = |land: &Land| {
            assert!(!land.talks(0, lines[first]), "who is away is taken for somebody");
            land.nodes[second].member.roster().id() == land.nodes[0].member.roster().id()
                && land.talks(0, lines[second])
        };
        assert!(land.run_until(300 * SECOND, hears));
    }
}

/// One is removed and still told so, and another one gets its address at that time.
#[test]
fn who_comes_to_the_address_of_one_that_is_out_is_not_taken_for_it() {
    let (roster, lines) = cluster(3);
    let mut land = Land::new(22, &roster, &lines);
    land.run(5 * SECOND);
    land.cut = vec![1];
    land.nodes[1].addresses.clear();
    // It is told something, and does not answer.
    land.say(0, on());
    assert!(land.run_until(60 * SECOND, |land| !land.talks(0, lines[1])));
    land.say(0, Saying::Gone(Gone { of: lines[1], kept: Vec::new(), compromised: false }));
    land.relocate((2, lines[2]), address(1));
    let is_there = |land: &Land| {
        assert!(!land.talks(0, lines[1]));
        let place = Pair { local: address(0), remote: address(1) };
        land.nodes[0].engine.control(place, ike::Purpose::Control).is_some_and(|it| it.sessions > 0)
            && land.talks(0, lines[2])
    };
    assert!(land.run_until(60 * SECOND, is_there));
}

/// However often nodes move, and whatever addresses they have had.
#[test]
fn what_is_tried_besides_the_place_of_a_member_is_bounded_and_both_ends_try_the_same() {
    let (mut roster, lines) = cluster(2);
    let last = 12;
    for moves in 1..=last {
        for at in [0, 1] {
            let of = |low: u8| IpAddr::from([10, 1 + u8::try_from(at).unwrap(), moves, low]);
            let site = Site { addresses: (1..60).map(of).collect(), ..site(at) };
            let listed = Listed { line: Some(lines[at]), site, foreign: false, ike: None };
            let entry = said(&roster, 0, Saying::Node(listed));
            assert_eq!(roster.merge([entry.octets()]).taken, 1);
        }
    }
    let formerly = |at: u8| (last - 4..last).map(move |moves| IpAddr::from([10, 1 + at, moves, 1])).collect();
    let members = [0, 1].map(|at| roster.view().member(lines[at]).unwrap().clone());
    assert_eq!([0, 1].map(|at: usize| members[at].formerly.clone()), [formerly(0), formerly(1)]);
    let mut land = Land::new(23, &roster, &lines);
    let detours = |land: &Land, at: usize| {
        let member = &land.nodes[at].member;
        member.detours(&members[at], &members[1 - at], &member.strays())
    };
    let (one, other) = (detours(&land, 0), detours(&land, 1));
    assert_eq!(one.len(), 16);
    let seen_from_there = |it: &Pair| Pair { local: it.remote, remote: it.local };
    assert_eq!(other.iter().map(seen_from_there).collect::<BTreeSet<_>>(), one);
    // Who was renumbered calls from there in the first place.
    let here: BTreeSet<IpAddr> = (1..100).map(|low| IpAddr::from([10, 9, 0, low])).collect();
    let node = &mut land.nodes[1];
    node.member.handle_here(land.now, &mut node.engine, &here);
    let place = pair(&members[1], &members[0]).unwrap();
    let called: BTreeSet<Pair> = here.iter().take(8).map(|local| Pair { local: *local, ..place }).collect();
    assert!(detours(&land, 1).is_superset(&called) && detours(&land, 1).len() == 16);
}

/// The member has not come to its new address yet, and its copy calls from another one that it had. The first machine was
/// paused.
#[test]
fn a_copy_at_another_former_address_is_named_as_soon_as_the_first_machine_is_back() {
    let (roster, lines) = cluster(2);
    let mut land = Land::new(24, &roster, &lines);
    land.run(5 * SECOND);
    for to in [11, 12] {
        land.relocate((1, lines[1]), address(to));
        land.nodes[1].addresses = vec![address(1)];
        land.run(60 * SECOND);
    }
    assert!(land.is_one() && land.talks(0, lines[1]));
    let entries = land.nodes[0].member.roster().in_order();
    let entries: Vec<Vec<u8>> = entries.map(|entry| entry.octets().to_vec()).collect();
    let mut kept = Roster::found(&entries[0]).unwrap();
    kept.merge(entries.iter().map(Vec::as_slice));
    let (machine, _) = start(1);
    land.add(1, &kept, lines[1], (machine, [77; 16]));
    land.nodes[2].addresses = vec![address(11)];
    land.nodes[1].addresses.clear();
    assert!(land.run_until(12 * SECOND, |land| land.nodes[2].member.has(lines[0]).is_some()));
    land.nodes[1].addresses = vec![address(1)];
    let is_named = |land: &Land| land.nodes[0].member.duplicates(land.now).eq([lines[1]]);
    assert!(!is_named(&land));
    assert!(land.run_until(60 * SECOND, is_named));
}
