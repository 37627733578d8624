//! What a member can make others keep.

use super::people::{Town, keys, on, set, sign, statement};
use crate::roster::{ENTRY_MAX, KEYS_MAX, NotTaken, ROSTER_MAX, Saying};

#[test]
fn of_a_member_that_says_the_same_all_the_time_little_is_kept() {
    let mut town = Town::of(&["a", "b"]);
    let before = town.roster.ids().count();
    for n in 1..200 {
        let entry = sign(town.roster.cluster(), statement("b", (0, n), on()), &["b"]);
        town.take(entry);
    }
    assert!(town.roster.ids().count() <= before + 2);
    assert_eq!(town.roster.view().desired.as_ref().unwrap().version.1, 199);
}

/// Whoever has heard all of it, in whatever order, has kept the same.
#[test]
fn what_is_kept_of_it_does_not_depend_on_the_order() {
    let (mut one, mut other) = (Town::of(&["a", "b"]), Town::of(&["a", "b"]));
    let entries: Vec<Vec<u8>> =
        (1..20).map(|n| sign(one.roster.cluster(), statement("b", (0, n), on()), &["b"])).collect();
    entries.iter().for_each(|entry| drop(one.take(entry.clone())));
    entries.iter().rev().for_each(|entry| drop(other.take(entry.clone())));
    assert_eq!(one.roster.id(), other.roster.id());
}

#[test]
fn a_member_changes_its_keys_so_often_and_no_more() {
    let mut town = Town::of(&["a", "b"]);
    let name = |at: u32| if at == 0 { "b".to_owned() } else { format!("b{at}") };
    for at in 0..KEYS_MAX + 5 {
        let (this, next) = (name(at), name(at + 1));
        let entry = statement(&this, (0, 0), Saying::Keys(keys(&next)));
        let entry = sign(town.roster.cluster(), entry, &[&this, &next, &format!("{next} ike")]);
        assert_eq!(town.take(entry).taken, usize::from(at < KEYS_MAX), "{at}");
    }
    assert_eq!(town.member("b").unwrap().keys, Some(keys(&name(KEYS_MAX))));
}

#[test]
fn entries_and_rosters_have_an_end_and_there_is_room_to_take_out_who_has_filled_it() {
    let mut town = Town::of(&["a", "b"]);
    town.set_admin("a", "b", true);
    let refused = town.fill("b", "flood");
    assert!(refused[&NotTaken::Full] > 0);
    let octets: usize = town.roster.in_order().map(|entry| entry.octets().len()).sum();
    assert!(octets <= ROSTER_MAX);
    town.throw_out("a", "b");
    assert_eq!(town.names(), ["a"]);
    // What it has filled it with is gone with it.
    town.say("a", set("x"));
    let long = statement("a", (9, 0), set(&"#".repeat(ENTRY_MAX)));
    assert!(
        crate::roster::SignedEntry::sign(town.roster.cluster(), long, &[&super::people::key("a")]).is_err()
    );
    assert_eq!(town.take(vec![1; ENTRY_MAX + 1]).refused[&NotTaken::TooLong], 1);
}
