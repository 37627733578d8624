//! Where a node can move, and where not.

use super::*;
use crate::identity::PrivateKey;
use crate::roster::{FloatingPlace, Roster, SignedEntry, Signer};
use crate::types::UnixTime;

fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32]).unwrap()
}

fn at(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

fn site(name: &str, addresses: &[&str]) -> Site {
    Site { name: name.parse().unwrap(), addresses: at(addresses), inside: BTreeMap::new() }
}

fn say(roster: &mut Roster, says: Saying) {
    let statement = roster.draft(Signer::of(&key(1)).unwrap(), says, UnixTime(1)).unwrap();
    let entry = SignedEntry::sign(roster.cluster(), statement, &[&key(1)]).unwrap();
    assert_eq!(roster.merge([entry.octets()]).taken, 1);
}

/// a has addresses of both families, b and c one of IPv4 each, and db floats.
fn cluster() -> Roster {
    let a = site("a", &["10.0.0.1", "fd00::1"]);
    let mut roster = Roster::of_new_cluster("prod", a, [&key(1), &key(2)], &key(3)).unwrap();
    for (name, address, seed) in [("b", "10.0.0.2", 4), ("c", "10.0.0.3", 5)] {
        let ike = Some(key(seed).public().to_string().try_into().unwrap());
        let listed = Listed { line: None, site: site(name, &[address]), foreign: true, ike };
        say(&mut roster, Saying::Node(listed));
    }
    let nodes = roster.view().members.iter().map(|member| member.line).collect();
    let name = "db".parse().unwrap();
    say(&mut roster, Saying::Floating(FloatingPlace { name, addresses: at(&["10.0.0.9"]), nodes }));
    roster
}

fn line(roster: &Roster, name: &str) -> EntryId {
    roster.view().members.iter().find(|member| member.site.name.as_str() == name).unwrap().line
}

fn order(roster: &Roster, name: &str, addresses: &[&str]) -> anyhow::Result<Saying> {
    let order = MoveOrder { node: name.parse().unwrap(), addresses: at(addresses) };
    moved(roster.view(), (line(roster, name), line(roster, "a")), order)
}

#[test]
fn a_node_stays_who_it_is_wherever_it_moves() {
    let mut roster = cluster();
    for addresses in [&["10.0.0.2", "10.0.1.2"][..], &["10.0.1.2"], &["10.0.0.2"]] {
        let before = roster.view().members[1].clone();
        let says = order(&roster, "b", addresses).unwrap();
        say(&mut roster, says);
        let after = &roster.view().members[1];
        assert_eq!(after.site, site("b", addresses));
        assert_eq!((after.line, after.foreign, &after.listed_key), (before.line, true, &before.listed_key));
    }
    assert_eq!(roster.view().members[1].formerly, at(&["10.0.0.2", "10.0.1.2"]).into_iter().collect());
    // Whoever comes to where it was is not taken for it.
    let says = order(&roster, "c", &["10.0.1.2"]).unwrap();
    say(&mut roster, says);
    assert_eq!(roster.view().members[1].formerly, at(&["10.0.0.2"]).into_iter().collect());
    let says = order(&roster, "c", &["10.0.1.3"]).unwrap();
    say(&mut roster, says);
    let formerly = |at: usize| roster.view().members[at].formerly.clone();
    assert_eq!(formerly(1), at(&["10.0.0.2"]).into_iter().collect(), "c was there, too");
    assert_eq!(formerly(2), at(&["10.0.0.3"]).into_iter().collect());
    assert!(roster.view().conflicts.is_empty() && roster.view().held_out.is_empty());
}

#[test]
fn where_it_cannot_be_is_said_with_what_is_in_the_way() {
    let roster = cluster();
    for (name, addresses, words) in [
        ("b", &["10.0.0.2"][..], "b has these addresses already"),
        ("b", &["10.0.0.2", "10.0.0.2"], "b has these addresses already"),
        ("b", &[], "at least one address"),
        ("b", &["10.0.0.2", "10.0.0.3"], "10.0.0.3 is an address of the node c"),
        ("b", &["10.0.0.9"], "10.0.0.9 is among the floating addresses db"),
        ("b", &["224.0.0.1"], "224.0.0.1 is a multicast address: it cannot be the address of a node"),
        ("b", &["fe80::1"], "is link-local"),
        (
            "b",
            &["fd00::2"],
            "c has IPv4 addresses alone, so b and c would have no pair: give b an IPv4 address too",
        ),
        ("a", &["fd00::1"], "b has IPv4 addresses alone, so a and b would have no pair"),
    ] {
        let error = order(&roster, name, addresses).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    assert!(
        order(&roster, "b", &["10.0.0.2", "fd00::2"]).is_ok() && order(&roster, "a", &["10.0.1.1"]).is_ok()
    );
}

#[test]
fn who_moves_itself_hears_what_it_does_not_have_yet() {
    let roster = cluster();
    let (own, here) = (line(&roster, "a"), at(&["10.0.0.1", "fd00::1"]).into_iter().collect());
    let says = order(&roster, "a", &["10.0.0.1", "10.0.1.1"]).unwrap();
    assert_eq!(
        notes(&says, own, Some(&here)),
        ["this node does not have 10.0.1.1 yet: its pairs wait until it has"]
    );
    assert!(notes(&says, own, None).is_empty() && notes(&says, line(&roster, "b"), Some(&here)).is_empty());
}
