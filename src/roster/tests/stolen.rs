//! Nodes whose keys are in other hands.

use super::people::{Town, invite, off, on, set, sign, statement};
use crate::roster::{Gone, Saying};

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
