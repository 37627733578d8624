//! What a version after this one says: it is kept and passed on, and binds nobody here.

use serde_json::{Value, json};

use super::people::{Town, key, on, signer};
use crate::roster::{ClusterId, NotTaken, Signer};

/// What all signatures of entries begin with.
const LABEL: &[u8; 32] = b"hostseal roster entry, version 1";

/// An entry that says `says`, signed by these, the first of whom says it.
fn entry(cluster: ClusterId, version: (u64, u64), says: &Value, by: &[&str]) -> Vec<u8> {
    let statement = json!({ "by": signer(by[0]), "version": [version.0, version.1], "says": says });
    signed(cluster, &serde_json::to_vec(&statement).unwrap(), by)
}

fn signed(cluster: ClusterId, json: &[u8], by: &[&str]) -> Vec<u8> {
    let message = [LABEL, cluster.octets().as_slice(), json].concat();
    let mut octets = vec![1, by.len() as u8];
    for name in by {
        octets.extend(Signer::of(&key(name)).unwrap().octets());
        octets.extend(key(name).sign(&message).unwrap());
    }
    octets.extend(json);
    octets
}

fn witness(at: u64) -> Value {
    json!({ "witness": { "of": at, "beside": ["x"] } })
}

#[test]
fn what_a_later_version_says_is_kept_and_passed_on_and_binds_nobody() {
    let mut town = Town::of(&["a", "b"]);
    let mut other = town.copy();
    let cluster = town.roster.cluster();
    let entries = [
        entry(cluster, (1, 0), &witness(1), &["a"]),
        entry(cluster, (0, 1), &witness(2), &["b"]),
        entry(cluster, (1, 1), &json!({ "relay": { "key": "what it says" } }), &["a"]),
    ];
    for entry in &entries {
        assert_eq!(town.take(entry.clone()).taken, 1);
    }
    entries.iter().rev().for_each(|entry| drop(other.take(entry.clone())));
    assert_eq!(town.roster.id(), other.roster.id());
    assert_eq!(town.names(), ["a", "b"]);
    let later: Vec<_> = town.roster.view().later.iter().map(|(kind, by)| (kind.to_string(), *by)).collect();
    let mut expected =
        [("relay", "a"), ("witness", "a"), ("witness", "b")].map(|(kind, by)| (kind.to_owned(), signer(by)));
    expected.sort();
    assert_eq!(later, expected);
    assert!(town.roster.view().conflicts.is_empty());
    for entry in &entries {
        assert!(town.roster.in_order().any(|kept| kept.octets() == entry.as_slice()), "octet by octet");
    }
    // What this version says goes on beside it.
    town.say("b", on());
    other.meet(&mut town);
}

#[test]
fn who_may_say_nothing_may_not_say_what_nobody_knows() {
    let mut town = Town::of(&["a", "b"]);
    let cluster = town.roster.cluster();
    let mut altered = entry(cluster, (1, 0), &witness(1), &["a"]);
    *altered.last_mut().unwrap() = b' ';
    let refused =
        |town: &mut Town, entry: Vec<u8>| town.take(entry).refused.into_keys().next().expect("it is refused");
    assert_eq!(
        refused(&mut town, entry(cluster, (1, 0), &witness(1), &["stranger"])),
        NotTaken::UnknownSigner
    );
    assert_eq!(refused(&mut town, altered), NotTaken::Malformed);
    let mut forged = entry(cluster, (1, 0), &witness(1), &["a"]);
    forged[2 + 40] ^= 1;
    assert_eq!(refused(&mut town, forged), NotTaken::NotSigned);
    // Its name does not say who else has signed it: whoever passes it on could add others, or take them away.
    assert_eq!(refused(&mut town, entry(cluster, (1, 0), &witness(1), &["a", "b"])), NotTaken::Malformed);
    let twice = b"{\"witness\":1,\"witness\":2}";
    let statement = [
        br#"{"by":"#.as_slice(),
        &serde_json::to_vec(&signer("a")).unwrap(),
        br#","version":[1,0],"says":"#,
        twice,
        b"}",
    ];
    assert_eq!(refused(&mut town, signed(cluster, &statement.concat(), &["a"])), NotTaken::Malformed);
    // What this version knows is not something else because it holds more.
    for says in [
        json!({ "desired": { "on": true, "more": 1 } }),
        json!({ "witness": 1, "relay": 2 }),
        json!({ "Witness": 1 }),
        json!({ "": 1 }),
        json!({ "w".repeat(33): 1 }),
        json!({ "\u{1b}[2J": 1 }),
        json!("witness"),
        json!({}),
    ] {
        assert_eq!(refused(&mut town, entry(cluster, (1, 0), &says, &["a"])), NotTaken::Malformed, "{says}");
    }
}

#[test]
fn a_member_fills_no_roster_with_what_nobody_knows() {
    let mut town = Town::of(&["a", "b"]);
    let cluster = town.roster.cluster();
    let before = town.roster.ids().count();
    for at in 0..50 {
        town.take(entry(cluster, (0, at), &witness(at), &["b"]));
    }
    assert_eq!(town.roster.ids().count(), before + 8);
}

#[test]
fn who_is_taken_out_has_said_nothing_that_a_later_version_would_count() {
    let mut town = Town::of(&["a", "b"]);
    let cluster = town.roster.cluster();
    let said = entry(cluster, (0, 1), &witness(1), &["b"]);
    town.take(said.clone());
    let id = town.id_of(&said);
    town.throw_out("a", "b");
    assert!(town.roster.view().later.is_empty());
    assert!(town.roster.get(id).is_none(), "versions that do not take it are not asked to");
    assert_eq!(town.take(said).taken, 0);
}

/// Who goes by itself takes nothing from others.
#[test]
fn what_a_node_has_said_that_leaves_counts_on() {
    let mut town = Town::of(&["a", "b"]);
    let cluster = town.roster.cluster();
    town.take(entry(cluster, (0, 1), &witness(1), &["b"]));
    town.remove("b", "b");
    assert_eq!((town.names(), town.roster.view().later.len()), (vec!["a"], 1));
}
