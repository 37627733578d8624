//! What those can do who hold a key that is good for something: a token, a member's, one that was retired.

use super::people::{NOW, Town, invite, keys, off, on, set, sign, signer, site, statement};
use crate::roster::{
    Admission, ClusterTrial, DesiredProtection, EntryId, Gone, HeldOutBecause, Invite, Join, Keys, Listed,
    NotEntitled, ROSTER_MAX, Rights, Saying, Statement,
};

/// Signs as the one node and gives it to the town.
fn says(town: &mut Town, by: &str, version: (u64, u64), says: Saying) -> usize {
    let entry = sign(town.roster.cluster(), statement(by, version, says), &[by]);
    town.take(entry).taken
}

/// A join with this version, which `draft` would not give.
fn join_as(town: &Town, token: &str, name: &str, version: (u64, u64)) -> Vec<u8> {
    let says = Saying::Join(Join { site: site(name, 77), keys: keys(name) });
    sign(town.roster.cluster(), statement(token, version, says), &[token, name, &format!("{name} ike")])
}

fn trial_on(before: bool) -> Saying {
    let trial = Some(ClusterTrial { seconds: 1, before, until: None });
    Saying::Desired(DesiredProtection { on: true, trial, confirms: None })
}

/// Whoever finds a used token: in a cloud's user data, in the history of a shell.
#[test]
fn who_finds_a_used_token_does_not_push_out_who_has_used_it() {
    let mut town = Town::of(&["a", "b"]);
    for at in 0..4 {
        let says = Saying::Join(Join { site: site("b", 2), keys: keys(&format!("thief {at}")) });
        let node = format!("thief {at}");
        let signers = ["token of b", &node, &format!("{node} ike")];
        town.take(sign(town.roster.cluster(), statement("token of b", (7, at), says), &signers));
    }
    assert_eq!(town.names(), ["a", "b"]);
    assert!(town.roster.ids().count() < 4 + 4, "and is not kept without an end");
}

/// The entry of a node that joins can come in another page than its admission, after others by its token.
#[test]
fn joins_by_one_token_do_not_keep_an_admitted_node_out() {
    let mut town = Town::new();
    town.invite("a", "token", Invite { name: None, ..invite("token", "x") });
    let mut other = town.copy();
    (0..3).for_each(|at| drop(other.take(join_as(&town, "token", &format!("thief-{at}"), (7, at)))));
    let join = town.joining("token", "b", 2);
    town.take(join.clone());
    let of = town.id_of(&join);
    let admission = town.entry("a", Saying::Admission(Admission { of }));
    town.take(admission.clone());
    for _ in 0..2 {
        [&join, &admission].into_iter().for_each(|entry| drop(other.take(entry.clone())));
    }
    assert_eq!(other.names(), ["a", "b"]);
    town.meet(&mut other);
}

#[test]
fn a_member_fills_no_roster_with_admissions() {
    let mut town = Town::of(&["a", "b", "c"]);
    let before = town.roster.ids().count();
    let mut of: Vec<EntryId> = town.roster.ids().collect();
    for at in 0..200 {
        let Some(next) = of.get(at).copied() else { break };
        let says = Saying::Admission(Admission { of: next });
        let entry = sign(town.roster.cluster(), statement("b", (0, 0), says), &["b"]);
        town.take(entry);
        of = town.roster.ids().collect();
    }
    for at in 0..50 {
        let says = Saying::Admission(Admission { of: EntryId::new([at; 32]) });
        let entry = sign(town.roster.cluster(), statement("b", (0, 0), says), &["b"]);
        town.take(entry);
    }
    assert!(town.roster.ids().count() <= before + 8, "{}", town.roster.ids().count() - before);
}

