//! Nodes that are taken out, and rights that are taken away.

use super::people::{NOW, Town, invite, keys, off, on, set, sign, signer, site, statement};
use crate::roster::{Gone, Join, Keys, NotEntitled, NotTaken, Rights, Saying};

#[test]
fn a_node_that_is_removed_is_out_for_good_and_what_it_said_before_stays() {
    let mut town = Town::of(&["a", "b", "c"]);
    town.say("b", on());
    town.remove("a", "b");
    assert_eq!(town.names(), ["a", "c"]);
    assert_eq!(town.is_on(), Some(true), "that it was kept");
    assert_eq!(town.roster.view().removed[0].site.name.as_str(), "b");
    // It says something else with its old key, and names what it knows.
    town.say("a", off());
    let basis = town.roster.view().desired.as_ref().map(|desired| desired.id);
    let late = crate::roster::Statement { basis, ..statement("b", (2, 9), on()) };
    town.take(sign(town.roster.cluster(), late, &["b"]));
    assert_eq!(town.is_on(), Some(false));
}

#[test]
fn a_removed_node_cannot_come_back_with_its_old_key() {
    let mut town = Town::of(&["a", "b"]);
    let removed = town.line("b");
    town.remove("a", "b");
    town.invite("a", "again", invite("again", "b"));
    let old = town.joining("again", "b", 2);
    town.take(old.clone());
    town.admit("a", &old);
    assert_eq!(town.names(), ["a"]);
    // With new keys and a new token it can, under its name.
    town.invite("a", "anew", invite("anew", "b"));
    let keys = Keys { signing: signer("b2"), ike: signer("b2 ike") };
    let says = Saying::Join(Join { site: site("b", 2), keys });
    let join = sign(town.roster.cluster(), statement("anew", (0, 0), says), &["anew", "b2", "b2 ike"]);
    town.take(join.clone());
    let of = town.id_of(&join);
    town.say("a", Saying::Admission(crate::roster::Admission { of }));
    assert_eq!(town.names(), ["a", "b"]);
    assert_ne!(town.line("b"), removed);
}

#[test]
fn an_older_backup_does_not_bring_a_removed_node_back() {
    let mut town = Town::of(&["a", "b", "c"]);
    let mut backup = town.copy();
    town.remove("a", "b");
    backup.meet(&mut town);
    assert_eq!(backup.names(), ["a", "c"]);
}

#[test]
fn a_node_leaves_by_itself_and_the_last_admin_does_not() {
    let mut town = Town::of(&["a", "b"]);
    let leave = |of| Saying::Gone(Gone { of, kept: Vec::new(), compromised: false });
    let (a, b) = (town.line("a"), town.line("b"));
    assert_eq!(town.roster.draft(signer("a"), leave(a), NOW), Err(NotEntitled::LastAdmin));
    assert!(matches!(town.roster.draft(signer("b"), leave(a), NOW), Err(NotEntitled::NoAdmin(_))));
    town.say("b", leave(b));
    assert_eq!(town.names(), ["a"]);
    // Somebody who says so nevertheless is not heard.
    let entry = sign(town.roster.cluster(), statement("a", (0, 0), leave(a)), &["a"]);
    town.take(entry);
    assert_eq!(town.names(), ["a"]);
}

#[test]
fn who_was_invited_by_an_admin_that_is_removed_stays() {
    let mut town = Town::of(&["a", "b"]);
    town.set_admin("a", "b", true);
    town.join("b", "c", 3, false);
    town.join("b", "d", 4, true);
    town.join("d", "e", 5, false);
    town.say("b", set("of b"));
    town.invite("b", "open", invite("open", "x"));
    town.remove("a", "b");
    assert_eq!(town.names(), ["a", "c", "d", "e"]);
    assert_eq!(town.admins(), ["a", "d"]);
    assert_eq!(town.settings(), Some("of b"));
    assert!(town.roster.view().invites.is_empty(), "nobody joins by its tokens any more");
    // What it signs from now on is nothing to anybody.
    let forged = sign(town.roster.cluster(), statement("b", (9, 0), set("forged")), &["b"]);
    town.take(forged);
    assert_eq!(town.settings(), Some("of b"));
}

#[test]
fn who_loses_its_rights_keeps_what_it_did_with_them() {
    let mut town = Town::of(&["a", "b"]);
    town.set_admin("a", "b", true);
    town.join("b", "c", 3, false);
    town.say("b", set("of b"));
    town.set_admin("a", "b", false);
    assert_eq!((town.names(), town.admins()), (vec!["a", "b", "c"], vec!["a"]));
    assert_eq!(town.settings(), Some("of b"));
    assert!(town.roster.draft(signer("b"), set("more"), NOW).is_err());
    let forged = sign(town.roster.cluster(), statement("b", (9, 0), set("forged")), &["b"]);
    town.take(forged);
    assert_eq!(town.settings(), Some("of b"));
    town.set_admin("a", "b", true);
    town.say("b", set("again"));
    assert_eq!(town.settings(), Some("again"));
}

#[test]
fn of_two_admins_that_remove_each_other_the_more_senior_stays() {
    let mut here = Town::of(&["a", "b", "c"]);
    here.set_admin("a", "b", true);
    here.set_admin("b", "c", true);
    let mut there = here.copy();
    here.remove("a", "b");
    there.remove("b", "a");
    there.remove("c", "b");
    here.meet(&mut there);
    assert_eq!(here.names(), ["a", "c"]);
}

