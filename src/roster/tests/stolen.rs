//! Nodes whose keys are in other hands, also where that is found out when they were removed long ago.

use super::people::{NOW, Town, invite, off, on, set, sign, signer, statement};
use crate::roster::{Gone, NotEntitled, Saying};

/// What an admin had left behind when it was removed counts no more when its keys turn out to be stolen; whom it let in
/// stays, and what is on stays on.
#[test]
fn a_removed_node_can_be_compromised_later() {
    for leaves in [false, true] {
        let mut town = Town::of(&["a", "b", "c"]);
        town.set_admin("a", "b", true);
        town.join("b", "d", 4, false);
        town.say("b", on());
        town.say("b", set("of b"));
        let b = town.line("b");
        town.remove(if leaves { "b" } else { "a" }, "b");
        assert_eq!((town.names(), town.settings()), (vec!["a", "c", "d"], Some("of b")));
        let again = town.roster.removal(signer("a"), b, false, NOW);
        assert_eq!(again, Err(NotEntitled::NoNode), "it is out");
        let mut there = town.copy();
        let stolen = town.roster.removal(signer("a"), b, true, NOW).unwrap();
        for stolen in stolen {
            town.take(sign(town.roster.cluster(), stolen, &["a"]));
        }
        assert_eq!((town.names(), town.settings()), (vec!["a", "c", "d"], None), "{leaves}");
        assert_eq!(town.is_on(), Some(true));
        let removed = &town.roster.view().removed;
        assert!(removed.len() == 1 && removed[0].compromised);
        assert!(town.roster.removal(signer("a"), b, true, NOW).is_err(), "it is that already");
        // Whoever hears of it later sees the same, and nothing makes it undone.
        there.meet(&mut town);
        for by in ["a", "b"] {
            let kept = there.roster.ids().collect();
            let says = Saying::Gone(Gone { of: b, kept, compromised: false });
            there.take(sign(there.roster.cluster(), statement(by, (0, 0), says), &[by]));
        }
        assert_eq!((there.names(), there.settings()), (vec!["a", "c", "d"], None), "{leaves}");
        assert!(there.roster.view().removed[0].compromised);
    }
}

/// What an admin keeps of a stolen node in several entries counts when all are there, whatever there was before.
#[test]
fn who_was_let_in_by_a_stolen_node_stays_in_meanwhile() {
    let mut town = Town::of(&["a", "b"]);
    town.set_admin("a", "b", true);
    for at in 0..40 {
        town.join("b", &format!("n{at}"), 100 + at, false);
    }
    let b = town.line("b");
    assert!(town.remove("a", "b").len() > 1);
    let all = town.names().len();
    let stolen = town.roster.removal(signer("a"), b, true, NOW).unwrap();
    assert!(stolen.len() > 1);
    let entries: Vec<_> =
        stolen.into_iter().map(|draft| sign(town.roster.cluster(), draft, &["a"])).collect();
    for (at, entry) in entries.iter().enumerate() {
        assert_eq!(town.take(entry.clone()).taken, 1);
        assert_eq!(town.names().len(), all);
        assert_eq!(town.roster.view().removed[0].compromised, at + 1 == entries.len());
    }
}

/// Whoever has the key of a node that was removed could sign that it leaves, and keep what it likes.
#[test]
fn who_was_removed_keeps_nothing_by_leaving() {
    for [admin, gone] in [["a", "b"], ["b", "a"]] {
        for compromised in [false, true] {
            let mut town = Town::of(&["a", "b", "c"]);
            town.set_admin("a", "b", true);
            let line = town.line(gone);
            town.say(admin, on());
            town.remove(admin, gone);
            let settings = sign(town.roster.cluster(), statement(gone, (9, 0), set("forged")), &[gone]);
            let open = sign(town.roster.cluster(), statement(gone, (9, 0), off()), &[gone]);
            let token = sign(
                town.roster.cluster(),
                statement(gone, (9, 0), Saying::Invite(invite("x", "x"))),
                &[gone, "x"],
            );
            let forged = [settings, open, token];
            for entry in &forged {
                town.take(entry.clone());
            }
            let kept = forged.iter().map(|entry| town.id_of(entry)).collect();
            let says = Saying::Gone(Gone { of: line, kept, compromised });
            town.take(sign(town.roster.cluster(), statement(gone, (0, 0), says), &[gone]));
            assert_eq!((town.settings(), town.is_on()), (None, Some(true)), "{gone} {compromised}");
            assert!(town.roster.view().invites.is_empty(), "{gone} {compromised}");
        }
    }
}

/// Whoever has the key of a node can say for it that it leaves and is compromised, and keep what it likes: that keeps
/// nobody from saying so with more weight.
#[test]
fn what_a_node_says_of_its_own_keys_spares_it_nothing() {
    for (by, is_removed) in [("a", false), ("a", true), ("recovery", false), ("recovery", true)] {
        let mut town = Town::of(&["a", "b", "c"]);
        town.set_admin("a", "b", true);
        town.say("b", set("forged"));
        let b = town.line("b");
        if is_removed {
            town.remove("a", "b");
        }
        let leaves = |town: &mut Town| {
            let kept = town.roster.ids().collect();
            let says = Saying::Gone(Gone { of: b, kept, compromised: true });
            town.take(sign(town.roster.cluster(), statement("b", (0, 0), says), &["b"]));
        };
        leaves(&mut town);
        let removed = &town.roster.view().removed;
        assert!(removed.len() == 1 && !removed[0].compromised, "{by} {is_removed}");
        assert_eq!(town.settings(), Some("forged"));
        for stolen in town.roster.removal(signer(by), b, true, NOW).unwrap() {
            town.take(sign(town.roster.cluster(), stolen, &[by]));
        }
        leaves(&mut town);
        assert!(town.roster.view().removed[0].compromised, "{by} {is_removed}");
        assert_eq!((town.names(), town.settings()), (vec!["a", "c"], None), "{by} {is_removed}");
    }
}