/// Each key that follows could be followed by two others.
#[test]
fn a_member_fills_no_roster_with_keys() {
    let mut town = Town::of(&["a", "b"]);
    let mut open = vec!["b".to_owned()];
    for at in 0..300 {
        let by = open.remove(0);
        for fork in 0..2 {
            let next = format!("b{at}-{fork}");
            let entry = statement(&by, (0, 0), Saying::Keys(keys(&next)));
            let signers = [by.as_str(), &next, &format!("{next} ike")];
            town.take(sign(town.roster.cluster(), entry, &signers));
            open.push(next);
        }
    }
    assert!(town.roster.ids().count() < 150, "{}", town.roster.ids().count());
}

#[test]
fn a_member_that_leaves_takes_nobody_with_it_and_turns_nothing_off() {
    let mut town = Town::of(&["a", "b"]);
    town.invite("a", "token", invite("token", "c"));
    let join = town.joining("token", "c", 3);
    town.take(join.clone());
    let of = town.id_of(&join);
    town.say("b", Saying::Admission(Admission { of }));
    town.say("b", on());
    let of = town.line("b");
    says(&mut town, "b", (0, 0), Saying::Gone(Gone { of, kept: Vec::new(), compromised: false }));
    assert_eq!((town.names(), town.is_on()), (vec!["a", "c"], Some(true)));
}

#[test]
fn who_was_an_admin_gets_no_rights_back_by_leaving() {
    let mut town = Town::of(&["a", "b"]);
    town.set_admin("a", "b", true);
    town.set_admin("a", "b", false);
    let (of, a) = (town.line("b"), town.line("a"));
    let forged = [set("forged"), Saying::Gone(Gone { of: a, kept: Vec::new(), compromised: true })];
    let mut kept = Vec::new();
    for what in forged {
        let entry = sign(town.roster.cluster(), statement("b", (9, 0), what), &["b"]);
        town.take(entry.clone());
        kept.push(town.id_of(&entry));
    }
    says(&mut town, "b", (0, 0), Saying::Gone(Gone { of, kept, compromised: false }));
    assert_eq!((town.names(), town.settings()), (vec!["a"], None));
}

/// A trial that nobody confirms goes back to what was before: a member says falsely that this was off.
#[test]
fn a_member_opens_nothing_by_a_trial_that_is_to_lapse() {
    let mut town = Town::of(&["a", "b"]);
    let lapses_to = |town: &Town| {
        let desired = &town.roster.view().desired.as_ref().unwrap().says;
        desired.trial.map_or(desired.on, |trial| trial.before)
    };
    // What a member has turned on.
    town.say("b", on());
    for n in 5..9 {
        says(&mut town, "b", (0, n), trial_on(false));
    }
    assert!(lapses_to(&town));
    // What an admin has.
    town.say("a", on());
    let basis = town.roster.view().desired.as_ref().map(|desired| desired.id);
    let entry = Statement { basis, ..statement("b", (1, 5), trial_on(false)) };
    town.take(sign(town.roster.cluster(), entry, &["b"]));
    assert!(lapses_to(&town));
    // What an admin tries though it is on.
    town.say("a", trial_on(true));
    let basis = town.roster.view().desired.as_ref().map(|desired| desired.id);
    let entry = Statement { basis, ..statement("b", (2, 5), trial_on(false)) };
    town.take(sign(town.roster.cluster(), entry, &["b"]));
    assert!(lapses_to(&town));
    // It can try what is off, and lapses to that.
    town.say("a", off());
    town.say("b", trial_on(false));
    assert_eq!((town.is_on(), lapses_to(&town)), (Some(true), false));
}

#[test]
fn an_admin_gone_bad_does_not_end_all_versions() {
    let mut town = Town::of(&["a", "b"]);
    town.set_admin("a", "b", true);
    town.say("a", set("good"));
    assert_eq!(says(&mut town, "b", (1 << 48, 0), set("bad")), 1);
    assert_eq!(town.roster.draft(signer("a"), set("x"), NOW), Err(NotEntitled::NoVersion));
    town.remove("a", "b");
    assert_eq!(town.settings(), Some("good"));
    town.say("a", set("better"));
    assert_eq!(town.settings(), Some("better"));
}

