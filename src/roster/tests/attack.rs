//! What is sent by those who mean harm.

use super::people::{NOW, Town, genesis, invite, keys, off, on, set, sign, signer, site, statement};
use crate::roster::{Admission, ClusterId, Genesis, Invite, Join, NotTaken, Roster, Saying, SignedEntry};

fn refused(town: &mut Town, entry: Vec<u8>) -> NotTaken {
    let id = town.roster.id();
    let merged = town.take(entry);
    assert_eq!((merged.taken, merged.refused.len(), town.roster.id()), (0, 1, id));
    *merged.refused.keys().next().unwrap()
}

#[test]
fn nothing_counts_that_was_altered_or_that_nobody_signed() {
    let mut town = Town::of(&["a", "b"]);
    let entry = town.entry("a", set("level = 1"));
    for at in 0..entry.len() {
        let mut altered = entry.clone();
        altered[at] ^= 1;
        let merged = town.take(altered);
        assert_eq!((merged.taken, merged.refused.len()), (0, 1), "{at}");
    }
    for length in 0..entry.len() {
        assert_eq!(town.take(entry[..length].to_vec()).taken, 0, "{length}");
    }
    let own = statement("mallory", (9, 0), set("x"));
    let unknown = sign(town.roster.cluster(), own, &["mallory"]);
    assert_eq!(refused(&mut town, unknown), NotTaken::UnknownSigner);
    assert_eq!(town.take(entry).taken, 1);
}

#[test]
fn entries_of_another_cluster_are_none_of_this_one() {
    let mut town = Town::of(&["a", "b"]);
    let says = Saying::Genesis(Genesis {
        cluster: "other".to_owned(),
        site: site("a", 1),
        keys: keys("a"),
        recovery: signer("recovery"),
    });
    let statement = statement("a", (0, 0), says);
    let other = sign(ClusterId::new([0; 32]), statement, &["a", "a ike", "recovery"]);
    let mut others = Town { roster: Roster::found(&other).unwrap() };
    assert_eq!(refused(&mut town, other), NotTaken::OtherCluster);
    // The same keys have signed it, for the other one.
    let settings = others.entry("a", set("x"));
    assert_eq!(others.take(settings.clone()).taken, 1);
    assert_eq!(refused(&mut town, settings), NotTaken::NotSigned);
}

#[test]
fn a_member_says_nothing_that_is_for_admins() {
    let mut town = Town::of(&["a", "b", "c"]);
    let (a, c) = (town.line("a"), town.line("c"));
    let gone = |of| Saying::Gone(crate::roster::Gone { of, kept: Vec::new(), compromised: false });
    let rights = |of| Saying::Rights(crate::roster::Rights { of, admin: true, kept: Vec::new() });
    let listed = |line| {
        let site = site("x", 66);
        Saying::Node(crate::roster::Listed { line, site, foreign: true, ike: None })
    };
    let b = town.line("b");
    let says = [off(), set("x"), gone(a), gone(c), rights(b), rights(c), listed(None), listed(Some(c))];
    for says in says {
        let entry = sign(town.roster.cluster(), statement("b", (7, 7), says), &["b"]);
        assert_eq!(refused(&mut town, entry), NotTaken::NotEntitled);
    }
    let invite = statement("b", (7, 0), Saying::Invite(Invite { name: None, ..invite("own", "x") }));
    let invite = sign(town.roster.cluster(), invite, &["b", "own"]);
    assert_eq!(refused(&mut town, invite), NotTaken::NotEntitled);
}

/// Nobody raises the first half of a version but an admin, or makes one up.
#[test]
fn a_member_cannot_outbid_an_admin() {
    let mut town = Town::of(&["a", "b"]);
    town.say("a", off());
    let basis = town.roster.view().desired.as_ref().map(|desired| desired.id);
    for (basis, version) in
        [(None, (2, 0)), (basis, (2, 0)), (None, (1 << 48, 0)), (basis, (1 << 48, 1 << 48))]
    {
        let bid = crate::roster::Statement { basis, ..statement("b", version, on()) };
        let entry = sign(town.roster.cluster(), bid, &["b"]);
        assert_eq!(refused(&mut town, entry), NotTaken::NotEntitled);
    }
    // Within the admin's, as far as it likes: the admin's next word counts nevertheless.
    let high = crate::roster::Statement { basis, ..statement("b", (1, 1 << 48), on()) };
    let high = sign(town.roster.cluster(), high, &["b"]);
    assert_eq!(town.take(high).taken, 1);
    assert_eq!(town.is_on(), Some(true));
    town.say("a", off());
    assert_eq!(town.is_on(), Some(false));
    let beyond = statement("a", ((1 << 48) + 1, 0), set("x"));
    let beyond = sign(town.roster.cluster(), beyond, &["a"]);
    assert_eq!(refused(&mut town, beyond), NotTaken::Malformed);
}

