//! Somebody lies in a member's place, or says to a member what he likes.

use std::net::SocketAddr;

use super::super::{JoinErrorKind, JoinStep, SeedTrouble};
use super::at;
use super::world::{SECOND, Says, World, any, copy, token};
use crate::host::membership::tests::{NOW, address, cluster, keys, sign, site};
use crate::identity::PrivateKey;
use crate::roster::{EntryId, JoinPage, JoinRefusal, RefusalCode, Roster, Saying, Signer};

/// Somebody who knows the key of the token answers with a roster that he has founded himself.
#[test]
fn a_roster_of_another_cluster_is_not_believed() {
    let (roster, lines) = cluster(1);
    let mut world = World::new(11, &roster, &lines);
    world.invite(&any(3), 3);
    let [signing, ike] = keys(50);
    let recovery = PrivateKey::from_seed(&[98; 32]).unwrap();
    let mut other = Roster::of_new_cluster("prod", site(50), [&signing, &ike], &recovery).unwrap();
    let by = Signer::of(&signing).unwrap();
    let statement = other.draft(by, Saying::Invite(any(3)), NOW).unwrap();
    let stolen = PrivateKey::from_seed(&[3; 32]).unwrap();
    let invite = sign(other.cluster(), statement, &[&signing, &stolen]);
    assert_eq!(other.merge([invite.octets()]).taken, 1);
    let own = other.cluster().into();
    world.add(50, other, own, 50);
    world.run(SECOND);
    for good in [None, Some(0)] {
        let seeds: Vec<usize> = [50].into_iter().chain(good).collect();
        let token = token(&roster, &any(3), 3, &seeds);
        world.join(9, token);
        world.finish(20 * SECOND);
        match good {
            Some(_) => assert!(world.outcome().is_ok(), "the next seed is a member"),
            None => {
                let (kind, words) = world.refusal();
                let seeds = vec![(at(50), SeedTrouble::OtherCluster)];
                assert_eq!(kind, JoinErrorKind::NoMember(seeds));
                assert!(words.contains("is of another cluster than prod"), "{words}");
            }
        }
    }
}

/// It has the true roster, and no key of a member: a removed node that kept a copy, or who has stolen a disk image.
#[test]
fn who_answers_in_a_members_place_is_found_out() {
    let (roster, lines) = cluster(2);
    let mut world = World::new(12, &roster, &lines);
    world.invite(&any(3), 3);
    world.run(5 * SECOND);
    let stolen = copy(world.hosts[0].member.roster());
    world.add(50, stolen, lines[1], 60);
    let before = world.hosts[0].member.roster().id();
    let bad = token(&roster, &any(3), 3, &[50]);
    world.join(9, bad);
    world.finish(20 * SECOND);
    let (kind, words) = world.refusal();
    assert_eq!(kind, JoinErrorKind::NoMember(vec![(at(50), SeedTrouble::NoMember)]));
    assert!(words.contains("who is no member of prod") && words.contains("10.0.0.51:500"), "{words}");
    let steps = &world.guests[0].steps;
    assert!(!steps.iter().any(|step| matches!(step, JoinStep::Joins(_))), "it is not shown what joins");
    assert_eq!(world.hosts[0].member.roster().id(), before);
    // Beside a member it costs a moment.
    let both = token(&roster, &any(3), 3, &[50, 0]);
    world.join(9, both);
    world.finish(2 * SECOND);
    assert!(world.outcome().is_ok());
}

/// A member that was cut off has a key of a member, and does not know who was removed since then.
#[test]
fn a_roster_that_is_older_than_the_token_is_not_enough() {
    let (roster, lines) = cluster(3);
    let mut world = World::new(13, &roster, &lines);
    world.run(5 * SECOND);
    world.cut.extend([(2, 0), (2, 1)]);
    world.invite(&any(3), 3);
    world.run(SECOND);
    let stale = token(&roster, &any(3), 3, &[2]);
    world.join(9, stale);
    world.finish(100 * SECOND);
    assert!(world.outcome().is_err());
    let both = token(&roster, &any(3), 3, &[2, 1]);
    world.join(8, both);
    world.finish(20 * SECOND);
    assert!(world.outcome().is_ok());
}

/// Somebody with a good token says all that can be said, as fast as it is heard: it costs the member so many pages a
/// second, changes nothing, and keeps nobody out.
#[test]
fn whoever_floods_a_member_with_a_token_costs_little_and_keeps_nobody_out() {
    let (roster, lines) = cluster(2);
    let mut world = World::new(21, &roster, &lines);
    for seed in [3, 4] {
        world.invite(&any(seed), seed);
    }
    world.run(5 * SECOND);
    let before = world.hosts[0].member.roster().id();
    let mut count = 0_u32;
    world.stray(9, 3, 0, move |_| {
        count += 1;
        let [a, b, c, d] = count.to_be_bytes();
        Some(match count % 4 {
            0 => JoinPage::Ask { join: EntryId::new([d; 32]), after: Some(EntryId::new([c; 32])) }
                .octets(count),
            1 => JoinPage::Admitted(vec![vec![a, b, c, d]]).octets(count),
            2 => vec![1, 2, a, b, c, d, 1, 7, 9],
            _ => vec![1, d, c, b, a],
        })
    });
    world.run(20 * SECOND);
    let stranger = &world.strangers[0];
    assert!((1..=128 + 20 * 32).contains(&stranger.heard), "{}", stranger.heard);
    assert_eq!(world.hosts[0].member.roster().id(), before);
    let token = token(world.hosts[0].member.roster(), &any(4), 4, &[0]);
    world.join(8, token);
    world.finish(5 * SECOND);
    assert!(world.outcome().is_ok());
    assert!(world.hosts[0].engine.counters().joiners <= 2);
}