/// It names as kept what an accomplice only publishes when the admin was removed.
#[test]
fn an_admin_gone_bad_leaves_no_time_bomb() {
    let mut town = Town::of(&["a", "b", "c"]);
    town.set_admin("a", "b", true);
    town.set_admin("b", "c", true);
    let bomb = sign(town.roster.cluster(), statement("c", (1 << 40, 0), set("bomb")), &["c"]);
    let id = {
        let mut there = town.copy();
        there.take(bomb.clone());
        there.id_of(&bomb)
    };
    let of = town.line("c");
    town.say("b", Saying::Gone(Gone { of, kept: vec![id], compromised: false }));
    town.remove("a", "b");
    town.take(bomb);
    assert_eq!((town.names(), town.settings()), (vec!["a"], None));
}

/// Who is an admin no more could fill the roster with what does not count.
#[test]
fn who_was_an_admin_fills_no_roster() {
    let mut town = Town::of(&["a", "b"]);
    town.set_admin("a", "b", true);
    town.set_admin("a", "b", false);
    town.fill("b", "flood");
    town.say("a", set("x"));
    let octets: usize = town.roster.in_order().map(|entry| entry.octets().len()).sum();
    assert!(octets <= ROSTER_MAX);
    assert_eq!(town.names(), ["a", "b"]);
}

#[test]
fn two_hosts_that_an_admin_has_filled_differently_agree_when_it_is_gone() {
    let mut here = Town::of(&["a", "b", "c"]);
    here.set_admin("a", "b", true);
    let mut there = here.copy();
    here.fill("b", "here");
    there.fill("b", "there");
    here.throw_out("a", "b");
    (0..4).for_each(|_| {
        here.hear(&there);
        there.hear(&here);
    });
    here.meet(&mut there);
    here.say("a", set("x"));
    here.meet(&mut there);
    assert_eq!((there.names(), there.settings()), (vec!["a", "c"], Some("x")));
}

#[test]
fn who_was_removed_holds_nobody_out() {
    let mut town = Town::of(&["a", "b", "c"]);
    town.remove("a", "b");
    let keys = keys("x");
    let says_so = statement("token of c", (0, 0), Saying::Join(Join { site: site("c", 3), keys }));
    let join = sign(town.roster.cluster(), says_so, &["token of c", "x", "x ike"]);
    town.take(join.clone());
    let of = town.id_of(&join);
    says(&mut town, "b", (0, 0), Saying::Admission(Admission { of }));
    assert_eq!(town.names(), ["a", "c"]);
}

#[test]
fn members_admit_nobody_by_a_token_that_is_over_or_in_the_place_of_another() {
    let mut town = Town::of(&["a", "b"]);
    let mut refusal = |token: &str, given: Invite, name: &str, last: u8, at: u64| {
        if !token.starts_with("token of") {
            town.invite("a", token, given);
        }
        let says = Saying::Join(Join { site: site(name, last), keys: keys(&format!("k {token}")) });
        let node = format!("k {token}");
        let signers = [token, &node, &format!("{node} ike")];
        let join = sign(town.roster.cluster(), statement(token, (0, 0), says), &signers);
        town.take(join.clone());
        let of = town.id_of(&join);
        let now = crate::types::UnixTime(at);
        town.roster.draft(signer("b"), Saying::Admission(Admission { of }), now).err()
    };
    let any = |token| Invite { name: None, ..invite(token, "x") };
    assert_eq!(refusal("t1", any("t1"), "x", 9, NOW.0), None);
    assert_eq!(refusal("t2", any("t2"), "x", 9, NOW.0 + 3601), Some(NotEntitled::TokenExpired));
    let taken = |why| Some(NotEntitled::PlaceTaken(why));
    assert_eq!(refusal("t3", any("t3"), "b", 9, NOW.0), taken(HeldOutBecause::NameTaken));
    let address = HeldOutBecause::AddressTaken([10, 0, 0, 2].into());
    assert_eq!(refusal("t4", any("t4"), "y", 2, NOW.0), taken(address));
    assert_eq!(refusal("token of b", any("t5"), "b", 8, NOW.0), Some(NotEntitled::TokenUsed));
    let none = Saying::Admission(Admission { of: EntryId::new([1; 32]) });
    assert_eq!(town.roster.draft(signer("b"), none, NOW), Err(NotEntitled::NoNode));
}