/// A junior admin can take out a senior one whose key was stolen, and stays an admin by what that one once said.
#[test]
fn a_junior_admin_removes_a_senior_one_and_stays_what_it_is() {
    let mut town = Town::of(&["a", "b", "c"]);
    town.set_admin("a", "b", true);
    // Even where nothing of the other is kept.
    let of = town.line("a");
    town.say("b", Saying::Gone(Gone { of, kept: Vec::new(), compromised: true }));
    assert_eq!(town.admins(), ["b"]);
    assert!(town.roster.view().removed[0].compromised);
    town.say("b", set("on its own"));
    assert_eq!(town.settings(), Some("on its own"));
}

#[test]
fn the_recovery_key_outranks_all_and_does_nothing_else() {
    let mut town = Town::of(&["a", "b"]);
    let mut there = town.copy();
    let (a, b) = (town.line("a"), town.line("b"));
    town.say("recovery", Saying::Rights(Rights { of: b, admin: true, kept: Vec::new() }));
    let gone = town.roster.removal(signer("recovery"), a, true, NOW).unwrap();
    for gone in gone {
        let entry = sign(town.roster.cluster(), gone, &["recovery"]);
        town.take(entry);
    }
    there.remove("a", "b");
    there.meet(&mut town);
    assert_eq!((there.names(), there.admins()), (vec!["b"], vec!["b"]));
    let settings = sign(there.roster.cluster(), statement("recovery", (9, 0), set("x")), &["recovery"]);
    assert_eq!(there.take(settings).refused[&NotTaken::NotEntitled], 1);
}

/// Whoever had its key later could say so again, and keep what it likes.
#[test]
fn what_a_node_says_about_its_own_rights_is_nothing() {
    let mut town = Town::of(&["a", "b", "c"]);
    let last = town.roster.rights(signer("a"), town.line("a"), false, NOW);
    assert_eq!(last, Err(NotEntitled::LastAdmin), "and not a list of nobody");
    town.set_admin("a", "b", true);
    let own = |of, admin, kept| Saying::Rights(Rights { of, admin, kept });
    let a = town.line("a");
    let refused = town.roster.draft(signer("a"), own(a, false, Vec::new()), NOW);
    assert_eq!(refused, Err(NotEntitled::OwnRights(vec!["b".to_owned()])));
    town.take(sign(town.roster.cluster(), statement("a", (1, 1 << 40), own(a, false, Vec::new())), &["a"]));
    assert_eq!(town.admins(), ["a", "b"]);
    town.set_admin("a", "c", true);
    assert_eq!(town.admins(), ["a", "b", "c"]);
    // Nor does one that has lost them give itself what it says then.
    town.set_admin("a", "b", false);
    let settings = sign(town.roster.cluster(), statement("b", (9, 0), set("forged")), &["b"]);
    town.take(settings.clone());
    let b = town.line("b");
    for admin in [false, true] {
        let kept = town.roster.ids().collect::<Vec<_>>().into_iter().rev().take(40).collect();
        town.take(sign(town.roster.cluster(), statement("b", (9, 9), own(b, admin, kept)), &["b"]));
        assert_eq!((town.admins(), town.settings()), (vec!["a", "c"], None));
    }
}

#[test]
fn a_node_that_has_changed_its_keys_leaves_too() {
    let mut town = Town::of(&["a", "b"]);
    let line = town.line("b");
    let next = statement("b", (0, 0), Saying::Keys(keys("b2")));
    town.take(sign(town.roster.cluster(), next, &["b", "b2", "b2 ike"]));
    let leave = town.say("b2", Saying::Gone(Gone { of: line, kept: Vec::new(), compromised: false }));
    assert!(town.roster.counts(leave));
    assert_eq!(town.names(), ["a"]);
}

/// A node that has let in more nodes than one entry can name is taken out by several entries. They count together: with
/// some of them, nobody would be in whom the others name.
#[test]
fn what_takes_out_an_admin_in_several_entries_counts_when_all_are_there() {
    let mut town = Town::of(&["a", "b"]);
    town.set_admin("a", "b", true);
    for at in 0..40 {
        town.join("b", &format!("n{at}"), 100 + at, false);
    }
    let all = town.names().len();
    for how in 0..3 {
        let (mut town, by) = (town.copy(), if how == 1 { "b" } else { "a" });
        let line = town.line("b");
        let drafts = match how {
            2 => town.roster.rights(signer(by), line, false, NOW),
            _ => town.roster.removal(signer(by), line, false, NOW),
        };
        let drafts = drafts.unwrap();
        assert!(drafts.len() > 1);
        let entries: Vec<Vec<u8>> =
            drafts.into_iter().map(|draft| sign(town.roster.cluster(), draft, &[by])).collect();
        for entry in entries.iter().skip(1) {
            assert_eq!(town.take(entry.clone()).taken, 1);
            assert_eq!((town.names().len(), town.admins().len()), (all, 2));
        }
        assert_eq!(town.take(entries[0].clone()).taken, 1);
        assert_eq!(town.names().len(), if how == 2 { all } else { all - 1 });
        assert_eq!(town.admins(), ["a"]);
    }
}