/// Who holds a token can sign for its own keys alone.
#[test]
fn a_token_makes_nobody_out_of_the_keys_of_others() {
    let mut town = Town::of(&["a", "b"]);
    town.invite("a", "token", Invite { name: None, ..invite("token", "x") });
    for stolen in [keys("b"), crate::roster::Keys { signing: signer("x"), ike: signer("b ike") }] {
        let says = Saying::Join(Join { site: site("x", 66), keys: stolen.clone() });
        let honest = statement("token", (0, 0), says);
        let signers = honest.signers();
        let own = Saying::Join(Join { site: site("x", 66), keys: keys("x") });
        let own = sign(town.roster.cluster(), statement("token", (0, 0), own), &["token", "x", "x ike"]);
        let own = SignedEntry::sign(town.roster.cluster(), honest, &[]).err().map(|_| own).unwrap();
        // What its keys have signed, under the names of the others.
        let mut forged = own.clone();
        for (at, signer) in signers.iter().enumerate() {
            let from = 2 + at * 96;
            forged[from..from + 32].copy_from_slice(signer.octets());
        }
        let merged = town.take(forged);
        assert_eq!(merged.taken, 0);
    }
}

#[test]
fn a_member_cannot_admit_who_was_not_invited() {
    let mut town = Town::of(&["a", "b"]);
    let join = town.joining("made up", "x", 66);
    assert_eq!(refused(&mut town, join), NotTaken::UnknownSigner);
    // What is no node is not admitted. What nobody knows yet may come later, and is nothing until then.
    let of = town.line("a");
    let entry =
        |of| sign(town.roster.cluster(), statement("b", (0, 0), Saying::Admission(Admission { of })), &["b"]);
    let (other, unknown) = (entry(of), entry(crate::roster::EntryId::new([7; 32])));
    assert_eq!(refused(&mut town, other), NotTaken::NotEntitled);
    assert_eq!((town.take(unknown).taken, town.names()), (1, vec!["a", "b"]));
}

#[test]
fn what_was_replaced_does_not_come_back_when_it_is_sent_again() {
    let mut town = Town::of(&["a", "b"]);
    let first = town.entry("a", set("one"));
    town.take(first.clone());
    town.say("a", set("two"));
    let id = town.roster.id();
    assert_eq!(town.take(first).taken, 0);
    assert_eq!((town.settings(), town.roster.id()), (Some("two"), id));
}

#[test]
fn places_and_names_that_no_host_has_are_refused() {
    let town = Town::new();
    let mut wrong = Vec::new();
    for name in ["", "two words", "a/b"] {
        let json = format!("\"{name}\"");
        let mut bad = site("x", 1);
        bad.name = serde_json::from_str(&json).unwrap();
        wrong.push(bad);
    }
    for address in ["0.0.0.0", "127.0.0.1", "::1", "224.0.0.1", "ff02::1"] {
        let mut bad = site("x", 1);
        bad.addresses = vec![address.parse().unwrap()];
        wrong.push(bad);
    }
    let mut none = site("x", 1);
    none.addresses.clear();
    let mut twice = site("x", 1);
    twice.addresses.extend(twice.addresses.clone());
    let mut other = site("x", 1);
    other.inside.insert([10, 9, 9, 9].into(), [10, 8, 8, 8].into());
    wrong.extend([none, twice, other]);
    for site in wrong {
        let mut town = town.copy();
        let says = Saying::Node(crate::roster::Listed { line: None, site, foreign: true, ike: None });
        let entry = sign(town.roster.cluster(), statement("a", (1, 0), says), &["a"]);
        assert_eq!(refused(&mut town, entry), NotTaken::Malformed);
    }
}

#[test]
fn a_roster_begins_with_an_entry_that_founds_one() {
    assert!(Roster::found(&genesis("a")).is_ok());
    let town = Town::new();
    assert_eq!(Roster::found(&town.entry("a", set("x"))).err(), Some(NotTaken::Malformed));
    // Without the signature of each of its keys it founds nothing.
    let entry = genesis("a");
    for at in [2, 40, 98, 140, 194, 240] {
        let mut forged = entry.clone();
        forged[at] ^= 1;
        assert!(Roster::found(&forged).is_err(), "{at}");
    }
    assert!(town.roster.draft(signer("a"), off(), NOW).is_ok());
}