#[test]
fn the_keys_of_a_first_node_that_was_removed_are_gone_too() {
    let mut town = Town::of(&["a", "b"]);
    town.set_admin("a", "b", true);
    town.remove("b", "a");
    town.invite("b", "again", Invite { name: None, ..invite("again", "x") });
    let keys = Keys { signing: signer("new"), ike: signer("a ike") };
    let says = Saying::Join(Join { site: site("x", 9), keys });
    let join = sign(town.roster.cluster(), statement("again", (0, 0), says), &["again", "new", "a ike"]);
    town.take(join.clone());
    let of = town.id_of(&join);
    let admission = statement("b", (0, 0), Saying::Admission(Admission { of }));
    town.take(sign(town.roster.cluster(), admission, &["b"]));
    assert_eq!(town.names(), ["b"]);
}

/// It takes out the other admin and itself, on hosts that do not know of the other.
#[test]
fn no_admin_takes_out_all_admins() {
    let mut here = Town::of(&["a", "b"]);
    here.set_admin("a", "b", true);
    let (of, other) = (here.line("a"), here.line("b"));
    let gone = |of| Saying::Gone(Gone { of, kept: Vec::new(), compromised: false });
    let no_rights = |of| Saying::Rights(Rights { of, admin: false, kept: Vec::new() });
    for own in [gone(of), no_rights(of)] {
        let mut town = here.copy();
        says(&mut town, "a", (5, 0), own);
        says(&mut town, "a", (5, 0), gone(other));
        assert_eq!(town.admins(), ["a"]);
    }
}

/// Years of commands fit: of what an admin has replaced, the last words stay.
#[test]
fn what_admins_have_replaced_makes_room() {
    let mut town = Town::of(&["a", "b"]);
    let before = town.roster.ids().count();
    let line = town.line("b");
    for at in 0..40_u8 {
        town.say("a", set(&at.to_string()));
        town.say("a", if at % 2 == 0 { on() } else { off() });
        let listed = Listed { line: Some(line), site: site("b", 100 + at), foreign: false, ike: None };
        town.say("a", Saying::Node(listed));
    }
    assert!(town.roster.ids().count() <= before + 3 * 8);
    assert_eq!((town.settings(), town.is_on()), (Some("39"), Some(false)));
    town.copy().meet(&mut town);
}

/// Members take up what the newest entry rests on.
#[test]
fn an_admin_that_names_a_wrong_basis_keeps_nobody_from_turning_protection_on() {
    let mut town = Town::of(&["a", "b"]);
    for what in [on(), off(), trial_on(false)] {
        let entry = Statement { basis: Some(town.line("a")), ..statement("a", (3, 0), what) };
        town.take(sign(town.roster.cluster(), entry, &["a"]));
    }
    town.say("b", on());
    town.say("a", trial_on(true));
    town.say("b", trial_on(false));
    assert!(town.roster.view().desired.as_ref().unwrap().says.lapses_to());
    assert_eq!(town.is_on(), Some(true));
}

#[test]
fn commands_move_no_node_that_is_not_there() {
    let town = Town::of(&["a", "b"]);
    let listed = |line| Saying::Node(Listed { line, site: site("b", 9), foreign: false, ike: None });
    let draft = |line| town.roster.draft(signer("a"), listed(Some(line)), NOW);
    assert_eq!(draft(EntryId::new([1; 32])), Err(NotEntitled::NoNode));
    assert!(draft(town.line("b")).is_ok());
}
