//! What people do with a cluster, one thing after the other.

use super::people::{NOW, Town, invite, key, keys, off, on, set, sign, signer, site, statement};
use crate::roster::{
    AddressBlock, Admission, Conflict, FloatingPlace, Gone, HeldOutBecause, IkeKey, Invite, Join, Listed,
    Matter, NotEntitled, Saying, SignedEntry,
};
use crate::types::{Block, UnixTime};

#[test]
fn a_cluster_begins_with_its_first_node_and_grows_by_tokens() {
    let town = Town::of(&["a", "b", "c"]);
    assert_eq!(town.names(), ["a", "b", "c"]);
    assert_eq!(town.admins(), ["a"]);
    assert_eq!(town.member("b").unwrap().keys, Some(keys("b")));
    assert_eq!(town.roster.view().cluster, "prod");
    assert!(town.roster.view().invites.is_empty(), "all were used");
    assert!(town.roster.view().held_out.is_empty() && town.roster.view().conflicts.is_empty());
}

#[test]
fn nobody_is_in_whom_no_member_has_admitted() {
    let mut town = Town::new();
    town.invite("a", "token", invite("token", "b"));
    let join = town.joining("token", "b", 2);
    town.take(join);
    assert_eq!(town.names(), ["a"]);
}

#[test]
fn any_node_turns_protection_on_and_admins_alone_turn_it_off() {
    let mut town = Town::of(&["a", "b"]);
    assert_eq!(town.is_on(), None);
    town.say("b", on());
    assert_eq!(town.is_on(), Some(true));
    let refused = town.roster.draft(signer("b"), off(), NOW);
    assert_eq!(refused, Err(NotEntitled::NoAdmin(vec!["a".to_owned()])));
    town.say("a", off());
    assert_eq!(town.is_on(), Some(false));
    town.say("b", on());
    town.say("b", on());
    assert_eq!(town.is_on(), Some(true));
    town.say("a", off());
    assert_eq!(town.is_on(), Some(false));
    assert_eq!(town.roster.view().conflicts, []);
}

#[test]
fn the_newest_settings_of_an_admin_count() {
    let mut town = Town::of(&["a", "b"]);
    town.say("a", set("one"));
    town.say("a", set("two"));
    assert_eq!(town.settings(), Some("two"));
    assert!(town.roster.draft(signer("b"), set("three"), NOW).is_err());
}

#[test]
fn of_two_commands_at_once_one_counts_everywhere_and_the_other_is_named() {
    let mut here = Town::of(&["a", "b", "c"]);
    here.set_admin("a", "b", true);
    here.say("c", on());
    let mut there = here.copy();
    here.say("a", off());
    there.say("c", on());
    there.say("b", set("there"));
    here.say("a", set("here"));
    here.meet(&mut there);
    // Nobody but an admin can outbid one.
    assert_eq!(here.is_on(), Some(false));
    let about: Vec<&Matter> = here.roster.view().conflicts.iter().map(|conflict| &conflict.about).collect();
    assert_eq!(about, [&Matter::Settings, &Matter::Desired]);
    let Conflict { winner, loser, .. } = here.roster.view().conflicts[0];
    assert_eq!(Some(winner), here.roster.view().settings.as_ref().map(|settings| settings.id));
    assert!(winner > loser, "chance, the same everywhere");
    // An admin settles both.
    here.say("a", set("both"));
    here.say("a", on());
    assert_eq!(here.roster.view().conflicts, []);
    there.meet(&mut here);
}

#[test]
fn of_two_admins_at_once_on_beats_off() {
    for first in ["a", "b"] {
        let mut here = Town::of(&["a", "b"]);
        here.set_admin("a", "b", true);
        let mut there = here.copy();
        here.say(first, on());
        there.say(if first == "a" { "b" } else { "a" }, off());
        here.meet(&mut there);
        assert_eq!(here.is_on(), Some(true), "{first}");
        assert_eq!(here.roster.view().conflicts.len(), 1);
    }
}