/// Whoever answers in a member's place can say what it likes: who joins comes to an end, and says what it has seen.
#[test]
fn whoever_lies_in_a_members_place_is_found_out_whatever_it_says() {
    let (roster, _) = cluster(1);
    let genesis = roster.in_order().next().unwrap().octets().to_vec();
    // As short as an entry can be, in the order of their names.
    let mut junk: Vec<Vec<u8>> =
        (0..60_000_u32).map(|at| [&[1, 0][..], &at.to_be_bytes()].concat()).collect();
    let label: Vec<u8> = [b"hostseal roster entry, version 1", &roster.cluster().octets()[..]].concat();
    junk.sort_by_cached_key(|entry| {
        use sha2::{Digest as _, Sha256};
        <[u8; 32]>::from(Sha256::digest([&label, &entry[2..]].concat()))
    });
    let entries = |entries: Vec<Vec<u8>>, more| JoinPage::Entries { entries, more };
    let first = entries(vec![genesis.clone()], true);
    let mut number = 0;
    let mut page = {
        let first = first.clone();
        move |after: usize| {
            number += 1;
            match after {
                0 => first.octets(number),
                at => {
                    let entries: Vec<Vec<u8>> = junk.iter().skip(500 * (at - 1)).take(500).cloned().collect();
                    JoinPage::Entries { entries, more: true }.octets(number)
                }
            }
        }
    };
    let mut at = 0;
    let endless: Says = Box::new(move |came| {
        came?;
        at += 1;
        Some(page(at - 1))
    });
    let once = |page: JoinPage| -> Says {
        let mut number = 0;
        Box::new(move |came| {
            number += 1;
            came.map(|_| page.octets(number))
        })
    };
    let refusal = JoinRefusal { code: RefusalCode::TokenUsed, words: "\u{1b}[31mno".to_owned() };
    let cases: Vec<(Says, SeedTrouble)> = vec![
        (endless, SeedTrouble::Nonsense),
        (once(entries(Vec::new(), false)), SeedTrouble::Nonsense),
        (once(entries(vec![vec![7; 99]], true)), SeedTrouble::OtherCluster),
        (once(entries(vec![genesis.clone(), vec![2, 9]], true)), SeedTrouble::LaterEntries),
        (once(entries(vec![genesis], false)), SeedTrouble::NoMember),
        (once(JoinPage::Admitted(vec![vec![1, 0, 3]])), SeedTrouble::StoppedAnswering),
        (once(first), SeedTrouble::StoppedAnswering),
        (
            once(JoinPage::Refused(refusal)),
            SeedTrouble::Refused(JoinRefusal { code: RefusalCode::TokenUsed, words: "[31mno".to_owned() }),
        ),
        (Box::new(|came| came.map(<[u8]>::to_vec)), SeedTrouble::StoppedAnswering),
        (Box::new(|_| None), SeedTrouble::StoppedAnswering),
    ];
    for (at, (says, expected)) in cases.into_iter().enumerate() {
        let mut world = World::new(22, &roster, &[]);
        world.stray_member(50, &[3], says, 1);
        let token = token(&roster, &any(3), 3, &[50]);
        world.join(9, token);
        world.finish(1000 * SECOND);
        let (kind, words) = world.refusal();
        assert_eq!(
            kind,
            JoinErrorKind::NoMember(vec![(SocketAddr::new(address(50), 500), expected)]),
            "{at}"
        );
        assert!(words.contains("10.0.0.51:500") && !words.contains('\u{1b}'), "{words}");
    }
}

/// Both versions are named, and nothing is said to who has another one.
#[test]
fn who_speaks_another_version_is_told_from_who_lies() {
    let (roster, _) = cluster(1);
    let mut world = World::new(25, &roster, &[]);
    world.stray_member(50, &[3], |_| None, 2);
    let token = token(&roster, &any(3), 3, &[50]);
    world.join(9, token);
    world.finish(10 * SECOND);
    let (kind, words) = world.refusal();
    assert_eq!(kind, JoinErrorKind::NoMember(vec![(at(50), SeedTrouble::Version(Some(2)))]));
    assert!(words.contains("speaks version 2 of joining, and this host version 1"), "{words}");
    assert_eq!(world.strangers[0].heard, 0);
    // A member says so in its turn, should somebody go on in another version.
    let (roster, lines) = cluster(1);
    let mut world = World::new(26, &roster, &lines);
    world.invite(&any(3), 3);
    world.run(SECOND);
    let refusal = std::rc::Rc::new(std::cell::RefCell::new(None));
    let heard = refusal.clone();
    world.stray(9, 3, 0, move |came| {
        came.into_iter().for_each(|came| *heard.borrow_mut() = JoinPage::read(came).ok());
        Some(vec![2, 1, 0, 0, 0, 1])
    });
    world.run(5 * SECOND);
    let refusal = refusal.borrow();
    let Some(JoinPage::Refused(JoinRefusal { code, words })) = &*refusal else { panic!("{refusal:?}") };
    assert_eq!((*code, words.as_str()), (RefusalCode::Version, "this member speaks version 1, and not 2"));
}