#[test]
fn a_token_is_good_for_one_node_and_two_are_both_out_until_an_admin_decides() {
    let mut town = Town::new();
    let invite_id = town.invite("a", "token", Invite { name: None, ..invite("token", "b") });
    let (first, second) = (town.joining("token", "b", 2), town.joining("token", "c", 3));
    for join in [&first, &second] {
        town.take(join.clone());
        town.admit("a", join);
    }
    assert_eq!(town.names(), ["a"]);
    assert!(town.roster.view().invites.is_empty(), "it is good for nobody else");
    let why: Vec<&HeldOutBecause> = town.roster.view().held_out.iter().map(|held| &held.why).collect();
    assert_eq!(why, [&HeldOutBecause::TokenUsedTwice; 2]);
    let mut by_hand = town.copy();
    let kept = vec![town.id_of(&second)];
    by_hand.say("a", Saying::Gone(Gone { of: invite_id, kept, compromised: false }));
    // The command says the same.
    for wrong in town.roster.removal(signer("a"), town.id_of(&first), false, NOW).unwrap() {
        let entry = sign(town.roster.cluster(), wrong, &["a"]);
        assert_eq!(town.take(entry).taken, 1);
    }
    for town in [town, by_hand] {
        assert_eq!(town.names(), ["a", "c"]);
        assert_eq!(town.roster.view().held_out, []);
    }
}

#[test]
fn a_token_gives_no_other_name_address_or_right_than_it_says() {
    let within = vec![AddressBlock(Block::new([10, 0, 0, 0].into(), 29).unwrap())];
    let bound = Invite { within, ..invite("token", "b") };
    let cases = [
        (bound.clone(), "b", 7, true),
        (bound.clone(), "b", 8, false),
        (bound.clone(), "c", 7, false),
        (Invite { addresses: vec![[10, 0, 0, 7].into()], ..bound.clone() }, "b", 6, false),
        (Invite { name: None, ..bound }, "c", 7, true),
    ];
    for (invite, name, last, joins) in cases {
        let mut town = Town::new();
        town.invite("a", "token", invite);
        let join = town.joining("token", name, last);
        assert_eq!(town.take(join.clone()).taken, usize::from(joins), "{name} {last}");
        if joins {
            let of = town.id_of(&join);
            town.say("a", Saying::Admission(Admission { of }));
            assert!(!town.member(name).unwrap().admin);
        }
    }
}

#[test]
fn a_node_that_joins_takes_no_name_address_or_key_of_another() {
    // A name and an address of a node that is there; an address that floats; another's keys cannot be signed for.
    let taken =
        [("b", 9, HeldOutBecause::NameTaken), ("x", 2, HeldOutBecause::AddressTaken([10, 0, 0, 2].into()))];
    let floating = ("x", 100, HeldOutBecause::AddressTaken([10, 0, 0, 100].into()));
    for (name, last, why) in taken.into_iter().chain([floating]) {
        let mut town = Town::of(&["a", "b"]);
        let (addresses, nodes) = (vec![[10, 0, 0, 100].into()], vec![town.line("a"), town.line("b")]);
        town.say("a", Saying::Floating(FloatingPlace { name: "vip".parse().unwrap(), addresses, nodes }));
        town.invite("a", "token", Invite { name: None, ..invite("token", "x") });
        let says = Saying::Join(Join { site: site(name, last), keys: keys("x") });
        let join = sign(town.roster.cluster(), statement("token", (0, 0), says), &["token", "x", "x ike"]);
        town.take(join.clone());
        town.admit("a", &join);
        assert_eq!(town.names(), ["a", "b"]);
        assert_eq!(town.roster.view().held_out[0].why, why);
        assert_eq!(town.member("b").unwrap().keys, Some(keys("b")));
    }
}

#[test]
fn an_older_invite_goes_before_a_newer_one_for_the_same_name() {
    let mut town = Town::new();
    for (token, last) in [("first", 2), ("second", 3)] {
        town.invite("a", token, invite(token, "b"));
        let node = format!("b of {token}");
        let says = Saying::Join(Join { site: site("b", last), keys: keys(&node) });
        let of = [token, node.as_str(), &format!("{node} ike")];
        let join = sign(town.roster.cluster(), statement(token, (0, 0), says), &of);
        town.take(join);
    }
    let is_join = |entry: &&SignedEntry| matches!(entry.statement().says, Saying::Join(_));
    let joins: Vec<_> = town.roster.in_order().filter(is_join).map(|join| join.octets().to_vec()).collect();
    joins.iter().for_each(|join| town.admit("a", join));
    assert_eq!(town.names(), ["a", "b"]);
    assert_eq!(town.member("b").unwrap().keys, Some(keys("b of first")));
}

#[test]
fn other_software_and_nodes_of_a_file_are_listed_and_join_later() {
    let mut town = Town::new();
    let listed = |name, last, foreign| {
        let ike = Some(IkeKey(key(name).public().clone()));
        Saying::Node(Listed { line: None, site: site(name, last), foreign, ike })
    };
    town.say("a", listed("swan", 2, true));
    let line = town.say("a", listed("old", 3, false));
    let swan = town.member("swan").unwrap();
    assert!(swan.foreign && swan.keys.is_none());
    assert_eq!(swan.listed_key, Some(IkeKey(key("swan").public().clone())));
    town.invite("a", "token", Invite { line: Some(line), ..invite("token", "old") });
    let join = town.joining("token", "old", 3);
    town.take(join.clone());
    let of = town.id_of(&join);
    town.say("a", Saying::Admission(Admission { of }));
    let old = town.member("old").unwrap();
    assert_eq!((old.line, &old.keys), (line, &Some(keys("old"))));
}

#[test]
fn a_node_moves_and_changes_its_keys() {
    let mut town = Town::of(&["a", "b"]);
    let line = town.line("b");
    let site = site("b", 22);
    town.say("a", Saying::Node(Listed { line: Some(line), site: site.clone(), foreign: false, ike: None }));
    let next = statement("b", (0, 0), Saying::Keys(keys("b2")));
    let next = sign(town.roster.cluster(), next, &["b", "b2", "b2 ike"]);
    assert_eq!(town.take(next).taken, 1);
    let b = town.member("b").unwrap();
    assert_eq!((&b.site, &b.keys), (&site, &Some(keys("b2"))));
    town.say("b2", on());
    // Whoever has had the old key cannot replace the new one unseen.
    let other = statement("b", (0, 0), Saying::Keys(keys("thief")));
    let other = sign(town.roster.cluster(), other, &["b", "thief", "thief ike"]);
    assert_eq!(town.take(other).taken, 1);
    assert_eq!(town.names(), ["a"]);
    assert_eq!(town.roster.view().held_out[0].why, HeldOutBecause::KeysForked);
}

#[test]
fn there_is_a_bound_on_open_tokens_and_expired_ones_are_not_open() {
    let mut town = Town::new();
    for at in 0..crate::roster::INVITES_MAX {
        let token = format!("token {at}");
        town.invite("a", &token, Invite { name: None, ..invite(&token, "x") });
    }
    let one_more = Saying::Invite(invite("one more", "x"));
    let draft = |now| town.roster.draft(signer("a"), one_more.clone(), now);
    assert_eq!(draft(NOW), Err(NotEntitled::TooManyInvites));
    assert!(draft(UnixTime(NOW.0 + 3601)).is_ok());
}

/// What is no entry of a node that joins is not admitted, whether it counts or not.
#[test]
fn nobody_drafts_an_admission_of_something_else() {
    let mut town = Town::of(&["a", "b"]);
    let settings = town.say("a", set("x"));
    for of in [town.line("a"), settings] {
        let draft = town.roster.draft(signer("b"), Saying::Admission(Admission { of }), NOW);
        assert_eq!(draft, Err(NotEntitled::NoNode));
    }
}
